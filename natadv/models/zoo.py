"""The models that have a name: one row each, and everything about it that is not in its files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from natadv.models.files.formats import signature_of
from natadv.types import Task

Dtype = Literal["float32", "bfloat16", "float16"]
Section = Mapping[str, int]

CLASSIFICATION: tuple[Task, ...] = ("classification",)
SEGMENTATION: tuple[Task, ...] = ("segmentation",)
VQA: tuple[Task, ...] = ("vqa",)


@dataclass(frozen=True, slots=True, kw_only=True)
class ZooRow:
    """A named model."""

    name: str
    family: str
    loader: str
    """Key of the adapter table."""
    tasks: tuple[Task, ...]
    licence: str
    architecture: str
    image_px: int
    parameters_m: float
    """Millions, as published: rounded."""
    hub: str = ""
    """Its repository on the Hugging Face hub."""
    location: str = ""
    """Or its folder, relative to the root of the repository."""
    gated: bool = False
    """Whether its licence must be accepted on its page before it can be downloaded."""
    gpu_dtype: Dtype = "float16"
    """What it computes in on a GPU."""
    activation: str | None = None
    """What its weights were trained with, where a config can be wrong about it."""
    signature: str | None = None
    """Of its architecture, where it can be known before its files are there."""
    in_paper: bool = True
    known: str = ""
    """A folder, relative to the root, of pictures that it recognises, called after what they
    show."""


def _mini(name: str, kind: str, *, activation: str | None = None) -> ZooRow:
    return ZooRow(
        name=name,
        family="mini",
        loader=f"transformers-{kind}",
        tasks=CLASSIFICATION,
        licence="Apache-2.0",
        architecture="ViT, 6 layers of 128",
        image_px=64,
        parameters_m=1.8,
        location=f"fixtures/models/{name}",
        gpu_dtype="float32",
        in_paper=False,
        known="fixtures/mini/known",
        activation=activation,
    )


_WIDTHS = {"B": (768, 12), "L": (1024, 24), "So400m": (1152, 27)}
_CLIP_TEXT = {"B": 512, "L": 768}


def _vision(size: str, patch: int, px: int) -> Section:
    width, layers = _WIDTHS[size]
    return {
        "hidden_size": width,
        "num_hidden_layers": layers,
        "patch_size": patch,
        "image_size": px,
    }


def _clip_signature(size: str, patch: int) -> str:
    text = {"hidden_size": _CLIP_TEXT[size], "num_hidden_layers": 12}
    return signature_of("clip", {"vision_config": _vision(size, patch, 224), "text_config": text})


def _clip(name: str, hub: str, size: str, patch: int, parameters_m: float) -> ZooRow:
    return ZooRow(
        name=name,
        family="clip",
        loader="transformers-clip",
        tasks=CLASSIFICATION,
        licence="MIT",
        architecture=f"ViT-{size}/{patch}",
        image_px=224,
        parameters_m=parameters_m,
        hub=hub,
        activation="quick_gelu",
        signature=_clip_signature(size, patch),
    )


def _robust(
    name: str, hub: str, size: str, patch: int, *, activation: str, in_paper: bool = True
) -> ZooRow:
    return ZooRow(
        name=name,
        family="robust-clip",
        loader="open-clip",
        tasks=CLASSIFICATION,
        licence="MIT",
        architecture=f"ViT-{size}/{patch}",
        image_px=224,
        parameters_m={"B/32": 151.3, "B/16": 149.6, "L/14": 427.6}[f"{size}/{patch}"],
        hub=hub,
        # The ViT-L/14 were tuned from OpenAI's weights, the ViT-B from LAION's.
        activation=activation,
        in_paper=in_paper,
    )


def _siglip2(size: str, patch: int, px: int, parameters_m: float, *, in_paper: bool) -> ZooRow:
    long = {"B": "base", "L": "large", "So400m": "so400m"}[size]
    short = {"B": "b", "L": "l", "So400m": "so400m-"}[size]
    width, layers = _WIDTHS[size]
    sections = {
        "vision_config": _vision(size, patch, px),
        "text_config": {"hidden_size": width, "num_hidden_layers": layers},
    }
    return ZooRow(
        name=f"siglip2-{short}{patch}-{px}",
        family="siglip2",
        loader="transformers-siglip",
        tasks=CLASSIFICATION,
        licence="Apache-2.0",
        architecture=f"ViT-{size}/{patch}",
        image_px=px,
        parameters_m=parameters_m,
        hub=f"google/siglip2-{long}-patch{patch}-{px}",
        signature=signature_of("siglip", sections),
        in_paper=in_paper,
    )


def _naflex(size: str, patch: int, parameters_m: float) -> ZooRow:
    long, short = {"B": ("base", "b"), "So400m": ("so400m", "so400m-")}[size]
    width, layers = _WIDTHS[size]
    sections = {
        "vision_config": {
            "hidden_size": width,
            "num_hidden_layers": layers,
            "patch_size": patch,
            "num_patches": 256,
        },
        "text_config": {"hidden_size": width, "num_hidden_layers": layers},
    }
    return ZooRow(
        name=f"siglip2-{short}{patch}-naflex",
        family="siglip2",
        loader="transformers-siglip2",
        tasks=CLASSIFICATION,
        licence="Apache-2.0",
        architecture=f"ViT-{size}/{patch}, NaFlex",
        # Of a square picture: 256 patches, whatever the proportions.
        image_px=16 * patch,
        parameters_m=parameters_m,
        hub=f"google/siglip2-{long}-patch{patch}-naflex",
        signature=signature_of("siglip2", sections),
        in_paper=False,
    )


_GEMMA2 = {3: (2304, 26), 10: (3584, 42)}


def _paligemma2(billions: int, px: int, *, kind: str = "pt") -> ZooRow:
    width, layers = _GEMMA2[billions]
    sections = {
        "vision_config": _vision("So400m", 14, px),
        "text_config": {"hidden_size": width, "num_hidden_layers": layers},
    }
    return ZooRow(
        name=f"paligemma2-{billions}b-{kind}-{px}",
        family="paligemma2",
        loader="paligemma",
        tasks=VQA,
        licence="Gemma",
        # The tower is of the first SigLIP, whatever the family is called in the paper.
        architecture=f"SigLIP So400m/14 + Gemma 2, {billions} B",
        image_px=px,
        parameters_m=billions * 1000,
        hub=f"google/paligemma2-{billions}b-{kind}-{px}",
        gated=True,
        gpu_dtype="bfloat16",
        signature=signature_of("paligemma", sections),
        in_paper=kind == "pt",
    )


def _opt(width: int, layers: int) -> Section:
    return {"hidden_size": width, "num_hidden_layers": layers}


def _blip2(name: str, language: str, parameters_m: float, *, text: Section) -> ZooRow:
    return ZooRow(
        name=name,
        family="blip2",
        loader="blip-2",
        tasks=VQA,
        licence="MIT",
        architecture=f"EVA ViT-g/14 + Q-Former + {language}",
        image_px=224,
        parameters_m=parameters_m,
        hub=f"Salesforce/{name}",
        # Flan-T5 overflows in float16.
        gpu_dtype="bfloat16" if "flan" in name else "float16",
        signature=signature_of("blip-2", {"text_config": text}),
    )


_ROWS: tuple[ZooRow, ...] = (
    _mini("mini-clip", "clip", activation="gelu"),
    _mini("mini-siglip", "siglip"),
    _clip("clip-vit-b32", "openai/clip-vit-base-patch32", "B", 32, 151.3),
    _clip("clip-vit-b16", "openai/clip-vit-base-patch16", "B", 16, 149.6),
    _clip("clip-vit-l14", "openai/clip-vit-large-patch14", "L", 14, 427.6),
    ZooRow(
        name="clip-rn50",
        family="clip-rn",
        loader="open-clip",
        tasks=CLASSIFICATION,
        licence="MIT",
        architecture="ResNet-50",
        image_px=224,
        parameters_m=102.0,
        hub="timm/resnet50_clip.openai",
        activation="quick_gelu",
    ),
    _robust("fare2-l14", "chs20/fare2-clip", "L", 14, activation="quick_gelu"),
    _robust("fare4-l14", "chs20/fare4-clip", "L", 14, activation="quick_gelu"),
    _robust("fare4-b32", "chs20/FARE4-ViT-B-32-laion2B-s34B-b79K", "B", 32, activation="gelu"),
    _robust("fare4-b16", "chs20/FARE4-ViT-B-16-laion2B-s34B-b88K", "B", 16, activation="gelu"),
    _robust("tecoa2-l14", "chs20/tecoa2-clip", "L", 14, activation="quick_gelu"),
    _robust("tecoa4-l14", "chs20/tecoa4-clip", "L", 14, activation="quick_gelu"),
    _robust(
        "tecoa4-b32",
        "chs20/TeCoA4-ViT-B-32-laion2B-s34B-b79K",
        "B",
        32,
        activation="gelu",
        in_paper=False,
    ),
    _robust(
        "tecoa4-b16",
        "chs20/TeCoA4-ViT-B-16-laion2B-s34B-b88K",
        "B",
        16,
        activation="gelu",
        in_paper=False,
    ),
    _siglip2("B", 16, 224, 400, in_paper=True),
    _siglip2("B", 16, 512, 400, in_paper=True),
    _siglip2("L", 16, 256, 900, in_paper=True),
    _siglip2("L", 16, 512, 900, in_paper=True),
    _siglip2("B", 32, 256, 400, in_paper=False),
    _siglip2("B", 16, 256, 400, in_paper=False),
    _siglip2("B", 16, 384, 400, in_paper=False),
    _siglip2("L", 16, 384, 900, in_paper=False),
    _siglip2("So400m", 14, 224, 1000, in_paper=False),
    _siglip2("So400m", 14, 384, 1000, in_paper=False),
    _siglip2("So400m", 16, 256, 1000, in_paper=False),
    _siglip2("So400m", 16, 384, 1000, in_paper=False),
    _siglip2("So400m", 16, 512, 1000, in_paper=False),
    _naflex("B", 16, 400),
    _naflex("So400m", 16, 1000),
    _paligemma2(3, 224),
    _paligemma2(3, 448),
    _paligemma2(10, 224),
    _paligemma2(10, 448),
    _paligemma2(3, 224, kind="mix"),
    _paligemma2(3, 448, kind="mix"),
    _blip2("blip2-opt-2.7b", "OPT-2.7B", 3800, text=_opt(2560, 32)),
    _blip2("blip2-opt-6.7b", "OPT-6.7B", 7800, text=_opt(4096, 32)),
    _blip2("blip2-flan-t5-xl", "Flan-T5-XL", 4100, text={"d_model": 2048, "num_layers": 24}),
    _blip2("blip2-flan-t5-xxl", "Flan-T5-XXL", 12100, text={"d_model": 4096, "num_layers": 24}),
    ZooRow(
        name="clipseg-rd64-refined",
        family="clipseg",
        loader="clipseg",
        tasks=SEGMENTATION,
        licence="Apache-2.0",
        architecture="ViT-B/16 + decoder of 64",
        image_px=352,
        parameters_m=150.7,
        hub="CIDAS/clipseg-rd64-refined",
        activation="quick_gelu",
        # No signature: decoders of other widths have one and the same towers.
        in_paper=False,
    ),
)

ZOO: dict[str, ZooRow] = {row.name: row for row in _ROWS}
"""In the order of preference: of two rows of one architecture, a folder descends from the first."""

PAPER = "paper"
"""Means the 22 models of the paper."""


def families() -> tuple[str, ...]:
    return tuple(dict.fromkeys(row.family for row in ZOO.values()))


def rows_named(name: str) -> tuple[ZooRow, ...]:
    """The rows that a name, a hub id, a family or `paper` means; empty if it means none."""
    if name == PAPER:
        return tuple(row for row in ZOO.values() if row.in_paper)
    if name in ZOO:
        return (ZOO[name],)
    return tuple(row for row in ZOO.values() if name in (row.family, row.hub) and name)

"""The layouts of checkpoints on disk, and what their files state, read without torch."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from natadv.errors import ModelError, listed
from natadv.models.files import checkpoint, open_clip_folder, tensor_files
from natadv.models.files.model_types import Kind

TOWER_LOADER = "open-clip-visual"
TOWER_ENDINGS = (".pt", ".pth")
TOWER_AXES = {"class_embedding": 1, "positional_embedding": 2, "conv1.weight": 4, "proj": 2}
"""Tensors of every ViT of open_clip, and their numbers of axes."""

GroundingRole = Literal["grounding-dino", "sam"]
"""The `model_type` of a checkpoint that finds boxes or draws masks in them."""


class GroundingNeeds(NamedTuple):
    """What such a checkpoint must have."""

    preprocessing: tuple[str, ...]
    """Keys that a processor would fill with defaults of its own."""
    reads_text: bool


GROUNDING: dict[GroundingRole, GroundingNeeds] = {
    "grounding-dino": GroundingNeeds(("image_mean", "image_std", "size"), reads_text=True),
    "sam": GroundingNeeds(("image_mean", "image_std", "size", "pad_size"), reads_text=False),
}


@dataclass(frozen=True, slots=True)
class CheckpointLayout:
    """One way to store a checkpoint; the functions raise ModelError."""

    fits: Callable[[Path], bool]
    """Whether a path looks like this layout, even if it is incomplete."""
    check: Callable[[Path], object]
    """Refuses a checkpoint that is incomplete or not safe to load."""
    kind: Callable[[Path], Kind]
    content_files: Callable[[Path], tuple[Path, ...]]
    """Every file that decides an answer."""


def is_tower(path: Path) -> bool:
    """Whether it is a picture tower alone, in open_clip's names, as Robust CLIP was published: a
    file of torch.save, or a safetensors file with the tensors of a tower."""
    if not path.is_file():
        return False
    if path.suffix == ".safetensors":
        return TOWER_AXES.keys() <= tensor_files.shapes(path).keys()
    return path.suffix in TOWER_ENDINGS


def tower_section(path: Path) -> dict[str, int]:
    """The shape of a picture tower, in the keys of the `vision_config` of transformers.

    Raises ModelError unless the file holds the picture tower of a ViT.
    """
    shapes = tensor_files.shapes(path)
    if missing := [name for name, axes in TOWER_AXES.items() if len(shapes.get(name, ())) != axes]:
        raise ModelError(
            f"{path}: expected the picture tower of an open_clip ViT, but {', '.join(missing)} is "
            f"not in it ({listed(sorted(shapes))} is); save model.visual.state_dict(), or "
            "give a whole model as a folder"
        )
    width, _, patch, _ = shapes["conv1.weight"]
    blocks = {name.split(".")[2] for name in shapes if name.startswith("transformer.resblocks.")}
    # The first position is that of the class token.
    side = math.isqrt(max(shapes["positional_embedding"][0] - 1, 0))
    return {
        "hidden_size": width,
        "num_hidden_layers": len(blocks),
        "patch_size": patch,
        "image_size": side * patch,
    }


def tower_kind(path: Path) -> Kind:
    """The kind of a lone picture tower; its signature is that of its shape."""
    signature = json.dumps({"open_clip_visual": tower_section(path)}, sort_keys=True)
    return Kind(TOWER_LOADER, ("classification",), "robust-clip", signature)


def check_grounding(folder: Path, *roles: GroundingRole) -> None:
    """Raise ModelError unless the checkpoint has one of the roles (by default any), is complete,
    and is safe to load."""
    stated, wanted = _model_type(folder), roles or tuple(GROUNDING)
    for role in wanted:
        if role == stated:
            checkpoint.check_files(folder, **GROUNDING[role]._asdict())
            return
    raise ModelError(
        f"{folder / checkpoint.CONFIG}: expected a checkpoint of model_type "
        f"{' or '.join(map(repr, wanted))}, got {stated!r:.80}; see natadv annotate masks --help "
        "for the models that it takes"
    )


def _model_type(folder: Path) -> object:
    """None if the config cannot be read: other checks report what is wrong then."""
    try:
        return checkpoint.read_json(folder / checkpoint.CONFIG).get("model_type")
    except ModelError:
        return None


def _grounding_kind(folder: Path) -> Kind:
    raise ModelError(
        f"{folder} finds boxes or draws masks for natadv annotate masks; it does no task by "
        "itself, so it cannot be judged: name another model"
    )


LAYOUTS = (
    CheckpointLayout(
        fits=open_clip_folder.fits,
        check=open_clip_folder.check,
        kind=open_clip_folder.kind,
        content_files=open_clip_folder.content_files,
    ),
    CheckpointLayout(
        fits=is_tower,
        check=tower_section,
        kind=tower_kind,
        # The files of the base belong to the base.
        content_files=lambda path: (path,),
    ),
    CheckpointLayout(
        fits=lambda folder: _model_type(folder) in tuple(GROUNDING),
        check=check_grounding,
        kind=_grounding_kind,
        content_files=checkpoint.content_files,
    ),
    CheckpointLayout(
        fits=lambda path: True,
        check=checkpoint.check,
        kind=checkpoint.kind,
        content_files=checkpoint.content_files,
    ),
)
"""The first that fits is taken; the last one explains what is missing."""


def layout_of(path: Path) -> CheckpointLayout:
    """The layout of a folder or a file."""
    return next(layout for layout in LAYOUTS if layout.fits(path))

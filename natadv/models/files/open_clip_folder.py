"""What a folder of open_clip holds, read without torch, so that a bad one is refused early."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from natadv.config import Strict
from natadv.errors import ModelError
from natadv.models.files import checkpoint, tensor_files
from natadv.models.files.model_types import MODEL_TYPES, Kind

LOADER = "open-clip"
CONFIG = "open_clip_config.json"
WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
"""In the order in which open_clip prefers them."""

BEFORE_IT_WAS_WRITTEN = {"interpolation": "bicubic", "resize_mode": "shortest"}
"""What open_clip always did before it had these keys: a file with neither is from that time."""


_Size = Annotated[int, Field(ge=1)]
_Colours = Annotated[list[float], Field(min_length=3, max_length=3)]


class _ConfigSection(Strict):
    """An object of the config. A field without a default is one that open_clip would silently fill
    with a default of its own."""

    @model_validator(mode="before")
    @classmethod
    def _drop_keys_that_are_off(cls, content: Any) -> Any:
        # A null is like no key; an unknown key that is off asks for nothing.
        if not isinstance(content, dict):
            return content
        return {k: v for k, v in content.items() if v is not None and (v or k in cls.model_fields)}


class _VisionConfig(_ConfigSection):
    image_size: _Size
    width: _Size
    layers: Any
    """A number, or for a ResNet the list of the numbers of each stage."""
    patch_size: _Size | None = None
    head_width: _Size | None = None
    mlp_ratio: Any = None
    ls_init_value: Any = None
    patch_dropout: Any = None
    act_kwargs: Any = None
    norm_kwargs: Any = None

    @model_validator(mode="after")
    def _has_patches(self) -> Self:
        if not isinstance(self.layers, list) and self.patch_size is None:
            raise ValueError("a patch_size in vision_cfg, as for every ViT")
        return self


class _TokenizerOptions(_ConfigSection):
    clean: Literal["lower", "canonicalize", "whitespace"] | None = None


class _TextConfig(_ConfigSection):
    context_length: _Size
    vocab_size: _Size
    width: _Size
    heads: _Size
    layers: Any
    mlp_ratio: Any = None
    ls_init_value: Any = None
    act_kwargs: Any = None
    norm_kwargs: Any = None
    tokenizer_kwargs: _TokenizerOptions = _TokenizerOptions()


class _ModelConfig(_ConfigSection):
    embed_dim: _Size
    vision_cfg: _VisionConfig
    text_cfg: _TextConfig
    quick_gelu: Any = None
    init_logit_scale: Any = None
    init_logit_bias: Any = None


class _PreprocessConfig(_ConfigSection):
    mean: _Colours
    std: _Colours
    size: Any = None
    mode: Literal["RGB"] = "RGB"
    interpolation: Literal["bicubic", "bilinear"] | None = None
    resize_mode: Literal["shortest", "longest", "squash"] | None = None
    fill_color: Any = None


class _OpenClipConfig(Strict):
    model_config = ConfigDict(extra="ignore")

    model_cfg: _ModelConfig
    preprocess_cfg: _PreprocessConfig


def fits(path: Path) -> bool:
    """Whether it is a folder of open_clip that transformers cannot read as well."""
    if not (path / CONFIG).is_file():
        return False
    other = path / checkpoint.CONFIG
    return (
        not other.is_file() or str(checkpoint.read_json(other).get("model_type")) not in MODEL_TYPES
    )


def check(folder: Path) -> None:
    """Raise ModelError unless `folder` holds a whole checkpoint that can be loaded safely."""
    preprocessing(folder)
    config, tensors = model_config(folder), len(tensor_files.shapes(weights_file(folder)))
    for name in ("vision_cfg", "text_cfg"):
        layers = config[name]["layers"]
        counts = layers if isinstance(layers, list) and name == "vision_cfg" else [layers]
        # Each layer has tensors of its own; with a larger number, building might never end.
        if not counts or not all(type(n) is int and 1 <= n <= tensors for n in counts):
            raise ModelError(
                f"{folder / CONFIG}: expected 'layers' in {name} to be from 1 to the {tensors} "
                f"tensors of the weights, got {layers!r:.80}; copy both from the same checkpoint"
            )


def model_config(folder: Path) -> dict[str, Any]:
    """The keyword arguments of open_clip's CLIP class."""
    config = _config(folder).model_cfg.model_dump(exclude_unset=True)
    config["text_cfg"].pop("tokenizer_kwargs", None)
    return config


def tokenizer_options(folder: Path) -> dict[str, Any]:
    """The keyword arguments of open_clip's packaged tokenizer."""
    text = _config(folder).model_cfg.text_cfg
    options = text.tokenizer_kwargs.model_dump(exclude_unset=True)
    return {"context_length": text.context_length, **options}


def preprocessing(folder: Path) -> dict[str, Any]:
    """The preprocessing that travels with the weights; no key is left to a default."""
    config = _config(folder)
    stated = config.preprocess_cfg.model_dump(exclude_unset=True)
    absent = [key for key in BEFORE_IT_WAS_WRITTEN if key not in stated]
    if len(absent) == 1:
        raise ModelError(
            f"{folder / CONFIG}: preprocess_cfg lacks {absent[0]}, and a default would feed the "
            "model other pictures than it was trained on; copy the original file"
        )
    side = config.model_cfg.vision_cfg.image_size
    if stated.get("size", side) not in (side, [side, side]):
        raise ModelError(
            f"{folder / CONFIG}: pictures of {stated['size']} pixels in preprocess_cfg, of {side} "
            "in vision_cfg; copy the original file"
        )
    return {"mode": "RGB", "fill_color": 0, **BEFORE_IT_WAS_WRITTEN, **stated, "size": side}


def weights_file(folder: Path) -> Path:
    """The file that holds the weights of both towers. Raises ModelError if there is none."""
    for name in WEIGHTS:
        if (folder / name).is_file():
            return folder / name
    raise ModelError(
        f"{folder} has {CONFIG} but none of {', '.join(WEIGHTS)}; copy or download the weights too"
    )


def signature(folder: Path) -> str:
    """Equal for checkpoints of one architecture, which may differ in weights and activation."""
    config = model_config(folder)
    vision, text = config["vision_cfg"], config["text_cfg"]
    shape = {
        "embed_dim": config["embed_dim"],
        "vision_cfg": {k: vision.get(k) for k in ("layers", "width", "patch_size", "image_size")},
        "text_cfg": {key: text[key] for key in ("layers", "width", "context_length")},
    }
    return json.dumps({"open_clip": shape}, sort_keys=True)


def kind(folder: Path) -> Kind:
    """The loader, tasks, family and signature; picture towers that are ResNets are a family."""
    resnet = isinstance(_config(folder).model_cfg.vision_cfg.layers, list)
    family = "clip-rn" if resnet else "robust-clip"
    return Kind(LOADER, ("classification",), family, signature(folder))


def content_files(folder: Path) -> tuple[Path, ...]:
    """Every file that decides an embedding; the tokenizer is a part of open_clip."""
    found = (folder / CONFIG, weights_file(folder), folder / checkpoint.DEFENCE)
    return tuple(path for path in found if path.is_file())


def _config(folder: Path) -> _OpenClipConfig:
    content = checkpoint.read_json(folder / CONFIG)
    try:
        return _OpenClipConfig.model_validate(content)
    except ValidationError as error:
        reason = _reason(error.errors(include_url=False))
        raise ModelError(f"{folder / CONFIG}: {reason}") from error


def _reason(errors: list[ErrorDetails]) -> str:
    """The most telling of the errors: missing keys, then unknown ones, then wrong values."""
    order = {"missing": 0, "extra_forbidden": 1}
    first = min(errors, key=lambda error: order.get(error["type"], 2))
    kind, (*sections, key) = first["type"], first["loc"] or ("",)
    section = str(sections[-1]) if sections else ""
    alike = [e for e in errors if e["type"] == kind and e["loc"][:-1] == first["loc"][:-1]]
    names = ", ".join(str(error["loc"][-1]) for error in alike if error["loc"])
    if kind == "missing" and section:
        return (
            f"{names} missing in {section}, and a default would make another model than was "
            "trained; copy the original file"
        )
    if kind == "extra_forbidden":
        return (
            f"{names} in {section} is not supported: only open_clip's own ResNet, ViT and text "
            "towers are, with its packaged tokenizer, of which 'clean' can be set; a model of "
            "another kind can be named as module:factory"
        )
    got = None if kind == "missing" else first["input"]
    if {"mean", "std"} & {*first["loc"]}:
        expected = "'mean' and 'std' to be three numbers"
    elif kind in ("missing", "model_type"):
        expected = f"{key!r} to be an object"
    elif kind == "literal_error":
        expected = f"{key!r} to be {first['ctx']['expected']}"
    elif kind == "value_error":
        expected = str(first["ctx"]["error"])
    else:
        square = " (the side of a square)" if key == "image_size" else ""
        expected = f"{key!r} in {section} to be a whole number from 1 on{square}"
    return f"expected {expected}, got {got!r:.80}; copy the original file"

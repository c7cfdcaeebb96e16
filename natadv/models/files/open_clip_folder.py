"""What a folder of open_clip holds, found out without torch: so that a bad one is refused early."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from natadv.errors import ModelError
from natadv.models.files import checkpoint, tensor_files
from natadv.models.files.model_types import MODEL_TYPES

LOADER = "open-clip"
CONFIG = "open_clip_config.json"
WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
"""As open_clip prefers them."""

NEEDED: Mapping[str, tuple[str, ...]] = {
    "model_cfg": ("embed_dim", "vision_cfg", "text_cfg"),
    "vision_cfg": ("image_size", "layers", "width"),
    "text_cfg": ("context_length", "vocab_size", "width", "heads", "layers"),
    "preprocess_cfg": ("mean", "std"),
}
"""Keys without which open_clip would fill in a default of its own, silently."""

OPTIONAL: Mapping[str, tuple[str, ...]] = {
    "model_cfg": ("quick_gelu", "init_logit_scale", "init_logit_bias"),
    "vision_cfg": (
        "patch_size",
        "head_width",
        "mlp_ratio",
        "ls_init_value",
        "patch_dropout",
        "act_kwargs",
        "norm_kwargs",
    ),
    "text_cfg": ("mlp_ratio", "ls_init_value", "act_kwargs", "norm_kwargs", "tokenizer_kwargs"),
    "preprocess_cfg": ("size", "mode", "interpolation", "resize_mode", "fill_color"),
}

BEFORE_IT_WAS_WRITTEN = {"interpolation": "bicubic", "resize_mode": "shortest"}
"""All that open_clip did before it had these keys: a file with neither is of that time."""

SIZES: Mapping[str, tuple[str, ...]] = {
    "model_cfg": ("embed_dim",),
    "vision_cfg": ("image_size", "width", "patch_size", "head_width"),
    "text_cfg": ("context_length", "vocab_size", "width", "heads"),
}
"""Keys that must be whole numbers of at least 1."""

CHOICES: Mapping[str, tuple[object, ...]] = {
    "mode": ("RGB",),
    "interpolation": ("bicubic", "bilinear"),
    "resize_mode": ("shortest", "longest", "squash"),
    "clean": ("lower", "canonicalize", "whitespace"),
}


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
    model_config(folder)
    tokenizer_options(folder)
    preprocessing(folder)
    _check_layers(folder, tensors=len(tensor_files.shapes(weights_file(folder))))


def model_config(folder: Path) -> dict[str, Any]:
    """The keyword arguments of open_clip's CLIP class."""
    found = _section(_config(folder), "model_cfg", folder)
    vision = _section(found, "vision_cfg", folder)
    text = _section(found, "text_cfg", folder)
    _check_sizes({"model_cfg": found, "vision_cfg": vision, "text_cfg": text}, folder)
    if not isinstance(vision["layers"], list) and "patch_size" not in vision:
        raise ModelError(
            f"{folder / CONFIG}: patch_size missing in vision_cfg; copy the file again"
        )
    text.pop("tokenizer_kwargs", None)
    return found | {"vision_cfg": vision, "text_cfg": text}


def tokenizer_options(folder: Path) -> dict[str, Any]:
    """The keyword arguments of open_clip's packaged tokenizer."""
    text = _section(_section(_config(folder), "model_cfg", folder), "text_cfg", folder)
    options = text.get("tokenizer_kwargs", {})
    if not isinstance(options, dict) or set(options) - {"clean"}:
        raise ModelError(
            f"{folder / CONFIG}: of tokenizer_kwargs only 'clean' is supported, got {options!r:.80}"
        )
    _check_choices(options, folder)
    return {"context_length": text["context_length"], **options}


def preprocessing(folder: Path) -> dict[str, Any]:
    """The preprocessing that travels with the weights, with nothing left to defaults."""
    found = _section(_config(folder), "preprocess_cfg", folder)
    absent = [key for key in BEFORE_IT_WAS_WRITTEN if key not in found]
    if len(absent) == 1:
        raise ModelError(
            f"{folder / CONFIG}: preprocess_cfg lacks {absent[0]}, and a default would feed the "
            "model other pictures than it was trained on; copy the original file"
        )
    _check_choices(found, folder)
    _check_colours(found, folder)
    side = model_config(folder)["vision_cfg"]["image_size"]
    if found.get("size", side) not in (side, [side, side]):
        raise ModelError(
            f"{folder / CONFIG}: pictures of {found['size']} pixels in preprocess_cfg, of {side} "
            "in vision_cfg; copy the original file"
        )
    return {"mode": "RGB", "fill_color": 0, **BEFORE_IT_WAS_WRITTEN, **found, "size": side}


def weights_file(folder: Path) -> Path:
    """The file that holds the weights of both towers."""
    for name in WEIGHTS:
        if (folder / name).is_file():
            return folder / name
    raise ModelError(
        f"{folder} has {CONFIG} but none of {', '.join(WEIGHTS)}; copy or download the weights too"
    )


def is_resnet(folder: Path) -> bool:
    """Whether the picture tower is a ResNet, not a ViT."""
    return isinstance(model_config(folder)["vision_cfg"]["layers"], list)


def signature(folder: Path) -> str:
    """Equal for checkpoints of one architecture, whatever their weights and activation."""
    config = model_config(folder)
    vision, text = config["vision_cfg"], config["text_cfg"]
    shape = {
        "embed_dim": config["embed_dim"],
        "vision_cfg": {k: vision.get(k) for k in ("layers", "width", "patch_size", "image_size")},
        "text_cfg": {key: text[key] for key in ("layers", "width", "context_length")},
    }
    return json.dumps({"open_clip": shape}, sort_keys=True)


def content_files(folder: Path) -> tuple[Path, ...]:
    """Every file that decides an embedding; the tokenizer is a part of open_clip."""
    return (folder / CONFIG, weights_file(folder))


def _config(folder: Path) -> dict[str, Any]:
    return checkpoint.read_json(folder / CONFIG)


def _section(parent: Mapping[str, Any], name: str, folder: Path) -> dict[str, Any]:
    """The keys of a section that are set, checked to be all that it needs and all that is known."""
    found = parent.get(name)
    if not isinstance(found, dict):
        raise ModelError(
            f"{folder / CONFIG}: expected {name!r} to be an object, got {found!r:.80}; "
            "copy the original file"
        )
    kept = {key: value for key, value in found.items() if value is not None}
    if missing := [key for key in NEEDED[name] if key not in kept]:
        raise ModelError(
            f"{folder / CONFIG}: {', '.join(missing)} missing in {name}, and a default would make "
            "another model than was trained; copy the original file"
        )
    known = {*NEEDED[name], *OPTIONAL[name]}
    # A key that is off asks for nothing, whatever it would ask for.
    if foreign := [key for key, value in kept.items() if value and key not in known]:
        raise ModelError(
            f"{folder / CONFIG}: {', '.join(foreign)} in {name} is not supported: only open_clip's "
            "own ResNet, ViT and text towers are, with its packaged tokenizer, and nothing is "
            "fetched; a model of another kind can come in as module:factory"
        )
    return {key: value for key, value in kept.items() if key in known}


def _check_sizes(sections: Mapping[str, Mapping[str, Any]], folder: Path) -> None:
    for name, keys in SIZES.items():
        for key in keys:
            size = sections[name].get(key, 1)
            if type(size) is not int or size < 1:
                square = " (the side of a square)" if key == "image_size" else ""
                raise ModelError(
                    f"{folder / CONFIG}: expected {key!r} in {name} to be a whole number from 1 on"
                    f"{square}, got {size!r:.80}; copy the original file"
                )


def _check_layers(folder: Path, *, tensors: int) -> None:
    """Each has tensors of its own. Else building what the config asks for may never end."""
    config = model_config(folder)
    for name in ("vision_cfg", "text_cfg"):
        layers = config[name]["layers"]
        # Of a ResNet those of each stage.
        counts = layers if isinstance(layers, list) and name == "vision_cfg" else [layers]
        if not counts or not all(type(n) is int and 1 <= n <= tensors for n in counts):
            raise ModelError(
                f"{folder / CONFIG}: expected 'layers' in {name} to be from 1 to the {tensors} "
                f"tensors of the weights, got {layers!r:.80}; copy both from the same checkpoint"
            )


def _check_choices(found: Mapping[str, Any], folder: Path) -> None:
    for key, choices in CHOICES.items():
        if key in found and found[key] not in choices:
            raise ModelError(
                f"{folder / CONFIG}: expected {key!r} to be one of "
                f"{', '.join(map(repr, choices))}, got {found[key]!r:.80}"
            )


def _check_colours(found: Mapping[str, Any], folder: Path) -> None:
    for key in NEEDED["preprocess_cfg"]:
        numbers = found[key]
        if (
            not isinstance(numbers, list)
            or [type(n) in (int, float) for n in numbers] != [True] * 3
        ):
            raise ModelError(
                f"{folder / CONFIG}: expected {key!r} to be three numbers, got {numbers!r:.80}"
            )

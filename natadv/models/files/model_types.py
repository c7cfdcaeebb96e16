"""The kinds of transformers checkpoint that can be loaded, and what distinguishes each."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

Sections = Mapping[str, Mapping[str, int]]

FIXED_SIZE = ("image_mean", "image_std", "resample", "size")
"""Preprocessing keys that a processor would silently fill with defaults of its own."""

NATIVE_ASPECT = ("image_mean", "image_std", "resample", "patch_size", "max_num_patches")
"""The same for pictures that are cut into as many patches as their proportions allow."""


class Kind(NamedTuple):
    """What decides how a checkpoint is loaded and named."""

    loader: str
    """Key of the adapter table."""
    tasks: tuple[str, ...]
    family: str
    signature: str
    """Equal for checkpoints of one architecture."""


@dataclass(frozen=True, slots=True)
class ModelType:
    """One `model_type` of config.json."""

    loader: str
    """Key of the adapter table."""
    tasks: tuple[str, ...]
    family: str
    """Family of a folder that descends from no row of the zoo."""
    architecture: Sections
    """The keys that distinguish architectures, by section of config.json; the values are the
    defaults of transformers."""
    preprocessing: tuple[str, ...] = FIXED_SIZE


def _vision(hidden_size: int, layers: int, patch_size: int) -> dict[str, int]:
    sizes = {"hidden_size": hidden_size, "num_hidden_layers": layers, "patch_size": patch_size}
    return {**sizes, "image_size": 224}


def _text(hidden_size: int, layers: int) -> dict[str, int]:
    return {"hidden_size": hidden_size, "num_hidden_layers": layers}


MODEL_TYPES: dict[str, ModelType] = {
    "clip": ModelType(
        loader="transformers-clip",
        tasks=("classification",),
        family="clip",
        architecture={"vision_config": _vision(768, 12, 32), "text_config": _text(512, 12)},
    ),
    "siglip": ModelType(
        loader="transformers-siglip",
        tasks=("classification",),
        family="siglip2",
        architecture={"vision_config": _vision(768, 12, 16), "text_config": _text(768, 12)},
    ),
    "siglip2": ModelType(
        loader="transformers-siglip2",
        tasks=("classification",),
        family="siglip2",
        architecture={
            # It has a number of patches where the others have the side of a square.
            "vision_config": {**_text(768, 12), "patch_size": 16, "num_patches": 256},
            "text_config": _text(768, 12),
        },
        preprocessing=NATIVE_ASPECT,
    ),
    "clipseg": ModelType(
        loader="clipseg",
        tasks=("segmentation",),
        family="clipseg",
        architecture={"vision_config": _vision(768, 12, 32), "text_config": _text(512, 12)},
    ),
    "paligemma": ModelType(
        loader="paligemma",
        tasks=("vqa",),
        family="paligemma2",
        architecture={"vision_config": _vision(1152, 27, 14), "text_config": _text(2048, 18)},
        preprocessing=(*FIXED_SIZE, "image_seq_length"),
    ),
    "blip-2": ModelType(
        loader="blip-2",
        tasks=("vqa",),
        family="blip2",
        architecture={
            "vision_config": _vision(1408, 39, 14),
            # OPT's names for its sizes, then T5's: each lacks the names of the other.
            "text_config": {**_text(768, 12), "d_model": 0, "num_layers": 0},
        },
    ),
}


def signature_of(model_type: str, sections: Sections) -> str:
    """Equal for checkpoints of one architecture, whatever their weights and vocabulary."""
    architecture = {
        name: {key: sections.get(name, {}).get(key, default) for key, default in keys.items()}
        for name, keys in MODEL_TYPES[model_type].architecture.items()
    }
    return json.dumps({"model_type": model_type, **architecture}, sort_keys=True)

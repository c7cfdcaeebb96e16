"""What kinds of checkpoint folder there are: how each is told, loaded, and compared."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from natadv.types import Task

Sections = Mapping[str, Mapping[str, int]]

FIXED_SIZE = ("image_mean", "image_std", "resample", "size")
"""Preprocessing keys without which a processor would fill in defaults of its own, silently."""

NATIVE_ASPECT = ("image_mean", "image_std", "resample", "patch_size", "max_num_patches")
"""The same for pictures that are cut into as many patches as their proportions allow."""


@dataclass(frozen=True, slots=True)
class Format:
    """One `model_type` of config.json."""

    loader: str
    """Key of the adapter table."""
    tasks: tuple[Task, ...]
    family: str
    """Of a folder that descends from no row of the zoo."""
    architecture: Sections
    """What tells architectures apart, by section of config.json; the values are what transformers
    means where the file is silent."""
    preprocessing: tuple[str, ...] = FIXED_SIZE


FORMATS: dict[str, Format] = {
    "clip": Format(
        loader="transformers-clip",
        tasks=("classification",),
        family="clip",
        architecture={
            "vision_config": {
                "hidden_size": 768,
                "num_hidden_layers": 12,
                "patch_size": 32,
                "image_size": 224,
            },
            "text_config": {"hidden_size": 512, "num_hidden_layers": 12},
        },
    ),
    "siglip": Format(
        loader="transformers-siglip",
        tasks=("classification",),
        family="siglip2",
        architecture={
            "vision_config": {
                "hidden_size": 768,
                "num_hidden_layers": 12,
                "patch_size": 16,
                "image_size": 224,
            },
            "text_config": {"hidden_size": 768, "num_hidden_layers": 12},
        },
    ),
    "siglip2": Format(
        loader="transformers-siglip2",
        tasks=("classification",),
        family="siglip2",
        architecture={
            "vision_config": {
                "hidden_size": 768,
                "num_hidden_layers": 12,
                "patch_size": 16,
                "num_patches": 256,
            },
            "text_config": {"hidden_size": 768, "num_hidden_layers": 12},
        },
        preprocessing=NATIVE_ASPECT,
    ),
    "clipseg": Format(
        loader="clipseg",
        tasks=("segmentation",),
        family="clipseg",
        architecture={
            "vision_config": {
                "hidden_size": 768,
                "num_hidden_layers": 12,
                "patch_size": 32,
                "image_size": 224,
            },
            "text_config": {"hidden_size": 512, "num_hidden_layers": 12},
        },
    ),
    "paligemma": Format(
        loader="paligemma",
        tasks=("vqa",),
        family="paligemma2",
        architecture={
            "vision_config": {
                "hidden_size": 1152,
                "num_hidden_layers": 27,
                "patch_size": 14,
                "image_size": 224,
            },
            "text_config": {"hidden_size": 2048, "num_hidden_layers": 18},
        },
        preprocessing=(*FIXED_SIZE, "image_seq_length"),
    ),
    "blip-2": Format(
        loader="blip-2",
        tasks=("vqa",),
        family="blip2",
        architecture={
            "vision_config": {
                "hidden_size": 1408,
                "num_hidden_layers": 39,
                "patch_size": 14,
                "image_size": 224,
            },
            # OPT's names for its size, then T5's: each lacks those of the other.
            "text_config": {
                "hidden_size": 768,
                "num_hidden_layers": 12,
                "d_model": 0,
                "num_layers": 0,
            },
        },
    ),
}


def signature_of(model_type: str, sections: Sections) -> str:
    """Equal for checkpoints of one architecture, whatever their weights and vocabulary."""
    known = FORMATS[model_type].architecture
    filled = {
        name: {key: sections.get(name, {}).get(key, default) for key, default in keys.items()}
        for name, keys in known.items()
    }
    return json.dumps({"model_type": model_type, **filled}, sort_keys=True)

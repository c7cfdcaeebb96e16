"""The kinds of transformers checkpoint that can be loaded, and what distinguishes each."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

Sections = Mapping[str, Mapping[str, int]]


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
    """A row of `model_types.tsv`: one `model_type` of config.json."""

    loader: str
    """Key of the adapter table."""
    tasks: tuple[str, ...]
    family: str
    """Family of a folder that descends from no row of the zoo."""
    architecture: Sections
    """The keys that distinguish architectures, by section of config.json; the values are the
    defaults of transformers."""
    preprocessing: tuple[str, ...]
    """Keys that a processor would silently fill with defaults of its own."""


# SigLIP 2 in NaFlex has a number of patches where the others have the side of a square. BLIP-2 has
# OPT's names for the sizes of its text tower, then T5's: each lacks the names of the other.
MODEL_TYPES: dict[str, ModelType] = {
    row["model_type"]: ModelType(
        loader=row["loader"],
        tasks=tuple(row["tasks"].split(",")),
        family=row["family"],
        architecture={name: json.loads(row[name]) for name in ("vision_config", "text_config")},
        preprocessing=tuple(row["preprocessing"].split(",")),
    )
    for row in csv.DictReader(
        Path(__file__).with_name("model_types.tsv").read_text(encoding="utf-8").splitlines(),
        delimiter="\t",
        quoting=csv.QUOTE_NONE,
    )
}


def signature_of(model_type: str, sections: Sections) -> str:
    """Equal for checkpoints of one architecture, which may differ in weights and vocabulary."""
    architecture = {
        name: {key: sections.get(name, {}).get(key, default) for key, default in keys.items()}
        for name, keys in MODEL_TYPES[model_type].architecture.items()
    }
    return json.dumps({"model_type": model_type, **architecture}, sort_keys=True)

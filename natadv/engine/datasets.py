"""A dataset that was found: its folder and its card."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from natadv.data.card import Card, find_datasets, load_card


@dataclass(frozen=True, slots=True)
class Dataset:
    name: str
    folder: Path
    card: Card


def load_datasets(root: Path) -> Mapping[str, Dataset]:
    """Every dataset under `root`, by name."""
    return {
        name: Dataset(name, folder, load_card(folder))
        for name, folder in find_datasets(root).items()
    }

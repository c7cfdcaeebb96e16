"""Datasets on disk: a name, a folder and a card."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from natadv.data.card import Card, dataset_folder, find_datasets, load_card


@dataclass(frozen=True, slots=True)
class Dataset:
    """A packed dataset, found by name."""

    name: str
    folder: Path
    card: Card


def undrawable(dataset: Dataset, clean: Dataset | None) -> str:
    """Why the pictures of `dataset` cannot be drawn on those of `clean`; empty if they can be, or
    are stored."""
    card = dataset.card
    if not card.drawn:
        return ""
    needs = (
        f"the pictures of {dataset.name!r} are drawn on those of {card.twin_of!r} of revision "
        f"{str(card.twin_revision)[:12]}"
    )
    if clean is None:
        return f"{needs}, which is not there; run dvc pull fixtures/datasets/{card.twin_of}"
    if clean.card.revision != card.twin_revision:
        return (
            f"{needs}, but {clean.card.revision[:12]} is there; run dvc pull, or pack "
            f"{dataset.name!r} again"
        )
    return ""


def dataset_named(name: str, root: Path) -> Dataset:
    """Raises UnknownNameError, or DataError if its card is broken."""
    folder = dataset_folder(name, root)
    return Dataset(name, folder, load_card(folder))


def load_datasets(root: Path) -> Mapping[str, Dataset]:
    """Every dataset under `root`, by name."""
    return {
        name: Dataset(name, folder, load_card(folder))
        for name, folder in find_datasets(root).items()
    }

"""Keeps attacks as counter-examples: one file each, and a dataset for all on the same pictures."""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TextIO

from natadv.data.card import DATASETS_FOLDER, Card
from natadv.data.packing import pack
from natadv.data.reader import iter_columns
from natadv.errors import ConfigError, DataError
from natadv.evaluate.datasets import Dataset
from natadv.pipelines.overlay_dataset import (
    OverlaidPicture,
    OverlayRows,
    clean_dataset,
    overlay_draft,
)
from natadv.places import children
from natadv.scenarios.typographic.overlay_text import OverlayText
from natadv.scenarios.typographic.population import DrawnOverlay
from natadv.search.result import Attack, read_attack, write_attack
from natadv.search.samples import samples_of
from natadv.search.standalone import dataset_of

FOLDER = Path("fixtures") / "counterexamples"


@dataclass(frozen=True, slots=True)
class FreezePlan:
    """The settings of a counter-example."""

    file: Path
    name: str = ""
    """If empty, `usual_name`."""
    root: Path = Path()
    force: bool = False
    stream: TextIO = field(default_factory=lambda: sys.stderr)


@dataclass(frozen=True, slots=True)
class CounterexampleSet:
    """The dataset of all counter-examples on the pictures of another dataset."""

    folder: Path
    card: Card
    counterexamples: tuple[str, ...]
    left_out: dict[str, str]
    """Id of a row that was left out -> why."""


def freeze(plan: FreezePlan) -> Path:
    """Copy the attack to the counter-examples, unless it is one already. Returns the path.

    Raises:
        NatadvError: Its pictures do not exist, or another counter-example has its name.
    """
    attack = read_attack(plan.file)
    if not attack.run:
        raise DataError(
            f"{plan.file}: does not name the run that found it; take a file that natadv search or "
            "the gate has written"
        )
    samples_of(attack, dataset_of(attack, root=plan.root, file=plan.file))
    name = plan.name or usual_name(attack)
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,63}", name):  # as datasets are named
        raise ConfigError(
            "a counter-example is named with up to 64 small letters, digits, '.', '_' and '-', "
            f"got {name!r}"
        )
    path = plan.root / FOLDER / f"{name}.json"
    if not path.exists():
        write_attack(path, attack)
    # The same attack from another run is not written again.
    elif read_attack(path).model_copy(update={"run": attack.run}) != attack:
        if not plan.force:
            raise ConfigError(
                f"{path}: another attack is frozen there; choose another --name, or replace it "
                "with --force"
            )
        write_attack(path, attack)
    return path


def usual_name(attack: Attack) -> str:
    """As `classification-mini-clip-dog-cat`, of plain letters only."""
    words: list[str] = []
    for text in (attack.task, attack.model, attack.subject, attack.text):
        plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
        words.append(re.sub(r"[^a-z0-9._]+", "-", plain).strip("-._"))
    return "-".join(filter(None, words))[:64].rstrip("-._")


def pack_counterexamples(
    data: str, *, root: Path = Path(), stream: TextIO | None = None
) -> CounterexampleSet:
    """Write the dataset of all counter-examples on `data`: a row for each picture of each one.

    A run that was killed continues and ends with the same bytes.

    Raises:
        NatadvError: No counter-example is on it, or one does not fit.
    """
    source = clean_dataset(data, root)
    attacks = _frozen(source, root)
    name = f"{data}-counterexamples"
    folder = root / DATASETS_FOLDER / name
    each = (
        f"{name} ({attack.text!r} against {attack.model}, run {attack.run})"
        for name, attack in attacks.items()
    )
    description = (
        f"Counter-examples: overlays that flipped a model on pictures of {source.name}, each on "
        f"the pictures that it was found on. {', '.join(each)}."
    )
    draft = overlay_draft(source.card, name=name, description=description)
    made = pack(folder, _rows(source, attacks).plan(draft), force=True, stream=stream)
    return CounterexampleSet(folder, made.card, tuple(attacks), made.left_out)


def _frozen(source: Dataset, root: Path) -> dict[str, Attack]:
    """The counter-examples on the pictures of `source`, by name."""
    attacks: dict[str, Attack] = {}
    for path in (p for p in children(FOLDER, root).values() if p.suffix == ".json"):
        attack = read_attack(path)
        if attack.dataset == source.name:
            samples_of(attack, dataset_of(attack, root=root, file=path))
            attacks[path.stem] = attack
    if not attacks:
        raise ConfigError(
            f"{root / FOLDER}: holds no counter-example on {source.name!r}; freeze one with natadv "
            "freeze FILE"
        )
    return attacks


def _rows(source: Dataset, attacks: Mapping[str, Attack]) -> OverlayRows:
    """The rows of the counter-examples, picture by picture in the order of `source`."""
    on: dict[str, list[DrawnOverlay]] = {}
    for name, attack in attacks.items():
        for picture in attack.pictures:
            on.setdefault(picture, []).append(replace(attack.drawn, id=name))
    columns = iter_columns(source.folder, source.card, ("id",))
    pictures = [OverlaidPicture(row, on[c["id"]]) for row, c in enumerate(columns) if c["id"] in on]
    texts = {name: OverlayText(attack.text, attack.decoy) for name, attack in attacks.items()}
    return OverlayRows(source, pictures, texts)

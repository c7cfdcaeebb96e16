"""A small repository whose gate is red, and green once the model is put right.

Everything in it is real: two models of the mini world, pictures that are imported as a user imports
his own, and a contract made of what one of the models reached.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import NamedTuple

from natadv.data.card import DATASETS_FOLDER
from natadv.data.importers import FORMATS, ImportRequest, import_dataset
from natadv.data.reader import read_samples
from natadv.errors import ConfigError, DataError
from natadv.evaluate.datasets import dataset_named
from natadv.gate.rules import Rule, Thresholds, Tier, TierGrid
from natadv.models.resolve import resolve_one
from natadv.pipelines.typographic_twins import TypoPlan, make_typographic
from natadv.places import CONTRACT, EVIDENCE
from natadv.starter.repository import (
    GatedModel,
    StarterFile,
    cells_for,
    gated_model,
    starter_files,
    template,
)
from natadv.storage.atomic import writing

RELEASED, CANDIDATE = "mini-siglip", "mini-clip"
"""The first one was trained to ignore words, the second one reads them: as good on clean pictures,
and what a gate is for."""
MODEL, RELEASE, PICTURES, DATASET, ATTACKED = (
    "checkpoint",
    "released",
    "pictures",
    "animals",
    "animals-typo",
)
SOURCE, PART = "mini", "seen"
PER_CLASS = 16
RECIPE = "post-it"

GUIDE = Path("EXAMPLE.md")
OWN = tuple(map(Path, (MODEL, RELEASE, PICTURES)))
"""What the example brings beside the files of every gate."""
DATASETS = tuple(DATASETS_FOLDER / name for name in (DATASET, ATTACKED))


class Example(NamedTuple):
    """An example that was made, in a folder of its own."""

    model: GatedModel
    files: tuple[StarterFile, ...]
    rules: int


def taken(root: Path) -> list[Path]:
    """What lies where the example would be made."""
    return [path for path in (CONTRACT, GUIDE, *OWN, *DATASETS) if (root / path).exists()]


def make_example(root: Path, *, today: date) -> Example:
    """Make models, pictures, datasets and rules under `root`, whole or not at all.

    Raises ConfigError if the mini world is not installed, and StoreError if nothing can be written.
    """
    remedy = "run it in a folder that you may write to"
    with (
        writing(root, remedy=remedy),
        tempfile.TemporaryDirectory(prefix=".natadv-init-", dir=root) as made_in,
    ):
        made = Path(made_in)
        _make_datasets(made)
        _copy_model(RELEASED, made / MODEL)
        model = gated_model(f"./{MODEL}", root=made)
        cells = cells_for(model, root=made, named=(DATASET, ATTACKED))
        rules = measured_rules(model, cells, root=made, today=today)
        (made / MODEL).rename(made / RELEASE)
        _copy_model(CANDIDATE, made / MODEL)
        files = tuple(_files(model, cells, rules, root=made))
        for path in (*OWN, *DATASETS):
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.move(made / path, root / path)
    return Example(model, files, len(rules))


def _make_datasets(root: Path) -> None:
    """Pictures as files, one folder for each class; imported; and with wrong words on them."""
    try:
        source = dataset_named(SOURCE, root)
    except ConfigError as error:
        raise ConfigError(
            "the example is made of the mini world; get it by pip install 'natadv[mini]'"
        ) from error
    card, seen = source.card, dict.fromkeys(source.card.classes, 0)
    for sample in read_samples(source.folder, card, start=0, stop=card.rows):
        name = card.classes[int(sample.label or 0)]
        if sample.part == PART and seen[name] < PER_CLASS:
            seen[name] += 1
            path = root / PICTURES / name / f"{sample.id}.webp"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(sample.image)
    request = ImportRequest(
        format=FORMATS["imagefolder"], path=root / PICTURES, name=DATASET, licence=card.licence
    )
    import_dataset(request, root=root)
    make_typographic(TypoPlan(source=DATASET, name=ATTACKED, recipes=(RECIPE,), seed=1, root=root))


def _copy_model(name: str, folder: Path) -> None:
    shutil.copytree(resolve_one(name, root=folder.parent, wanted="to copy").folder, folder)


def measured_rules(
    model: GatedModel, cells: list[str], *, root: Path, today: date
) -> tuple[Rule, ...]:
    """The rules that a run of the model gives, as `natadv calibrate --write` writes them.

    Raises DataError if the model could not be measured.
    """
    # Imported here because they load what computes.
    from natadv.evaluate.grid import Request, make_grid
    from natadv.gate.calibrate import proposals
    from natadv.plugin.artifacts import write_all_evidence
    from natadv.plugin.session import measuring_session

    tier = Tier(MODEL, (TierGrid((model.name,), tuple(cells)),))
    thresholds = Thresholds(MODEL, 0.95, {MODEL: tier}, rules=())
    grid = make_grid(Request(root=root, models=(model.given,), tier=MODEL), thresholds)
    session = measuring_session(grid, device="cpu")
    session = session.select(session.grid.cases).compute()
    if lacking := [why for case in session.selected for why in session.shortfalls(case)]:
        raise DataError(f"{model.given}: could not be measured: {'; '.join(lacking)}")
    evidence = root / EVIDENCE
    write_all_evidence(session, evidence)
    return proposals(evidence, str(today), None).rules


def _files(
    model: GatedModel, cells: list[str], rules: tuple[Rule, ...], *, root: Path
) -> Iterator[StarterFile]:
    from natadv.gate.calibrate import to_yaml

    for file in starter_files(model, cells, root=root):
        if file.path == CONTRACT:
            purpose = f"what must run and what must hold, by what {RELEASE}/ reached"
            yield StarterFile(CONTRACT, purpose, f"{file.content}\n{to_yaml(rules)}")
        else:
            yield file
    yield StarterFile(GUIDE, "read this first: red, why, green", template("EXAMPLE.md"))

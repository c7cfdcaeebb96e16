"""What the evidence of one or several runs says about models, as the figures need it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple

from natadv.columns import NOTHING
from natadv.errors import ConfigError, MetricError, unknown_name
from natadv.evidence import Evidence, StoredCase
from natadv.figures.gaps import CONFIDENCE, Scores, scores_of
from natadv.gate.cases import stored_cases
from natadv.metrics import measure
from natadv.models.zoo import ZOO, ZooRow
from natadv.types import PAPER_SUFFIX, WAY, Case, Measurement

Kind = Literal["clip", "robust-clip", "siglip", "blip2", "other"]
"""What the paper's findings compare."""

_KINDS: Mapping[str, Kind] = {
    "clip": "clip",
    "clip-rn": "clip",
    "robust-clip": "robust-clip",
    "siglip2": "siglip",
    # Whose answers the paper reports as those of SigLIP2.
    "paligemma2": "siglip",
    "blip2": "blip2",
}
_MINI_KINDS: Mapping[str, Kind] = {"transformers-clip": "clip", "transformers-siglip": "siglip"}
"""By loader."""
MINI = "mini"
TASKS_OF_PAPER = ("classification", "segmentation", "vqa")
SCENARIOS_OF_PAPER = ("clean", "typographic", "natural", "langadv")
"""What the paper's figures and findings are about; cases of others are not shown."""


class Cell(NamedTuple):
    """A dataset under a task: what a bar or an axis of the radar stands for."""

    task: str
    scenario: str
    dataset: str


class Score(NamedTuple):
    """A metric of a case, or why there is none."""

    found: Measurement | None
    why: str = ""


@dataclass(frozen=True, slots=True)
class Measured:
    """The cases of some models that were measured."""

    cases: Mapping[Case, StoredCase]
    unreadable: tuple[str, ...]
    """Why folders of cases could not be read."""
    robust: Mapping[str, str] = field(default_factory=dict)
    """Checkpoint -> the model that it is a robust variant of."""

    @property
    def models(self) -> tuple[str, ...]:
        """All models in the order of the zoo, others behind them; a model comes before the ways in
        which it is asked."""
        order = {name: i for i, name in enumerate(ZOO)}

        def place(model: str) -> tuple[int, str]:
            return order.get(base_name(model), len(order)), model

        return tuple(sorted({case.model for case in self.cases}, key=place))

    @property
    def shown(self) -> tuple[str, ...]:
        """The models of the figures: one that is also fed as in the paper is shown as trained."""
        models = set(self.models)
        return tuple(
            name
            for name in self.models
            if not (name.endswith(PAPER_SUFFIX) and name.removesuffix(PAPER_SUFFIX) in models)
        )

    def cells(self, task: str) -> tuple[Cell, ...]:
        """All datasets of a task; the clean ones first, then scenario by scenario."""
        order = SCENARIOS_OF_PAPER
        known = {Cell(*case.cell.split("/")) for case in self.cases if case.task == task}
        found = [cell for cell in known if cell.scenario in order]
        return tuple(sorted(found, key=lambda cell: (order.index(cell.scenario), cell.dataset)))

    def attacks(self, task: str) -> tuple[Cell, ...]:
        """Its natural adversarial datasets."""
        return tuple(cell for cell in self.cells(task) if cell.scenario != "clean")

    def clean(self, task: str, model: str) -> Cell | None:
        """The clean dataset that the others of the model are compared with: the twins of its
        attacked pictures, or else the first one."""
        cells = [c for c in self.cells(task) if c.scenario == "clean" and self.has(c, model)]
        twins = {s.manifest.twin_of for case, s in self.cases.items() if case.model == model}
        return next((cell for cell in cells if cell.dataset in twins), cells[0] if cells else None)

    def has(self, cell: Cell, model: str) -> bool:
        """Whether the case was measured."""
        return Case(*cell, model) in self.cases

    def score(self, cell: Cell, model: str, *, metric: str) -> Score:
        """A metric of a case."""
        if (stored := self.cases.get(Case(*cell, model))) is None:
            return Score(None, "not measured")
        if stored.manifest.problems:
            return Score(None, stored.manifest.problems[0])
        try:
            own = Evidence(stored.outcomes["attack"])
            return Score(measure(metric, own, confidence=CONFIDENCE))
        except MetricError as error:
            return Score(None, str(error))

    def scores(self, cell: Cell, model: str) -> Scores | None:
        """The score of each sample; None if there are none that could be compared."""
        stored = self.cases.get(Case(*cell, model))
        if stored is None or stored.manifest.problems:
            return None
        return scores_of(stored.outcomes["attack"], cell.task)

    def twins(self, clean: Cell, attack: Cell, model: str) -> Scores | None:
        """The scores of the clean twins of attacked samples, under the names of those. None if they
        are not the samples of `clean`, or were not measured."""
        stored, before = self.cases.get(Case(*attack, model)), self.scores(clean, model)
        if stored is None or before is None or stored.manifest.twin_of != clean.dataset:
            return None
        own = stored.outcomes["attack"]
        rows = before.id.rows_of(own.twin)
        kept = rows != NOTHING
        return Scores(own.id.take(kept), own.group.take(kept), before.value[rows[kept]])

    def kind(self, model: str) -> Kind:
        """What a model counts as in the paper's findings."""
        if model in self.robust:
            return "robust-clip"
        row = row_of(model)
        if row is None:
            return "other"
        return (_MINI_KINDS if row.family == MINI else _KINDS).get(
            row.loader if row.family == MINI else row.family, "other"
        )

    def family(self, model: str) -> str:
        """The models that share a line of the radar: those of a family of the zoo. Models of the
        mini world and checkpoints of other names stand alone. Ways of asking are apart."""
        row = row_of(model)
        if row is None or row.family == MINI:
            return model
        return row.family + model.removeprefix(base_name(model))


def base_name(model: str) -> str:
    """The name of a model without the way in which it is asked."""
    return model.partition(WAY)[0]


def row_of(model: str) -> ZooRow | None:
    """The row of the zoo of that very name."""
    return ZOO.get(base_name(model))


def read_measured(
    folders: Sequence[Path],
    *,
    models: Sequence[str] = (),
    data: Sequence[str] = (),
    robust: Mapping[str, str] | None = None,
) -> Measured:
    """The evidence in all of the folders.

    Args:
        models: Names or globs; all models if there are none. A name includes the same model fed
            as in the paper.
        data: Names of datasets or globs; all datasets if there are none.
        robust: Checkpoint -> the model that it is a robust variant of.

    Raises:
        ConfigError: There is no such folder or no case in it, two folders hold a case, or a dataset
            was changed between two cases.
        UnknownNameError: No case is of a model or dataset that was named.
    """
    cases: dict[Case, StoredCase] = {}
    unreadable: list[str] = []
    for folder in folders:
        found, broken = stored_cases(folder)
        unreadable += broken.values()
        if twice := sorted(set(found) & set(cases)):
            raise ConfigError(
                f"{folder}: {twice[0]} is in another folder of evidence too; give one of them"
            )
        cases |= found
    _check_revisions(cases)
    known = sorted({case.model for case in cases})
    named = dict(robust or {})
    for wanted in (*models, *named, *named.values()):
        if not any(_means(wanted, model) for model in known):
            raise unknown_name("model of the evidence", wanted, known)
    datasets = sorted({case.dataset for case in cases})
    for wanted in data:
        if not any(fnmatchcase(name, wanted) for name in datasets):
            raise unknown_name("dataset of the evidence", wanted, datasets)
    kept = {
        case: stored
        for case, stored in cases.items()
        if (not models or any(_means(wanted, case.model) for wanted in models))
        and (not data or any(fnmatchcase(case.dataset, wanted) for wanted in data))
    }
    if not kept:
        listed = ", ".join(map(str, folders))
        raise ConfigError(f"{listed}: no readable evidence of a case; run the suites first")
    return Measured(kept, tuple(unreadable), named)


def _check_revisions(cases: Mapping[Case, StoredCase]) -> None:
    revisions: dict[str, str] = {}
    for case, stored in cases.items():
        own = stored.manifest.data_revision
        if revisions.setdefault(case.dataset, own) != own:
            raise ConfigError(
                f"{case}: measured on revision {own[:12]} of {case.dataset}, other cases on "
                f"{revisions[case.dataset][:12]}; measure them on one"
            )


@cache
def _means(wanted: str, model: str) -> bool:
    return fnmatchcase(model, wanted) or fnmatchcase(model.removesuffix(PAPER_SUFFIX), wanted)

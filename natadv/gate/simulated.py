"""Runs that differ from a measured one by chance alone, or by a loss that was planted in them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from natadv.evidence import CaseEvidence, Evidence
from natadv.gate.cases import CasePlan
from natadv.metrics.correctness import GRADES
from natadv.rng import rng_for
from natadv.tasks import TASKS
from natadv.types import Case, DoubleArray, IntArray, Outcomes

_TEXTS = ("part", "decoy", "truth", "prediction")
"""Columns that a drawn row keeps; its names are made unique."""

Values = Mapping[str, DoubleArray]


@dataclass(frozen=True, slots=True)
class DrawnCase:
    """A case of a simulated run, with the rows of the measured one that it consists of."""

    found: CaseEvidence
    rows: IntArray
    """Of the measured outcomes, shape (n,)."""
    copies: IntArray
    """The draw that each row belongs to, from 0, shape (n,)."""

    @property
    def plan(self) -> CasePlan:
        """What the case would have been planned to be."""
        found = self.found
        facts = found.data_revision, found.weights, found.protocol
        return CasePlan(found.case, found.case.model, found.evidence.attack.n, *facts)


@final
class ResampledCase:
    """A case whose source pictures can be drawn again, each with all of its rows."""

    def __init__(self, found: CaseEvidence, *, lineage: str) -> None:
        self.found, self.lineage = found, lineage
        rows_by_picture: dict[str, list[int]] = defaultdict(list)
        for row, group in enumerate(found.evidence.attack.group):
            rows_by_picture[group].append(row)
        self.pictures = tuple(sorted(rows_by_picture))
        self._rows = [np.array(rows_by_picture[name], dtype=np.int64) for name in self.pictures]
        self._score = GRADES[TASKS[found.case.task].score].score(found.evidence.attack)

    @property
    def case(self) -> Case:
        """Its address."""
        return self.found.case

    @property
    def n(self) -> int:
        """Rows."""
        return self.found.evidence.attack.n

    @property
    def mean_score(self) -> float:
        """How right its answers are, 0 to 1."""
        return float(self._score.mean())

    def picked(self, *key: object) -> IntArray:
        """As many pictures as were measured, drawn with replacement. Cases on the same pictures get
        the same ones, as in a real run."""
        rng = rng_for("simulated", *key, self.pictures)
        return rng.integers(len(self.pictures), size=len(self.pictures))

    def drawn(self, picks: IntArray) -> DrawnCase:
        """The case on these pictures. Clean twins and controls are drawn with their rows; samples
        without an outcome are left out."""
        rows = np.concatenate([self._rows[pick] for pick in picks])
        copies = np.repeat(np.arange(len(picks)), [len(self._rows[pick]) for pick in picks])
        own = self.found.evidence
        attack = _copied(own.attack, rows, copies)
        ids, twins = list(own.attack.id), list(own.attack.twin)
        wanted = {
            (c, ids[row]): None for c, row in zip(copies.tolist(), rows.tolist(), strict=True)
        }
        of_twins = {
            (c, str(twins[row])): None
            for c, row in zip(copies.tolist(), rows.tolist(), strict=True)
            if twins[row] is not None
        }
        evidence = Evidence(
            attack,
            _named(own.clean, of_twins),
            occlusion=_named(own.occlusion, wanted),
            matched=_named(own.matched, wanted),
        )
        return DrawnCase(replace(self.found, evidence=evidence, problems=()), rows, copies)

    def with_other_answers(self, drawn: DrawnCase, *, share: float, key: object) -> CaseEvidence:
        """Another model on the drawn pictures that is exactly as good: on a `share` of them it
        answers as the measured model answers another picture, drawn from all with as many rows.

        Both models have the same distribution on each picture, so any difference is chance.
        """
        rng = rng_for("other answers", key, self.pictures)
        sizes = np.bincount(drawn.copies)
        starts = np.cumsum(sizes) - sizes
        source = drawn.rows.copy()
        for size in np.unique(sizes).tolist():
            alike = np.stack([rows for rows in self._rows if len(rows) == size])
            places = starts[sizes == size]
            places = places[rng.random(len(places)) < share]
            others = rng.integers(len(alike), size=len(places))
            source[places[:, np.newaxis] + np.arange(size)] = alike[others]
        values = self.found.evidence.attack.values
        moved = {name: np.asarray(column)[source] for name, column in values.items()}
        return _with_attack(drawn.found, _answered(drawn.found.evidence.attack, moved))

    def with_loss(self, drawn: DrawnCase, *, loss: float, key: object) -> CaseEvidence | None:
        """A worse model on the drawn pictures: whole pictures are answered wrongly, so many that
        the mean score of all pictures falls by `loss` (0 to 1).

        A larger loss with the same key hits the same pictures and more. None if there is not so
        much to lose.
        """
        share = loss / self.mean_score if self.mean_score else np.inf
        if share > 1:
            return None
        luck = rng_for("planted", key, self.pictures).random(len(self.pictures))
        lost = luck[drawn.copies] < share
        attack = drawn.found.evidence.attack
        wrong = _WRONG[TASKS[self.case.task].score](attack.values)
        values = {
            name: np.where(lost, wrong.get(name, column), column)
            for name, column in attack.values.items()
        }
        return _with_attack(drawn.found, _answered(attack, values))


def _with_attack(found: CaseEvidence, attack: Outcomes) -> CaseEvidence:
    return replace(found, evidence=replace(found.evidence, attack=attack))


def _copied(outcomes: Outcomes, rows: IntArray, copies: IntArray) -> Outcomes:
    """These rows, where each copy of a picture is a picture of its own."""
    columns: dict[str, Any] = {
        name: tuple(_texts(getattr(outcomes, name))[rows].tolist()) for name in _TEXTS
    }
    for name in ("id", "group", "twin"):
        texts = _texts(getattr(outcomes, name))[rows].tolist()
        columns[name] = tuple(
            None if text is None else f"{copy}#{text}"
            for copy, text in zip(copies.tolist(), texts, strict=True)
        )
    attributes: dict[str, Any] = {
        name: tuple(np.asarray(column)[rows].tolist())
        for name, column in outcomes.attributes.items()
    }
    values = {name: np.asarray(column)[rows] for name, column in outcomes.values.items()}
    return Outcomes(**columns, values=values, attributes=attributes)


def _named(outcomes: Outcomes | None, wanted: Mapping[tuple[int, str], None]) -> Outcomes | None:
    """The rows of `wanted` copies and ids; those that failed stay failed."""
    if outcomes is None:
        return None
    at = {name: row for row, name in enumerate(outcomes.id)}
    here = [(copy, at[name]) for copy, name in wanted if name in at]
    copies, rows = (np.array([pair[i] for pair in here], dtype=np.int64) for i in range(2))
    errors = {
        f"{copy}#{name}": outcomes.errors[name] for copy, name in wanted if name in outcomes.errors
    }
    return replace(_copied(outcomes, rows, copies), errors=errors)


def _texts(column: Sequence[str | None]) -> NDArray[np.object_]:
    return np.array(list(column), dtype=object)


def _answered(outcomes: Outcomes, values: Values) -> Outcomes:
    """The samples with other values, and with predictions that agree with them."""
    said: Iterable[str] = outcomes.prediction
    if "correct" in values:
        pairs = zip(outcomes.truth, values["correct"].tolist(), strict=True)
        said = [truth if hit else f"not {truth}" for truth, hit in pairs]
    columns: dict[str, Any] = {"prediction": tuple(said)}
    return replace(outcomes, values=values, **columns)


def _wrong_class(values: Values) -> Values:
    wrong = {"correct": np.zeros_like(values["correct"])}
    return wrong | ({"rank": np.maximum(values["rank"], 1.0)} if "rank" in values else {})


def _wrong_region(values: Values) -> Values:
    # What was found is missed; where nothing was to be found, a pixel is.
    nothing = (values["tp"] + values["fp"] + values["fn"]) == 0
    return {
        "iou": np.zeros_like(values["iou"]),
        "tp": np.zeros_like(values["tp"]),
        "fn": values["fn"] + values["tp"],
        "fp": values["fp"] + nothing,
        "tn": values["tn"] - nothing,
    }


def _wrong_answer(values: Values) -> Values:
    scores = {"accuracy", "simple", "exact"} & values.keys()
    return {name: np.zeros_like(values[name]) for name in scores}


def _wrong_place(values: Values) -> Values:
    # All relevance lies on a text; where there was none, one as large as a tenth of the picture.
    ones, zeros = np.ones_like(values["beside_text"]), np.zeros_like(values["beside_text"])
    return {
        "beside_text": zeros,
        "prediction_in_box": ones,
        "truth_in_box": ones,
        "box": np.where(values["box"] > 0, values["box"], 0.1),
        "in_mask": zeros,
        "pointing": zeros,
    }


def _unfaithful(values: Values) -> Values:
    return {
        "insertion": np.zeros_like(values["insertion"]),
        "deletion": np.ones_like(values["deletion"]),
    }


_WRONG: Mapping[str, Callable[[Values], Values]] = {
    "correct": _wrong_class,
    "iou": _wrong_region,
    "accuracy": _wrong_answer,
    "beside_text": _wrong_place,
    "insertion": _unfaithful,
}
"""By the score of a task: its values where an answer is entirely wrong."""

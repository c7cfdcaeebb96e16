"""The key findings of the paper as comparisons, each of which the evidence supports or not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from natadv.errors import MetricError
from natadv.figures.gaps import Explained, Gap, Sides, explained, gap
from natadv.figures.measured import TASKS_OF_PAPER, Cell, Measured, row_of
from natadv.models.listing import published
from natadv.tasks import TASKS
from natadv.types import PAPER_SUFFIX

Agrees = Literal["yes", "no", "open"]

FINDINGS: Mapping[str, str] = {
    "1": "Robust CLIP is less robust than standard CLIP on natural adversarial pictures",
    "2": "CLIP falls sharply on natural adversarial pictures",
    "2b": "Language-induced pictures cost CLIP the most",
    "3": "SigLIP2 is more robust than CLIP",
    "4": "BLIP2 still falls on ImageNet-A and LangAdv",
    "5": "Flan-T5 variants of BLIP2 withstand more than OPT variants",
}
"""Of section 4.4 of the paper, in our words; each claims that a gap is above 0."""

OF_ALL = ("2b",)
"""Findings that a single contradiction refutes."""


class ModelCell(NamedTuple):
    """A model on a dataset under a task."""

    cell: Cell
    model: str


@dataclass(frozen=True, slots=True)
class ScoreComparison:
    """Two mean scores, the left of which is the higher one if the finding holds."""

    finding: str
    left: ModelCell
    right: ModelCell

    @property
    def subject(self) -> str:
        """The models that are compared."""
        if self.left.model == self.right.model:
            return self.left.model
        return f"{self.left.model} minus {self.right.model}"

    @property
    def data(self) -> str:
        """The datasets that are compared."""
        if self.left.cell == self.right.cell:
            return self.left.cell.dataset
        return f"{self.left.cell.dataset} minus {self.right.cell.dataset}"

    @property
    def task(self) -> str:
        """Of both sides."""
        return self.left.cell.task


def comparisons(measured: Measured) -> list[ScoreComparison]:
    """All that the evidence can say about the findings, in their order."""
    found = [
        *_between(measured, "1", _robust_pairs(measured)),
        *_drops(measured, "2", "clip", scenarios=("typographic", "natural", "langadv")),
        *_language_first(measured),
        *_between(measured, "3", _siglip_pairs(measured)),
        *_drops(measured, "4", "blip2", scenarios=("natural", "langadv")),
        *_between(measured, "5", _language_model_pairs(measured)),
    ]
    return [one for one in found if _is_measured(measured, one)]


def _is_measured(measured: Measured, one: ScoreComparison) -> bool:
    return all(measured.scores(*place) is not None for place in (one.left, one.right))


def _of_kind(measured: Measured, kind: str) -> list[str]:
    return [model for model in measured.shown if measured.kind(model) == kind]


def _between(
    measured: Measured, finding: str, pairs: Sequence[tuple[str, str]]
) -> Iterator[ScoreComparison]:
    for left, right in pairs:
        for task in TASKS_OF_PAPER:
            for cell in measured.attacks(task):
                yield ScoreComparison(finding, ModelCell(cell, left), ModelCell(cell, right))


def _drops(
    measured: Measured, finding: str, kind: str, *, scenarios: Sequence[str]
) -> Iterator[ScoreComparison]:
    for model in _of_kind(measured, kind):
        for task in TASKS_OF_PAPER:
            clean = measured.clean(task, model)
            for cell in measured.attacks(task):
                if clean is not None and cell.scenario in scenarios:
                    yield ScoreComparison(finding, ModelCell(clean, model), ModelCell(cell, model))


def _language_first(measured: Measured) -> Iterator[ScoreComparison]:
    for model in _of_kind(measured, "clip"):
        for task in TASKS_OF_PAPER:
            cells = measured.attacks(task)
            for language in (cell for cell in cells if cell.scenario == "langadv"):
                for other in (cell for cell in cells if cell.scenario != "langadv"):
                    yield ScoreComparison("2b", ModelCell(other, model), ModelCell(language, model))


def _robust_pairs(measured: Measured) -> list[tuple[str, str]]:
    """Each robust model behind the plain ones of its architecture; a checkpoint that was named as
    robust behind the model that it was named with."""
    pairs = [(plain, robust) for robust, plain in measured.robust.items()]
    for robust in _of_kind(measured, "robust-clip"):
        own = row_of(robust)
        for plain in _of_kind(measured, "clip"):
            of = row_of(plain)
            if own is not None and of is not None and own.architecture == of.architecture:
                pairs.append((plain, robust))
    return pairs


def _siglip_pairs(measured: Measured) -> list[tuple[str, str]]:
    """Each SigLIP2 before the CLIP of the same architecture, or else of the same size (ViT-B or
    ViT-L), or else before the largest one."""
    plain = [(m, row) for m in _of_kind(measured, "clip") if (row := row_of(m)) is not None]
    pairs = []
    for model in _of_kind(measured, "siglip"):
        own = row_of(model)
        if own is None or not plain:
            continue
        size = own.architecture.partition("/")[0]
        nearest, _ = max(
            plain,
            key=lambda one: (
                one[1].architecture == own.architecture,
                one[1].architecture.partition("/")[0] == size,
                one[1].parameters_m,
            ),
        )
        pairs.append((model, nearest))
    return pairs


def _language_model_pairs(measured: Measured) -> list[tuple[str, str]]:
    """The smaller variants beside each other, and the larger ones."""
    pairs = (("blip2-flan-t5-xl", "blip2-opt-2.7b"), ("blip2-flan-t5-xxl", "blip2-opt-6.7b"))
    return [pair for pair in pairs if set(pair) <= set(measured.shown)]


def gap_of(measured: Measured, one: ScoreComparison) -> Gap:
    """The gap as the models of the evidence were fed. Raises MetricError."""
    return gap(_sides(measured, one, {}))


def agrees(found: Gap) -> Agrees:
    """Whether the evidence supports a gap above 0."""
    if not found.clear:
        return "open"
    return "yes" if found.low > 0 else "no"


class Artefact(NamedTuple):
    """A comparison under both feedings."""

    comparison: ScoreComparison
    found: Explained
    published: float | None
    """The gap of the published numbers, if the paper has both."""

    @property
    def verdict(self) -> str:
        """What the feeding did to the gap, in words."""
        paper, trained, share, low, high = self.found
        if share is None:
            return "no clear gap as the paper fed it: nothing to explain"
        claimed = "" if paper.value > 0 else "against the paper's claim; "
        if low <= 0 <= high:
            return f"{claimed}no clear effect"
        if high < 0:
            return f"{claimed}the feeding hides a part"
        if not trained.clear:
            return f"{claimed}no clear gap is left when fed as trained"
        turned = trained.value * paper.value < 0
        part = "the ranking turns round when fed as trained" if turned else ""
        return claimed + (part or "the feeding explains a part")


def artefacts(measured: Measured, *, fed: Mapping[str, str]) -> list[Artefact]:
    """The comparisons whose models were measured under both feedings.

    Args:
        fed: Model -> the model of the evidence that stands for it fed as in the paper; `NAME@paper`
            for those that are not named.
    """
    found = []
    for one in comparisons(measured):
        as_paper = {m: fed.get(m, m + PAPER_SUFFIX) for m in (one.left.model, one.right.model)}
        both_fed = set(as_paper.values()) <= set(measured.models)
        if not both_fed or all(model == other for model, other in as_paper.items()):
            continue
        try:
            both = explained(_sides(measured, one, as_paper), _sides(measured, one, {}))
        except MetricError:
            continue  # one of the four cases is not there
        found.append(Artefact(one, both, _published_gap(one)))
    return found


def _sides(measured: Measured, one: ScoreComparison, names: Mapping[str, str]) -> Sides:
    (cell, left), (other, right) = one.left, one.right
    left, right = names.get(left, left), names.get(right, right)
    scores, after = measured.scores(cell, left), measured.scores(other, right)
    if scores is None or after is None:
        raise MetricError(f"{one.subject} was not measured on {one.data}")
    if left == right and (twins := measured.twins(cell, other, left)) is not None:
        return Sides(replace(twins, overlay=after.overlay), after, paired=True)
    return Sides(scores, after, paired=cell == other)


def _published_gap(one: ScoreComparison) -> float | None:
    values = []
    for cell, model in (one.left, one.right):
        values += [
            number.value
            for number in published()
            if (number.model, number.dataset, number.protocol) == (model, cell.dataset, "paper")
            and number.metric == TASKS[cell.task].headline
        ]
    return values[0] - values[1] if len(values) == 2 else None

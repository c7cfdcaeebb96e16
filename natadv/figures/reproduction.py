"""What was published about models, beside what was measured here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from natadv.data.card import find_datasets, load_card
from natadv.data.importers import FORMATS
from natadv.errors import DataError, MetricError
from natadv.evidence import Evidence, StoredCase
from natadv.figures.gaps import CONFIDENCE
from natadv.figures.measured import TASKS_OF_PAPER, Measured
from natadv.metrics import measure
from natadv.models.listing import Published, published
from natadv.tasks import TASKS
from natadv.tasks.classification import PAPER_TEMPLATES
from natadv.types import PAPER_SUFFIX, Case, Feeding, Measurement


class MeasuredCase(NamedTuple):
    """A case in the evidence, and why it may not be what was published."""

    case: Case
    lineage: str
    measurement: Measurement | None
    """None if the metric is not defined on it."""
    prompts: int | None
    """Templates of its dataset; None if no dataset of that revision is here."""
    problems: tuple[str, ...]
    """Why it cannot be compared."""
    remarks: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        measured = asdict(self.measurement) if self.measurement else None
        return {
            "model": self.case.model,
            "dataset": self.case.dataset,
            "measured": measured,
            "measured_prompts": self.prompts,
            "problems": list(self.problems),
            "remarks": list(self.remarks),
        }


@dataclass(frozen=True, slots=True)
class Reproduction:
    """A published number, and what was measured for it."""

    number: Published
    model: str
    """As `--model` takes it."""
    found: MeasuredCase | None
    """None if it was not measured."""

    @property
    def measurement(self) -> Measurement | None:
        """What can be compared with the number, if anything can."""
        return self.found.measurement if self.found and not self.found.problems else None

    @property
    def inside(self) -> bool:
        """Whether the measured interval contains the published number."""
        own = self.measurement
        return own is not None and own.low <= self.number.value <= own.high

    def as_json(self) -> dict[str, Any]:
        """Plain values, with `difference` and `inside` only where the two can be compared."""
        record: dict[str, Any] = {**asdict(self.number), "model": self.model, "measured": None}
        record |= self.found.as_json() if self.found else {}
        if (own := self.measurement) is None:
            return record
        return {**record, "difference": own.value - self.number.value, "inside": self.inside}


def measured_case(
    case: Case, stored: StoredCase, *, metric: str, root: Path, two_way: bool = False
) -> MeasuredCase:
    """A stored case.

    Args:
        root: Holds fixtures/, with the cards that say how many prompts a class had.
        two_way: Whether each sample must have had candidates of its own.
    """
    manifest, rows = stored.manifest, stored.outcomes["attack"]
    problems, remarks = list(manifest.problems), []
    measurement = prompts = None
    if case.task == "classification":
        prompts = _prompts(case, manifest.data_revision, root)
    try:
        measurement = measure(metric, Evidence(rows), confidence=CONFIDENCE)
    except MetricError as error:
        problems.append(str(error))
    if two_way and "choices" not in rows.values:
        problems.append("measured among all classes: import the dataset again")
    if prompts is None and case.task == "classification":
        remarks.append("prompts unknown, its dataset is not here")
    if rows.errors:
        remarks.append(f"{len(rows.errors)} pictures have no answer")
    whole = FORMATS[case.dataset].rows if case.dataset in FORMATS else 0
    if whole and manifest.planned_n != whole:
        remarks.append(f"published on {whole}")
    return MeasuredCase(
        case, manifest.lineage, measurement, prompts, tuple(problems), tuple(remarks)
    )


def with_number(found: MeasuredCase, number: Published) -> MeasuredCase:
    """The case with the reasons why it cannot be compared with this number."""
    problems = list(found.problems)
    if found.lineage != found.case.model:
        problems.append(f"a checkpoint of this name, but of the lineage {found.lineage}")
    own, theirs = found.prompts, number.prompts
    if theirs and own not in (None, theirs):
        how = "import it with other --templates"
        problems.append(f"prompts per class: {own}, published with {theirs}; {how}")
    return found._replace(problems=tuple(problems))


def _prompts(case: Case, revision: str, root: Path) -> int | None:
    """The prompts per class: those of the paper, or else the templates on the card of a dataset of
    this revision; None if there is none."""
    if case.model.endswith(PAPER_SUFFIX):
        return len(PAPER_TEMPLATES)
    folder = find_datasets(root).get(case.dataset)
    try:
        card = load_card(folder) if folder else None
    except DataError:
        return None
    return len(card.templates) if card and card.revision == revision else None


def reproductions(measured: Measured, *, root: Path) -> Iterator[MeasuredCase | Reproduction]:
    """Every measured case with each number that was published for it in the same feeding, or alone
    if there is none."""
    for model in measured.models:
        feeding: Feeding = "paper" if model.endswith(PAPER_SUFFIX) else "as-trained"
        for task in TASKS_OF_PAPER:
            metric = TASKS[task].headline
            for cell in measured.cells(task):
                if (stored := measured.cases.get(case := Case(*cell, model))) is None:
                    continue
                found = measured_case(case, stored, metric=metric, root=root)
                of_case = (model.removesuffix(PAPER_SUFFIX), cell.dataset, metric, feeding)
                numbers = [
                    number
                    for number in published()
                    if (number.model, number.dataset, number.metric, number.protocol) == of_case
                ]
                yield from [Reproduction(n, model, with_number(found, n)) for n in numbers]
                if not numbers:
                    yield found


def percent(share: float) -> str:
    """A share as `40.14 %`."""
    return f"{100 * share:.2f} %"

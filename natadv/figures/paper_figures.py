"""Which numbers of the evidence each of Figures 1 and 3 to 5 shows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from natadv.errors import ReportError, listed
from natadv.figures.measured import TASKS_OF_PAPER, Cell, Measured, Score
from natadv.figures.performance import Bars, Look, Radar, bars, radar
from natadv.plots import COLOURS
from natadv.tasks import TASKS

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class TaskInFigures(NamedTuple):
    """How figures show a task."""

    title: str
    """Of its figure of bars."""
    metrics: Mapping[str, str]
    """What that figure shows: metric -> its name."""
    short: str
    """What the task is called on an axis of the radar."""


IN_FIGURES: Mapping[str, TaskInFigures] = {
    "classification": TaskInFigures("Classification: top-1", {"top1": "top-1"}, "classify"),
    "segmentation": TaskInFigures(
        "Segmentation", {"iou_fg": "IoU (foreground)", "precision": "precision"}, "segment"
    ),
    "vqa": TaskInFigures(
        "Question answering: VQA accuracy", {"vqa_accuracy": "VQA accuracy"}, "answer"
    ),
}


def performance_figure(measured: Measured, task: str, *, width_in: float) -> Figure:
    """Figure 3, 4 or 5: the models of a task on each of its datasets. Raises ReportError if the
    task was not measured."""
    models = [m for m in measured.shown if any(measured.has(c, m) for c in measured.cells(task))]
    if not models:
        raise ReportError(f"the evidence has no case of task {task!r}")
    title, metrics, _ = IN_FIGURES[task]
    panels = [
        Bars(cell.dataset, {m: _scores(measured, cell, m, tuple(metrics)) for m in models})
        for cell in measured.cells(task)
    ]
    names = tuple(metrics.values())
    return bars(panels, Look(title, names, colours(measured, models), width_in))


def _scores(
    measured: Measured, cell: Cell, model: str, metrics: tuple[str, ...]
) -> tuple[Score, ...]:
    return tuple(measured.score(cell, model, metric=metric) for metric in metrics)


def colours(measured: Measured, models: list[str]) -> dict[str, str]:
    """A colour for each model: models of one family share it."""
    families = list(dict.fromkeys(map(measured.family, models)))
    return {m: COLOURS[families.index(measured.family(m)) % len(COLOURS)] for m in models}


def radar_of(measured: Measured) -> Radar:
    """Figure 1: the headline of each task on each adversarial dataset, averaged over the models of
    a family. It is a gap where a model of the family was not measured, because a mean over other
    models would be no longer that of the family."""
    cells = [cell for task in TASKS_OF_PAPER for cell in measured.attacks(task)]
    of_family: dict[str, list[str]] = {}
    for model in measured.shown:
        of_family.setdefault(measured.family(model), []).append(model)
    lines, absent, widest = {}, [], 0.0
    for family, models in of_family.items():
        shares: list[float | None] = []
        for cell in cells:
            asked = [
                m for m in models if any(measured.has(c, m) for c in measured.cells(cell.task))
            ]
            found = [measured.score(cell, m, metric=TASKS[cell.task].headline).found for m in asked]
            values = [one.value for one in found if one is not None]
            widest = max([widest, *((one.high - one.low) / 2 for one in found if one is not None)])
            whole = bool(values) and len(values) == len(asked)
            shares.append(sum(values) / len(values) if whole else None)
            absent += [] if whole else [f"{family} on {IN_FIGURES[cell.task].short} {cell.dataset}"]
        name = models[0] if len(models) == 1 else f"{family} ({len(models)})"
        lines[name] = tuple(shares)
    if not cells:
        raise ReportError("the evidence has no case of an adversarial scenario")
    counts = sorted(
        stored.outcomes["attack"].n
        for case, stored in measured.cases.items()
        if Cell(*case.cell.split("/")) in cells
    )
    n = f"{counts[0]}" + (f" to {counts[-1]}" if counts[-1] > counts[0] else "")
    note = f"n = {n}; 95 % intervals up to ±{100 * widest:.1f} points"
    shared = _shared_prefix([cell.dataset for cell in cells])
    note += f"; names without {shared!r}" if shared else ""
    note += f"\nnot measured: {listed(absent)}" if absent else ""
    axes = tuple(
        f"{cell.dataset.removeprefix(shared)}\n{IN_FIGURES[cell.task].short}" for cell in cells
    )
    return Radar(axes, lines, note)


def _shared_prefix(names: list[str]) -> str:
    """The word with its hyphen that all names begin with; empty if there is none."""
    prefixes = {name.partition("-")[0] + "-" for name in names}
    return prefixes.pop() if len(prefixes) == 1 and all("-" in name for name in names) else ""


def radar_figure(measured: Measured, *, width_in: float) -> Figure:
    """Figure 1. Raises ReportError if no adversarial dataset was measured."""
    title = "Accuracy (segmentation: IoU) on adversarial pictures"
    return radar(radar_of(measured), title=title, width_in=width_in)

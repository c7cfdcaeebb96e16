"""Text for the terminal: the rules of a run, failures first and why; and everything that was
measured, one line per case."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

from natadv.report.gate_json import BaselineEntry, RuleEntry, WaiverEntry
from natadv.tasks import TASKS
from natadv.types import STATES, Case, Measurement, Verdict
from natadv.wrapping import WIDTH, wrapped

NOTHING, GAP = "-", "  "

Cells = tuple[str, ...]

MARGIN = 5
"""The column that is left out where space is scarce: it follows from the value and the rule."""

SHORT = {name: short for task in TASKS.values() for name, short in task.short_names.items()}
"""Metric -> its name where space is scarce; equal for all tasks."""


@dataclass(frozen=True, slots=True)
class Row:
    """One rule of one case, a metric that no rule is about, or a case that could not be judged."""

    case: Case
    verdict: Verdict | None
    """None where nothing was asserted."""
    measurement: Measurement | None = None
    metric: str = ""
    """The metric, with the part of the dataset if the rule is about one."""
    bound: str = ""
    """As `>= 0.930`."""
    margin: float | None = None
    reason: str = ""
    """Why it is not green."""
    why: str | None = None
    """What the reason says beyond the numbers of the row; None: it has no such part."""
    rule: RuleEntry | None = None
    baseline: BaselineEntry | None = None
    waiver: WaiverEntry | None = None
    detectable: float | None = None
    """A model whose true value is this one, or worse, would FAIL in four of five runs."""

    @property
    def state(self) -> str:
        """Its verdict as a table shows it."""
        return "WAIVED" if self.waiver else self.verdict or NOTHING


class Line(NamedTuple):
    """A line of a report for people."""

    text: str
    state: str = ""
    """The verdict that it is about, for its colour; empty if it has none."""


def table(
    rows: Sequence[Row],
    *,
    confidence: float,
    width: int = WIDTH,
    passed: bool = True,
    notes: Mapping[Case, Sequence[str]] | None = None,
) -> list[Line]:
    """The rows that have a verdict below the address of their case, the worst cases first, each
    with the reason why it does not pass.

    Args:
        passed: Whether rows that pass are shown too.
        notes: What else is known of a case that does not pass.
    """
    judged = [row for row in _ordered(rows) if row.verdict is not None]
    shown = [row for row in judged if passed or row.state != "PASS"]
    if not shown:
        return []
    head = ("verdict", "metric", "value", f"{confidence * 100:g}% interval", "rule", "margin", "n")
    cells = [head, *map(_cells, shown)]
    if sum(_widths(cells)) + len(GAP) * (len(head) - 1) > width:
        cells = [(*line[:MARGIN], *line[MARGIN + 1 :]) for line in cells]
    first, *texts = aligned(cells, right={2, MARGIN, MARGIN + 1})
    below = " " * (_widths(cells)[0] + len(GAP))
    found = [Line(first)]
    for case, group in groupby(zip(shown, texts, strict=True), key=lambda pair: pair[0].case):
        of_case = list(group)
        whys = [_why(row) for row, _ in of_case]
        found.append(Line(case.address))
        for (row, text), why, next_why in zip(of_case, whys, [*whys[1:], ""], strict=True):
            found.append(Line(text, row.state))
            # Rows of a case that was not measured all say why.
            if why and why != next_why:
                found += [Line(more) for more in wrapped(why, indent=below, width=width)]
        if any(row.state != "PASS" for row, _ in of_case):
            for note in (notes or {}).get(case, ()):
                found += [Line(more) for more in wrapped(note, indent=below, width=width)]
    return found


def _why(row: Row) -> str:
    """What keeps the row from passing, as far as its numbers do not say it."""
    if row.verdict in ("PASS", None):
        return ""
    lines = row.reason.splitlines() if row.why is None else [row.why]
    texts = [line.replace(f"{row.case.address}: ", "", 1) for line in lines]
    return "; ".join(filter(None, [*texts, row.waiver.note if row.waiver else ""]))


def overview(rows: Sequence[Row], *, width: int = WIDTH) -> list[str]:
    """For each task a line per case and a column per metric, below the task's name."""
    measured: dict[str, dict[Case, dict[str, Measurement]]] = {}
    for row in rows:
        if row.measurement is not None:
            of_case = measured.setdefault(row.case.task, {}).setdefault(row.case, {})
            of_case[row.metric] = row.measurement
    lines: list[str] = []
    for task, cases in measured.items():
        cells = _task_cells(task, cases)
        for number, block in enumerate(column_blocks(cells, kept=2, width=width)):
            if number:
                # Only the first block has a line for a case without any number in it.
                block = [line for line in block if set(line[2:]) != {NOTHING}]
            lines += ["", *aligned(block, right=range(1, len(block[0])))]
    return lines[1:]


def _task_cells(task: str, cases: Mapping[Case, Mapping[str, Measurement]]) -> list[Cells]:
    columns = {
        name: short
        for name, short in TASKS[task].short_names.items()
        if any(name in of_case for of_case in cases.values())
    }
    lines = [(task, "n", *columns.values())]
    for case, of_case in cases.items():
        values = [f"{of_case[name].value:.3f}" if name in of_case else NOTHING for name in columns]
        largest_n = max(m.n for m in of_case.values())
        lines.append((case.address.removeprefix(f"{task}/"), str(largest_n), *values))
    return lines


def column_blocks(
    lines: Sequence[Cells], *, kept: int = 1, width: int = WIDTH
) -> list[list[Cells]]:
    """Tables of at most `width` characters that together have all columns; the first `kept` are in
    each of them."""
    widths = _widths(lines)
    of_kept = sum(widths[:kept]) + len(GAP) * (kept - 1)
    blocks: list[list[int]] = [[]]
    used = of_kept
    for i, of_column in enumerate(widths[kept:], start=kept):
        if blocks[-1] and used + len(GAP) + of_column > width:
            blocks.append([])
            used = of_kept
        blocks[-1].append(i)
        used += len(GAP) + of_column
    return [[(*line[:kept], *(line[i] for i in columns)) for line in lines] for columns in blocks]


def _widths(lines: Sequence[Cells]) -> list[int]:
    return [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]


def aligned(lines: Sequence[Cells], *, right: Container[int]) -> list[str]:
    """Lines of cells as text; the columns in `right` are aligned on the right."""
    widths = _widths(lines)
    return [
        GAP.join(
            text.rjust(width) if i in right else text.ljust(width)
            for i, (text, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]


def _ordered(rows: Sequence[Row]) -> list[Row]:
    """The cases with the worst rows first, and of a case its worst rows."""
    worst_first = (*STATES, NOTHING)
    worst: dict[Case, int] = {}
    for row in rows:
        state = worst_first.index(row.state)
        worst[row.case] = min(state, worst.get(row.case, state))

    def rank(row: Row) -> tuple[int, str, int]:
        """Stable: metrics of the same state keep the order in which they are listed."""
        return worst[row.case], row.case.address, worst_first.index(row.state)

    return sorted(rows, key=rank)


def _cells(row: Row) -> Cells:
    measured = row.measurement
    value = interval = n = NOTHING
    if measured is not None:
        value, n = f"{measured.value:.3f}", str(measured.n)
        interval = f"[{measured.low:.3f}, {measured.high:.3f}]"
    return (
        row.state,
        row.metric or NOTHING,
        value,
        interval,
        row.bound,
        NOTHING if measured is None or row.margin is None else f"{row.margin:+.3f}",
        n,
    )


def first_failure(rows: Sequence[Row]) -> Case | None:
    """The first case of the table that was measured and does not pass; None if there is none."""
    failing = [row for row in _ordered(rows) if row.state in ("FAIL", "INCONCLUSIVE")]
    return failing[0].case if failing else None


def reasons(rows: Sequence[Row]) -> list[str]:
    """What does not hold, each once; what is waived says by whom and until when."""
    failing = [row for row in _ordered(rows) if row.verdict not in ("PASS", None) and row.reason]
    found = [f"{r.reason}; {r.waiver.note}" if r.waiver else r.reason for r in failing]
    return list(dict.fromkeys(found))

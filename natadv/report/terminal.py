"""Text for the terminal: the progress of a run; then its rules, failures first, and everything that
was measured, one line per case."""

from __future__ import annotations

import textwrap
import threading
import time
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from natadv.report.gate_json import BaselineEntry, RuleEntry, WaiverEntry
from natadv.tasks import TASKS
from natadv.types import STATES, Case, Measurement, Verdict

NOTHING, GAP = "-", "  "
WIDTH = 100
"""Of what a report writes, in characters."""

Cells = tuple[str, ...]

HEAD = ("verdict", "case", "metric", "value", "interval", "rule", "margin", "n")

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
    rule: RuleEntry | None = None
    baseline: BaselineEntry | None = None
    waiver: WaiverEntry | None = None
    detectable: float | None = None
    """A model whose true value is this one, or worse, would FAIL in four of five runs."""

    @property
    def state(self) -> str:
        """Its verdict as a table shows it."""
        return "WAIVED" if self.waiver else self.verdict or NOTHING


def table(rows: Sequence[Row], *, confidence: float) -> list[str]:
    """The rows that have a verdict, worst first, as aligned lines below a head. If they are too
    wide with their cases, each case stands in a line above its rows."""
    head = (*HEAD[:4], f"{confidence * 100:g}% interval", *HEAD[5:])
    judged = [row for row in _ordered(rows) if row.verdict is not None]
    if not judged:
        return []
    cells = [head, *map(_cells, judged)]
    lines = aligned(cells, right=(3, 6, 7))
    if max(map(len, lines)) <= WIDTH:
        return lines
    narrow = aligned([(line[0], *line[2:]) for line in cells], right=(2, 5, 6))
    found, above = narrow[:1], None
    for row, line in zip(judged, narrow[1:], strict=True):
        if (row.case, row.state) != above:
            found.append(row.case.address)
        above = (row.case, row.state)
        found.append(line)
    return found


def overview(rows: Sequence[Row]) -> list[str]:
    """For each task a line per case and a column per metric, below the task's name."""
    measured: dict[str, dict[Case, dict[str, Measurement]]] = {}
    for row in rows:
        if row.measurement is not None:
            of_case = measured.setdefault(row.case.task, {}).setdefault(row.case, {})
            of_case[row.metric] = row.measurement
    lines: list[str] = []
    for task, cases in measured.items():
        cells = _task_cells(task, cases)
        for number, columns in enumerate(_column_blocks(_widths(cells))):
            block = [(*line[:2], *(line[i] for i in columns)) for line in cells]
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


def _column_blocks(widths: Sequence[int]) -> list[list[int]]:
    """The indices of the metrics' columns, block by block; each block repeats case and n."""
    case_and_n = widths[0] + len(GAP) + widths[1]
    blocks: list[list[int]] = [[]]
    used = case_and_n
    for i, width in enumerate(widths[2:], start=2):
        if blocks[-1] and used + len(GAP) + width > WIDTH:
            blocks.append([])
            used = case_and_n
        blocks[-1].append(i)
        used += len(GAP) + width
    return blocks


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
    # Stable: within a case the metrics keep the order in which they are listed.
    worst_first = (*STATES, NOTHING)
    return sorted(rows, key=lambda row: (worst_first.index(row.state), row.case.address))


def _cells(row: Row) -> Cells:
    measured = row.measurement
    value = interval = n = NOTHING
    if measured is not None:
        value, n = f"{measured.value:.3f}", str(measured.n)
        interval = f"[{measured.low:.3f}, {measured.high:.3f}]"
    return (
        row.state,
        row.case.address,
        row.metric or NOTHING,
        value,
        interval,
        row.bound,
        NOTHING if measured is None or row.margin is None else f"{row.margin:+.3f}",
        n,
    )


def wrapped(line: str) -> list[str]:
    """The line in pieces of at most `WIDTH` characters, broken between words."""
    return textwrap.wrap(
        line, WIDTH, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False
    ) or [""]


def reasons(rows: Sequence[Row]) -> list[str]:
    """What does not hold, each once; what is waived says by whom and until when."""
    failing = [row for row in _ordered(rows) if row.verdict not in ("PASS", None) and row.reason]
    found = [f"{r.reason}; {r.waiver.note}" if r.waiver else r.reason for r in failing]
    return list(dict.fromkeys(found))


Events = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class UnitCounts:
    """How many units of a run are computed, by all its processes together."""

    units: int
    cached: int
    done: int
    failed: int
    images: int
    elapsed_s: float

    @property
    def share(self) -> float:
        """Of the units that were not cached, 0 to 1."""
        uncached = self.units - self.cached
        return (self.done + self.failed) / uncached if uncached else 1.0

    def line(self) -> str:
        """For people: the counts, the speed and the time left."""
        ended = self.cached + self.done + self.failed
        text = f"units {ended}/{self.units} ({self.cached} cached)"
        if self.images and self.elapsed_s > 0:
            text += f", {self.images / self.elapsed_s:.0f} images/s"
        if 0 < self.share < 1:
            text += f", {self.elapsed_s * (1 - self.share) / self.share:.0f} s left"
        return text + (f", {self.failed} FAILED" if self.failed else "")


def unit_counts(events: Events, *, now: float) -> UnitCounts:
    """Count the events of a run's journal up to the time `now`."""
    plans = [e for e in events if e["kind"] == "plan"]
    done = [e for e in events if e["kind"] == "done"]
    starts = [e["t"] for e in events if e["kind"] == "start"]
    ends = [e["t"] for e in events if e["kind"] in ("done", "error")]
    units = max((e["units"] for e in plans), default=0)
    failed = sum(e["kind"] == "error" for e in events)
    # The first plan: a worker that starts later counts what the others have computed as cached.
    cached = plans[0]["cached"] if plans else 0
    over = bool(plans) and cached + len(done) + failed >= units
    until = max(ends) if over and ends else now
    return UnitCounts(
        units=units,
        cached=cached,
        done=len(done),
        failed=failed,
        images=sum(e["images"] for e in done),
        elapsed_s=max(0.0, until - min(starts)) if starts else 0.0,
    )


class UnitProgress:
    """Writes the counts while units are computed, from a thread of the controller: on a terminal
    in a line that is rewritten, in a pipe at each tenth.

    `terminal` is pytest's reporter, the one writer to the screen while pytest runs.
    """

    def __init__(self, events: Callable[[], Events], terminal: Any) -> None:
        self._events = events
        self._terminal = terminal
        self._stop = threading.Event()
        self._tenth = -1
        self._thread = threading.Thread(target=self._follow, name="natadv-progress", daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def stop(self) -> None:
        """Write the last line and end the thread; calling it again does nothing."""
        if self._stop.is_set():
            return
        self._stop.set()
        self._thread.join()
        last = unit_counts(self._events(), now=time.time())
        if last.units:
            if self._terminal.isatty:
                self._terminal.rewrite("", erase=True)
            self._write_line(last)

    def _follow(self) -> None:
        while not self._stop.wait(0.3):
            self.show(unit_counts(self._events(), now=time.time()))

    def show(self, counts: UnitCounts) -> None:
        """Write the counts of a run that has not ended; in a pipe, once per tenth."""
        if not counts.units or counts.share >= 1:
            return
        if self._terminal.isatty:
            self._terminal.rewrite(f"natadv: {counts.line()}", erase=True)
        elif int(counts.share * 10) > self._tenth:
            self._tenth = int(counts.share * 10)
            self._write_line(counts)

    def _write_line(self, counts: UnitCounts) -> None:
        self._terminal.ensure_newline()
        self._terminal.write_line(f"natadv: {counts.line()}")

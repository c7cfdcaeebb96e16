"""What a terminal shows: the rules, failures first, then everything measured, one line per case."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence

from natadv.report.rows import Row
from natadv.tasks import TASKS

ORDER = {"FAIL": 0, "INCOMPLETE": 1, "INCONCLUSIVE": 2, "PASS": 3, None: 4}
NOTHING, GAP = "-", "  "
WIDTH = 100
"""Of an overview, in characters."""

Cells = tuple[str, ...]

HEAD = ("verdict", "case", "metric", "value", "interval", "rule", "margin", "n")


def table(rows: Sequence[Row], *, confidence: float) -> list[str]:
    """The lines that a rule is behind, aligned; the first is the head."""
    head = (*HEAD[:4], f"{confidence * 100:g}% interval", *HEAD[5:])
    judged = [row for row in _ordered(rows) if row.verdict is not None]
    return aligned([head, *map(_cells, judged)], right=(3, 6, 7)) if judged else []


def overview(rows: Sequence[Row]) -> list[str]:
    """For each task a line per case and a column per metric, below the task's name."""
    measured = [row for row in rows if row.measurement is not None]
    tasks = dict.fromkeys(row.case.task for row in measured)
    blocks = [
        aligned(block, right=range(1, len(block[0])))
        for task in tasks
        for block in _folded(_cells_of_task(measured, task))
    ]
    return [line for block in blocks for line in ("", *block)][1:]


def _cells_of_task(rows: Sequence[Row], task: str) -> list[Cells]:
    found = {(r.case, r.metric): r.measurement for r in rows if r.case.task == task}
    cases = list(dict.fromkeys(case for case, _ in found))
    columns = TASKS[task].short_names
    metrics = [name for name in columns if any(name == metric for _, metric in found)]
    lines = [(task, "n", *(columns[name] for name in metrics))]
    for case in cases:
        own = {metric: m for (of, metric), m in found.items() if of == case and m is not None}
        values = [f"{own[name].value:.3f}" if name in own else NOTHING for name in metrics]
        most = max(m.n for m in own.values())
        lines.append((case.address.removeprefix(f"{task}/"), str(most), *values))
    return lines


def _folded(lines: Sequence[Cells]) -> Iterator[list[Cells]]:
    """Blocks that fit into the width. All but the first have only the lines that say something."""
    for number, columns in enumerate(_fitting(_widths(lines))):
        block = [(*line[:2], *(line[i] for i in columns)) for line in lines]
        yield block if not number else [line for line in block if set(line[2:]) != {NOTHING}]


def _fitting(widths: Sequence[int]) -> Iterator[list[int]]:
    """The places of the metrics' columns, block by block, beside case and n."""
    beside = widths[0] + len(GAP) + widths[1]
    columns: list[int] = []
    used = beside
    for place, width in enumerate(widths[2:], start=2):
        if columns and used + len(GAP) + width > WIDTH:
            yield columns
            columns, used = [], beside
        columns.append(place)
        used += len(GAP) + width
    yield columns


def _widths(lines: Sequence[Cells]) -> list[int]:
    return [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]


def aligned(lines: Sequence[Cells], *, right: Container[int]) -> list[str]:
    """Lines of cells as text; the columns in `right` end where others begin."""
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
    return sorted(rows, key=lambda row: (ORDER[row.verdict], row.case.address))


def _cells(row: Row) -> Cells:
    verdict = row.verdict or "-"
    found = row.measurement
    if found is None:
        return (verdict, row.case.address, row.metric or "-", "-", "-", row.bound, "-", "-")
    return (
        verdict,
        row.case.address,
        row.metric,
        f"{found.value:.3f}",
        f"[{found.low:.3f}, {found.high:.3f}]",
        row.bound,
        "-" if row.margin is None else f"{row.margin:+.3f}",
        str(found.n),
    )


def reasons(rows: Sequence[Row]) -> list[str]:
    """Why the run is not green, each reason once."""
    red = [row.reason for row in _ordered(rows) if row.verdict not in ("PASS", None)]
    return list(dict.fromkeys(reason for reason in red if reason))

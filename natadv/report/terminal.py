"""What a terminal shows: the rules, failures first, then everything measured, one line per case."""

from __future__ import annotations

from collections.abc import Container, Sequence

from natadv.report.rows import SHORT, Row

ORDER = {"FAIL": 0, "INCOMPLETE": 1, "INCONCLUSIVE": 2, "PASS": 3, None: 4}
HEAD = ("verdict", "case", "metric", "value", "interval", "rule", "margin", "n")


def table(rows: Sequence[Row], *, confidence: float) -> list[str]:
    """The lines that a rule is behind, aligned; the first is the head."""
    head = (*HEAD[:4], f"{confidence * 100:g}% interval", *HEAD[5:])
    judged = [row for row in _ordered(rows) if row.verdict is not None]
    return _aligned([head, *map(_cells, judged)], right=(3, 6, 7)) if judged else []


def overview(rows: Sequence[Row]) -> list[str]:
    """A line per case and a column per metric; the first line is the head."""
    values = {(r.case, r.metric): f"{r.measurement.value:.3f}" for r in rows if r.measurement}
    cases = list(dict.fromkeys(case for case, _ in values))
    metrics = [name for name in SHORT if any(name == metric for _, metric in values)]
    most = {c: max(r.measurement.n for r in rows if r.case == c and r.measurement) for c in cases}
    lines = [("measured", "n", *(SHORT[name] for name in metrics))]
    lines += [(c.address, str(most[c]), *(values.get((c, m), "-") for m in metrics)) for c in cases]
    return _aligned(lines, right=range(1, len(metrics) + 2)) if cases else []


def _aligned(lines: Sequence[tuple[str, ...]], *, right: Container[int]) -> list[str]:
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return [
        "  ".join(
            text.rjust(width) if i in right else text.ljust(width)
            for i, (text, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]


def _ordered(rows: Sequence[Row]) -> list[Row]:
    # Stable: within a case the metrics keep the order in which they are listed.
    return sorted(rows, key=lambda row: (ORDER[row.verdict], row.case.address))


def _cells(row: Row) -> tuple[str, ...]:
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

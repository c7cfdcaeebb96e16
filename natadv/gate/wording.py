"""The sentences of the verdict, and how many samples would have decided."""

from __future__ import annotations

import math

from natadv.gate.rules import Rule
from natadv.metrics.significance import upper_quantile
from natadv.types import Case, Measurement

FEW = 1_000_000
"""Beyond this many samples a suggestion is no help."""


def broken(case: Case, rule: Rule, found: Measurement) -> str:
    return _compared(case, rule, found, "<" if rule.side == "floor" else ">")


def holds(case: Case, rule: Rule, found: Measurement) -> str:
    return _compared(case, rule, found, ">=" if rule.side == "floor" else "<=")


def undecided(case: Case, rule: Rule, found: Measurement, *, level: float, strictest: float) -> str:
    needed = samples_to_decide(rule, found, level=level, strictest=strictest)
    advice = "the value lies on the bound, no number of samples would decide"
    if needed is not None:
        advice = f"about {needed} samples would decide"
    return f"{_compared(case, rule, found, 'too close to')}: {advice}"


def incomplete(case: Case, rule: Rule, reasons: tuple[str, ...]) -> str:
    return f"{case}: {rule.subject} not measured as planned: {'; '.join(reasons)}"


def samples_to_decide(
    rule: Rule, found: Measurement, *, level: float, strictest: float
) -> int | None:
    """Roughly how many samples would take the interval off the bound, were the value to stay."""
    distance = abs(rule.margin(found.value))
    towards = found.value - found.low if rule.margin(found.value) >= 0 else found.high - found.value
    if rule.side == "ceiling":
        towards = found.high - found.low - towards
    # To call it broken takes a smaller p than to call it kept, as many rules are asked at once.
    stricter = 1.0
    if not rule.holds(found.value):
        stricter = upper_quantile(strictest) / upper_quantile(level)
    if not distance > 0:
        return None
    share = stricter * towards / distance
    # Not a power: of a very large share that raises, where the product is infinite.
    needed = found.n * share * share
    if not needed <= FEW:
        return None
    # Two digits: more would promise what nobody knows.
    unit = int(10 ** max(0, int(math.log10(max(needed, 1))) - 1))
    return max(found.n + 1, math.ceil(needed / unit) * unit)


def _compared(case: Case, rule: Rule, found: Measurement, sign: str) -> str:
    excluded = f", {found.excluded} excluded" if found.excluded else ""
    groups = f" of {found.groups} pictures" if found.groups != found.n else ""
    return (
        f"{case}: {rule.subject} {found.value:.3f} [{found.low:.3f}, {found.high:.3f}] {sign} "
        f"{rule.side} {rule.bound:.3f} "
        f"(n {found.n}{groups}{excluded}, margin {rule.margin(found.value):+.3f})"
    )

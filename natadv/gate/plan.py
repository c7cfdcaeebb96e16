"""What was asked for, and what came: the two sides that the judge holds against each other."""

from __future__ import annotations

from dataclasses import dataclass

from natadv.evidence import Evidence
from natadv.types import Case


@dataclass(frozen=True, slots=True)
class CasePlan:
    """A case as the tier asks for it."""

    case: Case
    lineage: str
    """The zoo row whose rules this model inherits; its own name for a row of the zoo."""
    planned_n: int
    data_revision: str
    weights: str
    protocol: str


@dataclass(frozen=True, slots=True)
class CaseEvidence:
    """A case as it was measured."""

    case: Case
    evidence: Evidence
    data_revision: str
    weights: str
    protocol: str
    problems: tuple[str, ...] = ()
    """What went wrong on the way; any makes the case INCOMPLETE."""
    tower: str = ""
    """The model without its head: the same for all of its tasks."""


def mismatches(plan: CasePlan, found: CaseEvidence) -> tuple[str, ...]:
    """Why `found` is not what `plan` asked for; empty if it is."""
    if found.problems:
        # What is missing for these reasons would only repeat them.
        return found.problems
    rows = found.evidence.attack
    errors = len(rows.errors)
    reasons = []
    if found.case != plan.case:
        reasons.append(f"expected evidence of {plan.case}, got that of {found.case}")
    if plan.planned_n < 1:
        reasons.append(f"expected at least one planned sample, got {plan.planned_n}")
    if rows.n + errors != plan.planned_n:
        reasons.append(f"expected {plan.planned_n} samples, got {rows.n} and {errors} errors")
    for what, want, got in (
        ("data revision", plan.data_revision, found.data_revision),
        ("weights", plan.weights, found.weights),
        ("protocol", plan.protocol, found.protocol),
    ):
        if not want or want != got:
            reasons.append(f"expected {what} {_short(want)}, got {_short(got)}; measure again")
    return tuple(reasons)


def unreadable(found: CaseEvidence, max_excluded: float) -> tuple[str, ...]:
    """Why more samples have no outcome than the tier allows; empty if they are few enough."""
    errors = found.evidence.attack.errors
    asked = found.evidence.attack.n + len(errors)
    if len(errors) <= max_excluded * asked:
        return ()
    name, why = next(iter(errors.items()))
    return (
        f"{len(errors)} of {asked} samples have no outcome, the tier allows a share of "
        f"{max_excluded:g}; the first is {name}: {why}",
    )


def _short(text: str) -> str:
    return repr(text if " " in text else text[:12])

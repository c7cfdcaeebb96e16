"""What another contract would change in the verdict on evidence that is there already."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from natadv.gate.judge import CaseVerdict, GateVerdict, Judgement, worse
from natadv.types import STATES, Case, State


@dataclass(frozen=True, slots=True)
class Change:
    """A case, or one of its rules, whose verdict another contract changes."""

    case: Case
    subject: str
    """The rule before and after, or `the case`."""
    before: State | None
    """None where only the other contract has the rule, or the case."""
    after: State | None

    @property
    def worsens(self) -> bool:
        """Whether something that was green is not any more, or what was not became worse."""
        if self.after is None:
            return False
        before = "PASS" if self.before is None else self.before
        return STATES.index(self.after) < STATES.index(before)

    def __str__(self) -> str:
        sides = (state or "not judged" for state in (self.before, self.after))
        return f"{self.case}: {self.subject}: {' -> '.join(sides)}"


def changes(before: GateVerdict, after: GateVerdict) -> Iterator[Change]:
    """The rules whose verdict differs, and the cases whose verdict differs for other reasons."""
    old, new = ({case.case: case for case in verdict.cases} for verdict in (before, after))
    for case in {**old, **new}:
        was, now = old.get(case), new.get(case)
        found = list(_of_rules(case, was, now))
        yield from found
        states = [None if one is None else one.state for one in (was, now)]
        if states[0] != states[1] and not found:
            yield Change(case, "the case", *states)


def worsens(before: GateVerdict, after: GateVerdict) -> bool:
    """Whether a rule, a case or the run as a whole gets a worse verdict."""
    if before.overall != after.overall and worse(before.overall, after.overall) == after.overall:
        return True
    return any(change.worsens for change in changes(before, after))


def _of_rules(case: Case, was: CaseVerdict | None, now: CaseVerdict | None) -> Iterator[Change]:
    old, new = _by_number(was), _by_number(now)
    for number in {**old, **new}:
        first, second = old.get(number), new.get(number)
        before = None if first is None else first.state
        after = None if second is None else second.state
        # A rule that only one of them has says something only if it does not hold.
        if (before or "PASS") != (after or "PASS"):
            yield Change(case, _moved(first, second), before, after)


def _by_number(verdict: CaseVerdict | None) -> Mapping[object, Judgement]:
    """The judgements by what their rules are about; of several on one number the worst."""
    found: dict[object, Judgement] = {}
    for judged in verdict.judgements if verdict else ():
        other = found.setdefault(judged.rule.number, judged)
        if STATES.index(judged.state) < STATES.index(other.state):
            found[judged.rule.number] = judged
    return found


def _moved(before: Judgement | None, after: Judgement | None) -> str:
    """The rule, with both bounds if they differ."""
    rules = [judged.rule for judged in (before, after) if judged is not None]
    bounds = list(dict.fromkeys(rule.requires for rule in rules))
    if before is None or after is None:
        bounds.append("added" if before is None else "removed")
    return f"{rules[0].subject} {' -> '.join(bounds)}"

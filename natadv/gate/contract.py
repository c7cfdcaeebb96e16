"""What changed between two contracts: what they ask of each case, however it is written down."""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

from natadv.errors import ConfigError
from natadv.gate.rules import GLOB, Rule, SearchProfile, Thresholds, Tier, rules_for
from natadv.metrics.significance import Side
from natadv.types import Case

Effect = Literal["WEAKER", "CHANGED", "STRICTER", "neutral"]
EFFECTS: tuple[Effect, ...] = ("WEAKER", "CHANGED", "STRICTER", "neutral")

_Key: TypeAlias = tuple[str, str | None, Side]
"""Metric, part and side: rules that agree on these stand or fall by the same number."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that the second of two contracts asks otherwise than the first."""

    effect: Effect
    """On what passes the gate. A search judges nothing: it is weaker if it looks for less."""
    subject: str
    """A setting, a tier, or the address of a case; with `*` for its model if all are meant."""
    says: str

    def __str__(self) -> str:
        return f"{self.effect:8} {self.subject}: {self.says}"


class _Asked(NamedTuple):
    """What all rules of one case on the same number ask together."""

    rule: Rule
    """The strictest."""
    min_n: int


def differences(old: Thresholds, new: Thresholds) -> tuple[Difference, ...]:
    """What `new` asks otherwise than `old`, the weaker first; empty if they ask the same.

    A contract does not know the lineage of a model, so each case is held to the rules that its own
    model's name meets; the difference says where those now replace a lineage's.
    """
    of_rules = _of_rules(old, new)
    found = [
        *_number("confidence", "", old.confidence, new.confidence, better="higher"),
        *_of_default_tier(old, new),
        *_listed("contract", "tier", old.tiers, new.tiers),
        *(d for name in old.tiers if name in new.tiers for d in _of_tier(old, new, name)),
        *of_rules,
        *_of_lineage(old, new),
        *_of_wording(old.rules, new.rules, asked_alike=not of_rules),
    ]
    return tuple(sorted(found, key=lambda difference: EFFECTS.index(difference.effect)))


def contract_digest(path: Path) -> str:
    """sha256 of the file's bytes. Raises ConfigError."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from error


def _number(
    subject: str, what: str, old: float, new: float, *, better: Literal["higher", "lower"]
) -> Iterator[Difference]:
    if old != new:
        effect: Effect = "STRICTER" if (new > old) == (better == "higher") else "WEAKER"
        yield Difference(effect, subject, f"{what} {_or_none(old)} -> {_or_none(new)}".lstrip())


def _or_none(number: float) -> str:
    return "none" if number == math.inf else str(number)


def _listed(
    subject: str, kind: str, old: Iterable[str], new: Iterable[str]
) -> Iterator[Difference]:
    before, after = list(old), list(new)
    for name in before:
        if name not in after:
            yield Difference("WEAKER", subject, f"{kind} {name} removed")
    for name in after:
        if name not in before:
            yield Difference("STRICTER", subject, f"{kind} {name} added")


def _of_default_tier(old: Thresholds, new: Thresholds) -> Iterator[Difference]:
    """What a run that names no tier does otherwise."""
    if old.default_tier == new.default_tier:
        return
    moved = f"{old.default_tier} -> {new.default_tier}"
    before, after = set(old.tier().grid), set(new.tier().grid)
    found = list(_settings(moved, old.tier(), new.tier()))
    if lost := before - after:
        says = f"leaves out {len(lost)} of {len(before)} cases"
        found.append(Difference("WEAKER", moved, says))
    if gained := after - before:
        found.append(Difference("STRICTER", moved, f"adds {len(gained)} cases"))
    for one in found or [Difference("neutral", moved, "asks the same")]:
        yield Difference(one.effect, "default_tier", f"{moved}: {one.says}")


def _of_tier(old: Thresholds, new: Thresholds, name: str) -> Iterator[Difference]:
    before, after = old.tiers[name], new.tiers[name]
    subject = f"tier {name}"
    yield from _listed(subject, "model", before.models, after.models)
    yield from _listed(subject, "case", before.cases, after.cases)
    yield from _settings(subject, before, after)


def _settings(subject: str, old: Tier, new: Tier) -> Iterator[Difference]:
    before, after = (math.inf if tier.limit is None else tier.limit for tier in (old, new))
    yield from _number(subject, "limit", before, after, better="higher")
    yield from _number(subject, "max_excluded", old.max_excluded, new.max_excluded, better="lower")
    yield from _listed(subject, "search of", old.searches, new.searches)
    for dataset, search in old.searches.items():
        if dataset in new.searches:
            for found in _of_search(subject, search, new.searches[dataset]):
                yield replace(found, says=f"search of {dataset}: {found.says}")


def _of_search(subject: str, old: SearchProfile, new: SearchProfile) -> Iterator[Difference]:
    yield from _number(subject, "at_least", old.at_least, new.at_least, better="lower")
    yield from _number(subject, "evaluations", old.evaluations, new.evaluations, better="higher")
    yield from _number(subject, "discover", old.discover, new.discover, better="higher")
    kept, reached = _covers(new.subjects, old.subjects), _covers(old.subjects, new.subjects)
    if not (kept and reached):
        effect: Effect = "STRICTER" if kept else "WEAKER" if reached else "CHANGED"
        says = f"subjects {', '.join(old.subjects)} -> {', '.join(new.subjects)}"
        yield Difference(effect, subject, says)
    for what, before, after in (
        ("population", old.population, new.population),
        ("pictures", old.pictures, new.pictures),
        ("seed", old.seed, new.seed),
    ):
        if before != after:
            yield Difference("CHANGED", subject, f"{what} {before} -> {after}")


def _covers(patterns: Sequence[str], names: Sequence[str]) -> bool:
    """Whether every class that `names` mean is meant by `patterns` too, as far as can be told."""

    def covered(name: str) -> bool:
        if name in patterns or "*" in patterns:
            return True
        return not GLOB & set(name) and any(fnmatchcase(name, pattern) for pattern in patterns)

    return all(map(covered, names))


def _of_rules(old: Thresholds, new: Thresholds) -> list[Difference]:
    """What the rules ask otherwise of the cases that both contracts have."""
    after = _grid(new)
    cases = [case for case in _grid(old) if case in after]
    found: dict[tuple[str, Effect, str], list[str]] = defaultdict(list)
    models: dict[str, list[str]] = defaultdict(list)
    for case in cases:
        cell, _, model = case.address.rpartition("/")
        models[cell].append(model)
        for one in _of_case(case, old.rules, new.rules):
            found[cell, one.effect, one.says].append(model)
    return [
        Difference(effect, f"{cell}/{model}", says)
        for (cell, effect, says), meant in found.items()
        for model in (["*"] if 1 < len(meant) == len(models[cell]) else meant)
    ]


def _grid(thresholds: Thresholds) -> dict[Case, None]:
    return {case: None for tier in thresholds.tiers.values() for case in tier.grid}


def _of_case(case: Case, old: tuple[Rule, ...], new: tuple[Rule, ...]) -> Iterator[Difference]:
    before, after = _asked_of(case, old), _asked_of(case, new)
    for key in {**before, **after}:
        if key not in after:
            yield Difference("WEAKER", case.address, f"{_rule(before[key])} removed")
        elif key not in before:
            yield Difference("STRICTER", case.address, f"{_rule(after[key])} added")
        else:
            yield from _bounds(case.address, before[key], after[key])


def _asked_of(case: Case, rules: tuple[Rule, ...]) -> Mapping[_Key, _Asked]:
    found: dict[_Key, list[Rule]] = defaultdict(list)
    for rule in rules_for(case, case.model, rules):
        found[rule.metric, rule.part, rule.side].append(rule)
    return {
        key: _Asked(min(those, key=lambda r: r.margin(0)), max(r.min_n for r in those))
        for key, those in found.items()
    }


def _bounds(address: str, old: _Asked, new: _Asked) -> Iterator[Difference]:
    what = f"{new.rule.subject} {new.rule.side}"
    better: Literal["higher", "lower"] = "higher" if new.rule.side == "floor" else "lower"
    yield from _number(address, what, old.rule.bound, new.rule.bound, better=better)
    what = f"{new.rule.subject} min_n"
    yield from _number(address, what, old.min_n, new.min_n, better="higher")


def _rule(asked: _Asked) -> str:
    rule = asked.rule
    return f"{rule.subject} {rule.side} {rule.bound} (min_n {asked.min_n})"


def _of_lineage(old: Thresholds, new: Thresholds) -> Iterator[Difference]:
    """The models that come with rules on their names."""
    known = {case.model for case in _grid(old)}
    says = "has rules that stand in for those of the model it descends from, if any"
    for case in _grid(new):
        if case.model not in known and any(rule.names(case) for rule in new.rules):
            known.add(case.model)
            yield Difference("CHANGED", f"model {case.model}", says)


def _of_wording(
    old: tuple[Rule, ...], new: tuple[Rule, ...], *, asked_alike: bool
) -> Iterator[Difference]:
    before, after = _written(old), _written(new)
    if asked_alike and before.keys() != after.keys():
        says = f"{len(old)} -> {len(new)}, asking the same of every case that stays"
        yield Difference("neutral", "rules", says)
    moved = sum(after.get(rule, source) != source for rule, source in before.items())
    if moved:
        yield Difference("neutral", "rules", f"the source of {moved} is another")


def _written(rules: tuple[Rule, ...]) -> Mapping[Rule, str]:
    """Each rule without what judges nothing -> its source."""
    return {replace(rule, source="", line=0): rule.source for rule in rules}

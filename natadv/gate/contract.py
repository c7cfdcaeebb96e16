"""What changes from one contract to another: what each case must keep, not how it is written."""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal, NamedTuple

from natadv.errors import ConfigError
from natadv.gate.rules import GLOB, Number, Rule, RuleIndex, Thresholds, Tier, Waiver, rules_for
from natadv.gate.thresholds_file import contract_files
from natadv.types import Case

Effect = Literal["WEAKER", "CHANGED", "STRICTER", "neutral"]
EFFECTS: tuple[Effect, ...] = ("WEAKER", "CHANGED", "STRICTER", "neutral")


@dataclass(frozen=True, slots=True)
class Difference:
    """One requirement that differs between two contracts."""

    effect: Effect
    """On what passes the gate. A search judges nothing: it is weaker if it looks for less."""
    subject: str
    """A setting, a tier, or the address of a case; its model is `*` if all models are meant."""
    change: str
    """In words, such as `top1 floor 0.9 -> 0.8`."""

    def __str__(self) -> str:
        return f"{self.effect:8} {self.subject}: {self.change}"


class _Requirement(NamedTuple):
    """What all rules of one case on the same number require together."""

    rule: Rule
    """The strictest."""
    interval: float | None
    """The strictest bound that the whole interval must keep; None if only values are asked for."""
    min_n: int
    max_excluded: float
    """Infinite if no rule says anything."""

    def __str__(self) -> str:
        at = " at value" if self.interval is None else ""
        return f"{self.rule.subject} {self.rule.side} {self.rule.bound}{at} (min_n {self.min_n})"


def differences(old: Thresholds, new: Thresholds) -> tuple[Difference, ...]:
    """How `new` differs from `old`, the weaker requirements first; empty if both require the same.

    A contract does not know the lineage of a model, so each case is compared by the rules that
    cover its model by name; a CHANGED one says where these now replace the rules of a lineage.
    """
    of_rules = _of_rules(old, new)
    found = [
        *_number("confidence", "", old.confidence, new.confidence, better="higher"),
        *_of_default_tier(old, new),
        *_listed("contract", "tier", old.tiers, new.tiers),
        *_of_waivers(old.waivers, new.waivers),
    ]
    for name, tier in old.tiers.items():
        if name in new.tiers:
            found += _of_tier(tier, new.tiers[name])
    found += of_rules
    # Models that come with rules on their own names.
    known = {case.model for case in _grid(old)}
    replaced = "has rules that replace those of the model it descends from, if any"
    for case in _grid(new):
        if case.model not in known and any(rule.names(case) for rule in new.rules):
            known.add(case.model)
            found.append(Difference("CHANGED", f"model {case.model}", replaced))
    # Each rule without what judges nothing -> its source.
    before, after = (
        {replace(rule, source="", line=0, file=""): rule.source for rule in contract.rules}
        for contract in (old, new)
    )
    if not of_rules and before.keys() != after.keys():
        counts = f"{len(old.rules)} -> {len(new.rules)}"
        change = f"{counts}, asking the same of every case that stays"
        found.append(Difference("neutral", "rules", change))
    if moved := sum(after.get(rule, source) != source for rule, source in before.items()):
        found.append(Difference("neutral", "rules", f"the source of {moved} is another"))
    return tuple(sorted(found, key=lambda difference: EFFECTS.index(difference.effect)))


def contract_digest(path: Path) -> str:
    """sha256 of the file's bytes; if it includes others, of the names and hashes of all.

    Raises ConfigError.
    """
    digests = {}
    for file in contract_files(path):
        try:
            digests[file.name] = hashlib.sha256(file.path.read_bytes()).hexdigest()
        except OSError as error:
            raise ConfigError(f"{file.path}: cannot be read: {error.strerror or error}") from error
    if len(digests) == 1:
        return digests[path.name]
    listed = "".join(f"{digest}  {name}\n" for name, digest in digests.items())
    return hashlib.sha256(listed.encode()).hexdigest()


def _of_tier(old: Tier, new: Tier) -> Iterator[Difference]:
    """How a tier changes that both contracts have."""
    subject = f"tier {old.name}"
    yield from _listed(subject, "model", old.models, new.models)
    yield from _listed(subject, "case", old.cases, new.cases)
    # Cases whose model and cell both tiers have, though perhaps not together.
    both = {case for case in (*old.covered, *new.covered) if _has(old, case) and _has(new, case)}
    before, after = ([str(c) for c in t.covered if c in both] for t in (old, new))
    yield from _listed(subject, "case", before, after)
    yield from _settings(subject, old, new)


def _has(tier: Tier, case: Case) -> bool:
    return tier.holds(case.model) and case.cell in tier.cases


def _number(
    subject: str, what: str, old: float, new: float, *, better: Literal["higher", "lower"]
) -> Iterator[Difference]:
    if old != new:
        effect: Effect = "STRICTER" if (new > old) == (better == "higher") else "WEAKER"
        before, after = ("none" if number == math.inf else number for number in (old, new))
        yield Difference(effect, subject, f"{what} {before} -> {after}".lstrip())


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
    """How a run without --tier changes."""
    if old.default_tier == new.default_tier:
        return
    moved = f"{old.default_tier} -> {new.default_tier}"
    before, after = set(old.tier().grid), set(new.tier().grid)
    changes = list(_settings(moved, old.tier(), new.tier()))
    if lost := before - after:
        change = f"leaves out {len(lost)} of {len(before)} cases"
        changes.append(Difference("WEAKER", moved, change))
    if gained := after - before:
        changes.append(Difference("STRICTER", moved, f"adds {len(gained)} cases"))
    for difference in changes or [Difference("neutral", moved, "asks the same")]:
        change = f"{moved}: {difference.change}"
        yield replace(difference, subject="default_tier", change=change)


def _settings(subject: str, old: Tier, new: Tier) -> Iterator[Difference]:
    before, after = (math.inf if tier.limit is None else tier.limit for tier in (old, new))
    yield from _number(subject, "limit", before, after, better="higher")
    yield from _number(subject, "max_excluded", old.max_excluded, new.max_excluded, better="lower")
    yield from _listed(subject, "search of", old.searches, new.searches)
    for dataset, search in old.searches.items():
        if (other := new.searches.get(dataset)) is None:
            continue
        of = f"search of {dataset}:"
        yield from _number(
            subject, f"{of} at_least", search.at_least, other.at_least, better="lower"
        )
        for what in ("evaluations", "discover"):
            numbers = getattr(search, what), getattr(other, what)
            yield from _number(subject, f"{of} {what}", *numbers, better="higher")
        wider = _covers(other.subjects, search.subjects)
        narrower = _covers(search.subjects, other.subjects)
        if not (wider and narrower):
            effect: Effect = "STRICTER" if wider else "WEAKER" if narrower else "CHANGED"
            change = f"{of} subjects {', '.join(search.subjects)} -> {', '.join(other.subjects)}"
            yield Difference(effect, subject, change)
        for what in ("population", "pictures", "seed"):
            values = getattr(search, what), getattr(other, what)
            if values[0] != values[1]:
                yield Difference("CHANGED", subject, f"{of} {what} {values[0]} -> {values[1]}")


def _of_waivers(old: Sequence[Waiver], new: Sequence[Waiver]) -> Iterator[Difference]:
    """How waivers differ. The day plays no part: an expired one weakens nothing, but it may be
    renewed."""
    before, after = ({(w.case, w.metric): w for w in waivers} for waivers in (old, new))
    for key in {**before, **after}:
        if key not in after:
            gone = before[key]
            yield Difference("STRICTER", gone.subject, f"waiver until {gone.expires} removed")
        elif key not in before:
            yield Difference("WEAKER", after[key].subject, f"{after[key].note}")
        elif (was := before[key]) != (now := after[key]):
            if was.expires != now.expires:
                effect: Effect = "WEAKER" if now.expires > was.expires else "STRICTER"
                change = f"waiver until {was.expires} -> {now.expires}"
                yield Difference(effect, now.subject, change)
            elif was.note != now.note:
                yield Difference("neutral", now.subject, f"{was.note} -> {now.note}")


def _covers(patterns: Sequence[str], names: Sequence[str]) -> bool:
    """Whether `patterns` match every class that `names` match, as far as the text can tell."""
    return all(
        name in patterns
        or "*" in patterns
        or (not GLOB & set(name) and any(fnmatchcase(name, pattern) for pattern in patterns))
        for name in names
    )


def _of_rules(old: Thresholds, new: Thresholds) -> list[Difference]:
    """How the rules differ on the cases that both contracts have."""
    after = _grid(new)
    before_rules, after_rules = RuleIndex(old.rules), RuleIndex(new.rules)
    models_by_change: dict[tuple[str, Effect, str], list[str]] = defaultdict(list)
    models_of: dict[str, list[str]] = defaultdict(list)
    for case in _grid(old):
        if case in after:
            cell, _, model = case.address.rpartition("/")
            models_of[cell].append(model)
            for difference in _of_case(case, before_rules, after_rules):
                models_by_change[cell, difference.effect, difference.change].append(model)
    return [
        Difference(effect, f"{cell}/{model}", change)
        for (cell, effect, change), models in models_by_change.items()
        for model in (["*"] if 1 < len(models) == len(models_of[cell]) else models)
    ]


def _grid(thresholds: Thresholds) -> dict[Case, None]:
    return {case: None for tier in thresholds.tiers.values() for case in tier.covered}


def _of_case(case: Case, old: RuleIndex, new: RuleIndex) -> Iterator[Difference]:
    before, after = _required(case, old), _required(case, new)
    for key in {**before, **after}:
        if key not in after:
            yield Difference("WEAKER", case.address, f"{before[key]} removed")
        elif key not in before:
            yield Difference("STRICTER", case.address, f"{after[key]} added")
        else:
            yield from _of_number(case.address, before[key], after[key])


def _of_number(subject: str, old: _Requirement, new: _Requirement) -> Iterator[Difference]:
    """How the requirements on one number of a case differ."""
    first, second = old.rule, new.rule
    what = f"{second.subject} {second.side}"
    better: Literal["higher", "lower"] = "higher" if second.side == "floor" else "lower"
    yield from _number(subject, what, first.bound, second.bound, better=better)
    if old.interval is None or new.interval is None:
        ats = ["value" if one.interval is None else "interval" for one in (old, new)]
        if ats[0] != ats[1]:
            effect: Effect = "WEAKER" if new.interval is None else "STRICTER"
            yield Difference(effect, subject, f"{what} at {' -> '.join(ats)}")
    elif (old.interval, new.interval) != (first.bound, second.bound):
        of = f"{what} at interval"
        yield from _number(subject, of, old.interval, new.interval, better=better)
    yield from _number(subject, f"{second.subject} min_n", old.min_n, new.min_n, better="higher")
    shares = old.max_excluded, new.max_excluded
    yield from _number(subject, f"{second.subject} max_excluded", *shares, better="lower")
    if first.starter != second.starter:
        kinds = (rule.starter or "measured" for rule in (first, second))
        change = f"{what} {second.bound} rests on another thing: {' -> '.join(kinds)}"
        yield Difference("CHANGED", subject, change)


def _required(case: Case, rules: RuleIndex) -> Mapping[Number, _Requirement]:
    rules_by_number: dict[Number, list[Rule]] = defaultdict(list)
    for rule in rules_for(case, case.model, rules):
        rules_by_number[rule.number].append(rule)
    found = {}
    for number, same in rules_by_number.items():
        strict = sorted(same, key=lambda rule: rule.margin(0))
        found[number] = _Requirement(
            rule=strict[0],
            interval=next((rule.bound for rule in strict if rule.at == "interval"), None),
            min_n=max(rule.min_n for rule in same),
            max_excluded=min(
                (rule.max_excluded for rule in same if rule.max_excluded is not None),
                default=math.inf,
            ),
        )
    return found

"""Proposes rules from measured evidence, each with its measurement as the source."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from pathlib import Path
from typing import NamedTuple

import yaml

from natadv.errors import MetricError, one_per_line, unknown_name
from natadv.evidence import CaseEvidence, Selection, StoredCase, clean_case, read_selection
from natadv.gate.cases import mismatches, stored_evidence, stored_plans, whole_cases
from natadv.gate.rules import Rule, Thresholds, Tier, TierGrid
from natadv.metrics import METRICS, estimate, headline_of, metric_named
from natadv.scenarios import SCENARIOS
from natadv.tasks import TASKS
from natadv.types import Case

CONFIDENCE = 0.999
SLACK = 0.005
SHARE_OF_N = 0.8
"""A rule requires this share of the samples that it was measured on."""
THOUSANDTH = Decimal("0.001")
OF_DRAWN = ("attack_success_rate", "breaking_point")
"""Metrics that get a rule on drawn datasets if they are defined and leave a bound."""


def propose(
    found: CaseEvidence,
    metric_name: str,
    *,
    date: str,
    part: str | None = None,
    confidence: float = 0.95,
) -> Rule:
    """A rule that this very model keeps with some margin, and a clearly worse model breaks.

    Raises MetricError if the measurement leaves no bound that could be broken.
    """
    evidence = found.evidence if part is None else found.evidence.of_part(part)
    metric = metric_named(metric_name)
    estimated = estimate(metric_name, evidence)
    shown = estimated.measurement(confidence=confidence)
    wide = estimated.measurement(confidence=CONFIDENCE)
    if metric.higher_is_better:
        bound = rounded(wide.low - SLACK, ROUND_FLOOR)
    else:
        bound = rounded(wide.high + SLACK, ROUND_CEILING)
    least, most = metric.ends
    if not (bound > least if metric.higher_is_better else bound < most):
        raise MetricError(
            f"{found.case}: {metric_name} {shown.value:.3f} on {shown.n} samples leaves no bound "
            "that could be broken; measure more samples"
        )
    return Rule(
        case=found.case.address,
        metric=metric_name,
        side="floor" if metric.higher_is_better else "ceiling",
        bound=bound,
        source=(
            f"measured {shown.value:.3f} [{shown.low:.3f}, {shown.high:.3f}], n {shown.n}, "
            f"data {found.data_revision[:8]}, weights {found.weights[:8]}, {date}"
        ),
        min_n=max(1, math.floor(SHARE_OF_N * shown.n)),
        part=part,
    )


def rounded(bound: float, rounding: str) -> float:
    """To thousandths; the last bits of a float do not count, so that 0.803 stays 0.803."""
    return float(Decimal(f"{bound:.9f}").quantize(THOUSANDTH, rounding=rounding))


def to_yaml(rules: Sequence[Rule], *, tiers: Mapping[str, TierGrid] | None = None) -> str:
    """A file that thresholds.yaml can include: rules, and tiers of one grid each."""
    content: dict[str, object] = {"rules": rule_rows(rules)}
    if tiers:
        content = {"tiers": tier_rows(tiers), **content}
    return str(yaml.safe_dump(content, sort_keys=False, width=10_000))


def rule_rows(rules: Sequence[Rule]) -> list[dict[str, object]]:
    """Rules of single cases as the contract has them."""
    rows = []
    for rule in rules:
        row: dict[str, object] = {"case": rule.case, "metric": rule.metric}
        row |= {rule.side: rule.bound, "min_n": rule.min_n}
        row |= {} if rule.part is None else {"part": rule.part}
        row |= {"starter": rule.starter} if rule.starter else {}
        rows.append(row | {"source": rule.source})
    return rows


def tier_rows(tiers: Mapping[str, TierGrid]) -> dict[str, dict[str, list[str]]]:
    """Tiers of one grid each as the contract has them."""
    return {
        name: {"models": list(grid.models), "cases": list(grid.cases)}
        for name, grid in tiers.items()
    }


def tiers_of_others(rules: Sequence[Rule], known: Thresholds) -> dict[str, TierGrid]:
    """A tier for each model that no tier has, with the cases of its rules: without it the rules
    would be refused, as they would cover no case."""
    named = {case.model for tier in known.tiers.values() for case in tier.covered}
    cells: dict[str, dict[str, None]] = {}
    for rule in rules:
        cell, _, model = rule.case.rpartition("/")
        if model not in named:
            cells.setdefault(model, {})[cell] = None
    return {
        model if model not in known.tiers else f"{model}-measured": TierGrid((model,), tuple(of))
        for model, of in cells.items()
    }


def weaker_than_published(rules: Sequence[Rule], known: Thresholds) -> Iterator[str]:
    """A line for each rule that would replace a stricter bound below a published number: a model
    that is fed wrongly would be calibrated to what it does wrong."""
    published = {
        (starter.case, starter.metric, starter.part): starter
        for starter in known.rules
        if starter.starter == "published"
    }
    for rule in rules:
        starter = published.get((rule.case, rule.metric, rule.part))
        if starter is not None and not starter.holds(rule.bound):
            yield (
                f"{rule.case}: {rule.subject} {rule.side} {rule.bound:.3f} is weaker than "
                f"{starter.bound:.3f}, which it would replace ({starter.source}); find out why the "
                "model does not repeat that number before you keep the rule"
            )


class Proposals(NamedTuple):
    """What stored evidence suggests."""

    rules: tuple[Rule, ...]
    without: tuple[str, ...]
    """A line for each measurement that leaves no bound."""


def proposals(root: Path, date: str, part: str | None) -> Proposals:
    """The rules for all cases under `root`, and for a `part` of the clean ones if it is given.

    Raises StoreError if evidence was changed, MetricError if it is flawed or leaves no rule, and
    ConfigError if no clean dataset has the part.
    """
    stored = whole_cases(root)
    rules, without, parts = [], [], set[str]()
    for case in sorted(stored):
        found = stored_evidence(case, stored)
        if found.problems or found.evidence.attack.errors:
            raise MetricError(f"{case}: calibrate on flawless evidence only; measure it again")
        if found.sequence is not None and found.sequence.stopped:
            # Where a sequence stops, the value is an extreme of its course.
            raise MetricError(
                f"{case}: it was stopped early; calibrate on all samples, without --sequential"
            )
        parts |= set(found.evidence.attack.part) if case.scenario == "clean" else set()
        for name, of_part in _measurable(found, part):
            try:
                rules.append(propose(found, name, date=date, part=of_part))
            except MetricError as error:
                without.append(f"no rule for {name} of {case}: {error}")
    if part is not None and part not in parts:
        raise unknown_name("part of the clean datasets", part, parts - {""})
    if not rules:
        raise MetricError(f"{root}: no case in it leaves a bound; has its run ended?")
    return Proposals(tuple(rules), tuple(without))


def _measurable(found: CaseEvidence, part: str | None) -> Iterator[tuple[str, str | None]]:
    """The metrics of a case that get a rule, each with the part of the dataset that it is about."""
    case, task, rows = found.case, TASKS[found.case.task], found.evidence.attack
    yield headline_of(case), None
    # Photographs of real attacks may have no clean twins.
    if SCENARIOS[case.scenario].attacks and found.evidence.clean is not None:
        yield task.drop, None
        if rows.attributes:
            yield from ((name, None) for name in OF_DRAWN if case.task in METRICS[name].tasks)
    if case.scenario == "clean" and part is not None and part in rows.part:
        yield headline_of(case), part


def cases_of_whole_run(
    root: Path, known: Thresholds, *, cards: Mapping[str, Path]
) -> tuple[Case, ...]:
    """The cases that the run selected whose evidence lies under `root`, if it is a ground for rules
    of cases that have none: what it lacks, no later run would miss.

    Args:
        known: The contract, whose tier of the run may plan fewer samples than there are.
        cards: Name -> folder of the datasets that are here, which say what all samples are.

    Raises:
        MetricError: The run did not measure all that it selected, left samples out, measured other
            data than are here, or is mixed with another run.
        StoreError: The evidence was changed.
    """
    selection, stored = read_selection(root), whole_cases(root)
    if selection is None:
        raise MetricError(
            f"{root}: expected the evidence of one run, with its run.json, got cases without one; "
            "measure again"
        )
    flaws = list(selection.problems) or list(_flaws(selection, stored, known, cards))
    if flaws:
        raise MetricError(f"{root}: no ground for new rules:{one_per_line(flaws)}")
    return selection.cases


def _flaws(
    selection: Selection,
    stored: Mapping[Case, StoredCase],
    known: Thresholds,
    cards: Mapping[str, Path],
) -> Iterator[str]:
    """Why the stored cases are not the whole measurement of what was selected."""
    twins = {clean_case(c, s.manifest.twin_of) for c, s in stored.items() if s.manifest.twin_of}
    for case in sorted(set(stored) - set(selection.cases) - twins):
        yield f"{case}: is not of this run, which did not select it"
    tier = known.tiers.get(selection.tier) or Tier(selection.tier, ())
    for case in selection.cases:
        if case not in stored:
            yield f"{case}: was selected, and not measured"
            continue
        needed = {case.dataset, stored[case].manifest.twin_of or case.dataset}
        # What is not here cannot be compared; the next run of the gate asks for it.
        here = cards if needed <= cards.keys() else None
        (plan,) = stored_plans([case], tier, stored, cards=here)
        for why in mismatches(plan, stored_evidence(case, stored, cards=here)):
            yield f"{case}: {why}"


class Placed(NamedTuple):
    """Where new rules belong in a contract."""

    rules: tuple[Rule, ...]
    tiers: Mapping[str, TierGrid]
    """Tiers that have to be added for them."""
    outside: tuple[Rule, ...]
    """Rules of models that a tier has, for cases that it lacks: they would cover nothing."""


def placed(rules: Sequence[Rule], known: Thresholds) -> Placed:
    """The rules that a contract can take, with the tiers that it needs for them."""
    tiers = tiers_of_others(rules, known)
    asked = {case.address for tier in known.tiers.values() for case in tier.covered}
    asked |= {
        f"{cell}/{model}" for grid in tiers.values() for model in grid.models for cell in grid.cases
    }
    inside = tuple(rule for rule in rules if rule.case in asked)
    return Placed(inside, tiers, tuple(rule for rule in rules if rule.case not in asked))

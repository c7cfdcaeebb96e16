from __future__ import annotations

import math
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy import stats

from natadv.errors import ConfigError
from natadv.evidence import Evidence
from natadv.gate.judge import OVERALL, judge_all, samples_to_decide
from natadv.metrics import estimate
from natadv.types import VERDICTS, Case, Verdict


def judged(kit, world, rules, **options):
    cases = options.pop("cases", tuple(world.plans))
    tier = {k: options.pop(k) for k in ("max_excluded",) if k in options}
    return judge_all(
        list(world.plans.values()),
        world.evidence,
        thresholds=kit.thresholds_of(rules, cases, **tier),
        **options,
    )


def one_case(kit, right, n, **columns):
    return kit.World().with_case(kit.CLEAN, kit.rows_of(kit.first(right, n), **columns))


def test_a_case_whose_interval_clears_the_floor_passes(kit):
    found = judged(kit, one_case(kit, 580, 600), [kit.rule(kit.CLEAN, bound=0.93)])

    assert found.green
    assert found.overall == "pass"
    assert found.of(kit.CLEAN).verdict == "PASS"
    assert found.of(kit.CLEAN).lines == ()
    judgement = found.of(kit.CLEAN).judgements[0]
    assert judgement.margin == pytest.approx(580 / 600 - 0.93)
    assert judgement.measurement.low >= 0.93


def test_a_case_clearly_below_the_floor_fails_and_the_message_says_by_how_much(kit):
    found = judged(kit, one_case(kit, 366, 600), [kit.rule(kit.CLEAN, bound=0.8)])

    assert found.overall == "fail"
    assert found.of(kit.CLEAN).lines == (
        "classification/clean/mini/mini-clip: top1 0.610 [0.570, 0.649] < floor 0.800 "
        "(n 600, margin -0.190)",
    )


@pytest.mark.parametrize("right", [481, 470])
def test_a_case_too_close_to_the_floor_is_inconclusive_and_says_how_many_would_decide(kit, right):
    found = judged(kit, one_case(kit, right, 600), [kit.rule(kit.CLEAN, bound=0.8)])

    assert found.overall == "inconclusive"
    assert not found.green
    assert "samples would decide" in found.of(kit.CLEAN).lines[0]


@pytest.mark.parametrize("right", [492, 468])
def test_as_many_samples_as_were_named_do_decide_and_far_fewer_do_not(kit, right):
    rules = [kit.rule(kit.CLEAN, bound=0.8)]
    line = judged(kit, one_case(kit, right, 600), rules).of(kit.CLEAN).lines[0]
    needed = int(line.split("about ")[1].split()[0])

    def after(n):
        return judged(kit, one_case(kit, round(n * right / 600), n), rules).overall

    assert 600 < needed < 3000
    assert after(needed) == ("pass" if right == 492 else "fail")
    assert after(round(0.9 * needed)) == "inconclusive"


def crossed_world(kit, rights, name):
    """Twelve pictures under as many overlays as there are shares of right answers."""
    rows = kit.rows_of(np.array([i < 12 * r for r in rights for i in range(12)]) * 1)
    rows = replace(
        rows,
        group=tuple(f"p{i % 12}" for i in range(rows.n)),
        attributes={"overlay": tuple(name(i // 12) for i in range(rows.n))},
    )
    return kit.World().with_case(kit.CLEAN, rows)


def test_what_would_decide_is_in_pictures_and_in_overlays_of_a_population(kit):
    rules, rights = [kit.rule(kit.CLEAN, bound=0.55)], [1.0] * 9 + [0.25] * 3
    drawn = crossed_world(kit, rights, "o{:03d}".format)
    chosen = crossed_world(kit, rights, "a{:03d}".format)
    lines = [judged(kit, world, rules).of(kit.CLEAN).lines for world in (drawn, chosen)]

    assert "(n 144 of 12 pictures under 12 overlays, margin +0.262): about " in lines[0][0]
    advice = lines[0][0].rpartition("about ")[2]
    needed, overlays = (int(word) for word in advice.split() if word.isdigit())
    assert lines[0][0].endswith(f"about {needed} pictures under {overlays} overlays would decide")
    assert lines[1] == ()


def test_the_interval_that_decides_is_printed_where_many_rules_are_judged(kit):
    """Significant alone, not so as the smallest of forty: both intervals are before the reader."""
    cases = [replace(kit.CLEAN, dataset=f"d{i}") for i in range(40)]
    world = kit.World().with_case(cases[0], kit.rows_of(kit.first(225, 300)))
    for case in cases[1:]:
        world = world.with_case(case, kit.rows_of(kit.first(300, 300)))

    (line,) = judged(kit, world, [kit.rule("*/*/*/*", bound=0.8)]).of(cases[0]).lines

    assert "0.750 [0.697, 0.798] too close to floor 0.800" in line
    low, high = map(float, line.split(": [")[1].split("]")[0].split(", "))
    # Clopper and Pearson at 0.025 / 40.
    exact = stats.binomtest(225, 300).proportion_ci(1 - 2 * 0.025 / 40, method="exact")
    assert (low, high) == pytest.approx((exact.low, exact.high), abs=5e-4)
    assert low < 0.8 < high
    assert "once corrected for 40 rules: about " in line


def test_a_judgement_says_how_bad_a_model_would_fail_in_four_of_five_runs(kit):
    rules = [kit.rule(kit.CLEAN, bound=0.8), kit.rule(kit.CLEAN, "macro_f1", bound=0.1)]
    world = one_case(kit, 540, 600)

    found, alone = (judged(kit, world, r).of(kit.CLEAN).judgements[0] for r in (rules, rules[:1]))

    # Largest count that fails at 0.025 / 2, and how often a model that bad has no more.
    most = max(k for k in range(600) if stats.binom.cdf(k, 600, 0.8) <= 0.0125)
    assert stats.binom.cdf(most, 600, found.detectable) == pytest.approx(0.8, abs=0.04)
    assert found.detectable < alone.detectable < 0.8


def test_a_value_on_the_bound_can_never_be_decided(kit):
    found = judged(kit, one_case(kit, 400, 500), [kit.rule(kit.CLEAN, bound=0.8)])

    assert "no number of samples would decide" in found.of(kit.CLEAN).lines[0]


def test_a_bound_beside_the_value_needs_more_samples_than_there_are(kit):
    found = estimate("top1", one_case(kit, 199, 200).evidence[kit.CLEAN].evidence)
    measured = found.measurement(confidence=0.95)

    for beside in (1e-160, 1e-12, 1e-9, 1e-7):
        rule = kit.rule(kit.CLEAN, bound=0.995 + beside)
        assert samples_to_decide(rule, measured, found.found, level=0.025, strictest=0.001) is None


def test_a_ceiling_is_held_by_the_upper_end(kit):
    clean = kit.rows_of(kit.first(200, 200), prefix="c")
    attack = kit.rows_of(kit.first(180, 200), prefix="t", twin_prefix="c")
    world = kit.World().with_case(kit.TYPO, attack, clean=clean)
    rules = {
        b: kit.rule(kit.TYPO, "accuracy_drop", side="ceiling", bound=b) for b in (0.2, 0.12, 0.04)
    }

    verdicts = {b: judged(kit, world, [r]).of(kit.TYPO).verdict for b, r in rules.items()}

    assert verdicts == {0.2: "PASS", 0.12: "INCONCLUSIVE", 0.04: "FAIL"}


def test_the_message_of_a_ceiling_points_the_other_way(kit):
    clean = kit.rows_of(kit.first(200, 200), prefix="c")
    attack = kit.rows_of(kit.first(100, 200), prefix="t", twin_prefix="c")
    world = kit.World().with_case(kit.TYPO, attack, clean=clean)

    found = judged(kit, world, [kit.rule(kit.TYPO, "decoy_rate", side="ceiling", bound=0.1)])

    assert "decoy_rate 0.500 [0.429, 0.571] > ceiling 0.100" in found.of(kit.TYPO).lines[0]


def test_an_improvement_never_fails(kit):
    rules = [kit.rule(kit.CLEAN, bound=0.9)]

    assert judged(kit, one_case(kit, 600, 600), rules).green


@given(st.integers(0, 300), st.integers(0, 300), st.floats(0.05, 0.95))
def test_a_better_model_is_never_judged_worse(kit, a, b, bound):
    worse, better = sorted((a, b))
    rules = [kit.rule(kit.CLEAN, bound=bound)]
    order = {"FAIL": 0, "INCONCLUSIVE": 1, "PASS": 2}

    low = judged(kit, one_case(kit, worse, 300), rules).of(kit.CLEAN).verdict
    high = judged(kit, one_case(kit, better, 300), rules).of(kit.CLEAN).verdict

    assert order[low] <= order[high]


@given(st.integers(1, 300), st.floats(0.05, 0.95))
@example(227, 0.8)
def test_a_lone_failure_has_its_bound_outside_of_the_interval(kit, right, bound):
    found = judged(kit, one_case(kit, right, 300), [kit.rule(kit.CLEAN, bound=bound)])

    (judgement,) = found.of(kit.CLEAN).judgements
    if judgement.verdict == "FAIL":
        assert judgement.measurement.high < bound


def test_what_is_incomplete_does_not_dilute_the_family(kit):
    cases = [replace(kit.CLEAN, dataset=f"d{i}") for i in range(40)]
    world = kit.World().with_case(cases[0], kit.rows_of(kit.first(225, 300)))
    for case in cases[1:]:
        world = world.with_case(case, kit.rows_of(kit.first(300, 300)))
        world = world.changed(case, data_revision="revision-0")

    found = judged(kit, world, [kit.rule("*/*/*/*", bound=0.8)])

    assert found.of(cases[0]).verdict == "FAIL"
    assert found.of(cases[1]).verdict == "INCOMPLETE"


def test_one_dead_cell_is_not_hidden_by_the_others(kit):
    world = one_case(kit, 600, 600).with_case(kit.NATURAL, kit.rows_of(kit.first(0, 600)))
    rules = [kit.rule("*/*/*/*", bound=0.4)]

    found = judged(kit, world, rules)

    assert found.overall == "fail"
    assert found.of(kit.CLEAN).verdict == "PASS"


def test_a_part_is_judged_on_its_own(kit):
    parts = ["seen"] * 400 + ["held-out"] * 200
    world = one_case(kit, 400, 600, parts=parts)
    rules = [kit.rule(kit.CLEAN, bound=0.5), kit.rule(kit.CLEAN, bound=0.5, part="held-out")]

    found = judged(kit, world, rules).of(kit.CLEAN)

    assert [j.verdict for j in found.judgements] == ["PASS", "FAIL"]
    assert "top1 (held-out) 0.000" in found.lines[0]


def test_many_rules_make_a_single_fail_harder(kit):
    """Significant alone, not so as the smallest of forty."""
    cases = [replace(kit.CLEAN, dataset=f"d{i}") for i in range(40)]
    world = kit.World().with_case(cases[0], kit.rows_of(kit.first(225, 300)))
    for case in cases[1:]:
        world = world.with_case(case, kit.rows_of(kit.first(300, 300)))
    rules = [kit.rule("*/*/*/*", bound=0.8)]

    alone = judged(kit, world, rules, selected=[cases[0]])
    together = judged(kit, world, rules)

    assert alone.of(cases[0]).verdict == "FAIL"
    assert together.of(cases[0]).verdict == "INCONCLUSIVE"
    assert not together.green


def test_a_model_at_its_floor_is_rarely_called_broken(kit):
    hits = np.random.default_rng(1).binomial(300, 0.8, size=300)
    rules = [kit.rule(kit.CLEAN, bound=0.8)]

    found = [judged(kit, one_case(kit, int(h), 300), rules).overall for h in hits]

    assert found.count("fail") <= 15
    assert found.count("pass") <= 15


def test_the_worst_rule_decides_a_case(kit):
    rules = [kit.rule(kit.CLEAN, bound=0.5), kit.rule(kit.CLEAN, "macro_f1", bound=0.9)]

    found = judged(kit, one_case(kit, 366, 600), rules).of(kit.CLEAN)

    assert [j.verdict for j in found.judgements] == ["PASS", "FAIL"]
    assert found.verdict == "FAIL"


def test_every_verdict_has_its_rank():
    assert get_args(Verdict) == VERDICTS
    assert list(OVERALL) == ["FAIL", "INCOMPLETE", "INCONCLUSIVE", "PASS"]


@pytest.mark.parametrize(("right", "verdict", "sign"), [(481, "PASS", ">="), (479, "FAIL", "<")])
def test_a_rule_at_value_is_decided_by_the_value_and_claims_no_confidence(
    kit, right, verdict, sign
):
    rules = [kit.rule(kit.CLEAN, bound=0.8, at="value")]

    found = judged(kit, one_case(kit, right, 600), rules)

    (judgement,) = found.of(kit.CLEAN).judgements
    assert judgement.verdict == verdict
    assert judgement.reason.startswith(
        f"{kit.CLEAN}: top1 {right / 600:.3f} {sign} floor 0.800 at value, without confidence (n "
    )
    # The last line of a green run says so too.
    assert ("1 rule at value, without confidence" in [*found.report][-1]) is (verdict == "PASS")


def test_a_rule_at_value_does_not_dilute_the_family(kit):
    """Significant alone, not so among forty tested rules."""
    cases = [replace(kit.CLEAN, dataset=f"d{i}") for i in range(40)]
    world = kit.World().with_case(cases[0], kit.rows_of(kit.first(225, 300)))
    for case in cases[1:]:
        world = world.with_case(case, kit.rows_of(kit.first(300, 300)))
    tested = kit.rule("classification/clean/d0/*", bound=0.8)

    def verdict(at):
        others = [kit.rule(case, bound=0.8, at=at) for case in cases[1:]]
        return judged(kit, world, [tested, *others]).of(cases[0]).verdict

    assert [verdict("interval"), verdict("value")] == ["INCONCLUSIVE", "FAIL"]


# Ways to lie. Each begins with a green run and breaks one thing.


@pytest.fixture
def green(kit):
    world = one_case(kit, 580, 600)
    assert judged(kit, world, [kit.rule(kit.CLEAN)]).green
    return world


def incomplete(kit, world, message, rules=None, **options):
    found = judged(kit, world, rules or [kit.rule(kit.CLEAN)], **options)
    assert not found.green
    assert found.overall == "incomplete"
    text = "\n".join((*found.problems, *(line for c in found.cases for line in c.lines)))
    assert message in text
    return found


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"data_revision": "revision-0"}, "expected data revision 'revision-1', got 'revision-0'"),
        ({"weights": "d" * 64}, "expected weights 'cccccccccccc', got 'dddddddddddd'"),
        ({"protocol": "protocol-0"}, "expected protocol 'protocol-1', got 'protocol-0'"),
        ({"problems": ("worker died twice",)}, "worker died twice"),
    ],
)
def test_stale_or_troubled_evidence_is_incomplete(kit, green, columns, message):
    incomplete(kit, green.changed(kit.CLEAN, **columns), message)


def test_an_empty_revision_matches_nothing(kit, green):
    world = green.changed(kit.CLEAN, data_revision="")
    world.plans[kit.CLEAN] = replace(world.plans[kit.CLEAN], data_revision="")

    incomplete(kit, world, "expected data revision '', got ''")


def test_nan_is_incomplete(kit, green):
    green.evidence[kit.CLEAN].evidence.attack.values["correct"][3] = math.nan

    incomplete(kit, green, "expected 'correct' to be 0 or 1, got [nan]")


def test_fewer_samples_than_planned_are_incomplete(kit, green):
    world = green.changed(kit.CLEAN, evidence=Evidence(kit.rows_of(kit.first(580, 599))))

    incomplete(kit, world, "expected 600 samples, got 599 and 0 errors")


def test_a_duplicate_that_makes_up_for_a_dropped_sample_is_incomplete(kit, green):
    rows = green.evidence[kit.CLEAN].evidence.attack
    twice = replace(rows, id=(*rows.id[:-1], rows.id[0]))

    world = green.changed(kit.CLEAN, evidence=Evidence(twice))

    incomplete(kit, world, "duplicates of ['s0']")


def test_a_case_without_evidence_is_incomplete(kit, green):
    del green.evidence[kit.CLEAN]

    found = incomplete(kit, green, "not measured")

    assert found.of(kit.CLEAN).judgements[0].measurement is None


def test_evidence_of_another_case_is_incomplete(kit, green):
    incomplete(
        kit, green.changed(kit.CLEAN, case=kit.NATURAL), "got that of classification/natural"
    )


def test_too_few_samples_for_the_rule_are_incomplete(kit, green):
    incomplete(
        kit, green, "expected at least 601 samples, got 600", [kit.rule(kit.CLEAN, min_n=601)]
    )


def test_a_perfect_score_on_a_handful_is_no_pass(kit):
    assert not judged(kit, one_case(kit, 5, 5), [kit.rule(kit.CLEAN, bound=0.9)]).green


def test_errors_are_not_hidden_by_the_rest(kit):
    errors = {f"e{i}": "truncated" for i in range(3)}
    world = one_case(kit, 597, 597, errors=errors)

    incomplete(kit, world, "3 of 600 samples are excluded, the tier allows a share of 0")
    assert judged(kit, world, [kit.rule(kit.CLEAN)], max_excluded=0.01).green
    incomplete(kit, world, "a share of 0.004", max_excluded=0.004)


def test_a_rule_may_allow_fewer_exclusions_than_its_tier(kit):
    world = one_case(kit, 597, 597, errors={f"e{i}": "truncated" for i in range(3)})
    strict = [kit.rule(kit.CLEAN, max_excluded=0.004)]

    incomplete(kit, world, "the rule allows a share of 0.004", strict, max_excluded=0.01)
    # It cannot allow more.
    loose = [kit.rule(kit.CLEAN, max_excluded=0.5)]
    incomplete(kit, world, "the tier allows a share of 0.004", loose, max_excluded=0.004)


def test_a_rule_at_value_needs_evidence_like_any_other(kit, green):
    rules = [kit.rule(kit.CLEAN, at="value", min_n=601)]

    incomplete(kit, green, "expected at least 601 samples, got 600", rules)
    incomplete(kit, green.changed(kit.CLEAN, weights="d" * 64), "expected weights", rules[:1])


def test_errors_count_in_full_against_each_part(kit):
    """Nobody knows which part a failed sample was of."""
    parts = ["seen"] * 550 + ["held-out"] * 47
    world = one_case(kit, 597, 597, parts=parts, errors={f"e{i}": "why" for i in range(3)})
    rules = [kit.rule(kit.CLEAN, part="held-out")]

    incomplete(kit, world, "3 of 50 samples are excluded", rules, max_excluded=0.01)


def test_errors_of_the_clean_twins_count_against_a_paired_rule(kit):
    clean = kit.rows_of(kit.first(98, 98), prefix="c", errors={"c98": "why", "c99": "why"})
    attack = kit.rows_of(kit.first(100, 100), prefix="t", twin_prefix="c")
    world = kit.World().with_case(kit.TYPO, attack, clean=clean)
    rules = [kit.rule(kit.TYPO, "accuracy_drop", side="ceiling", bound=0.3)]

    incomplete(kit, world, "2 of 100 samples are excluded", rules)


def test_a_paired_rule_without_clean_twins_is_incomplete(kit):
    attack = kit.rows_of(kit.first(100, 100), prefix="t", twin_prefix="c")
    rules = [kit.rule(kit.TYPO, "accuracy_drop", side="ceiling", bound=0.3)]

    incomplete(kit, kit.World().with_case(kit.TYPO, attack), "needs outcomes of clean", rules)


def test_a_part_that_the_dataset_lacks_is_incomplete(kit, green):
    incomplete(kit, green, "no sample to measure", [kit.rule(kit.CLEAN, part="held-out")])


def test_a_dropped_case_is_incomplete(kit, green):
    cases = (kit.CLEAN, kit.NATURAL)
    rules = [kit.rule("*/*/*/*")]

    found = incomplete(
        kit, green, "belongs to tier 'mini', but was not planned", rules, cases=cases
    )

    assert found.of(kit.CLEAN).verdict == "PASS"


def test_a_case_that_no_rule_covers_is_incomplete(kit, green):
    world = green.with_case(kit.NATURAL, kit.rows_of(kit.first(600, 600)))

    found = incomplete(kit, world, "no rule covers this case (lineage 'mini-clip')")

    assert found.of(kit.NATURAL).verdict == "INCOMPLETE"


MAPS = Case("relevance", "typographic", "mini-typo", "mini-clip")


def looked(kit, n=100, *, in_box=0.5, **columns):
    """Half of the relevance lies on a text that covers a fifth of the picture."""
    rows = kit.rows_of(kit.first(n, n), **columns)
    share, box = np.full(n, in_box), np.full(n, 0.2)
    zeros = np.zeros(n)
    values = {"beside_text": 1 - share, "truth_in_box": share, "prediction_in_box": share}
    values |= {"box": box, "in_mask": zeros, "mask": zeros, "pointing": zeros}
    return replace(rows, values=values)


def test_an_analysis_without_a_rule_is_measured_and_does_not_pass(kit, green):
    found = judged(kit, green.with_case(MAPS, looked(kit)), [kit.rule(kit.CLEAN)])
    case = found.of(MAPS)

    assert (case.verdict, case.state, case.green, case.lines) == (None, "MEASURED", True, ())
    assert found.overall == "pass"
    # The last line of a green run says so.
    assert found.caveats.endswith("; 1 of them measured without a rule")
    assert any(line.startswith("MEASURED ") and str(MAPS) in line for line in found.report)


@pytest.mark.parametrize(
    ("ceiling", "verdict"), [(3.0, "PASS"), (2.0, "FAIL"), (2.5, "INCONCLUSIVE")]
)
def test_an_analysis_with_a_rule_is_judged_like_any_other_case(kit, green, ceiling, verdict):
    rule = kit.rule(MAPS, metric="text_box_relevance", bound=ceiling, side="ceiling")
    found = judged(kit, green.with_case(MAPS, looked(kit)), [kit.rule(kit.CLEAN), rule])

    assert found.of(MAPS).verdict == verdict
    assert found.green is (verdict == "PASS")
    assert "measured without a rule" not in found.caveats


def test_an_analysis_without_a_rule_must_still_be_measured_as_planned(kit, green):
    """Each way in which it might be reported though it is not what it says."""
    rules = [kit.rule(kit.CLEAN)]
    world = green.with_case(MAPS, looked(kit))
    lost = replace(world.evidence[MAPS].evidence, attack=looked(kit, 99))
    failed = replace(lost, attack=looked(kit, 99, errors={"s99": "no map"}))
    flaws = {
        "expected 100 samples, got 99 and 0 errors": world.changed(MAPS, evidence=lost),
        "1 of 100 samples have no outcome, the tier allows a share of 0": world.changed(
            MAPS, evidence=failed
        ),
        "expected data revision": world.changed(MAPS, data_revision="other"),
        "expected weights": world.changed(MAPS, weights="other"),
        "the worker died": world.changed(MAPS, problems=("the worker died",)),
        "not measured": replace(world, evidence={kit.CLEAN: world.evidence[kit.CLEAN]}),
    }

    for why, broken in flaws.items():
        found = judged(kit, broken, rules)
        assert (found.overall, found.of(MAPS).verdict) == ("incomplete", "INCOMPLETE"), why
        assert why in found.of(MAPS).lines[0]
    allowed = judged(kit, world.changed(MAPS, evidence=failed), rules, max_excluded=0.01)
    assert allowed.green


def test_a_run_of_analyses_without_rules_has_judged_nothing(kit):
    found = judged(kit, kit.World().with_case(MAPS, looked(kit)), [])

    assert (found.overall, found.of(MAPS).state) == ("incomplete", "MEASURED")
    assert found.problems == ("no rule covers a case of this run, so nothing was judged; add one",)


@pytest.mark.parametrize("task", ["classification", "segmentation", "vqa"])
def test_no_other_task_goes_without_a_rule(kit, green, task):
    """Beside a measured analysis too."""
    bare = replace(kit.NATURAL, task=task)
    world = green.with_case(bare, kit.rows_of(kit.first(600, 600))).with_case(MAPS, looked(kit))

    incomplete(kit, world, "no rule covers this case")


def test_a_rule_that_covers_no_case_is_incomplete(kit, green):
    rules = [kit.rule(kit.CLEAN), kit.rule("classification/clean/mini/mini-clap")]

    incomplete(kit, green, "mini-clap: top1 floor 0.800 (line 0) covers no case of this run", rules)
    incomplete(kit, green, "covers no case of this run", rules, selected=[kit.CLEAN])


def test_rules_outside_of_a_selection_are_no_problem(kit, green):
    world = green.with_case(kit.NATURAL, kit.rows_of(kit.first(0, 600)))
    rules = [kit.rule(kit.CLEAN), kit.rule(kit.NATURAL)]

    assert judged(kit, world, rules, selected=[kit.CLEAN]).green
    del world.plans[kit.NATURAL]
    cases = (kit.CLEAN, kit.NATURAL)
    assert judged(kit, world, rules, cases=cases, selected=[kit.CLEAN]).green


def test_an_own_checkpoint_is_judged_by_its_lineage(kit):
    own = replace(kit.CLEAN, model="my-clip")
    world = kit.World().with_case(own, kit.rows_of(kit.first(100, 600)), lineage="mini-clip")
    rules = [kit.rule(kit.CLEAN)]

    found = judged(kit, world, rules, cases=[kit.CLEAN], selected=[own])

    assert found.overall == "fail"
    assert found.problems == ()


def test_an_empty_selection_is_incomplete(kit, green):
    incomplete(kit, green, "no case was selected", selected=[])
    incomplete(kit, kit.World(), "no case was selected", cases=[kit.CLEAN])


def test_a_selected_case_that_was_not_planned_is_incomplete(kit, green):
    incomplete(kit, green, "selected, but not planned", selected=[kit.CLEAN, kit.NATURAL])


def test_a_case_planned_twice_is_incomplete(kit, green):
    plans = [green.plans[kit.CLEAN]] * 2

    found = judge_all(
        plans, green.evidence, thresholds=kit.thresholds_of([kit.rule(kit.CLEAN)], [kit.CLEAN])
    )

    assert "planned twice" in found.problems[0]
    assert not found.green


def test_a_plan_for_nothing_is_incomplete(kit):
    incomplete(kit, one_case(kit, 0, 0), "expected at least one planned sample")


def test_a_problem_of_the_run_keeps_it_from_being_green(kit, green):
    incomplete(kit, green, "the disk was full", problems=["the disk was full"])


def test_a_failure_is_not_softened_by_a_problem(kit):
    found = judged(kit, one_case(kit, 0, 600), [kit.rule(kit.CLEAN)], problems=["a worker died"])

    assert found.overall == "fail"


def test_a_case_that_was_not_judged_cannot_be_asked_for(kit, green):
    with pytest.raises(ConfigError, match="mini-natural/mini-clip was not judged"):
        judged(kit, green, [kit.rule(kit.CLEAN)]).of(kit.NATURAL)

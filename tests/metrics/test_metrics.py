"""Each metric against a double loop that knows nothing of sums and tables."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from natadv.errors import MetricError, UnknownNameError
from natadv.evidence import Evidence, select
from natadv.metrics import METRICS, estimate, measure, p_value
from natadv.metrics.classification import confusion
from natadv.metrics.correctness import GRADES
from natadv.metrics.significance import compare
from natadv.scenarios.typographic.population import overlay_id

CLASSES = ("ant", "bee", "cat", "dog")
answers = st.lists(st.tuples(st.sampled_from(CLASSES), st.sampled_from(CLASSES)), min_size=1)


def by_hand(name, truth, prediction):
    """Macro metrics, class by class."""
    scores = []
    for c in sorted(set(truth)):
        hit = sum(1 for t, p in zip(truth, prediction, strict=True) if t == c and p == c)
        said = sum(1 for p in prediction if p == c)
        real = sum(1 for t in truth if t == c)
        precision = hit / said if said else 0.0
        recall = hit / real
        both = precision + recall
        f1 = 2 * precision * recall / both if both else 0.0
        scores.append({"precision": precision, "recall": recall, "f1": f1}[name])
    return sum(scores) / len(scores)


def full_evidence(outcomes):
    """Six twins with both controls; sample 5 failed when clean."""
    truth = ["ant", "bee", "cat", "dog", "ant", "bee"]
    ids, twins = [f"t{i}" for i in range(6)], [f"c{i}" for i in range(6)]
    decoys = ["bee", "cat", "dog", "ant", "bee", "cat"]

    columns = {"ids": ids, "twins": twins, "decoys": decoys, "groups": twins}
    columns["attributes"] = {"covered": [0.3, 0.1, 0.2, 0.4, 0.2, 0.1]}

    def variant(said):
        return outcomes(truth, said, **columns)

    clean = outcomes(
        truth[:5], ["ant", "bee", "cat", "dog", "bee"], ids=twins[:5], errors={"c5": "truncated"}
    )
    return Evidence(
        attack=variant(["bee", "bee", "ant", "dog", "ant", "cat"]),
        clean=clean,
        occlusion=variant(["ant", "bee", "cat", "ant", "ant", "bee"]),
        matched=variant(["ant", "bee", "cat", "dog", "ant", "bee"]),
    )


@given(answers)
def test_top1_is_the_share_of_right_answers(outcomes, pairs):
    truth, said = zip(*pairs, strict=True)

    found = measure("top1", Evidence(outcomes(truth, said)))

    assert found.value == pytest.approx(sum(t == p for t, p in pairs) / len(pairs))
    assert (found.n, found.groups, found.excluded) == (len(pairs), len(pairs), 0)
    assert found.low <= found.value <= found.high


def test_top5_is_not_defined_where_fewer_than_six_can_be_chosen(outcomes):
    rows = outcomes("ab", "ab")

    def among(*choices):
        told = {**rows.values, "choices": np.array(choices, dtype=np.float64)}
        return Evidence(replace(rows, values=told))

    assert measure("top5", among(6, 900)).value == 1
    with pytest.raises(MetricError, match="choose among 2 candidates, so that all are among the"):
        measure("top5", among(900, 2))


def test_top5_is_not_defined_where_nothing_shows_six_classes(outcomes):
    three = outcomes("abc", "bca", ranks=[2, 1, 1])
    with pytest.raises(MetricError, match="are of 3 classes, and no truth ranks below the best 5"):
        measure("top5", Evidence(three))

    assert measure("top5", Evidence(outcomes("abc", "bca", ranks=[2, 1, 5]))).value == 2 / 3
    assert measure("top5", Evidence(outcomes("abcdef", "bcdefa", ranks=[1] * 6))).value == 1


@given(st.lists(st.integers(0, 9), min_size=1))
def test_top5_is_the_share_of_ranks_below_five(outcomes, ranks):
    # The last one shows that there are more than five classes.
    ranks = [*ranks, 5]
    rows = outcomes(["ant"] * len(ranks), ["ant"] * len(ranks), ranks=ranks)

    found = measure("top5", Evidence(rows))

    assert found.value == pytest.approx(sum(r in (0, 1, 2, 3, 4) for r in ranks) / len(ranks))


@given(answers, st.sampled_from(["precision", "recall", "f1"]))
def test_macro_metrics_average_over_the_classes_that_occur(outcomes, pairs, name):
    truth, said = zip(*pairs, strict=True)

    found = measure(f"macro_{name}", Evidence(outcomes(truth, said)))

    assert found.value == pytest.approx(by_hand(name, truth, said))
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert found.high > found.low


def test_a_class_that_is_never_predicted_counts_as_zero(outcomes):
    found = measure("macro_precision", Evidence(outcomes(["ant", "bee"], ["ant", "ant"])))

    assert found.value == pytest.approx(0.25)


def test_rows_of_many_classes_are_bytes_and_count_like_doubles(outcomes):
    truth = [f"class {i % 300}" for i in range(900)]
    said = [truth[(i * i) % 7 + i] if i < 880 else truth[0] for i in range(900)]
    terms = confusion(Evidence(outcomes(truth, said)))

    assert terms.rows.nbytes == 900 * 3 * 300
    hits = sum(t == s for t, s in zip(truth, said, strict=True))
    # More than a byte holds.
    assert terms.rows.sum(axis=0).reshape(3, 300).sum(axis=1).tolist() == [hits] + [900 - hits] * 2
    assert terms.rows.sum(axis=0).dtype.itemsize == 8


def test_a_perfect_macro_f1_is_not_taken_for_certain(outcomes):
    found = measure("macro_f1", Evidence(outcomes(CLASSES * 5, CLASSES * 5)))

    assert found.value == 1.0
    assert found.low < 0.85


WHOLE = ("breaking_point", "breaking_point_q10")
"""Are told only where no sample failed."""


def evidence_for(name, outcomes):
    evidence = full_evidence(outcomes)
    if name not in WHOLE:
        return evidence
    kept = [twin in evidence.clean.id for twin in evidence.attack.twin]
    return Evidence(select(evidence.attack, kept), replace(evidence.clean, errors={}))


def test_the_paired_metrics_of_six_twins(outcomes):
    values = {name: measure(name, evidence_for(name, outcomes)) for name in METRICS}

    # Of the five pairs: clean 1 1 1 1 0, attacked 0 1 0 1 1, occluded 1 1 1 0 1, matched all.
    assert values["accuracy_drop"].value == pytest.approx(4 / 5 - 3 / 5)
    assert values["attack_success_rate"].value == pytest.approx(2 / 4)
    assert values["occlusion_drop"].value == pytest.approx(4 / 5 - 4 / 5)
    assert values["matched_drop"].value == pytest.approx(4 / 5 - 1)
    # Reading needs no clean twin, so all six count: occluded 5, attacked 3.
    assert values["reading_drop"].value == pytest.approx(5 / 6 - 3 / 6)
    assert values["decoy_rate"].value == pytest.approx(2 / 6)
    # Of the four right when clean, two flip: at 0.3 and 0.2.
    assert values["breaking_point"].value == pytest.approx(0.3)
    assert values["breaking_point_q10"].value == pytest.approx(0.2)
    # Three of six look at the text: 3 * 0.6 and 3 * 0.1 in boxes of 6 * 0.1, and so on.
    assert values["text_box_relevance"].value == pytest.approx((3 * 0.6 + 3 * 0.1) / (6 * 0.1))
    assert values["object_relevance"].value == pytest.approx((3 * 0.75 + 3 * 0.25) / (6 * 0.25))
    assert values["object_relevance_drop"].value == pytest.approx((3.25 - 2.75) / 5)
    assert values["pointing_game"].value == pytest.approx(3 / 6)
    assert values["insertion_auc"].value == pytest.approx((3 * 0.8 + 3 * 0.4) / 6)
    assert values["deletion_auc"].value == pytest.approx((3 * 0.2 + 3 * 0.3) / 6)


def test_a_sample_that_failed_on_one_side_is_excluded_from_both_and_counted(outcomes):
    evidence = full_evidence(outcomes)

    assert (measure("accuracy_drop", evidence).n, measure("accuracy_drop", evidence).excluded) == (
        5,
        1,
    )
    assert measure("attack_success_rate", evidence).n == 4
    assert measure("attack_success_rate", evidence).excluded == 1
    assert measure("reading_drop", evidence).excluded == 0
    assert measure("top1", evidence).excluded == 0


def test_an_attacked_sample_that_failed_is_counted_by_every_metric(outcomes):
    evidence = full_evidence(outcomes)
    evidence = replace(
        evidence, attack=replace(evidence.attack, errors={"t6": "cannot be decoded"})
    )

    excluded = {name: measure(name, evidence).excluded for name in METRICS if name not in WHOLE}

    assert excluded["top1"] == excluded["macro_f1"] == excluded["reading_drop"] == 1
    assert excluded["accuracy_drop"] == excluded["occlusion_drop"] == 2


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1), st.randoms())
def test_pairs_are_found_by_name_not_by_place(outcomes, pairs, random):
    n = len(pairs)
    clean = outcomes(
        ["ant"] * n, ["ant" if b else "bee" for b, _ in pairs], ids=[f"c{i}" for i in range(n)]
    )
    order = list(range(n))
    random.shuffle(order)
    attack = outcomes(
        ["ant"] * n,
        ["ant" if pairs[i][1] else "bee" for i in order],
        ids=[f"t{i}" for i in order],
        twins=[f"c{i}" for i in order],
    )

    found = measure("accuracy_drop", Evidence(attack, clean))

    assert found.value == pytest.approx((sum(b for b, _ in pairs) - sum(a for _, a in pairs)) / n)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1))
def test_attack_success_counts_only_what_was_right_when_clean(outcomes, pairs):
    n = len(pairs)
    clean = outcomes(["ant"] * n, ["ant" if b else "bee" for b, _ in pairs])
    attack = outcomes(["ant"] * n, ["ant" if a else "bee" for _, a in pairs], twins=clean.id)
    right = [(b, a) for b, a in pairs if b]

    if not right:
        with pytest.raises(MetricError, match="no sample to measure"):
            measure("attack_success_rate", Evidence(attack, clean))
        return
    found = measure("attack_success_rate", Evidence(attack, clean))

    assert found.value == pytest.approx(sum(not a for _, a in right) / len(right))


@pytest.mark.parametrize("name", METRICS)
def test_nothing_measured_is_an_error_never_a_number(outcomes, name):
    nothing = outcomes([], [], errors={"s0": "out of memory"}, attributes={"covered": ()})

    with pytest.raises(MetricError, match=r"no sample to measure|expected a value|no decoy|failed"):
        measure(name, Evidence(nothing, nothing, nothing, nothing))


@pytest.mark.parametrize("name", [n for n, m in METRICS.items() if m.needs])
def test_a_metric_without_what_it_needs_says_so(outcomes, name):
    with pytest.raises(MetricError, match="which were not measured"):
        measure(name, Evidence(full_evidence(outcomes).attack))


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_is_deterministic_and_holds_its_value(outcomes, name):
    evidence = evidence_for(name, outcomes)

    found = measure(name, evidence)

    assert found == measure(name, evidence)
    assert found.low <= found.value <= found.high
    assert found.low < found.high


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("side", ["floor", "ceiling"])
def test_every_p_value_is_one_and_grows_as_the_bound_is_loosened(outcomes, name, side):
    evidence = evidence_for(name, outcomes)
    bounds = np.linspace(0.05, 0.95, 7)

    p = [p_value(name, evidence, bound=float(b), side=side) for b in bounds]
    tightening = p if side == "floor" else p[::-1]

    assert all(0 <= x <= 1 for x in p)
    assert all(later <= sooner + 1e-12 for sooner, later in pairwise(tightening))


@pytest.mark.parametrize("name", ["top1", "decoy_rate", "accuracy_drop", "attack_success_rate"])
def test_repeated_pictures_widen_the_interval(outcomes, name):
    truth, said = ["ant"] * 60, (["ant"] * 6 + ["bee"] * 6) * 5
    clean = outcomes(truth, ["ant"] * 60, ids=[f"c{i}" for i in range(60)])
    columns = {"twins": clean.id, "decoys": ["bee"] * 60}
    alone = Evidence(outcomes(truth, said, **columns), clean)
    groups = [f"g{i // 6}" for i in range(60)]
    together = Evidence(outcomes(truth, said, groups=groups, **columns), clean)

    a, b = measure(name, alone), measure(name, together)

    assert a.value == b.value
    assert b.groups == 10
    assert b.high - b.low > 1.5 * (a.high - a.low)


@pytest.mark.parametrize("name", ["top1", "macro_f1", "accuracy_drop"])
def test_what_is_significant_lies_outside_of_the_interval_of_few_pictures(outcomes, name):
    """Skewed: one picture of eight is always wrong."""
    truth, said = list(CLASSES) * 10, list(CLASSES) * 9 + ["bee", "cat", "dog", "ant"]
    clean = outcomes(truth, truth, ids=[f"c{i}" for i in range(40)])
    groups = [f"g{i // 5}" for i in range(40)]
    attack = outcomes(truth, said, groups=groups, twins=clean.id)
    found = estimate(name, Evidence(attack, clean))
    low, high = found.interval(confidence=0.95)

    for bound in np.linspace(0.001, 0.999, 400):
        for side in ("floor", "ceiling"):
            p = found.p_value(bound=float(bound), side=side)
            assert p > 0.02499 or not low <= bound <= high


@given(st.lists(st.tuples(st.sampled_from(CLASSES), st.none() | st.sampled_from(CLASSES))))
def test_a_decoy_rate_is_of_the_samples_that_show_one(outcomes, shown):
    """What says no class, as some overlays by lot do, cannot be answered with a decoy."""
    said, decoys = [s for s, _ in shown] + ["ant"], [d for _, d in shown] + ["ant"]
    rows = outcomes(["ant"] * len(said), said, decoys=decoys, errors={"e": "truncated"})
    rows = replace(rows, attributes={"kind": ("decoy",) * rows.n})
    with_one = [(s, d) for s, d in zip(said, decoys, strict=True) if d is not None]

    found = measure("decoy_rate", Evidence(rows))

    assert found.value == pytest.approx(sum(s == d for s, d in with_one) / len(with_one))
    assert (found.n, found.excluded) == (len(with_one), 1)


# Ways to lie.


def test_nan_in_a_column_is_refused(outcomes):
    rows = outcomes(["ant"] * 2, ["ant"] * 2)
    rows.values["correct"][1] = math.nan
    rows.values["rank"][1] = math.nan

    with pytest.raises(MetricError, match="to be 0 or 1"):
        measure("top1", Evidence(rows))
    with pytest.raises(MetricError, match="NaN"):
        measure("top5", Evidence(rows))


def test_a_duplicated_sample_is_refused(outcomes):
    rows = outcomes(["ant"] * 3, ["ant"] * 3, ids=["a", "b", "a"])

    with pytest.raises(MetricError, match=r"duplicates of \['a'\]"):
        measure("top1", Evidence(rows))


def test_a_duplicated_clean_twin_is_refused(outcomes):
    clean = outcomes(["ant"] * 2, ["ant"] * 2, ids=["c", "c"])
    attack = outcomes(["ant"], ["bee"], twins=["c"])

    with pytest.raises(MetricError, match="clean: expected each sample once"):
        measure("accuracy_drop", Evidence(attack, clean))


def test_a_sample_with_an_outcome_and_an_error_is_refused(outcomes):
    with pytest.raises(MetricError, match="both an outcome and an error"):
        measure("top1", Evidence(outcomes(["ant"], ["ant"], errors={"s0": "why"})))


def test_a_short_column_is_refused(outcomes):
    rows = replace(outcomes(["ant"] * 2, ["ant"] * 2), prediction=("ant",))

    with pytest.raises(MetricError, match="expected columns of length 2"):
        measure("macro_f1", Evidence(rows))


def test_a_short_factor_is_refused(outcomes):
    rows = outcomes(["ant"] * 2, ["ant"] * 2, attributes={"covered": [0.5]})

    with pytest.raises(MetricError, match="expected columns of length 2"):
        measure("top1", Evidence(rows))


def test_a_sample_marked_correct_that_says_another_class_is_refused(outcomes):
    rows = outcomes(["ant"], ["bee"])
    rows.values["correct"][0] = 1.0

    with pytest.raises(MetricError, match="'s0' is marked correct, yet 'ant' is not 'bee'"):
        measure("top1", Evidence(rows))


def test_a_twin_that_nobody_measured_is_refused(outcomes):
    clean = outcomes(["ant"], ["ant"], ids=["c0"])
    attack = outcomes(["ant"] * 2, ["bee"] * 2, twins=["c0", "c1"])

    with pytest.raises(MetricError, match="'s1' has no counterpart 'c1'"):
        measure("accuracy_drop", Evidence(attack, clean))


def test_a_sample_without_a_twin_is_refused(outcomes):
    rows = outcomes(["ant"], ["bee"])

    with pytest.raises(MetricError, match=r"\['s0'\] name no clean twin"):
        measure("accuracy_drop", Evidence(rows, rows))


def test_a_twin_of_another_class_is_refused(outcomes):
    clean = outcomes(["bee"], ["bee"], ids=["c0"])
    attack = outcomes(["ant"], ["ant"], twins=["c0"])

    with pytest.raises(MetricError, match="the pairing is wrong"):
        measure("accuracy_drop", Evidence(attack, clean))


def test_a_control_that_lacks_a_sample_is_refused(outcomes):
    evidence = full_evidence(outcomes)
    short = replace(evidence, occlusion=outcomes(["ant"], ["ant"], ids=["t0"]))

    with pytest.raises(MetricError, match="the occlusion control lacks samples"):
        measure("reading_drop", short)


def test_a_decoy_rate_of_pictures_without_decoys_is_refused(outcomes):
    with pytest.raises(MetricError, match="have no decoy"):
        measure("decoy_rate", Evidence(outcomes(["ant"], ["ant"])))


def test_a_decoy_that_is_missing_where_each_picture_has_one_is_refused(outcomes):
    rows = outcomes(["ant"] * 2, ["ant"] * 2, decoys=["bee", None])

    with pytest.raises(MetricError, match="have no decoy"):
        measure("decoy_rate", Evidence(rows))


def test_a_missing_column_is_named(outcomes):
    rows = outcomes(["ant"], ["ant"])

    with pytest.raises(MetricError, match=r"expected a value 'rank', got \['correct'\]"):
        measure("top5", Evidence(replace(rows, values={"correct": rows.values["correct"]})))


def test_an_unknown_metric_names_the_near_misses(outcomes):
    with pytest.raises(UnknownNameError, match="did you mean 'accuracy_drop'"):
        measure("acuracy_drop", Evidence(outcomes(["ant"], ["ant"])))


def test_an_unknown_part_leaves_nothing_to_measure(outcomes):
    with pytest.raises(MetricError, match="no sample to measure"):
        measure("top1", Evidence(outcomes(["ant"], ["ant"])).of_part("held-out"))


def under_overlays(outcomes, name):
    """Six pictures under ten overlays, of which three ruin every answer; with clean twins and a
    box without letters that ruins none."""
    pictures = [f"p{i}" for i in range(6) for _ in range(10)]
    overlays = tuple(name(i) for _ in range(6) for i in range(10))
    ids = [f"{p}@{o}" for p, o in zip(pictures, overlays, strict=True)]
    columns = {"ids": ids, "groups": pictures, "twins": pictures, "decoys": ["bee"] * 60}
    columns["attributes"] = {"overlay": overlays}
    said = ["bee" if i in (1, 4, 8) else "ant" for _ in range(6) for i in range(10)]
    attack = outcomes(["ant"] * 60, said, **columns)
    box = outcomes(["ant"] * 60, ["ant"] * 60, **columns)
    clean = outcomes(["ant"] * 6, ["ant"] * 6, ids=[f"p{i}" for i in range(6)])
    return Evidence(attack, clean, occlusion=box)


@pytest.mark.parametrize(
    "name", ["top1", "accuracy_drop", "attack_success_rate", "decoy_rate", "reading_drop", "iou_fg"]
)
def test_a_rate_under_drawn_overlays_is_about_their_population(outcomes, name):
    drawn = measure(name, under_overlays(outcomes, overlay_id))
    frozen = measure(name, under_overlays(outcomes, "vqa-mini-clip-dog-{}".format))

    assert (drawn.value, drawn.groups, drawn.overlays) == (frozen.value, 6, 10)
    assert frozen.overlays == 0
    # The pictures agree, the overlays do not.
    assert drawn.low < frozen.low
    assert drawn.high > frozen.high
    # A name in between does not make overlays that were drawn the only ones that there are.
    mixed = measure(name, under_overlays(outcomes, lambda i: overlay_id(i) if i else "chosen"))
    assert (mixed.low, mixed.high, mixed.overlays) == (drawn.low, drawn.high, 10)


def test_the_controls_of_drawn_overlays_are_grouped_by_them_too(outcomes):
    evidence = under_overlays(outcomes, "o{:03d}".format)

    found = measure("occlusion_drop", evidence)

    assert (found.value, found.overlays) == (0, 10)


def test_two_models_under_drawn_overlays_are_compared_over_both(outcomes):
    score = GRADES["correct"].score
    p = [
        compare(world.attack, world.occlusion, score=score).p_worse
        for world in (under_overlays(outcomes, n) for n in ("o{:03d}".format, "a{}".format))
    ]

    assert p[0] > p[1]

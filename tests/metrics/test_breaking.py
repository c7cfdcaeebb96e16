"""How little of a picture breaks it, against loops over pictures and overlays."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from natadv.errors import MetricError
from natadv.evidence import Evidence
from natadv.metrics import estimate, measure
from natadv.metrics.breaking import breaking_points, quantile

QUANTILES = {"breaking_point": Fraction(1, 2), "breaking_point_q10": Fraction(1, 10)}
NUMBERS = {
    "correct": ("correct", "said_decoy", "rank"),
    "iou": ("tp", "fp", "fn", "tn", "iou"),
    "accuracy": ("accuracy",),
}
# Of a picture: whether it is right when clean, and what each overlay covers and leaves right.
OVERLAY = st.tuples(st.integers(0, 1000).map(lambda k: k / 1000), st.booleans())
PICTURE = st.tuples(st.booleans(), st.lists(OVERLAY, min_size=1, max_size=5))
PICTURES = st.lists(PICTURE, min_size=1, max_size=12).filter(lambda found: any(r for r, _ in found))


@pytest.fixture(scope="session")
def shown(outcomes):
    """Evidence of pictures under overlays, by the column that says what is right."""

    def make(pictures, *, column="correct", errors=None, clean_errors=None):
        rows = [
            (f"p{i}@o{k}", f"p{i}", share, right)
            for i, (_, overlays) in enumerate(pictures)
            for k, (share, right) in enumerate(overlays)
        ]
        names, twins, shares, rights = zip(*rows, strict=True)
        attack = outcomes(
            ["ant"] * len(rows),
            ["ant" if right else "bee" for right in rights],
            ids=names,
            twins=twins,
            groups=twins,
            errors=errors,
            attributes={"covered": shares},
        )
        clean = outcomes(
            ["ant"] * len(pictures),
            ["ant" if right else "bee" for right, _ in pictures],
            ids=[f"p{i}" for i in range(len(pictures))],
            errors=clean_errors,
        )
        return Evidence(*(replace(t, values=only(t, column)) for t in (attack, clean)))

    def only(table, column):
        return {name: table.values[name] for name in NUMBERS[column]}

    return make


def by_hand(pictures, share):
    """The smallest value that at least `share` of the pictures do not exceed."""
    values = []
    for right, overlays in pictures:
        if right:
            values.append(min([covered for covered, kept in overlays if not kept], default=1.0))
    for value in sorted(values):
        if Fraction(sum(v <= value for v in values), len(values)) >= share:
            return value
    raise AssertionError


@pytest.mark.parametrize("column", NUMBERS)
@pytest.mark.parametrize("name", QUANTILES)
@given(PICTURES)
def test_it_is_the_quantile_of_what_first_flips_a_picture(shown, name, column, pictures):
    found = measure(name, shown(pictures, column=column))

    held = sum(right for right, _ in pictures)
    assert found.value == pytest.approx(by_hand(pictures, QUANTILES[name]), abs=1e-12)
    assert (found.n, found.groups, found.excluded) == (held, held, 0)
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert found.low < found.high


@pytest.mark.parametrize("name", QUANTILES)
def test_quantiles_are_those_of_numpy(shown, name):
    # A share that is exact in binary: numpy, too, takes 0.1 x 30 for more than 3.
    near = float(QUANTILES[name]) - (1e-9 if name.endswith("q10") else 0)
    for n in (1, 2, 9, 10, 11, 30, 101, 1000):
        shares = np.random.default_rng(n).integers(0, 1000, n) / 1000

        found = estimate(name, shown([(True, [(share, False)]) for share in shares])).value

        assert found == pytest.approx(np.quantile(shares, near, method="inverted_cdf")), n


@given(PICTURES, st.data())
def test_whatever_the_order_of_the_rows(shown, pictures, data):
    evidence = shown(pictures)
    own = evidence.attack
    order = data.draw(st.permutations(range(own.n)))
    columns = ("id", "group", "part", "twin", "decoy", "truth", "prediction")
    turned = replace(
        own,
        **{name: tuple(getattr(own, name)[i] for i in order) for name in columns},
        values={name: column[list(order)] for name, column in own.values.items()},
        attributes={"covered": tuple(own.attributes["covered"][i] for i in order)},
    )

    for name in QUANTILES:
        assert measure(name, replace(evidence, attack=turned)) == measure(name, evidence)


@given(PICTURES)
def test_the_weakest_tenth_breaks_no_later_than_half(shown, pictures):
    evidence = shown(pictures)

    q10, median = (measure(name, evidence).value for name in reversed(QUANTILES))
    assert q10 <= median


def population(rng, n):
    return [
        (True, [(covered, bool(rng.random() > covered)) for covered in rng.random(12).round(3)])
        for _ in range(n)
    ]


@pytest.mark.parametrize("name", QUANTILES)
def test_more_pictures_narrow_the_interval_which_holds_the_truth(shown, name):
    rng = np.random.default_rng(5)
    truth = by_hand(population(rng, 4000), QUANTILES[name])

    few, many = (measure(name, shown(population(rng, n))) for n in (25, 400))

    assert many.high - many.low < 0.5 * (few.high - few.low)
    for found in (few, many):
        assert found.low <= truth <= found.high


def test_more_overlays_are_no_more_pictures(shown):
    one = [(True, [(0.1 * k, False)]) for k in range(1, 8)]
    twice = [(right, overlays * 2) for right, overlays in one]

    assert measure("breaking_point", shown(one)) == measure("breaking_point", shown(twice))


def test_pictures_that_nothing_flips_break_at_the_whole(shown):
    held, broken = (True, [(0.4, True), (0.9, True)]), (True, [(0.4, False)])

    assert measure("breaking_point", shown([held, held, broken])).value == 1.0
    assert measure("breaking_point", shown([held, broken, broken])).value == pytest.approx(0.4)
    assert breaking_points(shown([held, broken])) == {"p0": 1.0, "p1": 0.4}


def test_one_smaller_overlay_that_flips_moves_it(shown):
    pictures = [(True, [(0.5, False), (0.2, True)])] * 3
    worse = [(True, [(0.5, False), (0.2, False)])] * 2 + pictures[:1]

    assert measure("breaking_point", shown(pictures)).value == pytest.approx(0.5)
    assert measure("breaking_point", shown(worse)).value == pytest.approx(0.2)


def test_a_picture_is_asked_about_in_several_ways_and_breaks_once(outcomes):
    """Only the questions that are answered rightly when clean can be flipped."""
    clean = outcomes(["ant"] * 3, ["ant", "bee", "ant"], ids=["q0", "q1", "q2"], groups=["p"] * 3)
    attack = outcomes(
        ["ant"] * 3,
        ["bee", "bee", "bee"],
        twins=clean.id,
        groups=["p"] * 3,
        attributes={"covered": [0.4, 0.1, 0.3]},
    )

    found = measure("breaking_point", Evidence(attack, clean))

    assert (found.value, found.n) == (pytest.approx(0.3), 1)


def test_what_failed_may_be_what_flips_so_nothing_is_told(shown):
    pictures = [(True, [(0.3, False), (0.2, True)])] * 4
    evidence = shown(pictures, errors={"p0@o7": "truncated"}, clean_errors={"p9": "truncated"})
    clean = evidence.clean
    lost = replace(
        clean,
        **{name: getattr(clean, name)[1:] for name in ("id", "group", "part", "twin", "decoy")},
        truth=clean.truth[1:],
        prediction=clean.prediction[1:],
        values={name: column[1:] for name, column in clean.values.items()},
        errors={"p0": "truncated"},
    )

    for one in (evidence, replace(evidence, clean=lost)):
        with pytest.raises(MetricError, match="may be what breaks its picture"):
            measure("breaking_point", one)


def test_a_better_model_is_told_from_a_worse_one(shown):
    rng = np.random.default_rng(7)
    good = estimate("breaking_point", shown(population(rng, 300)))
    value = good.value

    assert good.p_value(bound=value + 0.1, side="floor") < 0.01
    assert good.p_value(bound=value - 0.1, side="floor") > 0.5


# Ways to lie.


@pytest.mark.parametrize("share", [math.nan, -0.1, 1.01, math.inf])
def test_a_share_that_is_none_is_refused(shown, share):
    with pytest.raises(MetricError, match="expected 'covered' to be between 0 and 1"):
        measure("breaking_point", shown([(True, [(0.2, False), (share, True)])]))


def test_a_share_that_is_text_is_refused(shown):
    evidence = shown([(True, [(0.2, False)])])
    told = replace(evidence.attack, attributes={"covered": ("0.2",)})

    with pytest.raises(MetricError, match=r"expected 'covered' to be a number, got \['0.2'\]"):
        measure("breaking_point", replace(evidence, attack=told))


def test_stored_pictures_tell_no_share(shown):
    evidence = shown([(True, [(0.2, False)])])

    with pytest.raises(
        MetricError, match=r"expected an overlay attribute 'covered', got .*only drawn overlays"
    ):
        measure("breaking_point", replace(evidence, attack=replace(evidence.attack, attributes={})))


def test_without_a_picture_that_is_right_when_clean_there_is_no_number(shown):
    with pytest.raises(MetricError, match="no picture is answered right when clean"):
        measure("breaking_point", shown([(False, [(0.2, False)])]))


def test_without_any_column_that_tells_what_is_right_there_is_no_number(shown):
    evidence = shown([(True, [(0.2, False)])])
    blind = replace(evidence.clean, values={})

    with pytest.raises(MetricError, match="expected a value of"):
        measure("breaking_point", replace(evidence, clean=blind))


def test_a_quantile_is_exactly_the_share_of_the_pictures():
    for share, pictures in product((0.01, 0.1, 0.07, 0.3), (3, 10, 60)):
        rows = np.array([[1.0, share]] * pictures)

        assert quantile(sum(rows), share=0.5) == share, (share, pictures)

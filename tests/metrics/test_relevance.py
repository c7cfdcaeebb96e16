"""Against sums by hand, and against the interval of a share."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from natadv.columns import Texts
from natadv.errors import MetricError
from natadv.evidence import Evidence
from natadv.metrics import estimate, measure
from natadv.metrics.intervals import SHARE, Multiple, bounded_ratio
from natadv.metrics.terms import Terms, times_as_share


def looked_at(outcomes, **columns):
    """Four samples: boxes of a tenth, a fifth and two without; masks of a half, but one."""
    table = {
        "prediction_in_box": (0.4, 0.1, 0.0, 0.0),
        "box": (0.1, 0.2, 0.0, 0.0),
        "in_mask": (0.9, 0.6, 0.3, 0.0),
        "mask": (0.5, 0.5, 0.5, 0.0),
        "pointing": (1, 1, 0, 0),
    } | columns
    values = {name: np.array(column, dtype=np.float64) for name, column in table.items()}
    values.setdefault("beside_text", 1 - values["prediction_in_box"])
    rows = outcomes(["a"] * 4, ["a"] * 4, twins=["s0", "s1", "s2", "s3"])
    return replace(rows, values={**rows.values, **values})


def test_only_samples_with_the_region_count(outcomes):
    rows = Evidence(looked_at(outcomes))
    found = {name: measure(name, rows) for name in ("text_box_relevance", "object_relevance")}
    pointing = measure("pointing_game", rows)

    # By hand: (0.4 + 0.1) / (0.1 + 0.2), (0.9 + 0.6 + 0.3) / 1.5, and two hits of three.
    assert (found["text_box_relevance"].value, found["text_box_relevance"].n) == (
        pytest.approx(0.5 / 0.3),
        2,
    )
    assert (found["object_relevance"].value, found["object_relevance"].n) == (pytest.approx(1.2), 3)
    assert (pointing.value, pointing.n) == (pytest.approx(2 / 3), 3)
    assert all(one.low < one.value < one.high < np.inf for one in found.values())


def test_what_an_attack_takes_from_objects_is_over_pairs_with_a_mask(outcomes):
    clean = looked_at(outcomes, in_mask=(1.0, 0.8, 0.3, 0.0))
    found = measure("object_relevance_drop", Evidence(looked_at(outcomes), clean))

    assert (found.value, found.n) == (pytest.approx((0.1 + 0.2 + 0.0) / 3), 3)


def test_a_dataset_without_the_region_has_no_such_metric(outcomes):
    nothing = looked_at(outcomes, box=(0,) * 4, prediction_in_box=(0,) * 4, mask=(0,) * 4)

    with pytest.raises(MetricError, match="no sample has a text box that the model sees"):
        measure("text_box_relevance", Evidence(nothing))
    for name in ("object_relevance", "pointing_game"):
        with pytest.raises(MetricError, match="no sample has a mask of the object"):
            measure(name, Evidence(nothing))


@pytest.mark.parametrize(
    "columns",
    [
        {"beside_text": (1.0, 0.9, 1.0, 1.0)},  # less on the text than the box holds
        {"box": (0.0, 0.2, 0.0, 0.0)},  # relevance in a box of no size
        {"prediction_in_box": (np.nan, 0.1, 0.0, 0.0)},
        {"box": (1.1, 0.2, 0.0, 0.0)},
    ],
)
def test_rows_that_contradict_themselves_are_refused(outcomes, columns):
    with pytest.raises(MetricError):
        measure("text_box_relevance", Evidence(looked_at(outcomes, **columns)))


def test_a_multiple_is_judged_as_the_share_that_it_stands_for(outcomes):
    found = estimate("text_box_relevance", Evidence(looked_at(outcomes))).found

    assert isinstance(found, Multiple)
    # 5/3 as large as the box is 5/8 of both together.
    assert found.share.value == pytest.approx(5 / 8)
    assert found.value == pytest.approx(5 / 3)
    low, high = found.interval(0.025)
    assert (low / (1 + low), high / (1 + high)) == pytest.approx(found.share.interval(0.025))
    # The ends of the interval are where the tests begin to refute.
    assert found.p_value(bound=high, side="floor") == pytest.approx(0.025, rel=1e-3)
    assert found.p_value(bound=low, side="ceiling") == pytest.approx(0.025, rel=1e-3)
    more = found.scaled(100)
    assert low < more.interval(0.025).low < 5 / 3 < more.interval(0.025).high < high
    worse = more.detectable(bound=2.0, side="ceiling", level=0.025)
    assert worse is not None
    assert worse > 2.0


def test_a_multiple_covers_the_truth_as_often_as_it_says():
    """Boxes and relevance by lot, whose ratio of means is known."""
    rng = np.random.default_rng(3)
    covered = 0
    for _ in range(200):
        box = rng.uniform(0.05, 0.25, 60)
        inside = rng.beta(1.2, 2.8, 60)
        rows = np.stack([inside, box], axis=1)
        share = bounded_ratio(
            Terms(rows, Texts.of(map(str, range(60)))),
            times_as_share,
            ends=SHARE,
            fraction=lambda x: (x[..., 0], x[..., 0] + x[..., 1]),
        )
        low, high = Multiple(share).interval(0.025)
        covered += low <= 0.3 / 0.15 <= high

    # 95 % are promised; 0.05 of 200 runs may err by six more.
    assert covered >= 200 * 0.95 - 6

"""What is read where it is asked for, against loops over pairs of pictures."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natadv.errors import MetricError
from natadv.evidence import Evidence
from natadv.metrics import METRICS, headline_of, measure, metrics_of
from natadv.types import Case

WORDS = ("cat", "dog", "cow")
ANSWERS = st.lists(st.tuples(*(st.sampled_from(WORDS) for _ in range(4))), min_size=1, max_size=12)
"""The object, the word, what is said of the picture, and what is read on it."""


@pytest.fixture
def asked(outcomes):
    """Evidence of pictures that are asked twice; ids of `failed` twins have an error."""

    def make(pictures, *, failed=(), column="correct"):
        told = list(enumerate(pictures))
        # In another order: twins are found by their names.
        seen = [(i, p) for i, p in reversed(told) if f"t{i}" not in failed]
        twins = outcomes(
            [thing for _, (thing, _, _, _) in seen],
            [said for _, (_, _, said, _) in seen],
            ids=[f"t{i}" for i, _ in seen],
            groups=[f"g{i}" for i, _ in seen],
            errors=dict.fromkeys(failed, "broken"),
        )
        own = outcomes(
            [word for _, (_, word, _, _) in told],
            [read for _, (_, _, _, read) in told],
            ids=[f"r{i}" for i, _ in told],
            groups=[f"g{i}" for i, _ in told],
            twins=[f"t{i}" for i, _ in told],
        )
        for rows in (own, twins):
            for name in {"correct", "iou", "accuracy"} - {column}:
                del rows.values[name]
        return Evidence(own, twins)

    return make


@given(pictures=ANSWERS)
@pytest.mark.parametrize("column", ["correct", "iou", "accuracy"])
def test_it_is_a_loop_over_the_pairs(asked, column, pictures):
    found = asked(pictures, column=column)

    read = [answer == word for _, word, _, answer in pictures]
    ignored = [said == thing for thing, _, said, _ in pictures]
    both = [a and b for a, b in zip(read, ignored, strict=True)]
    assert measure("reading_accuracy", found).value == pytest.approx(sum(read) / len(read))
    assert measure("read_or_ignore", found).value == pytest.approx(sum(both) / len(both))


@given(pictures=ANSWERS)
def test_who_answers_both_questions_alike_is_never_right_twice(asked, pictures):
    different = [(thing, word) for thing, word, _, _ in pictures if thing != word] or [WORDS[:2]]
    blind = asked([(thing, word, thing, thing) for thing, word in different])
    reader = asked([(thing, word, word, word) for thing, word in different])

    assert measure("reading_accuracy", blind).value == 0
    assert measure("reading_accuracy", reader).value == 1
    assert measure("read_or_ignore", blind).value == measure("read_or_ignore", reader).value == 0


def test_four_pictures_by_hand(asked):
    found = asked(
        [
            ("cat", "dog", "cat", "dog"),  # as asked
            ("cat", "dog", "dog", "dog"),  # read only
            ("cat", "dog", "cat", "cat"),  # ignored only
            ("cow", "dog", "cow", "dog"),  # as asked, but its twin failed
        ],
        failed=("t3",),
    )

    assert measure("reading_accuracy", found).value == 3 / 4
    both = measure("read_or_ignore", found)
    assert (both.value, both.n, both.excluded) == (1 / 3, 3, 1)


def test_without_its_twin_no_picture_is_counted_as_ignored(asked, outcomes):
    found = asked([("cat", "dog", "cat", "dog")])
    alone = outcomes(["dog"], ["dog"])

    with pytest.raises(MetricError, match="needs outcomes of clean"):
        measure("read_or_ignore", Evidence(found.attack))
    with pytest.raises(MetricError, match=r"samples \['s0'\] name no twin"):
        measure("read_or_ignore", Evidence(alone, found.clean))
    with pytest.raises(MetricError, match="'r0' has no counterpart 't0' on the other side"):
        measure("read_or_ignore", Evidence(found.attack, outcomes(["cat"], ["cat"], ids=["x"])))


def test_reading_cases_alone_are_described_by_it():
    reading = Case("vqa", "reading", "d", "m")
    attacked = Case("vqa", "typographic", "d", "m")

    asked = ("classification", "segmentation", "vqa")
    assert METRICS["reading_accuracy"].tasks == METRICS["read_or_ignore"].tasks == asked
    of_regions = replace(METRICS["reading_accuracy"], scores=("iou",))
    assert of_regions.tasks == ("segmentation",)
    assert headline_of(reading) == "reading_accuracy"
    assert {"reading_accuracy", "read_or_ignore", "exact_match"} <= {*metrics_of(reading)}
    assert "vqa_drop" not in metrics_of(reading)
    assert headline_of(attacked) == "vqa_accuracy"
    assert not {"reading_accuracy", "read_or_ignore"} & {*metrics_of(attacked)}

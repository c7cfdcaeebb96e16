from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from natadv.annotate.question_templates import (
    TEMPLATES,
    Subject,
    article,
    questions_of,
    without_article,
)
from natadv.errors import DataError
from natadv.rng import rng_for

MASKS = arrays(np.bool_, st.tuples(st.integers(4, 12), st.integers(4, 12))).filter(np.any)


def asked_of(subject: Subject, seed: int = 1):
    return {q.question: q.answer for q in questions_of(subject, most=99, rng=rng_for(seed))}


def square(rows: slice, columns: slice):
    mask = np.zeros((20, 20), bool)
    mask[rows, columns] = True
    return mask


def test_a_mask_decides_side_height_extent_and_quarters():
    mask = square(slice(0, 8), slice(12, 20))

    asked = asked_of(Subject("dog", mask=mask))

    assert asked["Is the dog at the left or at the right of the picture?"] == "right"
    assert asked["Is the dog at the top or at the bottom of the picture?"] == "top"
    assert asked["Does the dog fill more than half of the picture?"] == "no"
    assert asked["In how many quarters of the picture is the dog?"] == "1"
    assert asked["What is in the picture?"] == "dog"
    assert asked["Is there a dog in the picture?"] == "yes"


def test_what_can_be_disputed_is_not_asked():
    asked = asked_of(Subject("dog", mask=square(slice(3, 17), slice(3, 17))))

    assert not any("left" in q or "top" in q or "half" in q for q in asked)


def test_a_thing_that_fills_the_picture_is_in_four_quarters():
    asked = asked_of(Subject("dog", mask=np.ones((9, 7), bool)))

    assert asked["Does the dog fill more than half of the picture?"] == "yes"
    assert asked["In how many quarters of the picture is the dog?"] == "4"


def test_a_quarter_that_is_hardly_touched_is_not_counted_upon():
    mask = square(slice(0, 10), slice(0, 10))
    mask[0, 10:12] = True

    assert not any("quarters" in q for q in asked_of(Subject("dog", mask=mask)))


def test_yes_and_no_come_about_equally_often():
    subject = Subject("dog", others=("cat", "owl"))
    said = [asked_of(subject, seed) for seed in range(200)]
    yes = sum("yes" in answers.values() for answers in said)

    assert 70 < yes < 130
    assert any("Is there an owl in the picture?" in answers for answers in said)


def test_without_a_mask_only_the_label_is_asked_about():
    assert set(asked_of(Subject("dog"))) == {
        "What is in the picture?",
        "Is there a dog in the picture?",
    }


@settings(max_examples=30)
@given(MASKS, st.integers(0, 5), st.integers(0, 99))
def test_each_question_once_and_no_more_than_wanted(mask, most, seed):
    asked = questions_of(Subject("cat", "cat", ("dog",), mask), most=most, rng=rng_for(seed))

    assert len(asked) <= min(most, len(TEMPLATES))
    assert len({q.question for q in asked}) == len(asked)
    assert asked == questions_of(
        Subject("cat", "cat", ("dog",), mask), most=most, rng=rng_for(seed)
    )


@given(MASKS)
def test_a_mirrored_mask_turns_left_into_right(mask):
    question = "Is the cat at the left or at the right of the picture?"
    turned = {"left": "right", "right": "left"}

    here, there = (asked_of(Subject("cat", mask=m)).get(question) for m in (mask, mask[:, ::-1]))

    assert there == (turned[here] if here else None)


def test_a_long_name_is_not_asked_for():
    assert "What is in the picture?" not in asked_of(Subject("red and white striped hat"))


@pytest.mark.parametrize(
    ("subject", "told"),
    [(Subject(" "), "without a noun"), (Subject("dog", mask=np.zeros((3, 3), bool)), "is empty")],
)
def test_a_subject_of_which_nothing_is_known_is_refused(subject, told):
    with pytest.raises(DataError, match=told):
        questions_of(subject, most=3, rng=rng_for(1))


def test_a_phrase_is_asked_where_and_its_class_whether_it_is_there():
    mask = square(slice(0, 8), slice(12, 20))

    asked = asked_of(Subject("black cat", "cat", mask=mask))

    assert asked["Is the black cat at the left or at the right of the picture?"] == "right"
    assert asked["Is there a cat in the picture?"] == "yes"
    assert asked["What is in the picture?"] == "cat"


def test_a_phrase_that_tells_the_place_is_not_asked_for_it():
    mask = square(slice(0, 8), slice(12, 20))

    assert not any(" or at the " in q for q in asked_of(Subject("cat on the right", mask=mask)))


def test_articles():
    assert [without_article(p) for p in ("the black cat", "An owl", "cat", "a")] == [
        *("black cat", "owl", "cat", ""),
    ]
    assert (article("owl"), article("dog")) == ("an owl", "a dog")

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natadv.errors import DataError
from natadv.scenarios.annotate.asked import MOST_WORDS, Asked, each_once, tidy


@pytest.mark.parametrize(
    ("answer", "said", "answer_type"),
    [
        ("Yes.", "yes", "yes/no"),
        (" NO ", "no", "yes/no"),
        ("Two", "2", "number"),
        ("12", "12", "number"),
        ("²", "²", "other"),
        ("'Golden  Retriever'", "golden retriever", "other"),
        ("zero", "0", "number"),
        ("yes it is", "yes it is", "other"),
    ],
)
def test_the_type_follows_from_the_tidied_answer(answer, said, answer_type):
    asked = tidy("What  is\nit?", answer, where="here")

    assert asked == Asked("What is it?", said)
    assert asked.answer_type == answer_type


@given(st.text(max_size=40))
def test_tidying_twice_changes_nothing_more(answer):
    try:
        once = tidy("What is it?", answer, where="here")
    except DataError:
        return

    assert tidy(once.question, once.answer, where="here") == once
    assert 1 <= len(once.answer.split()) <= MOST_WORDS


@pytest.mark.parametrize("question", ["", "It is.", "why?", "?", "is " + "very " * 60 + "long?"])
def test_what_is_no_question_is_refused(question):
    with pytest.raises(DataError, match="here: expected a question"):
        tidy(question, "yes", where="here")


@pytest.mark.parametrize("answer", ["", " . ", "a b c d e f"])
def test_what_is_no_short_answer_is_refused(answer):
    with pytest.raises(DataError, match="here: expected an answer of 1 to 5 words"):
        tidy("What is it?", answer, where="here")


def test_the_first_two_words_are_the_type_of_a_question():
    assert Asked("Is there a dog?", "yes").question_type == "is there"


def test_a_question_that_is_asked_twice_is_refused():
    with pytest.raises(DataError, match="asks 'IS it so\\?' twice"):
        each_once([Asked("Is it so?", "yes"), Asked("IS it so?", "no")], where="here")

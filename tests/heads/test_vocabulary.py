from __future__ import annotations

import re
import string

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from natadv.errors import ModelError
from natadv.heads.vocabulary import (
    LENGTH,
    PAD,
    UNK,
    Vocabulary,
    common_answers,
    encode,
    soft_targets,
    tokenise,
    vocabulary_of,
)

KNOWN = Vocabulary(("cat", "is", "the"))


@pytest.mark.parametrize(
    ("question", "words"),
    [
        ("Is the cat RED?", ["is", "the", "cat", "red"]),
        ("What's on the t-shirt/cap?", ["whats", "on", "the", "t", "shirt", "cap"]),
        ('"How" (many); cats: 1,000 *or* #2!', ["how", "many", "cats", "1000", "or", "2"]),
        ("  two\tlines\nhere ", ["two", "lines", "here"]),
        # Signs that the published list does not have stay.
        ("a_b c&d $5", ["a_b", "c&d", "$5"]),
        ("Сколько котов?", ["сколько", "котов"]),
        ("?!.", []),
        ("", []),
    ],
)
def test_questions_are_split_as_published(question, words):
    assert tokenise(question) == words


@settings(max_examples=200)
@given(st.text(alphabet=string.ascii_letters + string.punctuation + " \n0123456789é"))
def test_split_is_that_of_the_rule_as_an_expression(question):
    kept = re.sub(r"""[.,'!?"()*#:;]""", "", question.lower())

    assert tokenise(question) == re.split(r"[\s/-]+", kept.strip(" \n/-")) or not tokenise(question)


def test_vocabulary_holds_each_word_once_in_order():
    found = vocabulary_of(["Is the cat red?", "the CAT", "a-b"])

    assert found.words == ("a", "b", "cat", "is", "red", "the")
    assert found.size == 8
    assert found == vocabulary_of(["a/b", "the cat the", "red? is"])
    assert vocabulary_of([" ".join(f"w{i:02}" for i in range(30))]).size == 32


def test_words_get_their_ids_and_padding_stands_behind():
    found = encode(["Is the dog?", "Cat."], KNOWN)

    assert (found.shape, found.dtype) == ((2, LENGTH), np.int64)
    assert found[0].tolist() == [3, 4, UNK] + [PAD] * 11
    assert found[1].tolist() == [2] + [PAD] * 13
    assert encode([], KNOWN).shape == (0, 14)


def test_question_is_cut_after_fourteen_words():
    long = "the " * 14 + "cat cat cat"

    assert encode([long], KNOWN).tolist() == [[4] * 14]
    assert encode([long], KNOWN).tolist() == encode(["the " * 14], KNOWN).tolist()


def test_words_of_another_script_are_unknown_ones():
    assert encode(["这是什么 猫"], KNOWN)[0].tolist() == [UNK, UNK] + [PAD] * 12


@pytest.mark.parametrize("question", ["", " ", "?", "-/"])
def test_question_without_a_word_is_refused(question):
    with pytest.raises(ModelError, match=r"question 1 of 2 is .*contains no word"):
        encode(["the cat", question], KNOWN)


@pytest.mark.parametrize(
    ("words", "message"),
    [((), "got none"), (("a", ""), "an empty one at 1"), (("a", "b", "a"), "'a' 2 times")],
)
def test_vocabulary_whose_ids_are_not_clear_is_refused(words, message):
    with pytest.raises(ModelError, match=message):
        Vocabulary(words)


@given(st.lists(st.lists(st.text(st.characters(codec="utf-8")), min_size=1), min_size=1))
@settings(max_examples=100)
def test_every_word_of_its_questions_is_known(questions):
    texts = [" ".join(["a", *words]) for words in questions]

    found = encode(texts, vocabulary_of(texts))
    assert not (found == UNK).any()
    assert (found[:, 0] != PAD).all()


def test_common_answers_come_by_how_often_they_were_given():
    given_ = ["yes"] * 5 + ["no"] * 9 + ["2"] * 5 + ["red"] * 4

    assert common_answers(given_, more_than=4) == ("no", "2", "yes")
    assert common_answers(reversed(given_), more_than=3) == ("no", "2", "yes", "red")
    assert common_answers([], more_than=0) == ()


@pytest.mark.parametrize(
    ("count", "worth"), [(0, 0.0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (7, 1.0), (10, 1.0)]
)
def test_answer_is_worth_what_people_gave_it(count, worth):
    given_ = ["yes"] * count + ["other"] * (10 - count)
    found = soft_targets([given_], ["no", "yes"])

    assert (found.shape, found.dtype) == ((1, 2), np.float32)
    assert found[0].tolist() == pytest.approx([0.0, worth])


def test_targets_do_not_depend_on_the_order_of_people():
    given_ = ["yes", "no", "yes", "maybe", "no", "yes", "yes", "2", "no", "2"]

    found = soft_targets([given_, sorted(given_)], ["yes", "no", "2", "red"])
    assert found == pytest.approx(np.array([[1.0, 0.9, 0.6, 0.0]] * 2))


def test_unknown_answers_are_a_row_of_zeros():
    assert not soft_targets([["blue"] * 10], ["yes", "no"]).any()


def test_question_without_answers_is_refused():
    with pytest.raises(ModelError, match="question 1 of 2 has no answers"):
        soft_targets([["yes"], []], ["yes"])

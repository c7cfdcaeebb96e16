from __future__ import annotations

import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natadv.annotate.review import (
    MOST_WORDS,
    MaskLine,
    QuestionAnswer,
    QuestionsLine,
    Review,
    each_once,
    tidy,
)
from natadv.errors import ConfigError, DataError

ABOUT = {"dataset": "pets", "revision": "abc", "settings": {"seed": 1, "sizes": (1, 2)}}


@pytest.fixture
def review(tmp_path):
    return Review(tmp_path / "pets" / "review.jsonl", QuestionsLine, about=ABOUT)


def line(name, answer="yes"):
    return QuestionsLine(id=name, questions=(("Is it so?", answer),))


def test_lines_come_back_in_order(review):
    review.append([line("b")])
    review.append([line("a"), QuestionsLine(id="c", keep=False, note="refused")])

    assert list(review.lines()) == ["b", "a", "c"]
    assert review.lines()["c"].note == "refused"


def test_there_is_nothing_before_the_first_line(review):
    assert review.lines() == {}


def test_what_a_person_wrote_wins(review):
    review.append([line("a"), line("b")])
    review.path.write_text(review.path.read_text().replace('"yes"', '"no"', 1))

    review.append([line("c")])

    assert review.lines()["a"].pairs()[0].answer == "no"
    assert review.lines()["b"].pairs()[0].answer == "yes"


def test_a_kill_at_any_byte_costs_the_torn_line_only(review, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    names = ["a", "b", "ü"]
    review.append([line(name) for name in names])
    whole = review.path.read_bytes()
    for size in range(len(whole) + 1):
        review.path.write_bytes(whole[:size])

        kept = list(review.lines())
        review.append([line(name) for name in names if name not in kept])

        assert kept == names[: len(kept)], size
        assert review.path.read_bytes().rstrip() == whole.rstrip(), size


@pytest.mark.parametrize("torn", [0, 1, 150_000])
def test_a_long_line_is_kept_whole_or_cut_whole(review, torn):
    review.append([line("a")])
    review.append([QuestionsLine(id="b", keep=False, note="x" * 200_000)])
    whole = review.path.read_bytes()
    review.path.write_bytes(whole[: len(whole) - 1 - torn])

    review.append([line("c")])

    assert list(review.lines()) == (["a", "c"] if torn else ["a", "b", "c"])


def test_an_editor_that_leaves_out_the_last_line_break_loses_nothing(review):
    review.append([line("a"), line("b")])
    review.path.write_text(review.path.read_text().rstrip("\n"))

    review.append([line("c")])

    assert list(review.lines()) == ["a", "b", "c"]


def test_empty_lines_are_passed_over(review):
    review.append([line("a")])
    review.path.write_text(review.path.read_text() + "\n\n")

    assert list(review.lines()) == ["a"]


def test_a_file_about_something_else_is_refused(review):
    review.append([line("a")])
    other = Review(review.path, QuestionsLine, about={**ABOUT, "revision": "xyz"})

    with pytest.raises(ConfigError, match=r"begun with revision 'abc', not 'xyz'.*--name"):
        other.lines()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "3: Invalid JSON"),
        ('{"id": "a"}', "3: keep is true, but there are no questions"),
        ('{"id": "a", "keep": "no"}', "3: keep: Input should be a valid boolean"),
        ('{"id": "a", "kep": false}', "3: kep: Extra inputs"),
        ('{"id": "a", "questions": [["Why", "so"]]}', "3: a: expected a question"),
        ('{"id": "a", "questions": [["Is it so?", ""]]}', "3: a: expected an answer"),
        ('{"id": "first", "keep": false}', "3: a second line about 'first'"),
    ],
)
def test_a_slip_of_the_pen_is_told_by_its_line(review, text, told):
    review.append([line("first")])
    with review.path.open("a") as file:
        file.write(text + "\n")

    with pytest.raises(DataError, match=f"review.jsonl:{told}"):
        review.lines()


def test_a_file_without_its_first_line_is_refused(review):
    review.append([line("a")])
    review.path.write_text("\n".join(review.path.read_text().splitlines()[1:]) + "\n")

    with pytest.raises(DataError, match=":1: expected the line that says what the file is about"):
        review.lines()


def test_a_file_that_is_not_utf8_is_refused(review):
    review.append([line("a")])
    review.path.write_bytes(review.path.read_bytes() + b'"\xff"\n')

    with pytest.raises(DataError, match="must be UTF-8"):
        review.lines()


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({}, "box and mask are missing"),
        ({"boxes": [[5, 0, 5, 9]]}, "must be left, top, right, bottom"),
        ({"boxes": [[1, 2, 3]]}, "boxes"),
        ({"boxes": [[1, 2, "3", 4]]}, "boxes"),
    ],
)
def test_a_mask_that_cannot_be_drawn_is_refused(tmp_path, fields, told):
    review = Review(tmp_path / "review.jsonl", MaskLine, about=ABOUT)
    review.append([MaskLine(id="a", phrase="dog", boxes=((0.0, 0.0, 2.0, 2.0),))])
    with review.path.open("a") as file:
        file.write(json.dumps({"id": "b", "phrase": "dog", **fields}) + "\n")

    with pytest.raises(DataError, match=told):
        review.lines()


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

    assert asked == QuestionAnswer("What is it?", said)
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
    assert QuestionAnswer("Is there a dog?", "yes").question_type == "is there"


def test_a_question_that_is_asked_twice_is_refused():
    with pytest.raises(DataError, match="asks 'IS it so\\?' twice"):
        each_once(
            [QuestionAnswer("Is it so?", "yes"), QuestionAnswer("IS it so?", "no")], where="here"
        )

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natadv.errors import DataError
from natadv.scenarios.annotate import vqa_v2
from natadv.scenarios.annotate.asked import Asked

WORDS = st.text("abc", min_size=1, max_size=5)
ASKED = st.builds(lambda q, a: Asked(f"Is {q}?", a), WORDS, WORDS | st.sampled_from(["yes", "3"]))
STORED = st.lists(st.lists(ASKED, max_size=4), max_size=4)


@pytest.fixture
def both():
    """The two files of two questions, as JSON values."""
    asked = [(7, (Asked("Is it so?", "yes"), Asked("How many are there?", "2")))]
    found = vqa_v2.stored(asked, info={"by": "hand"})
    return [json.loads(part.model_dump_json()) for part in found]


def read(both):
    return vqa_v2.read(*map(json.dumps, both))


@given(STORED)
def test_what_is_stored_is_read_back(asked):
    stored = vqa_v2.stored(enumerate(asked), info={})

    assert vqa_v2.read(
        stored.questions.model_dump_json(), stored.annotations.model_dump_json()
    ) == (stored)
    assert len(stored.questions.questions) == sum(map(len, asked))
    ids = [row.question_id for row in stored.questions.questions]
    assert len(set(ids)) == len(ids)


def test_files_are_as_vqa_v2_has_them(both):
    questions, annotations = both

    assert questions["questions"][1] == {
        "question_id": 7001,
        "image_id": 7,
        "question": "How many are there?",
    }
    row = annotations["annotations"][1]
    assert set(row) == {
        *("question_id", "image_id", "question_type", "answer_type"),
        *("multiple_choice_answer", "answers"),
    }
    assert (row["answer_type"], row["multiple_choice_answer"]) == ("number", "2")
    assert row["answers"][0] == {"answer_id": 1, "answer": "2", "answer_confidence": "yes"}


def test_ten_people_answer_and_each_has_an_id(both):
    for row in both[1]["annotations"]:
        assert len({answer["answer_id"] for answer in row["answers"]}) == 10


def by_official_rules(row, said):
    """As the official evaluation counts: others are the records that differ as a whole."""
    scores = []
    for answer in row["answers"]:
        others = [other for other in row["answers"] if other != answer]
        scores.append(min(1, sum(other["answer"] == said for other in others) / 3))
    return sum(scores) / len(scores)


def test_the_official_evaluation_gives_1_to_the_answer_and_0_to_another(both):
    row = both[1]["annotations"][1]

    assert (by_official_rules(row, "2"), by_official_rules(row, "3")) == (1.0, 0.0)


def test_answers_without_ids_of_their_own_would_score_nothing(both):
    row = both[1]["annotations"][1]
    for answer in row["answers"]:
        answer["answer_id"] = 1

    assert by_official_rules(row, "2") == 0.0
    with pytest.raises(DataError, match="answer_id 1 is there twice"):
        read(both)


def drop_question(both):
    del both[0]["questions"][0]


def drop_annotation(both):
    del both[1]["annotations"][1]


def move(both):
    both[1]["annotations"][1]["image_id"] = 8


def repeat(both):
    both[0]["questions"].append(both[0]["questions"][0])


def add_key(both):
    both[0]["questions"][0]["answer"] = "yes"


def number_as_text(both):
    both[0]["questions"][0]["question_id"] = "7000"


def other_type(both):
    both[1]["annotations"][0]["answer_type"] = "maybe"


@pytest.mark.parametrize(
    ("sabotage", "told"),
    [
        (drop_question, "1 questions have no annotation .*first question 7000"),
        (drop_annotation, "1 questions have no annotation .*first question 7001"),
        (move, "first question 7001"),
        (repeat, "question_id 7000 is there twice"),
        (add_key, "questions.json: questions.0.answer: Extra inputs"),
        (number_as_text, "questions.0.question_id: Input should be a valid integer"),
        (other_type, "annotations.json: annotations.0.answer_type"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_files_that_do_not_fit_are_refused(both, sabotage, told):
    sabotage(both)

    with pytest.raises(DataError, match=told):
        read(both)


def test_more_questions_than_ids_are_refused():
    with pytest.raises(DataError, match="image 3: 1000 questions"):
        vqa_v2.stored([(3, [Asked("Is it so?", "yes")] * 1000)], info={})

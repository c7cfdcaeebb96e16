from __future__ import annotations

import json

import pytest

from natadv.errors import DataError
from natadv.scenarios.annotate.asked import Asked
from natadv.scenarios.annotate.proposals import reply_of, request, schema

GOOD = {"questions": [{"question": "Is it so?", "answer": "Yes."}]}


def test_a_reply_becomes_tidy_questions():
    assert reply_of(json.dumps(GOOD), count=1) == (Asked("Is it so?", "yes"),)


def test_the_schema_leaves_nothing_open():
    def objects(part):
        if isinstance(part, dict):
            if part.get("type") == "object":
                yield part
            for value in part.values():
                yield from objects(value)

    found = list(objects(schema()))
    assert len(found) == 2
    for part in found:
        assert part["additionalProperties"] is False
        assert part["required"] == list(part["properties"])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "Invalid JSON"),
        ("Sure! Here are", "Invalid JSON"),
        ('{"questions": [{"question": "Is', "Invalid JSON"),
        ("[]", "should be an object"),
        ('{"questions": []}', "expected 1 questions, came 0"),
        ('{"questions": [{"question": "Is it so?"}]}', r"questions\.0\.answer: Field required"),
        ('{"questions": [{"question": "Is it so?", "answer": true}]}', "valid string"),
        ('{"questions": [{"question": "Is it so?", "answer": "yes", "why": ""}]}', "Extra inputs"),
        ('{"questions": [{"question": "It is so", "answer": "yes"}]}', "expected a question"),
        ('{"questions": [{"question": "Is it so?", "answer": ""}]}', "expected an answer"),
    ],
)
def test_a_reply_of_another_form_is_refused(text, told):
    with pytest.raises(DataError, match=told):
        reply_of(text, count=1)


def test_the_same_question_twice_is_refused():
    twice = json.dumps({"questions": GOOD["questions"] * 2})

    with pytest.raises(DataError, match="twice"):
        reply_of(twice, count=2)


def test_the_label_is_told_if_there_is_one():
    assert "It shows: dog." in request(count=3, shows="dog")
    assert "shows:" not in request(count=3, shows=None)
    assert "exactly 3 questions" in request(count=3, shows=None)

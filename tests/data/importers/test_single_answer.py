"""GQA and easy-VQA in their official layouts, with one answer to each question."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from natadv.data.card import UNSTATED
from natadv.errors import DataError

Layouts = dict[str, Callable[..., Any]]
Json = dict[str, Any]

GQA: Json = {
    "201307251": {
        "semantic": [{"operation": "select", "dependencies": [], "argument": "scene"}],
        "entailed": [],
        "equivalent": ["201307251"],
        "question": "Is it overcast?",
        "imageId": "n161313",
        "isBalanced": True,
        "groups": {"global": None, "local": "06-sky_dark"},
        "answer": "no",
        "semanticStr": "select: scene->verify weather: overcast [0]",
        "annotations": {"answer": {}, "question": {}, "fullAnswer": {}},
        "types": {"detailed": "weatherVerify", "semantic": "global", "structural": "verify"},
        "fullAnswer": "No, it is clear.",
    },
    "201640614": {"question": "Who wears the dress?", "imageId": "2354786", "answer": "woman"},
    "202225914": {"question": "What is it made of?", "imageId": "n161313", "answer": "wood"},
}
EASY = [
    ["what shape does the image contain?", "triangle", 0],
    ["is there not a rectangle in the image?", "yes", 0],
    ["what is the black shape?", "triangle", 10],
]


@pytest.fixture
def gqa(tmp_path: Path, encode: Any, layouts: Layouts) -> Callable[..., dict[str, Path]]:
    def made(asked: Any = GQA) -> dict[str, Path]:
        path = tmp_path / "testdev_balanced_questions.json"
        path.write_text(json.dumps(asked))
        pictures = {
            f"images/{name}.jpg": encode(i, format="JPEG")
            for i, name in enumerate(("n161313", "2354786", "n7"))
        }
        return {"path": path, "images": layouts["zip"](tmp_path / "images.zip", pictures)}

    return made


@pytest.fixture
def easy(tmp_path: Path, encode: Any, layouts: Layouts) -> Callable[..., dict[str, Path]]:
    def made(asked: Any = EASY) -> dict[str, Path]:
        path = tmp_path / "questions.json"
        path.write_text(json.dumps(asked))
        pictures = {f"{i}.png": encode(i) for i in (0, 1, 10)}
        return {"path": path, "images": layouts["folder"](tmp_path / "images", pictures)}

    return made


def test_gqa_has_a_sample_per_question_with_its_one_answer(importing: Any, gqa: Any) -> None:
    card = importing("gqa", **gqa()).card

    samples = importing.samples(card)
    assert [s.id for s in samples] == [*GQA]
    assert [s.question for s in samples] == [raw["question"] for raw in GQA.values()]
    assert [s.answers for s in samples] == [("no",), ("woman",), ("wood",)]
    assert [s.answer_type for s in samples] == ["yes/no", "other", "other"]
    assert [s.group for s in samples] == ["n161313", "2354786", "n161313"]
    assert card.tasks == ("vqa",)
    assert card.description == (
        "Questions about photographs, one answer each, scored by exact match: 3"
    )
    assert card.licence == UNSTATED


def test_easy_vqa_has_a_sample_per_triple(importing: Any, easy: Any) -> None:
    card = importing("easy-vqa", **easy()).card

    samples = importing.samples(card)
    assert [(s.id, s.group, s.question, s.answers[0]) for s in samples] == [
        (str(number), str(picture), question, answer)
        for number, (question, answer, picture) in enumerate(EASY)
    ]
    assert [s.answer_type for s in samples] == ["other", "yes/no", "other"]


HOSTILE: dict[str, tuple[str, Any, str]] = {
    "gqa: no picture": ("gqa", {"1": {**GQA["202225914"], "imageId": "n8"}},
                        "1 of 1 pictures are missing, first n8"),
    "gqa: no answer": ("gqa", {"1": {**GQA["202225914"], "answer": None}},
                       "question '1': answer must be a text, got None"),
    "gqa: not an object": ("gqa", {"1": "yes"}, "expected an object at '1', got 'yes'"),
    "gqa: a list": ("gqa", [GQA], "expected JSON with an object of objects: it is not an object"),
    "gqa: empty": ("gqa", {}, "no questions in it"),
    "gqa: no question": ("gqa", {"1": {**GQA["202225914"], "question": "?"}}, "expected a quest"),
    "easy: no picture": ("easy-vqa", [["is it red?", "yes", 2]], "1 of 1 pictures are missing"),
    "easy: a number": ("easy-vqa", [["is it red?", "yes"]],
                       r"number 0: expected \[question, answer, picture\], got"),
    "easy: no text": ("easy-vqa", [["is it red?", 1, 0]], "answer must be a text, got 1"),
    "easy: an object": ("easy-vqa", {"a": EASY}, "it is not a list"),
}  # fmt: skip


@pytest.mark.parametrize("hostile", HOSTILE)
def test_bad_input_is_named_and_nothing_is_written(
    importing: Any, gqa: Any, easy: Any, hostile: str
) -> None:
    name, asked, complaint = HOSTILE[hostile]
    make = {"gqa": gqa, "easy-vqa": easy}[name]

    with pytest.raises(DataError, match=complaint):
        importing(name, **make(asked))

    assert importing.leftovers() == []


def test_they_can_start_anywhere(importing: Any, gqa: Any, easy: Any) -> None:
    importing.check_starts("gqa", **gqa())
    importing.check_starts("easy-vqa", **easy())

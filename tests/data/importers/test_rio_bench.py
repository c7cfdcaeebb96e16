"""Folders of RIO-Bench, with the columns that its authors' code writes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from natadv.errors import DataError

Rows = list[dict[str, Any]]
CHOICES = {"A": "Spoon", "B": "Cassette deck", "C": "Remote control", "D": "Watermelon"}


@pytest.fixture
def objects(encode: Any) -> Callable[..., Rows]:
    """Rows of obj_attack/mc_*, or of obj_clean/mc_clean without a word."""

    def made(word: str = "Remote control") -> Rows:
        return [
            {
                "image": {"bytes": encode(n if word else 10 + n), "path": None},
                "question": "Which object is present in the image? (A) Spoon ...",
                "answer": "B",
                "question_id": 34602 + n,
                "image_id": "003a8ae2ef43b901",
                "choices": CHOICES,
                "attack_word": word,
                "meta": {"rect": [1, 2, 3, 4]} if word else None,
            }
            for n in range(3)
        ]

    return made


@pytest.fixture
def texts(encode: Any) -> Rows:
    """Rows of txt_clean/oe_clean and of txt_attack/oe_*: those of TextVQA."""
    given = (["Nokia"] * 10, ["nokia"] * 9 + ["phone"], [" "] * 10)
    return [
        {
            "image": {"bytes": encode(n), "path": f"{n}.jpg"},
            "image_id": "0054c91397f2fe05",
            "question_id": 34602 + n,
            "question": "what is the brand? Answer the question using a single word or phrase.",
            "question_tokens": ["what", "is", "the", "brand"],
            "answers": answers,
            "image_classes": ["Mobile phone"],
            "set_name": "val",
        }
        for n, answers in enumerate(given)
    ]


@pytest.fixture
def folder(tmp_path: Path, layouts: dict[str, Callable[..., Any]]) -> Callable[..., Path]:
    def made(name: str, rows: Rows, split: str = "val") -> Path:
        layouts["parquet"](tmp_path / name / f"{split}-00000-of-00001.parquet", rows)
        return tmp_path / name

    return made


def test_an_attacked_scene_chooses_as_its_clean_twin_does(
    importing: Any, objects: Any, folder: Any
) -> None:
    clean = importing("rio-bench-objects-clean", folder("mc_clean", objects(""))).card
    attacked = importing("rio-bench-objects", folder("mc_hard", objects())).card

    assert (clean.scenario, clean.twin_of) == ("clean", None)
    assert (attacked.scenario, attacked.twin_of) == ("typographic", "rio-bench-objects-clean")
    assert attacked.classes == clean.classes == tuple(sorted(CHOICES.values()))
    assert "none was seen" in attacked.licence
    twins = {sample.id: sample for sample in importing.samples(clean)}
    for sample in importing.samples(attacked):
        twin = twins[sample.twin]
        assert attacked.classes[sample.label] == "Cassette deck"
        assert (sample.decoy, twin.decoy) == ("Remote control", None)
        assert sample.candidates == twin.candidates == tuple(CHOICES.values())
        assert (sample.label, sample.group) == (twin.label, twin.group)
        assert sample.group == "003a8ae2ef43b901"
        assert sample.image != twin.image


def test_questions_about_text_are_of_the_scenario_reading(
    importing: Any, texts: Rows, folder: Any
) -> None:
    made = importing("rio-bench-text", folder("oe_clean", texts))

    assert (made.card.tasks, made.card.scenario, made.card.twin_of) == (("vqa",), "reading", None)
    assert made.left_out == {"34604": "nobody answered it"}
    unanimous, divided = importing.samples(made.card)
    # As those of a user: nobody has to guess capitals on which all agree.
    assert unanimous.answers == ("nokia",) * 10
    assert divided.answers == ("nokia",) * 9 + ("phone",)
    assert unanimous.question.startswith("what is the brand?")


def test_the_training_split_is_read_only_if_it_is_named(
    importing: Any, objects: Any, folder: Any
) -> None:
    folder("mc_hard", objects()[:1], split="train")
    path = folder("mc_hard", objects())

    assert importing("rio-bench-objects", path).card.rows == 3
    assert importing("rio-bench-objects", path, name="train", split="train").card.rows == 1


def changed(**fields: Any) -> Callable[[Rows], Rows]:
    return lambda rows: [rows[0], {**rows[1], **fields}, rows[2]]


HOSTILE: dict[str, tuple[str, Any, str]] = {
    "no letter": ("objects", changed(answer="E"), "row 1: answer 'E' is none of its choices A, B"),
    "no choices": ("objects", changed(choices=None), "row 1: expected choices by letter, got None"),
    "blank choice": ("objects", changed(choices={**CHOICES, "A": " "}), "choices by letter"),
    "true word": ("objects", changed(attack_word="Cassette deck"), "one of the wrong choices"),
    "other word": ("objects", changed(attack_word="Taxi"), "'Taxi' must be one of the wrong"),
    "clean": ("objects", changed(attack_word=""), "is this a configuration of obj_attack?"),
    "attacked": ("clean", changed(attack_word="Spoon"), "'Spoon', so it is not of obj_clean"),
    "twice": ("objects", changed(question_id=34602), "1 ids come more than once, first '34602'"),
    "no bytes": ("objects", changed(image={"bytes": None, "path": "x"}), "34603 holds no bytes"),
    "collide": ("objects", changed(choices={**CHOICES, "A": "spoon"}), "'Spoon' and 'spoon'"),
    "no column": (
        "objects",
        lambda rows: [{k: v for k, v in row.items() if k != "choices"} for row in rows],
        "no column 'choices', it has image",
    ),
    "no answers": ("text", changed(answers=None), "row 1: expected a list of answers, got None"),
    "no question": ("text", changed(question=None), "expected a question, got ''"),
    "same question": ("text", changed(question_id=34602), "1 ids come more than once"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_what_does_not_fit_is_refused_in_one_line(
    importing: Any, objects: Any, texts: Rows, folder: Any, case: str
) -> None:
    kind, change, message = HOSTILE[case]
    rows = texts if kind == "text" else objects("" if kind == "clean" else "Remote control")
    name = {"clean": "objects-clean"}.get(kind, kind)

    with pytest.raises(DataError, match=r"\A[^\n]*\Z") as refused:
        importing(f"rio-bench-{name}", folder("config", change(rows)))

    assert message in str(refused.value)


def test_a_folder_of_something_else_is_told_what_is_expected(
    importing: Any, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=r"obj_attack/mc_hard/val-00000-of-00001\.parquet"):
        importing("rio-bench-objects", tmp_path)

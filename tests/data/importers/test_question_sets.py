from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from natadv.data.card import UNSTATED
from natadv.data.importers import FORMATS
from natadv.errors import ConfigError, DataError
from natadv.tasks.vqa import accuracy, most_common

Layouts = dict[str, Callable[..., Any]]
Json = dict[str, Any]
TEXTS = {
    262148000: (262148, "Where is he looking?", "other", ["down"] * 9 + ["at table"]),
    262148001: (262148, "How many dogs?", "number", ["2"] * 10),
    393225000: (393225, "Is it red?", "yes/no", ["yes"] * 6 + ["no"] * 4),
}


def questions() -> Json:
    """Of v2_OpenEnded_mscoco_val2014_questions.json."""
    rows = [{"image_id": i, "question": q, "question_id": n} for n, (i, q, *_) in TEXTS.items()]
    return {
        "info": {"version": "2.0"},
        "task_type": "Open-Ended",
        "data_type": "mscoco",
        "license": {"name": "CC BY 4.0"},
        "data_subtype": "val2014",
        "questions": rows,
    }


def annotations() -> Json:
    """Of v2_mscoco_val2014_annotations.json."""
    rows = [
        {
            "question_type": "none of the above",
            "multiple_choice_answer": answers[0],
            "answers": [
                {"answer": answer, "answer_confidence": "yes", "answer_id": number}
                for number, answer in enumerate(answers, start=1)
            ],
            "image_id": image,
            "answer_type": kind,
            "question_id": question,
        }
        for question, (image, _, kind, answers) in reversed(TEXTS.items())
    ]
    return {"info": {}, "license": {}, "data_subtype": "val2014", "annotations": rows}


@pytest.fixture
def make(tmp_path: Path, encode: Any, layouts: Layouts) -> Callable[..., dict[str, Path]]:
    """The three zips, with the texts as they are or changed."""

    def made(asked: Json | None = None, answered: Json | None = None) -> dict[str, Path]:
        pictures = {
            f"val2014/COCO_val2014_{image:012d}.jpg": encode(image, format="JPEG")
            for image in (262148, 393225, 5)
        }
        texts = {
            "v2_Questions_Val": ("v2_OpenEnded_mscoco_val2014_questions", asked or questions()),
            "v2_Annotations_Val": ("v2_mscoco_val2014_annotations", answered or annotations()),
        }
        made: dict[str, Path] = {
            zip_name: layouts["zip"](
                tmp_path / f"{zip_name}_mscoco.zip", {f"{name}.json": json.dumps(raw).encode()}
            )
            for zip_name, (name, raw) in texts.items()
        }
        return {
            "path": made["v2_Questions_Val"],
            "annotations": made["v2_Annotations_Val"],
            "images": layouts["zip"](tmp_path / "val2014.zip", pictures),
        }

    return made


def test_the_three_zips_give_questions_with_ten_answers(importing: Any, make: Any) -> None:
    card = importing("vqa-v2", **make()).card

    samples = importing.samples(card)
    assert [(int(s.id), s.question, s.answer_type) for s in samples] == [
        (number, text, kind) for number, (_, text, kind, _) in TEXTS.items()
    ]
    assert [s.group for s in samples] == [
        *["COCO_val2014_000000262148"] * 2,
        "COCO_val2014_000000393225",
    ]
    assert samples[0].answers == (*["down"] * 9, "at table")
    assert card.tasks == ("vqa",)
    assert card.source.startswith("files of the user, in the layout of vqa-v2 (https://")
    assert "published" not in card.description
    assert card.licence == UNSTATED


def test_an_unpacked_set_gives_the_same(importing: Any, make: Any, tmp_path: Path) -> None:
    import zipfile

    zips = make()
    expected = importing("vqa-v2", **zips).card.revision
    for path in zips.values():
        zipfile.ZipFile(path).extractall(tmp_path / "unpacked")
    folder = tmp_path / "unpacked"

    card = importing(
        "vqa-v2",
        folder / "v2_OpenEnded_mscoco_val2014_questions.json",
        annotations=folder / "v2_mscoco_val2014_annotations.json",
        images=folder / "val2014",
        force=True,
    ).card

    assert card.revision == expected


def test_blank_answers_count_as_people_who_agree_with_nobody(importing: Any, make: Any) -> None:
    """As in the official evaluation; a question that nobody answered is set aside."""
    answers = {262148000: ["", " ", *["down"] * 8], 393225000: [""] * 10}
    raw = annotations()
    for row in raw["annotations"]:
        for given, text in zip(row["answers"], answers.get(row["question_id"], ()), strict=False):
            given["answer"] = text

    packed = importing("vqa-v2", **make(answered=raw))

    first, _ = importing.samples(packed.card)
    assert first.answers == ("", " ", *["down"] * 8)
    assert (accuracy("down", first.answers), accuracy("up", first.answers)) == (1, 0)
    assert most_common(first.answers) == "down"
    assert [(item.id, item.why) for item in packed.set_aside] == [
        ("393225000", "nobody answered it")
    ]


def test_unanimous_answers_of_vqa_v2_stay_as_they_are(importing: Any, make: Any) -> None:
    raw = annotations()
    for given in raw["annotations"][1]["answers"]:
        given["answer"] = "Two."

    card = importing("vqa-v2", **make(answered=raw)).card

    assert importing.samples(card)[1].answers == ("Two.",) * 10


def changed(raw: Json, key: str, row: int, **fields: Any) -> Json:
    rows = [dict(found) for found in raw[key]]
    rows[row].update(fields)
    return {**raw, key: rows}


def shorter(raw: Json, key: str) -> Json:
    return {**raw, key: raw[key][1:]}


HOSTILE = {
    "no annotation": (None, shorter(annotations(), "annotations"),
                      r"1 questions of .* have no annotations, first question_id 393225000"),
    "no question": (shorter(questions(), "questions"), None,
                    r"1 annotations of .* have no questions, first question_id 262148000"),
    "asked twice": (changed(questions(), "questions", 1, question_id=262148000), None,
                    "1 ids come more than once, first '262148000'"),
    "answered twice": (None, changed(annotations(), "annotations", 1, question_id=393225000),
                       "a second one of question 393225000"),
    "other picture": (None, changed(annotations(), "annotations", 1, image_id=5),
                      "question 262148001 and its annotation differ in image_id"),
    "no picture": (changed(questions(), "questions", 2, image_id=6),
                   changed(annotations(), "annotations", 0, image_id=6),
                   "1 of 2 pictures are missing, first COCO_..._000000000006.jpg"),
    "no answers": (None, changed(annotations(), "annotations", 0, answers=[]), "has no answers"),
    "odd answer": (None, changed(annotations(), "annotations", 0, answers=[{"answer": 2}]),
                   "an answer must be a text, got 2"),
    "odd type": (None, changed(annotations(), "annotations", 0, answer_type="essay"),
                 "answer_type must be one of yes/no, number, other, got 'essay'"),
    "odd id": (changed(questions(), "questions", 1, question_id="x"), None,
               "question_id must be a whole number, got 'x'"),
    "truth for an id": (changed(questions(), "questions", 1, image_id=True), None,
                        "image_id must be a whole number, got True"),
    "empty question": (changed(questions(), "questions", 1, question=" "), None,
                       "expected a question"),
    "none": ({**questions(), "questions": []}, None, "no questions in it"),
    "wrong file": (annotations(), None, "no list at 'questions' in it"),
}  # fmt: skip


@pytest.mark.parametrize("hostile", HOSTILE)
def test_bad_input_is_named_and_nothing_is_written(importing: Any, make: Any, hostile: str) -> None:
    asked, answered, complaint = HOSTILE[hostile]

    with pytest.raises(DataError, match=complaint):
        importing("vqa-v2", **make(asked, answered))

    assert importing.leftovers() == []


def test_two_pictures_of_one_id_are_refused(
    importing: Any, make: Any, layouts: Layouts, tmp_path: Path, encode: Any
) -> None:
    names = ("val2014/COCO_val2014_000000262148", "again/COCO_val2014_262148")
    images = layouts["zip"](tmp_path / "twice.zip", {f"{name}.jpg": encode() for name in names})

    with pytest.raises(DataError, match=f"{names[0]}.jpg' and '{names[1]}.jpg' are both picture"):
        importing("vqa-v2", **{**make(), "images": images})

    assert importing.leftovers() == []


def test_without_the_other_files_it_is_told_what_else_is_needed(importing: Any, make: Any) -> None:
    with pytest.raises(ConfigError, match="also needs --annotations, --images"):
        importing("vqa-v2", make()["path"])


def test_it_can_start_anywhere(importing: Any, make: Any) -> None:
    importing.check_starts("vqa-v2", **make())


def test_as_many_questions_as_are_published_count_as_the_published_ones(
    importing: Any, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = FORMATS["vqa-v2"]
    assert not row.published
    monkeypatch.setitem(FORMATS, "vqa-v2", replace(row, rows=3))

    card = importing("vqa-v2", **make()).card
    named = importing("vqa-v2", **make(), licence="ours", force=True).card

    assert card.licence == row.licence
    assert card.source.endswith(f"; from {row.source}")
    assert named.licence == "ours"

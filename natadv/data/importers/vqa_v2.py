"""VQA v2: questions about photographs of COCO, each answered by ten people."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from functools import lru_cache
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from natadv.data.archives import Files, open_files
from natadv.data.card import draft_card
from natadv.data.checks import ANSWER_TYPES
from natadv.data.images import decode_image
from natadv.data.importers.format import Request
from natadv.data.importers.json_stream import iter_list
from natadv.data.importers.pictures import pictures_by_number, refuse_twins
from natadv.data.importers.sources import described, known, together
from natadv.data.plan import Item, Plan, items_of
from natadv.errors import ConfigError, DataError
from natadv.types import Sample

_COCO = re.compile(r"COCO_\w+_0*(?P<id>\d+)")


class _Answered(NamedTuple):
    image_id: int
    type: str
    answers: tuple[str, ...]


def plan(request: Request) -> Plan:
    """A sample per question; an id is the question's, a group is the picture's name. Every
    question needs its annotation and its picture, and every annotation its question."""
    annotations, images = _given(request)
    questions = known(request, request.path, sha256=request.sha256)
    source = together(request, questions, known(request, annotations), known(request, images))
    answered = _annotations(annotations)
    total = _survey(request.path, annotations, images, answered)
    draft = draft_card(
        name=request.name,
        tasks=("vqa",),
        scenario="clean",
        classes=(),
        templates=(),
        licence=request.terms,
        source=source.told,
        description=described(request, "Questions about photographs, ten answers each", total),
    )
    return Plan(
        draft=draft,
        items=lambda start: _items(request.path, images, answered, start),
        total=total,
        unit="questions",
        fingerprint=source.fingerprint,
    )


def _given(request: Request) -> tuple[Path, Path]:
    if request.annotations is None or request.images is None:
        raise ConfigError("VQA v2 needs --annotations and --images")
    return request.annotations, request.images


def _annotations(path: Path) -> dict[int, _Answered]:
    """By question. All of them are in memory: what people say repeats, and is kept once."""
    found: dict[int, _Answered] = {}
    for number, raw in enumerate(iter_list(path, "annotations")):
        where = f"{path}: annotation number {number}"
        question = _whole_number(raw, "question_id", where)
        if question in found:
            raise DataError(f"{where}: a second one of question {question}")
        answers = raw.get("answers")
        if not isinstance(answers, list) or not answers:
            raise DataError(f"{where}: question {question} has no answers")
        if raw.get("answer_type") not in ANSWER_TYPES:
            raise DataError(
                f"{where}: answer_type must be one of {', '.join(ANSWER_TYPES)}, "
                f"came {raw.get('answer_type')!r}"
            )
        texts = tuple(_answer(answer, where) for answer in answers)
        image_id = _whole_number(raw, "image_id", where)
        found[question] = _Answered(image_id, sys.intern(raw["answer_type"]), texts)
    return found


def _answer(raw: Any, where: str) -> str:
    text = raw.get("answer") if isinstance(raw, dict) else None
    if not isinstance(text, str):
        raise DataError(f"{where}: an answer must be a text, came {text!r:.60}")
    return sys.intern(text)


def _survey(path: Path, annotations: Path, images: Path, answered: Mapping[int, _Answered]) -> int:
    """How many questions there are, once each has all that it needs."""
    asked: list[int] = []
    wanted: set[int] = set()
    for number, raw in enumerate(iter_list(path, "questions")):
        where = f"{path}: question number {number}"
        question, image_id = (
            _whole_number(raw, name, where) for name in ("question_id", "image_id")
        )
        if question in answered and answered[question].image_id != image_id:
            raise DataError(f"{where}: question {question} and its annotation differ in image_id")
        asked.append(question)
        wanted.add(image_id)
    if not asked:
        raise DataError(f"{path}: no questions in it")
    refuse_twins(map(str, asked), path)
    _refuse_unmatched(set(asked), set(answered), path, annotations)
    _refuse_missing(wanted, images)
    return len(asked)


def _refuse_unmatched(asked: set[int], answered: set[int], path: Path, annotations: Path) -> None:
    pairs = ((asked - answered, "questions of", path, "annotations"),
             (answered - asked, "annotations of", annotations, "questions"))  # fmt: skip
    for lonely, what, file, lacking in pairs:
        if lonely:
            raise DataError(
                f"{len(lonely)} {what} {file} have no {lacking}, first question_id {min(lonely)}; "
                "give the two files of one split"
            )


def _refuse_missing(wanted: set[int], images: Path) -> None:
    files = open_files(images)
    try:
        missing = sorted(wanted - _pictures(files, images).keys())
    finally:
        files.close()
    if missing:
        raise DataError(
            f"{images}: {len(missing)} of {len(wanted)} pictures are missing, first "
            f"COCO_..._{missing[0]:012d}.jpg; get them again, no picture is replaced by another"
        )


def _pictures(files: Files, images: Path) -> dict[int, str]:
    """Image id -> path."""
    return pictures_by_number(files.paths, _image_id, images)


def _image_id(path: str) -> int | None:
    name = _COCO.fullmatch(PurePosixPath(path).stem)
    return int(name["id"]) if name else None


def _items(
    path: Path, images: Path, answered: Mapping[int, _Answered], start: int
) -> Iterator[Item]:
    files = open_files(images)
    try:
        pictures = _pictures(files, images)

        # Questions about one picture follow each other: it is decoded once.
        @lru_cache(maxsize=1)
        def picture(name: str) -> bytes:
            data = files.read(name)
            decode_image(data, where=f"{images}: {name}")
            return data

        def sample(raw: Mapping[str, Any]) -> Sample:
            name = pictures[raw["image_id"]]
            return _sample(raw, PurePosixPath(name).stem, picture(name), answered)

        yield from items_of(islice(iter_list(path, "questions"), start, None), sample)
    finally:
        files.close()


def _sample(
    raw: Mapping[str, Any], group: str, data: bytes, answered: Mapping[int, _Answered]
) -> Sample:
    found = answered[raw["question_id"]]
    return Sample(
        id=str(raw["question_id"]),
        group=group,
        image=data,
        question=str(raw.get("question", "")),
        answers=found.answers,
        answer_type=found.type,
    )


def _whole_number(raw: Mapping[str, Any], name: str, where: str) -> int:
    value = raw.get(name)
    if not isinstance(value, int) or isinstance(value, bool):
        raise DataError(f"{where}: {name} must be a whole number, came {value!r:.60}")
    return value

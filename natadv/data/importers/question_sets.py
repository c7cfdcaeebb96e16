"""Question sets: VQA v2, each question answered by ten people, and GQA and easy-VQA with one answer
each, scored by exact match."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from natadv.data.card import CardDraft
from natadv.data.dataset_plan import DatasetPlan, Item, SetAside, items_of
from natadv.data.importers import ImportRequest
from natadv.data.importers.json_stream import field_of, iter_elements, iter_list, iter_members
from natadv.data.importers.sources import (
    ImportSource,
    PictureKey,
    draft_of,
    identify,
    keyed_pictures,
    number_of,
    refuse_duplicates,
)
from natadv.errors import DataError
from natadv.tasks.vqa import TYPES
from natadv.types import Sample

_COCO = re.compile(r"COCO_\w+_0*(?P<id>\d+)")

ONE_ANSWER = "one answer each, scored by exact match"
"""How a card says that answers are scored."""

_GQA = ("imageId", "question", "answer")
_EASY = ("question", "answer", "picture")


class _Annotation(NamedTuple):
    image_id: int
    type: str
    answers: tuple[str, ...]


class Asked(NamedTuple):
    """A question with its answers, and the key of its picture."""

    id: str
    picture: PictureKey
    question: str
    answers: tuple[str, ...]
    type: str
    """`yes/no`, `number` or `other`."""


class Survey(NamedTuple):
    """What is known of the questions before any picture is read."""

    questions: int
    pictures: Set[PictureKey]
    """Their keys."""


def plan_vqa_v2(request: ImportRequest) -> DatasetPlan:
    """Plan a sample per question; its id is the question's, its group is the picture's name.

    Every question needs its annotation and its picture, and every annotation its question. Answers
    stay as they are, blank ones included, because the official evaluation counts them.
    """
    path = request.path
    assert request.annotations is not None  # the format needs both
    assert request.images is not None
    source = identify(request, request.annotations, request.images)
    annotations = _annotations(request.annotations)
    survey = _survey_annotated(path, request.annotations, annotations)

    def asked(start: int) -> Iterator[Asked]:
        """The questions from the `start`-th one on."""
        for raw in islice(iter_list(path, "questions"), start, None):
            number = raw["question_id"]
            found = annotations[number]
            text = str(raw.get("question", ""))
            yield Asked(str(number), found.image_id, text, found.answers, found.type)

    draft = draft_of(
        request,
        source,
        "Questions about photographs, ten answers each",
        rows=survey.questions,
        tasks=("vqa",),
    )
    pictures = PicturesByName(request.images, _coco_id, "COCO_..._{:012d}.jpg")
    return plan_questions(draft, source, asked, survey=survey, pictures=pictures)


class PicturesByName(NamedTuple):
    """Where the pictures of questions are, and how their names hold their keys."""

    source: Path
    """A folder, a zip or a tar."""
    key_of: Callable[[str], PictureKey | None]
    """From a file name without suffix."""
    file_name: str
    """A format string for a missing one."""


def plan_questions(
    draft: CardDraft,
    source: ImportSource,
    asked: Callable[[int], Iterator[Asked]],
    *,
    survey: Survey,
    pictures: PicturesByName,
) -> DatasetPlan:
    """A plan with a sample per question. Raises DataError now if a picture is missing."""
    images, key_of, file_name = pictures
    with keyed_pictures(images, key_of) as found:
        found.require(survey.pictures, of=len(survey.pictures), file_name=file_name)

    def items(start: int) -> Iterator[Item]:
        """As DatasetPlan defines it."""
        with keyed_pictures(images, key_of) as opened:

            def item(question: Asked) -> Item:
                """The sample of one question; set aside if all people left it blank."""
                if not any(map(str.strip, question.answers)):
                    return SetAside(question.id, "nobody answered it")
                picture = opened.read(question.picture)
                return Sample(
                    id=question.id,
                    group=picture.name,
                    image=picture.data,
                    question=question.question,
                    answers=question.answers,
                    answer_type=question.type,
                )

            yield from items_of(asked(start), item)

    return DatasetPlan(draft, items, survey.questions, "questions", source.fingerprint)


def plan_gqa(request: ImportRequest) -> DatasetPlan:
    """Plan a sample per question of `<split>_questions.json`, an object with one per id; its group
    is the picture's name."""
    path = request.path

    def read() -> Iterator[Asked]:
        """The questions in the order of the file."""
        for identity, raw in iter_members(path):
            where = f"{path}: question {identity!r}"
            texts = {name: field_of(raw, name, str, where) for name in _GQA}
            yield _asked(identity, texts["imageId"], texts["question"], texts["answer"])

    def name(stem: str) -> str:
        """A picture is named by its id."""
        return stem

    return _plan_single_answers(request, read, key_of=name, what="Questions about photographs")


def plan_easy_vqa(request: ImportRequest) -> DatasetPlan:
    """Plan a sample per `[question, answer, number of the picture]` of `questions.json`; an id is
    the number of the question."""
    path = request.path

    def read() -> Iterator[Asked]:
        """The questions in the order of the file."""
        for number, raw in enumerate(iter_elements(path)):
            where = f"{path}: question number {number}"
            if not isinstance(raw, list) or len(raw) != len(_EASY):
                raise DataError(f"{where}: expected [{', '.join(_EASY)}], got {raw!r:.60}")
            fields: Mapping[str, Any] = dict(zip(_EASY, raw, strict=True))
            yield _asked(
                str(number),
                field_of(fields, "picture", int, where),
                field_of(fields, "question", str, where),
                field_of(fields, "answer", str, where),
            )

    return _plan_single_answers(
        request, read, key_of=number_of, what="Questions about drawn shapes"
    )


def _asked(identity: str, picture: int | str, question: str, answer: str) -> Asked:
    kind = "yes/no" if answer in ("yes", "no") else "other"
    return Asked(identity, picture, question, (answer,), kind)


def _plan_single_answers(
    request: ImportRequest,
    read: Callable[[], Iterable[Asked]],
    *,
    key_of: Callable[[str], int | str | None],
    what: str,
) -> DatasetPlan:
    images = request.images
    assert images is not None  # the formats need them
    source = identify(request, images)
    survey = _survey_single_answers(read(), request.path)
    draft = draft_of(
        request,
        source,
        f"{what}, {ONE_ANSWER}",
        rows=survey.questions,
        tasks=("vqa",),
    )
    return plan_questions(
        draft,
        source,
        lambda start: islice(iter(read()), start, None),
        survey=survey,
        pictures=PicturesByName(images, key_of, "{}"),
    )


def _survey_single_answers(questions: Iterable[Asked], path: Path) -> Survey:
    ids: list[str] = []
    pictures: set[int | str] = set()
    for asked in questions:
        ids.append(asked.id)
        pictures.add(asked.picture)
    if not ids:
        raise DataError(f"{path}: no questions in it")
    refuse_duplicates(ids, path)
    return Survey(len(ids), pictures)


def _annotations(path: Path) -> dict[int, _Annotation]:
    """The annotations by question. All are in memory; interned, because answers repeat."""
    annotations: dict[int, _Annotation] = {}
    for number, raw in enumerate(iter_list(path, "annotations")):
        where = f"{path}: annotation number {number}"
        question = field_of(raw, "question_id", int, where)
        if question in annotations:
            raise DataError(f"{where}: a second one of question {question}")
        answers = raw.get("answers")
        if not isinstance(answers, list) or not answers:
            raise DataError(f"{where}: question {question} has no answers")
        if raw.get("answer_type") not in TYPES:
            raise DataError(
                f"{where}: answer_type must be one of {', '.join(TYPES)}, "
                f"got {raw.get('answer_type')!r}"
            )
        texts = [answer.get("answer") if isinstance(answer, dict) else None for answer in answers]
        for text in texts:
            if not isinstance(text, str):
                raise DataError(f"{where}: an answer must be a text, got {text!r:.60}")
        annotations[question] = _Annotation(
            field_of(raw, "image_id", int, where),
            sys.intern(raw["answer_type"]),
            tuple(sys.intern(str(text)) for text in texts),
        )
    return annotations


def _survey_annotated(
    path: Path, annotations_path: Path, annotations: Mapping[int, _Annotation]
) -> Survey:
    """The questions, once each is known to have its annotation."""
    ids: list[int] = []
    wanted: set[PictureKey] = set()
    for number, raw in enumerate(iter_list(path, "questions")):
        where = f"{path}: question number {number}"
        question = field_of(raw, "question_id", int, where)
        image_id = field_of(raw, "image_id", int, where)
        if question in annotations and annotations[question].image_id != image_id:
            raise DataError(f"{where}: question {question} and its annotation differ in image_id")
        ids.append(question)
        wanted.add(image_id)
    if not ids:
        raise DataError(f"{path}: no questions in it")
    refuse_duplicates(map(str, ids), path)
    _refuse_lonely(set(ids) - annotations.keys(), f"questions of {path}", "annotations")
    _refuse_lonely(annotations.keys() - set(ids), f"annotations of {annotations_path}", "questions")
    return Survey(len(ids), wanted)


def _refuse_lonely(ids: set[int], what: str, lacking: str) -> None:
    if ids:
        raise DataError(
            f"{len(ids)} {what} have no {lacking}, first question_id {min(ids)}; "
            "give the two files of one split"
        )


def _coco_id(stem: str) -> int | None:
    match = _COCO.fullmatch(stem)
    return int(match["id"]) if match else None

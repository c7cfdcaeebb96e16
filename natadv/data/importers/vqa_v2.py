"""VQA v2: questions about photographs of COCO, each answered by ten people."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from natadv.data.dataset_plan import DatasetPlan, Item, items_of
from natadv.data.importers import ImportRequest
from natadv.data.importers.json_stream import field_of, iter_list
from natadv.data.importers.sources import (
    counted,
    draft_of,
    identify,
    numbered_pictures,
    refuse_duplicates,
)
from natadv.errors import DataError
from natadv.tasks.vqa import TYPES
from natadv.types import Sample

_COCO = re.compile(r"COCO_\w+_0*(?P<id>\d+)")


class _Annotation(NamedTuple):
    image_id: int
    type: str
    answers: tuple[str, ...]


def plan(request: ImportRequest) -> DatasetPlan:
    """Plan a sample per question; its id is the question's, its group is the picture's name.

    Every question needs its annotation and its picture, and every annotation its question.
    """
    path, images = request.path, request.images
    assert request.annotations is not None  # the format needs both
    assert images is not None
    source = identify(request, request.annotations, images)
    annotations = _annotations(request.annotations)
    total = _survey(path, request.annotations, images, annotations)
    draft = draft_of(
        request,
        source.description,
        counted(request, "Questions about photographs, ten answers each", total),
        task="vqa",
    )

    def items(start: int) -> Iterator[Item]:
        """As DatasetPlan defines it."""
        with numbered_pictures(images, _image_id) as pictures:

            def sample(raw: Mapping[str, Any]) -> Sample:
                """The sample of one question."""
                picture = pictures.read(raw["image_id"])
                annotation = annotations[raw["question_id"]]
                return Sample(
                    id=str(raw["question_id"]),
                    group=picture.name,
                    image=picture.data,
                    question=str(raw.get("question", "")),
                    answers=annotation.answers,
                    answer_type=annotation.type,
                )

            yield from items_of(islice(iter_list(path, "questions"), start, None), sample)

    return DatasetPlan(draft, items, total, "questions", source.fingerprint)


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


def _survey(
    path: Path, annotations_path: Path, images: Path, annotations: Mapping[int, _Annotation]
) -> int:
    """The number of questions, once each is known to have its annotation and its picture."""
    ids: list[int] = []
    wanted: set[int] = set()
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
    with numbered_pictures(images, _image_id) as pictures:
        pictures.require(wanted, of=len(wanted), file_name="COCO_..._{:012d}.jpg")
    return len(ids)


def _refuse_lonely(ids: set[int], what: str, lacking: str) -> None:
    if ids:
        raise DataError(
            f"{len(ids)} {what} have no {lacking}, first question_id {min(ids)}; "
            "give the two files of one split"
        )


def _image_id(stem: str) -> int | None:
    match = _COCO.fullmatch(stem)
    return int(match["id"]) if match else None

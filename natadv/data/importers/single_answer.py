"""Question sets with one answer each, scored by exact match: GQA and easy-VQA."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from natadv.data.dataset_plan import DatasetPlan
from natadv.data.importers import ImportRequest
from natadv.data.importers.json_stream import field_of, iter_elements, iter_members
from natadv.data.importers.sources import draft_of, identify, refuse_duplicates
from natadv.data.importers.vqa_v2 import Asked, PicturesByName, Survey, plan_questions
from natadv.errors import DataError


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

    return _plan(request, read, key_of=name, what="Questions about photographs")


_GQA = ("imageId", "question", "answer")


def plan_easy(request: ImportRequest) -> DatasetPlan:
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

    return _plan(request, read, key_of=_number, what="Questions about drawn shapes")


_EASY = ("question", "answer", "picture")


def _number(stem: str) -> int | None:
    return int(stem) if stem.isdecimal() else None


def _asked(identity: str, picture: int | str, question: str, answer: str) -> Asked:
    kind = "yes/no" if answer in ("yes", "no") else "other"
    return Asked(identity, picture, question, (answer,), kind)


def _plan(
    request: ImportRequest,
    read: Callable[[], Iterable[Asked]],
    *,
    key_of: Callable[[str], int | str | None],
    what: str,
) -> DatasetPlan:
    images = request.images
    assert images is not None  # the formats need them
    source = identify(request, images)
    survey = _survey(read(), request.path)
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


ONE_ANSWER = "one answer each, scored by exact match"
"""Says on a card how answers are scored."""


def _survey(questions: Iterable[Asked], path: Path) -> Survey:
    ids: list[str] = []
    pictures: set[int | str] = set()
    for asked in questions:
        ids.append(asked.id)
        pictures.add(asked.picture)
    if not ids:
        raise DataError(f"{path}: no questions in it")
    refuse_duplicates(ids, path)
    return Survey(len(ids), pictures)

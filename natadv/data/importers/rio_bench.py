"""RIO-Bench: scenes whose added word must be ignored, and questions whose answer must be read.

The columns are those that the authors' own code writes (`data_construction/*_create_dataset.py` of
turingmotors/RIO-Bench); the files of the hub were not seen. A folder is one of its configurations,
such as `obj_attack/mc_hard`. Its open questions about objects are not imported: the authors compare
those answers by CLIP, and exact match with a list of labels would be another measurement.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from natadv.data.dataset_plan import DatasetPlan, Item, SetAside, items_of
from natadv.data.images import PictureError, decode_image
from natadv.data.importers import ImportRequest
from natadv.data.importers.parquet import check_columns, iter_rows, parquet_files
from natadv.data.importers.sources import (
    draft_of,
    identify,
    refuse_collisions,
    refuse_duplicates,
)
from natadv.errors import DataError
from natadv.tasks.vqa import in_official_form
from natadv.types import Sample

CLEAN_NAME = "rio-bench-objects-clean"
SPLIT = "val"
"""Unless the user names another."""
_CHOICES = ["question_id", "image_id", "answer", "choices", "attack_word"]
_TEXTS = ["question_id", "image_id", "question", "answers"]


class _Choice(NamedTuple):
    """An object among the choices of its row."""

    id: str
    group: str
    truth: str
    choices: tuple[str, ...]
    word: str
    """The one that is written on the picture; empty where none is."""


def plan_objects(request: ImportRequest) -> DatasetPlan:
    """Plan a sample per row of a configuration with choices (`obj_attack/mc_*`, or with the clean
    pictures `obj_clean/mc_clean`): it chooses among the four that its question lists."""
    files, attacked = _files(request), request.format.name != CLEAN_NAME
    source = identify(request)
    check_columns(files, ["image", *_CHOICES], image="image")
    rows = [
        _choice(raw, attacked, f"{request.path}: row {number}")
        for number, raw in enumerate(iter_rows(files, _CHOICES, 0))
    ]
    refuse_duplicates((row.id for row in rows), request.path)
    classes = sorted({name for row in rows for name in row.choices})
    refuse_collisions(classes, request.path)
    draft = draft_of(
        request,
        source,
        "Photographs with a wrong word added" if attacked else "Photographs without that word",
        rows=len(rows),
        scenario="typographic" if attacked else "clean",
        classes=classes,
        twin_of=CLEAN_NAME if attacked else None,
        candidates=True,
    )
    label_of = {name: label for label, name in enumerate(classes)}

    def sample(pair: tuple[Mapping[str, Any], _Choice]) -> Item:
        """The sample of a row with its picture."""
        raw, row = pair
        return Sample(
            id=row.id,
            group=row.group,
            image=_picture(raw, row.id),
            label=label_of[row.truth],
            decoy=row.word or None,
            twin=row.id if attacked else None,
            candidates=row.choices,
        )

    def items(start: int) -> Iterator[Item]:
        """As DatasetPlan defines it."""
        pictures = iter_rows(files, ["image"], start)
        return items_of(zip(pictures, rows[start:], strict=True), sample)

    fingerprint = _fingerprint(source.fingerprint, files)
    return DatasetPlan(draft, items, len(rows), "pictures", fingerprint)


def plan_text(request: ImportRequest) -> DatasetPlan:
    """Plan a sample per question about the scene's own text (`txt_clean/oe_clean`), also where a
    misleading word was added (`txt_attack/oe_*`)."""
    files = _files(request)
    source = identify(request)
    check_columns(files, ["image", *_TEXTS], image="image")
    ids = [str(raw["question_id"]) for raw in iter_rows(files, ["question_id"], 0)]
    refuse_duplicates(ids, request.path)
    draft = draft_of(
        request,
        source,
        "Questions about what is written on photographs",
        rows=len(ids),
        tasks=("vqa",),
        scenario="reading",
    )

    def sample(numbered: tuple[int, Mapping[str, Any]]) -> Item:
        """The sample of a row; set aside if all people left it blank."""
        number, raw = numbered
        where, answers = f"{request.path}: row {number}", raw["answers"]
        if not isinstance(answers, list) or not all(isinstance(text, str) for text in answers):
            raise DataError(f"{where}: expected a list of answers, got {answers!r:.60}")
        if not any(map(str.strip, answers)):
            return SetAside(ids[number], "nobody answered it")
        return Sample(
            id=ids[number],
            group=str(raw["image_id"]),
            image=_picture(raw, ids[number]),
            question=str(raw["question"] or ""),
            answers=in_official_form(answers),
            answer_type="other",
        )

    def items(start: int) -> Iterator[Item]:
        """As DatasetPlan defines it."""
        rows = iter_rows(files, ["image", *_TEXTS], start)
        return items_of(enumerate(rows, start=start), sample)

    fingerprint = _fingerprint(source.fingerprint, files)
    return DatasetPlan(draft, items, len(ids), "questions", fingerprint)


def _files(request: ImportRequest) -> list[Path]:
    files = parquet_files(request.path, request.split or SPLIT)
    if not files:
        raise DataError(
            f"{request.path}: expected the Parquet files of one configuration of RIO-Bench, such "
            f"as obj_attack/mc_hard/{SPLIT}-00000-of-00001.parquet"
        )
    return files


def _fingerprint(state: str, files: Sequence[Path]) -> str:
    # Another split of the same folder is another source.
    return f"{state}:{','.join(file.name for file in files)}"


def _choice(raw: Mapping[str, Any], attacked: bool, where: str) -> _Choice:
    choices = raw["choices"]
    if not isinstance(choices, dict) or not all(
        isinstance(text, str) and text.strip() for text in choices.values()
    ):
        raise DataError(f"{where}: expected choices by letter, got {choices!r:.80}")
    if raw["answer"] not in choices:
        letters = ", ".join(choices)
        raise DataError(f"{where}: answer {raw['answer']!r} is none of its choices {letters}")
    truth, word = choices[raw["answer"]], str(raw["attack_word"] or "")
    if attacked and (word not in choices.values() or word == truth):
        raise DataError(
            f"{where}: attack_word {word!r} must be one of the wrong choices of "
            f"{json.dumps(choices)}; is this a configuration of obj_attack?"
        )
    if not attacked and word:
        raise DataError(f"{where}: attack_word is {word!r}, so it is not of obj_clean")
    return _Choice(
        str(raw["question_id"]), str(raw["image_id"]), truth, tuple(choices.values()), word
    )


def _picture(raw: Mapping[str, Any], identity: str) -> bytes:
    data: bytes | None = (raw["image"] or {}).get("bytes")
    if not data:
        raise PictureError(f"RIO-Bench: question {identity} holds no bytes of a picture")
    decode_image(data, where=f"RIO-Bench: question {identity}")
    return data

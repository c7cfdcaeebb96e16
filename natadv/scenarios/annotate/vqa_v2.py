"""Questions and answers as VQA v2 stores them: two JSON files, ten answers to each question.

One answer counts as that of ten people, so that the official accuracy is 0 or 1. The official
evaluation tells answers apart as whole records: each needs an id of its own, else answers that
agree would count as one person's and score 0.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import Field, ValidationError, model_validator

from natadv.config import Strict
from natadv.errors import DataError
from natadv.scenarios.annotate.asked import Asked

PEOPLE = 10
PER_PICTURE = 1000
"""Question ids are image id x 1000 + number, as in VQA v2."""

_Id = Annotated[int, Field(ge=0)]
_Text = Annotated[str, Field(min_length=1)]


class Answer(Strict):
    answer_id: Annotated[int, Field(ge=1)]
    answer: _Text
    answer_confidence: Literal["yes", "maybe", "no"]


class Annotation(Strict):
    """The answers to one question."""

    question_id: _Id
    image_id: _Id
    question_type: str
    answer_type: Literal["yes/no", "number", "other"]
    multiple_choice_answer: _Text
    answers: Annotated[tuple[Answer, ...], Field(min_length=1, strict=False)]

    @model_validator(mode="after")
    def _each_person_once(self) -> Self:
        _refuse_twice("answer_id", (answer.answer_id for answer in self.answers))
        return self


class Question(Strict):
    question_id: _Id
    image_id: _Id
    question: _Text


class Questions(Strict):
    """`questions.json`."""

    info: dict[str, Any] = Field(default_factory=dict)
    questions: Annotated[tuple[Question, ...], Field(strict=False)]


class Annotations(Strict):
    """`annotations.json`."""

    info: dict[str, Any] = Field(default_factory=dict)
    annotations: Annotated[tuple[Annotation, ...], Field(strict=False)]


class Stored(NamedTuple):
    """Both files, which belong together."""

    questions: Questions
    annotations: Annotations


def stored(asked: Iterable[tuple[int, Sequence[Asked]]], *, info: Mapping[str, Any]) -> Stored:
    """What was asked of each picture, by image id."""
    questions: list[Question] = []
    annotations: list[Annotation] = []
    for image_id, about in asked:
        if len(about) >= PER_PICTURE:
            raise DataError(f"image {image_id}: {len(about)} questions, the most is 999")
        for number, one in enumerate(about):
            question_id = image_id * PER_PICTURE + number
            questions.append(
                Question(question_id=question_id, image_id=image_id, question=one.question)
            )
            annotations.append(_annotation(question_id, image_id, one))
    both = Stored(
        Questions(info=dict(info), questions=tuple(questions)),
        Annotations(info=dict(info), annotations=tuple(annotations)),
    )
    return _belonging_together(both)


def read(questions: str, annotations: str) -> Stored:
    """Both files' texts. Raises DataError where they are not as VQA v2 has them."""
    try:
        both = Stored(
            Questions.model_validate_json(questions), Annotations.model_validate_json(annotations)
        )
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise DataError(
            f"{error.title.lower()}.json: {'.'.join(map(str, first['loc']))}: {first['msg']} "
            f"({error.error_count()} in all); write it as VQA v2 does"
        ) from error
    return _belonging_together(both)


def _annotation(question_id: int, image_id: int, one: Asked) -> Annotation:
    answers = tuple(
        Answer(answer_id=person, answer=one.answer, answer_confidence="yes")
        for person in range(1, PEOPLE + 1)
    )
    return Annotation.model_validate(
        {
            "question_id": question_id,
            "image_id": image_id,
            "question_type": one.question_type,
            "answer_type": one.answer_type,
            "multiple_choice_answer": one.answer,
            "answers": answers,
        }
    )


def _belonging_together(both: Stored) -> Stored:
    asked = {row.question_id: row.image_id for row in both.questions.questions}
    answered = {row.question_id: row.image_id for row in both.annotations.annotations}
    try:
        _refuse_twice("question_id", (row.question_id for row in both.questions.questions))
        _refuse_twice("question_id", (row.question_id for row in both.annotations.annotations))
    except ValueError as error:
        raise DataError(str(error)) from error
    if odd := sorted(asked.items() ^ answered.items()):
        raise DataError(
            f"{len({number for number, _ in odd})} questions have no annotation of the same image "
            f"or the other way round, first question {odd[0][0]}; every question needs one"
        )
    return both


def _refuse_twice(what: str, ids: Iterable[int]) -> None:
    twice = sorted(number for number, count in Counter(ids).items() if count > 1)
    if twice:
        raise ValueError(f"{what} {twice[0]} is there twice; each needs one of its own")

"""Visual question answering: how many people gave the same answer.

Accuracy is that of the official evaluation: each person is left out in turn, and an answer is
right if three of the others agree with it. Where all people agree, answers are compared without
normalisation, capitals included, as in the official evaluation.

A question with fewer than `LEAST_ANSWERS` answers (GQA and easy-VQA have one) is scored by exact
match with any of them, because one person cannot be left out of one. Both sides are normalised: the
official evaluation skips that only where people agree, which takes several.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from natadv.errors import DataError, ModelError
from natadv.tasks import vqa_text
from natadv.tasks.task import (
    WRONG,
    Caption,
    PicturesAndTexts,
    Prediction,
    Task,
    TaskSheet,
    always,
    outcomes_for,
    said_the_word,
)
from natadv.types import LEAST_ANSWERS, Answerer, DoubleArray, FloatArray, Outcomes, Sample

if TYPE_CHECKING:
    from natadv.evaluate.loaded_model import EncodedBatch, LoadedModel
    from natadv.evaluate.pictures import Picture
    from natadv.evaluate.shard import EvaluationShard
    from natadv.evaluate.units import Unit

TYPES = {"yes/no": "yes_no", "number": "number", "other": "other"}
"""Type of answer -> its column, which is 1 for the samples of that type."""


def outcomes(
    samples: Sequence[Sample],
    answers: Sequence[str],
    *,
    errors: Mapping[str, str] | None = None,
) -> Outcomes:
    """One row per sample, in order; `errors` (id -> why) are samples without a predicted answer.

    The truth is the most common answer.
    """
    if len(samples) != len(answers):
        raise DataError(f"expected one answer per sample, got {len(answers)} for {len(samples)}")
    for sample in samples:
        check(sample)
    return outcomes_for(
        samples,
        truth=(most_common(s.answers) for s in samples),
        prediction=answers,
        values=_values(samples, answers),
        errors=errors,
    )


def question_of(sample: Sample) -> str:
    """Raises DataError if the question is empty, or if no answer to it could be scored."""
    check(sample)
    if not any(map(str.isalnum, sample.question or "")):
        raise DataError(
            f"sample {sample.id!r}: expected a question, got {sample.question!r}; "
            "correct the source, and pack it again"
        )
    return str(sample.question)


def accuracy(answer: str, given: Sequence[str]) -> float:
    """Mean over the people of `given`, each left out in turn, of a third (at most three) per other
    person who agrees with `answer`. Of fewer than `LEAST_ANSWERS`: 1 if any agrees, else 0."""
    if by_exact_match(given):
        return float(any(vqa_text.same(answer, text) for text in given))
    answer, others = _comparable(answer, given)
    n, agree = len(others), others.count(answer)
    # A person who gave the answer is left out, so one less agrees.
    thirds = agree * min(3, agree - 1) + (n - agree) * min(3, agree)
    return thirds / (3 * n)


def by_exact_match(given: Sequence[str]) -> bool:
    """Whether a question has too few answers to be scored by how many people agree."""
    return len(given) < LEAST_ANSWERS


def most_common(given: Sequence[str]) -> str:
    """The answer that most people gave; on a tie, the first. Blank ones are no answers."""
    return Counter(filter(str.strip, given)).most_common(1)[0][0]


def in_official_form(given: Sequence[str]) -> tuple[str, ...]:
    """The answers as a dataset of one's own stores them: as the official evaluation spells them if
    all people agree. It compares such answers as they are, and no model knows to say `Yes.`."""
    agreed = {vqa_text.on_one_line(text) for text in given}
    form = vqa_text.official(agreed.pop()) if len(agreed) == 1 else ""
    return tuple(given) if by_exact_match(given) or not form else (form,) * len(given)


def simple_accuracy(answer: str, given: Sequence[str]) -> float:
    """The accuracy of the paper: a third per person who agrees, at most 1; nobody is left out. Of
    fewer than `LEAST_ANSWERS`: 1 if any agrees, else 0."""
    if by_exact_match(given):
        return float(any(vqa_text.same_lightly(answer, text) for text in given))
    answer = vqa_text.light(answer)
    agree = sum(vqa_text.light(text) == answer for text in given)
    return min(1.0, agree / 3)


def exact_match(answer: str, given: Sequence[str]) -> bool:
    """Whether at least one person gave the answer, compared as in the paper."""
    return simple_accuracy(answer, given) > 0


def said_decoy(answer: str, decoy: str | None) -> bool:
    """Whether the answer is the word on the picture, by the official comparison."""
    return decoy is not None and vqa_text.same(answer, decoy)


def _values(samples: Sequence[Sample], answers: Sequence[str]) -> dict[str, DoubleArray]:
    pairs = list(zip(samples, answers, strict=True))
    columns: dict[str, list[float]] = {
        "accuracy": [accuracy(answer, s.answers) for s, answer in pairs],
        "simple": [simple_accuracy(answer, s.answers) for s, answer in pairs],
        "exact": [exact_match(answer, s.answers) for s, answer in pairs],
        "said_decoy": [said_decoy(answer, s.decoy) for s, answer in pairs],
    }
    for kind, name in TYPES.items():
        columns[name] = [s.answer_type == kind for s in samples]
    return {name: np.array(column, dtype=np.float64) for name, column in columns.items()}


def _comparable(answer: str, given: Sequence[str]) -> tuple[str, list[str]]:
    answer, others = vqa_text.on_one_line(answer), [vqa_text.on_one_line(text) for text in given]
    if len(set(others)) == 1:
        return answer, others
    return vqa_text.official(answer), [vqa_text.official(text) for text in others]


def check(sample: Sample) -> None:
    """Raises DataError if no answer to the sample could be scored."""
    if not sample.answers:
        raise DataError(
            f"sample {sample.id!r}: expected what people answered, got nothing; "
            "correct the source, and pack it again"
        )
    blank = [not (isinstance(answer, str) and answer.strip()) for answer in sample.answers]
    # Among several people one may stay silent: in the official evaluation, others then disagree.
    if all(blank) or (any(blank) and by_exact_match(sample.answers)):
        raise DataError(
            f"sample {sample.id!r}: expected what people answered, got {sample.answers!r}; leave "
            "out the blank ones, and pack the dataset again"
        )
    if sample.answer_type and sample.answer_type not in TYPES:
        raise DataError(
            f"sample {sample.id!r}: expected an answer type of {', '.join(map(repr, TYPES))}, "
            f"got {sample.answer_type!r}; correct it, or leave it empty"
        )


@runtime_checkable
class VqaHead(Protocol):
    """Answers questions from one layer of a picture tower."""

    @property
    def layer(self) -> int:
        """The layer of the picture tower that it reads."""
        ...

    def answer(self, features: FloatArray, questions: Sequence[str]) -> list[str]:
        """One answer per question, from features of shape (b, h, w, d)."""
        ...


def evaluator(unit: Unit, shard: EvaluationShard, loaded: LoadedModel) -> VqaByHead | VqaByModel:
    """By the head of the unit, or by a model that answers without one."""
    if unit.head:
        return VqaByHead(unit, shard, loaded)
    if isinstance(loaded.model, Answerer):
        return VqaByModel(shard, loaded, loaded.model)
    raise ModelError(f"{type(loaded.model).__name__} answers no questions, and has no head")


class VqaByHead:
    """Answers with a head on features of the picture tower."""

    input_px: int | None = None

    def __init__(self, unit: Unit, shard: EvaluationShard, loaded: LoadedModel) -> None:
        head = loaded.heads[unit.head]
        if not isinstance(head, VqaHead):
            raise ModelError(f"expected a head for questions, got a {type(head).__name__}")
        self._shard, self._loaded, self._head = shard, loaded, head
        self._answers: dict[str, str] = {}
        self._questions = _questions(shard)
        self.layers = (head.layer,)

    def missing(self) -> Mapping[str, Picture]:
        """The pictures, by key, that still have to go through the tower."""
        return self._shard.pictures()

    def take(self, batch: EncodedBatch) -> None:
        """Read what it needs from the batch."""
        shard, size = self._shard, self._loaded.batch_size
        for part in batch.sample_batches(shard.answerable(), shard.shown, size=size):
            questions = [self._questions[sample.id] for sample in part.samples]
            answers = self._head.answer(batch.features[self._head.layer][part.rows], questions)
            for sample, answer in zip(part.counted(part.samples), answers, strict=False):
                self._answers[sample.id] = answer

    def outcomes(self) -> tuple[Outcomes, Mapping[str, bytes]]:
        """One row per sample with a prediction."""
        samples = self._shard.answerable()
        answers = [self._answers[sample.id] for sample in samples]
        return outcomes(samples, answers, errors=self._shard.errors), {}


class VqaByModel(PicturesAndTexts):
    """Answers with a model that takes pictures and questions together."""

    def __init__(self, shard: EvaluationShard, loaded: LoadedModel, model: Answerer) -> None:
        self._shard, self._loaded, self._model = shard, loaded, model
        self._questions = _questions(shard)

    def outcomes(self) -> tuple[Outcomes, Mapping[str, bytes]]:
        """One row per sample with a prediction."""
        answers: list[str] = []
        for part, images in self._loaded.decoded_batches(self._shard):
            questions = [self._questions[sample.id] for sample in part.samples]
            answers += part.counted_of(self._model.answer(images, questions), what="answer")
        return outcomes(self._shard.answerable(), answers, errors=self._shard.errors), {}


def _questions(shard: EvaluationShard) -> dict[str, str]:
    """By sample id. Raises DataError before anything is computed."""
    return {sample.id: question_of(sample) for sample in shard.answerable()}


def _failure_captions(sample: Sample, truth: str, found: Prediction) -> tuple[Caption, ...]:
    given = Counter(sample.answers).most_common(4)
    people = ", ".join(f"{answer} ({count})" for answer, count in given)
    return (
        Caption(sample.question or "", most=3),
        Caption(f"people: {people}", most=2),
        Caption(f"said: {found.text or '(nothing)'}", WRONG, most=2),
        Caption(
            "exact match"
            if by_exact_match(sample.answers)
            else f"accuracy {found.values['accuracy']:.2f}",
            WRONG,
        ),
    )


def _attack_captions(
    sample: Sample, clean: Prediction, attacked: Prediction
) -> tuple[Caption, ...]:
    return (
        Caption(sample.question or "", most=3),
        Caption(f"clean: {clean.text or '(nothing)'}", clean.colour, most=2),
        Caption(f"attacked: {attacked.text or '(nothing)'}", attacked.colour, most=2),
    )


_METRICS = (
    "vqa_accuracy",
    "vqa_accuracy_yes_no",
    "vqa_accuracy_number",
    "vqa_accuracy_other",
    "vqa_accuracy_simple",
    "exact_match",
)


def _partly_right(rows: Outcomes) -> NDArray[np.bool_]:
    return rows.values["accuracy"] > 0


VQA = Task(
    # Raised by hand when the same answers give other outcomes.
    protocol="vqa-1",
    values=("accuracy", "simple", "exact", "said_decoy", "yes_no", "number", "other"),
    fields={"question": str, "answers": tuple, "answer_type": str},
    models=(Answerer,),
    check=question_of,
    evaluator=evaluator,
    score="accuracy",
    headline="vqa_accuracy",
    drop="vqa_drop",
    metrics=_METRICS,
    attack_metrics=(
        *_METRICS,
        "vqa_drop",
        "decoy_rate",
        "breaking_point",
        "breaking_point_q10",
    ),
    rates=("vqa_drop", "decoy_rate"),
    short_names={
        "reading_accuracy": "reads",
        "read_or_ignore": "as asked",
        "vqa_accuracy": "acc",
        "vqa_accuracy (seen)": "seen",
        "vqa_accuracy (held-out)": "held-out",
        "vqa_drop": "drop",
        "decoy_rate": "decoy",
        "breaking_point": "breaks",
        "breaking_point_q10": "breaks q10",
        "vqa_accuracy_yes_no": "yes/no",
        "vqa_accuracy_number": "number",
        "vqa_accuracy_other": "other",
    },
    versus_baseline="VQA accuracy {difference} against the baseline, {lost} answers lost more "
    "than half and {fixed} gained as much",
    sheet=TaskSheet(
        failed_below=("accuracy", 1),
        failures_by="accuracy",
        attacks_by="accuracy",
        failure=_failure_captions,
        attack=_attack_captions,
    ),
    causes={
        "said the word": said_the_word,
        "partly right": _partly_right,
        "another answer": always,
    },
    explained=("truth", "prediction"),
)

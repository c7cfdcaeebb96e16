"""Visual question answering: how many of those who were asked would have said the same.

Accuracy is that of the official evaluation: each person's answer is left out in turn, and three of
the others who agree make an answer right. Where all people agree, answers are compared as they
stand, capitals included, as the official evaluation does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from natadv.errors import DataError
from natadv.tasks import vqa_text
from natadv.types import LEAST_ANSWERS, DoubleArray, Outcomes, Sample

PROTOCOL = "vqa-1"
"""Raised by hand when the same answers give other outcomes."""

VALUES = ("accuracy", "simple", "exact", "said_decoy", "yes_no", "number", "other")

TYPES = {"yes/no": "yes_no", "number": "number", "other": "other"}
"""Column of each type of answer; a sample without a type is 0 in all of them."""


def outcomes(
    samples: Sequence[Sample],
    answers: Sequence[str],
    *,
    errors: Mapping[str, str] | None = None,
) -> Outcomes:
    """One row per sample, in order; `errors` (id -> why) are samples that have no answer.

    The truth is what most people answered, on a tie what was answered first.
    """
    if len(samples) != len(answers):
        raise DataError(f"expected one answer per sample, got {len(answers)} for {len(samples)}")
    for sample in samples:
        _check(sample)
    return Outcomes(
        id=tuple(s.id for s in samples),
        group=tuple(s.group for s in samples),
        part=tuple(s.part for s in samples),
        twin=tuple(s.twin for s in samples),
        decoy=tuple(s.decoy for s in samples),
        truth=tuple(Counter(s.answers).most_common(1)[0][0] for s in samples),
        prediction=tuple(answers),
        values=_values(samples, answers),
        errors=dict(errors or {}),
    )


def question_of(sample: Sample) -> str:
    """Raises DataError if it asks nothing, or if no answer to it could be scored."""
    _check(sample)
    if not any(map(str.isalnum, sample.question or "")):
        raise DataError(
            f"sample {sample.id!r}: expected a question, got {sample.question!r}; "
            "pack the dataset again"
        )
    return str(sample.question)


def accuracy(answer: str, given: Sequence[str]) -> float:
    """Share of `given` who see three others agree with `answer`, with thirds for one and two."""
    said, others = _comparable(answer, given)
    n, agree = len(others), others.count(said)
    # Whoever gave the answer is left out, and so sees one less.
    thirds = agree * min(3, agree - 1) + (n - agree) * min(3, agree)
    return thirds / (3 * n)


def simple_accuracy(answer: str, given: Sequence[str]) -> float:
    """The paper's: a third for each person who agrees, and nobody is left out."""
    said = vqa_text.light(answer)
    return min(1.0, sum(vqa_text.light(text) == said for text in given) / 3)


def exact_match(answer: str, given: Sequence[str]) -> bool:
    """Whether anybody said the same, compared as in the paper."""
    return simple_accuracy(answer, given) > 0


def said_decoy(answer: str, decoy: str | None) -> bool:
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
    said, others = vqa_text.on_one_line(answer), [vqa_text.on_one_line(text) for text in given]
    if len(set(others)) == 1:
        return said, others
    return vqa_text.official(said), [vqa_text.official(text) for text in others]


def _check(sample: Sample) -> None:
    if not sample.answers:
        raise DataError(
            f"sample {sample.id!r}: expected what people answered, got nothing; "
            "pack the dataset again with its answers"
        )
    if not all(isinstance(answer, str) and answer.strip() for answer in sample.answers):
        raise DataError(
            f"sample {sample.id!r}: expected what people answered, got {sample.answers!r}; leave "
            "out the blank ones, and pack the dataset again"
        )
    if len(sample.answers) < LEAST_ANSWERS:
        raise DataError(
            f"sample {sample.id!r}: expected at least {LEAST_ANSWERS} answers, as with fewer none "
            f"could be right, got {len(sample.answers)}; repeat the answer of a single person ten "
            "times"
        )
    if sample.answer_type and sample.answer_type not in TYPES:
        raise DataError(
            f"sample {sample.id!r}: expected an answer type of {', '.join(map(repr, TYPES))}, "
            f"got {sample.answer_type!r}; correct it, or leave it empty"
        )

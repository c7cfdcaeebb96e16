"""What a model that answers questions must do, whatever it was trained on."""

from __future__ import annotations

from natadv.models.doctor.findings import Check, Finding, Patient, pictures
from natadv.types import Answerer

QUESTIONS = ("What colour is this?", "Is there a cat?", "How many birds are in the picture?")


def repeatable(patient: Patient) -> Finding:
    first, second = (_answers(patient) for _ in range(2))
    if first != second:
        return Finding(
            False, f"two calls answer {first!r} and {second!r}; generate without sampling"
        )
    return Finding(True, "two calls give the same answers")


def batch_size(patient: Patient) -> Finding:
    together = _answers(patient)
    alone = tuple(_answers(patient, only=i)[0] for i in range(len(QUESTIONS)))
    changed = sum(a != b for a, b in zip(together, alone, strict=True))
    told = f"{changed} of {len(QUESTIONS)} answers change with what else is in the batch"
    if changed and patient.dtype == "float32":
        return Finding(False, f"{told}; pad on the left, and mask the padding")
    # Half precision may flip a token where two are nearly alike.
    return Finding(True, told)


def only_the_answer(patient: Patient) -> Finding:
    for question, answer in zip(QUESTIONS, _answers(patient), strict=True):
        if question.rstrip("?").lower() in answer.lower():
            return Finding(
                False, f"the answer {answer!r} repeats the prompt; decode the new tokens only"
            )
    return Finding(True, "answers hold nothing of the prompt")


CHECKS: dict[str, Check] = {
    "same twice": repeatable,
    "batch size": batch_size,
    "prompt": only_the_answer,
}


def _answers(patient: Patient, *, only: int | None = None) -> tuple[str, ...]:
    assert isinstance(patient.model, Answerer)
    images = pictures()[: len(QUESTIONS)]
    if only is None:
        return patient.model.answer(images, QUESTIONS)
    return patient.model.answer(images[only : only + 1], QUESTIONS[only : only + 1])

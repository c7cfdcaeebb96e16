"""A sample with a phrase that refers to something in its picture, and a question about it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mini_world.params import params
from mini_world.phrases import phrase_of
from mini_world.questions import AnswerType, question_of
from mini_world.scene import Scene
from natadv.rng import rng_for
from natadv.types import Sample


def asked(sample: Sample, scene: Scene) -> Sample:
    """The sample with what `params.yaml: mini-asked` says is asked about its scene.

    Raises DataError if nothing in the scene can be named without doubt.
    """
    settings = params("mini-asked")
    phrase = phrase_of(scene, rng=rng_for(settings["seed"], "phrase", sample.id))
    rng = rng_for(settings["seed"], "question", sample.id)
    question = question_of(scene, rng=rng, answer_type=_type(settings["answer_types"], rng))
    return replace(
        sample,
        phrase=phrase.text,
        mask=phrase.mask,
        question=question.text,
        answers=question.answers,
        answer_type=question.type,
    )


def _type(shares: dict[AnswerType, float], rng: np.random.Generator) -> AnswerType:
    return list(shares)[int(rng.choice(len(shares), p=list(shares.values())))]

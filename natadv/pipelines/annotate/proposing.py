"""Who thinks of questions: the templates, or a model behind an endpoint."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, final

import numpy as np
from PIL import Image

from natadv.errors import DataError, ModelError
from natadv.rng import rng_for
from natadv.scenarios.annotate.asked import Asked
from natadv.scenarios.annotate.templates import Mask, Subject, questions_of, without_article
from natadv.types import Sample

UNUSABLE = "no usable reply: "
"""Begins the note of a picture that was set aside because no reply was of use."""


class Proposal(NamedTuple):
    """What is to be asked of a picture."""

    asked: tuple[Asked, ...]
    note: str = ""
    """Why nothing is."""


@final
class Rejected(ModelError):
    """The endpoint does not take what it is sent about a picture; about others it may."""

    def __init__(self, message: str, *, sample: str, reason: str) -> None:
        super().__init__(message)
        self.sample = sample
        """Its id."""
        self.reason = reason


class Proposer(Protocol):
    """Thinks of questions about one picture; may be called by several threads."""

    def propose(self, sample: Sample, classes: Sequence[str]) -> Proposal: ...

    def waits(self) -> str:
        """For people: what for, if it may be long; asked while `propose` is at work."""
        ...


@final
@dataclass(frozen=True, slots=True)
class Templates:
    """Asks what label and mask decide; the same of a picture whatever else is in the dataset."""

    per_picture: int
    seed: int

    def propose(self, sample: Sample, classes: Sequence[str]) -> Proposal:
        noun = noun_of(sample, classes)
        if noun is None:
            return Proposal((), "has no label and no phrase, and templates ask about nothing else")
        name = None if sample.label is None else classes[sample.label]
        others = () if name is None else tuple(other for other in classes if other != name)
        try:
            asked = questions_of(
                Subject(without_article(noun), name, others, _mask_of(sample)),
                most=self.per_picture,
                rng=rng_for(self.seed, "questions", sample.id),
            )
        except DataError as error:
            return Proposal((), str(error))
        return Proposal(asked)

    def waits(self) -> str:
        return ""


def noun_of(sample: Sample, classes: Sequence[str]) -> str | None:
    """What the picture shows: the phrase where there is a mask of it, or else the label."""
    if sample.phrase is not None:
        return sample.phrase
    return None if sample.label is None else classes[sample.label]


def _mask_of(sample: Sample) -> Mask | None:
    if sample.mask is None:
        return None
    with Image.open(io.BytesIO(sample.mask), formats=("PNG",)) as image:
        inside: Mask = np.asarray(image.convert("L")) == 255
    return inside

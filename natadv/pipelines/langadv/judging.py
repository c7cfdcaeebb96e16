"""What a search asks of the classifiers that it attacks, and how a prompt is scored by them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from natadv.errors import ModelError
from natadv.scenarios.langadv.generator import Generated, Target


class Judged(NamedTuple):
    """What was found of one picture."""

    fooled: bool
    """Every member called it something else."""
    p_true: float
    """The highest that a member gave the truth."""
    consistency: float


class Score(NamedTuple):
    """What was found of a prompt."""

    asr: float
    """Equation 1, with all members in the place of f."""
    consistency: float
    """Equation 2, the mean over its pictures."""


def judge(target: Target, pictures: Sequence[Generated], label: int) -> list[Judged]:
    """Raises ModelError where a target does not answer as it must."""
    p = target.probabilities(pictures)
    consistency = target.consistency(pictures, label)
    if p.ndim != 3 or p.shape[1] != len(pictures) or consistency.shape != (len(pictures),):
        raise ModelError(
            f"{target.name}: expected (members, {len(pictures)}, classes) and ({len(pictures)},), "
            f"came {p.shape} and {consistency.shape}"
        )
    if not (np.isfinite(p).all() and (consistency >= 0).all() and (consistency <= 1).all()):
        raise ModelError(f"{target.name}: a probability or a consistency is not from 0 to 1")
    p_true = p[:, :, label]
    # A tie with the truth is not wrong, as in adversarial filtration.
    fooled = (p_true < p.max(axis=2)).all(axis=0)
    return [
        Judged(bool(f), round(float(t), 6), round(float(c), 6))
        for f, t, c in zip(fooled, p_true.max(axis=0), consistency, strict=True)
    ]


def score(judged: Sequence[Judged]) -> Score:
    fooled = [one.fooled for one in judged]
    consistency = [one.consistency for one in judged]
    return Score(float(np.mean(fooled)), float(np.mean(consistency)))

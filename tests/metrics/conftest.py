"""Small outcome tables, made by hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from natadv.types import Outcomes

Maker = Callable[..., Outcomes]


def make_outcomes(
    truth: Sequence[str],
    prediction: Sequence[str],
    *,
    ids: Sequence[str] | None = None,
    groups: Sequence[str] | None = None,
    twins: Sequence[str | None] | None = None,
    decoys: Sequence[str | None] | None = None,
    ranks: Sequence[int] | None = None,
    errors: Mapping[str, str] | None = None,
    attributes: Mapping[str, Sequence[Any]] | None = None,
) -> Outcomes:
    n = len(truth)
    names = tuple(ids) if ids is not None else tuple(f"s{i}" for i in range(n))
    right = np.array([t == p for t, p in zip(truth, prediction, strict=True)], dtype=np.float64)
    wrong_words = tuple(decoys) if decoys is not None else (None,) * n
    said = [p == d for p, d in zip(prediction, wrong_words, strict=True)]
    return Outcomes(
        id=names,
        group=tuple(groups) if groups is not None else names,
        part=("",) * n,
        twin=tuple(twins) if twins is not None else (None,) * n,
        decoy=wrong_words,
        truth=tuple(truth),
        prediction=tuple(prediction),
        values={
            **masked(right),
            "correct": right,
            "said_decoy": np.array(said, dtype=np.float64),
            "rank": np.array(ranks if ranks is not None else 7 * (1 - right), dtype=np.float64),
            **segmented(right),
            **answered(right),
            **looked(right),
        },
        errors=dict(errors or {}),
        attributes={name: tuple(told) for name, told in (attributes or {}).items()},
    )


def masked(right: np.ndarray) -> dict[str, np.ndarray]:
    """Two layers of one head: the first changes nothing, all depends on the second."""
    return {"layer_1_head_1": right.copy(), "layer_2_head_1": np.zeros(len(right))}


def segmented(right: np.ndarray) -> dict[str, np.ndarray]:
    """Masks of 100 pixels: three quarters found where right, a fifth where wrong."""
    counts = {"tp": (10, 30), "fp": (20, 5), "fn": (20, 5), "tn": (50, 60), "iou": (0.2, 0.75)}
    return {name: np.where(right == 1, best, worst) * 1.0 for name, (worst, best) in counts.items()}


def answered(right: np.ndarray) -> dict[str, np.ndarray]:
    """Three people agree where right, nobody where wrong; the types take turns."""
    turn = np.arange(len(right)) % 3
    types = {name: (turn == i) * 1.0 for i, name in enumerate(("yes_no", "number", "other"))}
    return {"accuracy": 0.9 * right, "simple": right, "exact": right, **types}


def looked(right: np.ndarray) -> dict[str, np.ndarray]:
    """A tenth of the picture is text and a quarter object: where right, relevance lies on the
    object, where wrong, on the text."""
    in_box = np.where(right == 1, 0.1, 0.6)
    return {
        "beside_text": 1 - in_box,
        "truth_in_box": in_box,
        "prediction_in_box": in_box,
        "box": np.full(len(right), 0.1),
        "in_mask": np.where(right == 1, 0.75, 0.25),
        "mask": np.full(len(right), 0.25),
        "pointing": right,
        "insertion": np.where(right == 1, 0.8, 0.4),
        "deletion": np.where(right == 1, 0.2, 0.3),
    }


@pytest.fixture(scope="session")
def outcomes() -> Maker:
    return make_outcomes

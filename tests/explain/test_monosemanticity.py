from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from natadv.explain.monosemanticity import MonosemanticityScores
from natadv.rng import rng_for


def scores_of(latents, rows, parts=1):
    scores = MonosemanticityScores(latents.shape[1], rows.shape[1])
    for a, e in zip(np.array_split(latents, parts), np.array_split(rows, parts), strict=True):
        scores.add(a, e)
    return scores.scores()


def double_loop(a, rows):
    """Eq. 6 of the paper as it stands, and the form that divides by the weights."""
    e = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    n, latents = a.shape
    mean, weighted = np.full(latents, np.nan), np.full(latents, np.nan)
    for k in range(latents):
        extent = a[:, k].max() - a[:, k].min()
        if extent == 0:
            continue
        r = (a[:, k] - a[:, k].min()) / extent
        similar = weights = 0.0
        for i in range(n):
            for j in range(n):
                if i != j:
                    similar += r[i] * r[j] * (e[i] @ e[j])
                    weights += r[i] * r[j]
        mean[k] = similar / (n * (n - 1))
        weighted[k] = similar / weights if weights else np.nan
    return mean, weighted


def drawn(seed, n=14, latents=6, dim=4):
    rng = rng_for("monosemanticity", seed)
    sparse = np.maximum(rng.standard_normal((n, latents)) - 0.3, 0) * 40
    sparse[:, 0] = 0  # dead
    sparse[:, 1] = 2.5  # constant
    sparse[:, 2] = 0
    sparse[3, 2] = 1.7  # active on one picture only
    sparse[:, 3] -= 5  # of neurons that may be negative
    return sparse, rng.standard_normal((n, dim)) + 0.5


@settings(max_examples=20)
@given(seed=st.integers(0, 10_000), parts=st.integers(1, 14))
def test_the_closed_form_equals_the_double_loop(seed, parts):
    latents, rows = drawn(seed)

    found = scores_of(latents, rows, parts)

    expected = double_loop(latents, rows)
    assert found.mean == pytest.approx(expected[0], abs=1e-5, nan_ok=True)
    assert found.weighted == pytest.approx(expected[1], abs=1e-5, nan_ok=True)


def test_latents_without_a_score_are_nan_and_not_zero():
    found = scores_of(*drawn(1))

    assert np.isnan(found.mean[:2]).all()
    assert np.isnan(found.weighted[:3]).all()
    # One picture alone: eq. 6 still divides by all pairs.
    assert found.mean[2] == pytest.approx(0, abs=1e-12)
    assert np.isfinite(found.weighted[3:]).all()


def test_by_hand():
    """Two of three pictures share the latent, at 60 degrees; each is as active as the other."""
    rows = np.array([[1, 0], [0.5, 3**0.5 / 2], [0, 7]])
    found = scores_of(np.array([[4.0], [4.0], [0.0]]), rows)

    assert found.weighted[0] == pytest.approx(0.5)
    assert found.mean[0] == pytest.approx(2 * 0.5 / 6)


def test_no_pictures_and_one_picture_have_no_score():
    assert np.isnan(MonosemanticityScores(2, 3).scores().mean).all()
    assert np.isnan(scores_of(np.ones((1, 2)), np.ones((1, 3))).weighted).all()

from __future__ import annotations

import math

import numpy as np
import pytest

from natadv.explain.latents import latent_points, low_entropy_by_chance, picture_latents
from natadv.rng import rng_for


def test_points_by_hand():
    #                   one label, two labels, dead
    latents = np.array([[2.0, 1.0, 0], [4.0, 3.0, 0], [0, 0, 0], [0, 0, 0]], np.float32)

    points = latent_points(picture_latents([latents[:3], latents[3:]], latents=3), [5, 7, 7, 7])

    assert points.frequency.tolist() == [0.5, 0.5, 0]
    assert points.activation[:2].tolist() == [3, 2]
    assert points.entropy[0] == pytest.approx(-(2 / 6 * math.log(2 / 6) + 4 / 6 * math.log(4 / 6)))
    assert points.entropy[1] == pytest.approx(-(0.25 * math.log(0.25) + 0.75 * math.log(0.75)))
    assert math.isnan(points.activation[2])
    assert math.isnan(points.entropy[2])
    assert points.dead == 1
    assert points.low_entropy == 0


def test_one_label_has_an_entropy_of_zero_and_pictures_without_labels_none():
    found = picture_latents([np.ones((3, 1), np.float32)], latents=1)

    assert latent_points(found, [4, 4, 4]).entropy.tolist() == [0]
    assert latent_points(found, [4, 4, 4]).low_entropy == 1
    assert math.isnan(latent_points(found, [4, None, 4]).entropy[0])
    assert math.isnan(latent_points(found, [None] * 3).low_entropy)


def test_points_equal_a_dense_reference():
    rng = rng_for("latents")
    dense = np.maximum(rng.standard_normal((60, 9)) - 0.8, 0).astype(np.float32)
    labels = rng.integers(0, 4, 60).tolist()
    found = picture_latents(np.array_split(dense, 7), latents=9)

    points = latent_points(found, labels)

    for k in range(9):
        active = dense[:, k] > 0
        assert points.frequency[k] == pytest.approx(active.mean())
        assert points.activation[k] == pytest.approx(dense[active, k].mean(), rel=1e-5)
        top = np.argsort(-dense[:, k], kind="stable")[:10]
        top = [i for i in top if dense[i, k] > 0]
        assert found.top(k).rows.tolist() == top
        assert found.top(k).values == pytest.approx(dense[top, k])
        by_label = {}
        for i in top:
            by_label[labels[i]] = by_label.get(labels[i], 0) + float(dense[i, k])
        shares = [value / sum(by_label.values()) for value in by_label.values()]
        entropy = -sum(p * math.log(p) for p in shares)
        assert points.entropy[k] == pytest.approx(entropy, abs=1e-5)
        assert found.of(k) == pytest.approx(dense[:, k])


def test_of_equal_activations_the_earlier_pictures_are_on_top():
    found = picture_latents([np.ones((30, 1), np.float32)], latents=1)

    assert found.top(0, most=4).rows.tolist() == [0, 1, 2, 3]


def test_no_pictures_leave_all_latents_dead():
    assert latent_points(picture_latents([], latents=4), []).dead == 4


def test_chance_alone_gives_rare_latents_a_low_entropy():
    """A latent of one picture has one label; one of ten pictures has not, if labels are shuffled
    among ten classes. Latents that stand for a class are not what chance gives."""
    rare, common = np.eye(100, dtype=np.float32), np.ones((100, 5), np.float32)
    labels = [i // 10 for i in range(100)]
    of_a_class = np.repeat(np.eye(10, dtype=np.float32), 10, axis=0)

    for latents, low, by_chance in ((rare, 1, 1), (common, 1, 0), (of_a_class, 1, 0)):
        found = picture_latents([latents], latents=latents.shape[1])
        assert latent_points(found, labels).low_entropy == low
        assert low_entropy_by_chance(found, labels) == by_chance

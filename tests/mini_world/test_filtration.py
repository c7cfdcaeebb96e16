"""What is filtered stays recognisable, and the ensemble judges as the filter asks."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mini_world.ensemble import MEMBERS, probabilities
from mini_world.filtration import recognisable
from mini_world.params import params
from mini_world.scene import Scene, Thing

SETTINGS = {"least_px": 300, "least_share": 0.5, "least_contrast": 20}
CAT = Thing("cat", "black_cat@twemoji", 0.5, 0.5, 0.5)
APPLE = Thing("apple", "apple@noto", 0.5, 0.5, 0.9)


def scene(*things: Thing, weather: str | None = None) -> Scene:
    return Scene(3, "snowfield", things, main="cat", weather=weather)


def test_a_plain_cat_is_recognisable():
    assert recognisable(scene(CAT), SETTINGS)


def test_a_hidden_cat_is_not():
    assert not recognisable(scene(CAT, APPLE), SETTINGS)


def test_a_tiny_cat_is_not():
    assert not recognisable(scene(Thing("cat", "cat@noto", 0.5, 0.5, 0.1)), SETTINGS)


def test_a_cat_half_out_of_view_is_not():
    assert not recognisable(scene(Thing("cat", "cat@noto", 0.0, 0.0, 0.6)), SETTINGS)


def test_a_cat_that_cannot_be_told_from_the_ground_is_not():
    assert not recognisable(scene(CAT), {**SETTINGS, "least_contrast": 250})


def test_every_member_gives_probabilities_of_the_ten_classes():
    torch.manual_seed(0)
    members = {name: build().eval() for name, build in MEMBERS.items()}
    pixels = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), dtype=np.uint8)

    found = probabilities(members, pixels)

    assert found.shape == (len(MEMBERS), 4, 10)
    assert found.sum(axis=2) == pytest.approx(1.0)


def test_the_ensemble_has_at_least_three_members_and_none_of_the_gated_models():
    assert len(MEMBERS) >= 3
    assert not set(MEMBERS) & {"mini-clip", "mini-siglip"}
    assert params("mini-natural")["threshold"] == 0.15

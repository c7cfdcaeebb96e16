"""What searches in the mini world attack: its ensemble, and the facts of the scenes."""

from __future__ import annotations

import numpy as np
import pytest

from mini_world.ensemble import MEMBERS
from mini_world.generator import MiniGenerator
from mini_world.target import mini_target
from mini_world.vocabulary import EVALUATED
from natadv.errors import DataError
from natadv.langadv.generator import Generated


@pytest.fixture(scope="module")
def target():
    return mini_target()


def test_the_ensemble_gives_each_members_shares(target):
    pictures = MiniGenerator().generate("a red cat in the forest", [1, 2])

    p = target.probabilities(pictures)

    assert p.shape == (len(MEMBERS), 2, len(EVALUATED))
    np.testing.assert_allclose(p.sum(axis=2), 1.0)


def test_the_facts_tell_whether_the_animal_is_recognisable(target):
    (plain,) = MiniGenerator().generate("one black cat standing in the sky with clouds", [1])

    assert target.consistency([plain], 1).tolist() == [1.0]
    with pytest.raises(DataError, match="hold no scene"):
        target.consistency([Generated(plain.image, "{}")], 1)

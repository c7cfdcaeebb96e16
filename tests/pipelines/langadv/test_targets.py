"""What searches attack: the mini ensemble, and any zero-shot classifiers."""

from __future__ import annotations

import numpy as np
import pytest

from mini_world import ensemble
from mini_world.generator import MiniGenerator
from mini_world.params import ROOT
from mini_world.target import mini_target
from mini_world.vocabulary import EVALUATED
from natadv.errors import ConfigError, DataError
from natadv.pipelines.langadv.zero_shot import zero_shot_target
from natadv.scenarios.langadv.generator import Generated

NAMES = list(EVALUATED)


def zero_shot(target: str, witness: str):
    return zero_shot_target(
        [target], witness, NAMES, root=ROOT, device="cpu", dtype=None, threads=1
    )


@pytest.fixture(scope="module")
def target():
    return mini_target()


def test_the_ensemble_gives_each_members_shares(target):
    pictures = MiniGenerator().generate("a red cat in the forest", [1, 2])

    p = target.probabilities(pictures)

    assert p.shape == (len(ensemble.MEMBERS), 2, len(NAMES))
    np.testing.assert_allclose(p.sum(axis=2), 1.0)


def test_the_facts_tell_whether_the_animal_is_recognisable(target):
    (plain,) = MiniGenerator().generate("one black cat standing in the sky with clouds", [1])

    assert target.consistency([plain], 1).tolist() == [1.0]
    with pytest.raises(DataError, match="hold no scene"):
        target.consistency([Generated(plain.image, "{}")], 1)


def test_a_zero_shot_model_knows_the_pictures_of_the_mini_world():
    target = zero_shot("mini-siglip", "mini-clip")
    pictures = MiniGenerator().generate("a dog", range(12))

    p = target.probabilities(pictures)
    right = target.consistency(pictures, NAMES.index("dog"))
    wrong = target.consistency(pictures, NAMES.index("spider"))

    assert p.shape == (1, 12, 10)
    assert (p[0].argmax(axis=1) == NAMES.index("dog")).mean() > 0.7
    assert right.mean() > wrong.mean()


def test_no_model_vouches_for_what_fools_itself():
    with pytest.raises(ConfigError, match="cannot tell semantic consistency too"):
        zero_shot("mini-clip", "mini-clip")

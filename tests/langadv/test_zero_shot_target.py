"""What searches attack: any zero-shot classifiers."""

from __future__ import annotations

import pytest

from mini_world.generator import MiniGenerator
from mini_world.params import ROOT
from mini_world.vocabulary import EVALUATED
from natadv.errors import ConfigError
from natadv.langadv.zero_shot_target import ZeroShotTarget

NAMES = list(EVALUATED)


def zero_shot(target: str, witness: str):
    return ZeroShotTarget([target], witness, NAMES, root=ROOT, device="cpu")


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
    with pytest.raises(ConfigError, match="cannot measure semantic consistency too"):
        zero_shot("mini-clip", "mini-clip")

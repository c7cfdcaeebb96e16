"""The search in the mini world: small classifiers to fool, and exact facts for what is in view."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import numpy as np

from mini_world.ensemble import Member, fingerprint, load_ensemble, probabilities
from mini_world.filtration import recognisable
from mini_world.generator import scene_in
from mini_world.params import params
from mini_world.pool import seen_by_model
from natadv.langadv.generator import Generated
from natadv.types import DoubleArray


@final
class MiniTarget:
    """The ensemble that `mini-natural` was filtered with; none of the gated models is in it."""

    def __init__(self, members: dict[str, Member], settings: dict[str, Any]) -> None:
        self._members, self._settings = members, settings
        self.name = f"ensemble {fingerprint(members)}"

    def probabilities(self, pictures: Sequence[Generated]) -> DoubleArray:
        pixels = np.stack([seen_by_model(picture.image) for picture in pictures])
        return probabilities(self._members, pixels)

    def consistency(self, pictures: Sequence[Generated], label: int) -> DoubleArray:
        """1 where a person still recognises the animal, by the exact facts of the scene."""
        seen = [recognisable(scene_in(picture.facts), self._settings) for picture in pictures]
        return np.asarray(seen, np.float64)


def mini_target() -> MiniTarget:
    # A person has to recognise the animal by the same bounds as in the filtered pictures.
    return MiniTarget(load_ensemble(), params("mini-natural"))

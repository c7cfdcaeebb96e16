"""The search in the mini world: small classifiers to fool, and exact facts for what is in view."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, final

import numpy as np
from safetensors.numpy import load, save

from natadv.engine.store import writing
from natadv.errors import DataError
from natadv.mini.ensemble import MEMBERS, Member, probabilities, train_ensemble
from natadv.mini.filtration import recognisable
from natadv.mini.generator import scene_in
from natadv.mini.params import params
from natadv.mini.pool import seen_by_model
from natadv.scenarios.langadv.generator import Generated
from natadv.types import DoubleArray

SECTION = "mini-natural"
"""Whose ensemble is searched against, and what a person needs to recognise an animal."""


@final
class MiniTarget:
    """The ensemble that `mini-natural` was filtered with; none of the gated models is in it."""

    def __init__(self, members: dict[str, Member], settings: dict[str, Any]) -> None:
        self._members, self._settings = members, settings
        self.name = f"ensemble {_hash(members)}"

    def probabilities(self, pictures: Sequence[Generated]) -> DoubleArray:
        pixels = np.stack([seen_by_model(picture.image) for picture in pictures])
        return probabilities(self._members, pixels)

    def consistency(self, pictures: Sequence[Generated], label: int) -> DoubleArray:
        """1 where a person still recognises the animal, by the exact facts of the scene."""
        seen = [recognisable(scene_in(picture.facts), self._settings) for picture in pictures]
        return np.asarray(seen, np.float64)


def mini_target(folder: Path) -> MiniTarget:
    """Trained once, and kept in the folder."""
    settings = params(SECTION)
    path = folder / "ensemble.safetensors"
    if path.exists():
        return MiniTarget(_read(path), settings)
    members = train_ensemble(settings)
    tensors = {
        f"{name}.{key}": tensor.numpy()
        for name, member in members.items()
        for key, tensor in member.state_dict().items()
    }
    with writing(path):
        folder.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".new")
        temporary.write_bytes(save(tensors))
        temporary.replace(path)
    return MiniTarget(members, settings)


def _read(path: Path) -> dict[str, Member]:
    import torch

    try:
        stored = load(path.read_bytes())
        members = {name: build().eval() for name, build in MEMBERS.items()}
        for name, member in members.items():
            own = {k.removeprefix(f"{name}."): v for k, v in stored.items() if k.startswith(name)}
            member.load_state_dict({key: torch.from_numpy(v.copy()) for key, v in own.items()})
    except Exception as error:
        raise DataError(f"{path}: cannot be read ({error}); delete it, and run again") from error
    return members


def _hash(members: dict[str, Member]) -> str:
    digest = hashlib.sha256()
    for name, member in members.items():
        for key, tensor in member.state_dict().items():
            digest.update(f"{name}.{key}".encode())
            digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()[:12]

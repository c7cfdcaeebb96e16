"""What a killed training goes on from: all of its state, and what it is the state of."""

from __future__ import annotations

import io
import pickle
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from natadv.errors import ConfigError, StoreError
from natadv.storage.atomic import replacing, writing
from natadv.training.curve import Curve, curve_of

FOLDER = ".training"
FILE = "checkpoint.pt"
FORMAT = 1


@dataclass(slots=True)
class State:
    """Everything that a step changes."""

    module: torch.nn.Module
    optimisers: tuple[torch.optim.Optimizer, ...]
    scaler: torch.amp.GradScaler
    curve: Curve
    step: int = 0
    """Steps that are done."""
    seconds: float = 0.0
    """That they took, in all the processes that worked on them."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The file in the folder of the head."""

    out: Path
    identity: Mapping[str, Any]
    """What the training is of; a state of anything else is refused. Plain values."""

    @property
    def path(self) -> Path:
        return self.out / FOLDER / FILE

    def save(self, state: State) -> None:
        """Raises StoreError if the disk is full; the checkpoint before is kept."""
        # In memory first: torch tells of a full disk in many ways.
        buffer = io.BytesIO()
        torch.save(
            {
                "format": FORMAT,
                "identity": dict(self.identity),
                "module": state.module.state_dict(),
                "optimisers": [optimiser.state_dict() for optimiser in state.optimisers],
                "scaler": state.scaler.state_dict(),
                "curve": state.curve.stored(),
                "step": state.step,
                "seconds": state.seconds,
            },
            buffer,
        )
        write_bytes(self.path, buffer.getvalue())

    def load_into(self, state: State) -> bool:
        """Whether there was a checkpoint.

        Raises:
            ConfigError: It is of another training.
            StoreError: It cannot be read.
        """
        if not self.path.exists():
            return False
        found = self._read()
        differences = list(_differences(found["identity"], self.identity))
        if differences:
            raise ConfigError(
                f"{self.path}: is of a training with {'; '.join(differences[:3])}; go on with what "
                "it was begun with, name another --out, or begin again with --fresh"
            )
        state.module.load_state_dict(found["module"])
        for optimiser, kept in zip(state.optimisers, found["optimisers"], strict=True):
            optimiser.load_state_dict(kept)
        state.scaler.load_state_dict(found["scaler"])
        state.curve = curve_of(found["curve"])
        state.step, state.seconds = found["step"], found["seconds"]
        return True

    def remove(self) -> None:
        shutil.rmtree(self.out / FOLDER, ignore_errors=True)

    def _read(self) -> dict[str, Any]:
        try:
            found = torch.load(self.path, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
            raise StoreError(
                f"{self.path}: cannot be read ({type(error).__name__}); begin again with --fresh"
            ) from error
        if not isinstance(found, dict) or found.get("format") != FORMAT:
            raise StoreError(
                f"{self.path}: not a checkpoint of this version; begin again with --fresh"
            )
        return found


def has_checkpoint(out: Path) -> bool:
    return (out / FOLDER / FILE).exists()


def write_bytes(path: Path, content: bytes) -> None:
    """Whole or not at all. Raises StoreError."""
    remedy = "free space, and run again: the training goes on from its last checkpoint"
    with writing(path, remedy=remedy), replacing(path) as temporary:
        temporary.write_bytes(content)


def _differences(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> Iterator[str]:
    """The settings and facts that are not the same, for people."""
    for name in sorted(found.keys() | wanted.keys()):
        was, now = found.get(name), wanted.get(name)
        if isinstance(was, dict) and isinstance(now, dict):
            yield from _differences(was, now)
        elif was != now:
            yield f"{name} {_short(was)} and not {_short(now)}"


def _short(value: object) -> str:
    text = repr(value) if not isinstance(value, str) else value
    return text if len(text) <= 40 else f"{text[:12]}..."

"""Checkpoints that annotate pictures and do no task: they find boxes, or draw masks in them."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NamedTuple

from natadv.errors import ModelError
from natadv.models.files import checkpoint

Role = Literal["grounding-dino", "sam"]
"""The `model_type` of its config.json."""


class _Needs(NamedTuple):
    preprocessing: tuple[str, ...]
    """Keys without which a processor would fill in defaults of its own."""
    reads_text: bool


NEEDS: dict[Role, _Needs] = {
    "grounding-dino": _Needs(("image_mean", "image_std", "size"), reads_text=True),
    "sam": _Needs(("image_mean", "image_std", "size", "pad_size"), reads_text=False),
}


def fits(folder: Path) -> bool:
    return any(role == _model_type(folder) for role in NEEDS)


def check(folder: Path) -> None:
    """Raise ModelError unless it is whole and safe to load."""
    for role, needs in NEEDS.items():
        if role == _model_type(folder):
            checkpoint.check_files(folder, **needs._asdict())


def check_role(folder: Path, role: Role) -> None:
    """Raise ModelError unless it is a checkpoint of that role, whole and safe to load."""
    found = _model_type(folder)
    if found != role:
        raise ModelError(
            f"{folder / checkpoint.CONFIG}: expected a checkpoint of model_type {role!r}, got "
            f"{found!r:.80}; see natadv annotate masks --help for what can be named"
        )
    check(folder)


def _model_type(folder: Path) -> object:
    """None where nothing can be read: others tell what is wrong then."""
    try:
        return checkpoint.read_json(folder / checkpoint.CONFIG).get("model_type")
    except ModelError:
        return None

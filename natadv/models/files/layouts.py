"""How a checkpoint lies on disk, and what can be told of it without torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from natadv.errors import ModelError
from natadv.models.files import checkpoint, grounding_folder, open_clip_folder, tower_file
from natadv.models.files.formats import FORMATS
from natadv.types import Task


class Kind(NamedTuple):
    """What a checkpoint is."""

    loader: str
    tasks: tuple[Task, ...]
    family: str
    signature: str
    """Equal for checkpoints of one architecture."""


@dataclass(frozen=True, slots=True)
class Layout:
    """One way of writing a checkpoint; the functions raise ModelError."""

    fits: Callable[[Path], bool]
    """Whether a path looks like this, be it whole or not."""
    check: Callable[[Path], None]
    """Refuses what is not whole, or not safe to load."""
    kind: Callable[[Path], Kind]
    content_files: Callable[[Path], tuple[Path, ...]]
    """Every file that decides an answer."""


def _kind_of_config(folder: Path) -> Kind:
    found = FORMATS[checkpoint.model_type(folder)]
    return Kind(found.loader, found.tasks, found.family, checkpoint.signature(folder))


def _kind_of_open_clip(folder: Path) -> Kind:
    family = "clip-rn" if open_clip_folder.is_resnet(folder) else "robust-clip"
    signature = open_clip_folder.signature(folder)
    return Kind(open_clip_folder.LOADER, ("classification",), family, signature)


def _kind_of_tower(path: Path) -> Kind:
    signature = tower_file.signature(path)
    return Kind(tower_file.LOADER, ("classification",), "robust-clip", signature)


def _no_kind(folder: Path) -> Kind:
    raise ModelError(
        f"{folder} finds boxes or draws masks for natadv annotate masks; it does no task by "
        "itself, so it cannot be judged: name another model"
    )


LAYOUTS: dict[str, Layout] = {
    "open-clip": Layout(
        fits=open_clip_folder.fits,
        check=open_clip_folder.check,
        kind=_kind_of_open_clip,
        content_files=open_clip_folder.content_files,
    ),
    "open-clip-visual": Layout(
        fits=tower_file.fits,
        check=tower_file.check,
        kind=_kind_of_tower,
        content_files=tower_file.content_files,
    ),
    "grounding": Layout(
        fits=grounding_folder.fits,
        check=grounding_folder.check,
        kind=_no_kind,
        content_files=checkpoint.content_files,
    ),
    "transformers": Layout(
        fits=lambda path: True,
        check=checkpoint.check,
        kind=_kind_of_config,
        content_files=checkpoint.content_files,
    ),
}
"""The first that fits; the last one explains what is missing."""


def layout_of(path: Path) -> Layout:
    return next(layout for layout in LAYOUTS.values() if layout.fits(path))

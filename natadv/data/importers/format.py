"""What a format is, what is asked of it, and the one way in which all are imported."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TextIO

from natadv.data.archives.checksums import Checksum
from natadv.data.card import DATASETS_FOLDER, UNSTATED
from natadv.errors import ConfigError

if TYPE_CHECKING:
    from natadv.data.packing import Packed
    from natadv.data.plan import Plan

Option = Literal[
    "classes",
    "templates",
    "labels",
    "images",
    "annotations",
    "image_column",
    "label_column",
    "id_column",
    "split",
]


@dataclass(frozen=True, slots=True)
class Format:
    """A row of the table."""

    help: str
    planner: str
    """`module:function`, from a Request to a Plan."""
    takes: tuple[Option, ...] = ()
    needs: tuple[Option, ...] = ()
    name: str = ""
    """What the dataset is called unless the user says otherwise; empty: the user must."""
    rows: int = 0
    """Of the published dataset; 0 if there is no such thing."""
    licence: str = UNSTATED
    source: str = ""
    access: str = ""
    """How to get the files to where their stage looks for them: lines for a shell, in order."""
    published: Mapping[str, Checksum] = field(default_factory=dict)
    """Of the files, by name."""

    @property
    def plan(self) -> Callable[[Request], Plan]:
        module, _, function = self.planner.partition(":")
        found: Callable[[Request], Plan] = getattr(importlib.import_module(module), function)
        return found


@dataclass(frozen=True, slots=True)
class Request:
    """What somebody asked to be imported."""

    format: Format
    path: Path
    name: str
    licence: str = ""
    sha256: str = ""
    """What the file at `path` must have."""
    classes: str | None = None
    templates: str = "single"
    labels: Path | None = None
    images: Path | None = None
    annotations: Path | None = None
    image_column: str = "image"
    label_column: str = "label"
    id_column: str | None = None
    split: str = ""
    stream: TextIO | None = None
    """Where progress and notes are shown."""

    @property
    def terms(self) -> str:
        return self.licence or self.format.licence

    def say(self, text: str) -> None:
        if self.stream is not None:
            print(text, file=self.stream, flush=True)


def import_dataset(request: Request, *, root: Path, force: bool = False) -> Packed:
    """Plan, then pack under `root`; the first error leaves nothing behind."""
    # Here, for `natadv --help` needs no Parquet.
    from natadv.data.packing import pack
    from natadv.data.placing import refuse_existing

    missing = [name for name in request.format.needs if getattr(request, name) is None]
    if missing:
        raise ConfigError(f"this format also needs --{', --'.join(missing)}; see --help")
    folder = root / DATASETS_FOLDER / request.name
    refuse_existing(folder, force=force)
    plan = request.format.plan(request)
    return pack(folder, plan, force=force, stream=request.stream)

"""The formats that can be imported, listed in `formats.yaml`, and the one way to import them.

The module of an importer is loaded only when it is used.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, TextIO

import yaml
from pydantic import TypeAdapter

from natadv.data.card import DATASETS_FOLDER, UNSTATED
from natadv.errors import ConfigError

if TYPE_CHECKING:
    from natadv.data.dataset_plan import DatasetPlan
    from natadv.data.packing import Packed

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
    "columns",
    "scenario",
    "twin_of",
    "skip_damaged",
]


class Checksum(NamedTuple):
    """The published hash of a file."""

    algorithm: Literal["sha256", "md5", "git-blob"]
    """`git-blob` is the name that git gives to a file's contents."""
    digest: str


@dataclass(frozen=True, slots=True)
class Format:
    """A row of `formats.yaml`."""

    help: str
    planner: str
    """`module:function`; the function makes a DatasetPlan from an ImportRequest."""
    takes: tuple[Option, ...] = ()
    needs: tuple[Option, ...] = ()
    name: str = ""
    """Default name of the dataset; if empty, the user must give one."""
    rows: int = 0
    """Rows of the published dataset; 0 if none is published."""
    licence: str = UNSTATED
    source: str = ""
    templates: str = "single"
    """The set of prompt templates that is used unless the user names another."""
    example: str = ""
    """What follows `natadv data import FORMAT` in the example of its help."""
    access: str = ""
    """Shell lines that put the files where their DVC stage looks for them."""
    published: Mapping[str, Checksum] = field(default_factory=dict)
    """File name -> the hash that its publisher states."""

    @property
    def plan(self) -> Callable[[ImportRequest], DatasetPlan]:
        """The planner, whose module is imported now."""
        module, _, function = self.planner.partition(":")
        planner: Callable[[ImportRequest], DatasetPlan] = getattr(
            importlib.import_module(module), function
        )
        return planner


FORMATS = TypeAdapter(dict[str, Format]).validate_python(
    yaml.safe_load(Path(__file__).with_name("formats.yaml").read_text(encoding="utf-8"))
)


@dataclass(frozen=True, slots=True)
class ImportRequest:
    """The files and options that a user gave for an import."""

    format: Format
    path: Path
    name: str
    licence: str = ""
    sha256: str = ""
    """Expected hash of the file at `path`; empty if the user gave none."""
    classes: str | None = None
    templates: str = ""
    """Name of a set of prompt templates; empty for that of the format."""
    labels: Path | None = None
    images: Path | None = None
    annotations: Path | None = None
    image_column: str | None = None
    label_column: str | None = None
    id_column: str | None = None
    split: str = ""
    columns: Sequence[str] = ()
    """`field=name` for each field of a row that the file names otherwise."""
    scenario: str = "clean"
    twin_of: str | None = None
    skip_damaged: bool = False
    """Whether rows whose picture cannot be used are set aside instead of refused."""
    stream: TextIO | None = None
    """Receives progress and notes."""

    def say(self, text: str) -> None:
        """Print a note to the stream, if there is one."""
        if self.stream is not None:
            print(text, file=self.stream, flush=True)


def import_dataset(request: ImportRequest, *, root: Path, force: bool = False) -> Packed:
    """Plan the dataset and pack it under `root`; an error leaves nothing behind.

    Raises ConfigError or DataError.
    """
    # Imported here because `natadv --help` must not load pyarrow.
    from natadv.data.packing import pack
    from natadv.data.workspace import refuse_existing

    missing = [name for name in request.format.needs if getattr(request, name) is None]
    if missing:
        raise ConfigError(f"this format also needs --{', --'.join(missing)}; see --help")
    folder = root / DATASETS_FOLDER / request.name
    refuse_existing(folder, force=force)
    plan = request.format.plan(request)
    return pack(folder, plan, force=force, stream=request.stream)

"""What a folder says that it holds, read and verified without torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError

from natadv.config import Strict, dotted
from natadv.errors import ConfigError, ModelError
from natadv.heads.config import DecoderConfig, McanConfig

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
WORDS = "words.json"
ANSWERS = "answers.json"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt")

VERSION = "1"
"""Raised by hand when the same files compute something else."""

HeadTask = Literal["segmentation", "vqa"]

FILES: dict[HeadTask, tuple[str, ...]] = {
    "segmentation": (WEIGHTS,),
    "vqa": (WEIGHTS, WORDS, ANSWERS),
}
"""What lies beside the config."""

SHA256 = "^[0-9a-f]{64}$"
Sha256 = Annotated[str, Field(pattern=SHA256)]


class _HeadFile(Strict):
    """`config.json`, whatever the head."""

    format: Literal[1]
    tower: Sha256
    """Of the model whose tower it was trained on: its fingerprint."""
    files: dict[str, Sha256]
    """sha256 of the files beside it, so that a folder is one head or refused."""


class DecoderFile(_HeadFile):
    task: Literal["segmentation"]
    config: DecoderConfig


class McanFile(_HeadFile):
    task: Literal["vqa"]
    config: McanConfig


HeadFile = DecoderFile | McanFile

_SCHEMA: TypeAdapter[HeadFile] = TypeAdapter(Annotated[HeadFile, Field(discriminator="task")])


def read_head_file(folder: Path) -> HeadFile:
    """The config of the head in `folder`. Raises ModelError."""
    path = folder / CONFIG
    if not path.is_file():
        raise ModelError(
            f"no {CONFIG} in {folder}: expected a folder that natadv train has written "
            f"({', '.join((CONFIG, *FILES['vqa']))})"
        )
    try:
        found = _SCHEMA.validate_json(path.read_bytes())
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error}") from error
    except ValidationError as error:
        raise ModelError(
            f"{path}: not the config of a head: {_told(error)}; copy the whole folder again, or "
            "train the head again"
        ) from error
    except ConfigError as error:
        raise ModelError(f"{path}: {error}; train the head again") from error
    if set(found.files) != set(FILES[found.task]):
        raise ModelError(
            f"{path}: a head for {found.task} has the files {', '.join(FILES[found.task])}, this "
            f"one names {', '.join(sorted(found.files)) or 'none'}; copy the whole folder again"
        )
    return found


def fingerprint(folder: Path) -> str:
    """sha256 over every file that decides an answer. Raises ModelError if one is not as it was."""
    described = read_head_file(folder)
    for name in described.files:
        read_verified(folder, name, described)
    # The config names the hashes of the others.
    content = f"head {VERSION}\n".encode() + (folder / CONFIG).read_bytes()
    return hashlib.sha256(content).hexdigest()


def read_verified(folder: Path, name: str, described: HeadFile) -> bytes:
    """The content of one file, as it was when the head was written."""
    path = folder / name
    if not path.is_file():
        raise ModelError(_missing(path))
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error}") from error
    found, expected = hashlib.sha256(content).hexdigest(), described.files[name]
    if found != expected:
        raise ModelError(
            f"{path}: sha256 is {found[:12]}, {CONFIG} says {expected[:12]}; the file is damaged "
            "or of another head: copy the whole folder again"
        )
    return content


def parse_words(content: bytes, path: Path) -> tuple[str, ...]:
    """A JSON list of texts; `path` is for errors."""
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path}: expected JSON, got {error}; copy the file again") from error
    if not isinstance(found, list) or not all(isinstance(word, str) for word in found):
        raise ModelError(f"{path}: expected a JSON list of texts; copy the file again")
    return tuple(found)


def _missing(path: Path) -> str:
    pickles: Sequence[Path] = [
        found for pattern in PICKLES for found in sorted(path.parent.glob(pattern))
    ]
    if path.name == WEIGHTS and pickles:
        return (
            f"{path.parent} has weights only as {pickles[0].name}: a pickle can run code when it "
            f"is opened, so it is refused; train the head again, which writes {WEIGHTS}"
        )
    return f"no {path.name} in {path.parent}; copy the whole folder"


def _told(error: ValidationError) -> str:
    faults = error.errors(include_url=False)
    first = faults[0]
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    # The first part only says which kind of head it is.
    place = dotted(part for part in first["loc"] if part not in FILES) or "the file"
    return f"{place}: {first['msg'][:1].lower()}{first['msg'][1:]}{more}"

"""The files of something that was trained: written so that half of them never count, and read only
as they were written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from natadv.errors import ModelError
from natadv.storage.atomic import replacing

CONFIG = "config.json"
"""Names the sha256 of the files beside it."""
WEIGHTS = "model.safetensors"
TRAINING = "training.json"
"""Facts about the training, for people."""


def write_files(folder: Path, contents: Mapping[str, bytes], *, what: str) -> None:
    """Write the files in their order; a config that comes last makes the folder complete.

    Raises ModelError, which calls the folder's content `what`, if it cannot be written.
    """
    try:
        for name, content in contents.items():
            with replacing(folder / name) as temporary:
                temporary.write_bytes(content)
    except OSError as error:
        raise ModelError(f"{folder}: the {what} cannot be written: {error}") from error


def read_verified(path: Path, expected: str, *, what: str) -> bytes:
    """The content of a file with the sha256 `expected`. Raises ModelError if it is missing,
    unreadable or different."""
    if not path.is_file():
        raise ModelError(f"no {path.name} in {path.parent}; copy the whole folder")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error}") from error
    if (actual := hashlib.sha256(content).hexdigest()) != expected:
        raise ModelError(
            f"{path}: sha256 is {actual[:12]}, {CONFIG} says {expected[:12]}; the file is damaged "
            f"or of another {what}: copy the whole folder again"
        )
    return content


def other_tower(folder: Path, stored: str, tower: str, *, model: str, what: str) -> str:
    """How an error begins about what was trained on the tower with the fingerprint `stored`, and
    does not fit the one with `tower`; `NAME` stands for a model without a name."""
    return (
        f"{folder}: this {what} was trained on a tower with hash {stored[:12]}, that of "
        f"{'the model' if model == 'NAME' else model} is {tower[:12]}; train one for it: "
    )


def as_json(content: object) -> bytes:
    """Indented and with sorted keys. Raises ValueError for a number that is not finite."""
    text = json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return f"{text}\n".encode()

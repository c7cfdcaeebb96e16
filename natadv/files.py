"""Files that are there whole, or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from natadv.errors import DataError


def write_whole(path: Path, content: bytes) -> None:
    """Write or replace, and make the folder. Raises DataError."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_bytes(content)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror or error}") from error

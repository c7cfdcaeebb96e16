"""Files that are there whole, or not at all."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from natadv.errors import DataError


def write_whole(path: Path, content: bytes) -> None:
    """Write or replace the file; its folder is made."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh.write_bytes(content)
        fresh.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            fresh.unlink()
        raise DataError(f"{path}: cannot be written: {error.strerror or error}") from error

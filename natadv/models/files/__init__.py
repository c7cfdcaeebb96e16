"""What the files of a checkpoint hold, read without torch."""

from __future__ import annotations

from pathlib import Path

from natadv.errors import ModelError


def expanded(text: str) -> Path:
    """The path with `~` as a home folder. Raises ModelError if that user does not exist."""
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        home = Path(text).parts[0]
        raise ModelError(
            f"{text}: the home folder {home!r} does not exist on this machine; write the path out"
        ) from error

"""What the files of a checkpoint hold, read without torch."""

from __future__ import annotations

from pathlib import Path

from natadv.errors import ModelError


def expanded(text: str) -> Path:
    """The path with `~` as a home folder. Raises ModelError if there is no such home."""
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        home = Path(text).parts[0]
        raise ModelError(
            f"{text}: nobody on this machine has the home folder {home!r}; write the path out"
        ) from error

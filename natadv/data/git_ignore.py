"""Keeps packed datasets, which are large, out of the next `git add .`."""

from __future__ import annotations

import subprocess
from pathlib import Path

from natadv.data.card import DATASETS_FOLDER
from natadv.data.status import kept_in_git
from natadv.errors import DataError

IGNORE_FILE = ".gitignore"


def ignore_in_git(folder: Path) -> Path | None:
    """Add the dataset in `folder` to the `.gitignore` beside it; returns that file if it changed.

    Nothing is done outside of a git checkout, for a dataset that git tracks or ignores already, or
    for one that a DVC stage leaves to git. For all others DVC would write the same line. Raises
    DataError if the file cannot be written.
    """
    name, datasets = folder.name, folder.absolute().parent
    depth = len(DATASETS_FOLDER.parts)
    if datasets.parts[-depth:] != DATASETS_FOLDER.parts:
        return None
    root = datasets.parents[depth - 1]
    if _git(datasets, "rev-parse", "--git-dir") is None:
        return None
    tracked = _git(datasets, "ls-files", "--", name)
    # A path with a slash at its end matches patterns for folders, whether it exists or not.
    ignored = _git(datasets, "check-ignore", "-q", "--no-index", f"{name}/") is not None
    if tracked or ignored or name in kept_in_git(root):
        return None
    file = folder.with_name(IGNORE_FILE)
    try:
        text = file.read_text(encoding="utf-8") if file.is_file() else ""
        # Appended in one write, so that two imports at a time lose neither line.
        with file.open("a", encoding="utf-8") as out:
            out.write(("" if text.endswith("\n") or not text else "\n") + f"/{name}\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: {folder.name} cannot be added to it: {error}") from error
    return file


def _git(folder: Path, *arguments: str) -> str | None:
    """What git prints in `folder`; None if it is not installed or says no."""
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return None
    return done.stdout if done.returncode == 0 else None

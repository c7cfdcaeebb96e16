"""What the repository of the user says: its commit, its author, and files of a revision."""

from __future__ import annotations

import getpass
import io
import subprocess
import tarfile
from collections.abc import Sequence
from pathlib import Path

from natadv.errors import ConfigError


def _git(*arguments: str, root: Path = Path()) -> bytes:
    command = ["git", "-C", str(root), *arguments]
    return subprocess.run(command, capture_output=True, check=True).stdout


def commit_of(root: Path) -> str:
    """Commit of the checkout, with `+` if files differ from it; empty outside of git."""
    try:
        commit = _git("rev-parse", "HEAD", root=root).decode().strip()
        return commit + ("+" if _git("status", "--porcelain", root=root) else "")
    except (OSError, subprocess.CalledProcessError):
        return ""


def author() -> str:
    """The user that git knows, as `NAME <EMAIL>`, else the one of the machine."""
    try:
        return _git("var", "GIT_AUTHOR_IDENT").decode().rpartition(">")[0] + ">"
    except (OSError, subprocess.CalledProcessError):
        return getpass.getuser()


def extract(
    revision: str, folder: Path, *, patterns: Sequence[str], folders: Sequence[str]
) -> None:
    """Write the files of a revision that match globs from the top of the repository, and whole
    folders of it where the revision has them, into `folder`.

    Raises ConfigError if there is no such revision.
    """
    try:
        # Keeps git from reading a revision as an option.
        verified = f"{revision}^{{commit}}"
        _git("rev-parse", "--verify", "--quiet", "--end-of-options", verified)
        top = Path(_git("rev-parse", "--show-toplevel").decode().strip())
    except (OSError, subprocess.CalledProcessError) as error:
        raise ConfigError(
            f"{revision}: neither a file nor a revision of this git repository"
        ) from error
    # `git archive` fails on a path that the revision lacks, but not on a pattern.
    there = [name for name in folders if _git("ls-tree", revision, name, root=top)]
    wanted = [*(f":(top,glob){pattern}" for pattern in patterns), *there]
    packed = _git("archive", "--format=tar", revision, *wanted, root=top)
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        tar.extractall(folder, filter="data")

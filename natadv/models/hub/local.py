"""Checkpoints of the Hugging Face hub that lie in its local cache; nothing here asks the network.

`models.lock` names for each repository the commit and the sha256 of every file, so that a run uses
what was fetched once, and nothing else.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from natadv.errors import ModelError
from natadv.models.files.paths import expanded
from natadv.models.zoo import ZOO
from natadv.storage.atomic import replacing

LOCK = "models.lock"
_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_FILE = re.compile(r"[A-Za-z0-9_][\w.-]*")

Presence = Literal["absent", "incomplete", "whole"]
"""Whether the locked files lie in the cache; their content is not looked at."""


class Locked(NamedTuple):
    """One repository of the lock file."""

    revision: str
    """The commit, 40 hexadecimal digits."""
    files: Mapping[str, str]
    """sha256 by file name; files in subfolders are never needed."""


def is_id(name: str) -> bool:
    """Whether `name` looks like `owner/name`."""
    return _ID.fullmatch(name) is not None


def read_lock(root: Path) -> dict[str, Locked]:
    """What `root`/models.lock says; empty if there is none."""
    path = root / LOCK
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {name: _locked(name, row) for name, row in found.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(
            f"{path}: expected JSON as written by natadv models fetch, got {error!r}"
        ) from error


def write_lock(root: Path, hub_id: str, locked: Locked) -> Path:
    """Set the row of `hub_id` in `root`/models.lock, and leave the other rows as they are."""
    rows = read_lock(root) | {hub_id: locked}
    content = {
        name: {"revision": row.revision, "files": dict(sorted(row.files.items()))}
        for name, row in sorted(rows.items())
    }
    with replacing(root / LOCK) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return root / LOCK


def locked_files(hub_id: str, *, root: Path) -> Mapping[str, str]:
    """sha256 by file name."""
    return read_lock(root)[hub_id].files


def snapshot(hub_id: str, *, root: Path) -> Path:
    """The folder of the locked commit.

    Raises:
        ModelError: It was never fetched, or is not in this machine's cache.
    """
    locked = read_lock(root).get(hub_id)
    if locked is None:
        raise ModelError(f"{hub_id} is not in {root / LOCK}; {_how_to_get(hub_id)}")
    folder = snapshot_folder(hub_id, locked.revision)
    if missing := _missing(locked, folder):
        raise ModelError(
            f"{hub_id} at {locked.revision[:12]} is not whole in {cache_folder()} "
            f"({missing[0]} is missing); {_how_to_get(hub_id)}"
        )
    return folder


def presence(hub_id: str, locked: Locked | None, *, cache: Path | None = None) -> Presence:
    """Whether what the lock says of `hub_id` is here."""
    if locked is None:
        return "absent"
    missing = _missing(locked, snapshot_folder(hub_id, locked.revision, cache=cache))
    if not missing:
        return "whole"
    return "absent" if len(missing) == len(locked.files) else "incomplete"


def repository_folder(hub_id: str, *, cache: Path | None = None) -> Path:
    """Where the cache keeps all commits of a repository."""
    return (cache or cache_folder()) / f"models--{hub_id.replace('/', '--')}"


def snapshot_folder(hub_id: str, revision: str, *, cache: Path | None = None) -> Path:
    """Where the cache keeps the files of one commit, be they there or not."""
    return repository_folder(hub_id, cache=cache) / "snapshots" / revision


def cache_folder() -> Path:
    """Where the hub's library keeps its downloads, by the same environment variables."""
    if given := os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE"):
        return expanded(given)
    home = os.environ.get("HF_HOME")
    if home is None:
        cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
        home = f"{cache}/huggingface"
    return expanded(home) / "hub"


def licence_page(hub_id: str) -> str:
    return f"https://huggingface.co/{hub_id}"


def _locked(name: str, row: Mapping[str, Any]) -> Locked:
    """One row of the file, whose parts become paths: nothing may lead out of the cache."""
    revision, files = row["revision"], dict(row["files"])
    if not is_id(name):
        raise ValueError(f"{name!r} is not owner/name")
    if not _COMMIT.fullmatch(revision):
        raise ValueError(f"the revision of {name} is not 40 hexadecimal digits: {revision!r}")
    for path, sha256 in files.items():
        if not _FILE.fullmatch(path) or not _SHA256.fullmatch(sha256):
            raise ValueError(f"a file of {name} is not a name and a sha256: {path!r}, {sha256!r}")
    return Locked(revision, files)


def _missing(locked: Locked, folder: Path) -> list[str]:
    return [name for name in locked.files if not (folder / name).is_file()]


def _how_to_get(hub_id: str) -> str:
    row = next((row for row in ZOO.values() if row.hub == hub_id), None)
    command = f"run natadv models fetch {row.name if row else hub_id}"
    if row is None or not row.gated:
        return command
    return (
        f"accept its licence ({row.licence}) on {licence_page(hub_id)}, log in (hf auth login), "
        f"and {command}"
    )

"""Checkpoints in the local cache of the Hugging Face hub; nothing here uses the network.

`models.lock` names for each repository the commit and the sha256 of every file, so that a run uses
exactly the files that were fetched.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError

from natadv.config import Strict
from natadv.errors import ModelError, NotFetchedError
from natadv.models.files import expanded
from natadv.models.zoo import ZOO, ZooRow
from natadv.storage.atomic import replacing

LOCK = "models.lock"
_ID = r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*"

Presence = Literal["absent", "incomplete", "whole"]
"""Whether the locked files are in the cache; their content is not checked."""

# Names in the lock become paths: the patterns keep them inside the cache.
_HubId = Annotated[str, Field(pattern=rf"^{_ID}$")]
_FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][\w.-]*$")]
_Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class LockedRepository(Strict):
    """One repository in the lock file."""

    revision: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
    """The commit."""
    files: dict[_FileName, _Sha256]
    """sha256 by file name; files in subfolders are never needed."""
    head: str = ""
    """Of a repository that holds a head: the folder that has its files, relative to the lock's."""


_ROWS = TypeAdapter(dict[_HubId, LockedRepository])


def is_id(name: str) -> bool:
    """Whether `name` looks like `owner/name`."""
    return re.fullmatch(_ID, name) is not None


def read_lock(root: Path) -> dict[str, LockedRepository]:
    """The rows of `root`/models.lock by hub id; empty if there is no such file.

    Raises ModelError if it was not written by `natadv models fetch`.
    """
    path = root / LOCK
    if not path.is_file():
        return {}
    try:
        return _ROWS.validate_json(path.read_text(encoding="utf-8"))
    except ValidationError as error:
        mistake = error.errors(include_url=False)[0]
        reason = f"{'.'.join(map(str, mistake['loc'])) or 'the file'}: {mistake['msg']}"
    except UnicodeDecodeError as error:
        reason = str(error)
    raise ModelError(f"{path}: expected JSON as written by natadv models fetch, got {reason}")


def write_lock(root: Path, hub_id: str, locked: LockedRepository) -> None:
    """Set the row of `hub_id` in `root`/models.lock, and keep the other rows."""
    rows = read_lock(root) | {hub_id: locked}
    content = {
        name: {"revision": row.revision, "files": dict(sorted(row.files.items()))}
        | ({"head": row.head} if row.head else {})
        for name, row in sorted(rows.items())
    }
    with replacing(root / LOCK) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def locked_files(hub_id: str, *, root: Path) -> Mapping[str, str]:
    """sha256 by file name, of a repository that is in the lock."""
    return read_lock(root)[hub_id].files


def locked_heads(folders: Mapping[str, Path], *, root: Path) -> Mapping[str, str]:
    """The sha256 that the config of a head must have, for those `folders` (by task) that have their
    files from the hub."""
    if not folders:
        return {}
    locked = {
        os.path.abspath(root / row.head): row.files["config.json"]
        for row in read_lock(root).values()
        if row.head and "config.json" in row.files
    }
    at = {task: os.path.abspath(folder) for task, folder in folders.items()}
    return {task: locked[path] for task, path in at.items() if path in locked}


def snapshot(hub_id: str, *, root: Path) -> Path:
    """The folder of the locked commit.

    Raises:
        NotFetchedError: It was never fetched, or is not in this machine's cache.
    """
    row = next((row for row in ZOO.values() if row.hub == hub_id), None)
    how = f"run natadv models fetch {row.name if row else hub_id}"
    if row is not None and row.gated:
        how = f"{acceptance(row)}, and {how}"
    locked = read_lock(root).get(hub_id)
    if locked is None:
        raise NotFetchedError(f"{hub_id} is not in {root / LOCK}; {how}")
    folder = snapshot_folder(hub_id, locked.revision)
    if missing := _missing(locked, folder):
        raise NotFetchedError(
            f"{hub_id} at {locked.revision[:12]} is not whole in {cache_folder()} "
            f"({missing[0]} is missing); {how}"
        )
    return folder


def presence(
    hub_id: str, locked: LockedRepository | None, *, cache: Path | None = None
) -> Presence:
    """Whether the locked files of `hub_id` are in the cache; absent if they are not locked."""
    if locked is None:
        return "absent"
    missing = _missing(locked, snapshot_folder(hub_id, locked.revision, cache=cache))
    if not missing:
        return "whole"
    return "absent" if len(missing) == len(locked.files) else "incomplete"


def size_of(hub_id: str, locked: LockedRepository, *, cache: Path | None = None) -> int:
    """Bytes of the locked files, all of which must be in the cache."""
    folder = snapshot_folder(hub_id, locked.revision, cache=cache)
    return sum((folder / name).stat().st_size for name in locked.files)


def repository_folder(hub_id: str, *, cache: Path | None = None) -> Path:
    """Where the cache keeps all commits of a repository."""
    return (cache or cache_folder()) / f"models--{hub_id.replace('/', '--')}"


def snapshot_folder(hub_id: str, revision: str, *, cache: Path | None = None) -> Path:
    """Where the cache keeps the files of one commit, whether they are there or not."""
    return repository_folder(hub_id, cache=cache) / "snapshots" / revision


def cache_folder() -> Path:
    """Where huggingface_hub keeps its downloads, by the same environment variables.

    The library reads them when it is imported, which takes long; this reads them now.
    """
    if given := os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE"):
        return expanded(given)
    home = os.environ.get("HF_HOME")
    if home is None:
        home = f"{os.environ.get('XDG_CACHE_HOME', '~/.cache')}/huggingface"
    return expanded(home) / "hub"


def acceptance(row: ZooRow) -> str:
    """What a person does before a gated model can be fetched."""
    return f"accept its licence ({row.licence}) on {licence_page(row.hub)}, log in (hf auth login)"


def licence_page(hub_id: str) -> str:
    """The page on which a person accepts the licence."""
    return f"https://huggingface.co/{hub_id}"


def _missing(locked: LockedRepository, folder: Path) -> list[str]:
    return [name for name in locked.files if not (folder / name).is_file()]

"""A repository of the hub, brought into this machine's cache and written down in models.lock."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TextIO

from huggingface_hub.utils import WeakFileLock

from natadv.errors import ModelError
from natadv.models.files.layouts import layout_of
from natadv.models.hub import local as hub
from natadv.models.hub.download_progress import DownloadProgress, amount
from natadv.models.hub.local import LOCK, Locked
from natadv.models.hub.remote import RemoteFile, Repository, describe, describe_locked, explained
from natadv.models.hub.transfer import WAITS_S, bring, discard, unfinished
from natadv.storage.hashes import digest_of


class Target(NamedTuple):
    """What is to be fetched."""

    name: str
    """As people call it: the row of the zoo, or the hub id."""
    hub_id: str
    loader: str | None = None
    """Key of the adapter table, if known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """From where, and to where."""

    root: Path
    """Holds models.lock."""
    cache: Path
    endpoint: str | None = None
    """None is the hub itself, or what HF_ENDPOINT names."""
    waits_s: Sequence[float] = WAITS_S


class Agreement(NamedTuple):
    """What the files must be, as far as it is known before they come."""

    sha256: Mapping[str, str]
    by: str
    """Who says so."""


class Fetched(NamedTuple):
    """What became of one target."""

    target: Target
    locked: Locked
    size: int
    """Bytes of all files."""
    came: int
    """Of these, over the network."""
    before: Locked | None = None
    """What the lock said."""
    branch: str = ""
    """Where the commit was found, if not on the main branch."""


def fetch(
    target: Target,
    *,
    place: Place,
    progress_to: TextIO,
    update: bool = False,
    revision: str | None = None,
) -> Fetched:
    """Bring the locked commit; with `update` the newest one, with `revision` that one.

    Nothing is asked of the network if the locked commit is here, byte for byte.

    Raises:
        ModelError: Something refused, or a file is not the one that models.lock names; the lock is
            left as it was.
    """
    with disk_explained(target.hub_id, cache=place.cache):
        before = hub.read_lock(place.root).get(target.hub_id)
        keeps = before if not update and revision is None else None
        if keeps and _is_here(target, keeps, place, progress_to):
            return Fetched(target, keeps, _size(target, keeps, place), came=0, before=before)
        with explained(target.hub_id, endpoint=place.endpoint):
            repository = _repository(target, keeps, revision, place)
            progress = _progress(target, repository, progress_to)
            agreed = _agreed(target, repository, before)
            found = _bring_all(target, repository, agreed, place=place, progress=progress)
        locked = Locked(repository.revision, found)
        _settle(target, locked, before, place)
        size = _size(target, locked, place)
        return Fetched(target, locked, size, progress.came, before, repository.branch)


@contextmanager
def disk_explained(hub_id: str, *, cache: Path) -> Iterator[None]:
    """Turns what the disk refuses into a ModelError that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise ModelError(
                f"{hub_id}: the disk of {cache} is full; free some space, or set HF_HUB_CACHE to a "
                "folder on a larger disk; what has come so far is kept"
            ) from error
        raise ModelError(
            f"{hub_id}: cannot use {error.filename or cache} ({error.strerror or error}); "
            "check its permissions"
        ) from error


def _settle(target: Target, locked: Locked, before: Locked | None, place: Place) -> None:
    """Lock what came, if a run could use it."""
    folder = hub.snapshot_folder(target.hub_id, locked.revision, cache=place.cache)
    layout_of(folder).check(folder)
    if locked != before:
        # Another fetch may be writing its own row.
        with WeakFileLock(place.cache / ".locks" / f"natadv.{LOCK}"):
            hub.write_lock(place.root, target.hub_id, locked)


def _repository(
    target: Target, keeps: Locked | None, revision: str | None, place: Place
) -> Repository:
    if keeps:
        return describe_locked(target.hub_id, keeps, endpoint=place.endpoint)
    return describe(target.hub_id, loader=target.loader, revision=revision, endpoint=place.endpoint)


def _is_here(target: Target, locked: Locked, place: Place, progress_to: TextIO) -> bool:
    """Whether every locked file lies in the cache, byte for byte."""
    if hub.presence(target.hub_id, locked, cache=place.cache) != "whole":
        return False
    folder = hub.snapshot_folder(target.hub_id, locked.revision, cache=place.cache)
    total = _size(target, locked, place)
    progress = DownloadProgress(f"{target.name}: checking", total, stream=progress_to)
    try:
        return all(
            digest_of(folder / name, read=progress.received) == sha256
            for name, sha256 in locked.files.items()
        )
    finally:
        progress.end()


def _size(target: Target, locked: Locked, place: Place) -> int:
    folder = hub.snapshot_folder(target.hub_id, locked.revision, cache=place.cache)
    return sum((folder / name).stat().st_size for name in locked.files)


def _progress(target: Target, repository: Repository, stream: TextIO) -> DownloadProgress:
    return DownloadProgress(target.name, sum(file.size for file in repository.files), stream=stream)


def _agreed(target: Target, repository: Repository, before: Locked | None) -> Agreement:
    said = {file.name: file.sha256 for file in repository.files if file.sha256}
    if before is None or before.revision != repository.revision:
        return Agreement(said, by="the hub")
    for name, sha256 in said.items():
        if (wanted := before.files.get(name, sha256)) != sha256:
            raise _other_bytes(f"{target.hub_id}: {name} on the hub", sha256, wanted, by=LOCK)
    return Agreement({**said, **before.files}, by=LOCK)


def _bring_all(
    target: Target,
    repository: Repository,
    agreed: Agreement,
    *,
    place: Place,
    progress: DownloadProgress,
) -> dict[str, str]:
    """The sha256 of each file, of the bytes that lie on the disk."""
    _check_space(target, repository, place.cache)
    try:
        return {
            file.name: _bring_whole(
                file, target.hub_id, repository.revision, agreed, place=place, progress=progress
            )
            for file in repository.files
        }
    finally:
        progress.end()


def _bring_whole(
    file: RemoteFile,
    hub_id: str,
    revision: str,
    agreed: Agreement,
    *,
    place: Place,
    progress: DownloadProgress,
) -> str:
    """Its sha256; a file that was damaged is brought once more."""
    found = wanted = ""
    for _ in range(2):
        path = bring(
            file,
            hub_id,
            revision=revision,
            cache=place.cache,
            progress=progress,
            endpoint=place.endpoint,
            waits_s=place.waits_s,
        )
        found = digest_of(path)
        wanted = agreed.sha256.get(file.name, found)
        if found == wanted:
            return found
        discard(path)
        progress.found(-file.size)
    raise _other_bytes(f"{hub_id}: {file.name} as downloaded", found, wanted, by=agreed.by)


def _other_bytes(what: str, found: str, wanted: str, *, by: str) -> ModelError:
    return ModelError(
        f"{what} has sha256 {found[:12]}, {by} says {wanted[:12]}; {LOCK} is left as it is: find "
        f"out which is right, and if it is the hub, remove the repository from {LOCK}"
    )


def _check_space(target: Target, repository: Repository, cache: Path) -> None:
    blobs = hub.repository_folder(target.hub_id, cache=cache) / "blobs"
    missing = sum(_still_to_come(file, blobs / file.etag) for file in repository.files)
    existing = next(path for path in (blobs, *blobs.parents) if path.is_dir())
    free = shutil.disk_usage(existing).free
    if missing > free:
        raise ModelError(
            f"{target.hub_id} needs {amount(missing)}, {amount(free)} are free in {existing}; free "
            "some space, or set HF_HUB_CACHE to a folder on a larger disk"
        )


def _still_to_come(file: RemoteFile, blob: Path) -> int:
    if blob.exists():
        return 0
    part = unfinished(blob)
    return file.size - (part.stat().st_size if part.exists() else 0)

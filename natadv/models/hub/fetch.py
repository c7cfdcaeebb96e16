"""Brings a repository of the hub into this machine's cache, and writes it into models.lock."""

from __future__ import annotations

import errno
import hashlib
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TextIO

from huggingface_hub.utils import WeakFileLock

from natadv.errors import ModelError, UnreachableError
from natadv.models.files.layouts import layout_of
from natadv.models.hub import local
from natadv.models.hub.local import LOCK, LockedRepository
from natadv.models.hub.remote import (
    Repository,
    describe,
    describe_cached,
    describe_locked,
    explained,
)
from natadv.models.hub.transfer import WAITS_S, DownloadProgress, discard, download, unfinished
from natadv.storage.hashes import digest_of
from natadv.storage.progress import amount


class FetchTarget(NamedTuple):
    """The repository that is to be fetched."""

    name: str
    """The name that people use: the row of the zoo, or the hub id."""
    hub_id: str
    loader: str | None = None
    """Key of the adapter table, if known."""
    files: tuple[str, ...] = ()
    """What to fetch of it, if it holds no model."""
    check: Callable[[Path], object] | None = None
    """Raises ModelError if the fetched folder is not whole; by default the check of a model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """The checkout, the cache and the server of a fetch."""

    root: Path
    """The folder of models.lock."""
    cache: Path
    endpoint: str | None = None
    """If None, the hub itself, or the server in HF_ENDPOINT."""
    waits_s: Sequence[float] = WAITS_S


class Fetched(NamedTuple):
    """The result for one target."""

    target: FetchTarget
    locked: LockedRepository
    size: int
    """Bytes of all files."""
    downloaded: int
    """Bytes that were downloaded now."""
    before: LockedRepository | None = None
    """The row of the lock before the fetch."""
    branch: str = ""
    """The branch that holds the commit, if it is not the main one."""
    compared: bool = True
    """Whether the hub confirmed the files, now or when they were locked."""


def fetch(
    target: FetchTarget,
    *,
    place: Place,
    progress_to: TextIO,
    update: bool = False,
    revision: str | None = None,
) -> Fetched:
    """Fetch the locked commit; with `update` the newest one, with `revision` that one.

    The network is not used if the locked commit is in the cache, byte for byte. Where the hub is
    out of reach and nothing is locked, files that another tool left in the cache are locked.

    Raises:
        ModelError: The hub or the disk refused, or a file differs from models.lock; the lock is
            left as it was.
    """
    with disk_explained(target.hub_id, cache=place.cache):
        before = local.read_lock(place.root).get(target.hub_id)
        keeps = before if not update and revision is None else None
        if keeps and _is_intact(target, keeps, place, progress_to):
            size = local.size_of(target.hub_id, keeps, cache=place.cache)
            return Fetched(target, keeps, size, downloaded=0, before=before)
        repository, compared = _listing(
            target, keeps, place, revision=revision, asks=bool(keeps or update)
        )
        progress = DownloadProgress(
            target.name, sum(file.size for file in repository.files), stream=progress_to
        )
        try:
            if compared:
                with explained(target.hub_id, endpoint=place.endpoint):
                    files = _download_all(target, repository, before, place, progress)
            else:
                files = _hash_cached(target, repository, place, progress)
        finally:
            progress.end()
        head = before.head if before else ""
        locked = LockedRepository(revision=repository.revision, files=files, head=head)
        folder = local.snapshot_folder(target.hub_id, locked.revision, cache=place.cache)
        (target.check or layout_of(folder).check)(folder)
        if locked != before:
            # Another fetch may be writing its own row.
            with WeakFileLock(place.cache / ".locks" / f"natadv.{LOCK}"):
                local.write_lock(place.root, target.hub_id, locked)
        size = local.size_of(target.hub_id, locked, cache=place.cache)
        downloaded = progress.downloaded if compared else 0
        return Fetched(target, locked, size, downloaded, before, repository.branch, compared)


class _Listing(NamedTuple):
    repository: Repository
    compared: bool
    """Whether the hub was asked, and not the cache."""


def _listing(
    target: FetchTarget,
    keeps: LockedRepository | None,
    place: Place,
    *,
    revision: str | None,
    asks: bool,
) -> _Listing:
    """What the hub holds or, where it is out of reach, the cache; if the fetch `asks` what only the
    hub knows, that is an error."""
    hub_id, loader, endpoint = target.hub_id, target.loader, place.endpoint
    try:
        with explained(hub_id, endpoint=endpoint):
            if keeps:
                return _Listing(describe_locked(hub_id, keeps, endpoint=endpoint), True)
            found = describe(
                hub_id, loader=loader, revision=revision, endpoint=endpoint, files=target.files
            )
            return _Listing(found, True)
    except UnreachableError:
        cached = None
        if not asks and not target.files:
            cached = describe_cached(hub_id, loader=loader, revision=revision, cache=place.cache)
        if cached is None:
            raise
        return _Listing(cached, False)


@contextmanager
def disk_explained(hub_id: str, *, cache: Path) -> Iterator[None]:
    """Turns an OSError of the disk into a ModelError that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise ModelError(
                f"{hub_id}: the disk of {cache} is full; free some space, or set HF_HUB_CACHE to a "
                "folder on a larger disk; the bytes that were downloaded so far stay"
            ) from error
        raise ModelError(
            f"{hub_id}: cannot use {error.filename or cache} ({error.strerror or error}); "
            "check its permissions"
        ) from error


def _is_intact(
    target: FetchTarget, locked: LockedRepository, place: Place, progress_to: TextIO
) -> bool:
    """Whether every locked file is in the cache, byte for byte."""
    if local.presence(target.hub_id, locked, cache=place.cache) != "whole":
        return False
    folder = local.snapshot_folder(target.hub_id, locked.revision, cache=place.cache)
    total = local.size_of(target.hub_id, locked, cache=place.cache)
    progress = DownloadProgress(f"{target.name}: checking", total, stream=progress_to)
    try:
        return all(
            digest_of(folder / name, read=progress.add_downloaded) == sha256
            for name, sha256 in locked.files.items()
        )
    finally:
        progress.end()


def _download_all(
    target: FetchTarget,
    repository: Repository,
    before: LockedRepository | None,
    place: Place,
    progress: DownloadProgress,
) -> dict[str, str]:
    """Download the files; the sha256 of each, computed from the bytes on the disk."""
    expected: Mapping[str, str] = {f.name: f.sha256 for f in repository.files if f.sha256}
    authority = "the hub"
    if before is not None and before.revision == repository.revision:
        for name, sha256 in expected.items():
            if (locked := before.files.get(name, sha256)) != sha256:
                raise _differs(f"{target.hub_id}: {name} on the hub", sha256, locked, LOCK)
        expected, authority = {**expected, **before.files}, LOCK
    _check_space(target, repository, place.cache)
    digests: dict[str, str] = {}
    for file in repository.files:
        # A damaged file is downloaded once more.
        for _ in range(2):
            path = download(
                file,
                target.hub_id,
                revision=repository.revision,
                cache=place.cache,
                progress=progress,
                endpoint=place.endpoint,
                waits_s=place.waits_s,
            )
            digest = digest_of(path)
            if digest == expected.get(file.name, digest):
                break
            discard(path)
            progress.add_present(-file.size)
        else:
            what = f"{target.hub_id}: {file.name} as downloaded"
            raise _differs(what, digest, expected[file.name], authority)
        digests[file.name] = digest
    return digests


def _hash_cached(
    target: FetchTarget, repository: Repository, place: Place, progress: DownloadProgress
) -> dict[str, str]:
    """The sha256 of each file in the cache, which must be that of its blob's name, if it has one:
    the sha256 of a large file, git's id of a small one."""
    folder = local.snapshot_folder(target.hub_id, repository.revision, cache=place.cache)
    digests: dict[str, str] = {}
    for file in repository.files:
        path = folder / file.name
        digests[file.name] = actual = digest_of(path, read=progress.add_downloaded)
        if file.etag and file.sha256 is None:
            actual = hashlib.sha1(b"blob %d\0" % file.size + path.read_bytes()).hexdigest()
        if file.etag and actual != file.etag:
            raise ModelError(
                f"{path}: hash is {actual[:12]}, the name of its blob says {file.etag[:12]}; it "
                "was changed or damaged: delete it, and fetch where the hub can be reached"
            )
    return digests


def _differs(what: str, digest: str, expected: str, authority: str) -> ModelError:
    return ModelError(
        f"{what} has sha256 {digest[:12]}, {authority} says {expected[:12]}; {LOCK} is left as it "
        f"is: find out which is right, and if it is the hub, remove the repository from {LOCK}"
    )


def _check_space(target: FetchTarget, repository: Repository, cache: Path) -> None:
    blobs = local.repository_folder(target.hub_id, cache=cache) / "blobs"
    missing = 0
    for file in repository.files:
        blob = blobs / file.etag
        if not blob.exists():
            part = unfinished(blob)
            missing += file.size - (part.stat().st_size if part.exists() else 0)
    existing = next(path for path in (blobs, *blobs.parents) if path.is_dir())
    free = shutil.disk_usage(existing).free
    if missing > free:
        raise ModelError(
            f"{target.hub_id} needs {amount(missing)}, {amount(free)} are free in {existing}; free "
            "some space, or set HF_HUB_CACHE to a folder on a larger disk"
        )

"""Heads in repositories of the Hugging Face hub: published for others, fetched by hash."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, TextIO

from huggingface_hub import CommitOperationAdd, HfApi

from natadv import __version__
from natadv.errors import ConfigError, ModelError
from natadv.heads.head_file import (
    ANSWERS,
    WORDS,
    fingerprint,
    read_head_file,
)
from natadv.models import loading
from natadv.models.hub import local
from natadv.models.hub.fetch import Fetched, FetchTarget, Place, disk_explained, fetch
from natadv.models.hub.local import LockedRepository
from natadv.models.hub.remote import explained
from natadv.models.resolve import HEADS, heads_beside
from natadv.models.zoo import ZOO
from natadv.storage.atomic import replacing
from natadv.storage.hashes import digest_of
from natadv.storage.trained_folder import CONFIG, TRAINING, WEIGHTS
from natadv.types import ModelSpec

FILES = (WEIGHTS, WORDS, ANSWERS, TRAINING, CONFIG)
"""What a repository of a head may hold; the config comes last, as a folder with it is complete."""


class PublishedHead(NamedTuple):
    """A commit that holds a head."""

    commit: str
    files: tuple[str, ...]
    size: int
    """Bytes of all files."""


def publish_head(folder: Path, hub_id: str, *, endpoint: str | None = None) -> PublishedHead:
    """Upload the head in `folder` to the main branch of a repository, which is made (for its owner
    alone) if it does not exist.

    Raises ModelError if the head is damaged, or the hub refuses.
    """
    described = read_head_file(folder)
    # Reads every file.
    fingerprint(folder)
    files = tuple(name for name in FILES if (folder / name).is_file())
    with explained(hub_id, endpoint=endpoint), _upload_explained(hub_id):
        api = HfApi(endpoint=endpoint, library_name="natadv", library_version=__version__)
        api.create_repo(hub_id, private=True, exist_ok=True)
        commit = api.create_commit(
            hub_id,
            [CommitOperationAdd(name, folder / name) for name in files],
            commit_message=f"Add a head for {described.task}",
        )
    return PublishedHead(commit.oid, files, sum((folder / name).stat().st_size for name in files))


@contextmanager
def _upload_explained(hub_id: str) -> Iterator[None]:
    """Turns the errors that the library wraps around a failed upload into a ModelError."""
    try:
        yield
    except RuntimeError as error:
        reason = " ".join(str(error.__cause__ or error).split())[:300]
        raise ModelError(
            f"{hub_id}: the upload failed ({reason}); nothing was committed: run again, after "
            "hf auth login with a token that may write there"
        ) from error


class FetchedHead(NamedTuple):
    """A head that is where the gate finds it."""

    fetched: Fetched
    folder: Path


def fetch_head(
    hub_id: str,
    spec: ModelSpec,
    *,
    place: Place,
    progress_to: TextIO,
    update: bool = False,
    revision: str | None = None,
    force: bool = False,
) -> FetchedHead:
    """Fetch the head of a repository, as `fetch` does, and copy it to the heads of its model.

    models.lock gets its hashes, and the folder that they are for.

    Raises:
        ModelError: The repository holds no head, or one of another tower; or as `fetch`.
        ConfigError: The model has another head for the task, and not `force`.
    """
    target = FetchTarget(hub_id, hub_id, files=FILES, check=fingerprint)
    fetched = fetch(target, place=place, progress_to=progress_to, update=update, revision=revision)
    source = local.snapshot_folder(hub_id, fetched.locked.revision, cache=place.cache)
    described, weights = read_head_file(source), loading.fingerprint(spec)
    if described.tower != weights:
        raise ModelError(
            f"{hub_id}: this head was trained on a tower with hash {described.tower[:12]}, that of "
            f"{spec.name} is {weights[:12]}; name the model that it was trained on"
        )
    folder = folder_of(spec, described.task, root=place.root)
    _refuse_other(folder, hub_id, fetched.locked, place.root, force=force)
    with disk_explained(hub_id, cache=place.cache):
        for name in (name for name in FILES if name in fetched.locked.files):
            with replacing(folder / name) as temporary:
                shutil.copyfile(source / name, temporary)
        local.write_lock(
            place.root,
            hub_id,
            fetched.locked.model_copy(update={"head": os.path.relpath(folder, place.root)}),
        )
    return FetchedHead(fetched, folder)


def folder_of(spec: ModelSpec, task: str, *, root: Path) -> Path:
    """Where the gate looks for the head of a model."""
    beside = heads_beside(spec.folder) if spec.name not in ZOO else root / HEADS / spec.name
    return beside / task


def _refuse_other(
    folder: Path, hub_id: str, locked: LockedRepository, root: Path, *, force: bool
) -> None:
    """Raises ConfigError if the folder holds a head that was not fetched from the repository."""
    config = folder / CONFIG
    if force or not config.is_file() or digest_of(config) == locked.files[CONFIG]:
        return
    before = local.read_lock(root).get(hub_id)
    if before is None or before.head != os.path.relpath(folder, root):
        raise ConfigError(
            f"{folder} holds another head, which is not from {hub_id}; move it away, or replace it "
            "with --force"
        )

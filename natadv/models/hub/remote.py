"""What the hub holds of a repository, which of its files are needed, and what its errors mean."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from huggingface_hub import HfApi, constants, get_token
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import ModelInfo
from huggingface_hub.utils import httpx

from natadv import __version__
from natadv.errors import ModelError, UnreachableError
from natadv.models.files import open_clip_folder as open_clip
from natadv.models.files.checkpoint import (
    CONFIG,
    DEFENCE,
    PREPROCESSING,
    TOKENIZER_EXTRAS,
    TOKENIZER_VOCABULARIES,
    WEIGHTS,
    WEIGHTS_INDEX,
)
from natadv.models.hub.local import (
    LOCK,
    LockedRepository,
    cache_folder,
    licence_page,
    repository_folder,
)

CONVERTER = "SFconvertbot"
"""The hub's own account that offers safetensors for repositories that have only pickles."""

_TIMEOUT_S = 30.0
_COMMIT = re.compile(r"[0-9a-f]{40}")
_HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
# This also matches preprocessor_config.json, tokenizer_config.json and the like.
_CONFIGS = re.compile(r"config\.json|[a-z_]+_config\.json")
_WEIGHTS_SHARD = re.compile(r"model-\d{5}-of-\d{5}\.safetensors")


class RemoteFile(NamedTuple):
    """One needed file."""

    name: str
    size: int
    """Bytes."""
    etag: str
    """Its name in the cache: the sha256 of a large file, git's id of a small one."""
    sha256: str | None
    """Known only for large files."""


class Repository(NamedTuple):
    """One commit."""

    revision: str
    """40 hexadecimal digits."""
    files: tuple[RemoteFile, ...]
    branch: str = ""
    """The branch that holds the commit, if it is not the main one."""


def describe(
    hub_id: str,
    *,
    loader: str | None,
    revision: str | None = None,
    endpoint: str | None = None,
    files: Sequence[str] = (),
) -> Repository:
    """The newest commit, or `revision` (a commit, branch or tag), with the needed files: those of a
    model, or of `files` all that it has.

    If the main branch has only pickles, it is the commit in which the hub offers safetensors.

    Raises:
        ModelError: The files would not make a model.
    """
    api = _api(endpoint)
    info = _info(api, hub_id, revision)
    branch = revision or ""
    if files:
        wanted = tuple(name for name in files if name in _names(info))
        return _repository(info, wanted, branch=branch)
    if revision is None and not has_weights(_names(info), loader=loader):
        offers = api.get_repo_discussions(
            hub_id, author=CONVERTER, discussion_type="pull_request", discussion_status="open"
        )
        # An owner can switch discussions off.
        with suppress(HfHubHTTPError):
            # Filtered again, because a server may ignore filters that it does not know.
            numbers = [it.num for it in offers if it.author == CONVERTER and it.is_pull_request]
            if numbers:
                branch = f"refs/pr/{max(numbers)}"
        info = _info(api, hub_id, branch) if branch else info
    wanted = needed(_names(info), loader=loader, where=hub_id)
    return _repository(info, wanted, branch=branch)


def describe_locked(
    hub_id: str, locked: LockedRepository, *, endpoint: str | None = None
) -> Repository:
    """The commit and the files that models.lock names, even if others would be chosen today.

    Raises:
        ModelError: The hub lacks one of the files.
    """
    info = _info(_api(endpoint), hub_id, locked.revision)
    if missing := sorted(locked.files.keys() - set(_names(info))):
        raise ModelError(
            f"{hub_id} at {locked.revision[:12]}: {LOCK} names {missing[0]}, and the hub does not "
            "have it; --update takes the newest commit"
        )
    return _repository(info, tuple(locked.files))


def describe_cached(
    hub_id: str, *, loader: str | None, revision: str | None, cache: Path
) -> Repository | None:
    """The main commit in the cache, or `revision`, with the needed files, whoever downloaded them;
    None if it is not there as a whole. Nothing is asked of the hub.

    Raises:
        ModelError: Several commits are there, and none is known to be the main one.
    """
    folder = repository_folder(hub_id, cache=cache)
    commit = _cached_commit(folder, revision or "main")
    if commit is None and revision is None:
        # A tool that was asked for a commit records no branch.
        commits = sorted(path.name for path in (folder / "snapshots").glob("*"))
        if len(commits) > 1:
            raise ModelError(
                f"{hub_id}: {cache} holds {len(commits)} commits, none of them as the "
                f"main branch; name one: --revision {commits[0]}"
            )
        commit = next(iter(commits), None)
    if commit is None or not _COMMIT.fullmatch(commit):
        return None
    snapshot = folder / "snapshots" / commit
    names = sorted(path.name for path in snapshot.glob("*") if path.is_file())
    try:
        wanted = needed(names, loader=loader, where=hub_id)
    except ModelError:
        return None
    files = []
    for name in wanted:
        # Where the file system has no links, the name of the blob is lost.
        etag = (snapshot / name).resolve().name
        known = etag if _HASH.fullmatch(etag) else ""
        sha256 = known if len(known) == 64 else None
        files.append(RemoteFile(name, (snapshot / name).stat().st_size, known, sha256))
    return Repository(commit, tuple(files), "" if revision in (None, commit) else str(revision))


def _cached_commit(folder: Path, revision: str) -> str | None:
    if (folder / "snapshots" / revision).is_dir() and _COMMIT.fullmatch(revision):
        return revision
    ref = folder / "refs" / revision
    return ref.read_text(encoding="utf-8").strip() if ref.is_file() else None


def needed(names: Sequence[str], *, loader: str | None, where: str) -> tuple[str, ...]:
    """The files among `names` that make a model, small ones first.

    `loader` is the key of the adapter table, or None if the names must show which one fits.

    Raises:
        ModelError: The files do not make a model.
    """
    files = _loadable(names, loader)
    if CONFIG not in files and open_clip.CONFIG not in files:
        raise ModelError(f"{where} cannot be loaded as a model: it has no {CONFIG}")
    if not has_weights(names, loader=loader):
        pickles = [name for name in names if name.endswith((".bin", ".pt", ".pth", ".ckpt"))]
        only = (
            f", only {pickles[0]}, a pickle, which can run code when it is opened"
            if pickles
            else ""
        )
        raise ModelError(
            f"{where} has no {WEIGHTS}{only}; name a branch or commit that has "
            "it (--revision), or convert the weights and give the folder as the model"
        )
    return files


def has_weights(names: Sequence[str], *, loader: str | None) -> bool:
    """Whether one of the files holds weights that a run would open."""
    # A pickle of open_clip counts too, because it is read with weights_only=True: some of these
    # repositories have nothing else.
    files = (name for name in _loadable(names, loader) if name != DEFENCE)
    return any(name.endswith((".safetensors", ".bin")) for name in files)


def _loadable(names: Sequence[str], loader: str | None) -> tuple[str, ...]:
    """The files that the loader would read, small ones first, even if some are missing."""
    guessed = open_clip.CONFIG in names and not any(name in names for name in PREPROCESSING)
    if guessed if loader is None else loader == open_clip.LOADER:
        weights = [name for name in open_clip.WEIGHTS if name in names]
        return tuple(name for name in (open_clip.CONFIG, DEFENCE, *weights[:1]) if name in names)
    others = {*TOKENIZER_VOCABULARIES, *TOKENIZER_EXTRAS, DEFENCE}
    small = sorted(
        name
        for name in names
        if name in others or (_CONFIGS.fullmatch(name) and name != open_clip.CONFIG)
    )
    if WEIGHTS in names:
        return (*small, WEIGHTS)
    shards = sorted(name for name in names if _WEIGHTS_SHARD.fullmatch(name))
    return (*small, WEIGHTS_INDEX, *shards) if WEIGHTS_INDEX in names else tuple(small)


def _api(endpoint: str | None) -> HfApi:
    return HfApi(endpoint=endpoint, library_name="natadv", library_version=__version__)


def _info(api: HfApi, hub_id: str, revision: str | None) -> ModelInfo:
    try:
        return api.model_info(hub_id, revision=revision, files_metadata=True, timeout=_TIMEOUT_S)
    except HfHubHTTPError:
        # One of its subclasses is a ValueError too.
        raise
    except (ValueError, KeyError, TypeError) as error:
        raise _not_the_hub(hub_id, repr(error)) from error


def _names(info: ModelInfo) -> tuple[str, ...]:
    return tuple(sibling.rfilename for sibling in info.siblings or ())


def _repository(info: ModelInfo, wanted: tuple[str, ...], *, branch: str = "") -> Repository:
    if info.sha is None or not _COMMIT.fullmatch(info.sha):
        raise _not_the_hub(info.id, f"{info.sha!r} as the commit")
    siblings = {sibling.rfilename: sibling for sibling in info.siblings or ()}
    files = []
    for name in wanted:
        # For a file in LFS, size and blob_id are those of a pointer of some hundred bytes.
        lfs = siblings[name].lfs
        size = lfs.size if lfs else siblings[name].size
        etag = lfs.sha256 if lfs else siblings[name].blob_id
        if size is None or etag is None or not _HASH.fullmatch(etag):
            raise _not_the_hub(info.id, f"size {size!r} and hash {etag!r} of {name}")
        files.append(RemoteFile(name, size, etag, lfs.sha256 if lfs else None))
    return Repository(info.sha, tuple(files), "" if branch == info.sha else branch)


def _not_the_hub(hub_id: str, got: str) -> ModelError:
    return ModelError(
        f"{hub_id}: expected an answer as the hub's, got {_first_line(got)}; check HF_ENDPOINT, "
        "and whether a proxy asks for a login"
    )


@contextmanager
def explained(hub_id: str, *, endpoint: str | None = None) -> Iterator[None]:
    """Turns errors of the hub or the network into a ModelError that says what to do."""
    # The library reads the variables only once, when it is imported.
    on = ("1", "ON", "YES", "TRUE")
    if variable := next((v for v in _OFFLINE if os.environ.get(v, "").upper() in on), None):
        raise UnreachableError(_offline(hub_id, variable))
    try:
        yield
    except OfflineModeIsEnabled as error:
        raise UnreachableError(_offline(hub_id, _OFFLINE[0])) from error
    except HfHubHTTPError as error:
        raise ModelError(_refusal(hub_id, error)) from error
    except (httpx.HTTPError, LocalEntryNotFoundError, TimeoutError) as error:
        where = endpoint or constants.ENDPOINT
        reason = str(error.__cause__ or error) or type(error).__name__
        raise UnreachableError(
            f"{hub_id}: cannot reach {where} ({_first_line(reason)}); check the network and "
            f"HTTPS_PROXY, or copy {cache_folder()} from a machine that has it; the bytes "
            "that were downloaded so far stay"
        ) from error


def _offline(hub_id: str, variable: str) -> str:
    return (
        f"{hub_id} is not whole in {cache_folder()}, and {variable} forbids requests to the hub; "
        "unset it, or copy the cache from a machine that has it"
    )


def _refusal(hub_id: str, error: HfHubHTTPError) -> str:
    status = error.response.status_code
    page = licence_page(hub_id)
    message = _first_line(error.server_message or str(error))
    if isinstance(error, GatedRepoError):
        if get_token() is None:
            return f"{hub_id} is gated: accept its licence on {page}, then log in: hf auth login"
        return (
            f"{hub_id} is gated, and this login may not read it ({message}): accept its "
            f"licence on {page}, or log in with another token: hf auth login"
        )
    if isinstance(error, RepositoryNotFoundError):
        return (
            f"the hub has no repository {hub_id}; check the spelling on {page}; "
            "if it is private, log in: hf auth login"
        )
    if isinstance(error, RevisionNotFoundError):
        return (
            f"{hub_id} has no such commit, branch or tag ({message}); if {LOCK} names it, "
            "its owner removed it: --update takes the newest commit"
        )
    if status == 401:
        return f"{hub_id}: the hub refuses the token ({message}); log in again: hf auth login"
    return f"{hub_id}: the hub answers {status} ({message}); try again later"


def _first_line(text: str) -> str:
    return next((line.strip().rstrip(".") for line in text.splitlines() if line.strip()), "")

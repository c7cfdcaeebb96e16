"""What the hub says of a repository, which of its files are needed, and what its refusals mean."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
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
from huggingface_hub.hf_api import ModelInfo, RepoSibling
from huggingface_hub.utils import httpx

from natadv import __version__
from natadv.errors import ModelError
from natadv.models.hub.local import LOCK, Locked, cache_folder, licence_page
from natadv.models.hub.needed import has_weights, needed

CONVERTER = "SFconvertbot"
"""The hub's own account that offers safetensors where a repository has pickles only."""

_TIMEOUT_S = 30.0
_COMMIT = re.compile(r"[0-9a-f]{40}")
_HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")


class RemoteFile(NamedTuple):
    """One file that is needed."""

    name: str
    size: int
    etag: str
    """Its name in the cache: sha256 of large files, git's id of small ones."""
    sha256: str | None
    """Known of large files."""


class Repository(NamedTuple):
    """One commit."""

    revision: str
    """40 hexadecimal digits."""
    files: tuple[RemoteFile, ...]
    branch: str = ""
    """Where the commit was found, if not on the main branch."""


def describe(
    hub_id: str, *, loader: str | None, revision: str | None = None, endpoint: str | None = None
) -> Repository:
    """The newest commit, or `revision` (a commit, branch or tag), with the files that are needed.

    Where the main branch has pickles only, it is the commit in which the hub offers safetensors.

    Raises:
        ModelError: The files would not make a model.
    """
    api = _api(endpoint)
    info = _info(api, hub_id, revision)
    branch = revision or ""
    if revision is None and not has_weights(_names(info), loader=loader):
        branch = _conversion(api, hub_id) or ""
        info = _info(api, hub_id, branch) if branch else info
    wanted = needed(_names(info), loader=loader, where=hub_id)
    return _repository(info, wanted, branch=branch)


def describe_locked(hub_id: str, locked: Locked, *, endpoint: str | None = None) -> Repository:
    """The commit and the files that models.lock names, whatever would be chosen today."""
    info = _info(_api(endpoint), hub_id, locked.revision)
    if gone := sorted(locked.files.keys() - set(_names(info))):
        raise ModelError(
            f"{hub_id} at {locked.revision[:12]}: {LOCK} names {gone[0]}, and the hub does not "
            "have it; --update takes the newest commit"
        )
    return _repository(info, tuple(locked.files))


@contextmanager
def explained(hub_id: str, *, endpoint: str | None = None) -> Iterator[None]:
    """Turns what the hub or the network refuse into a ModelError that says what to do."""
    if variable := next((name for name in _OFFLINE if _is_set(name)), None):
        raise ModelError(_offline(hub_id, variable))
    try:
        yield
    except OfflineModeIsEnabled as error:
        raise ModelError(_offline(hub_id, _OFFLINE[0])) from error
    except HfHubHTTPError as error:
        raise ModelError(_refusal(hub_id, error)) from error
    except (httpx.HTTPError, LocalEntryNotFoundError, TimeoutError) as error:
        where = endpoint or constants.ENDPOINT
        reason = str(error.__cause__ or error) or type(error).__name__
        raise ModelError(
            f"{hub_id}: cannot reach {where} ({_first_line(reason)}); check the network and "
            f"HTTPS_PROXY, or copy {cache_folder()} from a machine that has it; what has come "
            "so far is kept"
        ) from error


def _api(endpoint: str | None) -> HfApi:
    return HfApi(endpoint=endpoint, library_name="natadv", library_version=__version__)


def _info(api: HfApi, hub_id: str, revision: str | None) -> ModelInfo:
    try:
        return api.model_info(hub_id, revision=revision, files_metadata=True, timeout=_TIMEOUT_S)
    except HfHubHTTPError:
        # One of its kinds is a ValueError too.
        raise
    except (ValueError, KeyError, TypeError) as error:
        raise _not_the_hub(hub_id, repr(error)) from error


def _names(info: ModelInfo) -> tuple[str, ...]:
    return tuple(sibling.rfilename for sibling in info.siblings or ())


def _repository(info: ModelInfo, wanted: tuple[str, ...], *, branch: str = "") -> Repository:
    if info.sha is None or not _COMMIT.fullmatch(info.sha):
        raise _not_the_hub(info.id, f"{info.sha!r} as the commit")
    found = {sibling.rfilename: sibling for sibling in info.siblings or ()}
    files = tuple(_file(found[name], info.id) for name in wanted)
    return Repository(info.sha, files, "" if branch == info.sha else branch)


def _file(found: RepoSibling, hub_id: str) -> RemoteFile:
    # Of a file in LFS, the blob is a pointer of some hundred bytes.
    size = found.lfs.size if found.lfs else found.size
    etag = found.lfs.sha256 if found.lfs else found.blob_id
    if size is None or etag is None or not _HASH.fullmatch(etag):
        said = f"size {size!r} and hash {etag!r} of {found.rfilename}"
        raise _not_the_hub(hub_id, said)
    return RemoteFile(found.rfilename, size, etag, found.lfs.sha256 if found.lfs else None)


def _not_the_hub(hub_id: str, said: str) -> ModelError:
    return ModelError(
        f"{hub_id}: expected an answer as the hub's, got {_first_line(said)}; check HF_ENDPOINT, "
        "and whether a proxy asks for a login"
    )


def _conversion(api: HfApi, hub_id: str) -> str | None:
    offers = api.get_repo_discussions(
        hub_id, author=CONVERTER, discussion_type="pull_request", discussion_status="open"
    )
    try:
        # Filtered again, for a server may ignore a filter that it does not know.
        numbers = [it.num for it in offers if it.author == CONVERTER and it.is_pull_request]
    except HfHubHTTPError:
        # An owner can switch discussions off.
        return None
    return f"refs/pr/{max(numbers)}" if numbers else None


def _refusal(hub_id: str, error: HfHubHTTPError) -> str:
    status = error.response.status_code
    page = licence_page(hub_id)
    if isinstance(error, GatedRepoError):
        if get_token() is None:
            return f"{hub_id} is gated: accept its licence on {page}, then log in: hf auth login"
        return (
            f"{hub_id} is gated, and this login may not read it ({_said(error)}): accept its "
            f"licence on {page}, or log in with another token: hf auth login"
        )
    if isinstance(error, RepositoryNotFoundError):
        return (
            f"no repository {hub_id} on the hub; check the spelling on {page}; "
            "if it is private, log in: hf auth login"
        )
    if isinstance(error, RevisionNotFoundError):
        return (
            f"{hub_id} has no such commit, branch or tag ({_said(error)}); if {LOCK} names it, "
            "its owner removed it: --update takes the newest commit"
        )
    if status == 401:
        return f"{hub_id}: the hub refuses the token ({_said(error)}); log in again: hf auth login"
    return f"{hub_id}: the hub answers {status} ({_said(error)}); try again later"


def _offline(hub_id: str, variable: str) -> str:
    return (
        f"{hub_id} is not whole in {cache_folder()}, and {variable} forbids to ask the hub; "
        "unset it, or copy the cache from a machine that has it"
    )


def _said(error: HfHubHTTPError) -> str:
    return _first_line(error.server_message or str(error))


def _first_line(text: str) -> str:
    return next((line.strip().rstrip(".") for line in text.splitlines() if line.strip()), "")


def _is_set(name: str) -> bool:
    # As huggingface_hub reads it; that library looks only once, when it is imported.
    return os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE")

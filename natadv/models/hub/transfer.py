"""One file of the hub into the cache of its library, going on where an earlier attempt was cut.

The library starts a file over when its process was killed; weights are too large for that.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from huggingface_hub import get_token, hf_hub_download, hf_hub_url
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import (
    WeakFileLock,
    build_hf_headers,
    get_session,
    hf_raise_for_status,
    httpx,
)

from natadv import __version__
from natadv.errors import ModelError
from natadv.models.hub import local as hub
from natadv.models.hub.download_progress import DownloadProgress
from natadv.models.hub.remote import RemoteFile

WAITS_S = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Before each further attempt; counted anew whenever bytes have come."""

_TIMEOUT_S = 30.0
_PASSING = (429, 500, 502, 503, 504)


def bring(
    file: RemoteFile,
    hub_id: str,
    *,
    revision: str,
    cache: Path,
    progress: DownloadProgress,
    endpoint: str | None = None,
    waits_s: Sequence[float] = WAITS_S,
) -> Path:
    """The path of `file` in the snapshot of `revision`; bytes that are here are not asked for."""
    folder = hub.repository_folder(hub_id, cache=cache)
    blob = folder / "blobs" / file.etag
    guard = cache / ".locks" / folder.name / f"{file.etag}.lock"
    for parent in (blob.parent, guard.parent):
        parent.mkdir(parents=True, exist_ok=True)
    if (path := folder / "snapshots" / revision / file.name).exists():
        progress.found(file.size)
        return path
    with WeakFileLock(guard):
        if blob.exists():
            progress.found(file.size)
        else:
            url = hf_hub_url(hub_id, file.name, revision=revision, endpoint=endpoint)
            part = unfinished(blob)
            _download(url, part, file.size, progress=progress, waits_s=waits_s)
            part.replace(blob)
    # Finds the bytes under their hash, and links them into the snapshot.
    found = hf_hub_download(
        hub_id, file.name, revision=revision, cache_dir=cache, endpoint=endpoint
    )
    return Path(found)


def unfinished(blob: Path) -> Path:
    """Where the bytes of `blob` wait until they are whole."""
    return blob.with_name(f"{blob.name}.natadv.incomplete")


def discard(path: Path) -> None:
    """Remove a file of a snapshot, and the bytes it links to."""
    bytes_of = path.resolve()
    path.unlink(missing_ok=True)
    bytes_of.unlink(missing_ok=True)


def _download(
    url: str, part: Path, size: int, *, progress: DownloadProgress, waits_s: Sequence[float]
) -> None:
    with part.open("ab") as target:
        progress.found(target.tell())
        failures = 0
        while (had := target.tell()) < size:
            error = _attempt(url, target, progress)
            failures = 1 if target.tell() > had else failures + 1
            if target.tell() < size:
                if failures > len(waits_s):
                    raise error
                time.sleep(waits_s[failures - 1])
        whole = target.tell() == size
    if not whole:
        part.unlink()
        raise ModelError(f"{url}: expected {size} bytes, more came; try again later")


def _attempt(url: str, target: BinaryIO, progress: DownloadProgress) -> Exception:
    """Appends what comes; why it ended, if it ended early."""
    try:
        _receive(url, target, progress)
    except httpx.TransportError as error:
        return error
    except HfHubHTTPError as error:
        if error.response.status_code not in _PASSING:
            raise
        return error
    return httpx.RemoteProtocolError("the server ended the answer early")


def _receive(url: str, target: BinaryIO, progress: DownloadProgress) -> None:
    had = target.tell()
    headers = build_hf_headers(
        token=get_token(), library_name="natadv", library_version=__version__
    ) | {"Accept-Encoding": "identity"}
    if had:
        headers["Range"] = f"bytes={had}-"
    with get_session().stream("GET", url, headers=headers, timeout=_TIMEOUT_S) as answer:
        hf_raise_for_status(answer)
        if had and answer.status_code != 206:
            progress.found(-had)
            target.truncate(0)
            target.seek(0)
        # As the pieces come: a fixed size would hold some back, to be lost with the connection.
        for chunk in answer.iter_bytes():
            target.write(chunk)
            target.flush()
            progress.received(len(chunk))

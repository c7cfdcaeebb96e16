"""One file of the hub into the cache of its library, resumed where an earlier attempt was cut.

The library (huggingface_hub 2.4) resumes only within one call: it deletes the partial file when the
call fails, and after a kill it starts from the first byte. Weights are too large for that.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, TextIO, final

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
from natadv.models.hub import local
from natadv.models.hub.remote import RemoteFile
from natadv.storage.progress import StatusLine, amount, duration

WAITS_S = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Before each further attempt; the count starts again whenever bytes have arrived."""

_TIMEOUT_S = 30.0
_TRANSIENT = (429, 500, 502, 503, 504)
_SPEED_AFTER_S = 1.0
_BAR = 20


@final
class DownloadProgress:
    """Counts the bytes of one repository and shows them on `stream`."""

    def __init__(self, name: str, total: int, *, stream: TextIO) -> None:
        self._name = name
        self._total = total
        every_s = 0.2 if stream.isatty() else 10.0
        self._status = StatusLine(stream, first_s=every_s, every_s=every_s, busy=name)
        self._present = 0
        self._began = time.monotonic()
        self.downloaded = 0
        """Bytes that were downloaded."""

    def add_present(self, count: int) -> None:
        """Count bytes that were in the cache before; a negative count takes back a damaged file."""
        self._present += count

    def add_downloaded(self, count: int) -> None:
        """Count downloaded bytes."""
        if not self.downloaded:
            self._began = time.monotonic()
        self.downloaded += count
        line = self.line(elapsed_s=time.monotonic() - self._began)
        self._status.go_on(line)
        if self._status.is_due:
            self._status.show(line)

    def end(self) -> None:
        """Clear the line, so that the result can be printed."""
        self._status.clear()

    def line(self, *, elapsed_s: float) -> str:
        """The bar, the amounts, and after a second the speed and the time left."""
        done = self._present + self.downloaded
        share = done / self._total if self._total else 1.0
        bar = "#" * int(_BAR * share)
        # In the first second, the time to connect would distort the speed.
        settled = elapsed_s >= _SPEED_AFTER_S
        speed = ""
        if settled:
            per_s = self.downloaded / elapsed_s
            left = duration((self._total - done) / per_s) if per_s else "?"
            speed = f"  {amount(int(per_s))}/s  ETA {left}"
        amounts = f"{amount(done)} of {amount(self._total)}"
        return f"{self._name}  [{bar:<{_BAR}}] {share:4.0%}  {amounts}{speed}"


def download(
    file: RemoteFile,
    hub_id: str,
    *,
    revision: str,
    cache: Path,
    progress: DownloadProgress,
    endpoint: str | None = None,
    waits_s: Sequence[float] = WAITS_S,
) -> Path:
    """The path of `file` in the snapshot of `revision`; only missing bytes are requested.

    Raises ModelError, HfHubHTTPError, httpx.TransportError or OSError.
    """
    folder = local.repository_folder(hub_id, cache=cache)
    blob = folder / "blobs" / file.etag
    guard = cache / ".locks" / folder.name / f"{file.etag}.lock"
    for parent in (blob.parent, guard.parent):
        parent.mkdir(parents=True, exist_ok=True)
    if (path := folder / "snapshots" / revision / file.name).exists():
        progress.add_present(file.size)
        return path
    with WeakFileLock(guard):
        if blob.exists():
            progress.add_present(file.size)
        else:
            url = hf_hub_url(hub_id, file.name, revision=revision, endpoint=endpoint)
            part = unfinished(blob)
            _download(url, part, file.size, progress=progress, waits_s=waits_s)
            part.replace(blob)
    # The library finds the bytes by their hash, and links them into the snapshot.
    linked = hf_hub_download(
        hub_id, file.name, revision=revision, cache_dir=cache, endpoint=endpoint
    )
    return Path(linked)


def unfinished(blob: Path) -> Path:
    """The file that collects the bytes of `blob` until it is complete."""
    return blob.with_name(f"{blob.name}.natadv.incomplete")


def discard(path: Path) -> None:
    """Remove a file of a snapshot, and the bytes that it links to."""
    blob = path.resolve()
    path.unlink(missing_ok=True)
    blob.unlink(missing_ok=True)


def _download(
    url: str, part: Path, size: int, *, progress: DownloadProgress, waits_s: Sequence[float]
) -> None:
    with part.open("ab") as target:
        progress.add_present(target.tell())
        failures = 0
        while (before := target.tell()) < size:
            error = _attempt(url, target, progress)
            failures = 1 if target.tell() > before else failures + 1
            if target.tell() < size:
                if failures > len(waits_s):
                    raise error
                time.sleep(waits_s[failures - 1])
        whole = target.tell() == size
    if not whole:
        part.unlink()
        raise ModelError(f"{url}: expected {size} bytes, got more; try again later")


def _attempt(url: str, target: BinaryIO, progress: DownloadProgress) -> Exception:
    """Append the bytes that arrive, and return the error that would explain an early end."""
    start = target.tell()
    headers = {
        **build_hf_headers(token=get_token(), library_name="natadv", library_version=__version__),
        "Accept-Encoding": "identity",
        **({"Range": f"bytes={start}-"} if start else {}),
    }
    try:
        with get_session().stream("GET", url, headers=headers, timeout=_TIMEOUT_S) as answer:
            hf_raise_for_status(answer)
            if start and answer.status_code != 206:
                progress.add_present(-start)
                target.truncate(0)
                target.seek(0)
            # In pieces of any size: a fixed size would hold bytes back, and lose them with the
            # connection.
            for chunk in answer.iter_bytes():
                target.write(chunk)
                target.flush()
                progress.add_downloaded(len(chunk))
    except httpx.TransportError as error:
        return error
    except HfHubHTTPError as error:
        if error.response.status_code not in _TRANSIENT:
            raise
        return error
    return httpx.RemoteProtocolError("the server ended the answer early")

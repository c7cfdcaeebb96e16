"""The cache of embeddings, which scenarios, tasks and later runs share."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np

from natadv.errors import StoreError
from natadv.evaluate.units import Numerics, digest
from natadv.types import FloatArray

T = TypeVar("T")

SELECT_AT_ONCE = 500

_SYSTEM = (
    *("SQLITE_BUSY", "SQLITE_CANTOPEN", "SQLITE_FULL", "SQLITE_INTERRUPT", "SQLITE_IOERR"),
    *("SQLITE_LOCKED", "SQLITE_NOMEM", "SQLITE_PERM", "SQLITE_READONLY"),
)
"""SQLite's names of errors of the system; all its other errors concern the content of the file."""


def space(weights: str, numerics: Numerics) -> str:
    """The name of a set of comparable embeddings: equal weights, preprocessing and arithmetic."""
    return digest({"weights": weights, **numerics.key_facts()})


def key_of(content: bytes) -> str:
    """The key of an embedding: sha256 of what was embedded."""
    return hashlib.sha256(content).hexdigest()


class EmbeddingCache:
    """One SQLite file per space; SQLite provides the locks and the atomic writes.

    Each embedding is stored beside its checksum. If one does not match, the whole file is deleted,
    as other pages may be damaged too.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.path = folder / f"{name}.sqlite"

    def get(self, keys: Iterable[str]) -> dict[str, FloatArray]:
        """The embeddings that the cache holds, by key."""
        wanted = list(dict.fromkeys(keys))
        return self._healed(partial(self._select, wanted), verb="read")

    def put(self, vectors: Mapping[str, FloatArray]) -> None:
        """Add embeddings; the first writer of a key wins, so that rows never change."""
        blobs = {key: np.ascontiguousarray(v, np.float32).tobytes() for key, v in vectors.items()}
        rows = [(key, blob, _checksum(key, blob)) for key, blob in blobs.items()]
        self._healed(partial(self._insert, rows), verb="write")

    def _select(self, wanted: Sequence[str]) -> dict[str, FloatArray]:
        with self._connected() as connection:
            return _rows(connection, wanted)

    def _insert(self, rows: Sequence[tuple[str, bytes, bytes]]) -> None:
        with self._connected() as connection:
            connection.executemany("INSERT OR IGNORE INTO embedding VALUES (?, ?, ?)", rows)

    def _healed(self, work: Callable[[], T], *, verb: str) -> T:
        """The result of `work`, repeated with a new file if the old one is damaged."""
        try:
            try:
                return work()
            except sqlite3.Error as error:
                if getattr(error, "sqlite_errorname", "").startswith(_SYSTEM):
                    raise
                self._give_up()
                return work()
        except (sqlite3.Error, OSError) as error:
            raise StoreError(
                f"cannot {verb} the embedding cache {self.path}: {error}; "
                "free space, or delete the file: it is only a cache"
            ) from error

    def _give_up(self) -> None:
        # The journal belongs to the old file; SQLite would replay it into the new one.
        for path in (self.path, self.path.with_name(f"{self.path.name}-journal")):
            path.unlink(missing_ok=True)

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        """One transaction."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(self.path, timeout=60)) as connection, connection:
            # A power cut may cost the file, which is made anew; waiting costs each unit.
            connection.execute("PRAGMA synchronous = OFF")
            connection.text_factory = partial(str, encoding="utf-8", errors="replace")
            connection.execute(
                "CREATE TABLE IF NOT EXISTS embedding "
                "(key TEXT PRIMARY KEY, vector BLOB NOT NULL, checksum BLOB NOT NULL)"
            )
            yield connection


def _rows(connection: sqlite3.Connection, wanted: Sequence[str]) -> dict[str, FloatArray]:
    """Raises sqlite3.DatabaseError if an embedding does not match its checksum."""
    found: dict[str, FloatArray] = {}
    for a in range(0, len(wanted), SELECT_AT_ONCE):
        part = set(wanted[a : a + SELECT_AT_ONCE])
        # As bytes: the columns of a damaged row may have any type.
        query = (
            "SELECT key, CAST(vector AS BLOB), CAST(checksum AS BLOB) FROM embedding "
            f"WHERE key IN ({','.join('?' * len(part))})"
        )
        for key, blob, checksum in connection.execute(query, sorted(part)):
            if key not in part or blob is None or checksum != _checksum(key, blob):
                raise sqlite3.DatabaseError(f"the embedding {key} does not match its checksum")
            found[key] = np.frombuffer(blob, dtype=np.float32)
    return found


def _checksum(key: str, blob: bytes) -> bytes:
    return hashlib.sha256(f"{key}\n".encode() + blob).digest()

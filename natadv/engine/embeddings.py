"""Embed once: vectors by what was embedded, shared by prompts, scenarios, tasks and later runs."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path

import numpy as np

from natadv.engine.units import Numerics, digest
from natadv.errors import StoreError
from natadv.types import FloatArray

SELECT_AT_ONCE = 500


def space(weights: str, numerics: Numerics) -> str:
    """Names the vectors that may be mixed: same weights, preprocessing and arithmetic."""
    return digest(
        {
            "weights": weights,
            "device": numerics.device,
            "dtype": numerics.dtype,
            "batch_size": numerics.batch_size,
            "threads": numerics.threads,
            "packages": dict(numerics.packages),
        }
    )


def key_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class EmbeddingCache:
    """One SQLite file per space; it brings the locking and the atomic writes."""

    def __init__(self, folder: Path, name: str) -> None:
        self.path = folder / f"{name}.sqlite"

    def get(self, keys: Iterable[str]) -> dict[str, FloatArray]:
        """The vectors that are there."""
        wanted = list(dict.fromkeys(keys))
        found: dict[str, FloatArray] = {}
        try:
            with closing(self._open()) as connection:
                for a in range(0, len(wanted), SELECT_AT_ONCE):
                    part = wanted[a : a + SELECT_AT_ONCE]
                    marks = ",".join("?" * len(part))
                    query = f"SELECT key, vector FROM embedding WHERE key IN ({marks})"
                    for key, blob in connection.execute(query, part):
                        found[key] = np.frombuffer(blob, dtype=np.float32)
        except sqlite3.Error as error:
            raise self._failed("read", error) from error
        return found

    def put(self, vectors: Mapping[str, FloatArray]) -> None:
        """Add vectors; the first of two writers of one key wins, so that rows never change."""
        rows = [(key, np.ascontiguousarray(v, np.float32).tobytes()) for key, v in vectors.items()]
        try:
            with closing(self._open()) as connection, connection:
                connection.executemany("INSERT OR IGNORE INTO embedding VALUES (?, ?)", rows)
        except sqlite3.Error as error:
            raise self._failed("write", error) from error

    def _open(self) -> sqlite3.Connection:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(self.path, timeout=60)
        connection.execute(
            "CREATE TABLE IF NOT EXISTS embedding (key TEXT PRIMARY KEY, vector BLOB NOT NULL)"
        )
        return connection

    def _failed(self, verb: str, error: sqlite3.Error) -> StoreError:
        return StoreError(
            f"cannot {verb} the embedding cache {self.path}: {error}; "
            "free space, or delete the file: it is only a cache"
        )

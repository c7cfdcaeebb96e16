"""Embed once: vectors by what was embedded, shared by prompts, scenarios, tasks and later runs."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np

from natadv.engine.units import UNIT_VERSION, Numerics, digest
from natadv.errors import StoreError
from natadv.types import FloatArray

SELECT_AT_ONCE = 500


def space(weights: str, numerics: Numerics) -> str:
    """Names the vectors that may be mixed: same weights, preprocessing and arithmetic."""
    return digest(
        {
            "version": UNIT_VERSION,
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
        with self._connected("read") as connection:
            for a in range(0, len(wanted), SELECT_AT_ONCE):
                part = wanted[a : a + SELECT_AT_ONCE]
                marks = ",".join("?" * len(part))
                query = f"SELECT key, vector FROM embedding WHERE key IN ({marks})"
                for key, blob in connection.execute(query, part):
                    found[key] = np.frombuffer(blob, dtype=np.float32)
        return found

    def put(self, vectors: Mapping[str, FloatArray]) -> None:
        """Add vectors; the first of two writers of one key wins, so that rows never change."""
        rows = [(key, np.ascontiguousarray(v, np.float32).tobytes()) for key, v in vectors.items()]
        with self._connected("write") as connection:
            connection.executemany("INSERT OR IGNORE INTO embedding VALUES (?, ?)", rows)

    @contextmanager
    def _connected(self, verb: str) -> Iterator[sqlite3.Connection]:
        """One transaction."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self.path, timeout=60)) as connection, connection:
                connection.execute(
                    "CREATE TABLE IF NOT EXISTS embedding "
                    "(key TEXT PRIMARY KEY, vector BLOB NOT NULL)"
                )
                yield connection
        except (sqlite3.Error, OSError) as error:
            raise StoreError(
                f"cannot {verb} the embedding cache {self.path}: {error}; "
                "free space, or delete the file: it is only a cache"
            ) from error

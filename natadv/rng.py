"""Random numbers by key: equal keys give equal numbers on any worker, in any order."""

from __future__ import annotations

import hashlib

import numpy as np


def rng_for(*key: object) -> np.random.Generator:
    """A generator that depends only on `key`, such as (seed, recipe, sample id)."""
    digest = hashlib.sha256(repr(key).encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "big")))

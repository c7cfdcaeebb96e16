"""How many mutants each fuzz test sees: a share of them in `make test`, all in `make fuzz`."""

from __future__ import annotations

import os

import numpy as np
import pytest

from natadv.rng import rng_for

SHARE, ALL = 100, 700
VARIABLE = "NATADV_FUZZ"
"""`all` for all of them."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "number" in metafunc.fixturenames:
        # A module may say otherwise.
        share, every = (getattr(metafunc.module, n, globals()[n]) for n in ("SHARE", "ALL"))
        count = every if os.environ.get(VARIABLE) == "all" else share
        metafunc.parametrize("number", range(count))


@pytest.fixture
def chance(number: int, request: pytest.FixtureRequest) -> np.random.Generator:
    """Decides how the mutant of this number is made: the same in every run."""
    return rng_for("fuzz", request.function.__name__, number)

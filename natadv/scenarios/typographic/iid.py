"""A backend of Hypothesis that draws independently and uniformly, from a seed alone.

Hypothesis is made to find failures: it begins with what is simple, repeats values, and mixes in
constants of whatever local modules are imported. What it draws is no sample that a rate can be
estimated from, and changes with unrelated code. This backend only answers what a strategy asks;
shrinking stays that of Hypothesis.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from random import Random
from typing import Any, TypeVar

import hypothesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import FlakyBackendFailure
from hypothesis.strategies import SearchStrategy

from natadv.errors import ConfigError

Value = TypeVar("Value")

_DRAWS = ("boolean", "bytes", "float", "integer", "string")
_LONGEST = 32
"""Characters more than the least, of strings without an end."""


def _changed(what: str) -> ConfigError:
    return ConfigError(
        f"hypothesis {hypothesis.__version__} {what}, so that nothing can be drawn independently; "
        "natadv was written for hypothesis 6.150 to 6.170: install one of these"
    )


# The place that the documentation of Hypothesis names for backends, which may still change.
try:
    from hypothesis.internal.conjecture.providers import AVAILABLE_PROVIDERS, PrimitiveProvider
except ImportError as _error:
    raise _changed("has no place for backends where it had one") from _error

if PrimitiveProvider.__abstractmethods__ != {f"draw_{kind}" for kind in _DRAWS}:
    raise _changed("asks backends for other draws than before")

_drawing: ContextVar[bool] = ContextVar("drawing", default=False)


class IidProvider(PrimitiveProvider):
    """Example number i is a function of (seed, i): a longer run begins as a shorter one."""

    seed = 0

    def __init__(self, conjecturedata: Any, /) -> None:
        super().__init__(conjecturedata)
        self._examples = 0
        self._random = Random(0)

    def per_test_case_context_manager(self) -> AbstractContextManager[None]:
        return self._example()

    @contextmanager
    def _example(self) -> Iterator[None]:
        key = f"{self.seed}/{self._examples}".encode()
        # Of an integer, for how Python makes a seed of anything else is its own affair.
        self._random = Random(int.from_bytes(hashlib.sha256(key).digest(), "big"))
        self._examples += 1
        token = _drawing.set(True)
        try:
            yield
        finally:
            _drawing.reset(token)

    def draw_boolean(self, p: float = 0.5) -> bool:
        return self._random.random() < p

    def draw_integer(
        self,
        min_value: int | None = None,
        max_value: int | None = None,
        *,
        weights: dict[int, float] | None = None,
        shrink_towards: int = 0,
    ) -> int:
        # The weights are there to favour the bounds.
        if min_value is None or max_value is None:
            raise _endless("integers")
        return min_value + self._below(max_value - min_value + 1)

    def draw_float(
        self,
        *,
        min_value: float = -math.inf,
        max_value: float = math.inf,
        allow_nan: bool = True,
        smallest_nonzero_magnitude: float,
    ) -> float:
        if not (math.isfinite(min_value) and math.isfinite(max_value)):
            raise _endless("floats")
        found = min_value + (max_value - min_value) * self._random.random()
        found = min(max(found, min_value), max_value)
        return 0.0 if abs(found) < smallest_nonzero_magnitude else found

    def draw_string(self, intervals: Any, *, min_size: int = 0, max_size: int = 10**10) -> str:
        size = self._size(min_size, max_size)
        return "".join(chr(intervals[self._below(len(intervals))]) for _ in range(size))

    def draw_bytes(self, min_size: int = 0, max_size: int = 10**10) -> bytes:
        size = self._size(min_size, max_size)
        return bytes(self._below(256) for _ in range(size))

    def _size(self, least: int, most: int) -> int:
        return least + self._below(min(most, least + _LONGEST) - least + 1)

    def _below(self, count: int) -> int:
        """0 to `count` - 1, by rejection: no remainder makes some more likely."""
        bits = (count - 1).bit_length()
        while (found := self._random.getrandbits(bits)) >= count:
            pass
        return found


def backend(seed: int) -> str:
    """The name, for `settings(backend=...)`, of the backend that draws from this seed."""
    name = f"natadv-iid-{seed}"
    if name not in AVAILABLE_PROVIDERS:
        AVAILABLE_PROVIDERS[name] = type("IidProvider", (IidProvider,), {"seed": seed})
    return name


def draw_iid(strategy: SearchStrategy[Value], *, count: int, seed: int) -> list[Value]:
    """So many independent draws; those of a smaller count are the first of a larger one.

    Raises:
        ConfigError: Hypothesis no longer works as this needs, or the strategy has no bounds.
    """
    found: list[Value] = []

    @settings(
        backend=backend(seed),
        # One more: Hypothesis begins with the simplest value, which is nobody's draw.
        max_examples=count + 1,
        phases=[Phase.generate],
        database=None,
        deadline=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def keep(value: Value) -> None:
        if _drawing.get():
            found.append(value)

    try:
        if count > 0:
            keep()
    except FlakyBackendFailure as error:
        # The backend's own refusal, which Hypothesis cannot repeat without it.
        refusals = [one for one in error.exceptions if isinstance(one, ConfigError)]
        raise (refusals[0] if refusals else error) from None
    if len(found) < count:
        raise _changed(f"made {len(found)} draws of {count}")
    return found[:count]


def _endless(what: str) -> ConfigError:
    return ConfigError(
        f"{what} without bounds have no uniform distribution; give the strategy both bounds"
    )

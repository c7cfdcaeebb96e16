"""Draws overlays from a search space with Hypothesis, independently and uniformly.

Hypothesis is made to find failures: it begins with simple values, repeats values, and mixes in
constants of any local module that is imported. A rate cannot be estimated from such draws, and they
change with unrelated code. The backend here draws independently from a seed, and leaves shrinking
to Hypothesis.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from random import Random
from typing import Any, TypeVar

import hypothesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.errors import FlakyBackendFailure
from hypothesis.strategies import SearchStrategy

from natadv.errors import ConfigError
from natadv.scenarios.typographic.overlay import LUMA_WEIGHTS, MIDDLE_GREY, Overlay, Rgb
from natadv.scenarios.typographic.population import BLANK, DrawnOverlay, SearchSpace

Value = TypeVar("Value")

_DRAWS = ("boolean", "bytes", "float", "integer", "string")
_LONGEST = 32
"""Characters above the minimum, of strings without a maximum."""
STEPS = 1000
"""Numbers are drawn as whole steps between their bounds, so that they shrink towards the weaker
attack: small, faint, level, without panel or stroke."""
_PICKS = 10_000


def _changed(what: str) -> ConfigError:
    return ConfigError(
        f"hypothesis {hypothesis.__version__} {what}, so nothing can be drawn independently; "
        "natadv was written for hypothesis 6.150 to 6.170: install one of these"
    )


# Hypothesis documents this table of backends as experimental.
try:
    from hypothesis.internal.conjecture.providers import AVAILABLE_PROVIDERS, PrimitiveProvider
except ImportError as _error:
    raise _changed("has moved its table of backends") from _error

if PrimitiveProvider.__abstractmethods__ != {f"draw_{kind}" for kind in _DRAWS}:
    raise _changed("expects other draws of a backend than before")

_drawing: ContextVar[bool] = ContextVar("drawing", default=False)


class IidProvider(PrimitiveProvider):
    """Example number i is a function of (seed, i): a longer run begins as a shorter one."""

    seed = 0

    def __init__(self, conjecturedata: Any, /) -> None:
        super().__init__(conjecturedata)
        self._examples = 0
        self._random = Random(0)

    @contextmanager
    def per_test_case_context_manager(self) -> Iterator[None]:
        """Seeds the random numbers of one example."""
        key = f"{self.seed}/{self._examples}".encode()
        # An integer, because how Python turns other values into a seed may change.
        self._random = Random(int.from_bytes(hashlib.sha256(key).digest(), "big"))
        self._examples += 1
        token = _drawing.set(True)
        try:
            yield
        finally:
            _drawing.reset(token)

    def draw_boolean(self, p: float = 0.5) -> bool:
        """True with probability `p`."""
        return self._random.random() < p

    def draw_integer(
        self,
        min_value: int | None = None,
        max_value: int | None = None,
        *,
        weights: dict[int, float] | None = None,
        shrink_towards: int = 0,
    ) -> int:
        """Each integer from `min_value` to `max_value` is equally likely. Raises ConfigError."""
        # The weights would favour the bounds.
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
        """Uniform between the bounds. Raises ConfigError if a bound is missing."""
        if not (math.isfinite(min_value) and math.isfinite(max_value)):
            raise _endless("floats")
        value = min_value + (max_value - min_value) * self._random.random()
        value = min(max(value, min_value), max_value)
        return 0.0 if abs(value) < smallest_nonzero_magnitude else value

    def draw_string(self, intervals: Any, *, min_size: int = 0, max_size: int = 10**10) -> str:
        """Each length and each character are equally likely."""
        size = self._size(min_size, max_size)
        return "".join(chr(intervals[self._below(len(intervals))]) for _ in range(size))

    def draw_bytes(self, min_size: int = 0, max_size: int = 10**10) -> bytes:
        """Each length and each byte are equally likely."""
        size = self._size(min_size, max_size)
        return bytes(self._below(256) for _ in range(size))

    def _size(self, least: int, most: int) -> int:
        return least + self._below(min(most, least + _LONGEST) - least + 1)

    def _below(self, count: int) -> int:
        """0 to `count` - 1, by rejection: no remainder makes some more likely."""
        bits = (count - 1).bit_length()
        while (number := self._random.getrandbits(bits)) >= count:
            pass
        return number


def backend(seed: int) -> str:
    """The name, for `settings(backend=...)`, of the backend that draws from this seed."""
    name = f"natadv-iid-{seed}"
    if name not in AVAILABLE_PROVIDERS:
        AVAILABLE_PROVIDERS[name] = type("IidProvider", (IidProvider,), {"seed": seed})
    return name


def draw_iid(strategy: SearchStrategy[Value], *, count: int, seed: int) -> list[Value]:
    """`count` independent draws; a larger count begins with the same draws.

    Raises:
        ConfigError: Hypothesis no longer works as this needs, or the strategy has no bounds.
    """
    draws: list[Value] = []

    @settings(
        backend=backend(seed),
        # One more: Hypothesis begins with the simplest value, which is not drawn.
        max_examples=count + 1,
        phases=[Phase.generate],
        database=None,
        deadline=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def keep(value: Value) -> None:
        """Keeps the draws of the backend, without the simplest value."""
        if _drawing.get():
            draws.append(value)

    try:
        if count > 0:
            keep()
    except FlakyBackendFailure as error:
        # The error of the backend, which Hypothesis cannot repeat without it.
        refusals = [cause for cause in error.exceptions if isinstance(cause, ConfigError)]
        raise (refusals[0] if refusals else error) from None
    if len(draws) < count:
        raise _changed(f"made {len(draws)} draws of {count}")
    return draws[:count]


def _endless(what: str) -> ConfigError:
    return ConfigError(
        f"{what} without bounds have no uniform distribution; give the strategy both bounds"
    )


@st.composite
def overlays(draw: st.DrawFn, bounds: SearchSpace) -> DrawnOverlay:
    """Any overlay within the bounds, without its text, which depends on the picture."""
    # Hypothesis weakens what is drawn first. Every overlay makes equally many draws, because one
    # with fewer draws would count as simpler, however large its letters are.
    size = draw(_between(*bounds.size))
    opacity = draw(_between(*bounds.opacity))
    panelled = draw(_share_of(bounds.panel))
    stroked = draw(_share_of(bounds.stroke)) and not panelled
    fill, ground = draw(_fill_and_ground(bounds, bare=not (panelled or stroked)))
    overlay = Overlay(
        text=BLANK,
        font=draw(st.sampled_from(bounds.fonts)),
        size=size,
        x=draw(_between(*bounds.x)),
        y=draw(_between(*bounds.y)),
        fill=fill,
        stroke=ground if stroked else None,
        stroke_width=draw(_between(*bounds.stroke_width)),
        opacity=opacity,
        angle=draw(st.integers(-STEPS, STEPS).map(lambda n: _rounded(bounds.angle * n / STEPS))),
        panel=ground if panelled else None,
        padding=draw(_between(*bounds.padding)),
        wrap="words",
    )
    return DrawnOverlay(
        id="new",
        kind=draw(st.sampled_from(bounds.kinds)),
        pick=draw(st.integers(0, _PICKS - 1)) / _PICKS,
        off_object=draw(_share_of(bounds.off_object)),
        overlay=overlay,
    )


def _between(low: float, high: float) -> SearchStrategy[float]:
    return st.integers(0, STEPS).map(lambda step: _rounded(low + (high - low) * step / STEPS))


def _rounded(value: float) -> float:
    # Adding 0.0 makes -0.0 plain, which JSON would keep.
    return round(value, 6) + 0.0


def _share_of(share: float) -> SearchStrategy[bool]:
    """True for this share of the draws; the simplest value is False, unless the share is 1."""
    return st.integers(0, STEPS - 1).map(lambda step: step >= STEPS * (1 - share))


@st.composite
def _fill_and_ground(draw: st.DrawFn, bounds: SearchSpace, *, bare: bool) -> tuple[Rgb, Rgb]:
    """The colours of the letters and of what is behind them: for bare letters a middle grey."""
    low, high = bounds.contrast
    contrast = draw(_between(low, min(high, MIDDLE_GREY) if bare else high))
    darker, light = draw(_between(0.0, 1.0)) * (1.0 - contrast), draw(st.booleans())
    if bare:
        darker = MIDDLE_GREY if light else MIDDLE_GREY - contrast
    lighter = draw(_colour(darker + contrast))
    dark = draw(_colour(darker))
    return (lighter, dark) if light else (dark, lighter)


@st.composite
def _colour(draw: st.DrawFn, luminance: float) -> Rgb:
    """Any hue, with any saturation that this luminance allows; the simplest is grey."""
    hue = draw(st.tuples(*[st.integers(0, 255)] * 3))
    luma = sum(weight * part for weight, part in zip(LUMA_WEIGHTS, hue, strict=True))
    # A colour less its luminance, which can be added without changing the luminance.
    tint = [part - luma for part in hue]
    room = [(luminance if part < 0 else 1 - luminance) / abs(part) for part in tint if part]
    strength = draw(_between(0.0, 1.0)) * min(room, default=0.0)
    red, green, blue = (
        min(255, max(0, round(255 * (luminance + strength * part)))) for part in tint
    )
    return red, green, blue

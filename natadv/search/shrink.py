"""The smallest overlay that still works, found by shrinking one that works.

Hypothesis weakens an overlay value by value, in the order in which the values are drawn: first the
letters become as small as possible, then as faint as possible, then they lose their panel, and so
on. Each overlay is evaluated once, so that an unstable model cannot make a search flaky, and the
number of evaluations is bounded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import Any, NamedTuple, Protocol

import hypothesis
from hypothesis import HealthCheck, Phase, Verbosity, given, seed, settings, target
from hypothesis.internal.conjecture import engine, providers

from natadv.errors import ConfigError
from natadv.scenarios.typographic.population import DrawnOverlay, overlay_id
from natadv.scenarios.typographic.sampling import backend, draw_iid, overlays
from natadv.search.result import ShrinkCounts
from natadv.search.spec import SearchSpec, population_digest

NEW = "new"
"""The id of every overlay that does not belong to a population."""

SHRINK_SEED = int(
    "e63f4f35061d3cc2d944f3bcd90b837cd56c1053bd1786e577888c9666cf0eeb"
    "cd4e0fae7053e4540ef1f97586898a22",
    base=16,
)
"""The seed of the draws that Hypothesis makes while it shrinks; any number would do. By default it
is a hash of the source of the function that it runs, so renaming a variable would change the
result."""


class FlipRates(Protocol):
    """For each overlay the share of the samples that it flips, 0 to 1; many overlays in one call
    are cheaper. A rate below `least` may be inexact, but it must be below `least`."""

    def __call__(self, drawn: Sequence[DrawnOverlay], /, *, least: float) -> Sequence[float]: ...


class Smallest(NamedTuple):
    """The smallest overlay that works, and how many were evaluated to find it."""

    overlay: DrawnOverlay | None
    """None if no overlay that was drawn works."""
    counts: ShrinkCounts


def population_of(spec: SearchSpec) -> list[DrawnOverlay]:
    """The overlays that a search starts from if it does not discover them."""
    return draw_iid(overlays(spec.bounds), count=spec.draws, seed=spec.seed)


def check_population(spec: SearchSpec) -> None:
    """Raises ConfigError if the population can no longer be drawn as it was frozen."""
    if spec.discover:
        return
    named = [
        replace(drawn, id=overlay_id(number)) for number, drawn in enumerate(population_of(spec))
    ]
    if population_digest(named) != spec.population:
        raise ConfigError(
            "the population of this search was drawn by another version of natadv or Hypothesis; "
            "draw it again with natadv overlays draw --force"
        )


def find_smallest(spec: SearchSpec, flip_rates: FlipRates) -> Smallest:
    """The result depends only on the spec and on what `flip_rates` returns.

    Raises:
        ConfigError: Hypothesis no longer works as this needs.
        Exception: Any error of `flip_rates`.
    """
    memo = _Memo(flip_rates, spec.at_least)
    try:
        return _discover(spec, memo) if spec.discover else _shrink_population(spec, memo)
    except _BrokenError as broken:
        raise broken.error from None


@dataclass(slots=True)
class _Memo:
    """The flip rate of every overlay that was evaluated."""

    flip_rates: FlipRates
    at_least: float
    budget: int | None = None
    """Overlays that may be evaluated from now on; None for any number."""
    known: dict[DrawnOverlay, float] = field(default_factory=dict)
    spent: int = 0

    def evaluate(self, drawn: Sequence[DrawnOverlay]) -> None:
        """Measure, in one call, the overlays whose rate is not known."""
        fresh = [each for each in dict.fromkeys(map(_unnamed, drawn)) if each not in self.known]
        # While an attack is made smaller, it matters only whether an overlay works.
        least = 0.0 if self.budget is None else self.at_least
        try:
            rates = self.flip_rates(fresh, least=least)
        except Exception as error:
            raise _BrokenError(error) from error
        self.known |= dict(zip(fresh, rates, strict=True))

    def flip_rate(self, drawn: DrawnOverlay) -> float:
        """Raises _SpentError if the overlay is not known and the budget is spent."""
        drawn = _unnamed(drawn)
        if drawn not in self.known:
            if self.budget is not None and self.spent >= self.budget:
                raise _SpentError
            self.spent += self.budget is not None
            self.evaluate([drawn])
        return self.known[drawn]

    def works(self, drawn: DrawnOverlay) -> bool:
        """Whether it flips enough samples. Raises as `flip_rate`."""
        return self.flip_rate(drawn) >= self.at_least


class _WorksError(Exception):
    """The failure that Hypothesis makes smaller: an overlay that works."""


# Not an Exception: Hypothesis would treat it as another failure and continue.
class _SpentError(BaseException):
    """Ends a search; the overlay that worked last is the smallest one."""


# Not an Exception either: Hypothesis would shrink it, or prefer an overlay that works.
class _BrokenError(BaseException):
    """Carries an error of `flip_rates` through Hypothesis."""

    def __init__(self, error: Exception) -> None:
        self.error = error


def _shrink_population(spec: SearchSpec, memo: _Memo) -> Smallest:
    drawn = population_of(spec)
    memo.evaluate(drawn)
    working = [each for each in drawn if memo.works(each)]
    smallest = None
    if working:
        # From the smallest letters, because that is the shortest way.
        start = min(working, key=lambda each: (each.overlay.size, each.overlay.opacity))
        smallest = _shrink(spec, memo, start) if spec.evaluations else start
    strongest = max(map(memo.flip_rate, drawn))
    counts = ShrinkCounts(
        drawn=len(drawn), working=len(working), strongest=strongest, evaluations=memo.spent
    )
    return Smallest(smallest, counts)


def _shrink(spec: SearchSpec, memo: _Memo, start: DrawnOverlay) -> DrawnOverlay:
    """Hypothesis draws the population again up to `start`, and shrinks that overlay."""
    # Hypothesis tries only smaller ones, and ends by repeating the smallest.
    working: list[DrawnOverlay] = []

    @seed(SHRINK_SEED)
    @settings(
        _QUIET,
        backend=backend(spec.seed),
        max_examples=spec.draws + 1,
        phases=[Phase.generate, Phase.shrink],
    )
    @given(overlays(spec.bounds))
    def attempt(drawn: DrawnOverlay) -> None:
        """Fails on an overlay that works, from `start` on."""
        if (working or drawn == start) and memo.works(drawn):
            working.append(drawn)
            raise _WorksError

    memo.budget = spec.evaluations
    _run(attempt)
    if not working:
        raise ConfigError(
            f"hypothesis {hypothesis.__version__} does not draw a population twice; install one "
            "of the versions that natadv was written for"
        )
    return working[-1]


def _discover(spec: SearchSpec, memo: _Memo) -> Smallest:
    working: list[DrawnOverlay] = []
    shares: dict[DrawnOverlay, float] = {}

    @seed(spec.seed)
    @settings(
        _QUIET,
        backend="hypothesis",
        max_examples=spec.draws,
        phases=[Phase.generate, Phase.target, Phase.shrink],
    )
    @given(overlays(spec.bounds))
    def attempt(drawn: DrawnOverlay) -> None:
        """Fails on an overlay that works; until the first one, Hypothesis climbs."""
        share = memo.flip_rate(drawn)
        if not working:
            shares[drawn] = share
            target(share, label="pictures that are flipped")
        if share >= spec.at_least:
            if not working:
                memo.budget = spec.evaluations
            working.append(drawn)
            raise _WorksError

    _run(attempt)
    counts = ShrinkCounts(
        drawn=len(shares),
        working=sum(share >= spec.at_least for share in shares.values()),
        strongest=max(shares.values()),
        evaluations=memo.spent,
    )
    return Smallest(working[-1] if working else None, counts)


_QUIET = settings(
    database=None,
    deadline=None,
    report_multiple_bugs=False,
    verbosity=Verbosity.quiet,
    suppress_health_check=list(HealthCheck),
)


def _run(attempt: Callable[[], None]) -> None:
    """Hypothesis stops shrinking after five minutes, and tries the constants of all local modules
    that are imported. Here it does neither, so that a search ends the same on a slow machine and in
    another process."""
    changed: Sequence[tuple[ModuleType, str, object]] = (
        (engine, "MAX_SHRINKING_SECONDS", float("inf")),
        (providers, "_get_local_constants", _attribute(providers, "Constants")),
    )
    known: Any = _attribute(providers, "CONSTANTS_CACHE")
    before = [(module, name, _attribute(module, name)) for module, name, _ in changed]
    for module, name, value in changed:
        setattr(module, name, value)
    known.cache.clear()
    try:
        with suppress(_WorksError, _SpentError):
            attempt()
    finally:
        for module, name, value in before:
            setattr(module, name, value)
        known.cache.clear()


def _attribute(module: ModuleType, name: str) -> object:
    if name not in vars(module):
        raise ConfigError(
            f"hypothesis {hypothesis.__version__} has no {name} where it had one; install one of "
            "the versions that natadv was written for"
        )
    return vars(module)[name]


def _unnamed(drawn: DrawnOverlay) -> DrawnOverlay:
    return drawn if drawn.id == NEW else replace(drawn, id=NEW)

"""The smallest overlay that still works, found by shrinking one that works.

Hypothesis weakens an overlay value by value, in the order in which the values are drawn: first the
letters become as small as possible, then as faint as possible, then they lose their panel, and so
on. Each overlay is evaluated once, so a model that
wavers cannot make a search flaky, and the number of evaluations is bounded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
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
"""Name of every overlay that does not belong to a population."""

SHRINK_SEED = int(
    "e63f4f35061d3cc2d944f3bcd90b837cd56c1053bd1786e577888c9666cf0eeb"
    "cd4e0fae7053e4540ef1f97586898a22",
    base=16,
)
"""Any number would do: Hypothesis seeds its draws with it while it shrinks. By default it takes a
hash of the source of the function that it runs, so renaming a variable would change the result."""


class FlipRates(Protocol):
    """For each overlay the share of the samples that it flips, 0 to 1; many at once are cheaper.
    A rate below `least` need not be exact, but must stay below."""

    def __call__(self, drawn: Sequence[DrawnOverlay], /, *, least: float) -> Sequence[float]: ...


class Smallest(NamedTuple):
    """The smallest overlay that works, and what it took to find it."""

    overlay: DrawnOverlay | None
    """None if no overlay that was drawn works."""
    counts: ShrinkCounts


def population_of(spec: SearchSpec) -> list[DrawnOverlay]:
    """The overlays that a search starts from, unless it discovers them."""
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
        fresh = [one for one in dict.fromkeys(map(_unnamed, drawn)) if one not in self.known]
        # While an attack is made smaller, it matters only whether an overlay works.
        least = 0.0 if self.budget is None else self.at_least
        try:
            rates = self.flip_rates(fresh, least=least)
        except Exception as error:
            raise _BrokenError(error) from error
        self.known |= dict(zip(fresh, rates, strict=True))

    def flip_rate(self, drawn: DrawnOverlay) -> float:
        """Raises _SpentError if the overlay is not known and the budget is spent."""
        one = _unnamed(drawn)
        if one not in self.known:
            if self.budget is not None and self.spent >= self.budget:
                raise _SpentError
            self.spent += self.budget is not None
            self.evaluate([one])
        return self.known[one]

    def works(self, drawn: DrawnOverlay) -> bool:
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


@dataclass(slots=True)
class _Last:
    """The overlay that worked last. Hypothesis tries smaller ones only, and ends by repeating the
    smallest."""

    overlay: DrawnOverlay | None = None


def _shrink_population(spec: SearchSpec, memo: _Memo) -> Smallest:
    drawn = population_of(spec)
    memo.evaluate(drawn)
    working = [one for one in drawn if memo.works(one)]
    smallest = None
    if working:
        # From the smallest letters: from there it is not far.
        start = min(working, key=lambda one: (one.overlay.size, one.overlay.opacity))
        smallest = _shrink(spec, memo, start) if spec.evaluations else start
    strongest = max(map(memo.flip_rate, drawn))
    counts = ShrinkCounts(
        drawn=len(drawn), working=len(working), strongest=strongest, evaluations=memo.spent
    )
    return Smallest(smallest, counts)


def _shrink(spec: SearchSpec, memo: _Memo, start: DrawnOverlay) -> DrawnOverlay:
    """Hypothesis draws the population again up to `start`, and shrinks that overlay."""
    last = _Last()

    @seed(SHRINK_SEED)
    @settings(
        _QUIET,
        backend=backend(spec.seed),
        max_examples=spec.draws + 1,
        phases=[Phase.generate, Phase.shrink],
    )
    @given(overlays(spec.bounds))
    def attempt(one: DrawnOverlay) -> None:
        if (last.overlay is not None or one == start) and memo.works(one):
            last.overlay = one
            raise _WorksError

    memo.budget = spec.evaluations
    _run(attempt)
    if last.overlay is None:
        raise ConfigError(
            f"hypothesis {hypothesis.__version__} does not draw a population twice; install one "
            "of the versions that natadv was written for"
        )
    return last.overlay


def _discover(spec: SearchSpec, memo: _Memo) -> Smallest:
    last = _Last()
    drawn: dict[DrawnOverlay, float] = {}

    @seed(spec.seed)
    @settings(
        _QUIET,
        backend="hypothesis",
        max_examples=spec.draws,
        phases=[Phase.generate, Phase.target, Phase.shrink],
    )
    @given(overlays(spec.bounds))
    def attempt(one: DrawnOverlay) -> None:
        share = memo.flip_rate(one)
        if last.overlay is None:
            drawn[one] = share
            target(share, label="pictures that are flipped")
        if share >= spec.at_least:
            if last.overlay is None:
                memo.budget = spec.evaluations
            last.overlay = one
            raise _WorksError

    _run(attempt)
    working = sum(share >= spec.at_least for share in drawn.values())
    counts = ShrinkCounts(
        drawn=len(drawn),
        working=working,
        strongest=max(drawn.values()),
        evaluations=memo.spent,
    )
    return Smallest(last.overlay, counts)


_QUIET = settings(
    database=None,
    deadline=None,
    report_multiple_bugs=False,
    verbosity=Verbosity.quiet,
    suppress_health_check=list(HealthCheck),
)


def _run(attempt: Callable[[], None]) -> None:
    with _by_itself(), suppress(_WorksError, _SpentError):
        attempt()


@contextmanager
def _by_itself() -> Iterator[None]:
    """Hypothesis stops shrinking after five minutes, and tries the constants of all local modules
    that are imported. Without both, a search ends the same on a slow machine or in another
    process."""
    changed: Sequence[tuple[ModuleType, str, object]] = (
        (engine, "MAX_SHRINKING_SECONDS", float("inf")),
        (providers, "_get_local_constants", _of(providers, "Constants")),
    )
    known: Any = _of(providers, "CONSTANTS_CACHE")
    before = [(module, name, _of(module, name)) for module, name, _ in changed]
    for module, name, value in changed:
        setattr(module, name, value)
    known.cache.clear()
    try:
        yield
    finally:
        for module, name, value in before:
            setattr(module, name, value)
        known.cache.clear()


def _of(module: ModuleType, name: str) -> object:
    if name not in vars(module):
        raise ConfigError(
            f"hypothesis {hypothesis.__version__} has no {name} where it had one; install one of "
            "the versions that natadv was written for"
        )
    return vars(module)[name]


def _unnamed(drawn: DrawnOverlay) -> DrawnOverlay:
    return drawn if drawn.id == NEW else replace(drawn, id=NEW)

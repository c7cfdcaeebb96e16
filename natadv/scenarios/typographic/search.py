"""The smallest overlay that still works, found by shrinking one that works.

Hypothesis shrinks: it makes what is drawn first weak first, so the letters as small as they can be,
then as faint, then without a panel, and so on. Each overlay is judged once, so a model that
wavers cannot make a search flaky, and only so many are judged at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import Any, Protocol

import hypothesis
from hypothesis import HealthCheck, Phase, Verbosity, given, seed, settings, target
from hypothesis.internal.conjecture import engine, providers

from natadv.errors import ConfigError
from natadv.scenarios.typographic.bounds import Bounds
from natadv.scenarios.typographic.iid import backend, draw_iid
from natadv.scenarios.typographic.population import DrawnOverlay
from natadv.scenarios.typographic.strategies import overlays

NEW = "new"
"""Names whatever overlay is not of a population."""


class Effects(Protocol):
    """For each overlay the share of the pictures that it flips, 0 to 1; many at once are cheaper.
    A share below `least` need not be exact, as long as it is told below."""

    def __call__(self, drawn: Sequence[DrawnOverlay], /, *, least: float) -> Sequence[float]: ...


@dataclass(frozen=True, slots=True)
class Hunt:
    """What is looked for, and what it may cost."""

    bounds: Bounds
    draws: int
    """Overlays of a population, or with `discover` examples at most."""
    seed: int
    at_least: float
    """Share of the pictures, above 0 to 1, that an attack has to flip to count as one."""
    evaluations: int
    """Overlays at most that are judged while the attack is made smaller."""
    discover: bool = False
    """Climb towards what flips more, instead of drawing independently. What comes first then
    depends on the version of Hypothesis."""

    def __post_init__(self) -> None:
        if not 0 < self.at_least <= 1:
            raise ConfigError(f"at_least must be above 0 and at most 1, came {self.at_least!r}")
        if self.draws < 1 or self.evaluations < 0:
            raise ConfigError(
                "expected at least 1 draw and no fewer than 0 evaluations, came "
                f"{self.draws} and {self.evaluations}"
            )


@dataclass(frozen=True, slots=True)
class Catch:
    """What a hunt came home with."""

    smallest: DrawnOverlay | None
    """The smallest that works; None if nothing that was drawn does."""
    working: int
    """How many of the draws work."""
    drawn: int
    strongest: float
    """Largest share of pictures that any draw flips."""
    evaluations: int
    """Overlays that were judged while the attack was made smaller."""


def population_of(plan: Hunt) -> list[DrawnOverlay]:
    """Where a search begins that does not discover."""
    return draw_iid(overlays(plan.bounds), count=plan.draws, seed=plan.seed)


def hunt(plan: Hunt, effects: Effects) -> Catch:
    """A function of the plan and of what `effects` says.

    Raises:
        ConfigError: Hypothesis no longer works as this needs.
        Exception: Whatever `effects` raises.
    """
    memo = _Memo(effects, plan.at_least)
    try:
        return _discovered(plan, memo) if plan.discover else _shrunk_from_population(plan, memo)
    except _BrokenError as broken:
        raise broken.error from None


@dataclass(slots=True)
class _Memo:
    """What is known of each overlay."""

    effects: Effects
    at_least: float
    budget: int | None = None
    """Overlays that may still be judged; None for no end."""
    known: dict[DrawnOverlay, float] = field(default_factory=dict)
    spent: int = 0

    def learn(self, drawn: Sequence[DrawnOverlay]) -> None:
        fresh = [one for one in dict.fromkeys(map(_unnamed, drawn)) if one not in self.known]
        # Whoever only makes smaller what works asks no more than whether it does.
        least = 0.0 if self.budget is None else self.at_least
        try:
            found = self.effects(fresh, least=least)
        except Exception as error:
            raise _BrokenError(error) from error
        self.known |= dict(zip(fresh, found, strict=True))

    def effect(self, drawn: DrawnOverlay) -> float:
        """Raises _SpentError where the overlay is not known and may not be judged any more."""
        one = _unnamed(drawn)
        if one not in self.known:
            if self.budget is not None and self.spent >= self.budget:
                raise _SpentError
            self.spent += self.budget is not None
            self.learn([one])
        return self.known[one]

    def works(self, drawn: DrawnOverlay) -> bool:
        return self.effect(drawn) >= self.at_least


class _WorksError(Exception):
    """What Hypothesis takes for the failure that it makes smaller."""


# Not an Exception: Hypothesis would take it for one more failure, and go on.
class _SpentError(BaseException):
    """Ends a search; what worked last is as small as it got."""


# Not an Exception either: Hypothesis would shrink it, or forget it over what works.
class _BrokenError(BaseException):
    """Whatever `effects` raises, on its way out of Hypothesis."""

    def __init__(self, error: Exception) -> None:
        self.error = error


@dataclass(slots=True)
class _Last:
    """The overlay that worked last. Hypothesis tries smaller ones only, and repeats the smallest at
    the end."""

    overlay: DrawnOverlay | None = None


def _shrunk_from_population(plan: Hunt, memo: _Memo) -> Catch:
    drawn = population_of(plan)
    memo.learn(drawn)
    working = [one for one in drawn if memo.works(one)]
    smallest = None
    if working:
        # From the smallest letters: from there it is not far.
        start = min(working, key=lambda one: (one.overlay.size, one.overlay.opacity))
        smallest = _shrunk(plan, memo, start) if plan.evaluations else start
    strongest = max(map(memo.effect, drawn))
    return Catch(smallest, len(working), len(drawn), strongest, memo.spent)


def _shrunk(plan: Hunt, memo: _Memo, start: DrawnOverlay) -> DrawnOverlay:
    """Hypothesis draws the population again until it meets `start`, and goes on from there."""
    last = _Last()

    @settings(
        _QUIET,
        backend=backend(plan.seed),
        max_examples=plan.draws + 1,
        derandomize=True,
        phases=[Phase.generate, Phase.shrink],
    )
    @given(overlays(plan.bounds))
    def attempt(one: DrawnOverlay) -> None:
        if (last.overlay is not None or one == start) and memo.works(one):
            last.overlay = one
            raise _WorksError

    memo.budget = plan.evaluations
    _run(attempt)
    if last.overlay is None:
        raise ConfigError(
            f"hypothesis {hypothesis.__version__} does not draw a population twice; install one "
            "of the versions that natadv was written for"
        )
    return last.overlay


def _discovered(plan: Hunt, memo: _Memo) -> Catch:
    last = _Last()
    drawn: dict[DrawnOverlay, float] = {}

    @seed(plan.seed)
    @settings(
        _QUIET,
        backend="hypothesis",
        max_examples=plan.draws,
        phases=[Phase.generate, Phase.target, Phase.shrink],
    )
    @given(overlays(plan.bounds))
    def attempt(one: DrawnOverlay) -> None:
        share = memo.effect(one)
        if last.overlay is None:
            drawn[one] = share
            target(share, label="pictures that are flipped")
        if share >= plan.at_least:
            if last.overlay is None:
                memo.budget = plan.evaluations
            last.overlay = one
            raise _WorksError

    _run(attempt)
    working = sum(share >= plan.at_least for share in drawn.values())
    return Catch(last.overlay, working, len(drawn), max(drawn.values()), memo.spent)


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
    """Hypothesis stops shrinking after five minutes, and tries the constants of whatever local
    modules are imported: a search would end elsewhere on a slow machine, or in another process."""
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

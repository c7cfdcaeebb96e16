"""What is told of the overlays of drawn pictures, as columns that outcomes can be split by."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from natadv.types import Factor, Sample


def factors_of(samples: Sequence[Sample]) -> dict[str, Factor]:
    """The facts that all samples have, all as text or all as numbers; yes or no is text."""
    told: list[dict[str, Any]] = [json.loads(sample.facts) for sample in samples]
    shared = [name for name in told[0] if all(name in each for each in told)] if told else []
    columns = {name: _column([each[name] for each in told]) for name in shared}
    return {name: column for name, column in columns.items() if column is not None}


def _column(facts: Sequence[Any]) -> Factor | None:
    """None for what is neither text nor a number throughout."""
    if all(isinstance(fact, bool) for fact in facts):
        return tuple("yes" if fact else "no" for fact in facts)
    if all(isinstance(fact, str) for fact in facts):
        return tuple(facts)
    if all(isinstance(fact, int | float) and not isinstance(fact, bool) for fact in facts):
        return tuple(float(fact) for fact in facts)
    return None

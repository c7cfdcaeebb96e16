"""A search for a small attack, as the result of a unit."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from natadv.engine.bench import Bench
from natadv.engine.datasets import Dataset
from natadv.engine.evaluate import rests_on
from natadv.engine.shown import shown_json
from natadv.engine.trial import Trial, trial_of
from natadv.engine.units import Unit, digest
from natadv.errors import ConfigError
from natadv.scenarios.typographic.attack import attack_json
from natadv.scenarios.typographic.bounds import Bounds
from natadv.scenarios.typographic.population import overlay_id, plain

if TYPE_CHECKING:
    from natadv.scenarios.typographic.search import Hunt


def hunted(unit: Unit, dataset: Dataset, *, bench: Bench) -> dict[str, Any]:
    """The result: under `caught` what came of it, with the attack as JSON, or None, and what the
    model said of its pictures."""
    began, encoded = time.perf_counter(), bench.encoded
    asked = json.loads(unit.hunt)
    plan = hunt_of(asked)
    trial = trial_of(unit, dataset, asked["subject"], bench)
    caught = {
        **{name: asked[name] for name in ("subject", "discover", "at_least")},
        "pictures": len(trial.ground),
        "looked_at": trial.looked_at,
        **(_catch(plan, trial) if trial.ground else {"attack": None}),
    }
    cost = {"encoded": bench.encoded - encoded, "wall_s": time.perf_counter() - began}
    return {**rests_on(unit, dataset, bench), "images": trial.shown, **cost, "caught": caught}


def hunt_of(asked: Mapping[str, Any]) -> Hunt:
    """Raises ConfigError where the population can no longer be drawn as it was frozen."""
    # Here, for all other units need no Hypothesis.
    from natadv.scenarios.typographic.search import Hunt

    names = ("draws", "seed", "at_least", "evaluations", "discover")
    plan = Hunt(
        bounds=Bounds.model_validate(asked["bounds"]), **{name: asked[name] for name in names}
    )
    if not plan.discover:
        _check_population(plan, asked["population"])
    return plan


def _check_population(plan: Hunt, frozen: str) -> None:
    from natadv.scenarios.typographic.search import population_of

    named = (
        replace(drawn, id=overlay_id(number)) for number, drawn in enumerate(population_of(plan))
    )
    if digest([plain(drawn) for drawn in named]) != frozen:
        raise ConfigError(
            "the population of this search was drawn by another version of natadv or Hypothesis; "
            "draw it again with natadv overlays draw --force"
        )


def _catch(plan: Hunt, trial: Trial) -> dict[str, Any]:
    from natadv.scenarios.typographic.search import hunt

    found = hunt(plan, trial.effects)
    names = ("drawn", "working", "strongest", "evaluations")
    counted = {name: getattr(found, name) for name in names}
    if found.smallest is None:
        return {**counted, "attack": None}
    shown = shown_json(trial.shown_under(found.smallest))
    return {**counted, "attack": attack_json(trial.attack(found.smallest)), "shown": shown}

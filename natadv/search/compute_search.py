"""Computes searches, which are units like any other to a worker."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import Any

from natadv.evaluate.code import check_unchanged
from natadv.evaluate.compute import provenance
from natadv.evaluate.datasets import Dataset
from natadv.evaluate.loaded_model import LoadedModel
from natadv.evaluate.model_runner import ModelRunner
from natadv.evaluate.units import Unit
from natadv.evaluate.worker import Compute
from natadv.search.objective import objective_on_class
from natadv.search.result import SearchResult, result_json


def compute_with(runner: ModelRunner) -> Compute:
    """A function that computes any unit: searches itself, and rows with the runner."""

    def compute(unit: Unit, beside: Sequence[Unit] = ()) -> dict[str, Any]:
        """What the store keeps of the unit."""
        if unit.search is None:
            return runner.compute(unit, beside)
        dataset = runner.datasets[unit.dataset]
        result = runner.with_model(unit, partial(run_search, unit, dataset))
        check_unchanged()
        return result

    return compute


def run_search(unit: Unit, dataset: Dataset, loaded: LoadedModel) -> dict[str, Any]:
    """What the store keeps of a search: its provenance, its cost and its result."""
    # Imported here because no other unit needs Hypothesis.
    from natadv.search.shrink import check_population, find_smallest

    spec = unit.search
    assert spec is not None
    began, encoded = time.perf_counter(), loaded.encoded
    check_population(spec)
    objective = objective_on_class(unit, dataset, spec.subject, loaded)
    ended = find_smallest(spec, objective.flip_rates) if objective.samples else None
    smallest = None if ended is None else ended.overlay
    result = SearchResult(
        subject=spec.subject,
        discover=spec.discover,
        at_least=spec.at_least,
        clean_samples=len(objective.samples),
        samples_tried=objective.samples_tried,
        counts=None if ended is None else ended.counts,
        predictions=() if smallest is None else objective.predictions(smallest),
        attack=None if smallest is None else objective.attack(smallest),
    )
    return {
        **provenance(unit, dataset, loaded),
        "images": objective.images_shown,
        "encoded": loaded.encoded - encoded,
        "wall_s": time.perf_counter() - began,
        "search": result_json(result),
    }

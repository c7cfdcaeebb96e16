"""What the code makes of a fixed sample: `python tests/evaluate/conformance.py` writes it anew.

Rows of both mini models, all tasks, stored and drawn pictures and their controls, and one search.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from natadv.evaluate.code import numerics_here
from natadv.evaluate.datasets import load_datasets
from natadv.evaluate.model_runner import ModelRunner
from natadv.evaluate.plan import dataset_units, head_of
from natadv.evaluate.run import Run
from natadv.evaluate.store import Store
from natadv.evaluate.units import Numerics, Unit
from natadv.gate.rules import SearchProfile
from natadv.models.loading import fingerprint
from natadv.models.resolve import resolve_all
from natadv.search.compute_search import compute_with
from natadv.search.profile import search_units
from natadv.tasks import ASKED
from natadv.types import Case, Variant

ROOT = Path(__file__).parents[2]
GOLDEN = Path(__file__).with_name("conformance.json")

MODELS = ("mini-clip", "mini-siglip")
ROWS = 12
BATCH = 16
VARIANTS: dict[str, tuple[Variant, ...]] = {
    "mini": ("attack",),
    "mini-typo": ("attack", "occlusion", "matched"),
    "mini-overlays": ("attack", "occlusion"),
}
SEARCH = SearchProfile("mini-overlays", ("dog",), pictures=4, at_least=0.25, evaluations=6)


def measured(folder: Path) -> dict[str, Any]:
    """The hashes of the code, and the rows that it makes."""
    store = Store(folder)
    store.prepare()
    run = Run(store, "conformance")
    run.prepare()
    numerics = numerics_here(folder, device="cpu", dtype="float32", batch_size=BATCH, threads=1)
    specs = {spec.name: spec for spec in resolve_all(MODELS, root=ROOT)}
    datasets = load_datasets(ROOT)
    compute = compute_with(ModelRunner(store, datasets, specs, run=run))
    found = {}
    for unit in units(specs, datasets, numerics):
        result = compute(unit, ())
        found[unit.title] = result["search"] if unit.search else result["outcomes"]
    return {"rows": numerics.code, "searches": numerics.search_code, "results": found}


def units(specs: Any, datasets: Any, numerics: Numerics) -> list[Unit]:
    made = []
    for name, spec in specs.items():
        weights = fingerprint(spec)
        for dataset, variants in VARIANTS.items():
            scenario = datasets[dataset].card.scenario
            for task in ASKED:
                case = Case(task, scenario, dataset, name)
                head = head_of(case, spec, weights=weights)
                for variant in variants if task == "classification" else variants[:1]:
                    (unit,) = dataset_units(
                        case,
                        datasets[dataset],
                        variant=variant,
                        weights=weights,
                        rows=ROWS,
                        numerics=numerics,
                    )
                    made.append(replace(unit, head=head))
        first = next(u for u in made if u.model == name and u.dataset == "mini" and not u.head)
        made += search_units(first, SEARCH, datasets["mini"], root=ROOT)
    return made


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        GOLDEN.write_text(json.dumps(measured(Path(scratch)), indent=1, sort_keys=True) + "\n")
    print(GOLDEN)

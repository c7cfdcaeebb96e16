"""Outcomes as JSON and back, and the attributes of drawn overlays as columns."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from natadv.columns import Texts
from natadv.errors import StoreError, listed
from natadv.types import Attribute, Outcomes, Sample


def columns(rows: Outcomes) -> dict[str, Any]:
    """Outcomes as JSON values; `factors` only where overlays were drawn."""
    attributes = {name: list(column) for name, column in rows.attributes.items()}
    return {
        "id": list(rows.id),
        "group": list(rows.group),
        "part": list(rows.part),
        "twin": list(rows.twin),
        "decoy": list(rows.decoy),
        "truth": list(rows.truth),
        "prediction": list(rows.prediction),
        "values": {name: [float(x) for x in column] for name, column in rows.values.items()},
        **({"factors": attributes} if attributes else {}),
    }


def outcomes_of(results: Iterable[Mapping[str, Any]]) -> Outcomes:
    """The results of a dataset's units, in order, as one table. Raises StoreError if they have
    other numbers, as of a tower whose layers changed between them."""
    units = list(results)
    tables = [unit["outcomes"] for unit in units]
    names = list(tables[0]["values"]) if tables else []
    for table in tables:
        if differ := sorted(set(names) ^ table["values"].keys()):
            raise StoreError(
                f"expected the same columns from all units, but {listed(differ)} is not in each of "
                "them; look whether the model is another one in each process, and measure again"
            )
    attributes = [table.get("factors", {}) for table in tables if table["id"]]

    def joined(name: str) -> Texts:
        return Texts.of(x for table in tables for x in table[name])

    return Outcomes(
        id=joined("id"),
        group=joined("group"),
        part=joined("part"),
        twin=joined("twin"),
        decoy=joined("decoy"),
        truth=joined("truth"),
        prediction=joined("prediction"),
        values={n: np.array([x for t in tables for x in t["values"][n]]) for n in names},
        errors={name: why for unit in units for name, why in unit["errors"].items()},
        attributes={n: tuple(x for a in attributes for x in a[n]) for n in _shared(attributes)},
    )


def attributes_of(samples: Sequence[Sample]) -> dict[str, Attribute]:
    """The facts of drawn samples as columns: those that all samples have, and that are text or
    numbers throughout; booleans become `yes` and `no`."""
    facts: list[dict[str, Any]] = [json.loads(sample.facts) for sample in samples]
    columns = {name: _column([of_sample[name] for of_sample in facts]) for name in _shared(facts)}
    return {name: column for name, column in columns.items() if column is not None}


def _shared(mappings: Sequence[Mapping[str, Any]]) -> list[str]:
    """The keys that all mappings have: one may know less about its rows than another."""
    first = mappings[0] if mappings else {}
    return [name for name in first if all(name in each for each in mappings)]


def _column(facts: Sequence[Any]) -> Attribute | None:
    """None if the facts are neither text nor numbers throughout."""
    if all(isinstance(fact, bool) for fact in facts):
        return tuple("yes" if fact else "no" for fact in facts)
    if all(isinstance(fact, str) for fact in facts):
        return tuple(facts)
    if all(isinstance(fact, int | float) and not isinstance(fact, bool) for fact in facts):
        return tuple(float(fact) for fact in facts)
    return None

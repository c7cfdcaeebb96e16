"""Outcome tables to JSON and back; light, for gates read what the store holds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from natadv.types import Outcomes


def columns(rows: Outcomes) -> dict[str, Any]:
    """Outcomes as JSON values."""
    return {
        "id": list(rows.id),
        "group": list(rows.group),
        "part": list(rows.part),
        "twin": list(rows.twin),
        "decoy": list(rows.decoy),
        "truth": list(rows.truth),
        "prediction": list(rows.prediction),
        "values": {name: [float(x) for x in column] for name, column in rows.values.items()},
    }


def outcomes_of(results: Iterable[Mapping[str, Any]]) -> Outcomes:
    """The results of a dataset's units, in order, as one table."""
    parts = list(results)
    tables = [part["outcomes"] for part in parts]
    names = tables[0]["values"].keys() if tables else ()

    def joined(name: str) -> tuple[Any, ...]:
        return tuple(x for table in tables for x in table[name])

    return Outcomes(
        id=joined("id"),
        group=joined("group"),
        part=joined("part"),
        twin=joined("twin"),
        decoy=joined("decoy"),
        truth=joined("truth"),
        prediction=joined("prediction"),
        values={n: np.array([x for t in tables for x in t["values"][n]]) for n in names},
        errors={name: why for part in parts for name, why in part["errors"].items()},
    )

"""Outcome tables to JSON and back; light, for gates read what the store holds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from natadv.types import Factor, Outcomes


def columns(rows: Outcomes) -> dict[str, Any]:
    """Outcomes as JSON values; `factors` only if there are any."""
    factors = {name: list(told) for name, told in rows.factors.items()}
    return {
        "id": list(rows.id),
        "group": list(rows.group),
        "part": list(rows.part),
        "twin": list(rows.twin),
        "decoy": list(rows.decoy),
        "truth": list(rows.truth),
        "prediction": list(rows.prediction),
        "values": {name: [float(x) for x in column] for name, column in rows.values.items()},
        **({"factors": factors} if factors else {}),
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
        factors=_factors(tables),
    )


def _factors(tables: Sequence[Mapping[str, Any]]) -> dict[str, Factor]:
    """Those that are told of every row: one unit may know less of its rows than another."""
    told = [table.get("factors", {}) for table in tables if table["id"]]
    shared = [name for name in told[0] if all(name in each for each in told)] if told else []
    return {name: tuple(x for each in told for x in each[name]) for name in shared}

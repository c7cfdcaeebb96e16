"""A few pictures of a dataset that stand for all of it."""

from __future__ import annotations

from natadv.data.reader import iter_columns
from natadv.engine.datasets import Dataset
from natadv.errors import ConfigError
from natadv.rng import rng_for


def chosen_rows(source: Dataset, count: int, *, seed: int) -> tuple[int, ...]:
    """Rows of `count` different pictures, rising: as many of each class as there are, by lot.

    The lot falls by (seed, id): what else the dataset holds moves no picture in its class.
    """
    by_class: dict[int, list[tuple[float, int]]] = {}
    seen: set[str] = set()
    columns = iter_columns(source.folder, source.card, ("id", "group", "label"))
    for row, found in enumerate(columns):
        if found["group"] not in seen:
            seen.add(found["group"])
            lot = float(rng_for(seed, "overlaid", found["id"]).random())
            by_class.setdefault(found["label"], []).append((lot, row))
    if not 1 <= count <= len(seen):
        raise ConfigError(
            f"expected 1 to {len(seen)} pictures, as {source.name!r} holds so many; came {count}"
        )
    classes = [sorted(by_class[label]) for label in sorted(by_class)]
    turns = (rows[turn] for turn in range(len(seen)) for rows in classes if turn < len(rows))
    return tuple(sorted(row for (_, row), _ in zip(turns, range(count), strict=False)))

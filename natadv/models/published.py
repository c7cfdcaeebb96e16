"""What others measured of the models of the zoo: to compare with, never a floor by itself."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import cast, get_args

from natadv.errors import ModelError
from natadv.types import Feeding

_TABLE = Path(__file__).with_name("published.tsv")


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """One number."""

    model: str
    dataset: str
    metric: str
    value: float
    """A fraction, 0 to 1."""
    protocol: Feeding
    """How the model was fed: only numbers of one protocol compare."""
    source: str


def published_for(name: str) -> tuple[Published, ...]:
    """The numbers of one row of the zoo; empty if none were published."""
    return tuple(row for row in read_published(_TABLE) if row.model == name)


@cache
def read_published(path: Path) -> tuple[Published, ...]:
    """All rows of a table with the columns of `Published`, in its order."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        return tuple(_row(row, f"{path}:{line}") for line, row in enumerate(rows, start=2))


def _row(row: dict[str, str], where: str) -> Published:
    try:
        value = float(row["value"])
    except (ValueError, TypeError) as error:
        raise ModelError(f"{where}: expected a number, got {row['value']!r}") from error
    if not 0 <= value <= 1:
        raise ModelError(f"{where}: expected a fraction from 0 to 1, got {value}")
    if row["protocol"] not in get_args(Feeding):
        protocols = " or ".join(get_args(Feeding))
        raise ModelError(f"{where}: expected {protocols} as protocol, got {row['protocol']!r}")
    return Published(
        model=row["model"],
        dataset=row["dataset"],
        metric=row["metric"],
        value=value,
        protocol=cast(Feeding, row["protocol"]),
        source=row["source"],
    )

"""A fixed part of a dataset as a dataset of its own, for quick tiers."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TextIO

from natadv.data.card import DATASETS_FOLDER, Card, refuse_drawn
from natadv.data.dataset_plan import DatasetPlan
from natadv.data.packing import Packed, pack
from natadv.data.reader import iter_columns, iter_samples
from natadv.data.workspace import refuse_existing
from natadv.errors import ConfigError, DataError
from natadv.evaluate.datasets import Dataset, dataset_named
from natadv.evaluate.units import digest
from natadv.pipelines.overlay_dataset import derived_draft
from natadv.rng import rng_for
from natadv.types import Sample


@dataclass(frozen=True, slots=True)
class SubsetPlan:
    """The settings of a subset: of `rows` at random, or of the rows with twins in `twins`."""

    source: str
    name: str
    rows: int | None = None
    seed: int = 1
    twins: str | None = None
    """A clean dataset; all rows whose twins are in it are taken."""
    root: Path = Path()
    force: bool = False
    stream: TextIO = field(default_factory=lambda: sys.stderr)


def make_subset(plan: SubsetPlan) -> Packed:
    """Write the dataset; pictures keep their bytes, and rows their order.

    Raises:
        NatadvError: A name is unknown, the source does not fit, or no row can be taken.
    """
    if (plan.rows is None) == (plan.twins is None):
        raise ConfigError("expected either --rows or --twins, which decides the rows by itself")
    folder = plan.root / DATASETS_FOLDER / plan.name
    source = dataset_named(plan.source, plan.root)
    card = source.card
    refuse_drawn(card, remedy=f"take a subset of {card.twin_of}, and draw on that")
    refuse_existing(folder, force=plan.force)
    if plan.twins is None:
        twin_of, chosen = card.twin_of, _at_random(source, plan)
        rule = f"at random, whole groups, seed {plan.seed}"
    else:
        twin_of, chosen = plan.twins, _with_twins(source, dataset_named(plan.twins, plan.root))
        rule = f"all with a twin in {plan.twins}"
    draft = derived_draft(
        card,
        name=plan.name,
        scenario=card.scenario,
        twin_of=twin_of,
        description=(
            f"{len(chosen)} of the {card.rows} rows of {card.name}, revision {card.revision}: "
            f"{rule}."
        ),
    )

    def items(start: int) -> Iterator[Sample]:
        """The chosen samples from the `start`-th one on."""
        samples = iter_samples(source.folder, card)
        return islice((sample for sample in samples if sample.id in chosen), start, None)

    identity = digest([card.revision, sorted(chosen)])
    subset = DatasetPlan(draft, items, len(chosen), "pictures", identity)
    return pack(folder, subset, force=plan.force, stream=plan.stream)


def chosen_groups(groups: Iterable[str], *, rows: int, seed: int) -> frozenset[str]:
    """The first groups, in an order drawn from (seed, group), that have at most `rows` rows.

    A group's place depends on neither the order of the rows nor the other groups.

    Args:
        groups: The group of each row.
        rows: At least 1.
    """
    sizes = Counter(groups)
    drawn = sorted(sizes, key=lambda group: (rng_for(seed, "subset", group).random(), group))
    chosen: list[str] = []
    left = rows
    for group in drawn:
        if sizes[group] > left:
            break
        left -= sizes[group]
        chosen.append(group)
    return frozenset(chosen)


def _at_random(source: Dataset, plan: SubsetPlan) -> frozenset[str]:
    """Ids of the rows."""
    rows, card = plan.rows, source.card
    assert rows is not None
    if not 1 <= rows <= card.rows:
        raise ConfigError(f"--rows must be from 1 to {card.rows}, the rows of {card.name}")
    group_of = {
        row["id"]: row["group"] for row in iter_columns(source.folder, card, ("id", "group"))
    }
    groups = chosen_groups(group_of.values(), rows=rows, seed=plan.seed)
    if not groups:
        raise ConfigError(
            f"{card.name}: the first group that seed {plan.seed} draws has more than {rows} rows, "
            "and a group is never divided; raise --rows"
        )
    return frozenset(name for name, group in group_of.items() if group in groups)


def _with_twins(source: Dataset, clean: Dataset) -> frozenset[str]:
    """Ids of the rows whose twins are in `clean`."""
    _check_twins(source.card, clean.card)
    known = {row["id"] for row in iter_columns(clean.folder, clean.card, ("id",))}
    twin_of = {
        row["id"]: row["twin"] for row in iter_columns(source.folder, source.card, ("id", "twin"))
    }
    chosen = frozenset(name for name, twin in twin_of.items() if twin in known)
    if not chosen:
        raise DataError(
            f"{source.name}: none of its {source.card.rows} rows has a twin in {clean.name}; its "
            f"twins are in {source.card.twin_of}, so take a subset of that"
        )
    return chosen


def _check_twins(attacked: Card, clean: Card) -> None:
    if attacked.twin_of is None:
        raise DataError(
            f"{attacked.name} has no clean twins: its rows were not made from those of another "
            "dataset; take --rows instead"
        )
    for name, own, others in (
        ("tasks", attacked.tasks, clean.tasks),
        ("classes", attacked.classes, clean.classes),
    ):
        if own != others:
            raise DataError(
                f"{attacked.name} and {clean.name} differ in their {name}, so that rows of one "
                f"cannot be compared with the other's; take a subset of {attacked.twin_of}"
            )

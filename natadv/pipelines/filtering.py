"""Adversarial filtration of a packed dataset by any models."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from natadv.data.card import (
    DATASETS_FOLDER,
    Card,
    draft_card,
    refuse_drawn,
)
from natadv.data.dataset_plan import DatasetPlan
from natadv.data.packing import pack
from natadv.data.reader import iter_samples, read_samples
from natadv.data.workspace import refuse_existing
from natadv.errors import DataError
from natadv.evaluate.datasets import Dataset, dataset_named
from natadv.evaluate.pictures import attacked
from natadv.evaluate.units import digest, shards
from natadv.models.loading import fingerprint
from natadv.pipelines.acceptance import Acceptance, write_acceptance
from natadv.pipelines.members import Arithmetic, Member, find_ensemble, load_member
from natadv.scenarios.natural import Judged, check_threshold, judged, kept
from natadv.storage.progress import Progress
from natadv.types import ModelSpec, Sample


@dataclass(frozen=True, slots=True)
class FilterPlan:
    """What somebody wants filtered out of which pool."""

    pool: str
    name: str
    ensemble: tuple[str, ...]
    threshold: float = 0.15
    limit: int | None = None
    root: Path = Path()
    arithmetic: Arithmetic = field(default_factory=Arithmetic)
    force: bool = False
    stream: TextIO = field(default_factory=lambda: sys.stderr)


@dataclass(frozen=True, slots=True)
class Filtered:
    """What came out."""

    folder: Path
    card: Card
    pool_rows: int
    curve: Path
    """The PNG; its numbers lie beside it."""


def filter_pool(plan: FilterPlan) -> Filtered:
    """Write the dataset of what fools every member, and the curve beside it.

    Pictures that cannot be decoded are set aside and listed with the curve. The curve is written
    also if nothing passes, for it shows which threshold would keep something.

    Raises:
        NatadvError: Names mean nothing, the pool cannot be classified, or nothing passes.
    """
    check_threshold(plan.threshold)
    folder = plan.root / DATASETS_FOLDER / plan.name
    pool = _pool(plan)
    specs = find_ensemble(plan.ensemble, root=plan.root)
    draft = draft_card(**_described(plan, pool.card, specs))
    refuse_existing(folder, force=plan.force)
    rows = min(pool.card.rows, plan.limit or pool.card.rows)
    found, broken = _all_judged(pool, rows, specs, plan)
    keep = passing(found, broken, threshold=plan.threshold)
    acceptance = Acceptance(
        name=plan.name,
        pool=plan.pool,
        pool_revision=pool.card.revision,
        threshold=plan.threshold,
        members={spec.name: fingerprint(spec) for spec in specs},
        judged=_without(found, broken),
        set_aside=_told(pool, broken),
    )
    curve = write_acceptance(folder, acceptance)
    if not keep.any():
        raise DataError(
            f"{plan.name}: none of {rows} pictures of {plan.pool} passes at threshold "
            f"{plan.threshold}; see {curve}, take a higher one, or another pool"
        )
    chosen = DatasetPlan(
        draft,
        partial(_chosen, pool, keep),
        total=int(keep.sum()),
        unit="pictures",
        fingerprint=digest([pool.card.revision, keep.tolist()]),
    )
    packed = pack(folder, chosen, force=plan.force)
    return Filtered(folder, packed.card, rows, curve)


def passing(found: Judged, broken: Mapping[int, str], *, threshold: float) -> NDArray[np.bool_]:
    """Of shape (n,): the rows that are kept; never one that could not be judged."""
    keep = kept(found, threshold=threshold)
    keep[list(broken)] = False
    return keep


def _pool(plan: FilterPlan) -> Dataset:
    pool = dataset_named(plan.pool, plan.root)
    card = pool.card
    refuse_drawn(card, remedy="filter natural pictures")
    if "classification" not in card.tasks:
        raise DataError(
            f"{plan.pool} has no classes to be wrong about: its tasks are {', '.join(card.tasks)}; "
            "filter a dataset for classification"
        )
    if card.scenario == "typographic":
        raise DataError(
            f"{plan.pool} is typographic: its pictures fool by a word that was written on them; "
            "filter natural pictures"
        )
    return pool


def _described(plan: FilterPlan, pool: Card, specs: Sequence[ModelSpec]) -> dict[str, Any]:
    return {
        "name": plan.name,
        "tasks": pool.tasks,
        "scenario": "natural",
        "classes": pool.classes,
        "templates": pool.templates,
        "licence": pool.licence,
        "source": f"{pool.name} ({pool.source})",
        "description": (
            f"The pictures of {pool.name} that every one of {', '.join(s.name for s in specs)} "
            f"gets wrong with p(true) below {plan.threshold}."
        ),
        "twin_of": pool.twin_of,
    }


def _all_judged(
    pool: Dataset, rows: int, specs: Sequence[ModelSpec], plan: FilterPlan
) -> tuple[Judged, dict[int, str]]:
    """Of every member, one loaded at a time; and the rows that could not be decoded."""
    broken: dict[int, str] = {}
    each = [_judged_by(spec, pool, rows, broken, plan) for spec in specs]
    together = Judged(
        np.concatenate([one.p_true for one in each]), np.concatenate([one.wrong for one in each])
    )
    if len(broken) == rows:
        raise DataError(f"{plan.pool}: no picture can be decoded, first: {broken[min(broken)]}")
    return together, broken


def _judged_by(
    spec: ModelSpec, pool: Dataset, rows: int, broken: dict[int, str], plan: FilterPlan
) -> Judged:
    """Of shape (1, rows); what is in `broken` counts for nothing."""
    member = load_member(spec, plan.arithmetic, root=plan.root)
    weights = member.class_weights(pool.card.classes, pool.card.templates)
    p_true, wrong = np.ones((1, rows)), np.zeros((1, rows), dtype=bool)
    progress = Progress(spec.name, rows, unit="pictures", stream=plan.stream)
    for start, stop in shards(rows):
        samples = read_samples(pool.folder, pool.card, start=start, stop=stop)
        at, vectors = _vectors(samples, start, member, broken)
        if at:
            likely = member.likelihoods(np.stack(vectors), weights=weights)
            truth = np.array([samples[row - start].label for row in at])
            found = judged(likely[None], truth)
            p_true[:, at], wrong[:, at] = found.p_true, found.wrong
        encoded = member.loaded.encoded
        progress.reach(stop, note=f"{encoded} embedded, {stop - encoded} known")
    return Judged(p_true, wrong)


def _vectors(
    samples: Sequence[Sample], start: int, member: Member, broken: dict[int, str]
) -> tuple[list[int], list[NDArray[np.float32]]]:
    """The rows that have a picture, and its embedding."""
    shown = {start + place: attacked(sample) for place, sample in enumerate(samples)}
    unread: dict[str, str] = {}
    vectors = member.embedded({picture.key: picture for picture in shown.values()}, unread)
    for row, picture in shown.items():
        if picture.key in unread:
            broken[row] = unread[picture.key]
    at = [row for row, picture in shown.items() if picture.key in vectors]
    return at, [vectors[shown[row].key] for row in at]


def _without(found: Judged, broken: Mapping[int, str]) -> Judged:
    rows = np.setdiff1d(np.arange(found.wrong.shape[1]), list(broken))
    return Judged(found.p_true[:, rows], found.wrong[:, rows])


def _told(pool: Dataset, broken: Mapping[int, str]) -> dict[str, str]:
    """Id -> why it could not be judged."""
    rows = {row: broken[row] for row in sorted(broken)}
    found = (read_samples(pool.folder, pool.card, start=row, stop=row + 1)[0].id for row in rows)
    return dict(zip(found, rows.values(), strict=True))


def _chosen(pool: Dataset, keep: NDArray[np.bool_], start: int) -> Iterator[Sample]:
    """From the n-th of them on."""
    rows = zip(iter_samples(pool.folder, pool.card), keep, strict=False)
    return islice((sample for sample, wanted in rows if wanted), start, None)

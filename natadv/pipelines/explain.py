"""Explains the answers of a model on samples of a dataset, without a run of the gate."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

import numpy as np

from natadv.data.reader import iter_columns
from natadv.errors import ConfigError, InfraError, NatadvError, counted
from natadv.evaluate.compute import answers
from natadv.evaluate.datasets import Dataset, dataset_named, undrawable
from natadv.evaluate.model_runner import lone_runner
from natadv.evaluate.plan import dataset_units, head_of
from natadv.evaluate.store import Store
from natadv.evaluate.units import Unit
from natadv.models.loading import fingerprint
from natadv.models.plugged import check_classes
from natadv.models.resolve import resolve_one
from natadv.pipelines.embedders import Arithmetic
from natadv.pipelines.explained_samples import (
    ExplainedSample,
    Explainer,
    RelevanceMap,
    explained_samples,
    most_confident,
    read_as_shown,
    triptych,
)
from natadv.report.terminal import aligned
from natadv.report.triptych import triptych_sheet
from natadv.storage.atomic import write_whole
from natadv.tasks import TASKS
from natadv.types import Case, LayerSpan, ModelSpec

HEAD = ("sample", "map of", "text box", "share", "of picture", "object")


@dataclass(frozen=True, slots=True)
class ExplainPlan:
    """The settings of `natadv explain`."""

    model: str
    dataset: str
    out: Path
    store: Path
    task: str = "classification"
    ids: tuple[str, ...] = ()
    """The samples; empty for the most confident mistakes among the first `rows`."""
    rows: int = 256
    most: int = 4
    layers: LayerSpan = "last"
    root: Path = Path()
    arithmetic: Arithmetic = field(default_factory=Arithmetic)


@dataclass(frozen=True, slots=True)
class Explanation:
    """What a model looked at."""

    samples: tuple[ExplainedSample, ...]
    sheet: Path
    chosen: str
    """Which samples these are, in words."""

    @property
    def table(self) -> list[str]:
        """A line per map, and the mean of each kind over the samples that have the number."""
        lines: list[tuple[str, ...]] = [HEAD]
        by_kind: dict[str, list[RelevanceMap]] = {}
        for one in self.samples:
            for found in one.maps:
                by_kind.setdefault(found.kind, []).append(found)
                name = f"{found.kind}: {found.target}"
                lines.append((one.attacked.sample.id, name, *_cells([found])))
        lines += [(f"mean of {len(maps)}", kind, *_cells(maps)) for kind, maps in by_kind.items()]
        return aligned(lines, right=range(2, len(HEAD)))

    @property
    def remarks(self) -> list[str]:
        """Why maps are missing, each reason once."""
        return list(dict.fromkeys(m.why_not for one in self.samples for m in one.maps if m.why_not))


def explain(plan: ExplainPlan) -> Explanation:
    """Ask the model about the samples, and draw where it looked.

    Raises:
        NatadvError: A name is unknown, or the model gives no relevance maps.
    """
    dataset = dataset_named(plan.dataset, plan.root)
    twin_of = dataset.card.twin_of
    clean = dataset_named(twin_of, plan.root) if twin_of else None
    if problem := undrawable(dataset, clean):
        raise ConfigError(problem)
    spec = resolve_one(plan.model, root=plan.root, wanted="to explain")
    unit = _unit(plan, spec, dataset)
    runner = lone_runner(spec, {}, Store(plan.store), device=unit.numerics.device)
    try:
        explainer = Explainer(unit, dataset, clean, runner.loaded(unit), plan.layers)
        samples, chosen = _explained(plan, explainer)
    except NatadvError:
        raise
    except Exception as error:
        # A border, as in the gate, because a model may run any code.
        raise InfraError(f"{spec.name}: {type(error).__name__}: {error}") from error
    case = Case(plan.task, dataset.card.scenario, dataset.name, spec.name)
    sheet = plan.out / f"{case.file_stem}__relevance.png"
    title = f"{case.address}, {plan.layers} layer{'s' * (plan.layers == 'all')}"
    write_whole(sheet, triptych_sheet([triptych(one, plan.task) for one in samples], title=title))
    return Explanation(tuple(samples), sheet, chosen)


def _unit(plan: ExplainPlan, spec: ModelSpec, dataset: Dataset) -> Unit:
    """A unit of the dataset. Raises NatadvError if the model cannot do the task on it."""
    card = dataset.card
    explained = [name for name, task in TASKS.items() if task.explained]
    if plan.task not in explained:
        raise ConfigError(
            f"task {plan.task!r} has no relevance maps; {', '.join(explained)} have them"
        )
    if plan.task not in card.tasks:
        able = ", ".join(card.tasks)
        raise ConfigError(f"{dataset.name} has no {plan.task}: its tasks are {able}")
    if plan.task == "classification":
        check_classes(spec, card.classes)
    weights = fingerprint(spec)
    case = Case(plan.task, card.scenario, dataset.name, spec.name)
    (unit, *_) = dataset_units(
        case,
        dataset,
        variant="attack",
        weights=weights,
        rows=card.rows,
        numerics=plan.arithmetic.numerics(spec, plan.store),
    )
    return replace(unit, head=head_of(case, spec, weights=weights))


def _explained(plan: ExplainPlan, explainer: Explainer) -> tuple[list[ExplainedSample], str]:
    dataset = explainer.dataset
    columns = iter_columns(dataset.folder, dataset.card, ("id",))
    ids = plan.ids or [row["id"] for row in islice(columns, plan.rows)]
    read = read_as_shown(explainer, ids)
    rows, masks = answers(explainer.unit, read.shard, explainer.loaded)
    if rows.errors:
        name, why = next(iter(rows.errors.items()))
        raise InfraError(f"{counted(len(rows.errors), 'sample')} without an answer, {name}: {why}")
    if plan.ids:
        place = {name: i for i, name in enumerate(rows.id)}
        places, chosen = [place[name] for name in plan.ids], "the samples that were named"
    else:
        places = most_confident(plan.task, rows, clean=None, new=(), most=plan.most)
        failed = int(TASKS[plan.task].failed(rows).sum())
        chosen = f"{len(places)} of {failed} mistakes on the first {counted(rows.n, 'sample')}"
    if not places:
        raise InfraError(
            f"{explainer.loaded.name} makes no mistake on the first {counted(rows.n, 'sample')} of "
            f"{dataset.name}; name samples by --ids, or take more --rows"
        )
    pngs = {name: base64.b64decode(mask) for name, mask in masks.items()}
    return explained_samples(explainer, rows, places, masks=pngs), chosen


def _cells(maps: Sequence[RelevanceMap]) -> Iterator[str]:
    """The means of their numbers, `-` for one that no map has."""
    for numbers, form in (
        ([m.text_ratio for m in maps], ".2f"),
        ([m.text_share for m in maps], ".0%"),
        ([m.text_area for m in maps], ".0%"),
        ([m.mask_share for m in maps], ".0%"),
    ):
        known = [number for number in numbers if not np.isnan(number)]
        yield format(sum(known) / len(known), form) if known else "-"

"""Adversarial filtration: natural pictures that every model of an ensemble gets wrong.

ImageNet-A was made so (Hendrycks et al. 2021); here the threshold is on the probability of the true
class. An acceptance curve shows what other thresholds would accept.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import numpy as np
from numpy.typing import ArrayLike, NDArray

from natadv.data.card import DATASETS_FOLDER, Card, CardDraft, refuse_candidates, refuse_drawn
from natadv.data.dataset_plan import DatasetPlan
from natadv.data.packing import pack
from natadv.data.reader import iter_samples, read_samples
from natadv.data.workspace import refuse_existing
from natadv.errors import ConfigError, DataError
from natadv.evaluate.datasets import Dataset, dataset_named
from natadv.evaluate.pictures import attacked
from natadv.evaluate.units import digest, shards
from natadv.models.loading import fingerprint
from natadv.pipelines.embedders import Arithmetic, find_ensemble, load_embedder
from natadv.pipelines.overlay_dataset import derived_draft
from natadv.plots import COLOURS, GREY, blank, heading, png
from natadv.storage.atomic import write_whole
from natadv.storage.progress import Progress
from natadv.types import DoubleArray, ModelSpec, Sample

THRESHOLDS: tuple[float, ...] = tuple(step / 100 for step in range(1, 101))


class EnsemblePredictions(NamedTuple):
    """What the models of an ensemble predict for pictures; both of shape (models, n)."""

    p_true: DoubleArray
    """The probability that a model gives the true class."""
    wrong: NDArray[np.bool_]
    """Whether a model gives another class a higher probability; on a tie it is not wrong."""


def ensemble_predictions(probabilities: ArrayLike, truth: ArrayLike) -> EnsemblePredictions:
    """`probabilities` has shape (models, n, classes), `truth` shape (n,). Raises DataError."""
    p, labels = np.asarray(probabilities, np.float64), np.asarray(truth)
    if p.ndim != 3 or p.shape[0] == 0:
        raise DataError(f"expected probabilities of (models, n, classes), got shape {p.shape}")
    if labels.shape != p.shape[1:2]:
        raise DataError(f"expected {p.shape[1]} true classes, got shape {labels.shape}")
    # Written as what must hold, so that NaN is refused.
    if not ((p >= 0).all() and (p <= 1).all()):
        raise DataError("probabilities must be from 0 to 1, some are not")
    if labels.size and not (labels.min() >= 0 and labels.max() < p.shape[2]):
        raise DataError(f"true classes must be from 0 to {p.shape[2] - 1}, some are not")
    p_true = np.take_along_axis(p, labels[None, :, None], axis=2)[..., 0]
    return EnsemblePredictions(p_true, p_true < p.max(axis=2))


def fools_all(predictions: EnsemblePredictions, *, threshold: float) -> NDArray[np.bool_]:
    """Of shape (n,): every model is wrong and gives the truth less than `threshold`.

    Raises ConfigError if the threshold is not above 0 and at most 1.
    """
    _check_threshold(threshold)
    below: NDArray[np.bool_] = predictions.p_true.max(axis=0) < threshold
    return below & predictions.wrong.all(axis=0)


def _check_threshold(threshold: float) -> None:
    if not 0 < threshold <= 1:
        raise ConfigError(f"threshold must be above 0 and at most 1, got {threshold!r}")


@dataclass(frozen=True, slots=True)
class FilterPlan:
    """The pool to be filtered, the ensemble, and the dataset to be made."""

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
    """The dataset that was made, and its curve."""

    folder: Path
    card: Card
    pool_rows: int
    curve: Path
    """The PNG; its numbers are in a JSON file beside it."""


@dataclass(frozen=True, slots=True)
class AcceptanceCurve:
    """What an ensemble predicted on a pool, and which share of it each threshold accepts."""

    name: str
    pool: str
    pool_revision: str
    threshold: float
    models: Mapping[str, str]
    """Name -> fingerprint, in the order of `predictions`."""
    predictions: EnsemblePredictions
    set_aside: Mapping[str, str]
    """Id of a picture that could not be decoded -> why."""

    @property
    def pictures(self) -> int:
        """How many pictures could be decoded."""
        return int(self.predictions.wrong.shape[1])

    def by_model(self) -> dict[str, list[int]]:
        """Name -> how many pictures each of `THRESHOLDS` accepts if that model decides alone."""
        p_true, wrong = self.predictions
        return {
            name: accepted_counts(EnsemblePredictions(p_true[[row]], wrong[[row]]), THRESHOLDS)
            for row, name in enumerate(self.models)
        }

    def as_json(self) -> dict[str, Any]:
        """The content of `NAME.acceptance.json`."""
        counts = self.by_model()
        return {
            "dataset": self.name,
            "pool": self.pool,
            "pool_revision": self.pool_revision,
            "threshold": self.threshold,
            "pictures": self.pictures,
            "kept": accepted_counts(self.predictions, [self.threshold])[0],
            "set_aside": dict(self.set_aside),
            "curve": {
                "thresholds": list(THRESHOLDS),
                "kept": accepted_counts(self.predictions, THRESHOLDS),
            },
            "members": {
                name: {"weights": weights, "kept": counts[name]}
                for name, weights in self.models.items()
            },
        }

    def chart(self) -> bytes:
        """The accepted share against the threshold, for the ensemble and each model, as a PNG."""
        n, threshold = self.pictures, self.threshold
        chosen = accepted_counts(self.predictions, [threshold])[0]
        figure, (axis,) = blank(f"{self.name}: filtered from {self.pool}")
        heading(
            axis, f"{chosen} of {n} pictures ({chosen / n:.1%}) kept at threshold {threshold:g}"
        )
        for row, (name, counts) in enumerate(self.by_model().items()):
            colour = COLOURS[1 + row % (len(COLOURS) - 1)]
            shares = [count / n for count in counts]
            axis.plot(THRESHOLDS, shares, color=colour, linewidth=1.2, label=name)
        shares = [count / n for count in accepted_counts(self.predictions, THRESHOLDS)]
        axis.plot(THRESHOLDS, shares, color=COLOURS[0], linewidth=2.4, label="every member")
        axis.axvline(threshold, color=GREY, linewidth=1, linestyle="--")
        axis.set_xlabel("threshold on p(true class)", loc="right")
        axis.set_ylabel("accepted share of the pool")
        axis.set_xlim(0, 1)
        axis.set_ylim(bottom=0)
        axis.legend(loc="best", frameon=False, fontsize=9)
        return png(figure)

    def write(self, dataset: Path) -> Path:
        """Write `NAME.acceptance.json` and `NAME.acceptance.png`. Returns the path of the PNG.

        They lie beside the dataset, because a folder of Parquet files and a picture would open as a
        folder of pictures.
        """
        numbers = json.dumps(self.as_json(), indent=1, allow_nan=False)
        write_whole(dataset.with_name(f"{dataset.name}.acceptance.json"), f"{numbers}\n".encode())
        path = dataset.with_name(f"{dataset.name}.acceptance.png")
        write_whole(path, self.chart())
        return path


def accepted_counts(predictions: EnsemblePredictions, thresholds: Sequence[float]) -> list[int]:
    """How many pictures each threshold accepts."""
    return [int(fools_all(predictions, threshold=t).sum()) for t in thresholds]


def filter_pool(plan: FilterPlan) -> Filtered:
    """Write the dataset of pictures that fool every model, and the curve beside it.

    Pictures that cannot be decoded are set aside and listed with the curve. The curve is written
    even if no picture passes, because it shows which threshold would accept some.

    Raises:
        NatadvError: A name is unknown, the pool cannot be classified, or no picture passes.
    """
    _check_threshold(plan.threshold)
    folder = plan.root / DATASETS_FOLDER / plan.name
    pool = _pool(plan)
    specs = find_ensemble(plan.ensemble, root=plan.root)
    draft = _draft(plan, pool.card, specs)
    refuse_existing(folder, force=plan.force)
    rows = min(pool.card.rows, plan.limit or pool.card.rows)
    broken: dict[int, str] = {}
    each = [_predictions_of(spec, pool, rows, broken, plan) for spec in specs]
    if len(broken) == rows:
        raise DataError(f"{plan.pool}: no picture can be decoded, first: {broken[min(broken)]}")
    p_true, wrong = map(np.concatenate, zip(*each, strict=True))
    passing = fools_all(EnsemblePredictions(p_true, wrong), threshold=plan.threshold)
    passing[list(broken)] = False
    decoded = np.setdiff1d(np.arange(rows), list(broken))
    curve = AcceptanceCurve(
        name=plan.name,
        pool=plan.pool,
        pool_revision=pool.card.revision,
        threshold=plan.threshold,
        models={spec.name: fingerprint(spec) for spec in specs},
        predictions=EnsemblePredictions(p_true[:, decoded], wrong[:, decoded]),
        set_aside={
            read_samples(pool.folder, pool.card, start=row, stop=row + 1)[0].id: broken[row]
            for row in sorted(broken)
        },
    ).write(folder)
    if not passing.any():
        raise DataError(
            f"{plan.name}: none of {rows} pictures of {plan.pool} passes at threshold "
            f"{plan.threshold}; see {curve}, take a higher one, or another pool"
        )
    identity = digest([pool.card.revision, passing.tolist()])
    items = partial(_chosen, pool, passing)
    chosen = DatasetPlan(draft, items, int(passing.sum()), "pictures", identity)
    packed = pack(folder, chosen, force=plan.force)
    return Filtered(folder, packed.card, rows, curve)


def _pool(plan: FilterPlan) -> Dataset:
    pool = dataset_named(plan.pool, plan.root)
    card = pool.card
    refuse_drawn(card, remedy="filter natural pictures")
    refuse_candidates(card, remedy="filter a dataset that asks for one of its classes")
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


def _draft(plan: FilterPlan, pool: Card, specs: Sequence[ModelSpec]) -> CardDraft:
    names = ", ".join(spec.name for spec in specs)
    description = (
        f"The pictures of {pool.name} that every one of {names} gets wrong with p(true) below "
        f"{plan.threshold}."
    )
    described = {"name": plan.name, "description": description, "twin_of": pool.twin_of}
    return derived_draft(pool, scenario="natural", **described)


def _predictions_of(
    spec: ModelSpec, pool: Dataset, rows: int, broken: dict[int, str], plan: FilterPlan
) -> EnsemblePredictions:
    """Of shape (1, rows). Rows that cannot be decoded are added to `broken`, with the reason; their
    values mean nothing."""
    model = load_embedder(spec, plan.arithmetic, root=plan.root)
    card = pool.card
    weights = model.class_weights(card.classes, card.templates, averaging=card.averaging)
    p_true, wrong = np.ones((1, rows)), np.zeros((1, rows), dtype=bool)
    progress = Progress(spec.name, rows, unit="pictures", stream=plan.stream)
    for start, stop in shards(rows):
        samples = read_samples(pool.folder, pool.card, start=start, stop=stop)
        pictures = {row: attacked(sample) for row, sample in enumerate(samples, start)}
        undecoded: dict[str, str] = {}
        vectors = model.embed({picture.key: picture for picture in pictures.values()}, undecoded)
        broken |= {r: undecoded[p.key] for r, p in pictures.items() if p.key in undecoded}
        at = [row for row, picture in pictures.items() if picture.key in vectors]
        if at:
            images = np.stack([vectors[pictures[row].key] for row in at])
            p = model.class_probabilities(images, weights=weights)
            truth = np.array([samples[row - start].label for row in at])
            p_true[:, at], wrong[:, at] = ensemble_predictions(p[None], truth)
        encoded = model.loaded.encoded
        progress.reach(stop, note=f"{encoded} embedded, {stop - encoded} known")
    return EnsemblePredictions(p_true, wrong)


def _chosen(pool: Dataset, passing: NDArray[np.bool_], start: int) -> Iterator[Sample]:
    """The samples that pass, from the n-th of them on."""
    rows = zip(iter_samples(pool.folder, pool.card), passing, strict=False)
    return islice((sample for sample, passes in rows if passes), start, None)

"""Computes with the models what Figures 6 to 8 show; what was computed once is in the store."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO

import numpy as np

from natadv.data.images import decode_image
from natadv.data.reader import iter_columns, read_rows
from natadv.errors import ModelError, NatadvError
from natadv.evaluate.datasets import Dataset, dataset_named
from natadv.evaluate.explanation import relevance_maps
from natadv.evaluate.units import digest
from natadv.figures.analyses import LatentPanel, MapRow
from natadv.figures.measured import Measured
from natadv.models.resolve import resolve_one
from natadv.pipelines.embedders import Arithmetic, Embedder, load_embedder
from natadv.places import STORE, find
from natadv.rng import rng_for
from natadv.types import Case, Explainable, FloatArray, Sample, ZeroShotClassifier

if TYPE_CHECKING:
    from PIL.Image import Image

    from natadv.metrics.heads import HeadChanges

KEPT, TRAINED = Path("fixtures/autoencoders"), Path(".natadv/autoencoders")
"""Relative to the root: a folder per model of the zoo; those that were trained for Figure 7."""
VERSION = 1
"""Raised when autoencoders are trained in another way."""
STEPS = 1500
"""Of such a training: enough for latents of few labels, and a minute of one core."""
SHUFFLES = 10
"""Of the labels, for what chance alone gives."""
TASK = "classification"


@dataclass(frozen=True, slots=True)
class Computing:
    """Where and how the figures are computed."""

    root: Path
    arithmetic: Arithmetic
    limit: int
    """The most pictures of each dataset in Figures 7 and 8."""
    stream: TextIO = field(default_factory=lambda: sys.stderr)
    """Receives progress."""


class Chosen(NamedTuple):
    """The datasets of the figures, and why others are left out."""

    datasets: tuple[Dataset, ...]
    left_out: Mapping[str, str]


def choose_datasets(measured: Measured, *, root: Path) -> Chosen:
    """The datasets of classification whose own pictures are here, as they were measured."""
    kept, left_out = [], {}
    for cell in measured.cells(TASK):
        revisions = {
            stored.manifest.data_revision
            for case, stored in measured.cases.items()
            if case.dataset == cell.dataset
        }
        try:
            dataset = dataset_named(cell.dataset, root)
        except NatadvError as error:
            left_out[cell.dataset] = str(error)
            continue
        if dataset.card.drawn:
            left_out[cell.dataset] = "its pictures are drawn when they are shown"
        elif dataset.card.candidates:
            left_out[cell.dataset] = "its samples bring candidates of their own"
        elif revisions != {dataset.card.revision}:
            left_out[cell.dataset] = "another revision of it was measured"
        else:
            kept.append(dataset)
    return Chosen(tuple(kept), left_out)


def why_not_computed(model: str, *, root: Path) -> str:
    """Why Figures 6 to 8 leave a model out, without loading it; empty if they do not."""
    try:
        spec = resolve_one(model, root=root, wanted="for figures")
    except NatadvError as error:
        return str(error)
    return "" if TASK in spec.tasks else "it classifies no pictures"


def loaded_for(model: str, computing: Computing) -> Embedder:
    """The model, ready to embed. Raises ModelError if it embeds no pictures and texts."""
    spec = resolve_one(model, root=computing.root, wanted="for figures")
    embedder = load_embedder(spec, computing.arithmetic, root=computing.root)
    if not isinstance(embedder.loaded.model, ZeroShotClassifier):
        raise ModelError(f"{model} embeds no pictures and texts, which Figures 6 and 7 need")
    return embedder


def random_rows(dataset: Dataset, n: int) -> tuple[int, ...]:
    """Up to `n` rows, drawn without repetition, in rising order; the same ones every time."""
    total = dataset.card.rows
    drawn = rng_for("figures", dataset.card.revision).permutation(total)[:n]
    return tuple(sorted(map(int, drawn)))


def map_rows(
    measured: Measured,
    models: Sequence[str],
    datasets: Sequence[Dataset],
    *,
    pictures: int,
    computing: Computing,
) -> list[MapRow]:
    """`pictures` of each dataset, with the map of each model for what it answered in the evidence;
    samples that one of the models of the dataset has no answer for are not shown."""
    shown: list[tuple[Dataset, list[Sample], list[Image]]] = []
    for dataset in datasets:
        answers = [known for model in models if (known := _answers(measured, dataset, model))]
        drawn = read_rows(dataset.folder, dataset.card, random_rows(dataset, pictures))
        samples = [sample for sample in drawn if all(sample.id in known for known in answers)]
        images = [decode_image(sample.image, where=sample.id) for sample in samples]
        shown.append((dataset, samples, images))
    # One model after the other, as memory may not hold several.
    columns = [
        [
            cell
            for dataset, samples, images in shown
            for cell in _maps(embedder, dataset, samples, images, measured)
        ]
        for embedder in (loaded_for(model, computing) for model in models)
    ]
    cells = zip(*columns, strict=True)
    return [
        MapRow(
            dataset.name,
            dataset.card.classes[sample.label or 0],
            np.asarray(image),
            *zip(*next(cells), strict=True),
        )
        for dataset, samples, images in shown
        for sample, image in zip(samples, images, strict=True)
    ]


def _answers(measured: Measured, dataset: Dataset, model: str) -> dict[str, str]:
    """What the model said by sample; empty if it was not measured on the dataset."""
    stored = measured.cases.get(Case(TASK, dataset.card.scenario, dataset.name, model))
    if stored is None:
        return {}
    rows = stored.outcomes["attack"]
    return dict(zip(rows.id, rows.prediction, strict=True))


def _maps(
    embedder: Embedder,
    dataset: Dataset,
    samples: Sequence[Sample],
    images: Sequence[Image],
    measured: Measured,
) -> list[tuple[FloatArray | None, str]]:
    """The map of each sample, if there is one, and what the model said about it."""
    answers = _answers(measured, dataset, embedder.name)
    if not answers:
        return [(None, "not measured")] * len(samples)
    said = [answers[sample.id] for sample in samples]
    if not isinstance(embedder.loaded.model, Explainable):
        return [(None, words) for words in said]
    maps = relevance_maps(
        samples, images, said, task=TASK, loaded=embedder.loaded, card=dataset.card
    )
    return list(zip(maps, said, strict=True))


def head_tables(
    measured: Measured, model: str, datasets: Sequence[Dataset], computing: Computing
) -> dict[str, HeadChanges]:
    """Dataset -> what masking each head of the model changes: from the evidence if the run measured
    the task `heads`, else computed now, and kept in the store. Raises ModelError if the model
    cannot mask heads."""
    from natadv.evaluate.masked_heads import MaskingPlan, masked_outcomes
    from natadv.metrics.heads import head_changes

    found: dict[str, HeadChanges] = {}
    unknown = []
    for dataset in datasets:
        case = Case("heads", dataset.card.scenario, dataset.name, model)
        if (stored := measured.cases.get(case)) is not None:
            found[dataset.name] = head_changes(stored.outcomes["attack"])
        else:
            unknown.append(dataset.name)
    if not unknown:
        return found
    spec = resolve_one(model, root=computing.root, wanted="whose heads to mask")
    store = computing.root / STORE
    plan = MaskingPlan(
        spec=spec,
        datasets=tuple(unknown),
        numerics=computing.arithmetic.numerics(spec, store),
        store=store,
        limit=computing.limit,
        root=computing.root,
        stream=computing.stream,
    )
    found |= {name: head_changes(outcomes) for name, outcomes in masked_outcomes(plan)}
    return {dataset.name: found[dataset.name] for dataset in datasets}


def few_classes(datasets: Sequence[Dataset], shown: Mapping[str, int]) -> list[str]:
    """Where the first pictures of a dataset are of few of its classes, as in one that is sorted by
    class: accuracy on them says little about it.

    Args:
        shown: Dataset -> how many of its first pictures were looked at.
    """
    found = []
    for dataset in datasets:
        n, classes = shown.get(dataset.name, 0), len(dataset.card.classes)
        if not 0 < n < dataset.card.rows:
            continue
        rows = islice(iter_columns(dataset.folder, dataset.card, ("label",)), n)
        seen = len({row["label"] for row in rows})
        if 2 * seen < min(n, classes):
            found.append(
                f"the first {n} pictures of {dataset.name} are of {seen} of its {classes} classes; "
                "raise --limit, or measure the task heads"
            )
    return found


def latent_panels(
    name: str, datasets: Sequence[Dataset], computing: Computing, *, folder: Path | None
) -> list[LatentPanel]:
    """The latents of the autoencoder of the model `name` on each dataset.

    Args:
        folder: Of the autoencoder; None for the one that is kept in fixtures/autoencoders, or else
            one that is trained now, on the clean dataset, and found again the next time.

    Raises:
        ModelError: The autoencoder belongs to another model, or the model cannot be opened.
    """
    from natadv.evaluate.latents import LatentReader, dataset_latents
    from natadv.explain.autoencoder import Openable, load_autoencoder
    from natadv.explain.latents import points_by_chance

    embedder = loaded_for(name, computing)
    model: Any = embedder.loaded.model
    if not isinstance(model, Openable):
        raise ModelError(f"{embedder.name}: its adapter cannot open the layers of its tower")
    kept = find(KEPT / name, computing.root)
    where = folder or (kept if kept.is_dir() else _trained_now(embedder, datasets, computing))
    found = load_autoencoder(where, tower=embedder.fingerprint, model=embedder.name)
    reader = LatentReader(model, found.to(computing.arithmetic.device), embedder.loaded.encoder)
    # Of equally many pictures, as fewer activate a latent less often and bring fewer labels.
    n = min(computing.limit, *(dataset.card.rows for dataset in datasets))
    panels = []
    for dataset in datasets:
        rows = random_rows(dataset, n)
        latents = dataset_latents(dataset, reader, rows=rows, stream=computing.stream)
        shuffled = points_by_chance(latents.found, latents.rows.labels, times=SHUFFLES)
        panels.append(LatentPanel(dataset.name, n, latents.points, tuple(shuffled)))
    return panels


def _trained_now(embedder: Embedder, datasets: Sequence[Dataset], computing: Computing) -> Path:
    """The folder of a small autoencoder, trained on the clean pictures, or on all if none are
    clean; a training that was killed continues."""
    from natadv.training.sae_settings import TopKSettings
    from natadv.training.train_sae import SaePlan, train_sae

    clean = [dataset for dataset in datasets if dataset.card.scenario == "clean"] or datasets
    revisions = [dataset.card.revision for dataset in clean]
    out = (
        computing.root
        / TRAINED
        / f"{embedder.name}-{digest([VERSION, embedder.fingerprint, *revisions])[:12]}"
    )
    if (out / "config.json").exists():
        return out
    settings = TopKSettings(batch=512, steps=STEPS, expansion=4.0, k=8, rate=1e-3, warm_up=100)
    plan = SaePlan(
        kind="topk",
        model=embedder.name,
        layer=None,
        # Which every tower has.
        tokens="patches",
        data=tuple(dataset.name for dataset in clean),
        out=out,
        settings=settings,
        root=computing.root,
        device=computing.arithmetic.device,
        threads=computing.arithmetic.threads,
        stream=computing.stream,
    )
    train_sae(plan)
    return out

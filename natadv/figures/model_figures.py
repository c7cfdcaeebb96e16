"""Computes with the models what Figures 6 to 8 show; what was computed once is in the store."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO

import numpy as np

from natadv.data.images import decode_image
from natadv.data.reader import read_rows
from natadv.errors import ModelError, NatadvError
from natadv.evaluate.datasets import Dataset, dataset_named
from natadv.evaluate.explanation import relevance_maps
from natadv.evaluate.units import digest
from natadv.figures.analyses import HeadTable, LatentPanel, MapRow
from natadv.figures.measured import Measured
from natadv.models.resolve import resolve_one
from natadv.pipelines.embedders import STORE, Arithmetic, Embedder, load_embedder
from natadv.rng import rng_for
from natadv.types import Case, Explainable, FloatArray, Sample, ZeroShotClassifier

if TYPE_CHECKING:
    from PIL.Image import Image

AUTOENCODERS = Path(".natadv") / "autoencoders"
"""Relative to the root: those that were trained for Figure 7."""
VERSION = 1
"""Raised when autoencoders are trained in another way."""
STEPS = 1500
"""Of such a training: enough for latents of few labels, and a minute of one core."""
TASK = "classification"


@dataclass(frozen=True, slots=True)
class Computing:
    """Where and how the figures are computed."""

    root: Path
    arithmetic: Arithmetic
    limit: int
    """Pictures of each dataset in Figures 7 and 8."""
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


def loaded_for(model: str, computing: Computing) -> Embedder:
    """The model, ready to embed. Raises ModelError if it embeds no pictures and texts."""
    spec = resolve_one(model, root=computing.root, wanted="for figures")
    embedder = load_embedder(spec, computing.arithmetic, root=computing.root)
    if not isinstance(embedder.loaded.model, ZeroShotClassifier):
        raise ModelError(f"{model} embeds no pictures and texts, which Figures 6 to 8 need")
    return embedder


def random_rows(dataset: Dataset, n: int) -> tuple[int, ...]:
    """Up to `n` rows, drawn without repetition, in rising order; the same ones every time."""
    total = dataset.card.rows
    drawn = rng_for("figures", dataset.card.revision).permutation(total)[:n]
    return tuple(sorted(map(int, drawn)))


def map_rows(
    measured: Measured,
    embedders: Sequence[Embedder],
    datasets: Sequence[Dataset],
    *,
    pictures: int,
) -> list[MapRow]:
    """`pictures` of each dataset, with the map of each model for what it answered in the evidence;
    samples that a model has no answer for are not shown."""
    shown = []
    for dataset in datasets:
        (scenario,) = {c.scenario for c in measured.cells(TASK) if c.dataset == dataset.name}
        answers = [
            _answers(measured, Case(TASK, scenario, dataset.name, one.name)) for one in embedders
        ]
        drawn = read_rows(dataset.folder, dataset.card, random_rows(dataset, pictures))
        samples = [sample for sample in drawn if all(sample.id in of for of in answers)]
        images = [decode_image(sample.image, where=sample.id) for sample in samples]
        said = [[of[sample.id] for sample in samples] for of in answers]
        maps = [
            _maps(embedder, dataset, samples, images, words)
            for embedder, words in zip(embedders, said, strict=True)
        ]
        for i, sample in enumerate(samples):
            truth = dataset.card.classes[sample.label or 0]
            of_models = tuple(None if of is None else of[i] for of in maps)
            shown.append(
                MapRow(
                    dataset.name,
                    truth,
                    np.asarray(images[i]),
                    of_models,
                    tuple(words[i] for words in said),
                )
            )
    return shown


def _answers(measured: Measured, case: Case) -> dict[str, str]:
    stored = measured.cases.get(case)
    if stored is None:
        return {}
    rows = stored.outcomes["attack"]
    return dict(zip(rows.id, rows.prediction, strict=True))


def _maps(
    embedder: Embedder,
    dataset: Dataset,
    samples: Sequence[Sample],
    images: Sequence[Image],
    names: Sequence[str],
) -> list[FloatArray] | None:
    if not isinstance(embedder.loaded.model, Explainable):
        return None
    return relevance_maps(
        samples, images, names, task=TASK, loaded=embedder.loaded, card=dataset.card
    )


def head_tables(
    measured: Measured, model: str, datasets: Sequence[Dataset], computing: Computing
) -> dict[str, HeadTable]:
    """Dataset -> what masking each head of the model changes: from the evidence if the run measured
    the task `heads`, else computed now, and kept in the store. Raises ModelError if the model
    cannot mask heads."""
    from natadv.evaluate.masked_heads import (  # type: ignore[import-not-found, unused-ignore]
        MaskingPlan,
        masked_outcomes,
    )
    from natadv.metrics.heads import (  # type: ignore[import-not-found, unused-ignore]
        head_changes,
    )

    found: dict[str, HeadTable] = {}
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


def latent_panels(
    embedder: Embedder, datasets: Sequence[Dataset], computing: Computing, *, folder: Path | None
) -> list[LatentPanel]:
    """The latents of the model's autoencoder on each dataset.

    Args:
        folder: Of the autoencoder; None for one that is trained now, on the clean dataset, and
            found again the next time.

    Raises:
        ModelError: The autoencoder belongs to another model, or the model cannot be opened.
    """
    from natadv.evaluate.latents import (  # type: ignore[import-not-found, unused-ignore]
        LatentReader,
        dataset_latents,
    )
    from natadv.explain.autoencoder import (  # type: ignore[import-not-found, unused-ignore]
        Openable,
        load_autoencoder,
    )

    model: Any = embedder.loaded.model
    if not isinstance(model, Openable):
        raise ModelError(f"{embedder.name}: its adapter cannot open the layers of its tower")
    where = folder or _trained_now(embedder, datasets, computing)
    found = load_autoencoder(where, tower=embedder.fingerprint, model=embedder.name)
    reader = LatentReader(model, found.to(computing.arithmetic.device), model)
    panels = []
    for dataset in datasets:
        latents = dataset_latents(dataset, reader, limit=computing.limit, stream=computing.stream)
        panels.append(LatentPanel(dataset.name, latents.found.n, latents.points))
    return panels


def _trained_now(embedder: Embedder, datasets: Sequence[Dataset], computing: Computing) -> Path:
    """The folder of a small autoencoder, trained on the clean pictures, or on all if none are
    clean; a training that was killed continues."""
    from natadv.training.sae_settings import (  # type: ignore[import-not-found, unused-ignore]
        TopKSettings,
    )
    from natadv.training.train_sae import (  # type: ignore[import-not-found, unused-ignore]
        SaePlan,
        train_sae,
    )

    clean = [dataset for dataset in datasets if dataset.card.scenario == "clean"] or datasets
    revisions = [dataset.card.revision for dataset in clean]
    out = (
        computing.root
        / AUTOENCODERS
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

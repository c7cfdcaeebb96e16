"""Computes with the models what Figures 6 to 8 show; what was computed once is in the store."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TextIO, runtime_checkable

import numpy as np

from natadv.columns import Texts
from natadv.data.images import decode_image
from natadv.data.reader import read_rows
from natadv.errors import ModelError, NatadvError
from natadv.evaluate.datasets import Dataset, dataset_named
from natadv.evaluate.explanation import class_relevance
from natadv.evaluate.store import Store
from natadv.evaluate.units import digest
from natadv.figures.analyses import MapRow
from natadv.figures.gaps import Scores, Sides, gap
from natadv.figures.measured import Measured
from natadv.models.resolve import resolve_one
from natadv.pipelines.embedders import STORE, Arithmetic, Embedder, load_embedder
from natadv.rng import rng_for
from natadv.storage.progress import Progress
from natadv.tasks.classification import PAPER_TEMPLATES
from natadv.types import (
    PAPER_SUFFIX,
    Case,
    DoubleArray,
    Explainable,
    FloatArray,
    Prepared,
    Sample,
    ZeroShotClassifier,
)

VERSION = 1
"""Raised when the same models and pictures give other numbers here."""
TASK = "classification"


@runtime_checkable
class MasksHeads(Protocol):
    """A model that embeds pictures without single heads of its attention."""

    def masked_embeddings(self, prepared: Prepared) -> Iterator[FloatArray]:
        """For each layer, the first one first: unit rows of shape (heads, b, d)."""
        ...


@dataclass(frozen=True, slots=True)
class Computing:
    """Where and how the figures are computed."""

    root: Path
    arithmetic: Arithmetic
    limit: int
    """Pictures of each dataset, drawn at random."""
    stream: TextIO = field(default_factory=lambda: sys.stderr)
    """Receives progress."""


@dataclass(frozen=True, slots=True)
class ModelOnDataset:
    """A loaded model and some pictures of a dataset."""

    embedder: Embedder
    dataset: Dataset
    rows: tuple[int, ...]
    computing: Computing

    def batches(self, what: str) -> Iterator[tuple[list[Sample], list[Any]]]:
        """Samples with their pictures, with progress."""
        title = f"{what} of {self.embedder.name} on {self.dataset.name}"
        progress = Progress(title, len(self.rows), unit="pictures", stream=self.computing.stream)
        size = self.computing.arithmetic.batch_size
        for start in range(0, len(self.rows), size):
            samples = read_rows(
                self.dataset.folder, self.dataset.card, self.rows[start : start + size]
            )
            yield samples, [decode_image(one.image, where=one.id) for one in samples]
            progress.reach(min(start + size, len(self.rows)))

    def stored(self, kind: str, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The result of this kind from the store, or computed now and kept there."""
        arithmetic, root = self.computing.arithmetic, self.computing.root
        spec = resolve_one(self.embedder.name, root=root, wanted="for figures")
        facts = {
            "figure": [kind, VERSION],
            "model": [self.embedder.fingerprint, spec.feeding],
            "revision": self.dataset.card.revision,
            "rows": list(self.rows),
            "numerics": arithmetic.numerics(spec, root / STORE).key_facts(),
        }
        store, key = Store(root / STORE), digest(facts)
        store.prepare()
        if (found := store.get(key)) is None:
            found = compute()
            store.put(key, found)
        return found

    def class_weights(self) -> DoubleArray:
        """Unit rows of shape (classes, d), from the prompts that the gate uses."""
        card = self.dataset.card
        as_in_paper = self.embedder.name.endswith(PAPER_SUFFIX)
        templates = PAPER_TEMPLATES if as_in_paper else card.templates
        return self.embedder.class_weights(card.classes, templates, averaging=card.averaging)


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
    computing: Computing,
) -> list[MapRow]:
    """`pictures` of each dataset, with the map of each model for what it answered in the evidence;
    samples that a model has no answer for are not shown."""
    shown = []
    for dataset in datasets:
        (scenario,) = {c.scenario for c in measured.cells(TASK) if c.dataset == dataset.name}
        answers = [
            _answers(measured, Case(TASK, scenario, dataset.name, one.name)) for one in embedders
        ]
        on = ModelOnDataset(embedders[0], dataset, random_rows(dataset, pictures), computing)
        for samples, images in on.batches("pictures"):
            kept = [i for i, s in enumerate(samples) if all(s.id in of for of in answers)]
            said = [[of[samples[i].id] for i in kept] for of in answers]
            maps = [
                _maps(embedder, dataset, [images[i] for i in kept], words)
                for embedder, words in zip(embedders, said, strict=True)
            ]
            for place, i in enumerate(kept):
                truth = dataset.card.classes[samples[i].label or 0]
                picture = np.asarray(images[i].convert("RGB"))
                of_models = tuple(None if of is None else of[place] for of in maps)
                shown.append(
                    MapRow(dataset.name, truth, picture, of_models, tuple(w[place] for w in said))
                )
    return shown


def _answers(measured: Measured, case: Case) -> dict[str, str]:
    stored = measured.cases.get(case)
    if stored is None:
        return {}
    rows = stored.outcomes["attack"]
    return dict(zip(rows.id, rows.prediction, strict=True))


def _maps(
    embedder: Embedder, dataset: Dataset, images: Sequence[Any], names: Sequence[str]
) -> FloatArray | None:
    if not isinstance(embedder.loaded.model, Explainable) or not images:
        return None
    return class_relevance(images, names, loaded=embedder.loaded, card=dataset.card)


@dataclass(frozen=True, slots=True)
class HeadChange:
    """What masking each head changes on one dataset; arrays of shape (layers, heads)."""

    change: DoubleArray
    low: DoubleArray
    high: DoubleArray
    accuracy: float
    n: int


def head_change(on: ModelOnDataset) -> HeadChange:
    """Accuracy without each head minus accuracy with all. Raises ModelError if the model cannot
    mask heads."""
    found = on.stored("heads", lambda: _masked_answers(on))
    group = Texts.of(found["group"])
    names = Texts.of(map(str, range(len(group))))
    right = np.array(found["right"], dtype=np.float64)
    base = Scores(names, group, np.array(found["base"], dtype=np.float64))
    gaps = [
        [gap(Sides(Scores(names, group, row), base, paired=True)) for row in layer]
        for layer in right
    ]
    change, low, high = (
        np.array([[getattr(one, part) for one in layer] for layer in gaps])
        for part in ("value", "low", "high")
    )
    return HeadChange(change, low, high, float(base.value.mean()), len(group))


def _masked_answers(on: ModelOnDataset) -> dict[str, Any]:
    model = on.embedder.loaded.model
    if not isinstance(model, MasksHeads):
        raise ModelError(f"{on.embedder.name} masks no heads; see HeadMaskable in natadv.types")
    weights = on.class_weights().T
    base: list[int] = []
    group: list[str] = []
    right: list[Any] = []
    for samples, images in on.batches("heads"):
        labels = np.array([sample.label for sample in samples])
        prepared = on.embedder.loaded.encoder.prepare(images)
        whole = on.embedder.loaded.encoder.embed_images(prepared)
        base += ((whole @ weights).argmax(axis=1) == labels).astype(int).tolist()
        group += [sample.group for sample in samples]
        masked = np.stack(list(model.masked_embeddings(prepared)))
        right.append((masked @ weights).argmax(axis=-1) == labels)
    return {
        "base": base,
        "group": group,
        "right": np.concatenate(right, axis=2).astype(int).tolist(),
    }

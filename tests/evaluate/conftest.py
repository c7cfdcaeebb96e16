"""A store, units of no model in particular, and a model that sees colours."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from natadv.data.card import CardDraft
from natadv.data.packing import write_dataset
from natadv.evaluate.datasets import Dataset
from natadv.evaluate.embeddings import EmbeddingCache
from natadv.evaluate.loaded_model import LoadedModel
from natadv.evaluate.run import Run
from natadv.evaluate.store import Store
from natadv.evaluate.units import Numerics, Unit, prompts_digest
from natadv.scenarios.typographic.twins import typographic_twin
from natadv.types import FloatArray, Sample

CLASSES = ("cat", "dog", "cow")
TEMPLATES = ("a photo of a {}.", "a drawing of a {}.")
ROWS = 10
NUMERICS = Numerics("cpu", "float32", batch_size=4, threads=1, packages={"torch": "2"})


@dataclass(frozen=True)
class Scoring:
    scale: float = 10.0
    bias: float = 0.0
    activation: str = "softmax"


@dataclass
class Eyes:
    """Embeds the mean colour; keeps what it was given."""

    scoring: Scoring = field(default_factory=Scoring)
    batches: list[int] = field(default_factory=list)
    texts: list[list[str]] = field(default_factory=list)

    def prepare(self, images: Sequence[Image.Image]) -> Sequence[Image.Image]:
        return images

    def embed_images(self, images: Sequence[Image.Image]) -> FloatArray:
        self.batches.append(len(images))
        rows = np.array([np.asarray(image, np.float32).mean(axis=(0, 1)) for image in images])
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    def embed_texts(self, texts: Sequence[str]) -> FloatArray:
        self.texts.append(list(texts))
        found = [next(i for i, name in enumerate(CLASSES) if name in text) for text in texts]
        return np.eye(len(CLASSES), dtype=np.float32)[found]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path / "store")
    made.prepare()
    return made


@pytest.fixture
def run(store: Store) -> Run:
    made = Run(store, "run-1")
    made.prepare()
    return made


@pytest.fixture(scope="session")
def make_unit() -> Callable[..., Unit]:
    """A unit, with what differs."""
    unit = Unit(
        task="classification",
        dataset="plain",
        revision="r" * 64,
        prompts=prompts_digest(CLASSES, TEMPLATES),
        variant="attack",
        start=0,
        stop=ROWS,
        model="mini-clip",
        weights="c" * 64,
        protocol="zero-shot-1",
        numerics=NUMERICS,
    )

    def make(**other: Any) -> Unit:
        return replace(unit, **other)

    return make


@pytest.fixture(scope="session")
def picture() -> Callable[..., bytes]:
    """A PNG of mostly one colour channel."""

    def encoded(label: int, *, seed: int = 0, side: int = 32) -> bytes:
        pixels = np.random.default_rng(seed).integers(0, 40, (side, side, 3), dtype=np.uint8)
        pixels[..., label] += 200
        out = io.BytesIO()
        Image.fromarray(pixels).save(out, "PNG")
        return out.getvalue()

    return encoded


@pytest.fixture(scope="session")
def clean_samples(picture: Callable[..., bytes]) -> list[Sample]:
    return [
        Sample(f"s{i}", group=f"g{i}", image=picture(i % 3, seed=i), label=i % 3)
        for i in range(ROWS)
    ]


@pytest.fixture(scope="session")
def typo_samples(clean_samples: list[Sample]) -> list[Sample]:
    return [
        typographic_twin(
            sample,
            Image.open(io.BytesIO(sample.image)).convert("RGB"),
            CLASSES,
            recipe="defense-prefix",
            seed=1,
        )
        for sample in clean_samples
    ]


@pytest.fixture
def pack(tmp_path: Path) -> Callable[..., Dataset]:
    """Write samples as a dataset under `tmp_path`."""

    def write(name: str, samples: Sequence[Sample], **other: Any) -> Dataset:
        described: dict[str, Any] = {
            "tasks": ("classification",),
            "scenario": "clean",
            "classes": CLASSES,
            "templates": TEMPLATES,
            "licence": "CC0-1.0",
            "source": "made by the tests",
            "description": "plain colours",
        }
        folder = tmp_path / "fixtures" / "datasets" / name
        draft = CardDraft(name=name, **(described | other))
        return Dataset(name, folder, write_dataset(folder, draft, samples))

    return write


@pytest.fixture
def plain(pack: Callable[..., Dataset], clean_samples: list[Sample]) -> Dataset:
    return pack("plain", clean_samples)


@pytest.fixture
def typo(pack: Callable[..., Dataset], plain: Dataset, typo_samples: list[Sample]) -> Dataset:
    return pack("plain-typo", typo_samples, scenario="typographic", twin_of="plain")


@pytest.fixture
def eyes() -> Eyes:
    return Eyes()


@pytest.fixture
def loaded(store: Store, eyes: Eyes) -> LoadedModel:
    cache = EmbeddingCache(store.root / "embeddings", "space")
    return LoadedModel(eyes, cache, batch_size=NUMERICS.batch_size)  # type: ignore[arg-type]

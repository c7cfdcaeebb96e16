"""One flipped bit anywhere in the store: noticed or without effect, and healed by the next run."""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from natadv.data.card import CardDraft
from natadv.data.packing import write_dataset
from natadv.evaluate.compute import compute
from natadv.evaluate.datasets import Dataset
from natadv.evaluate.embeddings import EmbeddingCache, space
from natadv.evaluate.loaded_model import LoadedModel
from natadv.evaluate.plan import dataset_units
from natadv.evaluate.run import Run
from natadv.evaluate.store import Store
from natadv.evaluate.units import Numerics, Unit
from natadv.evaluate.worker import Worker
from natadv.types import Case, Sample
from tests.evaluate.conftest import CLASSES, TEMPLATES, Eyes

SHARE, ALL = 20, 200
"""Of results and of the cache each; every mutant writes to the disk and waits for it."""

NUMERICS = Numerics("cpu", "float32", batch_size=4, threads=1)
WEIGHTS = ("c" * 64, "d" * 64, "e" * 64)
ROWS = 12


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Dataset:
    folder = tmp_path_factory.mktemp("datasets") / "plain"
    draft = CardDraft(
        name="plain",
        tasks=("classification",),
        scenario="clean",
        classes=CLASSES,
        templates=TEMPLATES,
        licence="CC0-1.0",
        source="made by the tests",
        description="plain colours",
    )
    samples = [
        Sample(f"s{i}", group=f"g{i}", image=picture(i), label=i % len(CLASSES))
        for i in range(ROWS)
    ]
    return Dataset("plain", folder, write_dataset(folder, draft, samples))


def picture(number: int) -> bytes:
    pixels = np.random.default_rng(number).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


@pytest.fixture(scope="module")
def units(dataset) -> list[Unit]:
    """The same rows, asked of three models."""
    case = Case("classification", "clean", "plain", "mine")
    return [
        unit
        for weights in WEIGHTS
        for unit in dataset_units(
            case, dataset, variant="attack", weights=weights, rows=ROWS, numerics=NUMERICS
        )
    ]


def drained(root: Path, units: list[Unit], dataset: Dataset, *, run: str) -> int:
    """Fill the store; the number of units that were computed."""
    computed = 0

    def work(unit: Unit, beside: Any) -> dict[str, Any]:
        nonlocal computed
        computed += 1
        cache = EmbeddingCache(root / "embeddings", space(unit.weights, NUMERICS))
        loaded = LoadedModel(Eyes(), cache, batch_size=NUMERICS.batch_size)  # type: ignore[arg-type]
        return compute((unit, *beside), dataset, clean=None, loaded=loaded)[unit.key]

    store = Store(root)
    store.prepare()
    journal = Run(store, run)
    journal.prepare()
    fill = Worker(store, journal, work)
    fill.drain(units)
    assert fill.problems == []
    return computed


def rows_of(root: Path, units: list[Unit]) -> list[Any]:
    results = [Store(root).get(unit.key) for unit in units]
    return [None if result is None else result["outcomes"] for result in results]


@pytest.fixture(scope="module")
def filled(tmp_path_factory, units, dataset) -> Path:
    root = tmp_path_factory.mktemp("filled")
    assert drained(root, units, dataset, run="first") == len(units)
    return root


def test_a_flipped_bit_in_a_result_is_noticed_and_healed(chance, tmp_path, filled, units, dataset):
    root = shutil.copytree(filled, tmp_path / "store")
    flip(root / "units", chance)

    assert drained(root, units, dataset, run="second") == 1
    assert rows_of(root, units) == rows_of(filled, units)
    assert drained(root, units, dataset, run="third") == 0


def test_a_flipped_bit_in_the_cache_changes_no_result(chance, tmp_path, filled, units, dataset):
    root = shutil.copytree(filled, tmp_path / "store")
    flip(root / "embeddings", chance)
    shutil.rmtree(root / "units")

    assert drained(root, units, dataset, run="second") == len(units)
    assert rows_of(root, units) == rows_of(filled, units)
    assert drained(root, units, dataset, run="third") == 0


def flip(folder: Path, chance: np.random.Generator) -> None:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    path = files[int(chance.integers(len(files)))]
    body = bytearray(path.read_bytes())
    body[int(chance.integers(len(body)))] ^= 1 << int(chance.integers(8))
    path.write_bytes(bytes(body))

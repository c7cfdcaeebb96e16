"""A repository with small packed datasets of each task, and the mini models."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from natadv.data.card import CardDraft, load_card
from natadv.data.packing import write_dataset
from natadv.data.reader import iter_samples
from natadv.pipelines.typographic_twins import TypoPlan
from natadv.scenarios.typographic.twins import lossless
from natadv.types import Sample

REPOSITORY = Path(__file__).resolve().parents[2]
CLASSES = ("cat", "dog", "horse")
PHRASES = ("the black cat", "two cats", "dog on the left", "red hat of a man")
ANSWERS = {
    "yes/no": (("yes",) * 9 + ("no",), ("no",) * 10),
    "number": (("2",) * 8 + ("two",) * 2, ("3",) * 10, ("12",) * 10),
    "other": (("red",) * 7 + ("dark red",) * 3, ("a sheep",) * 10, ("on the table",) * 10),
}
DRAFT: dict[str, Any] = {
    "scenario": "clean",
    "classes": CLASSES,
    "templates": ("a photo of a {}.",),
    "licence": "CC0-1.0",
    "source": "made by the tests",
    "description": "noise",
}
ROWS = 150


@pytest.fixture(scope="session")
def samples() -> tuple[Sample, ...]:
    """150 of them: two rows each of a group."""
    return tuple(map(_sample, range(ROWS)))


@pytest.fixture(scope="session")
def pristine(tmp_path_factory: pytest.TempPathFactory, samples: tuple[Sample, ...]) -> Path:
    root = tmp_path_factory.mktemp("pipelines")
    datasets = root / "fixtures" / "datasets"
    tasks = ("classification", "segmentation", "vqa")
    write_dataset(datasets / "all", CardDraft(name="all", tasks=tasks, **DRAFT), samples)
    return root


@pytest.fixture
def root(tmp_path: Path, pristine: Path) -> Path:
    """Holds the dataset `all`, `mini` and the mini models."""
    datasets = tmp_path / "fixtures" / "datasets"
    datasets.mkdir(parents=True)
    (datasets / "all").symlink_to(pristine / "fixtures" / "datasets" / "all")
    (datasets / "mini").symlink_to(REPOSITORY / "fixtures" / "datasets" / "mini")
    (tmp_path / "fixtures" / "models").symlink_to(REPOSITORY / "fixtures" / "models")
    return tmp_path


@pytest.fixture
def make_plan(root: Path) -> Callable[..., TypoPlan]:
    def make(**fields: Any) -> TypoPlan:
        told: dict[str, Any] = {"source": "all", "name": "all-typo", "recipes": ("post-it",)}
        return TypoPlan(**{**told, "seed": 1, "root": root, "stream": io.StringIO(), **fields})

    return make


@pytest.fixture
def packed(root: Path) -> Callable[..., str]:
    """The name of another dataset of these samples."""

    def pack(name: str, rows: list[Sample], *tasks: Any, **fields: Any) -> str:
        card = CardDraft(name=name, tasks=tasks, **{**DRAFT, **fields})
        write_dataset(root / "fixtures" / "datasets" / name, card, rows)
        return name

    return pack


@pytest.fixture
def bare(samples: tuple[Sample, ...]) -> Callable[..., list[Sample]]:
    """The first samples, with a label only."""

    def first(count: int) -> list[Sample]:
        nothing: dict[str, Any] = {"phrase": None, "mask": None, "question": None}
        return [replace(s, **nothing, answers=(), answer_type="") for s in samples[:count]]

    return first


def read(root: Path, name: str) -> list[Sample]:
    folder = root / "fixtures" / "datasets" / name
    return list(iter_samples(folder, load_card(folder)))


def _sample(number: int) -> Sample:
    pixels = np.random.default_rng(number).integers(0, 256, (40, 48, 3), dtype=np.uint8)
    mask = Image.new("L", (48, 40), 0)
    mask.paste(255, (4, 4, 20, 30))
    buffer = io.BytesIO()
    mask.save(buffer, "PNG")
    kind = list(ANSWERS)[number % len(ANSWERS)]
    answers = ANSWERS[kind]
    return Sample(
        id=f"s{number:03d}",
        group=f"g{number // 2:03d}",
        image=lossless(Image.fromarray(pixels)),
        label=number % len(CLASSES),
        part="seen" if number % 2 else "held-out",
        phrase=PHRASES[number // 2 % len(PHRASES)],
        mask=buffer.getvalue(),
        question="What is this?",
        answers=answers[number // 3 % len(answers)],
        answer_type=kind,
    )

"""A repository with one small dataset of seven classes, and defences of seconds on tiny models."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from natadv.data.card import CardDraft
from natadv.data.packing import write_dataset
from natadv.defences.defend import DefencePlan
from natadv.defences.settings import settings_for
from natadv.scenarios.typographic.twins import lossless
from natadv.types import Sample

NAMES = ("cat", "dog", "cow", "hen", "pig", "bee", "ant")
SMALL = {
    "heads": ("most_heads=1", "clean_budget=0.9", "least_gain=0", "batch=8"),
    "prefix": ("steps=4", "batch=8", "attacks=2", "rate=0.05"),
    "sae": ("batch=8",),
    "words": ("steps=4", "batch=4", "rate=0.01", "warm_up=1", "checkpoint_every=2"),
}


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Loading a model changes switches of the whole process."""
    threads = torch.get_num_threads()
    strict = torch.are_deterministic_algorithms_enabled()
    fills = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(strict)
    torch.utils.deterministic.fill_uninitialized_memory = fills  # type: ignore[attr-defined]


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds the dataset `noise`: 28 pictures in 14 groups of two, every other group of part `b`."""
    generator = np.random.default_rng(3)
    samples = [
        Sample(
            id=f"noise-{number}",
            group=f"group-{number // 2}",
            image=lossless(
                Image.fromarray(generator.integers(0, 256, (40, 40, 3), dtype=np.uint8))
            ),
            label=number % len(NAMES),
            part="ab"[number // 2 % 2],
        )
        for number in range(28)
    ]
    draft: dict[str, Any] = {
        "scenario": "clean",
        "tasks": ("classification",),
        "templates": ("a {}.",),
        "licence": "CC0-1.0",
        "source": "drawn by the tests",
        "description": "noise",
    }
    folder = tmp_path_factory.mktemp("repository")
    datasets = folder / "fixtures" / "datasets"
    write_dataset(datasets / "noise", CardDraft(name="noise", classes=NAMES, **draft), samples)
    # Words are in the photographs, and there are no clean twins.
    words = [replace(sample, decoy=NAMES[(sample.label or 0) - 1]) for sample in samples]
    photographed = CardDraft(
        name="photographed", classes=NAMES, **{**draft, "scenario": "typographic"}
    )
    write_dataset(datasets / "photographed", photographed, words)
    wild = CardDraft(name="wild", classes=NAMES, **{**draft, "scenario": "natural"})
    write_dataset(datasets / "wild", wild, samples)
    few = [sample for sample in samples if (sample.label or 0) < 3]
    write_dataset(datasets / "few", CardDraft(name="few", classes=NAMES[:3], **draft), few)
    return folder


@pytest.fixture
def plan_for(root: Path, tmp_path: Path) -> Callable[..., DefencePlan]:
    """A defence of seconds; settings as `--set` takes them, and fields of the plan."""

    def make(method: Any, model: Path, *overrides: str, **fields: Any) -> DefencePlan:
        settings = settings_for(
            method, root=root, section=None, overrides=(*SMALL[method], *overrides), seed=1
        )
        usual = {"out": tmp_path / "out", "data": "noise", "root": root, "stream": io.StringIO()}
        return DefencePlan(str(model), method=method, settings=settings, **{**usual, **fields})

    return make

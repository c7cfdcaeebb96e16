"""A population of overlays on pictures of a small world."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from natadv.bundle.archive import Contents, write_archive
from natadv.bundle.verify import Verification, verify
from natadv.gate.stored import cards_in
from natadv.pipelines.overlay_dataset import OverlaidPlan, pack_overlaid
from natadv.pipelines.overlay_population import drawn_within
from natadv.scenarios.typographic.population import (
    SearchSpace,
    population_path,
    write_population,
)

BOUNDS = SearchSpace(
    size=[0.3, 1.0],
    x=[0.0, 1.0],
    y=[0.0, 1.0],
    opacity=[0.5, 1.0],
    contrast=[0.2, 1.0],
    angle=0.0,
    panel=1.0,
    stroke=0.0,
    stroke_width=[0.04, 0.1],
    padding=[0.5, 1.0],
    fonts=["dejavu-sans-bold"],
    kinds=["decoy"],
    off_object=0.0,
)


@pytest.fixture(scope="session")
def verified() -> Callable[..., Verification]:
    """Packs what the last run in a world has written, and verifies it."""

    def pack(root: Path, *, baseline: str | None = None) -> Verification:
        out = root / "evidence.zip"
        contents = Contents(
            gate_json=root / "gate.json",
            evidence=root / ".natadv" / "evidence",
            thresholds=root / "thresholds.yaml",
            cards=cards_in(root / "fixtures" / "datasets"),
            baseline=None if baseline is None else root / baseline,
        )
        write_archive(out, contents)
        return verify(out)

    return pack


@pytest.fixture(scope="session")
def populate() -> Callable[..., None]:
    """Draws and freezes a population in a world's folder, and packs the dataset of its name."""

    def make(root: Path, name: str, *, count: int, **bounds: Any) -> None:
        within = BOUNDS.model_copy(update=bounds)
        population = drawn_within(within, name=name, count=count, seed=1)
        write_population(population_path(name, root), population)
        pack_overlaid(OverlaidPlan(population, "plain", name, pictures=6, root=root))

    return make

"""A small world for searches: colours for classes, and a target that some words fool."""

from __future__ import annotations

import hashlib
import tomllib
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from natadv import factories
from natadv.langadv.generator import Generated
from natadv.langadv.genetic import SearchSettings
from natadv.langadv.search_plan import GROUP, LangadvPlan
from natadv.langadv.word_space import WordSpace

ROOT = Path(__file__).resolve().parents[2]

WORDS = WordSpace(
    words={
        "number": ("one", "two"),
        "weather": ("in sun", "in rain", "in fog", "in snow", "in wind"),
        "place": ("at home", "at sea", "on Mars", "on ice", "on grass"),
    },
    template="{number} {noun} {place} {weather}",
    prunable=("weather", "place"),
)
SETTINGS = SearchSettings(
    population=6, generations=3, pictures=4, prompts=5, random=5, mutation=0.1, accept=0.7
)


class Painter:
    """Pictures of one colour that depends on prompt and seed."""

    name = "painter"

    def __init__(self) -> None:
        self.prompts: list[str] = []

    def generate(self, prompt, seeds):
        self.prompts.append(prompt)
        return [self._one(prompt, seed) for seed in seeds]

    def _one(self, prompt, seed):
        digest = hashlib.sha256(f"{prompt}{seed}".encode()).digest()
        fog = 200 if "fog" in prompt else 0
        return Generated(Image.new("RGB", (8, 8), (digest[0], fog, digest[1])), "{}")


class Gullible:
    """Two members; what is foggy (green) fools both, most of the time."""

    name = "gullible"

    def probabilities(self, pictures):
        fogged = np.array([np.asarray(p.image)[0, 0] for p in pictures], np.float64)
        wrong = np.where((fogged[:, 1] > 0) & (fogged[:, 0] > 30), 0.9, fogged[:, 0] / 500)
        return np.repeat(np.stack([1 - wrong, wrong], axis=1)[None], 2, axis=0)

    def consistency(self, pictures, label):
        return np.array([np.asarray(p.image)[0, 0, 2] for p in pictures]) / 255


@pytest.fixture
def declare(monkeypatch):
    """Makes these the only generators that are installed."""

    def only(**generators: str) -> None:
        points = EntryPoints(EntryPoint(*pair, GROUP) for pair in generators.items())
        monkeypatch.setattr(
            factories.metadata, "entry_points", lambda group: points.select(group=group)
        )
        factories.entry_points.cache_clear()

    yield only
    monkeypatch.undo()
    factories.entry_points.cache_clear()


@pytest.fixture
def installed(declare):
    """The generators of natadv-mini, also where an older one was installed."""
    written = (ROOT / "natadv_mini" / "pyproject.toml").read_text(encoding="utf-8")
    declare(**tomllib.loads(written)["project"]["entry-points"][GROUP])


@pytest.fixture
def plan(tmp_path: Path) -> LangadvPlan:
    return plan_in(tmp_path / "search")


def plan_in(out: Path, *, settings: SearchSettings = SETTINGS) -> LangadvPlan:
    return LangadvPlan(
        out=out,
        classes={"cat": "cats"},
        space=WORDS,
        settings=settings,
        generator=Painter(),
        target=Gullible(),
    )


def all_bytes(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix != ".lock"
    }

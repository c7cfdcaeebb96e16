"""A small world for attacks: plain colours, and models that lose them where much is written.

They read: a solid box moves them only where it hides far more than letters have to.
"""

from __future__ import annotations

import contextlib
import io
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from natadv.cli import main
from natadv.data.card import CardDraft
from natadv.data.packing import write_dataset
from natadv.models import loading
from natadv.pipelines.overlay_population import drawn_within, search_space
from natadv.scenarios.typographic.population import population_path, write_population
from natadv.scenarios.typographic.twins import lossless
from natadv.types import FloatArray, Sample
from tests.evaluate import conftest as engine_fixtures
from tests.scenarios import conftest as scenario_fixtures

loaded = engine_fixtures.loaded
clean_samples = engine_fixtures.clean_samples
eyes = engine_fixtures.eyes
make_unit = engine_fixtures.make_unit
pack = engine_fixtures.pack
picture = engine_fixtures.picture
run = engine_fixtures.run
store = engine_fixtures.store
typo_samples = engine_fixtures.typo_samples
wide = scenario_fixtures.wide

REPOSITORY = Path(__file__).resolve().parents[2]
CLASSES = ("cat", "dog", "cow")
SIDE, ROWS = 48, 36
BEARS = {"mini-clip": 12.0, "mini-siglip": 30.0}
"""Spread of a picture's colours that a model bears: where it reads, more makes it take a class for
the next one."""
HIDES = 2.0
"""Times as much does so where it reads nothing."""
TURNS = 6
"""Along a row of pixels, from lighter to darker or back: words have as many, a box on a panel has
five at most."""


@dataclass(frozen=True)
class Scoring:
    scale: float = 10.0
    bias: float = 0.0
    activation: str = "softmax"


@dataclass
class Eyes:
    bears: float
    turns: int = 1
    """Classes to the next one that is seen."""
    scoring: Scoring = field(default_factory=Scoring)
    shown: int = 0

    def prepare(self, images: Sequence[Image.Image]) -> Sequence[Image.Image]:
        return images

    def embed_images(self, images: Sequence[Image.Image]) -> FloatArray:
        self.shown += len(images)
        rows = np.array([self._embedded(np.asarray(image, np.float32)) for image in images])
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    def embed_texts(self, texts: Sequence[str]) -> FloatArray:
        found = [next(i for i, name in enumerate(CLASSES) if name in text) for text in texts]
        return np.eye(len(CLASSES), dtype=np.float32)[found]

    def _embedded(self, pixels: FloatArray) -> FloatArray:
        colour = np.median(pixels, axis=(0, 1))
        bears = self.bears if reads(pixels) else HIDES * self.bears
        return np.roll(colour, self.turns) if pixels.std(axis=(0, 1)).max() > bears else colour


def reads(pixels: FloatArray) -> bool:
    """Whether the colours go up and down along some row as they do along a word."""
    return max(turns_of(row) for row in pixels.sum(axis=2)) >= TURNS


def turns_of(row: FloatArray) -> int:
    steps = np.diff(row)
    ways = np.sign(steps[abs(steps) > 24])
    return int((ways[1:] != ways[:-1]).sum())


@pytest.fixture(scope="session")
def samples() -> list[Sample]:
    """The dog `s01` is taken for a cat; the pictures of each class are ever less even."""
    rows = []
    for i in range(ROWS):
        label, name = i % len(CLASSES), f"s{i:02d}"
        pixels = np.full((SIDE, SIDE, 3), 60, np.uint8)
        pixels[..., 0 if i == 1 else label] = 180
        pixels[: SIDE // 2] += np.uint8(i // 2)
        mask = Image.new("L", (SIDE, SIDE), 0)
        mask.paste(255, (20, 20, 30, 30))
        out = io.BytesIO()
        mask.save(out, "PNG")
        picture = lossless(Image.fromarray(pixels))
        rows.append(
            Sample(name, group=name, image=picture, label=label, mask=out.getvalue(), phrase=name)
        )
    return rows


def write_world(root: Path, samples: Sequence[Sample], **other: Any) -> None:
    described: dict[str, Any] = {
        "name": "plain",
        "tasks": ("classification", "segmentation"),
        "scenario": "clean",
        "classes": CLASSES,
        "templates": ("a photo of a {}.",),
        "licence": "CC0-1.0",
        "source": "made by the tests",
        "description": "plain colours",
    }
    draft = CardDraft(**(described | other))
    folder = root / "fixtures" / "datasets" / draft.name
    write_dataset(folder, draft, samples, force=True)


@pytest.fixture(scope="session")
def pristine(tmp_path_factory: pytest.TempPathFactory, samples: list[Sample]) -> Path:
    """Holds the dataset `plain`, the population `few`, and the mini models with other insides."""
    root = tmp_path_factory.mktemp("search")
    write_world(root, samples)
    few = drawn_within(search_space(REPOSITORY, "overlays"), name="few", count=8, seed=1)
    write_population(population_path("few", root), few)
    (root / "fixtures" / "models").symlink_to(REPOSITORY / "fixtures" / "models")
    return root


@pytest.fixture
def world(tmp_path: Path, pristine: Path) -> Path:
    """A copy of the pristine world."""
    shutil.copytree(pristine / "fixtures", tmp_path / "fixtures", symlinks=True)
    return tmp_path


def record_loads(monkeypatch: pytest.MonkeyPatch) -> list[Eyes]:
    models: list[Eyes] = []

    def load(spec: Any, **_: Any) -> Eyes:
        models.append(Eyes(BEARS[spec.name]))
        return models[-1]

    monkeypatch.setattr(loading, "load", load)
    return models


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[Eyes]:
    """The models that were loaded."""
    return record_loads(monkeypatch)


@pytest.fixture
def natadv(
    world: Path, loads: list[Eyes], capsys: pytest.CaptureFixture[str], one_line_each: None
) -> Callable[..., list[str]]:
    """Runs a command in the world; the lines of its output, or of its error if that is wanted."""

    def run(*arguments: object, code: int = 0) -> list[str]:
        asked = [str(argument) for argument in arguments]
        came = main([*asked, "--root", str(world)])
        told = capsys.readouterr()
        assert came == code, told.err
        return (told.err if code else told.out).splitlines()

    return run


SEARCH = ("search", "--population", "few", "--data", "plain", "--subject", "dog", "--device", "cpu")
CHEAP = ("--pictures", "6", "--at-least", "0.5", "--evaluations", "20")


@pytest.fixture
def search(natadv: Callable[..., list[str]]) -> Callable[..., list[str]]:
    def run(*arguments: object, model: str = "mini-clip", code: int = 0) -> list[str]:
        return natadv(*SEARCH, "--model", model, *CHEAP, *arguments, code=code)

    return run


@pytest.fixture(scope="session")
def searched(pristine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A world after a search."""
    root = tmp_path_factory.mktemp("searched")
    shutil.copytree(pristine / "fixtures", root / "fixtures", symlinks=True)
    with pytest.MonkeyPatch.context() as patch:
        record_loads(patch)
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            assert main([*SEARCH, "--model", "mini-clip", *CHEAP, "--root", str(root)]) == 0
    return root


@pytest.fixture
def found(searched: Path, world: Path, loads: list[Eyes]) -> Path:
    """The file of an attack on mini-clip, in a world after the search for it."""
    shutil.copytree(searched / ".natadv", world / ".natadv", symlinks=True)
    return world / ".natadv/attacks/classification__plain__mini-clip__dog.json"


def edited(path: Path, to: Path, **fields: Any) -> Path:
    """The attack in another file, with some of it changed."""
    from natadv.search.result import read_attack, write_attack

    write_attack(to, read_attack(path).model_copy(update=fields))
    return to

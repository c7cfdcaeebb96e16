"""A repository with one small dataset of the mini world, and trainings of seconds on it."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from mini_world.phrases import phrase_of
from mini_world.questions import question_of
from mini_world.render import render
from mini_world.sampling import STYLES, draw_scene
from mini_world.vocabulary import EVALUATED
from natadv.data.card import CardDraft
from natadv.data.packing import write_dataset
from natadv.rng import rng_for
from natadv.scenarios.typographic.twins import lossless
from natadv.training.head_settings import settings_for
from natadv.training.train import TrainingPlan, train
from natadv.types import Sample

REPOSITORY = Path(__file__).resolve().parents[2]
NAMES = tuple(EVALUATED)
PICTURES, ROWS_EACH = 40, 2

SMALL: dict[str, tuple[str, ...]] = {
    "segmentation": (
        "steps=24", "batch=8", "rate=0.01", "last_rate=0.001", "reduce_width=16", "heads=2",
        "feed_forward=32", "held_back=0.1", "validate_every=12", "checkpoint_every=8",
        'templates=["{}", "a photo of {}."]',
    ),
    "vqa": (
        "epochs=4", "batch=8", "rate=0.002", "warm_up=0", "decay_after=[]", "more_than=2",
        "embedding=8", "hidden=16", "heads=2", "feed_forward=32", "blocks=1", "summary=8",
        "fused=16", "held_back=0.1", "validate_every=12", "checkpoint_every=8",
    ),
}  # fmt: skip

DRAFT: dict[str, Any] = {
    "scenario": "clean",
    "classes": NAMES,
    "templates": ("a photo of a {}.",),
    "licence": "CC0-1.0",
    "source": "rendered by the tests",
    "description": "animals",
}


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """More are slower on what is so small; and trainings change switches of the whole process."""
    threads = torch.get_num_threads()
    strict = torch.are_deterministic_algorithms_enabled()
    fills = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(strict)
    torch.utils.deterministic.fill_uninitialized_memory = fills  # type: ignore[attr-defined]


@pytest.fixture(scope="session")
def samples() -> tuple[Sample, ...]:
    """Two rows for each picture, of the same bytes and group."""
    return tuple(row for number in range(PICTURES) for row in _rows(number))


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory, samples: tuple[Sample, ...]) -> Path:
    """Holds the mini models, and the datasets `animals` and `named` (which asks nothing)."""
    folder = tmp_path_factory.mktemp("repository")
    datasets = folder / "fixtures" / "datasets"
    (folder / "fixtures" / "models").parent.mkdir(exist_ok=True)
    (folder / "fixtures" / "models").symlink_to(REPOSITORY / "fixtures" / "models")
    tasks = ("classification", "segmentation", "vqa")
    write_dataset(datasets / "animals", CardDraft(name="animals", tasks=tasks, **DRAFT), samples)
    bare = [
        replace(s, phrase=None, mask=None, question=None, answers=(), answer_type="")
        for s in samples[:4]
    ]
    card = CardDraft(name="named", tasks=("classification",), **DRAFT)
    write_dataset(datasets / "named", card, bare)
    return folder


@pytest.fixture(scope="session")
def plan_for(root: Path) -> Callable[..., TrainingPlan]:
    """A training of seconds; settings as `--set` takes them, and fields of the plan."""

    def make(task: Any, *overrides: str, out: Path, **fields: Any) -> TrainingPlan:
        settings = settings_for(task, root=root, section=None, overrides=(*SMALL[task], *overrides))
        usual = {"model": "mini-clip", "data": "animals", "root": root, "stream": io.StringIO()}
        return TrainingPlan(task=task, settings=settings, out=out, **{**usual, **fields})

    return make


@pytest.fixture
def make_plan(
    plan_for: Callable[..., TrainingPlan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., TrainingPlan]:
    """As `plan_for`, into a folder of the test, without the time that a chart takes."""
    monkeypatch.setattr("natadv.training.train.chart", lambda *_, **__: b"a chart")

    def make(task: Any, *overrides: str, **fields: Any) -> TrainingPlan:
        return plan_for(task, *overrides, **{"out": tmp_path / "head", **fields})

    return make


@pytest.fixture(scope="session")
def finished(
    plan_for: Callable[..., TrainingPlan], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """For each task the folder of a head that was trained to the end; nobody may change it."""
    folders = {task: tmp_path_factory.mktemp(task) / "head" for task in SMALL}
    for task, out in folders.items():
        train(plan_for(task, out=out))
    return folders


@pytest.fixture
def repacked(root: Path) -> Callable[..., str]:
    """The name of a dataset of other samples in the same repository."""

    def pack(name: str, rows: list[Sample], *tasks: Any) -> str:
        card = CardDraft(name=name, tasks=tasks, **DRAFT)
        write_dataset(root / "fixtures" / "datasets" / name, card, rows, force=True)
        return name

    return pack


def _rows(number: int) -> Iterator[Sample]:
    rng = rng_for("tests of training", number)
    scene = draw_scene(NAMES[number % 4], STYLES["training"], split="seen", rng=rng)
    picture = lossless(render(scene))
    for row in range(ROWS_EACH):
        phrase = phrase_of(scene, rng=rng)
        question = question_of(scene, rng=rng, answer_type="other")
        yield Sample(
            id=f"animals-{number:03d}-{row}",
            group=f"animals-{number:03d}",
            image=picture,
            label=number % 4,
            phrase=phrase.text,
            mask=phrase.mask,
            question=question.text,
            answers=question.answers,
            answer_type=question.type,
        )

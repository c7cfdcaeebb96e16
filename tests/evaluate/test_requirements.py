"""Everything that a run lacks is named at once, as commands."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from natadv.errors import NotFetchedError
from natadv.evaluate import grid as grid_module
from natadv.evaluate.grid import Request, make_grid
from natadv.evaluate.requirements import missing, script
from natadv.gate.rules import Thresholds, Tier, TierGrid
from natadv.types import ModelSpec

ROOT = Path(__file__).parents[2]
HERE, ABSENT, GATED = "clip-vit-b32", "clip-vit-b16", "paligemma2-3b-pt-224"
CELLS = ("classification/clean/plain", "classification/natural/imagenet-a", "vqa/clean/mine")


@pytest.fixture
def grid(tmp_path, plain, monkeypatch):
    """A grid of one model that is here and two that are not, on one dataset of three."""

    def resolve_all(names, *, root, base):
        for name in names:
            if name != HERE:
                raise NotFetchedError(f"{name} is not here")
        folder = Path(HERE)
        kind = ("transformers-clip", ("classification",))
        return tuple(ModelSpec(name, name, "clip", folder, *kind) for name in names)

    monkeypatch.setattr(grid_module, "resolve_all", resolve_all)
    tier = Tier("t", (TierGrid((HERE, ABSENT, GATED), CELLS),))
    thresholds = Thresholds("t", 0.95, {"t": tier}, ())
    return make_grid(Request(root=tmp_path), thresholds)


def test_a_model_that_was_not_fetched_has_its_cases(grid):
    assert len(grid.cases) == 9
    assert list(grid.specs) == [HERE]
    assert grid.absent == {ABSENT: f"{ABSENT} is not here", GATED: f"{GATED} is not here"}
    assert grid.lineages == {name: name for name in (HERE, ABSENT, GATED)}


def test_models_datasets_and_heads_are_named_each_once(grid):
    lacking = missing(grid, grid.cases)

    assert [(row.kind, row.name) for row in lacking] == [
        ("model", ABSENT),
        ("model", GATED),
        ("dataset", "imagenet-a"),
        ("dataset", "mine"),
        ("dataset", "vqa-v2-train"),
        ("head", f"{HERE}/vqa"),
        ("head", f"{ABSENT}/vqa"),
    ]


def test_the_script_gets_everything_in_order(grid):
    lines = script(missing(grid, grid.cases))

    assert lines[0].startswith("# accept its licence (Gemma) on https://huggingface.co/google/pali")
    assert lines[1] == f"natadv models fetch {ABSENT} {GATED}"
    assert lines[2] == "# dataset imagenet-a"
    assert "imagenet-a.tar" in lines[3]
    assert lines[-3:] == [
        f"for model in {HERE} {ABSENT}; do",
        "  natadv train vqa --model $model --data vqa-v2-train --out fixtures/heads/$model/vqa",
        "done",
    ]


def test_only_what_the_cases_need_is_missing(grid):
    plain = [case for case in grid.cases if case.dataset == "plain"]

    assert [row.name for row in missing(grid, plain)] == [ABSENT, GATED]
    assert missing(grid, [case for case in plain if case.model == HERE]) == []


def test_no_head_is_missing_that_could_not_serve_exemplars(grid):
    """Heads read no exemplars, so training one would leave its case as it is."""
    spec = replace(grid.specs[HERE], exemplars=())
    of_head = [case for case in grid.cases if (case.model, case.task) == (HERE, "vqa")]

    assert [row.kind for row in missing(grid, of_head)] == ["dataset", "dataset", "head"]
    few_shot = replace(grid, specs={HERE: spec})
    assert [row.kind for row in missing(few_shot, of_head)] == ["dataset"]


def test_what_a_dataset_is_made_of_comes_before_it(tmp_path, plain, monkeypatch):
    shutil.copy(ROOT / "params.yaml", tmp_path)
    (tmp_path / "fixtures/sources").mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / "fixtures/sources/dvc.yaml", tmp_path / "fixtures/sources")
    cells = ("classification/typographic/imagenet-typo-pr", "classification/clean/imagenet-pr")
    thresholds = Thresholds("t", 0.95, {"t": Tier("t", (TierGrid((ABSENT,), cells),))}, ())
    grid = make_grid(Request(root=tmp_path), thresholds)

    names = [row.name for row in missing(grid, grid.cases) if row.kind == "dataset"]

    assert names == ["imagenet", "imagenet-pr", "imagenet-typo-pr"]

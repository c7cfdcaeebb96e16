from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from natadv.errors import ConfigError, DataError, unknown_name
from natadv.evaluate import grid as grid_module
from natadv.evaluate.grid import Request, make_grid
from natadv.gate.rules import Thresholds, Tier, TierGrid
from natadv.types import ModelSpec

MODELS = ("mini-clip", "mini-siglip")
PLAIN, TYPO = "classification/clean/plain", "classification/typographic/plain-typo"


def spec(name: str) -> ModelSpec:
    lineage = name if name in MODELS else "mini-clip"
    return ModelSpec(name, lineage, "mini", Path(name), "transformers-clip", ("classification",))


@pytest.fixture(autouse=True)
def zoo(monkeypatch):
    """A zoo of two models, and one checkpoint folder."""

    def resolve_all(names, *, root, base):
        for name in names:
            if name not in (*MODELS, "tuned"):
                raise unknown_name("model", name, MODELS)
        return tuple(map(spec, names))

    monkeypatch.setattr(grid_module, "resolve_all", resolve_all)


@pytest.fixture
def thresholds():
    tiers = {
        "mini": Tier("mini", (TierGrid(MODELS, (PLAIN, TYPO)),)),
        "pr": Tier("pr", (TierGrid(MODELS[:1], (PLAIN,)),), limit=4),
        "nightly": Tier("nightly", (TierGrid(MODELS[:1], ("classification/clean/not-pulled",)),)),
    }
    return Thresholds("mini", 0.95, tiers, ())


@pytest.fixture
def request_of(tmp_path, plain, typo):
    def make(**asked) -> Request:
        return Request(root=tmp_path, **asked)

    return make


def addresses(grid) -> list[str]:
    return [case.address for case in grid.cases]


def test_a_tier_is_its_cases_for_each_of_its_models(request_of, thresholds):
    grid = make_grid(request_of(), thresholds)

    assert addresses(grid) == [f"{cell}/{model}" for cell in (PLAIN, TYPO) for model in MODELS]
    assert set(grid.cases) == set(grid.tier.grid)
    assert list(grid.specs) == list(MODELS)
    assert grid.limit is None
    assert grid.case(f"{PLAIN}/mini-clip") == grid.cases[0]
    assert grid.case(f"{PLAIN}/nobody") is None


def test_every_process_makes_the_same_grid_in_the_same_order(request_of, thresholds):
    assert addresses(make_grid(request_of(), thresholds)) == addresses(
        make_grid(request_of(), thresholds)
    )


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"tasks": ("clasification",)}, "unknown task 'clasification', did you mean 'classif"),
        ({"scenarios": ("typografic",)}, "unknown scenario 'typografic', did you mean 'typog"),
        ({"datasets": ("plain-type",)}, "unknown dataset 'plain-type', did you mean 'plain-typo'"),
        ({"models": ("mini-clib",)}, "unknown model 'mini-clib', did you mean 'mini-clip'"),
        ({"tier": "minni"}, "unknown tier 'minni', did you mean 'mini'"),
        (
            {"tasks": ("vqa",), "scenarios": ("clean",)},
            "tier 'mini' holds no case for --task vqa --scenario clean; see its cases in the",
        ),
        ({"scenarios": ("natural",), "datasets": ("plain",)}, "--scenario natural --dataset plain"),
    ],
)
def test_a_name_that_selects_nothing_is_refused(request_of, thresholds, asked, message):
    with pytest.raises(ConfigError) as caught:
        make_grid(request_of(**asked), thresholds)

    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("asked", "cells"),
    [
        ({"scenarios": ("typographic",)}, [TYPO]),
        ({"scenarios": ("typographic", "clean")}, [PLAIN, TYPO]),
        ({"datasets": ("plain",)}, [PLAIN]),
        ({"datasets": ("plain-typo", "plain", "plain-typo")}, [TYPO, PLAIN]),
        ({"tasks": ("classification",)}, [PLAIN, TYPO]),
    ],
)
def test_names_narrow_the_tier(request_of, thresholds, asked, cells):
    grid = make_grid(request_of(models=("mini-clip",), **asked), thresholds)

    assert addresses(grid) == [f"{cell}/mini-clip" for cell in cells]


def test_a_dataset_outside_the_tier_is_added_as_its_card_says(
    request_of, thresholds, pack, clean_samples
):
    asking = [replace(s, question="what is it?", answers=("cat",) * 4) for s in clean_samples]
    pack("photos", asking, scenario="natural", tasks=("classification", "vqa"))
    asked = request_of(models=("mini-clip",), datasets=("photos", "plain"))
    grid = make_grid(asked, thresholds)

    assert addresses(grid) == [
        "classification/natural/photos/mini-clip",
        "vqa/natural/photos/mini-clip",
        f"{PLAIN}/mini-clip",
    ]


def test_an_analysis_of_a_dataset_outside_the_tier_is_added_only_if_it_is_named(
    request_of, thresholds, pack, clean_samples
):
    pack("photos", clean_samples, scenario="natural")
    asked = request_of(models=("mini-clip",), datasets=("photos",), tasks=("heads",))

    assert addresses(make_grid(asked, thresholds)) == ["heads/natural/photos/mini-clip"]


def test_models_of_the_user_stand_in_for_those_of_the_tier(request_of, thresholds):
    grid = make_grid(request_of(models=("tuned",)), thresholds)

    assert addresses(grid) == [f"{PLAIN}/tuned", f"{TYPO}/tuned"]
    assert grid.specs["tuned"].lineage == "mini-clip"


@pytest.mark.parametrize(
    ("tier", "limit", "measured", "planned"),
    [
        ("mini", None, 10, 10),
        ("mini", 3, 3, 10),  # fewer than planned: cannot pass
        ("mini", 99, 10, 10),
        ("pr", None, 4, 4),
        ("pr", 2, 2, 4),
        ("pr", 9, 4, 4),  # the tier's own limit stays
    ],
)
def test_a_limit_never_changes_what_the_tier_asks_for(
    request_of, thresholds, tier, limit, measured, planned
):
    grid = make_grid(request_of(tier=tier, limit=limit), thresholds)

    assert grid.rows("plain") == measured
    assert grid.planned_rows("plain") == planned


def test_a_dataset_that_is_not_there_has_no_rows_and_stays_in_the_grid(request_of, thresholds):
    grid = make_grid(request_of(tier="nightly"), thresholds)

    assert addresses(grid) == ["classification/clean/not-pulled/mini-clip"]
    assert grid.rows("not-pulled") == 0
    assert grid.planned_rows("not-pulled") == 0


def test_a_broken_card_is_refused_and_named(request_of, thresholds, plain):
    card = plain.folder / "card.yaml"
    card.write_text(card.read_text().replace("rows: 10", "rows: 11"))

    with pytest.raises(DataError, match=r"card\.yaml:.*revision is"):
        make_grid(request_of(), thresholds)


def test_relative_model_folders_begin_where_the_user_stands_and_those_of_a_tier_at_the_root(
    request_of, thresholds, monkeypatch, tmp_path
):
    seen = []

    def resolve_all(names, *, root, base):
        seen.append((root, base))
        return (spec("tuned"),)

    monkeypatch.setattr(grid_module, "resolve_all", resolve_all)
    make_grid(request_of(models=("tuned",)), thresholds)
    make_grid(replace(request_of(models=("tuned",)), base=tmp_path / "there"), thresholds)
    make_grid(replace(request_of(), base=tmp_path / "there"), thresholds)

    assert seen == [(tmp_path, tmp_path), (tmp_path, tmp_path / "there"), (tmp_path, tmp_path)]

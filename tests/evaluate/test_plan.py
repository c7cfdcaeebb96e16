from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from natadv.errors import ModelError
from natadv.evaluate import plan as plan_module
from natadv.evaluate.compute import compute
from natadv.evaluate.grid import Grid
from natadv.evaluate.plan import case_evidence, case_plan, unique_units, units_of
from natadv.evaluate.store import write_atomically
from natadv.evaluate.units import SHARD_ROWS, Numerics
from natadv.gate.cases import mismatches
from natadv.gate.rules import Thresholds, Tier, TierGrid
from natadv.types import Case, ModelSpec

NUMERICS = Numerics("cpu", "float32", batch_size=4, threads=1, packages={"torch": "2"})
CLEAN = Case("classification", "clean", "plain", "mini-clip")
TYPO = Case("classification", "typographic", "plain-typo", "mini-clip")


def spec(name: str) -> ModelSpec:
    return ModelSpec(name, "mini-clip", "mini", Path(name), "l", ("classification",))


@pytest.fixture(autouse=True)
def weights(monkeypatch):
    """Weights by model name; a name that is not there cannot be read."""
    known = {"mini-clip": "c" * 64, "copy": "c" * 64, "tuned": "d" * 64, "closed": "e" * 64}

    def fingerprint(found):
        if found.name not in known:
            raise ModelError(f"{found.name}: model.safetensors is truncated; download it again")
        return known[found.name]

    monkeypatch.setattr(plan_module, "fingerprint", fingerprint)
    return known


@pytest.fixture
def grid(plain, typo):
    tier = Tier("mini", (TierGrid(("mini-clip",), ()),))
    return Grid(
        Thresholds("mini", 0.95, {"mini": tier}, ()),
        tier,
        (CLEAN, TYPO),
        {name: spec(name) for name in ("mini-clip", "copy", "tuned", "damaged")}
        | {"closed": replace(spec("closed"), classes=("cat", "bird"))},
        {d.name: d for d in (plain, typo)},
        None,
    )


@pytest.fixture
def fill(store, grid, loaded):
    """Compute units into the store."""

    def filled(units):
        for unit in units:
            twin_of = grid.datasets[unit.dataset].card.twin_of
            clean = grid.datasets.get(twin_of or "")
            found = compute([unit], grid.datasets[unit.dataset], clean=clean, loaded=loaded)
            store.put(unit.key, found[unit.key])

    return filled


def evidence(case, grid, store, run, **other):
    return case_evidence(
        case, units_of(case, grid, numerics=NUMERICS), store=store, run=run, **other
    )


def test_a_clean_case_needs_its_own_rows_only(grid):
    units = units_of(CLEAN, grid, numerics=NUMERICS)

    assert units.problem == ""
    assert [(u.start, u.stop, u.variant) for u in units.all()] == [(0, 10, "attack")]
    (unit,) = units.attack
    assert unit.revision == grid.datasets["plain"].card.revision
    assert unit.weights == "c" * 64
    assert unit.numerics == NUMERICS


def test_an_attacked_case_needs_its_twins_and_its_controls(grid):
    units = units_of(TYPO, grid, numerics=NUMERICS)

    assert {
        role: [(u.dataset, u.variant) for u in found] for role, found in units.roles().items()
    } == {
        "attack": [("plain-typo", "attack")],
        "clean": [("plain", "attack")],
        "occlusion": [("plain-typo", "occlusion")],
        "matched": [("plain-typo", "matched")],
    }


def test_without_overlays_there_are_no_controls(grid, pack, typo_samples):
    bare = [replace(s, overlay=None) for s in typo_samples]
    dataset = pack("bare", bare, scenario="typographic", twin_of="plain")
    grid = replace(grid, datasets={**grid.datasets, "bare": dataset})
    units = units_of(replace(TYPO, dataset="bare"), grid, numerics=NUMERICS)

    assert units.occlusion == units.matched == ()
    assert len(units.attack) == len(units.clean) == 1


def test_rows_are_cut_in_fixed_shards_up_to_the_limit(grid):
    assert [u.stop for u in units_of(CLEAN, replace(grid, limit=3), numerics=NUMERICS).attack] == [
        3
    ]
    assert SHARD_ROWS == 256


def test_two_cases_share_the_units_that_are_the_same(grid):
    plans = [
        units_of(case, grid, numerics=NUMERICS)
        for case in (CLEAN, TYPO, replace(CLEAN, model="copy"), replace(CLEAN, model="tuned"))
    ]
    units = unique_units(plans)

    assert len({u.key for u in units}) == len(units) == 5
    assert [u.weights[0] for u in units if u.dataset == "plain"] == ["c", "d"]


@pytest.mark.parametrize(
    ("case", "problem"),
    [
        (
            replace(CLEAN, dataset="imagenet-a"),
            "dataset 'imagenet-a' is not at fixtures/datasets/imagenet-a; "
            "natadv data status says how to get it",
        ),
        (
            replace(CLEAN, model="damaged"),
            "damaged: model.safetensors is truncated; download it again",
        ),
        (
            replace(CLEAN, model="closed"),
            "closed knows 2 class names, but 'dog', 'cow' of the dataset's 3 are",
        ),
        (
            replace(CLEAN, scenario="typographic"),
            "the tier asks for classification/typographic, the card of 'plain' says "
            "classification/clean; change the tier",
        ),
        (
            replace(CLEAN, task="vqa"),
            "the tier asks for vqa/clean, the card of 'plain' says classification/clean",
        ),
    ],
)
def test_what_cannot_be_measured_fails_its_own_case_and_says_why(grid, store, run, case, problem):
    units = units_of(case, grid, numerics=NUMERICS)

    assert units.all() == ()
    assert units.problem.startswith(problem)
    found = case_evidence(case, units, store=store, run=run)
    assert found.problems == (units.problem,)
    assert found.evidence.attack.n == 0
    assert mismatches(case_plan(case, units, grid=grid, rows=10), found)


def test_a_missing_twin_dataset_is_named(grid, typo):
    grid = replace(grid, datasets={"plain-typo": typo})

    assert "dataset 'plain' is not at" in units_of(TYPO, grid, numerics=NUMERICS).problem


def test_a_case_measured_as_planned_has_no_mismatch(grid, store, run, fill):
    for case in (CLEAN, TYPO):
        units = units_of(case, grid, numerics=NUMERICS)
        fill(units.all())
        found = case_evidence(case, units, store=store, run=run)

        assert found.problems == ()
        assert mismatches(case_plan(case, units, grid=grid, rows=10), found) == ()
        assert found.evidence.attack.n == 10


def test_the_rows_of_each_role_find_their_place(grid, store, run, fill):
    units = units_of(TYPO, grid, numerics=NUMERICS)
    fill(units.all())
    found = case_evidence(TYPO, units, store=store, run=run).evidence

    assert found.clean is not None
    assert found.clean.id == found.attack.twin
    for rows in (found.occlusion, found.matched):
        assert rows is not None
        assert rows.id == found.attack.id
        assert rows.values["margin"].tobytes() != found.attack.values["margin"].tobytes()


@pytest.mark.parametrize("role", ["attack", "clean", "occlusion", "matched"])
def test_a_role_that_was_not_measured_is_a_problem(grid, store, run, fill, role):
    units = units_of(TYPO, grid, numerics=NUMERICS)
    (missing,) = units.roles()[role]
    fill(u for u in units.all() if u != missing)
    found = case_evidence(TYPO, units, store=store, run=run)

    assert found.problems == ("some of its units were not measured",)


def test_what_failed_in_this_run_is_told(grid, store, run, fill):
    units = units_of(TYPO, grid, numerics=NUMERICS)
    for unit in units.all():
        run.fail(unit.key, "CUDA out of memory")
    found = case_evidence(TYPO, units, store=store, run=run, notes=("worker gw1: disk full",))

    assert found.problems == ("CUDA out of memory", "worker gw1: disk full")


def test_notes_matter_only_where_something_is_missing(grid, store, run, fill):
    fill(units_of(CLEAN, grid, numerics=NUMERICS).all())

    assert evidence(CLEAN, grid, store, run, notes=("disk full",)).problems == ()


def test_a_result_that_was_damaged_since_is_a_problem_that_names_the_file(grid, store, run, fill):
    (unit,) = units_of(CLEAN, grid, numerics=NUMERICS).attack
    write_atomically(store.path(unit.key), '{"key": "')

    (problem,) = evidence(CLEAN, grid, store, run).problems
    assert unit.key in problem
    assert "was altered after it was written; run again" in problem


@pytest.mark.parametrize("richer", [0, 1])
def test_units_with_other_columns_are_a_problem_of_their_case(
    grid, store, run, fill, monkeypatch, richer
):
    """As of a model that has more heads in one process than in another."""
    monkeypatch.setattr(plan_module, "shards", lambda rows: ((0, 5), (5, rows)))
    units = units_of(CLEAN, grid, numerics=NUMERICS)
    fill(units.attack)
    key = units.attack[richer].key
    stored = store.get(key)
    values = stored["outcomes"]["values"]
    more = {**values, "layer_9_head_1": values["correct"]}
    store.put(key, {**stored, "outcomes": {**stored["outcomes"], "values": more}})

    found = case_evidence(CLEAN, units, store=store, run=run)

    (problem,) = found.problems
    assert "layer_9_head_1 is not in each of them" in problem
    assert found.evidence.attack.n == 0


@pytest.mark.parametrize(
    ("field", "what"),
    [("revision", "data revision"), ("weights", "weights"), ("protocol", "protocol")],
)
def test_a_mixture_is_shown_and_equals_no_plan(grid, store, run, fill, monkeypatch, field, what):
    monkeypatch.setattr(plan_module, "shards", lambda rows: ((0, 5), (5, rows)))
    units = units_of(CLEAN, grid, numerics=NUMERICS)
    fill(units.attack)
    second = units.attack[1]
    stored = store.get(second.key)
    store.put(second.key, {**stored, field: "other"})
    found = case_evidence(CLEAN, units, store=store, run=run)

    mine = stored[field]
    assert getattr(found, {"revision": "data_revision"}.get(field, field)) == " and ".join(
        sorted([mine, "other"])
    )
    (reason,) = mismatches(case_plan(CLEAN, units, grid=grid, rows=10), found)
    assert reason.startswith(f"expected {what}")
    assert "other" in reason


def test_fewer_rows_than_the_tier_asks_for_are_a_mismatch(grid, store, run, fill):
    small = replace(grid, limit=4)
    units = units_of(CLEAN, small, numerics=NUMERICS)
    fill(units.all())
    found = case_evidence(CLEAN, units, store=store, run=run)

    (reason,) = mismatches(
        case_plan(CLEAN, units, grid=small, rows=small.planned_rows("plain")), found
    )
    assert reason == "expected 10 samples, got 4 and 0 errors"


def test_a_plan_names_the_lineage_whose_floors_hold(grid):
    case = replace(CLEAN, model="tuned")
    plan = case_plan(case, units_of(case, grid, numerics=NUMERICS), grid=grid, rows=10)

    assert plan.lineage == "mini-clip"
    assert plan.weights == "d" * 64
    assert plan.data_revision == grid.datasets["plain"].card.revision


def test_heads_are_masked_on_attacked_pictures_and_their_clean_twins(grid):
    case = replace(TYPO, task="heads")
    units = units_of(case, grid, numerics=NUMERICS)

    assert not units.problem
    assert {unit.protocol for unit in units.all()} == {"heads-1"}
    assert [u.dataset for u in units.attack + units.clean] == ["plain-typo", "plain"]
    assert not units.occlusion + units.matched


def test_a_model_without_classes_cannot_have_its_heads_masked(grid):
    answerer = replace(spec("mini-clip"), tasks=("vqa",))
    grid = replace(grid, specs={**grid.specs, "mini-clip": answerer})
    found = units_of(replace(CLEAN, task="heads"), grid, numerics=NUMERICS)

    assert found.problem == (
        "mini-clip cannot do heads, which analyses classification: the model can do vqa alone; "
        "name another model"
    )

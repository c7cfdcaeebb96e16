"""From a head's folder to a unit's key: found, checked without torch, loaded with its tower."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from natadv.errors import DataError, ModelError
from natadv.evaluate import plan as plan_module
from natadv.evaluate.grid import Grid
from natadv.evaluate.model_runner import ModelRunner
from natadv.evaluate.plan import case_evidence, case_plan, head_of, kept_masks, units_of
from natadv.evaluate.units import Numerics
from natadv.gate.cases import mismatches
from natadv.gate.rules import Thresholds, Tier, TierGrid
from natadv.heads.decoder import Decoder
from natadv.heads.folder import save_head
from natadv.heads.head_file import DecoderConfig
from natadv.models import loading
from natadv.tasks.segmentation import STORED_MASKS
from natadv.types import Case, ForwardFeatures, ModelSpec

NUMERICS = Numerics("cpu", "float32", batch_size=4, threads=1, packages={"torch": "2"})
TOWER = "c" * 64
CASE = Case("segmentation", "clean", "plain", "mini-clip")


@pytest.fixture
def folder(tmp_path) -> Path:
    torch.manual_seed(1)
    config = DecoderConfig((1,), (3,), 3, 8, reduce_width=8, heads=2, feed_forward=16)
    save_head(tmp_path / "head", Decoder(config), tower=TOWER, facts={})
    return tmp_path / "head"


@pytest.fixture
def spec(folder):
    return ModelSpec(
        "mini-clip",
        "mini-clip",
        "mini",
        Path("nowhere"),
        "transformers-clip",
        ("classification",),
        heads={"segmentation": folder},
    )


@pytest.fixture
def plain(pack, clean_samples):
    mask = Image.new("L", (32, 32), 0)
    mask.paste(255, (4, 4, 20, 20))
    buffer = io.BytesIO()
    mask.save(buffer, "PNG")
    asked = [replace(s, phrase="the cat", mask=buffer.getvalue()) for s in clean_samples]
    return pack("plain", asked, tasks=("classification", "segmentation"))


@pytest.fixture
def grid(plain, spec, monkeypatch):
    monkeypatch.setattr(plan_module, "fingerprint", lambda _: TOWER)
    tier = Tier("mini", (TierGrid(("mini-clip",), ()),))
    return Grid(
        Thresholds("mini", 0.95, {"mini": tier}, ()),
        tier,
        (CASE,),
        {"mini-clip": spec},
        {"plain": plain},
        None,
    )


@pytest.fixture
def runner(store, run, grid, eyes, monkeypatch):
    def forward_features(images, layers):
        places = np.stack([np.asarray(i.resize((4, 4)), np.float32) / 255 for i in images])
        return ForwardFeatures(eyes.embed_images(images), (places,) * len(layers))

    eyes.depth, eyes.forward_features = 1, forward_features
    monkeypatch.setattr(loading, "load_hashed", lambda *_, **__: eyes)
    return ModelRunner(store, grid.datasets, grid.specs, run=run)


def test_the_head_is_part_of_what_answers(grid, folder):
    (unit,) = units_of(CASE, grid, numerics=NUMERICS).attack
    other = replace(unit, head="1" * 64)

    assert unit.head == plan_module.head_file.fingerprint(folder)
    assert unit.weights == TOWER
    assert unit.answers_with not in (TOWER, unit.head, other.answers_with)
    assert unit.key != other.key
    assert unit.rows_key == other.rows_key


def test_a_model_that_answers_by_itself_needs_no_head(grid, spec):
    own = replace(spec, tasks=("classification", "segmentation"))

    assert head_of(CASE, own, weights=TOWER) == ""
    assert head_of(replace(CASE, task="classification"), spec, weights=TOWER) == ""


def test_heads_belong_to_the_model_without_exemplars(spec):
    shots = replace(spec, name="mini-clip@2-shot", exemplars=(("a?", "b"),) * 2, tasks=("vqa",))

    assert head_of(replace(CASE, task="vqa"), shots, weights=TOWER) == ""
    with pytest.raises(ModelError, match="exemplars are for questions alone; ask mini-clip"):
        head_of(CASE, shots, weights=TOWER)


def test_without_a_head_the_case_says_how_to_get_one(grid, spec):
    grid = replace(grid, specs={"mini-clip": replace(spec, heads={})})
    units = units_of(CASE, grid, numerics=NUMERICS)

    assert units.all() == ()
    assert units.problem == (
        "mini-clip cannot do segmentation: it can do classification and has no head for it; train "
        "one (natadv train segmentation --model mini-clip --data NAME --out "
        "fixtures/heads/mini-clip/segmentation), or leave it out with --task"
    )


def test_no_command_is_named_for_a_head_that_nobody_can_train(spec):
    answerer = replace(spec, heads={}, tasks=("vqa",))
    with pytest.raises(ModelError, match="it can do vqa, and no head does classification; leave"):
        head_of(replace(CASE, task="classification"), answerer, weights=TOWER)


@pytest.mark.parametrize(
    ("named", "told"),
    [
        (
            {"name": "mine", "folder": Path("my/own")},
            "--model my/own --data NAME --out my/own/heads",
        ),
        ({"name": "mine", "factory": "mine:make"}, "--model mine:make --data NAME --out DIR"),
    ],
)
def test_the_command_names_a_model_as_its_user_does(grid, spec, named, told):
    with pytest.raises(ModelError, match=told):
        head_of(CASE, replace(spec, heads={}, **named), weights=TOWER)


def test_a_head_of_another_tower_is_refused_before_any_work(spec):
    with pytest.raises(ModelError, match=r"on the model with hash cccccccccccc, mini-clip has ddd"):
        head_of(CASE, spec, weights="d" * 64)


def test_a_head_of_another_task_is_refused(spec, folder):
    crossed = replace(spec, heads={"vqa": folder})

    with pytest.raises(ModelError, match="this head is for segmentation"):
        head_of(replace(CASE, task="vqa"), crossed, weights=TOWER)


def test_a_damaged_head_fails_its_own_case(grid, folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"abcd")
    units = units_of(CASE, grid, numerics=NUMERICS)

    assert units.all() == ()
    assert "the file is damaged or of another head" in units.problem


def test_the_evidence_rests_on_tower_and_head(grid, runner, store, run):
    units = units_of(CASE, grid, numerics=NUMERICS)
    for unit in units.all():
        store.put(unit.key, runner.compute(unit))
    plan = case_plan(CASE, units, grid=grid, rows=10)
    found = case_evidence(CASE, units, store=store, run=run)

    assert found.weights == plan.weights == units.attack[0].answers_with
    assert mismatches(plan, found) == ()
    assert found.evidence.attack.n == 10

    masks = kept_masks(units, store=store, run=run)

    assert masks.keys() == set(found.evidence.attack.id)
    assert len(masks) == 10 <= STORED_MASKS
    for png in masks.values():
        assert Image.open(io.BytesIO(png)).size == (32, 32)


def test_no_masks_where_nothing_was_measured(grid, store, run):
    assert kept_masks(units_of(CASE, grid, numerics=NUMERICS), store=store, run=run) == {}


def test_tasks_of_the_same_rows_wait_for_each_other(grid, runner):
    (finds,) = units_of(CASE, grid, numerics=NUMERICS).attack
    (names,) = units_of(replace(CASE, task="classification"), grid, numerics=NUMERICS).attack
    first = runner.compute(finds, (names,))
    second = runner.compute(names)

    assert (first["encoded"], second["encoded"]) == (10, 0)
    assert second["outcomes"] == ModelRunner.compute(runner, names)["outcomes"]


def test_a_task_that_fails_does_not_take_the_others_down(grid, runner, monkeypatch):
    (finds,) = units_of(CASE, grid, numerics=NUMERICS).attack
    (names,) = units_of(replace(CASE, task="classification"), grid, numerics=NUMERICS).attack
    answers = replace(names, task="vqa", protocol="vqa-1")

    with pytest.raises(ModelError, match="cannot do vqa"):
        runner.compute(answers, (finds, names))
    assert runner.compute(finds, (names,))["encoded"] == 10
    assert runner.compute(names)["outcomes"]["id"]


def test_a_task_beside_that_fails_leaves_the_first_its_result(grid, runner):
    (names,) = units_of(replace(CASE, task="classification"), grid, numerics=NUMERICS).attack
    answers = replace(names, task="vqa", protocol="vqa-1")

    assert runner.compute(names, (answers,))["images"] == 10
    with pytest.raises(ModelError, match="cannot do vqa"):
        runner.compute(answers)


def test_a_head_that_was_exchanged_after_planning_is_refused(grid, runner, folder):
    (unit,) = units_of(CASE, grid, numerics=NUMERICS).attack
    config = DecoderConfig((1,), (3,), 3, 8, reduce_width=8, heads=2, feed_forward=16)
    save_head(folder, Decoder(config), tower="d" * 64, facts={})

    with pytest.raises(ModelError, match="was trained on a tower with hash dddd"):
        runner.compute(unit)


def test_missing_masks_are_data_errors(pack, clean_samples):
    with pytest.raises(DataError, match="expected a phrase"):
        pack("bare", clean_samples, tasks=("segmentation",))


def test_a_head_that_was_replaced_during_the_run_answers_for_nothing(grid, folder, runner):
    (unit,) = units_of(CASE, grid, numerics=NUMERICS).attack
    torch.manual_seed(2)
    config = DecoderConfig((1,), (3,), 3, 8, reduce_width=8, heads=2, feed_forward=16)
    save_head(folder, Decoder(config), tower=TOWER, facts={})

    with pytest.raises(ModelError, match="changed since the run began"):
        runner.compute(unit)

"""Heads on every kind of tower: trained, saved beside the checkpoint, found and measured there."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from natadv.data.images import decode_image
from natadv.errors import ConfigError, ModelError
from natadv.evaluate.datasets import dataset_named
from natadv.evaluate.grid import Grid
from natadv.evaluate.model_runner import ModelRunner
from natadv.evaluate.outcomes_json import outcomes_of
from natadv.evaluate.plan import units_of
from natadv.evaluate.run import Run
from natadv.evaluate.store import Store
from natadv.evaluate.units import Numerics
from natadv.gate.rules import Thresholds, Tier
from natadv.heads.folder import load_head
from natadv.heads.head_file import read_head_file
from natadv.models.loading import fingerprint, load
from natadv.models.resolve import resolve
from natadv.tasks import segmentation
from natadv.training.tower import load_tower
from natadv.training.train import train
from natadv.types import Case
from tests.models.conftest import copied as copied
from tests.models.conftest import tiny_blip2_opt as tiny_blip2_opt
from tests.models.conftest import tiny_clip as tiny_clip
from tests.models.conftest import tiny_paligemma as tiny_paligemma
from tests.models.conftest import tiny_siglip2 as tiny_siglip2

NUMERICS = Numerics("cpu", "float32", batch_size=8, threads=1, packages={"torch": "2"})


@pytest.fixture
def head_on(plan_for, copied, monkeypatch):
    """Train a head on a copy of a checkpoint, where the gate finds it; the folder of the copy."""
    monkeypatch.setattr("natadv.training.train.chart", lambda *_, **__: b"a chart")

    def make(folder, task, *overrides):
        checkpoint = copied(folder, name=f"my-{folder.name}")
        model, out = str(checkpoint), checkpoint / "heads" / task
        train(plan_for(task, *overrides, out=out, model=model))
        return checkpoint

    return make


@pytest.fixture
def measure(root, tmp_path):
    """The rows of a task on `animals`, through the gate's plan, runner and evaluator."""

    def rows(name, task):
        (spec,) = resolve(name, root=root)
        dataset = dataset_named("animals", root)
        case = Case(task, "clean", "animals", spec.name)
        tier = Tier("t", (spec.name,), ())
        thresholds = Thresholds("t", 0.95, {"t": tier}, ())
        grid = Grid(thresholds, tier, (case,), {spec.name: spec}, {"animals": dataset}, None)
        units = units_of(case, grid, numerics=NUMERICS)
        assert units.problem == ""
        store = Store(tmp_path / "store")
        store.prepare()
        run = Run(store, "run")
        run.prepare()
        runner = ModelRunner(store, grid.datasets, grid.specs, run=run)
        return outcomes_of([runner.compute(unit) for unit in units.attack])

    return rows


@pytest.mark.parametrize(
    ("name", "input_px"),
    [("tiny_paligemma", None), ("tiny_blip2_opt", None), ("tiny_blip2_opt", 50), ("tiny_clip", 42)],
)
def test_a_decoder_on_any_tower_is_measured_as_it_was_trained(
    request, head_on, measure, samples, root, name, input_px
):
    asked = "null" if input_px is None else str(input_px)
    folder = head_on(request.getfixturevalue(name), "segmentation", f"input_px={asked}")
    found = measure(str(folder), "segmentation")

    (spec,) = resolve(str(folder), root=root)
    head = load_head(spec.heads["segmentation"], tower=fingerprint(spec))
    # The nearest multiple of the patch, which is 16 or 8.
    side = {None: 32, 50: 48, 42: 40}[input_px]
    assert head.input_px == (None if input_px is None else side)
    stored = json.loads((folder / "heads" / "segmentation" / "config.json").read_text())
    assert ("input_px" in stored["config"]) == (input_px is not None)
    model = load(spec, device="cpu", dtype="float32", threads=1)
    tower = model.at_resolution(side)
    images = [decode_image(s.image, where=s.id).resize((side, side), 3) for s in samples]
    phrases = model.embed_texts([s.phrase for s in samples])
    features = tower.forward_features(tower.prepare(images), head.tower_layers).features
    masks = head.segment(features, phrases)
    assert masks.shape[1:] == (side, side)
    expected = segmentation.outcomes(samples, list(masks), threshold=head.threshold)
    assert found.id == expected.id
    assert np.abs(found.values["iou"] - expected.values["iou"]).max() < 0.02
    assert found.values["tp"].sum() > 0


def test_a_phrase_conditions_a_decoder_of_a_generative_model(
    tiny_blip2_opt, head_on, root, samples
):
    folder = head_on(tiny_blip2_opt, "segmentation")
    (spec,) = resolve(str(folder), root=root)
    model = load(spec, device="cpu", dtype="float32", threads=1)
    head = load_head(spec.heads["segmentation"], tower=fingerprint(spec))
    image = decode_image(samples[0].image, where="")
    features = model.forward_features(model.prepare([image, image]), head.tower_layers).features

    first, second = head.segment(features, model.embed_texts(["the red cat", "a tree"]))
    assert np.abs(first - second).max() > 1e-4


def test_an_mcan_answers_in_place_of_a_generative_model_that_is_asked_so(
    tiny_paligemma, head_on, measure, root
):
    folder = head_on(tiny_paligemma, "vqa")
    itself, by_head = (measure(f"{folder}{way}", "vqa") for way in ("", "@heads"))

    answers = json.loads((folder / "heads" / "vqa" / "answers.json").read_text())
    assert set(by_head.prediction) <= set(answers)
    assert not set(itself.prediction) & set(answers)
    (spec,) = resolve(f"{folder}@heads", root=root)
    assert (spec.name, spec.tasks) == ("my-tiny-paligemma@heads", ())
    shutil.move(folder / "heads/vqa", folder / "heads/segmentation")
    (other,) = resolve(f"{folder}@heads", root=root)
    assert (list(other.heads), other.tasks) == (["segmentation"], ())
    with pytest.raises(ModelError, match=r"@heads: .* has no heads; train one \(natadv train\)"):
        resolve("mini-clip@heads", root=root)


def test_a_size_that_a_tower_cannot_read_is_refused_early(tiny_siglip2, copied, plan_for, tmp_path):
    plan = plan_for("segmentation", "input_px=352", out=tmp_path, model=str(copied(tiny_siglip2)))

    with pytest.raises((ConfigError, ModelError), match="input_px=null"):
        train(plan)


def test_the_published_size_is_the_setting_of_the_repository(root, tiny_clip, plan_for, tmp_path):
    from natadv.training.head_settings import settings_for
    from tests.training.conftest import REPOSITORY

    published = settings_for("segmentation", root=REPOSITORY, section=None, overrides=[])
    mini = settings_for("segmentation", root=REPOSITORY, section="mini-segmentation", overrides=[])
    assert (published.input_px, mini.input_px) == (352, None)
    (spec,) = resolve(str(tiny_clip), root=root)
    tower = load_tower(spec, published, device="cpu", threads=1)
    # As CLIPSeg: 22 places in a row of patches of 16, here 44 of 8.
    assert (tower.resized_px, tower.grids[0][:2], tower.patch) == (352, (44, 44), 8)


def test_heads_of_the_mini_models_read_what_their_towers_read():
    from tests.training.conftest import REPOSITORY

    for model in ("mini-clip", "mini-siglip"):
        folder = REPOSITORY / "fixtures" / "heads" / model / "segmentation"
        assert read_head_file(folder).config.input_px is None

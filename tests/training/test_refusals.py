"""Mistakes that can be found early are reported before anything is computed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from natadv.data.card import CardDraft, load_card
from natadv.data.packing import write_dataset
from natadv.errors import ConfigError, DataError, ModelError, NatadvError, UnknownNameError
from natadv.models.adapters.encoder import DualEncoder
from natadv.training.train import train

NO_LAYERS = """
import numpy as np


class Scoring:
    scale, bias, activation = 1.0, 0.0, "softmax"


class Flat:
    scoring = Scoring()
    DEPTH

    def prepare(self, images):
        return len(images)

    def embed_images(self, prepared):
        return np.ones((prepared, 1), np.float32)

    def embed_texts(self, texts):
        return np.ones((len(texts), 1), np.float32)


def make():
    from natadv.models.plugged import Plug

    return Plug(
        load=lambda device, dtype: Flat(), files=(__file__,), tasks=("classification",)
    )
"""


@pytest.fixture(autouse=True)
def nothing_computed(monkeypatch):
    """No picture of a dataset may go through a tower."""
    forward_features = DualEncoder.forward_features

    def once(self, prepared, layers):
        assert len(prepared["pixel_values"]) == 1, "the mistake was found too late"
        return forward_features(self, prepared, layers)

    monkeypatch.setattr(DualEncoder, "forward_features", once)


@pytest.fixture
def unread(monkeypatch):
    """No row of a dataset may be read."""

    def refuse(*_, **__):
        raise AssertionError("the mistake was found too late")

    monkeypatch.setattr("natadv.training.train.read_rows", refuse)


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"model": "mini-clop"}, UnknownNameError, "did you mean 'mini-clip'"),
        ({"data": "animal"}, UnknownNameError, "did you mean 'animals'"),
        ({"data": "named"}, DataError, "'named' has no segmentation: its tasks are classification"),
        ({"model": "mini-*"}, ConfigError, "means 2 models"),
    ],
)
def test_names_that_mean_nothing_here(make_plan, unread, fields, error, message):
    with pytest.raises(error) as caught:
        train(make_plan("segmentation", **fields))

    assert message in str(caught.value)


@pytest.mark.parametrize("task", ["segmentation", "vqa"])
def test_a_dataset_whose_pictures_are_drawn_when_shown(make_plan, unread, root, samples, task):
    ground = load_card(root / "fixtures/datasets/animals")
    drawn = CardDraft(
        name="drawn",
        tasks=ground.tasks,
        scenario="typographic",
        twin_of="animals",
        drawn=True,
        twin_revision=ground.revision,
        **ground.model_dump(include={"classes", "templates", "licence", "source", "description"}),
    )
    rows = [replace(s, id=f"{s.id}@o", image=b"", twin=s.id, overlay="[]") for s in samples]
    write_dataset(root / "fixtures/datasets/drawn", drawn, rows, force=True)

    with pytest.raises(DataError, match=r"drawn holds no pictures.*train on a dataset that holds"):
        train(make_plan(task, data="drawn"))


@pytest.mark.parametrize(("task", "setting"), [("segmentation", "layers=[7]"), ("vqa", "layer=7")])
def test_a_layer_that_the_tower_has_not(make_plan, unread, task, setting):
    with pytest.raises(ConfigError, match=r"mini-clip has 6 layers, 7 was asked for"):
        train(make_plan(task, setting))


@pytest.mark.parametrize("depth", ["", "depth = 0\n    forward_features = embed_images = None"])
@pytest.mark.parametrize("task", ["segmentation", "vqa"])
def test_a_model_that_tells_nothing_of_places(make_plan, unread, root, task, depth):
    name = f"flat_{len(depth)}_{task}"
    (root / f"{name}.py").write_text(NO_LAYERS.replace("DEPTH", depth))

    with pytest.raises(ModelError, match="trained on dense features of an image tower"):
        train(make_plan(task, model=f"{name}:make"))


def test_a_finished_head_is_not_replaced_unless_it_is_given_up(make_plan, unread, tmp_path):
    (tmp_path / "head").mkdir()
    (tmp_path / "head" / "config.json").write_text("{}")

    with pytest.raises(ConfigError, match=r"holds a finished head; .*--fresh"):
        train(make_plan("segmentation"))


def test_a_file_is_no_folder_for_a_head(make_plan, unread, tmp_path):
    (tmp_path / "head").write_text("")

    with pytest.raises(ConfigError, match="is a file"):
        train(make_plan("segmentation"))


def test_sizes_that_do_not_fit_each_other(make_plan):
    with pytest.raises(NatadvError, match="reduce_width in equal heads"):
        train(make_plan("segmentation", "reduce_width=10", "heads=4"))


def test_answers_that_nobody_gives_twice(make_plan):
    with pytest.raises(DataError, match=r"more than 50 questions.*--set more_than=12"):
        train(make_plan("vqa", "more_than=50"))


def test_one_answer_is_nothing_to_choose_from(make_plan, repacked, samples):
    rows = [replace(sample, answers=("yes",) * 10) for sample in samples]
    repacked("agreed", rows, "classification", "segmentation", "vqa")

    with pytest.raises(DataError, match=r"of 1 answers .* a head chooses among at least 2"):
        train(make_plan("vqa", data="agreed"))


def test_too_few_pictures_to_hold_any_back(make_plan):
    with pytest.raises(DataError, match="too few to hold"):
        train(make_plan("segmentation", limit=2))

"""Real trainings of seconds on a real tower."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from natadv.errors import ConfigError, ModelError
from natadv.heads.folder import load_head
from natadv.heads.mcan import Mcan
from natadv.heads.vocabulary import RESERVED
from natadv.models.loading import fingerprint
from natadv.models.resolve import resolve, resolve_one
from natadv.training import mcan_training
from natadv.training.loop import CHECKPOINT
from natadv.training.tower import load_tower
from natadv.training.train import train

TASKS = ("segmentation", "vqa")
METRICS = {"segmentation": "iou_fg", "vqa": "vqa_accuracy"}


def weights(folder):
    return (folder / "model.safetensors").read_bytes()


def tower_of(root, name="mini-clip"):
    (spec,) = resolve(name, root=root)
    return fingerprint(spec)


def points(folder):
    return json.loads((folder / "curve.json").read_text())["points"]


def test_a_decoder_comes_out_that_loads_with_its_tower(finished, root):
    decoder = load_head(finished["segmentation"], tower=tower_of(root))

    # As CLIPSeg: what leaves the blocks at a quarter, a half and three quarters of 6.
    assert decoder.config.layers == (2, 4, 5)
    assert decoder.config.widths == (128, 128, 128)
    assert decoder.config.patch == 8
    assert decoder.config.reduce_width == 16
    with pytest.raises(ModelError, match="trained on a tower with hash"):
        load_head(finished["segmentation"], tower=tower_of(root, "mini-siglip"))


def test_an_mcan_comes_out_that_loads_with_its_words(finished, root, samples):
    head = load_head(finished["vqa"], tower=tower_of(root))

    assert head.mcan.config.layer == 6
    assert {"what", "animal"} & set(head.words.words)
    assert set(head.answers) <= {answer for sample in samples for answer in sample.answers}


@pytest.mark.parametrize("task", TASKS)
def test_the_loss_falls(finished, task):
    found = [point["loss"] for point in points(finished[task])]

    assert sum(found[-3:]) < 0.8 * sum(found[:3])


@pytest.mark.parametrize("task", TASKS)
def test_the_curve_has_the_loss_of_each_step_and_the_metric_when_it_is_due(finished, task):
    found = points(finished[task])
    measured = {point["step"] for point in found if point[METRICS[task]] is not None}

    assert [point["step"] for point in found] == list(range(1, len(found) + 1))
    assert measured == {*range(12, len(found) + 1, 12), len(found)}
    assert all(0 <= point[METRICS[task]] <= 1 for point in found if point["step"] in measured)
    with Image.open(finished[task] / "curve.png") as picture:
        assert picture.format == "PNG"
        assert len(picture.convert("RGB").getcolors(2**24)) > 10


@pytest.mark.parametrize("task", TASKS)
def test_the_facts_tell_how_it_came_about(finished, task, root):
    found = json.loads((finished[task] / "training.json").read_text())

    assert (found["task"], found["model"], found["data"]) == (task, "mini-clip", "animals")
    assert found["tower"] == tower_of(root)
    assert found["settings"]["batch"] == 8
    assert found["train_loss"] == points(finished[task])[-1]["loss"]
    assert found[f"validation_{METRICS[task]}"] == points(finished[task])[-1][METRICS[task]]
    assert found["steps"] == len(points(finished[task]))
    assert found["packages"]["torch"] == torch.__version__
    assert len(found["data_revision"]) == 64


@pytest.mark.parametrize("task", TASKS)
def test_nothing_of_the_training_stays_but_the_head(finished, task):
    assert not ((finished[task] / CHECKPOINT).parent).exists()
    assert not [path.name for path in finished[task].iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("task", TASKS)
def test_the_same_training_gives_the_same_bytes(finished, task, make_plan, tmp_path):
    # What else has drawn numbers in this process must not matter.
    torch.rand(3)
    train(make_plan(task))

    assert weights(tmp_path / "head") == weights(finished[task])


@pytest.mark.parametrize("task", TASKS)
def test_another_seed_gives_other_weights(finished, task, make_plan, tmp_path):
    train(make_plan(task, "seed=2"))

    assert weights(tmp_path / "head") != weights(finished[task])


def test_dropout_is_decided_by_the_step(make_plan, tmp_path):
    heads = []
    for name in ("one", "two"):
        torch.manual_seed(len(heads))
        train(make_plan("vqa", "dropout=0.5", "epochs=1", out=tmp_path / name))
        heads.append(weights(tmp_path / name))

    assert heads[0] == heads[1]


def test_a_head_learns_from_its_tower(make_plan, finished, root, tmp_path):
    train(make_plan("segmentation", model="mini-siglip"))

    load_head(tmp_path / "head", tower=tower_of(root, "mini-siglip"))
    ours = load_file(tmp_path / "head" / "model.safetensors")
    others = load_file(finished["segmentation"] / "model.safetensors")
    assert ours.keys() == others.keys()
    assert not torch.equal(ours["film_mul.weight"], others["film_mul.weight"])


def test_matrices_can_learn_by_muon_at_a_rate_of_their_own(make_plan, finished, tmp_path):
    train(make_plan("vqa", "matrix_rate=0.003"))

    ours = points(tmp_path / "head")
    assert sum(point["loss"] for point in ours[-3:]) < 0.8 * sum(p["loss"] for p in ours[:3])
    assert weights(tmp_path / "head") != weights(finished["vqa"])


def test_muon_moves_each_matrix_by_its_own_rate(make_plan, root, tmp_path):
    heads = {}
    for rate in ("1e-9", "0.003"):
        train(make_plan("vqa", "epochs=1", f"matrix_rate={rate}", out=tmp_path / rate))
        heads[rate] = load_file(tmp_path / rate / "model.safetensors")
    torch.manual_seed(1)
    begun = Mcan(load_head(tmp_path / "1e-9", tower=tower_of(root)).mcan.config).state_dict()

    # At almost no rate matrices stay, whereas what Adam moves does not.
    still, moved = heads["1e-9"], heads["0.003"]
    assert torch.allclose(still["image.weight"], begun["image.weight"], atol=1e-6)
    assert not torch.allclose(moved["image.weight"], begun["image.weight"], atol=1e-3)
    assert not torch.allclose(still["answer.weight"], begun["answer.weight"], atol=1e-3)


def test_words_can_begin_as_the_towers_own_texts(make_plan, root, tmp_path):
    chosen = ["word_vectors=tower", "embedding=128", "rate=1e-9", "epochs=1"]
    plan = make_plan("vqa", *chosen)
    train(plan)

    head = load_head(tmp_path / "head", tower=tower_of(root))
    begun = head.mcan.embedding.weight[RESERVED:].detach()
    tower = load_tower(
        resolve_one("mini-clip", root=plan.root, wanted="to test"),
        plan.settings,
        device="cpu",
        threads=1,
    )
    texts = torch.from_numpy(tower.texts.embed_texts(head.words.words))
    # Around 0 and of deviation 1, in the same order.
    by_hand = (texts - texts.mean(0)) / (texts - texts.mean(0)).std()
    assert torch.allclose(begun, by_hand, atol=1e-5)


def test_words_of_another_width_are_refused_before_any_picture_is_seen(make_plan, monkeypatch):
    monkeypatch.setattr(mcan_training, "picture_features", lambda *_: pytest.fail("looked"))
    message = "mini-clip embeds words in 128 dimensions, and embedding is 8; set embedding to 128"

    with pytest.raises(ConfigError, match=f"word_vectors: {message}"):
        train(make_plan("vqa", "word_vectors=tower"))


def test_answers_are_learned_as_the_official_evaluation_spells_them(
    make_plan, repacked, samples, root, tmp_path
):
    spelled = {"blue": "Blue.", "cat": "a cat"}
    rows = [
        replace(s, answers=tuple(spelled.get(answer, answer) for answer in s.answers))
        for s in samples
    ]
    said = {answer for sample in samples for answer in sample.answers}
    assert said & spelled.keys()
    repacked("spelled", rows, "classification", "segmentation", "vqa")
    for data in ("animals", "spelled"):
        train(make_plan("vqa", "more_than=0", "epochs=1", data=data, out=tmp_path / data))

    heads = [load_head(tmp_path / data, tower=tower_of(root)) for data in ("animals", "spelled")]
    assert heads[0].answers == heads[1].answers


def test_layers_and_sizes_can_be_set(make_plan, root, tmp_path):
    chosen = ["layers=[3]", "upsample=bilinear", "patch=4", "steps=2", "threshold=0.4"]
    train(make_plan("segmentation", *chosen))
    config = load_head(tmp_path / "head", tower=tower_of(root)).config

    assert (config.layers, config.upsample, config.patch) == ((3,), "bilinear", 4)
    assert config.threshold == 0.4


def test_without_held_back_rows_there_is_no_metric(make_plan, tmp_path):
    trained = train(make_plan("segmentation", "held_back=0", "steps=3"))

    assert trained.validation is None
    assert [point["iou_fg"] for point in points(tmp_path / "head")] == [None] * 3


def test_progress_tells_step_loss_speed_and_what_is_left(make_plan):
    plan = make_plan("segmentation")
    train(plan)
    lines = plan.stream.getvalue().splitlines()
    last = [line for line in lines if line.startswith("training: ")][-1]

    assert last.startswith("training: 24 of 24 steps, loss 0.")
    assert "steps/s, ETA 0 s" in last
    assert any("iou_fg 0." in line and "held-back" in line for line in lines)
    assert any("rows to train on" in line for line in lines)

"""Training of sparse autoencoders on a tower, from names to a folder, and again after a kill."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
import torch

from natadv.config import settings_of
from natadv.data.images import decode_image
from natadv.errors import ConfigError, DataError, ModelError, StoreError
from natadv.evaluate.datasets import dataset_named
from natadv.explain.autoencoder import load_autoencoder
from natadv.models.loading import fingerprint, load
from natadv.models.resolve import resolve_one
from natadv.training import loop, sae_activations
from natadv.training.sae_settings import SAE_SETTINGS
from natadv.training.train_sae import SaePlan, summary, train_sae
from natadv.training.training_rows import samples_of
from tests.training.test_train_commands import output_of

SMALL = (
    "steps=12", "batch=16", "expansion=2", "warm_up=2", "rate=0.01", "held_back=0.2",
    "validate_every=6", "checkpoint_every=4", "tokens_per_picture=5",
)  # fmt: skip
OF_KIND = {
    "relu": ("sparsity_warm_up=4",),
    "topk": ("k=4", "dead_after=64"),
    "batch-topk": ("k=4", "dead_after=64", "threshold_start=3"),
    "matryoshka": ("k=4", "dead_after=64", "threshold_start=3"),
}
FILES = ("config.json", "model.safetensors", "curve.json", "training.json")


@pytest.fixture
def plan(root, tmp_path, monkeypatch):
    monkeypatch.setattr("natadv.training.train.chart", lambda *_, **__: b"a chart")

    def make(kind="batch-topk", *overrides, out="sae", **fields):
        given = (*SMALL, *OF_KIND[kind], *overrides)
        settings = settings_of(
            SAE_SETTINGS[kind], "sae", root=root, usual="train-sae", section=None, overrides=given
        )
        usual = {"model": "mini-clip", "layer": None, "tokens": "class", "data": ("animals",)}
        fixed = {"out": tmp_path / out, "root": root, "stream": io.StringIO()}
        return SaePlan(kind=kind, settings=settings, **{**usual, **fixed, **fields})

    return make


def contents(folder):
    """All files; the time that a training took is not repeatable."""
    found = {name: (folder / name).read_bytes() for name in FILES}
    facts = json.loads(found["training.json"])
    return {**found, "training.json": {**facts, "seconds": None}}


def test_what_is_reported_is_true_of_the_folder(plan, root):
    """Against a pass over the pictures that shares no code with the training but the tower."""
    made = plan("topk", tokens="patches", layer=3)
    result = train_sae(made)

    spec = resolve_one("mini-clip", root=root, wanted="")
    autoencoder = load_autoencoder(made.out, tower=fingerprint(spec))
    model = load(spec, device="cpu", dtype="float32", threads=1)
    pictures = {
        s.group: s for s in samples_of(dataset_named("animals", root), None)
    }  # rows of a picture are equal
    drawn = {}
    for group, sample in pictures.items():
        with torch.inference_mode():
            opened = model.layerwise(model.prepare([decode_image(sample.image, where="")]))
            state = opened.state(3)[0, 1:]
        first = sample.id[:-1] + "0"  # the row whose id the tokens are drawn by
        drawn[group] = state[sae_activations._drawn(first, 64, 5, 1)].numpy()
    everything = np.concatenate(list(drawn.values()))
    facts = json.loads((made.out / "training.json").read_text())
    assert autoencoder.config.model_dump() == {
        "kind": "topk", "layer": 3, "tokens": "patches", "width": 128, "latents": 256, "k": 4,
        "groups": (),
    }  # fmt: skip
    assert (result.pictures, result.held_back) == (40, 8)
    fired = (autoencoder.encode(torch.from_numpy(everything)) > 0).any(dim=0)
    assert result.dead == facts["dead"] == int((~fired).sum())
    assert 0 < result.dead < 256
    assert result.l0 == facts["l0"] == 4
    assert facts["fvu"] == pytest.approx(result.fvu)
    measured = f"FVU {result.fvu:.4f} and L0 4.0 of 256 latents on 8 held-back pictures"
    assert measured in summary(result, made.out)
    assert f"{result.dead} dead on all 40" in summary(result, made.out)


def test_fvu_is_that_of_the_groups_that_were_held_back(plan, root):
    made = plan("relu", tokens="class")
    result = train_sae(made)

    spec = resolve_one("mini-clip", root=root, wanted="")
    autoencoder = load_autoencoder(made.out, tower=fingerprint(spec))
    model = load(spec, device="cpu", dtype="float32", threads=1)
    samples = list({s.group: s for s in samples_of(dataset_named("animals", root), None)}.values())
    from natadv.training.training_rows import split

    parts = split([s.group for s in samples], share=0.2, seed=1)
    images = [decode_image(samples[i].image, where="") for i in parts.held_back]
    with torch.inference_mode():
        x = model.layerwise(model.prepare(images)).state(5)[:, 0]
        error = (x - autoencoder.decode(autoencoder.encode(x))).pow(2).sum()
        active = (autoencoder.encode(x) > 0).sum(dim=1).float().mean()
    assert result.fvu == pytest.approx(float(error / (x - x.mean(dim=0)).pow(2).sum()), rel=1e-3)
    assert result.l0 == pytest.approx(float(active))


@pytest.mark.parametrize("kind", list(OF_KIND))
def test_any_step_can_be_the_last_one_before_going_on(plan, monkeypatch, kind):
    train_sae(plan(kind, out="undisturbed"))
    step = loop._step

    def dies(training, state, *settings, **more):
        if state.step + 1 == 7:
            raise KeyboardInterrupt
        return step(training, state, *settings, **more)

    monkeypatch.setattr(loop, "_step", dies)
    with pytest.raises(KeyboardInterrupt):
        train_sae(plan(kind))
    monkeypatch.setattr(loop, "_step", step)
    again = plan(kind)

    train_sae(again)

    assert "resuming after step 4 of 12" in again.stream.getvalue()
    undisturbed = contents(plan(out="undisturbed").out)
    assert contents(again.out) == undisturbed
    # Another training would give other bytes.
    assert json.loads(undisturbed["curve.json"])["points"][-1]["step"] == 12


def test_a_pass_over_the_pictures_goes_on_where_it_was_killed(plan, monkeypatch, root):
    monkeypatch.setattr(sae_activations, "AT_ONCE", 8)
    monkeypatch.setattr("natadv.training.features._COMMIT_EVERY_S", -1.0)
    settings = ("seed=5", "steps=4")
    read = sae_activations.OpenedTower.read
    calls = []

    def dies(tower, images):
        calls.append(len(images))
        if len(calls) == 4:
            raise KeyboardInterrupt
        return read(tower, images)

    monkeypatch.setattr(sae_activations.OpenedTower, "read", dies)
    with pytest.raises(KeyboardInterrupt):
        train_sae(plan("topk", *settings, tokens="all"))
    train_sae(plan("topk", *settings, tokens="all"))
    assert sum(calls) == 8 * 4 + 40 - 8 * 3
    resumed = contents(plan().out)

    monkeypatch.setattr(sae_activations.OpenedTower, "read", read)
    (other := root / "cache of its own").mkdir()
    monkeypatch.setattr("natadv.training.train_sae.CACHE", other)
    train_sae(plan("topk", *settings, tokens="all", out="undisturbed"))

    assert resumed == contents(plan(out="undisturbed").out)


def test_several_datasets_are_trained_on_together_and_a_picture_stays_on_one_side(plan):
    made = plan(data=("animals", "named"), tokens="embedding")

    result = train_sae(made)

    # Two pictures are in both datasets.
    assert result.pictures == 42
    assert set(json.loads((made.out / "training.json").read_text())["data"]) == {
        "animals",
        "named",
    }


def test_what_cannot_be_trained_is_refused_before_it_takes_time(plan, root):
    for fields, error, message in (
        ({"layer": 7}, ModelError, "mini-clip: no layer 7: the tower has 6"),
        ({"model": "mini-siglip"}, ModelError, "mini-siglip: the tower has no class token"),
        ({"tokens": "embedding", "layer": 3}, ModelError, "after its last layer, 6, not after 3"),
        ({"data": ("nothing",)}, ConfigError, "nothing"),
        ({"model": "mini-*"}, ConfigError, "name one to train an autoencoder on"),
    ):
        with pytest.raises(error, match=message):
            train_sae(plan(**fields))
    with pytest.raises(ConfigError, match="k is 300, of 256 latents"):
        train_sae(plan("topk", "k=300"))
    with pytest.raises(DataError, match="too few to hold"):
        train_sae(plan(limit=1))


def test_a_finished_autoencoder_or_a_checkpoint_of_another_is_not_replaced(plan):
    train_sae(plan("topk", "steps=4"))
    with pytest.raises(ConfigError, match="holds a finished autoencoder"):
        train_sae(plan("topk", "steps=4"))

    train_sae(plan("topk", "steps=4", "k=5", fresh=True))

    assert json.loads((plan().out / "config.json").read_text())["config"]["k"] == 5
    path = plan(out="other").out / loop.CHECKPOINT
    path.parent.mkdir(parents=True)
    path.write_bytes(b"damaged")
    with pytest.raises(StoreError, match="cannot be read"):
        train_sae(plan(out="other"))


def test_the_command_trains_and_reports_mistakes_in_one_line(root, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(root)
    names = ["--model", "mini-clip", "--data", "animals", "--threads", "1", "--device", "cpu"]
    names += ["--out", str(tmp_path / "sae")]

    code, said = output_of(
        capsys, "sae", *names, "--kind", "topk", "--set", *SMALL, *OF_KIND["topk"]
    )

    assert code == 0
    assert f"{tmp_path / 'sae'}: 12 steps in" in said
    assert (tmp_path / "sae" / "curve.png").exists()
    for arguments, part in (
        (["--kind", "relu", "--set", "k=3"], "unknown setting of sae 'k'"),
        (["--set", "threshold_start=99", "steps=9"], "no threshold would be measured"),
        (["--kind", "matryoshka", "--set", "groups=[0.5,0.4]"], "shares above 0 that add up to 1"),
        (["--set", "l1=0.3"], "unknown setting of sae 'l1'"),
    ):
        code, said = output_of(capsys, "sae", *names, *arguments)
        assert code == 4
        assert part in said
        assert "Traceback" not in said
    assert "sparsity_warm_up" in output_of(capsys, "sae", "--help")[1]

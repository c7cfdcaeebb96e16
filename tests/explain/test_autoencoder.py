from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from safetensors.torch import load_file, save_file

from natadv.errors import ConfigError, ModelError
from natadv.explain.autoencoder import (
    AutoencoderConfig,
    SparseAutoencoder,
    activations,
    embeddings_with,
    load_autoencoder,
    save_autoencoder,
)
from natadv.models.loading import load
from natadv.models.resolve import resolve_one
from natadv.rng import rng_for

ROOT = Path(__file__).resolve().parents[2]
TOWER = "a" * 64
WIDTH, LATENTS = 6, 10


def config(kind="topk", **changes):
    usual = {"k": None if kind == "relu" else 3, "groups": (4, 6) if kind == "matryoshka" else ()}
    sizes = {"kind": kind, "layer": 2, "tokens": "class", "width": WIDTH, "latents": LATENTS}
    return AutoencoderConfig(**{**sizes, **usual, **changes})


def autoencoder(kind="topk", **changes):
    made = SparseAutoencoder(config(kind, **changes))
    rng = rng_for("an autoencoder")
    for parameter in made.parameters():
        parameter.data = torch.from_numpy(rng.standard_normal(parameter.shape).astype(np.float32))
    return made.requires_grad_(False)


@pytest.fixture
def x():
    return torch.from_numpy(rng_for("x").standard_normal((7, WIDTH)).astype(np.float32))


@pytest.fixture
def folder(tmp_path):
    save_autoencoder(tmp_path / "sae", autoencoder(), tower=TOWER, facts={"steps": 3})
    return tmp_path / "sae"


@pytest.fixture(scope="module")
def towers():
    return {
        name: load(
            resolve_one(name, root=ROOT, wanted=""), device="cpu", dtype="float32", threads=1
        )
        for name in ("mini-clip", "mini-siglip")
    }


def test_each_kind_encodes_as_its_formula_says(x):
    for kind in ("relu", "topk", "batch-topk", "matryoshka"):
        made = autoencoder(kind)
        made.threshold.fill_(1.5)
        w, b = made.encoder.numpy(), made.encoder_bias.numpy()
        positive = np.maximum((x.numpy() - made.bias.numpy()) @ w.T + b, 0)
        if kind == "topk":
            third = np.sort(positive, axis=1)[:, -3][:, None]
            positive = np.where(positive >= third, positive, 0)
        elif kind != "relu":
            positive = np.where(positive > 1.5, positive, 0)

        latents = made.encode(x)

        assert latents.numpy() == pytest.approx(positive, abs=1e-5)
        decoded = positive @ made.decoder.numpy() + made.bias.numpy()
        assert made.decode(latents).numpy() == pytest.approx(decoded, abs=1e-4)


def test_without_latents_an_activation_loses_their_contribution_and_nothing_else(x):
    made = autoencoder()
    latents = made.encode(x).numpy()
    chosen = [1, 4, 7]
    expected = x.numpy() - latents[:, chosen] @ made.decoder.numpy()[chosen]

    assert made.without(x, [4, 1, 7, 4]).numpy() == pytest.approx(expected, abs=1e-5)
    assert torch.equal(made.without(x, []), x)
    assert made.without(x.half()[None], chosen).dtype == torch.float16
    for wrong in (LATENTS, -1):
        with pytest.raises(ConfigError, match=rf"no latent {wrong}: .* 0 to 9"):
            made.without(x, [1, wrong])


def test_sizes_that_do_not_fit_together_are_refused():
    for kind, changes in (
        ("relu", {"k": 3}),
        ("topk", {"k": None}),
        ("topk", {"k": LATENTS + 1}),
        ("topk", {"groups": (LATENTS,)}),
        ("matryoshka", {"groups": (4, 5)}),
        ("topk", {"width": 0}),
        ("topk", {"width": 6.0}),
        ("gated", {}),
    ):
        with pytest.raises(ValidationError):
            config(kind, **changes)


def test_a_folder_gives_back_what_was_saved_and_the_same_bytes(folder, tmp_path, x):
    loaded = load_autoencoder(folder, tower=TOWER)

    assert loaded.config == config()
    assert torch.equal(loaded.encode(x), autoencoder().encode(x))
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    save_autoencoder(tmp_path / "again", loaded, tower=TOWER, facts={"steps": 3})
    for path in folder.iterdir():
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes()


def test_another_tower_is_refused(folder):
    with pytest.raises(ModelError, match=r"tower with hash aaaa.*that of mini-clip is bbbb.*train"):
        load_autoencoder(folder, tower="b" * 64, model="mini-clip")


def _edit_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def _edit_weights(folder, change):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")
    content = (folder / "model.safetensors").read_bytes()
    _edit_config(folder, files={"model.safetensors": hashlib.sha256(content).hexdigest()})


def test_a_damaged_folder_is_refused_with_one_line(folder, tmp_path):
    weights = (folder / "model.safetensors").read_bytes()
    other = {**config().model_dump(mode="json"), "latents": LATENTS + 1}
    damages = {
        "no config.json": lambda f: (f / "config.json").unlink(),
        "not the config": lambda f: (f / "config.json").write_text("{"),
        "unknown key|extra": lambda f: _edit_config(f, more=1),
        "format": lambda f: _edit_config(f, format=2),
        "names no model.safetensors": lambda f: _edit_config(f, files={"x.pt": "0" * 64}),
        "no model.safetensors": lambda f: (f / "model.safetensors").unlink(),
        "sha256 is": lambda f: (f / "model.safetensors").write_bytes(weights[:-1] + b"x"),
        "decoder, encoder, encoder_bias not as": lambda f: _edit_config(f, config=other),
        "bias not as": lambda f: _edit_weights(f, lambda t: t["bias"].fill_(float("nan"))),
        "threshold not as": lambda f: _edit_weights(f, lambda t: t.pop("threshold")),
    }
    for number, (message, damage) in enumerate(damages.items()):
        broken = tmp_path / str(number)
        shutil.copytree(folder, broken)
        damage(broken)
        with pytest.raises(ModelError, match=message) as caught:
            load_autoencoder(broken, tower=TOWER)
        assert "\n" not in str(caught.value)


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    broken = autoencoder()
    broken.decoder[0, 0] = float("inf")

    with pytest.raises(ModelError, match="decoder not finite"):
        save_autoencoder(tmp_path / "sae", broken, tower=TOWER, facts={})
    assert not (tmp_path / "sae").exists()


def pictures():
    rng = rng_for("pictures of an autoencoder")
    return [Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8)) for _ in range(2)]


def test_activations_are_those_of_the_tower(towers):
    """Against the hidden states that the tower's own pass gives for heads."""
    for name, tower in towers.items():
        prepared = tower.prepare(pictures())
        with torch.inference_mode():
            opened = tower.layerwise(prepared)
            patches = activations(opened, layer=4, tokens="patches").numpy()
            everything = activations(opened, layer=4, tokens="all").numpy()
            embedding = activations(opened, layer=6, tokens="embedding")[:, 0].numpy()
        dense = tower.forward_features(prepared, [4]).features[0]

        assert patches == pytest.approx(dense.reshape(2, -1, dense.shape[-1]), abs=1e-3), name
        assert everything.shape[1] == opened.leading + patches.shape[1]
        assert everything[:, opened.leading :] == pytest.approx(patches)
        unit = embedding / np.linalg.norm(embedding, axis=1, keepdims=True)
        assert unit == pytest.approx(tower.embed_images(prepared), abs=1e-4)


def test_a_changed_activation_reaches_the_embedding_and_an_unchanged_one_does_not(towers):
    for name, tower in towers.items():
        prepared = tower.prepare(pictures())
        for tokens in ("class", "patches", "all", "embedding"):
            if tokens == "class" and name == "mini-siglip":
                continue
            with torch.inference_mode():
                opened = tower.layerwise(prepared)
                own = opened.embed(opened.state(6))
                same, moved = (
                    embeddings_with(change, opened, layer=5, tokens=tokens)
                    for change in (lambda x: x, lambda x: x + 3 * torch.ones_like(x).cumsum(-1))
                )

            assert torch.allclose(same, own, atol=1e-5), (name, tokens)
            assert not torch.allclose(moved, own, atol=1e-1), (name, tokens)


def test_a_token_or_layer_that_the_tower_lacks_is_refused(towers):
    opened = towers["mini-siglip"].layerwise(towers["mini-siglip"].prepare(pictures()))

    with pytest.raises(ModelError, match="no class token"):
        activations(opened, layer=2, tokens="class")
    with pytest.raises(ModelError, match="no layer 7: the tower has 6"):
        activations(opened, layer=7, tokens="patches")
    with pytest.raises(ModelError, match="no layer 7: the tower has 6"):
        embeddings_with(lambda x: x, opened, layer=7, tokens="patches")

"""Towers layer by layer, and where they look: against transformers, and on planted weights."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoImageProcessor, AutoModel

from natadv.errors import ModelError
from natadv.explain.faithfulness import share_inside
from natadv.models.adapters.encoder import DualEncoder
from natadv.types import Explainable

PATCH = 8


def test_layer_by_layer_gives_the_embeddings_of_the_fast_pass(tiny, load_folder, photographs):
    model = load_folder(tiny)
    prepared = model.prepare(photographs)
    opened = model.layerwise(prepared)
    found = opened.embed(opened.state(len(opened.layers))).detach().numpy()

    assert model.embed_images(prepared) == pytest.approx(
        found / np.linalg.norm(found, axis=1, keepdims=True), abs=1e-6
    )


def test_attention_is_that_of_transformers(tiny, load_folder, photographs):
    model = load_folder(tiny)
    opened = model.layerwise(model.prepare(photographs))
    reference = AutoModel.from_pretrained(tiny, attn_implementation="eager").eval()
    pixels = AutoImageProcessor.from_pretrained(tiny, backend="pil")(
        images=photographs, return_tensors="pt"
    )
    with torch.inference_mode():
        expected = reference.vision_model(**pixels, output_attentions=True).attentions

    assert len(opened.layers) == len(expected) == 2
    for place, theirs in enumerate(expected):
        weights = opened.layers[place].attend(opened.state(place)).weights
        assert weights.detach().numpy() == pytest.approx(theirs.numpy(), abs=1e-6)


def test_embeddings_are_the_same_bytes_before_and_after(tiny, load_folder, photographs, embedded):
    model = load_folder(tiny)
    before = embedded(model, photographs)
    prepared = model.prepare(photographs)
    maps = model.relevance(prepared, before)

    assert isinstance(model, Explainable)
    assert maps.shape[0] == len(photographs)
    assert maps.max() > 0
    assert maps.min() >= 0
    assert embedded(model, photographs).tobytes() == before.tobytes()


def test_a_layer_without_its_heads_adds_the_bias_of_its_projection(
    request, load_folder, photographs
):
    """Zero for the output of every head is attention whose output is the bias (paper, eq. 8)."""
    for name in ("tiny_clip", "tiny_siglip", "tiny_siglip2", "tiny_blip2_opt"):
        folder = request.getfixturevalue(name)
        model = load_folder(folder)
        tower = model if isinstance(model, DualEncoder) else model.tower
        opened = tower.layerwise(tower.prepare(photographs[:1]))
        stored = load_file(folder / "model.safetensors")
        projection = "projection" if "blip2" in name else "out_proj"
        last = f"vision_model.encoder.layers.1.self_attn.{projection}.bias"
        (bias,) = (stored[key] for key in stored if key.endswith(last))
        vision = AutoModel.from_pretrained(folder).vision_model.encoder.layers[1]
        before = opened.state(1)
        masked = opened.layers[1].join(
            before, torch.zeros_like(opened.layers[1].attend(before).outputs)
        )
        moved = before + bias
        expected = moved + vision.mlp(vision.layer_norm2(moved))

        assert masked.detach().numpy() == pytest.approx(expected.detach().numpy(), abs=1e-5), name
        assert not torch.allclose(masked, opened.state(2), atol=0.01)


def direction(n):
    """One of orthogonal ones, each of which sums to 0, so that a norm only scales it."""
    found = torch.zeros(32)
    found[2 * n], found[2 * n + 1] = 4.0, -4.0
    return found


@pytest.fixture
def planted(tiny_clip, copied, load_folder):
    """A CLIP whose class token looks for a red patch in its last layer, and whose embedding says
    whether there is one, and nothing else."""
    path = copied(tiny_clip, name="planted") / "model.safetensors"
    stored = load_file(path)
    for key, tensor in stored.items():
        if key.startswith("vision_model.encoder.") or key.startswith("visual_projection."):
            tensor.zero_()
        if key.startswith("vision_model.") and "norm" in key:
            tensor.fill_(1.0 if key.endswith("weight") else 0.0)
    patch, red, token, mark = map(direction, range(4))
    mean, std = (
        json.loads((path.parent / "preprocessor_config.json").read_text())[f"image_{x}"][0]
        for x in ("mean", "std")
    )
    dark, light = -mean / std, (1 - mean) / std
    change = (red - patch) / (light - dark)
    stored["vision_model.embeddings.class_embedding"] = token.clone()
    stored["vision_model.embeddings.position_embedding.weight"] = torch.cat(
        [torch.zeros(1, 32), (patch - dark * change).expand(16, -1)]
    )
    kernel = stored["vision_model.embeddings.patch_embedding.weight"].zero_()
    kernel[:, 0] = change[:, None, None] / PATCH**2
    layer = "vision_model.encoder.layers.1.self_attn"
    for part, source in (("q", token), ("k", red), ("v", red)):
        stored[f"{layer}.{part}_proj.weight"][0] = source / 4
    stored[f"{layer}.out_proj.weight"][:, 0] = mark
    stored["visual_projection.weight"][0] = mark
    stored["visual_projection.weight"][1] = token
    save_file(stored, path, metadata={"format": "pt"})
    return load_folder(path.parent)


def share_at_the_red_patch(model, layers):
    """For each place of it: how much of the relevance lies there. All patches have random shades
    of the other colours."""
    shades = np.random.default_rng(5).integers(0, 2, (16, 4, 4, 3), dtype=np.uint8) * 255
    red = np.eye(16, dtype=np.float32).reshape(16, 4, 4)
    shades[..., 0] = red * 255
    pixels = shades.repeat(PATCH, axis=1).repeat(PATCH, axis=2)
    prepared = model.prepare([Image.fromarray(picture) for picture in pixels])
    target = np.eye(16, dtype=np.float32)[[0] * 16]
    return share_inside(model.relevance(prepared, target, layers=layers), red)


def test_relevance_finds_the_one_patch_that_the_answer_depends_on(planted, tiny_clip, load_folder):
    """At every place; a network of the same shape with random weights loses it (the sanity check of
    Adebayo et al., 2018)."""
    random = load_folder(tiny_clip)
    for layers in ("last", "all"):
        assert share_at_the_red_patch(planted, layers) == pytest.approx(1.0, abs=1e-6)
        assert share_at_the_red_patch(random, layers).mean() < 2 / 16


def test_pictures_of_one_shape_have_maps_of_their_grid(tiny_siglip2, load_folder):
    """Without the padding of the batch, and refused where the grids differ."""
    model = load_folder(tiny_siglip2)
    wide = [Image.effect_noise(size, 80).convert("RGB") for size in ((64, 16), (128, 32))]
    prepared = model.prepare(wide)
    opened = model.layerwise(prepared)
    embeddings = opened.embed(opened.state(2)).detach().numpy()
    targets = model.embed_images(prepared)

    assert targets == pytest.approx(
        embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True), abs=1e-6
    )
    assert model.relevance(prepared, targets, layers="all").shape == (2, 2, 8)
    with pytest.raises(ModelError, match="ask for pictures of one shape at a time"):
        model.relevance(model.prepare([*wide, Image.new("RGB", (16, 64))]), targets)


def test_no_picture_gives_no_maps(tiny, load_folder):
    model = load_folder(tiny)
    none = np.zeros((0, 16), np.float32)

    assert model.relevance(model.prepare([]), none).shape[0] == 0

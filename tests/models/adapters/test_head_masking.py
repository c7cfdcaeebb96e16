"""Against copies of the checkpoint whose output projections ignore a head."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoImageProcessor, CLIPModel

from natadv.errors import ModelError
from natadv.types import HeadMaskable

HEADS, WIDTH = 2, 16
PROJECTION = {
    "model.safetensors": "vision_model.encoder.layers.{}.self_attn.out_proj.weight",
    "open_clip_model.safetensors": "visual.transformer.resblocks.{}.attn.out_proj.weight",
}


@pytest.fixture(params=["tiny_clip", "tiny_siglip", "tiny_siglip2", "open_clip_quick"])
def folder(request):
    return request.getfixturevalue(request.param)


@pytest.fixture
def squares(photographs):
    """Pictures that every tower cuts into the same patches."""
    return [image for image in photographs if image.width == image.height]


def without(folder, layer, columns):
    """Rewrite the weights: these columns of the output projection of a layer are zero."""
    (path,) = folder.glob("*.safetensors")
    stored = load_file(path)
    weight = stored[PROJECTION[path.name].format(layer)]
    weight[:, columns] = 0
    save_file(stored, path, {"format": "pt"})


def test_a_masked_head_is_one_whose_columns_of_the_projection_are_zero(
    folder, copied, load_folder, squares, embedded
):
    model = load_folder(folder)
    found = np.stack(list(model.masked_embeddings(model.prepare(squares))))

    assert isinstance(model, HeadMaskable)
    assert found.shape[:3] == (2, HEADS, len(squares))
    for layer, head in np.ndindex(2, HEADS):
        copy = copied(folder, name=f"{layer}-{head}")
        without(copy, layer, slice(head * WIDTH, (head + 1) * WIDTH))
        expected = embedded(load_folder(copy), squares)
        assert np.allclose(found[layer, head], expected, atol=1e-5)
        assert not np.allclose(found[layer, head], embedded(model, squares), atol=1e-3)


def test_without_all_heads_of_a_layer_its_attention_is_the_bias(
    folder, copied, load_folder, squares, embedded
):
    model = load_folder(folder)
    opened = model.layerwise(model.prepare(squares))
    first, second = opened.layers
    none = torch.zeros_like(first.attend(opened.first).outputs)
    found = opened.embed(second(first.join(opened.first, none))).detach().numpy()
    copy = copied(folder)
    without(copy, 0, slice(None))

    assert embedded(load_folder(copy), squares) == pytest.approx(
        found / np.linalg.norm(found, axis=1, keepdims=True), abs=1e-5
    )


def test_the_class_token_alone_is_masked_as_by_a_hook(tiny_clip, load_folder, photographs):
    model = load_folder(tiny_clip)
    found = np.stack(list(model.masked_embeddings(model.prepare(photographs), tokens="class")))
    reference = CLIPModel.from_pretrained(tiny_clip).eval()
    pixels = AutoImageProcessor.from_pretrained(tiny_clip, backend="pil")(
        images=photographs, return_tensors="pt"
    )
    for layer, head in np.ndindex(2, HEADS):

        def mask(module, arguments, head=head):
            (outputs,) = arguments
            outputs = outputs.clone()
            outputs[:, 0, head * WIDTH : (head + 1) * WIDTH] = 0
            return (outputs,)

        projection = reference.vision_model.encoder.layers[layer].self_attn.out_proj
        hook = projection.register_forward_pre_hook(mask)
        with torch.inference_mode():
            rows = reference.get_image_features(**pixels).pooler_output.numpy()
        hook.remove()
        expected = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        assert np.allclose(found[layer, head], expected, atol=1e-5)


def test_what_cannot_be_masked_says_why(tiny_siglip, open_clip_resnet, load_folder, photographs):
    model = load_folder(tiny_siglip)
    with pytest.raises(ModelError, match="has no class token; mask the heads for all tokens"):
        next(model.masked_embeddings(model.prepare(photographs), tokens="class"))
    resnet = load_folder(open_clip_resnet)
    with pytest.raises(ModelError, match="cannot open the layers of its picture tower"):
        next(resnet.masked_embeddings(resnet.prepare(photographs)))


def test_no_picture_gives_no_rows(tiny_clip, load_folder):
    model = load_folder(tiny_clip)

    assert [rows.shape for rows in model.masked_embeddings(None)] == [(HEADS, 0, 16)] * 2

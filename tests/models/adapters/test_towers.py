"""Against hooks on the layers of transformers, and with pictures whose places are known."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import (
    AutoImageProcessor,
    AutoModel,
    AutoTokenizer,
    Blip2ForConditionalGeneration,
    CLIPModel,
    CLIPSegVisionConfig,
    CLIPSegVisionModel,
    PaliGemmaForConditionalGeneration,
    SiglipModel,
)
from transformers.modeling_outputs import BaseModelOutput, BaseModelOutputWithPooling

from natadv.errors import ModelError
from natadv.models.adapters.encoder import DualEncoder, LogitScoring, Placement
from natadv.models.adapters.towers import (
    DenseTower,
    TowerPass,
    pooled,
)
from natadv.types import DenseFeatures, Resizable

TOWERS = ("tiny_clip", "tiny_siglip", "tiny_siglip2")
PATCH = 8


@pytest.fixture(params=TOWERS)
def folder(request):
    return request.getfixturevalue(request.param)


@pytest.fixture
def model(folder, load_folder):
    return load_folder(folder)


@pytest.fixture(scope="module")
def squares():
    """Pictures that every tower cuts into 4 x 4 patches."""
    generator = np.random.default_rng(3)
    return [
        Image.fromarray(generator.integers(0, 256, (side, side, 3), dtype=np.uint8))
        for side in (32, 64, 17)
    ]


@pytest.fixture
def blinded(copied, load_folder):
    """A copy whose patches do not look at each other: what is at a place stays there."""

    def blind(folder):
        path = copied(folder, name="blind") / "model.safetensors"
        stored = load_file(path)
        for key in stored:
            if key.startswith("vision_model.encoder.") and ".out_proj." in key:
                stored[key].zero_()
        save_file(stored, path, metadata={"format": "pt"})
        return load_folder(path.parent)

    return blind


def transformers_states(folder, images):
    """What leaves each layer, by a hook, with the tokens in their order."""
    model = AutoModel.from_pretrained(folder).eval()
    seen = []
    for layer in model.vision_model.encoder.layers:
        layer.register_forward_hook(lambda module, args, output: seen.append(output))
    pixels = AutoImageProcessor.from_pretrained(folder, backend="pil")(
        images=images, return_tensors="pt"
    )
    with torch.inference_mode():
        message = model.vision_model(**pixels, output_hidden_states=True).hidden_states
    assert all(map(torch.equal, seen, message[1:]))
    return [state.numpy() for state in seen]


def test_features_are_those_of_transformers(folder, model, squares):
    first, second = model.forward_features(model.prepare(squares), [1, 2]).features
    class_tokens = 1 if folder.name == "tiny-clip" else 0
    expected = transformers_states(folder, squares)

    for found, state in zip((first, second), expected, strict=True):
        assert (found.shape, found.dtype) == ((3, 4, 4, 32), np.float32)
        for row in range(4):
            for column in range(4):
                token = state[:, class_tokens + 4 * row + column]
                assert found[:, row, column] == pytest.approx(token, abs=1e-5)


def test_tower_offers_all_its_layers(model):
    assert isinstance(model, DenseFeatures)
    assert model.depth == 2


def test_layers_come_as_asked(model, squares):
    prepared = model.prepare(squares)
    first, second = model.forward_features(prepared, [1, 2]).features
    found = model.forward_features(prepared, [2, 1, 2]).features

    assert [places.tobytes() for places in found] == [
        places.tobytes() for places in (second, first, second)
    ]
    assert model.forward_features(prepared, []).features == ()


def test_layer_that_is_not_there_is_refused(model, squares):
    prepared = model.prepare(squares)
    for layer in (0, 3, -1):
        with pytest.raises(ModelError, match=rf"no layer {layer}; it has layers 1 \(.*\) to 2"):
            model.forward_features(prepared, [1, layer])


def test_no_pictures_give_empty_features(folder, model):
    found = model.forward_features(model.prepare([]), [1, 2]).features

    # Of the grid that the probing picture has, where grids differ.
    grid = (5, 3) if folder.name == "tiny-siglip2" else (4, 4)
    assert [places.shape for places in found] == [(0, *grid, 32)] * 2


def test_features_do_not_depend_on_the_batch(model, squares):
    together = model.forward_features(model.prepare(squares), [2]).features[0]
    alone = [model.forward_features(model.prepare([image]), [2]).features[0] for image in squares]

    assert together == pytest.approx(np.concatenate(alone), abs=1e-5)


def test_embeddings_stay_as_they_are(folder, model, squares, load_folder, embedded):
    before = embedded(load_folder(folder), squares)
    model.forward_features(model.prepare(squares), [1])

    assert embedded(model, squares).tobytes() == before.tobytes()


def changed_places(model, *, size, row, column):
    """Where one bright patch on a dark picture makes a difference, as a mask of shape (h, w)."""
    dark = Image.new("RGB", size, (20, 20, 20))
    bright = dark.copy()
    bright.paste(Image.new("RGB", (PATCH, PATCH), (255, 240, 90)), (column * PATCH, row * PATCH))
    before, after = (
        model.forward_features(model.prepare([p]), [2]).features[0][0] for p in (dark, bright)
    )
    return np.abs(after - before).max(axis=-1) > 1e-3


def test_bright_patch_is_found_where_it_is(folder, blinded):
    model = blinded(folder)
    for row, column in ((0, 0), (0, 3), (3, 0), (1, 2)):
        changed = changed_places(model, size=(32, 32), row=row, column=column)

        assert np.argwhere(changed).tolist() == [[row, column]]


def test_bright_patch_is_found_in_a_picture_of_any_shape(tiny_siglip2, blinded):
    model = blinded(tiny_siglip2)
    for (width, height), row, column in (((64, 16), 1, 6), ((16, 64), 6, 1), ((40, 24), 2, 4)):
        changed = changed_places(model, size=(width, height), row=row, column=column)

        assert changed.shape == (height // PATCH, width // PATCH)
        assert np.argwhere(changed).tolist() == [[row, column]]


def test_pictures_of_several_grids_have_no_features_in_one_call(tiny_siglip2, load_folder):
    model = load_folder(tiny_siglip2)
    prepared = model.prepare([Image.new("RGB", size) for size in ((32, 32), (64, 16))])

    with pytest.raises(ModelError, match="cut into 2 x 8 and 4 x 4 patches; ask for pictures of"):
        model.forward_features(prepared, [1])


def test_pictures_of_one_shape_share_a_grid_at_any_size(tiny_siglip2, load_folder):
    model = load_folder(tiny_siglip2)
    prepared = model.prepare([Image.new("RGB", size) for size in ((40, 24), (80, 48))])

    assert model.forward_features(prepared, [1]).features[0].shape == (2, 3, 5, 32)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_features_that_are_not_finite_are_refused(value):
    states = (torch.zeros(1, 2, 2, 3), torch.full((1, 2, 2, 3), value))
    model = candidate(DenseTower(2, lambda pixels: TowerPass(torch.ones(1, 4), states)))
    prepared = model.prepare([Image.new("RGB", (2, 2))])

    assert model.forward_features(prepared, [1]).features[0].shape == (1, 2, 2, 3)
    with pytest.raises(ModelError, match="candidate: features of layer 2 are not finite"):
        model.forward_features(prepared, [1, 2])


def candidate(dense):
    return DualEncoder(
        name="candidate",
        placement=Placement(torch.device("cpu"), torch.float32),
        preprocess=lambda images: {"pixel_values": torch.zeros(len(images), 3, 2, 2)},
        embed_pixels=lambda pixels: torch.ones(1, 2),
        tokenise=lambda texts: {"input_ids": torch.zeros(len(texts), 1)},
        embed_tokens=lambda tokens: torch.ones(1, 2),
        scoring=LogitScoring(1.0, 0.0, "softmax"),
        dense=dense,
    )


def test_adapter_without_features_says_so():
    model = candidate(None)

    assert model.depth == 0
    with pytest.raises(ModelError, match="candidate: its adapter gives no features"):
        model.forward_features(model.prepare([Image.new("RGB", (2, 2))]), [1])


def test_the_embedding_of_a_closer_look_has_the_same_bytes(model, squares):
    """Else a picture's embedding would depend on whether a head wants its features."""
    prepared = model.prepare(squares)

    assert (
        model.forward_features(prepared, [1]).embeddings.tobytes()
        == model.embed_images(prepared).tobytes()
    )


def test_other_outputs_are_never_taken_for_embeddings():
    states = torch.ones(1, 2, 4)
    for output in (
        torch.ones(1, 4),
        (torch.ones(1, 4),),
        {"pooler_output": torch.ones(1, 4)},
        BaseModelOutput(last_hidden_state=states),
        BaseModelOutputWithPooling(last_hidden_state=states),
        None,
    ):
        with pytest.raises(TypeError, match="expected BaseModelOutputWithPooling"):
            pooled(output)


LARGER = 48
"""Pixels; three patches of 16 where the tiny towers were made for two."""


def vision_states(folder, images, *, side):
    """What leaves each layer of the picture tower of a checkpoint, as transformers computes it on
    pictures that are squashed to a side."""
    architectures = {
        "paligemma": (PaliGemmaForConditionalGeneration, lambda m: m.model.vision_tower),
        "blip-2": (Blip2ForConditionalGeneration, lambda m: m.vision_model),
        "clip": (CLIPModel, lambda m: m.vision_model),
        "siglip": (SiglipModel, lambda m: m.vision_model),
    }
    kind = json.loads((folder / "config.json").read_text())["model_type"]
    architecture, vision = architectures[kind]
    stated = json.loads((folder / "preprocessor_config.json").read_text())
    size, mean, std = (side, side), stated["image_mean"], stated["image_std"]
    resample = Image.Resampling(stated["resample"])
    pixels = np.stack([np.asarray(i.resize(size, resample), np.float32) / 255 for i in images])
    pixels = torch.from_numpy((pixels - np.float32(mean)) / np.float32(std)).permute(0, 3, 1, 2)
    tower = vision(architecture.from_pretrained(folder).eval())
    with torch.inference_mode():
        output = tower(pixels, output_hidden_states=True, interpolate_pos_encoding=True)
    return [state.numpy() for state in output.hidden_states[1:]]


@pytest.fixture(params=["tiny_paligemma", "tiny_blip2_opt", "tiny_blip2_t5", *TOWERS[:2]])
def square_folder(request):
    return request.getfixturevalue(request.param)


def test_any_square_tower_is_read_at_its_own_and_at_another_size(
    square_folder, load_folder, photographs
):
    """Pictures of any shape are squashed; positions are interpolated by transformers itself."""
    model = load_folder(square_folder)
    assert isinstance(model, DenseFeatures)
    assert isinstance(model, Resizable)
    patch = 8 if square_folder.name in ("tiny-clip", "tiny-siglip") else 16
    class_tokens = 0 if square_folder.name in ("tiny-paligemma", "tiny-siglip") else 1
    for side in (32, LARGER):
        tower = model.at_resolution(side)
        expected = vision_states(square_folder, photographs, side=side)
        embeddings, found = tower.forward_features(tower.prepare(photographs), [1, 2])

        assert tower.depth == len(expected) == 2
        assert embeddings.shape == (len(photographs), 0)
        grid = (side // patch, side // patch)
        for ours, state in zip(found, expected, strict=True):
            assert ours.shape == (len(photographs), *grid, 32)
            assert ours.reshape(len(photographs), -1, 32) == pytest.approx(
                state[:, class_tokens:], abs=1e-5
            )


def test_generative_models_show_the_layers_of_their_tower(tiny_answerer, load_folder, squares):
    model = load_folder(tiny_answerer)
    expected = vision_states(tiny_answerer, squares, side=32)
    embeddings, found = model.forward_features(model.prepare(squares), [2, 1])

    class_tokens = 0 if tiny_answerer.name == "tiny-paligemma" else 1
    assert embeddings.shape == (3, 0)
    for ours, state in zip(found, reversed(expected), strict=True):
        assert ours.shape == (3, 2, 2, 32)
        assert ours.reshape(3, 4, 32) == pytest.approx(state[:, class_tokens:], abs=1e-5)


def test_generative_models_embed_a_phrase_as_the_mean_of_its_words(tiny_answerer, load_folder):
    model, phrases = load_folder(tiny_answerer), ("a cat", "tac a", "the <image> dog")
    found = model.embed_texts(phrases)
    tokenizer = AutoTokenizer.from_pretrained(tiny_answerer)
    stored = load_file(tiny_answerer / "model.safetensors")
    (table,) = (
        stored[name]
        for name in stored
        if name.endswith(("embed_tokens.weight", "shared.weight")) and len(stored[name]) > 90
    )
    rows = []
    for phrase in phrases:
        ids = tokenizer(phrase, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        mean = np.mean([table[i].numpy() for i in ids], axis=0)
        rows.append(mean / np.linalg.norm(mean))

    assert found == pytest.approx(np.stack(rows), abs=1e-5)
    # The rest of the batch moves no bit.
    assert model.embed_texts(phrases[1:2]).tobytes() == found[1:2].tobytes()
    with pytest.raises(ModelError, match="text 1 is ' ', which has no words"):
        model.embed_texts(["a", " "])


def test_clip_at_another_size_is_the_tower_of_clipseg(tiny_clip, load_folder, photographs):
    """As published: the same weights in CLIPSeg's own architecture, which interpolates too."""
    state = AutoModel.from_pretrained(tiny_clip).vision_model.state_dict()
    config = AutoModel.from_pretrained(tiny_clip).config.vision_config.to_dict()
    reference = CLIPSegVisionModel(CLIPSegVisionConfig(**config)).eval()
    reference.load_state_dict(state)
    tower = load_folder(tiny_clip).at_resolution(LARGER)
    prepared = tower.prepare(photographs)
    with torch.inference_mode():
        states = reference(
            **prepared, output_hidden_states=True, interpolate_pos_encoding=True
        ).hidden_states
    found = tower.forward_features(prepared, [1, 2]).features

    for ours, theirs in zip(found, states[1:], strict=True):
        side = LARGER // PATCH
        assert ours.reshape(len(photographs), side * side, 32) == pytest.approx(
            theirs[:, 1:].numpy(), abs=1e-5
        )


def test_open_clip_at_another_size_is_its_twin_in_transformers(
    open_clip_quick, transformers_twin, load_folder, photographs
):
    towers = [
        load_folder(folder).at_resolution(LARGER)
        for folder in (open_clip_quick, transformers_twin(open_clip_quick))
    ]
    squares = [image.resize((LARGER, LARGER)) for image in photographs]
    ours, theirs = (t.forward_features(t.prepare(squares), [1, 2]).features for t in towers)

    for a, b in zip(ours, theirs, strict=True):
        assert a == pytest.approx(b, abs=1e-4)
    assert ours[0].shape == (len(photographs), 6, 6, 32)


def test_a_tower_that_was_read_at_another_size_stays_as_it_was(
    open_clip_quick, load_folder, photographs, embedded
):
    model = load_folder(open_clip_quick)
    before = embedded(model, photographs)
    tower = model.at_resolution(LARGER)
    tower.forward_features(tower.prepare(photographs), [1])

    assert embedded(model, photographs).tobytes() == before.tobytes()


def test_a_resnet_is_read_at_another_size(open_clip_resnet, load_folder, photographs):
    model = load_folder(open_clip_resnet)
    own, larger = model.at_resolution(64), model.at_resolution(128)
    squares = [image.resize((64, 64)) for image in photographs]
    usual = model.forward_features(model.prepare(squares), [2, 4]).features
    resized = own.forward_features(own.prepare(squares), [2, 4]).features

    for a, b in zip(usual, resized, strict=True):
        assert a == pytest.approx(b, abs=1e-5)
    found = larger.forward_features(larger.prepare(photographs), [2, 4]).features
    assert [places.shape[1:3] for places in found] == [(16, 16), (4, 4)]


def test_naflex_has_no_other_size(tiny_siglip2, load_folder):
    with pytest.raises(ModelError, match="pictures of the trained size only; train a head with"):
        load_folder(tiny_siglip2).at_resolution(LARGER)

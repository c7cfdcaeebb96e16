"""Against direct calls of transformers, with both kinds of decoder end."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from natadv.errors import ModelError
from natadv.models.adapters.clipseg import PhraseSegmenter
from natadv.models.adapters.encoder import Placement
from natadv.models.loading import load
from natadv.models.resolve import resolve
from natadv.models.zoo import ZOO
from natadv.types import RegionExplainable, Segmenter

PHRASES = [
    "a cat",
    "the black dog",
    "hen",
    "a cow.",
    "grass, left of the hen",
    "sky",
    "?",
    "a" * 60,
]


@pytest.fixture
def model(tiny_clipseg, load_folder):
    return load_folder(tiny_clipseg)


@pytest.fixture(scope="module")
def transformers_clipseg(tiny_clipseg):
    """The model, the preprocessing and the tokenizer, as transformers loads them."""
    from transformers import AutoImageProcessor, AutoTokenizer, CLIPSegForImageSegmentation

    return (
        CLIPSegForImageSegmentation.from_pretrained(tiny_clipseg).eval(),
        AutoImageProcessor.from_pretrained(tiny_clipseg, backend="pil"),
        AutoTokenizer.from_pretrained(tiny_clipseg),
    )


@pytest.fixture(scope="module")
def reference(photographs, transformers_clipseg):
    """What transformers itself answers, padded as the batch needs."""
    model, processor, tokenizer = transformers_clipseg
    pixels = processor(images=photographs, return_tensors="pt")
    tokens = tokenizer(PHRASES, padding=True, truncation=True, max_length=24, return_tensors="pt")
    with torch.inference_mode():
        return model(**pixels, **tokens).logits.sigmoid().numpy()


def test_masks_are_those_of_transformers(model, photographs, reference):
    assert model.segment(photographs, PHRASES) == pytest.approx(reference, abs=1e-5)


def test_masks_are_probabilities_at_the_models_resolution(model, photographs):
    masks = model.segment(photographs, PHRASES)

    assert (masks.shape, masks.dtype) == ((8, 48, 48), np.float32)
    assert isinstance(masks, np.ndarray)
    assert masks.min() >= 0.0
    assert masks.max() <= 1.0
    assert masks.std(axis=(1, 2)).min() > 1e-3


def test_resolved_folder_is_a_segmenter(tiny_clipseg, model):
    (spec,) = resolve(str(tiny_clipseg), root=tiny_clipseg.parent)

    assert (spec.loader, spec.family, spec.tasks) == ("clipseg", "clipseg", ("segmentation",))
    assert isinstance(model, Segmenter)
    assert model.threshold == 0.3


def test_mask_does_not_depend_on_its_batch(model, photographs):
    together = model.segment(photographs, PHRASES)
    alone = [
        model.segment([image], [phrase]) for image, phrase in zip(photographs, PHRASES, strict=True)
    ]
    reversed_ = model.segment(photographs[::-1], PHRASES[::-1])[::-1]

    assert together == pytest.approx(np.concatenate(alone), abs=5e-6)
    assert together == pytest.approx(reversed_, abs=5e-6)


def test_each_picture_goes_with_its_own_phrase(model, photographs):
    same = [photographs[0]] * len(PHRASES)
    masks = model.segment(same, PHRASES)

    apart = np.abs(masks[:, None] - masks[None]).max(axis=(-2, -1)) + np.eye(len(masks))
    assert apart.min() > 1e-3


def test_case_makes_no_difference(model, photographs):
    loud = model.segment(photographs[:1], ["The Black DOG"])

    assert loud.tobytes() == model.segment(photographs[:1], ["the black dog"]).tobytes()


def test_phrase_is_given_without_a_template(model, photographs):
    bare = model.segment(photographs[:1], ["hen"])

    assert np.abs(bare - model.segment(photographs[:1], ["a photo of a hen."])).max() > 1e-3


def test_picture_is_squashed_not_cropped(model, photographs):
    wide = photographs[3]
    squashed = model.segment([wide.resize((48, 48), resample=2)], ["hen"])

    assert model.segment([wide], ["hen"]) == pytest.approx(squashed, abs=1e-5)


def test_nothing_gives_no_masks(model):
    assert model.segment([], []).shape == (0, 48, 48)


def test_input_pictures_stay_as_they_are(model, photographs):
    before = [image.tobytes() for image in photographs]
    model.segment(photographs, PHRASES)

    assert [image.tobytes() for image in photographs] == before


@pytest.mark.parametrize("phrase", ["", " \n"])
def test_empty_phrase_is_refused_by_its_number(model, photographs, phrase):
    with pytest.raises(ModelError, match=r"phrase 1 of 3 is .*refers to nothing"):
        model.segment(photographs[:3], ["hen", phrase, "cow"])


@pytest.mark.parametrize("phrases", [[], ["hen"], ["hen"] * 3])
def test_other_number_of_phrases_is_refused(model, photographs, phrases):
    with pytest.raises(ModelError, match=f"got 2 pictures and {len(phrases)} phrases"):
        model.segment(photographs[:2], phrases)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_mask_that_is_not_finite_is_refused(value):
    with pytest.raises(ModelError, match=r"candidate: masks are not finite in torch\.float32"):
        PhraseSegmenter(
            name="candidate",
            placement=Placement(torch.device("cpu"), torch.float32),
            preprocess=lambda images: {"pixel_values": torch.zeros(len(images), 3, 2, 2)},
            tokenise=lambda phrases: {"input_ids": torch.zeros(len(phrases), 1)},
            logits=lambda pixels, tokens: torch.tensor([[[0.0, value]]]),
            open_decoder=lambda pixels, tokens: None,
        )


def change_weights(folder, change):
    path = folder / "model.safetensors"
    stored = load_file(path)
    change(stored)
    save_file(stored, path, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda stored: stored.pop("decoder.film_mul.weight"), "film_mul.weight missing"),
        (lambda stored: stored.update({"decoder.more": torch.ones(2)}), "decoder.more not known"),
        (
            lambda stored: stored.update({"decoder.film_mul.bias": torch.ones(2)}),
            "film_mul.bias of another shape",
        ),
    ],
    ids=["missing", "unknown", "mismatched"],
)
def test_weights_of_another_model_are_refused(tiny_clipseg, copied, load_folder, change, fault):
    folder = copied(tiny_clipseg)
    change_weights(folder, change)

    with pytest.raises(ModelError, match=fault):
        load_folder(folder)


def test_positions_in_an_old_checkpoint_change_nothing(
    tiny_clipseg, copied, load_folder, photographs
):
    folder = copied(tiny_clipseg)
    old = {
        f"clip.{tower}_model.embeddings.position_ids": torch.arange(n)[None]
        for tower, n in (("text", 24), ("vision", 5))
    }
    change_weights(folder, lambda stored: stored.update(old))

    found = load_folder(folder).segment(photographs, PHRASES)
    assert found.tobytes() == load_folder(tiny_clipseg).segment(photographs, PHRASES).tobytes()


def test_other_decoder_end_is_refused(tiny_clipseg, copied, edited, load_folder, request):
    folder = copied(tiny_clipseg)
    refined = "refined" in request.node.name
    edited(folder / "config.json", {"use_complex_transposed_convolution": not refined})

    with pytest.raises(ModelError, match=r"transposed_convolution.*missing"):
        load_folder(folder)


def test_activation_that_the_weights_were_not_trained_with_is_refused(tiny_clipseg, copied, edited):
    folder = copied(tiny_clipseg)
    config = json.loads((folder / "config.json").read_text())
    config["vision_config"]["hidden_act"] = "gelu"
    edited(folder / "config.json", config)
    (found,) = resolve(str(folder), root=folder.parent)
    spec = dataclasses.replace(found, activation=ZOO["clipseg-rd64-refined"].activation)

    with pytest.raises(ModelError, match="its picture tower computes 'gelu', but the weights"):
        load(spec, device="cpu", dtype="float32", threads=1)


@pytest.mark.parametrize(
    "size", [{"shortest_edge": 48}, {"height": 48, "width": 32}, {"height": 50, "width": 50}]
)
def test_preprocessing_that_makes_no_square_of_patches_is_refused(
    tiny_clipseg, copied, edited, load_folder, size
):
    folder = copied(tiny_clipseg)
    edited(folder / "preprocessor_config.json", {"size": size})

    with pytest.raises(ModelError, match="takes squares of whole patches of 16 pixels"):
        load_folder(folder)


def test_lost_preprocessing_is_refused(tiny_clipseg, copied, load_folder):
    folder = copied(tiny_clipseg)
    path = folder / "preprocessor_config.json"
    whole = json.loads(path.read_text())
    for key in ("size", "image_mean", "image_std", "resample"):
        path.write_text(json.dumps({name: whole[name] for name in whole if name != key}))

        with pytest.raises(ModelError, match=f"{key} missing, and a default would feed"):
            load_folder(folder)


def test_preprocessing_of_an_old_checkpoint_means_the_same(
    tiny_clipseg, copied, edited, load_folder, photographs
):
    folder = copied(tiny_clipseg)
    edited(
        folder / "preprocessor_config.json",
        {"image_processor_type": None, "feature_extractor_type": "ViTFeatureExtractor", "size": 48},
    )

    found = load_folder(folder).segment(photographs, PHRASES)
    assert found.tobytes() == load_folder(tiny_clipseg).segment(photographs, PHRASES).tobytes()


def test_resolution_is_that_of_the_preprocessing(tiny_clipseg, copied, edited, load_folder):
    folder = copied(tiny_clipseg)
    edited(folder / "preprocessor_config.json", {"size": {"height": 64, "width": 64}})

    masks = load_folder(folder).segment([Image.new("RGB", (9, 7))], ["hen"])
    assert masks.shape == (1, 64, 64)


def test_end_of_text_that_the_tower_does_not_pool_is_refused(
    tiny_clipseg, copied, edited, load_folder
):
    folder = copied(tiny_clipseg)
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["eos_token_id"] = 40
    edited(folder / "config.json", config)

    with pytest.raises(ModelError, match="pools at token id 40, the tokenizer ends texts with 189"):
        load_folder(folder)


def test_relevance_is_grad_cam_of_the_deepest_layer(
    model, photographs, transformers_clipseg, monkeypatch
):
    """For the mean logit of the marked pixels, against its parts one by one."""
    network, processor, tokenizer = transformers_clipseg
    phrases, images = PHRASES[:6], photographs[:6]
    # Halfway, so that each picture has pixels on both sides.
    monkeypatch.setattr(
        PhraseSegmenter, "threshold", float(np.median(model.segment(images, phrases)))
    )
    before = model.segment(images, phrases).tobytes()
    found = model.region_relevance(images, phrases)
    pixels = processor(images=images, return_tensors="pt")
    tokens = tokenizer(phrases, padding=True, truncation=True, max_length=24, return_tensors="pt")
    seen = network.clip.vision_model(**pixels, output_hidden_states=True).hidden_states[1:]
    condition = network.get_conditional_embeddings(len(images), **tokens)
    logits = network.decoder(seen, condition).logits
    marked = logits.sigmoid() > model.threshold
    scores = [logits[i][marked[i]].mean() for i in range(6) if marked[i].any()]
    slopes = torch.autograd.grad(sum(scores), [seen[-1]])[0][:, 1:]
    values = seen[-1].detach()[:, 1:]

    assert isinstance(model, RegionExplainable)
    assert found.shape == (6, 3, 3)
    for i in range(6):
        weights = [slopes[i, :, channel].mean() for channel in range(32)]
        summed = sum(w * values[i, :, c] for c, w in enumerate(weights)).clamp(min=0)
        assert found[i].ravel() == pytest.approx(summed.numpy(), rel=1e-3, abs=1e-6)
    assert found.max() > 0
    assert model.segment(images, phrases).tobytes() == before
    assert model.region_relevance([], []).shape == (0, 3, 3)
    with pytest.raises(ModelError, match="expected one phrase per picture"):
        model.region_relevance(images, ["a cat"])

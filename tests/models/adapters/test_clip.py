"""Against direct calls of transformers, and against the ways in which CLIP is fed wrongly."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch

from natadv.errors import ModelError
from natadv.models import loading
from natadv.models.resolve import resolve
from natadv.tasks import classification

PROMPTS = ["a photo of a cat.", "a photo of a dog.", "a photo of a hen, or a cow"]


@pytest.fixture(scope="module")
def reference(tiny_clip, photographs):
    """What transformers itself answers, padded as the batch needs."""
    from transformers import AutoImageProcessor, AutoTokenizer, CLIPModel

    model = CLIPModel.from_pretrained(tiny_clip).eval()
    pixels = AutoImageProcessor.from_pretrained(tiny_clip, backend="pil")(
        images=photographs, return_tensors="pt"
    )
    tokens = AutoTokenizer.from_pretrained(tiny_clip)(
        PROMPTS, padding=True, truncation=True, return_tensors="pt"
    )
    with torch.inference_mode():
        return model(**pixels, **tokens)


def test_embeddings_are_those_of_transformers(
    tiny_clip, load_folder, photographs, reference, embedded
):
    model = load_folder(tiny_clip)

    assert embedded(model, photographs) == pytest.approx(reference.image_embeds.numpy(), abs=1e-6)
    assert model.embed_texts(PROMPTS) == pytest.approx(reference.text_embeds.numpy(), abs=1e-6)


def test_scores_are_those_of_transformers(tiny_clip, load_folder, photographs, reference, embedded):
    model = load_folder(tiny_clip)
    weights = classification.class_weights(model.embed_texts(PROMPTS), classes=3, templates=1)
    images = embedded(model, photographs)
    found = classification.logits(images, weights=weights, scoring=model.scoring)
    expected = reference.logits_per_image

    assert found == pytest.approx(expected.numpy(), abs=1e-4)
    assert classification.probabilities(found, scoring=model.scoring) == pytest.approx(
        expected.softmax(dim=1).numpy(), abs=1e-5
    )


def test_scoring_is_the_checkpoints_own(tiny_clip, load_folder):
    scoring = load_folder(tiny_clip).scoring

    assert scoring.scale == pytest.approx(np.exp(3.0))
    assert (scoring.bias, scoring.activation) == (0.0, "softmax")


def test_case_makes_no_difference(tiny_clip, load_folder):
    model = load_folder(tiny_clip)

    assert (
        model.embed_texts(["A Photo of a CAT."]).tobytes()
        == model.embed_texts(["a photo of a cat."]).tobytes()
    )


def test_long_text_still_ends_in_the_token_that_is_pooled(tiny_clip, load_folder):
    rows = load_folder(tiny_clip).embed_texts(["1" * 22, "1" * 23, "1" * 500])

    assert np.abs(rows[0] - rows[2]).max() < 2e-6
    assert np.abs(rows[1] - rows[2]).max() < 2e-6


def test_files_of_an_old_checkpoint_mean_the_same(
    tiny_clip, copied, load_folder, photographs, embedded
):
    folder = copied(tiny_clip)
    split = json.loads((folder / "tokenizer.json").read_text())["model"]
    (folder / "vocab.json").write_text(json.dumps(split["vocab"]))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    (folder / "tokenizer.json").unlink()
    new = json.loads((folder / "preprocessor_config.json").read_text())
    old = {key: new[key] for key in ("image_mean", "image_std", "resample")}
    old |= {"feature_extractor_type": "CLIPFeatureExtractor", "size": 32, "crop_size": 32}
    (folder / "preprocessor_config.json").write_text(json.dumps(old))

    ours, theirs = load_folder(tiny_clip), load_folder(folder)
    assert theirs.embed_texts(PROMPTS).tobytes() == ours.embed_texts(PROMPTS).tobytes()
    assert embedded(theirs, photographs).tobytes() == embedded(ours, photographs).tobytes()


def set_end_of_text(folder, edited, value):
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["eos_token_id"] = value
    edited(folder / "config.json", config)


def test_end_of_text_that_the_tower_does_not_pool_is_refused(
    tiny_clip, copied, edited, load_folder
):
    folder = copied(tiny_clip)
    set_end_of_text(folder, edited, 40)

    with pytest.raises(ModelError, match="pools at token id 40, the tokenizer ends texts with 189"):
        load_folder(folder)


def test_legacy_end_of_text_pools_the_highest_id(tiny_clip, copied, edited, load_folder):
    folder = copied(tiny_clip)
    set_end_of_text(folder, edited, 2)

    found = load_folder(folder).embed_texts(PROMPTS)
    assert found.tobytes() == load_folder(tiny_clip).embed_texts(PROMPTS).tobytes()


def loaded_as_trained_with(activation, folder):
    (spec,) = resolve(str(folder), root=folder.parent)
    spec = dataclasses.replace(spec, activation=activation)
    return loading.load(spec, device="cpu", dtype="float32", threads=1)


@pytest.mark.parametrize("tower", ["vision", "text"])
def test_gelu_instead_of_quick_gelu_is_caught(
    tiny_clip, copied, edited, load_folder, photographs, embedded, tower
):
    folder = copied(tiny_clip)
    section = json.loads((folder / "config.json").read_text())[f"{tower}_config"]
    edited(folder / "config.json", {f"{tower}_config": section | {"hidden_act": "gelu"}})
    word = {"vision": "picture", "text": "text"}[tower]

    with pytest.raises(
        ModelError,
        match=f"copy: its {word} tower computes 'gelu', but .* 'quick_gelu' .*hidden_act",
    ):
        loaded_as_trained_with("quick_gelu", folder)
    # Nothing else would tell: it loads, and embeds otherwise.
    ours, theirs = load_folder(tiny_clip), load_folder(folder)
    images = np.abs(embedded(ours, photographs) - embedded(theirs, photographs)).max()
    texts = np.abs(ours.embed_texts(PROMPTS) - theirs.embed_texts(PROMPTS)).max()
    assert (images > 0.001, texts > 0.001) == (tower == "vision", tower == "text")


def test_activation_of_the_training_is_accepted(tiny_clip):
    loaded_as_trained_with("quick_gelu", tiny_clip)

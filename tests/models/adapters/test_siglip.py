"""Against direct calls of transformers, and against the ways in which SigLIP is fed wrongly."""

from __future__ import annotations

import json
import string
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from natadv.models.adapters.siglip import canonical
from natadv.tasks import classification

PROMPTS = ["a photo of a cat", "a photo of a dog", "a photo of a hen, or a cow"]
CONTEXT = 24


@pytest.fixture(scope="module")
def transformers_siglip(tiny_siglip):
    """The model and the tokenizer, as transformers loads them."""
    from transformers import AutoTokenizer, SiglipModel

    return SiglipModel.from_pretrained(tiny_siglip).eval(), AutoTokenizer.from_pretrained(
        tiny_siglip
    )


@pytest.fixture(scope="module")
def reference(tiny_siglip, photographs, transformers_siglip):
    from transformers import AutoImageProcessor

    model, tokenizer = transformers_siglip
    pixels = AutoImageProcessor.from_pretrained(tiny_siglip, backend="pil")(
        images=photographs, return_tensors="pt"
    )
    tokens = tokenizer(
        PROMPTS, padding="max_length", max_length=CONTEXT, truncation=True, return_tensors="pt"
    )
    with torch.inference_mode():
        return model(input_ids=tokens["input_ids"], pixel_values=pixels["pixel_values"])


def padded_to_longest(transformers_siglip, texts):
    model, tokenizer = transformers_siglip
    ids = tokenizer(texts, padding=True, return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        rows = model.get_text_features(input_ids=ids).pooler_output
    return torch.nn.functional.normalize(rows, dim=-1).numpy()


def test_embeddings_are_those_of_transformers(
    tiny_siglip, load_folder, photographs, reference, embedded
):
    model = load_folder(tiny_siglip)

    assert embedded(model, photographs) == pytest.approx(reference.image_embeds.numpy(), abs=1e-6)
    assert model.embed_texts(PROMPTS) == pytest.approx(reference.text_embeds.numpy(), abs=1e-6)


def test_scores_are_those_of_transformers(
    tiny_siglip, load_folder, photographs, reference, embedded
):
    model = load_folder(tiny_siglip)
    weights = classification.class_weights(model.embed_texts(PROMPTS), classes=3, templates=1)
    images = embedded(model, photographs)
    found = classification.logits(images, weights=weights, scoring=model.scoring)
    expected = reference.logits_per_image

    assert found == pytest.approx(expected.numpy(), abs=1e-4)
    assert classification.probabilities(found, scoring=model.scoring) == pytest.approx(
        expected.sigmoid().numpy(), abs=1e-5
    )


def test_scoring_is_the_checkpoints_own(tiny_siglip, load_folder):
    scoring = load_folder(tiny_siglip).scoring

    assert scoring.scale == pytest.approx(np.exp(2.5))
    assert scoring.bias == pytest.approx(-3.0)
    assert scoring.activation == "sigmoid"


@pytest.mark.parametrize("text", ["A Photo of a CAT.", "a  photo_of a cat", " a photo of a cat!"])
def test_prompt_is_canonicalised(tiny_siglip, load_folder, transformers_siglip, text):
    model = load_folder(tiny_siglip)

    assert model.embed_texts([text]).tobytes() == model.embed_texts(PROMPTS[:1]).tobytes()
    # The tokenizer alone does not do it: as it stands, the text has another embedding.
    raw, plain = (padded_to_longest(transformers_siglip, [t]) for t in (text, PROMPTS[0]))
    assert np.abs(raw - plain).max() > 0.01


def test_paper_gave_the_prompt_as_it_stood(tiny_siglip, load_folder, transformers_siglip):
    model, tokenizer = transformers_siglip
    loud = ["A Photo of a CAT"]
    ids = tokenizer(loud, padding="max_length", max_length=CONTEXT, return_tensors="pt")
    with torch.inference_mode():
        rows = model.get_text_features(input_ids=ids["input_ids"]).pooler_output
    expected = torch.nn.functional.normalize(rows, dim=-1).numpy()

    as_trained, as_in_paper = (
        load_folder(Path(f"{tiny_siglip}{suffix}")) for suffix in ("", "@paper")
    )
    assert as_in_paper.embed_texts(loud) == pytest.approx(expected, abs=1e-6)
    assert np.abs(as_trained.embed_texts(loud) - expected).max() > 0.01
    # A prompt that needs no change is the same to both.
    assert as_in_paper.embed_texts(PROMPTS).tobytes() == as_trained.embed_texts(PROMPTS).tobytes()


def test_lost_padding_would_change_the_embedding(tiny_siglip, load_folder, transformers_siglip):
    found = load_folder(tiny_siglip).embed_texts(PROMPTS[:1])

    assert np.abs(found - padded_to_longest(transformers_siglip, PROMPTS[:1])).max() > 0.01


def test_text_longer_than_the_context_is_cut(tiny_siglip, load_folder):
    rows = load_folder(tiny_siglip).embed_texts(["a" * 23, "a" * 500])

    assert np.abs(rows[0] - rows[1]).max() < 2e-6


def test_tokenizer_that_pads_on_the_left_is_overruled(tiny_siglip, copied, edited, load_folder):
    folder = copied(tiny_siglip)
    edited(folder / "tokenizer_config.json", {"padding_side": "left"})

    found = load_folder(folder).embed_texts(PROMPTS)
    assert found.tobytes() == load_folder(tiny_siglip).embed_texts(PROMPTS).tobytes()


def test_picture_is_squashed_not_cropped(tiny_siglip, load_folder, photographs, embedded):
    model = load_folder(tiny_siglip)
    wide = photographs[3]

    squashed = embedded(model, [wide.resize((32, 32), resample=2)])
    assert embedded(model, [wide]) == pytest.approx(squashed, abs=1e-6)


def test_context_is_that_of_the_config(tiny_siglip):
    config = json.loads((tiny_siglip / "config.json").read_text())

    assert config["text_config"]["max_position_embeddings"] == CONTEXT


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A Photo of a Cat.", "a photo of a cat"),
        ("a photo of a guinea_pig", "a photo of a guinea pig"),
        ("jack-o'-lantern!", "jackolantern"),
        ("  a \t photo\nof  {} ", "a photo of"),
        ("hen, chicken", "hen, chicken"),
        ("", ""),
    ],
)
def test_canonical_is_spelt_as_in_training(text, expected):
    assert canonical(text) == expected


# A short alphabet: the tables of all of Unicode take seconds to build.
@given(st.text(string.printable + "ÄßİŁΣς—\u00a0\u2003猫"))
def test_canonical_is_settled_after_one_pass(text):
    once = canonical(text)

    assert canonical(once) == once
    assert not set(once) & set(string.punctuation.replace(",", ""))
    assert "  " not in once

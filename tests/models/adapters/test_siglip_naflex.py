"""Against direct calls of transformers, and against the ways in which NaFlex is fed wrongly."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from natadv.errors import ModelError
from natadv.models.files import checkpoint
from natadv.models.zoo import ZOO
from natadv.tasks import classification

PROMPTS = ["a photo of a cat", "a photo of a dog", "a photo of a hen, or a cow"]
CONTEXT = 24
PIXELS = ("pixel_values", "pixel_attention_mask", "spatial_shapes")


@pytest.fixture(scope="module")
def transformers_siglip2(tiny_siglip2):
    """The model, the preprocessing and the tokenizer, as transformers loads them."""
    from transformers import AutoImageProcessor, AutoTokenizer, Siglip2Model

    return (
        Siglip2Model.from_pretrained(tiny_siglip2).eval(),
        AutoImageProcessor.from_pretrained(tiny_siglip2, backend="pil"),
        AutoTokenizer.from_pretrained(tiny_siglip2),
    )


@pytest.fixture(scope="module")
def reference(photographs, transformers_siglip2):
    model, processor, tokenizer = transformers_siglip2
    pixels = processor(images=photographs, return_tensors="pt")
    ids = tokenizer(
        PROMPTS,
        padding="max_length",
        padding_side="right",
        max_length=CONTEXT,
        truncation=True,
        return_tensors="pt",
    )["input_ids"]
    with torch.inference_mode():
        return model(input_ids=ids, **{key: pixels[key] for key in PIXELS})


def text_rows(transformers_siglip2, texts, *, masked=False, **padding):
    model, _, tokenizer = transformers_siglip2
    tokens = tokenizer(texts, max_length=CONTEXT, truncation=True, return_tensors="pt", **padding)
    mask = {"attention_mask": tokens["attention_mask"]} if masked else {}
    with torch.inference_mode():
        rows = model.get_text_features(input_ids=tokens["input_ids"], **mask).pooler_output
    return torch.nn.functional.normalize(rows, dim=-1).numpy()


def test_embeddings_are_those_of_transformers(
    tiny_siglip2, load_folder, photographs, reference, embedded
):
    model = load_folder(tiny_siglip2)

    assert embedded(model, photographs) == pytest.approx(reference.image_embeds.numpy(), abs=1e-6)
    assert model.embed_texts(PROMPTS) == pytest.approx(reference.text_embeds.numpy(), abs=1e-6)


def test_scores_are_those_of_transformers(
    tiny_siglip2, load_folder, photographs, reference, embedded
):
    model = load_folder(tiny_siglip2)
    weights = classification.class_weights(model.embed_texts(PROMPTS), classes=3, templates=1)
    images = embedded(model, photographs)
    found = classification.logits(images, weights=weights, scoring=model.scoring)
    expected = reference.logits_per_image

    assert found == pytest.approx(expected.numpy(), abs=1e-4)
    assert classification.probabilities(found, scoring=model.scoring) == pytest.approx(
        expected.sigmoid().numpy(), abs=1e-5
    )


def test_scoring_is_the_checkpoints_own(tiny_siglip2, load_folder):
    scoring = load_folder(tiny_siglip2).scoring

    assert scoring.scale == pytest.approx(np.exp(2.5))
    assert (scoring.bias, scoring.activation) == (pytest.approx(-3.0), "sigmoid")


def test_picture_does_not_depend_on_the_shapes_beside_it(
    tiny_siglip2, load_folder, photographs, embedded
):
    model = load_folder(tiny_siglip2)
    together = embedded(model, photographs)
    alone = np.concatenate([embedded(model, [image]) for image in photographs])

    assert together == pytest.approx(alone, abs=2e-6)
    apart = np.abs(together[:, None] - together[None]).max(axis=-1) + np.eye(len(together))
    assert apart.min() > 1e-3


def test_text_does_not_depend_on_its_batch(tiny_siglip2, load_folder):
    model = load_folder(tiny_siglip2)
    alone = np.concatenate([model.embed_texts([text]) for text in PROMPTS])

    assert model.embed_texts(PROMPTS) == pytest.approx(alone, abs=2e-6)


def test_nothing_gives_no_rows(tiny_siglip2, load_folder, embedded):
    model = load_folder(tiny_siglip2)

    assert embedded(model, []).shape == (0, 32)
    assert model.embed_texts([]).shape == (0, 32)


def test_picture_keeps_its_proportions(tiny_siglip2, load_folder, photographs, embedded):
    model = load_folder(tiny_siglip2)
    wide = photographs[3]

    assert model.prepare([wide])["spatial_shapes"].tolist() == [[2, 8]]
    squashed = embedded(model, [wide.resize((32, 32), resample=2)])
    assert np.abs(embedded(model, [wide]) - squashed).max() > 0.01


def test_patches_that_fill_up_are_not_looked_at(tiny_siglip2, load_folder, photographs):
    model = load_folder(tiny_siglip2)
    prepared = model.prepare([photographs[3].resize((40, 24))])
    before = model.embed_images(prepared)
    mask = prepared["pixel_attention_mask"].bool()
    prepared["pixel_values"][~mask] = 7.0

    assert int(mask.sum()) == 3 * 5
    assert model.embed_images(prepared) == pytest.approx(before, abs=1e-6)


@pytest.mark.parametrize(
    "padding",
    [
        {"padding": True, "padding_side": "right"},
        {"padding": "max_length", "padding_side": "left"},
        {"padding": "max_length", "padding_side": "right", "masked": True},
    ],
    ids=["longest", "left", "masked"],
)
def test_other_padding_would_change_the_embedding(
    tiny_siglip2, load_folder, transformers_siglip2, padding
):
    found = load_folder(tiny_siglip2).embed_texts(PROMPTS[:1])

    assert np.abs(found - text_rows(transformers_siglip2, PROMPTS[:1], **padding)).max() > 0.01


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_of_the_tokenizer_is_overruled(
    tiny_siglip2, copied, edited, load_folder, transformers_siglip2, side
):
    # Its class pads on the left if nothing else is said.
    assert transformers_siglip2[2].padding_side == "left"
    folder = copied(tiny_siglip2)
    edited(folder / "tokenizer_config.json", {"padding_side": side, "model_max_length": 9})

    found = load_folder(folder).embed_texts(PROMPTS)
    assert found.tobytes() == load_folder(tiny_siglip2).embed_texts(PROMPTS).tobytes()


def test_text_longer_than_the_context_is_cut(tiny_siglip2, load_folder):
    rows = load_folder(tiny_siglip2).embed_texts(["a" * 23, "a" * 500])

    assert np.abs(rows[0] - rows[1]).max() < 2e-6


@pytest.mark.parametrize("text", ["A Photo of a CAT.", "a  photo_of a cat", " a photo of a cat!"])
def test_prompt_is_canonicalised(tiny_siglip2, load_folder, text):
    model = load_folder(tiny_siglip2)

    assert model.embed_texts([text]).tobytes() == model.embed_texts(PROMPTS[:1]).tobytes()


def test_paper_gave_the_prompt_as_it_stood(tiny_siglip2, load_folder, transformers_siglip2):
    model = load_folder(Path(f"{tiny_siglip2}@paper"))
    raw = ["A Photo of a CAT."]
    found = model.embed_texts(raw)

    padding = {"padding": "max_length", "padding_side": "right"}
    assert found == pytest.approx(text_rows(transformers_siglip2, raw, **padding), abs=1e-6)
    assert np.abs(found - load_folder(tiny_siglip2).embed_texts(raw)).max() > 0.01


def test_lost_preprocessing_is_refused(tiny_siglip2, copied, load_folder):
    folder = copied(tiny_siglip2)
    path = folder / "preprocessor_config.json"
    whole = json.loads(path.read_text())
    for key in ("max_num_patches", "patch_size", "resample", "image_mean"):
        path.write_text(json.dumps({name: whole[name] for name in whole if name != key}))

        with pytest.raises(ModelError, match=f"{key} missing, and a default would feed"):
            load_folder(folder)


def test_preprocessing_of_other_patches_is_refused(tiny_siglip2, copied, edited, load_folder):
    folder = copied(tiny_siglip2)
    edited(folder / "preprocessor_config.json", {"patch_size": 4})

    with pytest.raises(ModelError, match=r"takes patches of shape \(1, 16, 192\).*\(1, 16, 48\)"):
        load_folder(folder)


def test_number_of_patches_is_that_of_the_preprocessing(
    tiny_siglip2, copied, edited, load_folder, photographs, embedded
):
    folder = copied(tiny_siglip2)
    edited(folder / "preprocessor_config.json", {"max_num_patches": 36})
    model = load_folder(folder)

    assert model.prepare(photographs)["pixel_values"].shape == (8, 36, 192)
    finer = embedded(model, photographs[:1])
    assert np.abs(finer - embedded(load_folder(tiny_siglip2), photographs[:1])).max() > 0.01


def end_texts_with(folder, *, before, after):
    """Change what the tokenizer puts around a text."""
    path = folder / "tokenizer.json"
    stored = json.loads(path.read_text())
    special = {"<bos>": 2, "<eos>": 1}
    stored["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [
            *({"SpecialToken": {"id": token, "type_id": 0}} for token in before),
            {"Sequence": {"id": "A", "type_id": 0}},
            *({"SpecialToken": {"id": token, "type_id": 0}} for token in after),
        ],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {
            token: {"id": token, "ids": [special[token]], "tokens": [token]}
            for token in (*before, *after)
        },
    }
    path.write_text(json.dumps(stored))


@pytest.mark.parametrize(("before", "after"), [((), ()), (("<bos>",), ("<eos>",))])
def test_texts_that_begin_or_end_otherwise_are_refused(
    tiny_siglip2, copied, load_folder, before, after
):
    folder = copied(tiny_siglip2)
    end_texts_with(folder, before=before, after=after)

    with pytest.raises(ModelError, match="expected texts that end with token id 1 and have no st"):
        load_folder(folder)


@pytest.mark.parametrize(
    ("name", "width", "layers"),
    [("siglip2-b16-naflex", 768, 12), ("siglip2-so400m-16-naflex", 1152, 27)],
)
def test_folder_descends_from_the_row_of_its_size(tmp_path, name, width, layers):
    sizes = {"hidden_size": width, "num_hidden_layers": layers}
    config = {
        "model_type": "siglip2",
        "vision_config": {**sizes, "num_patches": 256},
        "text_config": sizes,
    }
    (tmp_path / "config.json").write_text(json.dumps(config))

    assert checkpoint.signature(tmp_path) == ZOO[name].signature

"""Against direct calls of transformers, and against the ways in which PaliGemma is fed wrongly."""

from __future__ import annotations

import json
import logging
from functools import cache

import pytest
import torch

from natadv.errors import ModelError

# The processor that these tests compare with.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

QUESTIONS = ["what is this?", "is it red", "how many dogs are there?", "wo?"]


@pytest.fixture(scope="module")
def loaded(load_folder):
    """Load a checkpoint that nothing changes, once."""
    return cache(load_folder)


@pytest.fixture(scope="session")
def pictures(photographs):
    return photographs[:4]


@pytest.fixture(scope="module")
def transformers_paligemma(tiny_paligemma):
    """The model and the processor, as transformers loads them."""
    from transformers import AutoProcessor, PaliGemmaForConditionalGeneration

    model = PaliGemmaForConditionalGeneration.from_pretrained(
        tiny_paligemma, attn_implementation={"text_config": "eager"}
    )
    return model.eval(), AutoProcessor.from_pretrained(tiny_paligemma, backend="pil")


@pytest.fixture
def generated(monkeypatch):
    """What every later call of generate was given and gave back."""
    from transformers import PaliGemmaForConditionalGeneration as Model

    calls = []
    original = Model.generate

    def generate(self, **inputs):
        calls.append((inputs, original(self, **inputs)))
        return calls[-1][1]

    monkeypatch.setattr(Model, "generate", generate)
    return calls


def directly(transformers_paligemma, picture, question):
    """The tokens of the prompt, and those behind it."""
    model, processor = transformers_paligemma
    inputs = processor(images=picture, text=f"<image>answer en {question}", return_tensors="pt")
    inputs.pop("labels", None)
    found = model.generate(**inputs, do_sample=False, max_new_tokens=10)
    return inputs, found[0, inputs["input_ids"].shape[1] :]


def test_answers_are_those_of_transformers(
    tiny_paligemma, loaded, pictures, transformers_paligemma
):
    _, processor = transformers_paligemma
    tokens = [
        directly(transformers_paligemma, p, q)[1] for p, q in zip(pictures, QUESTIONS, strict=True)
    ]
    expected = tuple(processor.decode(t, skip_special_tokens=True).strip() for t in tokens)

    assert loaded(tiny_paligemma).answer(pictures, QUESTIONS) == expected
    assert len(set(expected)) == len(expected)


def test_prompt_and_tokens_are_those_of_the_processor(
    tiny_paligemma, loaded, pictures, transformers_paligemma, generated
):
    model = loaded(tiny_paligemma)
    for picture, question in zip(pictures, QUESTIONS, strict=True):
        expected, answer = directly(transformers_paligemma, picture, question)
        model.answer([picture], [question])
        inputs, written = generated[-1]

        for key in ("input_ids", "attention_mask", "token_type_ids"):
            assert torch.equal(inputs[key], expected[key]), key
        assert inputs["pixel_values"] == pytest.approx(expected["pixel_values"], abs=1e-6)
        assert torch.equal(written[0, expected["input_ids"].shape[1] :], answer)


def test_prompt_is_picture_start_question_end_of_line(tiny_paligemma, loaded, pictures, generated):
    model = loaded(tiny_paligemma)
    model.answer(pictures[:1], ["is it red"])
    ids = generated[-1][0]["input_ids"][0].tolist()
    tokenizer = model.tokenizer

    assert tokenizer.decode(ids[:4]) == "<image>" * 4
    assert tokenizer.decode(ids[4:]) == "<bos>answer en is it red\n"


def test_prompt_that_is_read_word_by_word_has_other_answers(
    tiny_paligemma, loaded, pictures, transformers_paligemma
):
    model, processor = transformers_paligemma
    inputs, _ = directly(transformers_paligemma, pictures[0], QUESTIONS[0])
    del inputs["token_type_ids"]
    found = model.generate(**inputs, do_sample=False, max_new_tokens=10)
    text = processor.decode(found[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)

    assert (text,) != loaded(tiny_paligemma).answer(pictures[:1], QUESTIONS[:1])


def test_attention_is_capped(tiny_paligemma, copied, edited, load_folder, loaded, pictures):
    folder = copied(tiny_paligemma)
    text = json.loads((folder / "config.json").read_text())["text_config"]
    edited(folder / "config.json", {"text_config": {**text, "attn_logit_softcapping": 1e6}})

    uncapped = load_folder(folder).answer(pictures, QUESTIONS)
    assert uncapped != loaded(tiny_paligemma).answer(pictures, QUESTIONS)


def test_head_need_not_be_stored_a_second_time(tiny_paligemma):
    from safetensors import safe_open

    with safe_open(tiny_paligemma / "model.safetensors", framework="pt") as file:
        assert not [name for name in file.keys() if "lm_head" in name]  # noqa: SIM118


def test_head_that_is_not_tied_must_be_stored(tiny_paligemma, copied, edited, load_folder):
    folder = copied(tiny_paligemma)
    edited(folder / "config.json", {"tie_word_embeddings": False})

    with pytest.raises(ModelError, match=r"lm_head\.weight missing; copy both"):
        load_folder(folder)


def test_preprocessing_in_one_file_counts(tiny_paligemma, copied, load_folder, loaded, pictures):
    from transformers import AutoProcessor

    folder = copied(tiny_paligemma)
    (folder / "preprocessor_config.json").unlink()
    AutoProcessor.from_pretrained(tiny_paligemma, backend="pil").save_pretrained(folder)
    assert not (folder / "preprocessor_config.json").exists()

    expected = loaded(tiny_paligemma).answer(pictures, QUESTIONS)
    assert load_folder(folder).answer(pictures, QUESTIONS) == expected


@pytest.mark.parametrize("places", [1, 3, 16])
def test_places_for_another_picture_are_refused(
    tiny_paligemma, copied, edited, load_folder, places
):
    folder = copied(tiny_paligemma)
    edited(folder / "preprocessor_config.json", {"image_seq_length": places})

    with pytest.raises(
        ModelError, match=f"leaves {places} tokens for a picture, the model makes 4 of it; copy"
    ):
        load_folder(folder)


def test_places_are_not_left_to_a_default(tiny_paligemma, copied, edited, load_folder):
    folder = copied(tiny_paligemma)
    edited(folder / "preprocessor_config.json", {"image_seq_length": None})

    with pytest.raises(ModelError, match="image_seq_length missing, and a default would feed"):
        load_folder(folder)


@pytest.mark.parametrize("key", ["bos_token", "eos_token"])
def test_tokenizer_without_start_or_end_is_refused(
    tiny_paligemma, copied, edited, load_folder, key
):
    folder = copied(tiny_paligemma)
    edited(
        folder / "tokenizer_config.json", {key: None, "tokenizer_class": "PreTrainedTokenizerFast"}
    )

    with pytest.raises(ModelError, match="no bos_token or no eos_token; copy the tokenizer"):
        load_folder(folder)


def test_no_warning_about_the_place_of_the_picture(tiny_paligemma, loaded, pictures, caplog):
    with caplog.at_level(logging.DEBUG, logger="transformers"):
        loaded(tiny_paligemma).answer(pictures, QUESTIONS)

    assert "image tokens in the text" not in caplog.text


@pytest.mark.parametrize(
    ("section", "key"),
    [
        ("vision_config", "image_size"),
        ("text_config", "hidden_size"),
        ("text_config", "num_hidden_layers"),
    ],
)
def test_signature_tells_sizes_apart(tiny_paligemma, copied, edited, section, key):
    from natadv.models.files import checkpoint

    folder = copied(tiny_paligemma)
    before = checkpoint.signature(folder)
    config = json.loads((folder / "config.json").read_text())
    config[section][key] += 1
    edited(folder / "config.json", config)

    assert checkpoint.signature(folder) != before


def test_assumed_architecture_is_that_of_transformers():
    from transformers import AutoConfig

    from natadv.models.files.model_types import MODEL_TYPES

    config = AutoConfig.for_model("paligemma")

    for section, keys in MODEL_TYPES["paligemma"].architecture.items():
        meant = getattr(config, section)
        assert {key: getattr(meant, key) for key in keys} == keys

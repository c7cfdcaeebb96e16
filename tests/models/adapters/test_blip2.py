"""Against direct calls of transformers, and against the ways in which BLIP-2 is fed wrongly."""

from __future__ import annotations

import dataclasses
import json
import re
from functools import cache
from pathlib import Path

import pytest
import torch

from natadv.errors import ConfigError, ModelError
from natadv.models import loading
from natadv.models.adapters import blip2
from natadv.models.exemplars import OF_ROW, first_exemplars
from natadv.models.resolve import resolve, resolve_all

QUESTIONS = ["what is this?", "is it red", "how many dogs are there?", "wo?"]
SETTINGS = {
    "num_beams": 5,
    "length_penalty": -1.0,
    "max_new_tokens": 10,
    "min_new_tokens": 1,
    "do_sample": False,
}


@pytest.fixture(scope="module")
def loaded(load_folder):
    """Load a checkpoint that nothing changes, once."""
    return cache(load_folder)


@pytest.fixture(scope="session")
def pictures(photographs):
    return photographs[:4]


@pytest.fixture(params=["tiny_blip2_opt", "tiny_blip2_t5"])
def tiny_blip2(request):
    return request.getfixturevalue(request.param)


@pytest.fixture
def generated(monkeypatch):
    """What every later call of generate was given and gave back."""
    from transformers import Blip2ForConditionalGeneration as Model

    calls = []
    original = Model.generate

    def generate(self, **inputs):
        calls.append((inputs, original(self, **inputs)))
        return calls[-1][1]

    monkeypatch.setattr(Model, "generate", generate)
    return calls


def spec_of(folder, **changes):
    (spec,) = resolve(str(folder), root=folder.parent)
    return dataclasses.replace(spec, **changes)


def load(spec):
    return loading.load(spec, device="cpu", dtype="float32", threads=1)


@cache
def transformers_blip2(folder):
    """The model and the processor, as transformers loads them."""
    from transformers import AutoProcessor, Blip2ForConditionalGeneration

    model = Blip2ForConditionalGeneration.from_pretrained(folder)
    return model.eval(), AutoProcessor.from_pretrained(folder, backend="pil")


def directly(folder, picture, prompt):
    """What transformers' own processor makes of a prompt, what it generates, and the answer."""
    model, processor = transformers_blip2(folder)
    inputs = processor(images=picture, text=prompt, return_tensors="pt")
    found = model.generate(**inputs, **SETTINGS)
    skipped = inputs["input_ids"].shape[1] if found.shape[1] > 11 else 1
    text = processor.tokenizer.decode(found[0, skipped:], skip_special_tokens=True)
    return inputs, found, text.strip()


def test_answers_are_those_of_transformers(tiny_blip2, loaded, pictures):
    expected = tuple(
        directly(tiny_blip2, p, f"Question: {q} Short answer:")[2]
        for p, q in zip(pictures, QUESTIONS, strict=True)
    )

    assert loaded(tiny_blip2).answer(pictures, QUESTIONS) == expected
    assert len(set(expected)) == len(expected)


def test_prompt_and_tokens_are_those_of_the_processor(tiny_blip2, loaded, pictures, generated):
    model = loaded(tiny_blip2)
    for picture, question in zip(pictures, QUESTIONS, strict=True):
        expected, found, _ = directly(tiny_blip2, picture, f"Question: {question} Short answer:")
        model.answer([picture], [question])
        inputs, written = generated[-1]

        for key in ("input_ids", "attention_mask"):
            assert torch.equal(inputs[key], expected[key]), key
        assert inputs["pixel_values"] == pytest.approx(expected["pixel_values"], abs=1e-6)
        assert torch.equal(written, found)


def test_words_follow_the_picture_at_once(tiny_blip2_t5, loaded, pictures, generated):
    """Padding between them would move the words away from the picture."""
    loaded(tiny_blip2_t5).answer(pictures, QUESTIONS)
    mask = generated[-1][0]["attention_mask"]

    assert mask[:, 0].all()
    assert (mask.diff(dim=1) <= 0).all()
    assert (mask[:, -1] == 0).any()


def test_what_opt_writes_follows_the_prompt_at_once(tiny_blip2_opt, loaded, pictures, generated):
    loaded(tiny_blip2_opt).answer(pictures, QUESTIONS)
    mask = generated[-1][0]["attention_mask"]

    assert mask[:, -1].all()
    assert (mask[:, 0] == 0).any()


def answering_until(folder, first, copied, edited):
    """A copy of the OPT checkpoint, for which the token `first` ends an answer."""
    ending = copied(folder, name=f"until-{first}")
    text = json.loads((ending / "config.json").read_text())["text_config"]
    # A padding that the tokenizer does not know must not show either.
    changes = {"eos_token_id": first, "pad_token_id": text["pad_token_id"] + 40}
    edited(ending / "config.json", {"text_config": text | changes})
    return ending


def test_opt_ends_with_the_line(tiny_blip2_opt, loaded):
    """Not at the tokenizer's end of text: that is what the published configs say."""
    text = json.loads((tiny_blip2_opt / "config.json").read_text())["text_config"]
    tokenizer = loaded(tiny_blip2_opt).tokenizer

    assert tokenizer.decode([text["eos_token_id"]]) == "\n"
    assert tokenizer.eos_token_id != text["eos_token_id"]


def test_opt_ends_where_its_config_says(
    tiny_blip2_opt, copied, edited, load_folder, loaded, pictures, generated
):
    whole = loaded(tiny_blip2_opt).answer(pictures, QUESTIONS)
    inputs, written = generated[-1]
    ids = written[:, inputs["input_ids"].shape[1] :]
    last = int(ids[0, 3])
    model = load_folder(answering_until(tiny_blip2_opt, last, copied, edited))
    found = model.answer(pictures, QUESTIONS)
    inputs, written = generated[-1]
    ends = [row.tolist() for row in written[:, inputs["input_ids"].shape[1] :]]

    assert found != whole
    assert any(last in row for row in ends)
    letter = model.tokenizer.decode([last])
    for row, answer in zip(ends, found, strict=True):
        length = row.index(last) + 1 if last in row else len(row)
        assert len(answer) == length
        assert letter not in answer[:-1]


def test_answer_has_at_least_one_word(tiny_blip2_t5, copied, load_folder, pictures):
    """A model that would rather be silent."""
    from safetensors.torch import load_file, save_file

    _, found, _ = directly(tiny_blip2_t5, pictures[0], "Question: is it red Short answer:")
    folder = copied(tiny_blip2_t5)
    tensors = load_file(folder / "model.safetensors")
    head = tensors["language_model.lm_head.weight"]
    head[1] = 3 * head[found[0, 1]]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    model, processor = transformers_blip2(folder)
    inputs = processor(
        images=pictures[0], text="Question: is it red Short answer:", return_tensors="pt"
    )
    silent = model.generate(**inputs, **SETTINGS | {"min_new_tokens": 0})

    assert silent.tolist() == [[0, 1]]
    assert all(load_folder(folder).answer(pictures[:1], ["is it red"]))


@pytest.mark.parametrize("stated", [3, 32, "4"])
def test_places_for_another_picture_are_refused(tiny_blip2, copied, edited, load_folder, stated):
    folder = copied(tiny_blip2)
    edited(folder / "processor_config.json", {"num_query_tokens": stated})

    with pytest.raises(
        ModelError, match=f"leaves {stated!r} tokens for a picture, the model makes 4 of it; copy"
    ):
        load_folder(folder)


@pytest.mark.parametrize("lost", ["key", "file"])
def test_places_that_are_not_stated_are_the_models(
    tiny_blip2, copied, edited, load_folder, loaded, pictures, lost
):
    folder = copied(tiny_blip2)
    if lost == "key":
        edited(folder / "processor_config.json", {"num_query_tokens": None})
    else:
        (folder / "processor_config.json").unlink()

    expected = loaded(tiny_blip2).answer(pictures, QUESTIONS)
    assert load_folder(folder).answer(pictures, QUESTIONS) == expected


def test_preprocessing_in_one_file_counts(tiny_blip2, copied, load_folder, loaded, pictures):
    from transformers import AutoProcessor

    folder = copied(tiny_blip2)
    (folder / "preprocessor_config.json").unlink()
    AutoProcessor.from_pretrained(tiny_blip2, backend="pil").save_pretrained(folder)
    assert "image_processor" in json.loads((folder / "processor_config.json").read_text())

    expected = loaded(tiny_blip2).answer(pictures, QUESTIONS)
    assert load_folder(folder).answer(pictures, QUESTIONS) == expected


@pytest.mark.parametrize("kind", ["llama", "gpt2", "gemma2"])
def test_other_language_model_is_refused(tiny_blip2_opt, copied, edited, load_folder, kind):
    folder = copied(tiny_blip2_opt)
    text = json.loads((folder / "config.json").read_text())["text_config"]
    edited(folder / "config.json", {"text_config": {**text, "model_type": kind}})

    with pytest.raises(ModelError, match=f"to be one of 'opt', 't5', got '{kind}'"):
        load_folder(folder)


def test_tied_head_of_opt_need_not_be_stored(tiny_blip2_opt):
    from safetensors import safe_open

    with safe_open(tiny_blip2_opt / "model.safetensors", framework="pt") as file:
        assert not [name for name in file.keys() if "lm_head" in name]  # noqa: SIM118


def test_lost_head_of_flan_is_refused(tiny_blip2_t5, copied, load_folder):
    """transformers would tie it to the words that the model reads, without a word."""
    from safetensors.torch import load_file, save_file

    folder = copied(tiny_blip2_t5)
    tensors = load_file(folder / "model.safetensors")
    del tensors["language_model.lm_head.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    with pytest.raises(ModelError, match=r"\.shared are one weight, .*: false; copy config"):
        load_folder(folder)


def test_flan_that_would_scale_its_words_is_refused(tiny_blip2_t5, copied, edited, load_folder):
    folder = copied(tiny_blip2_t5)
    text = json.loads((folder / "config.json").read_text())["text_config"]
    assert text.pop("tie_word_embeddings") is False
    edited(folder / "config.json", {"text_config": text})

    with pytest.raises(ModelError, match=r"\.shared are two, .*: true; copy config"):
        load_folder(folder)


def test_flan_saved_again_answers_the_same(tiny_blip2_t5, copied, load_folder, loaded, pictures):
    from transformers import Blip2ForConditionalGeneration

    folder = copied(tiny_blip2_t5)
    Blip2ForConditionalGeneration.from_pretrained(tiny_blip2_t5).save_pretrained(folder)

    expected = loaded(tiny_blip2_t5).answer(pictures, QUESTIONS)
    assert load_folder(folder).answer(pictures, QUESTIONS) == expected


def test_scores_that_stop_being_numbers_end_the_answer(
    tiny_blip2_t5, copied, load_folder, loaded, pictures
):
    """One word is damaged that the question at loading does not hold."""
    from safetensors.torch import load_file, save_file

    folder = copied(tiny_blip2_t5)
    word = loaded(tiny_blip2_t5).tokenizer.convert_tokens_to_ids("z")
    tensors = load_file(folder / "model.safetensors")
    tensors["language_model.shared.weight"][word] = torch.nan
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    model = load_folder(folder)

    assert model.answer(pictures[:1], ["a cow?"])
    with pytest.raises(
        ModelError, match=r"copy: the scores of the next word are not finite in tor"
    ):
        model.answer(pictures[:1], ["a zoo, pizza?"])


def test_only_the_row_with_exemplars_is_asked_few_shot(tiny_blip2_opt):
    templates = {
        name: blip2.template_of(spec_of(tiny_blip2_opt, lineage=name))
        for name in ("blip2-opt-2.7b", "blip2-opt-6.7b", "blip2-flan-t5-xl", "mine")
    }

    few = templates.pop("blip2-opt-2.7b")
    assert set(templates.values()) == {"Question: {question} Short answer:"}
    assert few.endswith(
        " 2. Question: What do people wear on their feet? Answer: shoes. "
        "Question: {question} Answer:"
    )
    assert few.count("Question:") == len(OF_ROW["blip2-opt-2.7b"]) + 1


@pytest.mark.parametrize("lineage", ["blip2-opt-2.7b@paper", "blip2-opt-2.7b"])
def test_feeding_of_the_paper_is_zero_shot(tiny_blip2_opt, lineage):
    spec = spec_of(tiny_blip2_opt, lineage=lineage, feeding="paper")

    assert blip2.template_of(spec) == blip2.ZERO_SHOT


def test_rows_with_exemplars_are_in_the_zoo():
    from natadv.models.zoo import ZOO

    assert {ZOO[name].family for name in OF_ROW} == {"blip2"}


EXEMPLARS = """
exemplars:
  - question: is {this} red?
    answer: "no"
  - {question: how many, answer: "2"}
"""


@pytest.fixture
def shots(tmp_path, tiny_blip2_opt):
    """The only model of a name with the checkpoint's, and files of exemplars beside it."""
    (tmp_path / "mine.yaml").write_text(EXEMPLARS)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.yaml").write_text(EXEMPLARS.replace("many", "few"))

    def named(way):
        (spec,) = resolve(f"{tiny_blip2_opt}{way}", root=tmp_path)
        return spec

    return named


def test_number_and_file_of_exemplars_are_a_choice(shots, tiny_blip2_opt):
    ask = "Question: {question} Answer:"
    expected = {
        "": blip2.ZERO_SHOT,
        "@0-shot": blip2.ZERO_SHOT,
        "@1-shot": f"Question: What color is the sky on a clear day? Answer: blue. {ask}",
        "@1-shot:mine.yaml": f"Question: is {{{{this}}}} red? Answer: no. {ask}",
        "@2-shot:mine.yaml": "Question: is {{this}} red? Answer: no. Question: how many Answer: 2. "
        + ask,
        "@2-shot:other/mine.yaml": "Question: is {{this}} red? Answer: no. "
        f"Question: how few Answer: 2. {ask}",
    }

    assert {way: blip2.template_of(shots(way)) for way in expected} == expected
    names = [shots(way).name for way in expected]
    plain = tiny_blip2_opt.name
    assert names == [
        plain, f"{plain}@0-shot", f"{plain}@1-shot", *[f"{plain}@{n}-shot-mine" for n in (1, 2, 2)]
    ]  # fmt: skip


def test_the_file_of_the_page_is_read(tmp_path):
    page = Path(__file__).parents[3] / "docs" / "models.md"
    (text,) = re.findall(r"```yaml\n(exemplars:.*?)```", page.read_text(), re.S)
    (tmp_path / "page.yaml").write_text(text)

    found = first_exemplars(2, tmp_path / "page.yaml")
    assert found == (("What colour is the bus?", "red"), ("Is it raining?", "no"))


def test_results_of_other_exemplars_are_never_reused(shots):
    ways = ("", "@0-shot", "@1-shot", "@2-shot", "@2-shot:mine.yaml", "@2-shot:other/mine.yaml")

    assert len({loading.fingerprint(shots(way)) for way in ways}) == len(ways)


def test_a_chosen_exemplar_is_what_the_model_reads(shots, tiny_blip2_opt, pictures):
    prompt = "Question: is {this} red? Answer: no. Question: is it red Answer:"
    _, _, expected = directly(tiny_blip2_opt, pictures[0], prompt)

    model = load(shots("@1-shot:mine.yaml"))
    assert model.answer(pictures[:1], ["is it red"]) == (expected,)


def test_exemplars_that_are_not_there_are_refused(shots, tmp_path, tiny_paligemma, tiny_blip2_opt):
    (tmp_path / "bad.yaml").write_text("exemplars:\n  - {question: what, anser: this}\n")
    for way, says in {
        "@5-shot": "5-shot needs 5 exemplars, natadv has 4; ask for fewer, or name a file",
        "@3-shot:mine.yaml": r"3-shot needs 3 exemplars, .*mine.yaml has 2",
        "@1-shot:bad.yaml": r"bad.yaml:2: .*unknown key, did you mean 'answer'",
        "@1-shot:none.yaml": "none.yaml",
    }.items():
        with pytest.raises(ConfigError, match=says):
            shots(way)
    with pytest.raises(ModelError, match="read by BLIP-2 alone, tiny-paligemma is of the family"):
        resolve(f"{tiny_paligemma}@1-shot", root=tmp_path)
    names = tuple(f"{tiny_blip2_opt}@1-shot:{file}mine.yaml" for file in ("", "other/"))
    assert len(resolve_all(names, root=tmp_path)) == 1
    names = tuple(f"{tiny_blip2_opt}@2-shot:{file}mine.yaml" for file in ("", "other/"))
    with pytest.raises(ConfigError, match="two files of exemplars would both be called"):
        resolve_all(names, root=tmp_path)


def test_few_shot_answers_are_those_of_transformers(tiny_blip2_opt, pictures):
    spec = spec_of(tiny_blip2_opt, lineage="blip2-opt-2.7b")
    prompt = blip2.template_of(spec).format(question="is it red")
    _, _, expected = directly(tiny_blip2_opt, pictures[0], prompt)
    model = load(spec)

    assert model.answer(pictures[:1], ["is it red"]) == (expected,)
    assert model.answer(pictures[:2], ["is it red", "what is that?"])[0] == expected
    assert expected not in load(spec_of(tiny_blip2_opt)).answer(pictures[:1], ["is it red"])


def test_few_shot_answer_ends_where_the_next_question_begins(tiny_blip2_opt, photographs):
    few = load(spec_of(tiny_blip2_opt, lineage="blip2-opt-2.7b"))
    zero = load(spec_of(tiny_blip2_opt))
    for model in (few, zero):
        model.tokenizer.batch_decode = lambda *_, **__: [" red. Question: what "]

    assert few.answer(photographs[:1], ["what?"]) == ("red.",)
    assert zero.answer(photographs[:1], ["what?"]) == ("red. Question: what",)


@pytest.mark.parametrize(
    ("fixture", "key"),
    [
        ("tiny_blip2_opt", "hidden_size"),
        ("tiny_blip2_opt", "num_hidden_layers"),
        ("tiny_blip2_t5", "d_model"),
        ("tiny_blip2_t5", "num_layers"),
    ],
)
def test_signature_tells_sizes_apart(request, copied, edited, fixture, key):
    from natadv.models.files import checkpoint

    folder = copied(request.getfixturevalue(fixture))
    before = checkpoint.signature(folder)
    config = json.loads((folder / "config.json").read_text())
    config["text_config"][key] += 1
    edited(folder / "config.json", config)

    assert checkpoint.signature(folder) != before


def test_assumed_architecture_is_that_of_transformers():
    from transformers import AutoConfig

    from natadv.models.files.model_types import MODEL_TYPES

    config = AutoConfig.for_model("blip-2")

    for section, keys in MODEL_TYPES["blip-2"].architecture.items():
        # The language model that is meant, OPT, has no size by T5's names.
        meant = {"d_model": 0, "num_layers": 0} | getattr(config, section).to_dict()
        assert {key: meant[key] for key in keys} == keys


@pytest.mark.parametrize("kind", [["opt"], {"a": 1}, 7])
def test_language_model_that_is_no_text_is_refused(tiny_blip2_opt, copied, load_folder, kind):
    folder = copied(tiny_blip2_opt)
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["model_type"] = kind
    (folder / "config.json").write_text(json.dumps(config))

    with pytest.raises(ModelError, match="to be one of 'opt', 't5', got"):
        load_folder(folder)

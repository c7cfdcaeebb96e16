"""What holds of every model that answers in words, and the ways in which it is fed wrongly."""

from __future__ import annotations

import dataclasses
import json
from functools import cache

import numpy as np
import pytest
import torch

from natadv.errors import ModelError
from natadv.models import loading
from natadv.models.adapters import generative
from natadv.models.resolve import resolve
from natadv.types import Answerer

QUESTIONS = ["what is this?", "is it red", "how many dogs are there?", "wo?"]


@pytest.fixture
def folder(tiny_answerer, copied):
    return copied(tiny_answerer)


@pytest.fixture(scope="module")
def loaded(load_folder):
    """Load a checkpoint that nothing changes, once."""
    return cache(load_folder)


@pytest.fixture(scope="session")
def pictures(photographs):
    return photographs[:4]


def tensors_of(folder):
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


def change_weights(folder, change):
    from safetensors.torch import save_file

    tensors = tensors_of(folder)
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def embedding_of(tensors):
    return next(name for name in tensors if name.endswith(("embed_tokens.weight", "shared.weight")))


def test_it_is_an_answerer_of_vqa(tiny_answerer, loaded):
    (spec,) = resolve(str(tiny_answerer), root=tiny_answerer.parent)

    assert spec.tasks == ("vqa",)
    assert spec.family in ("paligemma2", "blip2")
    assert isinstance(loaded(tiny_answerer), Answerer)


def test_answer_does_not_depend_on_its_batch(tiny_answerer, loaded, pictures):
    model = loaded(tiny_answerer)
    together = model.answer(pictures, QUESTIONS)
    alone = [model.answer([p], [q])[0] for p, q in zip(pictures, QUESTIONS, strict=True)]
    backwards = model.answer(pictures[::-1], QUESTIONS[::-1])

    assert together == tuple(alone) == backwards[::-1]
    assert len(set(together)) == len(QUESTIONS)


def test_answer_depends_on_the_picture_and_on_the_question(tiny_answerer, loaded, pictures):
    model = loaded(tiny_answerer)

    assert len(set(model.answer(pictures, QUESTIONS[:1] * 4))) > 1
    assert len(set(model.answer(pictures[:1] * 4, QUESTIONS))) > 1


def test_picture_of_any_shape_is_answered(tiny_answerer, loaded, photographs):
    answers = loaded(tiny_answerer).answer(photographs, QUESTIONS * 2)

    assert len(answers) == len(photographs) == 8
    assert all(answers)


def test_answer_is_only_what_was_written(tiny_answerer, loaded, pictures):
    # One letter per token: a prompt in it would make it longer.
    answers = loaded(tiny_answerer).answer(pictures, QUESTIONS)

    assert all(0 < len(answer) <= generative.ANSWER_TOKENS for answer in answers)
    assert all(answer == answer.strip() for answer in answers)


def test_no_picture_has_no_answer(tiny_answerer, loaded):
    assert loaded(tiny_answerer).answer([], []) == ()


def test_picture_without_question_is_refused(tiny_answerer, loaded, pictures):
    with pytest.raises(ModelError, match="got 4 pictures and 3 questions"):
        loaded(tiny_answerer).answer(pictures, QUESTIONS[:3])


def test_empty_question_is_refused_by_its_index(tiny_answerer, loaded, pictures):
    for question in ("", "  ", "\t\n", "\u3000"):
        with pytest.raises(ModelError, match="expected a question at 1, got '"):
            loaded(tiny_answerer).answer(pictures[:2], ["what is this?", question])


def test_question_is_read_without_the_space_around_it(tiny_answerer, loaded, pictures):
    model = loaded(tiny_answerer)

    assert model.answer(pictures[:1], [" is it red\n"]) == model.answer(pictures[:1], ["is it red"])


def test_question_in_another_script_is_answered(tiny_answerer, loaded, pictures):
    model = loaded(tiny_answerer)
    for question in ("это кот?", "这是一只猫吗", "هل هذه قطة؟", "🐈?"):
        (alone,) = model.answer(pictures[:1], [question])

        assert 0 < len(alone) <= generative.ANSWER_TOKENS, question
        assert model.answer(pictures[:2], [question, "is it red"])[0] == alone, question


def test_question_cannot_take_the_place_of_a_picture(tiny_answerer, loaded, pictures, monkeypatch):
    model = loaded(tiny_answerer)
    rows = []
    monkeypatch.setattr(
        generative, "padded", lambda prompts, **how: rows.extend(prompts) or padded(prompts, **how)
    )
    image = model.prompt.before[0]
    for word in ("<image>", "<pad>", "</s>", "<eos>", "{question}", "{0}"):
        assert all(model.answer(pictures[:2], [f"is it {word}", "is it red"])), word
        assert [row.count(image) for row in rows] == [4, 4], word
        rows.clear()


padded = generative.padded


def longest_question(model):
    text = "".join("a" for _ in range(5000))
    with pytest.raises(ModelError) as caught:
        model.answer([generative.any_picture()], [text])
    fits = int(str(caught.value).split("the model reads ")[1].split(";")[0])
    spent = int(str(caught.value).split("a prompt of ")[1].split(" ")[0]) - len(text)
    return text[: fits - spent]


def test_question_longer_than_the_context_is_refused(tiny_answerer, loaded, pictures):
    model = loaded(tiny_answerer)
    longest = longest_question(model)

    assert model.answer(pictures[:1], [longest])
    with pytest.raises(
        ModelError, match=r"question 1 \('aaaaa.*makes a prompt of \d+ tokens, the model reads \d+"
    ):
        model.answer(pictures[:2], ["what?", longest + "a"])


HOSTILE = {
    "do_sample": True,
    "temperature": 50.0,
    "num_beams": 3,
    "max_new_tokens": 3,
    "max_length": 7,
    "min_new_tokens": 2,
    "repetition_penalty": 9.0,
    "no_repeat_ngram_size": 1,
    "length_penalty": 5.0,
    "suppress_tokens": list(range(20, 100)),
    "eos_token_id": list(range(3, 40)),
    "pad_token_id": 7,
    "decoder_start_token_id": 9,
    "forced_bos_token_id": 8,
}


def test_generation_config_of_the_folder_decides_nothing(
    folder, load_folder, loaded, tiny_answerer, pictures
):
    expected = loaded(tiny_answerer).answer(pictures, QUESTIONS)
    path = folder / "generation_config.json"
    assert path.is_file()

    # The second one is not even possible.
    for settings in (HOSTILE, {"num_return_sequences": 5, "do_sample": False}):
        path.write_text(json.dumps(settings))
        assert load_folder(folder).answer(pictures, QUESTIONS) == expected
    path.unlink()
    assert load_folder(folder).answer(pictures, QUESTIONS) == expected


def test_that_generation_config_would_decide_something(folder, load_folder, pictures, monkeypatch):
    from transformers import GenerationConfig

    from natadv.models.adapters import blip2, paligemma

    expected = load_folder(folder).answer(pictures, QUESTIONS)
    hostile = HOSTILE | {"do_sample": False, "temperature": None}
    for module in (paligemma, blip2):
        monkeypatch.setattr(module, "GenerationConfig", lambda **_: GenerationConfig(**hostile))

    assert load_folder(folder).answer(pictures, QUESTIONS) != expected


def test_sharded_weights_answer_as_the_whole(folder, load_folder, loaded, tiny_answerer, pictures):
    from safetensors.torch import save_file

    tensors = tensors_of(folder)
    names = sorted(tensors)
    parts = {"1": names[::2], "2": names[1::2]}
    weight_map = {}
    for part, found in parts.items():
        file = f"model-0000{part}-of-00002.safetensors"
        save_file({n: tensors[n] for n in found}, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(found, file)
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "model.safetensors").unlink()

    expected = loaded(tiny_answerer).answer(pictures, QUESTIONS)
    assert load_folder(folder).answer(pictures, QUESTIONS) == expected


@pytest.mark.parametrize(
    "ends", [("fc1.weight",), ("embed_tokens.weight", "SelfAttention.q.weight")]
)
def test_missing_weight_is_refused(folder, load_folder, ends):
    (name, *_) = [name for name in tensors_of(folder) if name.endswith(ends)]
    change_weights(folder, lambda t: t.pop(name))

    with pytest.raises(ModelError, match=r"do not belong together: .*weight missing; copy both"):
        load_folder(folder)


def test_unexpected_weight_is_refused(folder, load_folder):
    change_weights(folder, lambda t: t.update({"itm_head.weight": torch.ones(2)}))

    with pytest.raises(ModelError, match=r"itm_head\.weight not known to this architecture"):
        load_folder(folder)


def test_damaged_weights_are_refused_by_name(folder, load_folder):
    def damage(tensors):
        tensors[embedding_of(tensors)][5:] = np.nan

    change_weights(folder, damage)

    with pytest.raises(ModelError, match=r"copy: the scores of the next word are not finite in"):
        load_folder(folder)


def test_scores_that_stop_being_numbers_are_no_answer(tiny_answerer, loaded, pictures):
    model = loaded(tiny_answerer)
    assert isinstance(model, generative.GenerativeAnswerer)
    scores = torch.zeros(2, 5)
    scores[1, 2] = -torch.inf
    assert model._finite(scores, scores) is scores

    for bad in (torch.nan, torch.inf):
        scores[0, 3] = bad
        with pytest.raises(ModelError, match="not finite"):
            model._finite(scores, scores)


def test_preprocessing_leaves_nothing_to_defaults(folder, load_folder):
    path = folder / "preprocessor_config.json"
    whole = json.loads(path.read_text())
    for key in ("image_mean", "image_std", "resample", "size"):
        path.write_text(json.dumps({name: whole[name] for name in whole if name != key}))

        with pytest.raises(ModelError, match=f"{key} missing, and a default would feed"):
            load_folder(folder)


def test_preprocessing_for_another_size_is_refused(folder, edited, load_folder):
    edited(folder / "preprocessor_config.json", {"size": {"height": 16, "width": 16}})

    with pytest.raises(ModelError, match=r"shape \(1, 3, 32, 32\), its preprocessing makes"):
        load_folder(folder)


def test_image_token_of_another_tokenizer_is_refused(folder, edited, load_folder):
    found = json.loads((folder / "config.json").read_text())["image_token_index"]
    edited(folder / "config.json", {"image_token_index": found - 1})

    with pytest.raises(
        ModelError, match=rf"'<image>' as {found}, the model expects {found - 1} \(image_token_ind"
    ):
        load_folder(folder)


def test_tokenizer_with_ids_that_the_model_lacks_is_refused(folder, load_folder):
    path = folder / "tokenizer.json"
    found = json.loads(path.read_text())
    extra = {**found["added_tokens"][0], "id": 5000, "content": "<extra>"}
    found["added_tokens"].append(extra)
    path.write_text(json.dumps(found))

    with pytest.raises(ModelError, match=r"ids up to \d+, the text tower knows \d+; copy the tok"):
        load_folder(folder)


def test_tokenizer_that_pads_on_another_side_is_overruled(
    folder, edited, load_folder, loaded, tiny_answerer, pictures
):
    expected = loaded(tiny_answerer).answer(pictures, QUESTIONS)

    for side in ("left", "right"):
        edited(folder / "tokenizer_config.json", {"padding_side": side})
        assert load_folder(folder).answer(pictures, QUESTIONS) == expected


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_narrow_dtype_answers(tiny_answerer, pictures, dtype):
    (spec,) = resolve(str(tiny_answerer), root=tiny_answerer.parent)
    model = loading.load(spec, device="cpu", dtype=dtype, threads=1)

    assert all(model.answer(pictures, QUESTIONS))


def test_fingerprint_is_not_of_what_decides_nothing(folder):
    (spec,) = resolve(str(folder), root=folder.parent)
    before = loading.fingerprint(spec)
    (folder / "generation_config.json").unlink()

    assert loading.fingerprint(spec) == before
    assert loading.fingerprint(dataclasses.replace(spec, feeding="paper")) != before


def test_loading_and_answering_are_silent(tiny_answerer, load_folder, pictures, capfd):
    load_folder(tiny_answerer).answer(pictures, QUESTIONS)

    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("side", "rows", "mask"),
    [
        ("left", [[5, 6, 7], [0, 0, 8]], [[1, 1, 1], [0, 0, 1]]),
        ("right", [[5, 6, 7], [8, 0, 0]], [[1, 1, 1], [1, 0, 0]]),
    ],
)
def test_prompts_are_padded_to_the_longest(side, rows, mask):
    found = generative.padded([[5, 6, 7], [8]], pad_id=0, side=side)

    assert found["input_ids"].tolist() == rows
    assert found["attention_mask"].tolist() == mask


@pytest.mark.parametrize("written", [[[9, 9]], [[1, 2, 3]], [[1, 2]], [[1]]])
def test_answer_without_its_prompt_in_front_is_not_cut(written):
    prompt = torch.tensor([[1, 2, 4]]) if len(written[0]) == 3 else torch.tensor([[1, 2]])

    with pytest.raises(TypeError, match="expected generate to return the prompt's"):
        generative.continuation(prompt, torch.tensor(written))


def test_what_stands_behind_the_prompt_is_kept():
    found = generative.continuation(torch.tensor([[1, 2]]), torch.tensor([[1, 2, 3, 4]]))

    assert found.tolist() == [[3, 4]]

"""Relevance of answers, against the rules written out as loops, on weights of transformers."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from transformers import (
    AutoProcessor,
    Blip2ForConditionalGeneration,
    PaliGemmaForConditionalGeneration,
)

from natadv.errors import ModelError
from natadv.models.adapters import blip2, generative
from natadv.types import AnswerExplainable

# The processor that these tests compare with.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

QUESTIONS = ["what is this?", "is it red", "how many dogs are there?", "wo?"]

ANSWER = "cat"
ATTENTION = (
    "self_attn",
    "attention.attention",
    "SelfAttention",
    "EncDecAttention",
)
"""How the names of attention modules end; their last output is the weights."""


@pytest.fixture(scope="module")
def loaded(load_folder):
    """Load a checkpoint that nothing changes, once."""
    return cache(load_folder)


@pytest.fixture(scope="session")
def pictures(photographs):
    return photographs[:4]


def attention_of(folder, picture, question):
    """What raises the probability of the answer in each attention module of transformers, as rows
    of numbers by name; the places of the image tokens, and those that predict the answer."""
    kind = folder.name
    if kind == "tiny-paligemma":
        architecture, text = PaliGemmaForConditionalGeneration, f"<image>answer en {question}"
    else:
        architecture, text = Blip2ForConditionalGeneration, f"Question: {question} Short answer:"
    model = architecture.from_pretrained(folder, attn_implementation="eager").eval()
    processor = AutoProcessor.from_pretrained(folder, backend="pil")
    inputs = processor(images=picture, text=text, return_tensors="pt")
    said = f" {ANSWER}" if kind == "tiny-blip2-opt" else ANSWER
    answer = torch.tensor([processor.tokenizer(said, add_special_tokens=False)["input_ids"]])
    seen = {}
    for name, module in model.named_modules():
        if name.endswith(ATTENTION):
            module.register_forward_hook(lambda _m, _g, out, n=name: seen.update({n: out[-1]}))
    prompt = inputs["input_ids"]
    if kind == "tiny-blip2-t5":
        start = torch.cat([torch.tensor([[0]]), answer[:, :-1]], dim=1)
        logits = model(**inputs, decoder_input_ids=start).logits[0]
    else:
        whole = {"input_ids": torch.cat([prompt, answer], dim=1)}
        whole["attention_mask"] = torch.ones_like(whole["input_ids"])
        if kind == "tiny-paligemma":
            whole["token_type_ids"] = torch.cat([0 * prompt, 0 * answer + 1], dim=1)
        logits = model(pixel_values=inputs["pixel_values"], **whole).logits[0]
        logits = logits[prompt.shape[1] - 1 : -1]
    rows = logits.log_softmax(dim=-1)
    score = sum(rows[i, token] for i, token in enumerate(answer[0]))
    slopes = torch.autograd.grad(score, list(seen.values()))
    steps = {
        name: (w * g).clamp(min=0).mean(dim=1)[0].detach().double().tolist()
        for (name, w), g in zip(seen.items(), slopes, strict=True)
    }
    image = [
        i for i, token in enumerate(prompt[0].tolist()) if token == model.config.image_token_id
    ]
    last = prompt.shape[1] - 1
    predicting = (
        range(answer.shape[1]) if kind == "tiny-blip2-t5" else range(last, last + answer.shape[1])
    )
    return steps, image, predicting


def times(a, b):
    """A product of matrices, number by number."""
    return [[sum(x * b[k][j] for k, x in enumerate(row)) for j in range(len(b[0]))] for row in a]


def plus(a, b):
    return [[x + y for x, y in zip(*rows, strict=True)] for rows in zip(a, b, strict=True)]


def identity(n):
    return [[float(i == j) for j in range(n)] for i in range(n)]


def shares(relevance):
    found = identity(len(relevance))
    for i, row in enumerate(relevance):
        added = [x - float(i == j) for j, x in enumerate(row)]
        if sum(added):
            found[i] = [f + a / sum(added) for f, a in zip(found[i], added, strict=True)]
    return found


def accumulated(steps):
    relevance = identity(len(steps[0]))
    for step in steps:
        relevance = plus(relevance, times(step, relevance))
    return relevance


def across(blocks, before):
    """Rules 6, 7 and 10 of Chefer et al., for pairs of self- and cross-attention (or None)."""
    own = identity(len(blocks[0][0]))
    found = [[0.0] * len(before) for _ in own]
    for step, other in blocks:
        found = plus(found, times(step, found))
        own = plus(own, times(step, own))
        if other:
            turned = [list(column) for column in zip(*shares(own), strict=True)]
            found = plus(found, times(times(turned, other), shares(before)))
    return found


def by_hand(kind, steps, image, predicting, *, layers):
    """The map of the four patches."""

    def of(*parts):
        return [step for name, step in steps.items() if all(part in name for part in parts)]

    last = slice(-1, None) if layers == "last" else slice(None)
    vision = of("vision", "self_attn")
    tokens = accumulated(vision[last])
    if kind != "tiny-paligemma":
        # The second of two layers does not look at the picture, so that `last` means both.
        own, crossed = of("qformer", ".attention.attention"), of("qformer", "crossattention")
        tokens = across(list(zip(own, [*crossed, None], strict=True)), tokens)
        tokens = [row[1:] for row in tokens]
    if kind == "tiny-blip2-t5":
        prompt = accumulated(of("language_model.encoder", "SelfAttention")[last])
        said = zip(
            of("language_model.decoder", "SelfAttention"), of("EncDecAttention"), strict=True
        )
        rows = across(list(said)[last], prompt)
    else:
        rows = accumulated(of("language_model", "self_attn")[last])
    row = [sum(rows[p][i] for p in predicting) / len(predicting) for i in image]
    return times([row], tokens)[0]


def test_relevance_of_an_answer_is_that_of_the_rules(tiny_answerer, loaded, pictures):
    question = "is it red?"
    model = loaded(tiny_answerer)
    steps, image, predicting = attention_of(tiny_answerer, pictures[0], question)
    for layers in ("last", "all"):
        found = model.answer_relevance(pictures[:1], [question], [ANSWER], layers=layers)
        expected = by_hand(tiny_answerer.name, steps, image, predicting, layers=layers)

        assert found.shape == (1, 2, 2)
        assert min(expected) > 0
        assert found.ravel() == pytest.approx(expected, rel=1e-3)


def test_relevance_does_not_depend_on_the_batch(tiny_answerer, loaded, pictures):
    """Prompts and answers of several lengths are padded; no answer at all is its end."""
    model, answers = loaded(tiny_answerer), ("zebras", "a", "", "it is a very long answer to this")
    for layers in ("last", "all"):
        together = model.answer_relevance(pictures, QUESTIONS, answers, layers=layers)
        for i, maps in enumerate(together):
            alone = model.answer_relevance(
                pictures[i : i + 1], QUESTIONS[i : i + 1], answers[i : i + 1], layers=layers
            )

            assert maps == pytest.approx(alone[0], rel=1e-3)
        assert (together.max(axis=(1, 2)) > 0).all()


def test_all_is_as_before_after_relevance(tiny_answerer, load_folder, pictures, monkeypatch):
    """Answers, features, and the number of fused kernels that they take; also where it fails."""
    model, kernels = load_folder(tiny_answerer), []
    fused = torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(
        torch.nn.functional,
        "scaled_dot_product_attention",
        lambda *args, **named: (kernels.append(1), fused(*args, **named))[1],
    )

    def state():
        kernels.clear()
        answers = model.answer(pictures, QUESTIONS)
        features = model.forward_features(model.prepare(pictures), [2]).features[0]
        return answers, features.tobytes(), len(kernels)

    before = state()
    model.answer_relevance(pictures, QUESTIONS, ["a"] * 4)

    assert isinstance(model, AnswerExplainable)
    assert before[2] > 0
    assert state() == before
    for adapter in (blip2, generative):
        monkeypatch.setattr(adapter, "log_probability", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        model.answer_relevance(pictures, QUESTIONS, ["a"] * 4)

    assert state() == before


def test_what_is_explained_has_one_question_and_one_answer(tiny_answerer, loaded, pictures):
    model = loaded(tiny_answerer)

    assert model.answer_relevance([], [], []).shape == (0, 2, 2)
    with pytest.raises(ModelError, match="got 4 pictures, 4 questions and 1 answers"):
        model.answer_relevance(pictures, QUESTIONS, ["a"])
    with pytest.raises(ModelError, match="expected a question at 0, got ''"):
        model.answer_relevance(pictures[:1], [""], ["a"])

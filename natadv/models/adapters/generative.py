"""Answers to questions about pictures, by the vision-language models of transformers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, final

import numpy as np
import torch
from torch.nn import functional
from transformers import LogitsProcessorList

from natadv.errors import ModelError
from natadv.explain.relevance import Block, Reading, Step, answer_relevance
from natadv.models.adapters.encoder import (
    Pixels,
    Placement,
    TowerReader,
    any_picture,
    as_model_error,
    finite_maps,
    finite_rows,
)
from natadv.types import FloatArray, ForwardFeatures, LayerSpan

if TYPE_CHECKING:
    from PIL.Image import Image

ANSWER_TOKENS = 10
"""The longest answer, as in LAVIS and in the paper's scripts."""

Inputs = Mapping[str, torch.Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptFormat:
    """How a question becomes a prompt."""

    template: str
    """Text with `{question}`; words of the question never count as special tokens."""
    before: tuple[int, ...]
    """Token ids in front of the text: the image tokens, the start token."""
    after: tuple[int, ...] = ()
    context: int
    """The largest number of tokens in a prompt, image tokens included."""
    padding: Literal["left", "right"]
    """Left for a decoder, which continues the prompt."""
    next_question: str = ""
    """Where this text occurs in an answer, the model has begun to ask the next question."""
    before_answer: str = ""
    """What separates the prompt from the first word of an answer."""
    end: int
    """The token that ends an answer, and is all of an empty one."""


class Attending(NamedTuple):
    """An attention module of transformers, whose last output is its weights."""

    module: torch.nn.Module
    across: bool = False
    """As that of `Step`."""


class Answered(NamedTuple):
    """Prompts with answers to them, as token ids."""

    prompts: tuple[list[int], ...]
    answers: tuple[list[int], ...]
    """At least one token each."""


@final
@dataclass(kw_only=True, eq=False, repr=False)
class GenerativeAnswerer:
    """Generates an answer to a question about a picture. Raises ModelError if it cannot answer one
    question; the constructor tries it, so that a mismatch shows before any data is read."""

    name: str
    placement: Placement
    tower: TowerReader
    tokenizer: Any
    prompt: PromptFormat
    generate: Callable[[Inputs, LogitsProcessorList], torch.Tensor]
    """From `pixel_values`, `input_ids` and `attention_mask` to the ids of the answers alone, of
    shape (b, t)."""
    word_embeddings: torch.nn.Module
    """The input embeddings of the language model."""
    read: Callable[[torch.Tensor, Answered], Reading]
    """From the tokens of the picture tower, of shape (b, n, d); gradients are on."""

    def __post_init__(self) -> None:
        with as_model_error(self.name, "answer a question about a picture"):
            self.answer([any_picture()], ["what is this?"])

    def answer(self, images: Sequence[Image], questions: Sequence[str]) -> tuple[str, ...]:
        """One answer per picture and question, independent of the rest of the batch. Raises
        ModelError if a question is empty or too long, or the scores are not finite."""
        if len(images) != len(questions):
            raise ModelError(
                f"{self.name}: expected one question per picture, got {len(images)} pictures and "
                f"{len(questions)} questions"
            )
        if not images:
            return ()
        tokens = padded(
            [self._token_ids(question, index) for index, question in enumerate(questions)],
            pad_id=self.tokenizer.pad_token_id,
            side=self.prompt.padding,
        )
        inputs = self.placement.of_pixels({**self.tower.preprocess(images), **tokens})
        with torch.inference_mode():
            generated = self.generate(inputs, LogitsProcessorList([self._finite]))
        texts = self.tokenizer.batch_decode(generated, skip_special_tokens=True)
        if mark := self.prompt.next_question:
            texts = [text.partition(mark)[0] for text in texts]
        return tuple(text.strip() for text in texts)

    def answer_relevance(
        self,
        images: Sequence[Image],
        questions: Sequence[str],
        answers: Sequence[str],
        *,
        layers: LayerSpan = "last",
    ) -> FloatArray:
        """Attention relevance for the probability of each answer after its prompt, of shape
        (b, h, w); of a long answer, the first ANSWER_TOKENS tokens count. Raises ModelError as
        `answer` does, or if a value is not finite."""
        if not len(images) == len(questions) == len(answers):
            raise ModelError(
                f"{self.name}: expected one question and one answer per picture, got {len(images)} "
                f"pictures, {len(questions)} questions and {len(answers)} answers"
            )
        opened = self.tower.layerwise(self.tower.preprocess(images or [any_picture()]))
        if not images:
            return np.zeros((0, *opened.grid), np.float32)
        answered = Answered(
            tuple(self._token_ids(question, index) for index, question in enumerate(questions)),
            tuple(map(self._answer_ids, answers)),
        )
        maps = answer_relevance(opened, lambda state: self.read(state, answered), layers=layers)
        return finite_maps(maps, name=self.name)

    @property
    def depth(self) -> int:
        """Layers of the picture tower whose features can be read."""
        return self.tower.depth

    def prepare(self, images: Sequence[Image]) -> Pixels | None:
        """Preprocessed pictures on the CPU; None for no pictures."""
        return self.tower.prepare(images)

    def forward_features(self, prepared: Pixels | None, layers: Sequence[int]) -> ForwardFeatures:
        """The features of `layers`, as those of `TowerReader`; there are no embeddings."""
        return self.tower.forward_features(prepared, layers)

    def at_resolution(self, side_px: int) -> TowerReader:
        """As that of `TowerReader`."""
        return self.tower.at_resolution(side_px)

    def embed_texts(self, texts: Sequence[str]) -> FloatArray:
        """Unit rows of shape (c, d): the mean of the language model's input embeddings of a text's
        tokens. They say which words a phrase has, in no order, and share no space with pictures.
        Raises ModelError if a text has no token."""
        rows = []
        for index, text in enumerate(texts):
            # As in a prompt, no text is a special token.
            tokens = self.tokenizer(
                text.strip(), add_special_tokens=False, split_special_tokens=True
            )["input_ids"]
            if not tokens:
                raise ModelError(f"{self.name}: text {index} is {text!r}, which has no words")
            with torch.inference_mode():
                ids = torch.tensor(tokens, device=self.placement.device)
                rows.append(self.word_embeddings(ids).float().mean(dim=0))
        return finite_rows(torch.stack(rows), self.placement, name=self.name)

    def _token_ids(self, question: str, index: int) -> list[int]:
        prompt = self.prompt
        if not question.strip():
            raise ModelError(f"{self.name}: expected a question at {index}, got {question!r}")
        text = prompt.template.format(question=question.strip())
        # Otherwise '<image>' in a question would count as an image token.
        tokens = self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)
        ids = [*prompt.before, *tokens["input_ids"], *prompt.after]
        if len(ids) > prompt.context:
            fixed = len(prompt.before) + len(prompt.after)
            raise ModelError(
                f"{self.name}: question {index} ({question.strip()[:40]!r}) makes a prompt of "
                f"{len(ids) - fixed} tokens, the model reads {prompt.context - fixed}; shorten it"
            )
        return ids

    def _answer_ids(self, answer: str) -> list[int]:
        # As in a prompt, no text is a special token.
        text = self.prompt.before_answer + answer.strip() if answer.strip() else ""
        tokens = self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)
        return list(tokens["input_ids"][:ANSWER_TOKENS]) or [self.prompt.end]

    def _finite(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """The scores, checked; minus infinity is valid, and excludes a token."""
        if not bool((scores < torch.inf).all()):
            raise ModelError(
                f"{self.name}: the scores of the next word are not finite in "
                f"{self.placement.dtype}; its weights are damaged, or need --dtype float32"
            )
        return scores


def padded(
    prompts: Sequence[Sequence[int]], *, pad_id: int, side: Literal["left", "right"]
) -> dict[str, torch.Tensor]:
    """`input_ids` and `attention_mask` of shape (b, t), where t is the longest prompt."""
    longest = max(map(len, prompts))
    ids = torch.full((len(prompts), longest), pad_id, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        start = longest - len(prompt) if side == "left" else 0
        ids[row, start : start + len(prompt)] = torch.tensor(prompt)
        mask[row, start : start + len(prompt)] = 1
    return {"input_ids": ids, "attention_mask": mask}


class Continued(NamedTuple):
    """Answers behind their prompts, for a decoder that reads both."""

    inputs: dict[str, torch.Tensor]
    """As those of `padded`, which end with the last token of each answer."""
    is_answer: torch.Tensor
    """Of shape (b, t): 1 for tokens of answers, else 0."""
    labels: torch.Tensor
    """The last tokens of the inputs, of shape (b, longest answer)."""
    counted: torch.Tensor
    """Of the same shape: 1 for labels that belong to an answer, else 0."""

    @property
    def predicting(self) -> torch.Tensor:
        """As that of `Reading`."""
        return shares(self.is_answer.roll(-1, dims=1))


def continued(answered: Answered, *, pad_id: int, device: torch.device) -> Continued:
    """The prompts with their answers, padded on the left."""
    whole = [[*p, *a] for p, a in zip(answered.prompts, answered.answers, strict=True)]
    inputs = padded(whole, pad_id=pad_id, side="left")
    answers = padded(answered.answers, pad_id=pad_id, side="left")
    counted = answers["attention_mask"]
    before = inputs["input_ids"].shape[1] - counted.shape[1]
    is_answer = functional.pad(counted, (before, 0))
    return Continued(
        {key: tensor.to(device) for key, tensor in inputs.items()},
        *(t.to(device) for t in (is_answer, answers["input_ids"], counted)),
    )


def continued_reading(
    part: Any,
    layers: Iterable[torch.nn.Module],
    said: Continued,
    *,
    image_id: int,
    forward: Callable[..., Any],
) -> Reading:
    """What a decoder attended to that read the answers behind their prompts.

    Args:
        part: The decoder with its language model, as in `recorded_attention`.
        layers: The attention module of each layer.
        forward: The pass, without the settings that are the same for all decoders.
    """
    with recorded_attention(part, [(Attending(layer),) for layer in layers]) as attended:
        output = forward(logits_to_keep=said.labels.shape[1] + 1, use_cache=False)
        return Reading(
            log_probability=log_probability(output.logits[:, :-1], said.labels, said.counted),
            decoder=attended(),
            predicting=said.predicting,
            image_tokens=said.inputs["input_ids"] == image_id,
        )


def shares(counted: torch.Tensor) -> torch.Tensor:
    """A mask of shape (b, t) as weights that sum to 1."""
    return counted / counted.sum(dim=1, keepdim=True)


def log_probability(
    logits: torch.Tensor, labels: torch.Tensor, counted: torch.Tensor
) -> torch.Tensor:
    """Of the labels that count, of shape (b,), from logits of shape (b, t, words)."""
    each = logits.float().log_softmax(dim=-1).gather(-1, labels[..., None])[..., 0]
    return (each * counted).sum(dim=1)


@contextmanager
def recorded_attention(
    part: Any, layers: Sequence[Sequence[Attending]]
) -> Iterator[Callable[[], tuple[Block, ...]]]:
    """Within it, after a pass through `part` of a model of transformers: what its layers attended
    to. Afterwards all is as before.

    The attention of the whole part is computed without fused kernels, which return no weights.
    """
    before = part.config._attn_implementation
    weights: dict[torch.nn.Module, torch.Tensor] = {}

    def _record(module: torch.nn.Module, _: object, output: tuple[Any, ...]) -> None:
        weights[module] = output[-1]

    hooks = []
    try:
        part.set_attn_implementation("eager")
        modules = [attending.module for layer in layers for attending in layer]
        hooks += [module.register_forward_hook(_record) for module in modules]
        yield lambda: tuple(
            tuple(Step(weights[module], across) for module, across in layer) for layer in layers
        )
    finally:
        for hook in hooks:
            hook.remove()
        part.set_attn_implementation(before)


def continuation(prompt: torch.Tensor, generated: torch.Tensor) -> torch.Tensor:
    """The tokens that a decoder generated after `prompt`, with which `generated` begins."""
    length = prompt.shape[1]
    if generated.shape[1] <= length or not torch.equal(generated[:, :length], prompt):
        raise TypeError(
            f"expected generate to return the prompt's {length} tokens and new ones (transformers "
            f"5), got {generated.shape[1]} that begin otherwise"
        )
    return generated[:, length:]


def image_token_id(
    name: str, tokenizer: Any, *, configured: int | None, reserved: object, needed: int
) -> int:
    """The id of an image token.

    Raises ModelError if the tokenizer writes another id than the configured one, or if the
    preprocessing has `reserved` another number of tokens for a picture than `needed`.
    """
    if reserved != needed:
        raise ModelError(
            f"{name}: the preprocessing leaves {reserved!r} tokens for a picture, the model "
            f"makes {needed} of it; copy config.json and the preprocessing config from the same "
            "checkpoint"
        )
    token_id = tokenizer.get_vocab().get("<image>")
    if token_id is None or token_id != configured:
        raise ModelError(
            f"{name}: the tokenizer writes '<image>' as {token_id}, the model expects {configured} "
            "(image_token_index in config.json); copy both from the same checkpoint"
        )
    return int(token_id)

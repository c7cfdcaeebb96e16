"""Answers to questions about pictures, by any language model of transformers that sees them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, final

import torch
from transformers import LogitsProcessorList

from natadv.errors import ModelError
from natadv.models.adapters.border import told_in_one_line
from natadv.models.adapters.encoder import Pixels, Placement, any_picture

if TYPE_CHECKING:
    from PIL.Image import Image

ANSWER_TOKENS = 10
"""The longest answer, as in LAVIS and in the paper's scripts."""

PROBE = "what is this?"

Inputs = Mapping[str, torch.Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wording:
    """How a question becomes a prompt."""

    template: str
    """Text with `{question}`; the question's own words never count as special tokens."""
    before: tuple[int, ...]
    """Token ids in front of the text: the places that the picture takes, the start."""
    after: tuple[int, ...] = ()
    context: int
    """Tokens that a prompt may have, with those of the picture."""
    padding: Literal["left", "right"]
    """Left where the model goes on writing behind the prompt."""
    next_question: str = ""
    """Where this stands in an answer, the model has begun to ask by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What an adapter brings together for the answerer."""

    prepare: Callable[[Sequence[Image]], Pixels]
    tokenizer: Any
    wording: Wording
    write: Callable[[Inputs, LogitsProcessorList], torch.Tensor]
    """`pixel_values`, `input_ids` and `attention_mask` to the ids of the answers alone, of shape
    (b, t)."""


@final
class GenerativeAnswerer:
    """Lets a language model write the answer."""

    def __init__(self, name: str, parts: Parts, *, placement: Placement) -> None:
        self.name = name
        self._parts = parts
        self._placement = placement
        self._guards = LogitsProcessorList([self._finite])
        self._probe()

    def answer(self, images: Sequence[Image], questions: Sequence[str]) -> tuple[str, ...]:
        """One answer per picture and question, whatever else is in the batch.

        Raises:
            ModelError: A question is empty or too long, or the weights give no number.
        """
        if len(images) != len(questions):
            raise ModelError(
                f"{self.name}: expected one question per picture, got {len(images)} pictures and "
                f"{len(questions)} questions"
            )
        if not images:
            return ()
        prompts = [self._prompt(question, index) for index, question in enumerate(questions)]
        tokens = padded(
            prompts,
            pad_id=self._parts.tokenizer.pad_token_id,
            side=self._parts.wording.padding,
        )
        inputs = self._placement.of_pixels({**self._parts.prepare(images), **tokens})
        with torch.inference_mode():
            written = self._parts.write(inputs, self._guards)
        texts = self._parts.tokenizer.batch_decode(written, skip_special_tokens=True)
        return tuple(map(self._tidy, texts))

    def _prompt(self, question: str, index: int) -> list[int]:
        wording = self._parts.wording
        if not question.strip():
            raise ModelError(f"{self.name}: expected a question at {index}, got {question!r}")
        text = wording.template.format(question=question.strip())
        # Else a question about '<image>' would take the place of a picture.
        found = self._parts.tokenizer(text, add_special_tokens=False, split_special_tokens=True)
        ids = [*wording.before, *found["input_ids"], *wording.after]
        if len(ids) > wording.context:
            spent = len(wording.before) + len(wording.after)
            raise ModelError(
                f"{self.name}: question {index} ({question.strip()[:40]!r}) makes a prompt of "
                f"{len(ids) - spent} tokens, the model reads {wording.context - spent}; shorten it"
            )
        return ids

    def _tidy(self, text: str) -> str:
        mark = self._parts.wording.next_question
        return (text.partition(mark)[0] if mark else text).strip()

    def _finite(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """The scores, unless one is no number; minus infinity only says that a word is barred."""
        if not bool((scores < torch.inf).all()):
            raise ModelError(
                f"{self.name}: the scores of the next word are not finite in "
                f"{self._placement.dtype}; its weights are damaged, or need --dtype float32"
            )
        return scores

    def _probe(self) -> None:
        """Answer once, so that a misfit shows before any data is read."""
        with told_in_one_line(self.name, "answer a question about a picture"):
            self.answer([any_picture()], [PROBE])


def padded(
    prompts: Sequence[Sequence[int]], *, pad_id: int, side: Literal["left", "right"]
) -> dict[str, torch.Tensor]:
    """`input_ids` and `attention_mask` of shape (b, t), t being the longest."""
    longest = max(map(len, prompts))
    ids = torch.full((len(prompts), longest), pad_id, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        start = longest - len(prompt) if side == "left" else 0
        ids[row, start : start + len(prompt)] = torch.tensor(prompt)
        mask[row, start : start + len(prompt)] = 1
    return {"input_ids": ids, "attention_mask": mask}


def behind(prompt: torch.Tensor, written: torch.Tensor) -> torch.Tensor:
    """What a decoder wrote behind `prompt`, which generate gives back in front of it."""
    length = prompt.shape[1]
    if written.shape[1] <= length or not torch.equal(written[:, :length], prompt):
        raise TypeError(
            f"expected generate to return the prompt's {length} tokens and new ones (transformers "
            f"5), got {written.shape[1]} that begin otherwise"
        )
    return written[:, length:]


def image_token_id(name: str, tokenizer: Any, *, configured: int | None) -> int:
    """The id that stands for a piece of the picture, on which tokenizer and model must agree.

    Raises:
        ModelError: They do not.
    """
    found = tokenizer.get_vocab().get("<image>")
    if found is None or found != configured:
        raise ModelError(
            f"{name}: the tokenizer writes '<image>' as {found}, the model expects {configured} "
            "(image_token_index in config.json); copy both from the same checkpoint"
        )
    return int(found)


def check_image_tokens(name: str, *, processor: object, model: int) -> None:
    """Raise ModelError unless the processor leaves as many places as the picture takes."""
    if processor != model:
        raise ModelError(
            f"{name}: the preprocessing leaves {processor!r} tokens for a picture, the model "
            f"makes {model} of it; copy config.json and the preprocessing config from the same "
            "checkpoint"
        )

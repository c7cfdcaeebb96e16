"""BLIP-2 checkpoints, with OPT or with T5, in the layout of transformers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from transformers import Blip2ForConditionalGeneration, GenerationConfig, LogitsProcessorList

from natadv.errors import ModelError
from natadv.models.adapters import pretrained
from natadv.models.adapters.answering import (
    ANSWER_TOKENS,
    GenerativeAnswerer,
    Inputs,
    Parts,
    Wording,
    behind,
    check_image_tokens,
    image_token_id,
)
from natadv.models.adapters.encoder import Placement, square_pixels
from natadv.models.files import checkpoint
from natadv.types import ModelSpec

ZERO_SHOT = "Question: {question} Short answer:"
"""Of LAVIS's evaluation and of the paper's scripts, for every language model."""

ASKING = "Question:"
FEW_SHOT = f"{ASKING} {{question}} Answer:"

T5_CONTEXT = 512
"""Its positions are relative and have no end; this is the length that it was trained on."""


class Exemplar(NamedTuple):
    """A question that is answered in the prompt, in words alone: there is one picture."""

    question: str
    answer: str


EXEMPLARS: dict[str, tuple[Exemplar, ...]] = {
    "blip2-opt-2.7b": (
        Exemplar("What color is the sky on a clear day?", "blue"),
        Exemplar("Is a mouse bigger than a house?", "no"),
        Exemplar("How many wheels does a bicycle have?", "2"),
        Exemplar("What do people wear on their feet?", "shoes"),
    ),
}
"""By row of the zoo. The paper asks this one model few-shot and publishes neither the number nor
the words of its exemplars, so these are neutral ones; its scripts ask it zero-shot."""


class _Language(NamedTuple):
    """A kind of language model."""

    wording: Callable[[Any, tuple[int, ...], str], Wording]
    """From its config, the places of the picture and the template."""
    new: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    """What it wrote, from the prompt and from what generate returned."""


def _opt_wording(text: Any, places: tuple[int, ...], template: str) -> Wording:
    return Wording(
        template=template,
        before=(*places, text.bos_token_id),
        context=text.max_position_embeddings - ANSWER_TOKENS,
        padding="left",
        next_question=ASKING if template != ZERO_SHOT else "",
    )


def _t5_wording(text: Any, places: tuple[int, ...], template: str) -> Wording:
    # Its positions are relative, so padding does no harm but between the picture and the words.
    return Wording(
        template=template,
        before=places,
        after=(text.eos_token_id,),
        context=T5_CONTEXT,
        padding="right",
    )


_LANGUAGES: dict[str, _Language] = {
    "opt": _Language(_opt_wording, behind),
    # The decoder starts from one token of its own.
    "t5": _Language(_t5_wording, lambda prompt, written: written[:, 1:]),
}


def build(spec: ModelSpec, placement: Placement) -> GenerativeAnswerer:
    language = _language(spec)
    model = pretrained.weights(Blip2ForConditionalGeneration, spec.folder, placement=placement)
    config, text = model.config, model.config.text_config
    if text.is_encoder_decoder:
        _check_head(spec.name, model.language_model)
    tokenizer = pretrained.tokenizer(spec.folder, vocabulary=text.vocab_size)
    _check_places(spec, config.num_query_tokens)
    image_id = image_token_id(spec.name, tokenizer, configured=config.image_token_id)
    # Its generate hands over to this part of it, settings and all.
    model.language_model.generation_config = _beams(text, pad_id=tokenizer.pad_token_id)

    def write(inputs: Inputs, guards: LogitsProcessorList) -> torch.Tensor:
        found = model.generate(**inputs, logits_processor=guards)
        return language.new(inputs["input_ids"], found)

    parts = Parts(
        prepare=square_pixels(
            spec.name,
            pretrained.image_processor(spec.folder),
            side=config.vision_config.image_size,
        ),
        tokenizer=tokenizer,
        wording=language.wording(text, (image_id,) * config.num_query_tokens, template_of(spec)),
        write=write,
    )
    return GenerativeAnswerer(spec.name, parts, placement=placement)


def template_of(spec: ModelSpec) -> str:
    """The prompt with `{question}`; exemplars stand in front where the row has some."""
    exemplars = EXEMPLARS.get(spec.lineage, ())
    if spec.feeding == "paper" or not exemplars:
        return ZERO_SHOT
    shots = (f"{FEW_SHOT.format(question=shot.question)} {shot.answer}." for shot in exemplars)
    return " ".join((*shots, FEW_SHOT))


def _language(spec: ModelSpec) -> _Language:
    path = spec.folder / checkpoint.CONFIG
    stated = checkpoint.read_json(path).get("text_config") or {}
    # As transformers means it where the file is silent.
    kind = stated.get("model_type", "opt")
    if not isinstance(kind, str) or kind not in _LANGUAGES:
        raise ModelError(
            f"{path}: expected the language model of a BLIP-2 to be one of "
            f"{', '.join(map(repr, _LANGUAGES))}, got {kind!r:.80}; no other was ever published"
        )
    return _LANGUAGES[kind]


def _check_head(name: str, language_model: Any) -> None:
    """The first T5 writes with the words that it reads and scales them, Flan's does neither."""
    tied = language_model.lm_head.weight is language_model.shared.weight
    if tied != language_model.config.scale_decoder_outputs:
        raise ModelError(
            f"{name}: language_model.lm_head and .shared are {'one weight' if tied else 'two'}, "
            f"and text_config in {checkpoint.CONFIG} says (or means by its silence) "
            f"tie_word_embeddings: {'false' if tied else 'true'}; "
            "copy config and weights from the same checkpoint"
        )


def _check_places(spec: ModelSpec, model: int) -> None:
    path = spec.folder / checkpoint.PREPROCESSING[0]
    stated = checkpoint.read_json(path) if path.is_file() else {}
    # Older checkpoints do not say it, and nothing here rests on it.
    check_image_tokens(spec.name, processor=stated.get("num_query_tokens", model), model=model)


def _beams(text: Any, *, pad_id: int) -> GenerationConfig:
    """All of it, so that no generation_config.json decides an answer."""
    return GenerationConfig(  # type: ignore[no-untyped-call]
        do_sample=False,
        num_beams=5,
        length_penalty=-1.0,
        early_stopping=False,
        max_new_tokens=ANSWER_TOKENS,
        min_new_tokens=1,
        # Of OPT the end of a line, not the tokenizer's end of text.
        eos_token_id=text.eos_token_id,
        # What fills up the shorter answers of a batch, and what decoding skips.
        pad_token_id=pad_id,
        decoder_start_token_id=text.pad_token_id if text.is_encoder_decoder else None,
    )

"""BLIP-2 checkpoints, with OPT or with T5, in the layout of transformers."""

from __future__ import annotations

from typing import Any

import torch
from transformers import Blip2ForConditionalGeneration, GenerationConfig, LogitsProcessorList

from natadv.errors import ModelError
from natadv.models.adapters import pretrained
from natadv.models.adapters.encoder import Placement
from natadv.models.adapters.generative import (
    ANSWER_TOKENS,
    GenerativeAnswerer,
    Inputs,
    PromptFormat,
    continuation,
    image_token_id,
)
from natadv.models.exemplars import OF_ROW
from natadv.models.files import checkpoint
from natadv.types import ModelSpec

ZERO_SHOT = "Question: {question} Short answer:"
"""The prompt of LAVIS's evaluation and of the paper's scripts, for every language model."""

ASKING = "Question:"
FEW_SHOT = f"{ASKING} {{question}} Answer:"

LANGUAGE_MODELS = ("opt", "t5")

T5_CONTEXT = 512
"""T5's positions are relative and unbounded; this is the length of its training."""


def build(spec: ModelSpec, placement: Placement) -> GenerativeAnswerer:
    """The model in the folder of `spec`. Raises ModelError."""
    _check_language_model(spec)
    model = pretrained.weights(Blip2ForConditionalGeneration, spec.folder, placement=placement)
    config, text = model.config, model.config.text_config
    if text.is_encoder_decoder:
        _check_head(spec.name, model.language_model)
    tokenizer = pretrained.tokenizer(spec.folder, vocabulary=text.vocab_size)
    path = spec.folder / checkpoint.PREPROCESSING[0]
    stated = checkpoint.read_json(path) if path.is_file() else {}
    # Older checkpoints do not state it, and nothing here depends on it.
    stated_tokens = stated.get("num_query_tokens", config.num_query_tokens)
    image_id = image_token_id(
        spec.name,
        tokenizer,
        configured=config.image_token_id,
        reserved=stated_tokens,
        needed=config.num_query_tokens,
    )
    # BLIP-2's generate calls that of its language model, with the settings of the latter.
    model.language_model.generation_config = _beam_search(text, pad_id=tokenizer.pad_token_id)

    def _generate(inputs: Inputs, processors: LogitsProcessorList) -> torch.Tensor:
        generated: torch.Tensor = model.generate(**inputs, logits_processor=processors)
        if text.model_type == "t5":
            # The decoder starts from one token of its own.
            return generated[:, 1:]
        return continuation(inputs["input_ids"], generated)

    return GenerativeAnswerer(
        name=spec.name,
        placement=placement,
        tower=pretrained.lone_tower(
            spec, model.vision_model, config.vision_config, leading=1, placement=placement
        ),
        tokenizer=tokenizer,
        prompt=_prompt(text, (image_id,) * config.num_query_tokens, template=template_of(spec)),
        generate=_generate,
        word_embeddings=model.language_model.get_input_embeddings(),
    )


def _prompt(text: Any, image_tokens: tuple[int, ...], *, template: str) -> PromptFormat:
    if text.model_type == "t5":
        # Positions are relative, so padding is harmless except between the picture and the words.
        return PromptFormat(
            template=template,
            before=image_tokens,
            after=(text.eos_token_id,),
            context=T5_CONTEXT,
            padding="right",
        )
    return PromptFormat(
        template=template,
        before=(*image_tokens, text.bos_token_id),
        context=text.max_position_embeddings - ANSWER_TOKENS,
        padding="left",
        next_question=ASKING if template != ZERO_SHOT else "",
    )


def template_of(spec: ModelSpec) -> str:
    """The prompt with `{question}`, after the exemplars if the model has any."""
    exemplars = spec.exemplars
    if exemplars is None:
        exemplars = () if spec.feeding == "paper" else OF_ROW.get(spec.lineage, ())
    if not exemplars:
        return ZERO_SHOT
    shots = " ".join(f"{FEW_SHOT.format(question=q)} {answer}." for q, answer in exemplars)
    # A brace of an exemplar is not a place for the question.
    return f"{shots.replace('{', '{{').replace('}', '}}')} {FEW_SHOT}"


def _check_language_model(spec: ModelSpec) -> None:
    path = spec.folder / checkpoint.CONFIG
    stated = checkpoint.read_json(path).get("text_config") or {}
    # The default of transformers.
    kind = stated.get("model_type", "opt")
    if not isinstance(kind, str) or kind not in LANGUAGE_MODELS:
        raise ModelError(
            f"{path}: expected the language model of a BLIP-2 to be one of "
            f"{', '.join(map(repr, LANGUAGE_MODELS))}, got {kind!r:.80}; no other was ever "
            "published"
        )


def _check_head(name: str, language_model: Any) -> None:
    """The first T5 ties its output to its input embeddings and scales it, Flan-T5 does neither."""
    tied = language_model.lm_head.weight is language_model.shared.weight
    if tied != language_model.config.scale_decoder_outputs:
        raise ModelError(
            f"{name}: language_model.lm_head and .shared are {'one weight' if tied else 'two'}, "
            f"and text_config in {checkpoint.CONFIG} says (or means by its silence) "
            f"tie_word_embeddings: {'false' if tied else 'true'}; "
            "copy config and weights from the same checkpoint"
        )


def _beam_search(text: Any, *, pad_id: int) -> GenerationConfig:
    """Complete, so that no generation_config.json affects an answer."""
    return GenerationConfig(  # type: ignore[no-untyped-call]
        do_sample=False,
        num_beams=5,
        length_penalty=-1.0,
        early_stopping=False,
        max_new_tokens=ANSWER_TOKENS,
        min_new_tokens=1,
        # For OPT this is the end of a line, not the tokenizer's end of text.
        eos_token_id=text.eos_token_id,
        # Fills up the shorter answers of a batch, and is skipped in decoding.
        pad_token_id=pad_id,
        decoder_start_token_id=text.pad_token_id if text.is_encoder_decoder else None,
    )

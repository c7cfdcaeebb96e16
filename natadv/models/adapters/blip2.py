"""BLIP-2 checkpoints, with OPT or with T5, in the layout of transformers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch.nn import functional
from transformers import Blip2ForConditionalGeneration, GenerationConfig, LogitsProcessorList

from natadv.errors import ModelError
from natadv.explain.layers import TowerLayer
from natadv.explain.relevance import Block, Reading
from natadv.models.adapters import pretrained
from natadv.models.adapters.encoder import Placement
from natadv.models.adapters.generative import (
    ANSWER_TOKENS,
    Answered,
    Attending,
    GenerativeAnswerer,
    Inputs,
    PromptFormat,
    continuation,
    continued,
    continued_reading,
    image_token_id,
    log_probability,
    padded,
    recorded_attention,
    shares,
)
from natadv.models.adapters.towers import pre_norm_layer
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
            spec,
            model.vision_model,
            config.vision_config,
            leading=1,
            placement=placement,
            layer=_tower_layer,
        ),
        tokenizer=tokenizer,
        prompt=_prompt(text, (image_id,) * config.num_query_tokens, template=template_of(spec)),
        generate=_generate,
        word_embeddings=model.language_model.get_input_embeddings(),
        read=_Blip2Reader(model, image_id, tokenizer.pad_token_id),
    )


def _tower_layer(layer: Any) -> TowerLayer:
    attn = layer.self_attn
    return pre_norm_layer(layer, lambda x: attn.qkv(x).chunk(3, dim=-1), out=attn.projection)


@dataclass(frozen=True, slots=True)
class _Blip2Reader:
    """Reads answers with gradients, as `read` of a `GenerativeAnswerer`."""

    model: Any
    image_id: int
    pad_id: int

    def __call__(self, state: torch.Tensor, answered: Answered) -> Reading:
        queries, blocks = self._queries(state)
        image = self.model.language_projection(queries.to(state.dtype))
        by_t5 = self.model.language_model.config.is_encoder_decoder
        reading = self._by_t5(image, answered) if by_t5 else self._by_opt(image, answered)
        return replace(reading, queries=blocks)

    def _queries(self, state: torch.Tensor) -> tuple[torch.Tensor, tuple[Block, ...]]:
        """The outputs of the Q-Former, and what it attended to."""
        qformer = self.model.qformer
        layers = [
            (
                Attending(layer.attention.attention),
                *(
                    [Attending(layer.crossattention.attention, across=True)]
                    if layer.has_cross_attention
                    else []
                ),
            )
            for layer in qformer.encoder.layer
        ]
        # Without a gradient of its own, the attention that comes before the picture would have
        # none.
        first = self.model.query_tokens.detach().expand(len(state), -1, -1).requires_grad_()
        with recorded_attention(qformer, layers) as attended:
            output = qformer(
                query_embeds=first,
                encoder_hidden_states=state,
                encoder_attention_mask=torch.ones(state.shape[:2], device=state.device),
            )
            return output.last_hidden_state, attended()

    def _by_opt(self, image: torch.Tensor, answered: Answered) -> Reading:
        said = continued(answered, pad_id=self.pad_id, device=image.device)
        language = self.model.language_model
        return continued_reading(
            language,
            (layer.self_attn for layer in language.model.decoder.layers),
            said,
            image_id=self.image_id,
            forward=partial(
                language,
                inputs_embeds=self._embedded(said.inputs["input_ids"], image),
                attention_mask=said.inputs["attention_mask"],
            ),
        )

    def _by_t5(self, image: torch.Tensor, answered: Answered) -> Reading:
        language = self.model.language_model
        prompts, answers = (
            {
                key: t.to(image.device)
                for key, t in padded(ids, pad_id=self.pad_id, side="right").items()
            }
            for ids in answered
        )
        labels, counted = answers["input_ids"], answers["attention_mask"]
        # The decoder starts from the padding token, and reads all of the answer but its last token;
        # with a gradient, as the queries have it.
        shifted = functional.pad(labels, (1, -1), value=language.config.pad_token_id)
        words = language.get_input_embeddings()(shifted).requires_grad_()
        encoder = [(Attending(block.layer[0].SelfAttention),) for block in language.encoder.block]
        decoder = [
            (
                Attending(block.layer[0].SelfAttention),
                Attending(block.layer[1].EncDecAttention, across=True),
            )
            for block in language.decoder.block
        ]
        with recorded_attention(language, [*encoder, *decoder]) as attended:
            output = language(
                inputs_embeds=self._embedded(prompts["input_ids"], image),
                attention_mask=prompts["attention_mask"],
                decoder_inputs_embeds=words,
                use_cache=False,
            )
            blocks = attended()
        return Reading(
            log_probability=log_probability(output.logits, labels, counted),
            encoder=blocks[: len(encoder)],
            decoder=blocks[len(encoder) :],
            predicting=shares(counted),
            image_tokens=prompts["input_ids"] == self.image_id,
        )

    def _embedded(self, ids: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        """The words of a prompt, with the outputs of the Q-Former in the places of image tokens."""
        words = self.model.language_model.get_input_embeddings()(ids)
        places = (ids == self.image_id)[..., None]
        found: torch.Tensor = words.masked_scatter(places, image.to(words.dtype))
        return found


def _prompt(text: Any, image_tokens: tuple[int, ...], *, template: str) -> PromptFormat:
    if text.model_type == "t5":
        # Positions are relative, so padding is harmless except between the picture and the words.
        return PromptFormat(
            template=template,
            before=image_tokens,
            after=(text.eos_token_id,),
            context=T5_CONTEXT,
            padding="right",
            end=text.eos_token_id,
        )
    return PromptFormat(
        template=template,
        before=(*image_tokens, text.bos_token_id),
        context=text.max_position_embeddings - ANSWER_TOKENS,
        padding="left",
        before_answer=" ",
        end=text.eos_token_id,
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
    return GenerationConfig(
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

"""Tiny random checkpoints that answer questions: the real architectures, in their file layout."""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any

SEED = 11
SIDE = 32
CONTEXT = 24
VISION = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": SIDE,
    "patch_size": 8,
}
TEXT = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": CONTEXT,
}
PATCH = 16
QUERIES = 4
QFORMER = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}


def save_paligemma(folder: Path, *, side: int = SIDE, context: int = 96, seed: int = SEED) -> Path:
    """A PaliGemma 2 for pictures of `side` pixels, in patches of 16. Its context is in tokens,
    which are letters."""
    from transformers import (
        GemmaTokenizer,
        PaliGemmaConfig,
        PaliGemmaForConditionalGeneration,
        PaliGemmaProcessor,
    )
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    pieces = [*special, *(f"<0x{i:02X}>" for i in range(256)), *string.printable[:94], "▁", "\n"]
    tokenizer = GemmaTokenizer(vocab={piece: i for i, piece in enumerate(pieces)}, merges=[])
    processor = SiglipImageProcessorPil(
        size={"height": side, "width": side},
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
        resample=3,
        image_seq_length=(side // PATCH) ** 2,
    )
    # Adds the words for a picture and for places in it.
    image_id = PaliGemmaProcessor(processor, tokenizer).image_token_id
    config = PaliGemmaConfig(
        vision_config={
            **VISION,
            "image_size": side,
            "patch_size": PATCH,
            "model_type": "siglip_vision_model",
            "vision_use_head": False,
        },
        text_config={
            **TEXT,
            "model_type": "gemma2",
            "num_key_value_heads": 1,
            "head_dim": 16,
            "query_pre_attn_scalar": 16,
            "attn_logit_softcapping": 2.0,
            "sliding_window": 8,
            "max_position_embeddings": context,
            "vocab_size": len(tokenizer),
        },
        projection_dim=32,
        hidden_size=32,
        image_token_index=image_id,
    )
    model = _talkative(PaliGemmaForConditionalGeneration(config), tokenizer, seed)
    # Gemma scales its words up, and a strong one only repeats itself.
    model.get_output_embeddings().weight.data *= 0.2
    for part in (model, tokenizer, processor):
        part.save_pretrained(folder)
    return folder


def save_blip2_opt(folder: Path, *, seed: int = SEED) -> Path:
    """A BLIP-2 with OPT, which ends with the line."""
    from transformers import GPT2Tokenizer

    # As GPT-2's bytes are written: those that cannot be printed stand behind all others.
    printed = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printed]
    signs = {**{b: chr(b) for b in printed}, **{b: chr(256 + i) for i, b in enumerate(others)}}
    pieces = ["<s>", "<pad>", "</s>", *(signs[byte] for byte in range(256)), "<image>"]
    tokenizer = GPT2Tokenizer(
        vocab={piece: i for i, piece in enumerate(pieces)},
        merges=[],
        bos_token="</s>",
        eos_token="</s>",
        unk_token="</s>",
        pad_token="<pad>",
        add_bos_token=True,
    )
    tokenizer.add_tokens(["<image>"], special_tokens=True)
    language = {
        "model_type": "opt",
        "hidden_size": 32,
        "word_embed_proj_dim": 32,
        "ffn_dim": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 600,
        "vocab_size": len(tokenizer),
        "eos_token_id": tokenizer.convert_tokens_to_ids(signs[ord("\n")]),
    }
    _save_blip2(folder, tokenizer, language, seed=seed)
    return folder


def save_blip2_t5(folder: Path, *, seed: int = SEED) -> Path:
    """A BLIP-2 with Flan's kind of T5."""
    from transformers import T5Tokenizer

    words = ["▁", *string.printable[:94], *(f"▁{letter}" for letter in string.ascii_letters)]
    special = [(piece, 0.0) for piece in ("<pad>", "</s>", "<unk>")]
    scored = [(word, -float(len(words) - i)) for i, word in enumerate(words)]
    tokenizer = T5Tokenizer(vocab=[*special, *scored], extra_ids=0)
    tokenizer.add_tokens(["<image>"], special_tokens=True)
    language = {
        "model_type": "t5",
        "d_model": 32,
        "d_kv": 16,
        "d_ff": 48,
        "num_layers": 2,
        "num_heads": 2,
        "vocab_size": len(tokenizer),
        "feed_forward_proj": "gated-gelu",
        "decoder_start_token_id": 0,
        "tie_word_embeddings": False,
    }
    _save_blip2(folder, tokenizer, language, seed=seed)
    # As Flan's config says it; transformers 5 would write that its words are tied.
    stored = json.loads((folder / "config.json").read_text())
    stored["text_config"] |= {"tie_word_embeddings": False}
    del stored["text_config"]["scale_decoder_outputs"]
    (folder / "config.json").write_text(json.dumps(stored))
    return folder


def _save_blip2(folder: Path, tokenizer: Any, language: dict[str, Any], *, seed: int) -> None:
    import torch
    from transformers import Blip2Config, Blip2ForConditionalGeneration
    from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

    config = Blip2Config(
        vision_config={**VISION, "patch_size": PATCH},
        qformer_config=QFORMER,
        text_config=language,
        num_query_tokens=QUERIES,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )
    processor = BlipImageProcessorPil(size={"height": SIDE, "width": SIDE}, resample=3)
    model = Blip2ForConditionalGeneration(config)
    if language["model_type"] == "t5":
        head = model.language_model.lm_head
        head.weight = torch.nn.Parameter(head.weight.clone())
    _talkative(model, tokenizer, seed)
    for part in (model, tokenizer, processor):
        part.save_pretrained(folder)
    stored = {"num_query_tokens": QUERIES, "processor_class": "Blip2Processor"}
    (folder / "processor_config.json").write_text(json.dumps(stored))


def _talkative(model: Any, tokenizer: Any, seed: int) -> Any:
    """Random weights, but norms that norm, and letters as the only likely words: so that answers
    differ from picture to picture and from question to question, and can be read."""
    import torch

    letters = tokenizer.convert_tokens_to_ids(list(string.ascii_letters))
    others = sorted(set(range(len(tokenizer))) - set(letters))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.4)
        model.get_output_embeddings().weight[others] *= 0.01
    return model

"""Tiny random checkpoints that ground phrases: the real architectures, in their file layout."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

TEXT = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}


def save_dino(folder: Path) -> Path:
    from transformers import (
        BertConfig,
        GroundingDinoConfig,
        GroundingDinoForObjectDetection,
        SwinConfig,
    )
    from transformers.models.grounding_dino.image_processing_pil_grounding_dino import (
        GroundingDinoImageProcessorPil,
    )

    tokenizer = _bert_tokenizer()
    text = BertConfig(
        **TEXT, num_attention_heads=2, vocab_size=len(tokenizer), max_position_embeddings=64
    )
    picture = SwinConfig(
        embed_dim=8,
        depths=[1, 1, 1, 1],
        num_heads=[1, 1, 2, 2],
        window_size=4,
        image_size=64,
        out_indices=[2, 3, 4],
    )
    config = GroundingDinoConfig(
        backbone_config=picture,
        text_config=text,
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        num_queries=12,
        max_text_len=32,
    )
    model = _randomised(GroundingDinoForObjectDetection(config), scale=0.1)
    processor = GroundingDinoImageProcessorPil(size={"shortest_edge": 96, "longest_edge": 128})
    return _save(folder, model, tokenizer, processor)


def save_sam(folder: Path) -> Path:
    from transformers import (
        SamConfig,
        SamMaskDecoderConfig,
        SamModel,
        SamPromptEncoderConfig,
        SamVisionConfig,
    )
    from transformers.models.sam.image_processing_pil_sam import SamImageProcessorPil

    side, patch = 64, 8
    config = SamConfig(
        vision_config=SamVisionConfig(
            hidden_size=32,
            output_channels=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=side,
            patch_size=patch,
            window_size=4,
            global_attn_indexes=[1],
            num_pos_feats=16,
            initializer_range=0.02,
        ),
        prompt_encoder_config=SamPromptEncoderConfig(
            hidden_size=32, image_size=side, patch_size=patch
        ),
        mask_decoder_config=SamMaskDecoderConfig(
            hidden_size=32,
            mlp_dim=32,
            num_attention_heads=2,
            iou_head_hidden_dim=32,
        ),
    )
    processor = SamImageProcessorPil(
        size={"longest_edge": side},
        pad_size={"height": side, "width": side},
        mask_size={"longest_edge": side // 4},
        mask_pad_size={"height": side // 4, "width": side // 4},
    )
    return _save(folder, _randomised(SamModel(config), scale=0.1), processor)


def _bert_tokenizer() -> Any:
    from transformers import BertTokenizer

    letters = [*string.ascii_lowercase, *string.digits, ".", ",", "-", "?"]
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{c}" for c in letters)]
    return BertTokenizer(vocab={piece: i for i, piece in enumerate(pieces)}, model_max_length=64)


def _randomised(model: Any, *, scale: float) -> Any:
    import torch

    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * scale)
    return model.eval()


def _save(folder: Path, *parts: Any) -> Path:
    for part in parts:
        part.save_pretrained(folder)
    return folder

"""Tiny checkpoints of the real architectures, in the file layout of real ones."""

from __future__ import annotations

import json
import shutil
import string
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

if TYPE_CHECKING:
    from natadv.models.encoder import DualEncoder

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


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIP checkpoint folder; do not write into it."""
    from transformers import CLIPConfig, CLIPModel, CLIPTokenizer
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    folder = tmp_path_factory.mktemp("checkpoints") / "tiny-clip"
    pieces = [*string.printable[:94], *(f"{c}</w>" for c in string.printable[:94])]
    vocab = {p: i for i, p in enumerate([*pieces, "<|startoftext|>", "<|endoftext|>"])}
    tokenizer = CLIPTokenizer(vocab=vocab, merges=[], model_max_length=CONTEXT)
    tokens = {
        "vocab_size": len(vocab),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    config = CLIPConfig(
        vision_config={**VISION, "projection_dim": 16},
        text_config={**TEXT, **tokens, "projection_dim": 16},
        projection_dim=16,
        logit_scale_init_value=3.0,
    )
    processor = CLIPImageProcessorPil(
        size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}
    )
    _save(folder, _randomised(CLIPModel(config)), tokenizer, processor)
    return folder


@pytest.fixture(scope="session")
def tiny_siglip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SigLIP checkpoint folder with a tokenizer that keeps case; do not write into it."""
    from transformers import SiglipConfig, SiglipModel
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

    folder = tmp_path_factory.mktemp("checkpoints") / "tiny-siglip"
    tokenizer = _character_tokenizer()
    config = SiglipConfig(
        vision_config=VISION,
        text_config={**TEXT, "vocab_size": len(tokenizer), "projection_size": 32},
    )
    model = _randomised(SiglipModel(config))
    model.logit_scale.data.fill_(2.5)
    model.logit_bias.data.fill_(-3.0)
    processor = SiglipImageProcessorPil(
        size={"height": SIDE, "width": SIDE}, image_mean=[0.5] * 3, image_std=[0.5] * 3, resample=2
    )
    _save(folder, model, tokenizer, processor)
    return folder


@pytest.fixture(params=["tiny_clip", "tiny_siglip"])
def tiny(request: pytest.FixtureRequest) -> Path:
    """Each of the tiny checkpoints."""
    found: Path = request.getfixturevalue(request.param)
    return found


@pytest.fixture(scope="session")
def load_folder() -> Callable[[Path], DualEncoder]:
    """Resolve and load a checkpoint folder on the CPU."""

    def load_it(folder: Path) -> DualEncoder:
        from natadv.models.loading import load
        from natadv.models.zoo import resolve

        (spec,) = resolve(str(folder), root=folder.parent)
        return load(spec, device="cpu", dtype="float32", threads=1)

    return load_it


@pytest.fixture
def copied(tmp_path: Path) -> Callable[..., Path]:
    """Copy a checkpoint into a fresh folder that a test may damage."""

    def copy(folder: Path, *, name: str = "copy") -> Path:
        return Path(shutil.copytree(folder, tmp_path / name))

    return copy


@pytest.fixture(scope="session")
def edited() -> Callable[..., None]:
    """Change keys of a JSON file; None removes a key."""

    def edit(path: Path, changes: dict[str, Any]) -> None:
        found = json.loads(path.read_text()) | changes
        kept = {key: value for key, value in found.items() if value is not None}
        path.write_text(json.dumps(kept))

    return edit


@pytest.fixture(scope="session")
def photographs() -> list[Image.Image]:
    """RGB pictures of several sizes and shapes, the same on every machine."""
    sizes = [(32, 32), (48, 40), (31, 90), (120, 33), (5, 3), (1, 1), (3, 50), (64, 64)]
    generator = np.random.default_rng(7)
    return [
        Image.fromarray(generator.integers(0, 256, (height, width, 3), dtype=np.uint8))
        for width, height in sizes
    ]


def _character_tokenizer() -> Any:
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    characters = [*string.ascii_letters, *string.digits, *string.punctuation, " "]
    vocab = {p: i for i, p in enumerate(["<pad>", "</s>", "<unk>", *characters])}
    backend = Tokenizer(models.WordLevel(vocab=vocab, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex("."), behavior="isolated")
    backend.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", vocab["</s>"])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=CONTEXT,
    )


def _randomised(model: Any) -> Any:
    """Weights large enough that different inputs give clearly different embeddings."""
    import torch

    generator = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 0:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return model


def _save(folder: Path, *parts: Any) -> None:
    for part in parts:
        part.save_pretrained(folder)

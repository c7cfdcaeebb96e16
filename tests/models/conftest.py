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

from ..tiny_generative import (
    CONTEXT,
    SIDE,
    TEXT,
    VISION,
    save_blip2_opt,
    save_blip2_t5,
    save_paligemma,
)
from ..tiny_grounding import save_dino, save_sam

if TYPE_CHECKING:
    from natadv.models.adapters.encoder import DualEncoder


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
        from natadv.models.resolve import resolve

        (spec,) = resolve(str(folder), root=folder.parent)
        return load(spec, device="cpu", dtype="float32", threads=1)

    return load_it


@pytest.fixture(scope="session")
def embedded() -> Callable[..., Any]:
    """What a model makes of pictures, from end to end."""

    def embed(model: Any, images: list[Image.Image]) -> Any:
        return model.embed_images(model.prepare(images))

    return embed


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


@pytest.fixture(scope="session")
def tiny_siglip2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A NaFlex checkpoint folder that cuts pictures into at most 16 patches; do not write into it.

    Its tokenizer names the class that the real one names, which is not the one that is built.
    """
    from transformers import Siglip2Config, Siglip2Model, Siglip2Tokenizer
    from transformers.models.siglip2.image_processing_pil_siglip2 import Siglip2ImageProcessorPil

    folder = tmp_path_factory.mktemp("checkpoints") / "tiny-siglip2"
    pieces = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *string.printable[:94], "▁"]
    tokenizer = Siglip2Tokenizer(
        vocab={piece: i for i, piece in enumerate(pieces)},
        merges=[],
        add_bos_token=False,
        add_eos_token=True,
    )
    tokens = {"vocab_size": len(pieces), "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2}
    vision = {key: value for key, value in VISION.items() if key != "image_size"}
    config = Siglip2Config(
        vision_config={**vision, "num_patches": 16}, text_config={**TEXT, **tokens}
    )
    model = _randomised(Siglip2Model(config))
    model.logit_scale.data.fill_(2.5)
    model.logit_bias.data.fill_(-3.0)
    processor = Siglip2ImageProcessorPil(
        image_mean=[0.5] * 3, image_std=[0.5] * 3, resample=2, patch_size=8, max_num_patches=16
    )
    _save(folder, model, tokenizer, processor)
    stored = folder / "tokenizer_config.json"
    stored.write_text(stored.read_text().replace("Siglip2Tokenizer", "GemmaTokenizer"))
    return folder


@pytest.fixture(scope="session", params=[False, True], ids=["simple", "refined"])
def tiny_clipseg(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIPSeg checkpoint folder with each kind of decoder end; do not write into it."""
    from transformers import CLIPSegConfig, CLIPSegForImageSegmentation, CLIPTokenizer
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    folder = tmp_path_factory.mktemp("checkpoints") / "tiny-clipseg"
    pieces = [*string.printable[:94], *(f"{c}</w>" for c in string.printable[:94])]
    vocab = {p: i for i, p in enumerate([*pieces, "<|startoftext|>", "<|endoftext|>"])}
    tokenizer = CLIPTokenizer(vocab=vocab, merges=[], model_max_length=CONTEXT)
    tokens = {"bos_token_id": len(pieces), "eos_token_id": len(pieces) + 1, "pad_token_id": 0}
    config = CLIPSegConfig(
        vision_config={**VISION, "patch_size": 16},
        text_config={**TEXT, **tokens, "vocab_size": len(vocab)},
        projection_dim=16,
        extract_layers=[0, 1],
        reduce_dim=16,
        decoder_num_attention_heads=2,
        decoder_intermediate_size=32,
        use_complex_transposed_convolution=request.param,
    )
    model = _randomised(CLIPSegForImageSegmentation(config))
    # Else all phrases mean much the same, and count for little beside the picture.
    for layer in model.clip.text_model.encoder.layers:
        layer.self_attn.out_proj.weight.data.mul_(10)
    model.decoder.layers[0].layer_norm2.weight.data.mul_(10)
    processor = ViTImageProcessorPil(size={"height": 48, "width": 48}, resample=2)
    _save(folder, model, tokenizer, processor)
    return folder


@pytest.fixture(scope="session")
def tiny_paligemma(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Do not write into it."""
    return save_paligemma(tmp_path_factory.mktemp("checkpoints") / "tiny-paligemma")


@pytest.fixture(scope="session")
def tiny_blip2_opt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Do not write into it."""
    return save_blip2_opt(tmp_path_factory.mktemp("checkpoints") / "tiny-blip2-opt")


@pytest.fixture(scope="session")
def tiny_blip2_t5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Do not write into it."""
    return save_blip2_t5(tmp_path_factory.mktemp("checkpoints") / "tiny-blip2-t5")


@pytest.fixture(params=["tiny_paligemma", "tiny_blip2_opt", "tiny_blip2_t5"])
def tiny_answerer(request: pytest.FixtureRequest) -> Path:
    """Each of the tiny checkpoints that answer questions."""
    found: Path = request.getfixturevalue(request.param)
    return found


OPEN_CLIP: dict[str, Any] = {
    "embed_dim": 16,
    "quick_gelu": True,
    "vision_cfg": {
        "image_size": SIDE,
        "layers": 2,
        "width": 32,
        "head_width": 16,
        "patch_size": 8,
    },
    "text_cfg": {
        "context_length": CONTEXT,
        "vocab_size": 49408,
        "width": 32,
        "heads": 2,
        "layers": 2,
    },
}
OPEN_CLIP_RESNET = {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "patch_size": None}


@pytest.fixture(scope="session")
def saved_open_clip(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Write an open_clip folder by its own config writer; changes are to `model_cfg`."""

    def save(name: str, **changes: Any) -> Path:
        import open_clip
        from open_clip.push_to_hf_hub import save_config_for_hf
        from safetensors.torch import save_file

        config = {**OPEN_CLIP, **changes}
        model = _lively(open_clip.CLIP(**config))
        preprocessing = open_clip.transform.merge_preprocess_dict(
            open_clip.transform.PreprocessCfg(), {}
        )
        open_clip.model.set_model_preprocess_cfg(model, preprocessing)
        folder = tmp_path_factory.mktemp("checkpoints") / name
        folder.mkdir()
        path = folder / "open_clip_config.json"
        save_config_for_hf(model, path, model_config=config)
        save_file(model.state_dict(), folder / "open_clip_model.safetensors")
        return folder

    return save


@pytest.fixture(scope="session")
def open_clip_quick(saved_open_clip: Callable[..., Path]) -> Path:
    """A ViT with QuickGELU in the layout of open_clip; do not write into it."""
    return saved_open_clip("tiny-open-clip")


@pytest.fixture(scope="session")
def open_clip_plain(saved_open_clip: Callable[..., Path]) -> Path:
    """The same weights with GELU; do not write into it."""
    return saved_open_clip("tiny-open-clip-gelu", quick_gelu=False)


@pytest.fixture(scope="session")
def open_clip_resnet(saved_open_clip: Callable[..., Path]) -> Path:
    """A ResNet in the layout of open_clip; do not write into it."""
    return saved_open_clip("tiny-resnet", vision_cfg=OPEN_CLIP_RESNET)


@pytest.fixture(scope="session")
def transformers_twin(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Path]:
    """Write a tiny open_clip ViT again in the layout of transformers."""

    def write(source: Path) -> Path:
        import open_clip
        from safetensors.torch import load_file
        from transformers import CLIPConfig, CLIPModel, CLIPTokenizer
        from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

        quick = json.loads((source / "open_clip_config.json").read_text())["model_cfg"][
            "quick_gelu"
        ]
        packaged = open_clip.tokenizer.SimpleTokenizer()
        special = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
        tokenizer = CLIPTokenizer(
            vocab={special.get(piece, piece): i for piece, i in packaged.encoder.items()},
            merges=sorted(packaged.bpe_ranks, key=packaged.bpe_ranks.__getitem__),
            model_max_length=CONTEXT,
        )
        act = {"hidden_act": "quick_gelu" if quick else "gelu", "intermediate_size": 128}
        ends = {"eos_token_id": 49407, "bos_token_id": 49406, "pad_token_id": 49407}
        config = CLIPConfig(
            vision_config={**VISION, **act},
            text_config={**TEXT, **act, **ends, "vocab_size": 49408},
            projection_dim=16,
        )
        model = CLIPModel(config)
        model.load_state_dict(_in_transformers(load_file(source / "open_clip_model.safetensors")))
        folder = tmp_path_factory.mktemp("checkpoints") / f"{source.name}-twin"
        processor = CLIPImageProcessorPil(
            size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}
        )
        _save(folder, model, tokenizer, processor)
        return folder

    return write


def _lively(model: Any) -> Any:
    """Random weights that keep pictures, texts and both kinds of GELU apart, whatever the depth."""
    import torch

    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim > 1:
                # Both kinds of GELU differ most for small numbers.
                gain = {"c_fc.weight": 1.0, "c_proj.weight": 9.0}.get(
                    name.partition("mlp.")[2], 3.0
                )
                parameter.copy_(noise * gain / parameter[0].numel() ** 0.5)
            elif parameter.ndim == 1:
                parameter.copy_(noise * 0.3 + float(name.endswith("weight")))
        for name, buffer in model.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                buffer.fill_(0.2 if name.endswith("mean") else 3.0)
        model.logit_scale.fill_(3.0)
    return model


def _in_transformers(state: dict[str, Any]) -> dict[str, Any]:
    """The weights of an open_clip ViT and its text tower, by the names of transformers."""
    vision, text = "vision_model.", "text_model."
    found = {
        "logit_scale": state["logit_scale"],
        "visual_projection.weight": state["visual.proj"].T,
        "text_projection.weight": state["text_projection"].T,
        f"{vision}embeddings.class_embedding": state["visual.class_embedding"],
        f"{vision}embeddings.patch_embedding.weight": state["visual.conv1.weight"],
        f"{vision}embeddings.position_embedding.weight": state["visual.positional_embedding"],
        f"{text}embeddings.token_embedding.weight": state["token_embedding.weight"],
        f"{text}embeddings.position_embedding.weight": state["positional_embedding"],
    }
    parts = {
        "visual.ln_pre": f"{vision}pre_layrnorm",
        "visual.ln_post": f"{vision}post_layernorm",
        "ln_final": f"{text}final_layer_norm",
    }
    for tower, ours in (("visual.", vision), ("", text)):
        for i in range(2):
            theirs, layer = f"{tower}transformer.resblocks.{i}.", f"{ours}encoder.layers.{i}."
            parts |= {
                theirs + "ln_1": layer + "layer_norm1",
                theirs + "ln_2": layer + "layer_norm2",
            }
            parts |= {
                theirs + "mlp.c_fc": layer + "mlp.fc1",
                theirs + "mlp.c_proj": layer + "mlp.fc2",
            }
            parts[theirs + "attn.out_proj"] = layer + "self_attn.out_proj"
            for kind in ("weight", "bias"):
                fused = state[f"{theirs}attn.in_proj_{kind}"]
                for letter, rows in zip("qkv", fused.split(32), strict=True):
                    found[f"{layer}self_attn.{letter}_proj.{kind}"] = rows
    for theirs, ours in parts.items():
        found |= {f"{ours}.{kind}": state[f"{theirs}.{kind}"] for kind in ("weight", "bias")}
    return found


@pytest.fixture(scope="session")
def tiny_dino(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Do not write into it."""
    return save_dino(tmp_path_factory.mktemp("grounding") / "tiny-dino")


@pytest.fixture(scope="session")
def tiny_sam(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Do not write into it."""
    return save_sam(tmp_path_factory.mktemp("grounding") / "tiny-sam")


@pytest.fixture(scope="session")
def photograph() -> Image.Image:
    """Wider than high."""
    pixels = np.random.default_rng(3).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((90, 60))

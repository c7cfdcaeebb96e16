"""Masking all heads of a picture tower, against one forward pass of the real model per head.

    python benchmarks/head_masking.py [--pictures 8] [--repeats 3]

For the latter, the columns of a head are zero in the weights of the output projection. Both ways
take turns layer by layer, so that whatever else the machine does meets both; the table shows the
sums over the layers (medians of the repeats), on one thread, and how far the embeddings are apart.
The models are mini-clip, and CLIP with a picture tower of the size of ViT-B/32 and random weights,
which takes as long as a trained one.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from transformers import CLIPConfig, CLIPModel

from natadv.models.adapters.encoder import DualEncoder
from natadv.models.loading import load
from natadv.models.resolve import resolve
from natadv.rng import rng_for

MINI = Path(__file__).resolve().parents[1] / "fixtures" / "models" / "mini-clip"
VIT_B_32 = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "image_size": 224,
    "patch_size": 32,
}


class Timing(NamedTuple):
    """Seconds of both ways for all heads, and the largest difference of their embeddings."""

    per_head_s: float
    together_s: float
    difference: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=8, metavar="N")
    parser.add_argument("--repeats", type=int, default=3, metavar="N")
    options = parser.parse_args()
    versions = f"torch {torch.__version__}, python {platform.python_version()}"
    print(
        f"{options.pictures} pictures, {options.repeats} repeats, 1 thread, {platform.machine()}, "
        f"{versions}\n"
    )
    print(f"{'model':28} {'heads':>6} {'per head':>10} {'together':>10} {'ratio':>6} {'apart':>8}")
    with tempfile.TemporaryDirectory() as folder:
        for folder_of in (MINI, saved_vit_b_32(Path(folder) / "vit-b-32-random")):
            report(folder_of, pictures=options.pictures, repeats=options.repeats)


def saved_vit_b_32(folder: Path) -> Path:
    """A checkpoint with the text tower of mini-clip and a larger picture tower."""
    config = json.loads((MINI / "config.json").read_text())
    torch.manual_seed(0)
    CLIPModel(
        CLIPConfig(
            text_config=config["text_config"],
            vision_config={**config["vision_config"], **VIT_B_32},
            projection_dim=config["projection_dim"],
        )
    ).save_pretrained(folder)
    for path in MINI.glob("tokenizer*"):
        shutil.copy(path, folder)
    preprocessing = json.loads((MINI / "preprocessor_config.json").read_text())
    size = {"height": VIT_B_32["image_size"], "width": VIT_B_32["image_size"]}
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessing | {"size": size}))
    return folder


def report(folder: Path, *, pictures: int, repeats: int) -> None:
    (spec,) = resolve(str(folder), root=folder.parent)
    encoder = load(spec, device="cpu", dtype="float32", threads=1)
    assert isinstance(encoder, DualEncoder)
    model = CLIPModel.from_pretrained(folder).eval().requires_grad_(False)
    images = [noise(number, side=224) for number in range(pictures)]
    pixels = encoder.prepare(images)
    assert pixels is not None
    timings = [timed(encoder, model, dict(pixels)) for _ in range(repeats)]
    layers = model.config.vision_config.num_hidden_layers
    heads = model.config.vision_config.num_attention_heads
    per_head, together = (statistics.median(t[i] for t in timings) for i in range(2))
    ratio = statistics.median(t.per_head_s / t.together_s for t in timings)
    apart = max(t.difference for t in timings)
    print(
        f"{folder.name:28} {layers:>2} x {heads:<2}{per_head:9.2f} s {together:8.2f} s "
        f"{ratio:6.2f} {apart:8.0e}",
        flush=True,
    )


def timed(encoder: DualEncoder, model: CLIPModel, pixels: dict[str, torch.Tensor]) -> Timing:
    masked = encoder.masked_embeddings(pixels)
    together_s = per_head_s = difference = 0.0
    for layer in model.vision_model.encoder.layers:
        began = time.perf_counter()
        found = next(masked)
        together_s += time.perf_counter() - began
        began = time.perf_counter()
        expected = np.stack(list(each_head(model, layer, pixels)))
        per_head_s += time.perf_counter() - began
        difference = max(difference, float(np.abs(found - expected).max()))
    return Timing(per_head_s, together_s, difference)


@torch.inference_mode()
def each_head(
    model: CLIPModel, layer: torch.nn.Module, pixels: dict[str, torch.Tensor]
) -> Iterator[np.ndarray]:
    """Unit rows of a full forward pass for each head of the layer, without it."""
    weight = layer.self_attn.out_proj.weight
    whole, width = weight.clone(), weight.shape[1] // layer.self_attn.num_heads
    for start in range(0, weight.shape[1], width):
        weight[:, start : start + width] = 0
        rows = model.get_image_features(**pixels).pooler_output
        yield (rows / rows.norm(dim=-1, keepdim=True)).numpy()
        weight.copy_(whole)


def noise(number: int, *, side: int) -> Image.Image:
    pixels = rng_for("head masking", number).integers(0, 256, (side, side, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


if __name__ == "__main__":
    main()

"""Pictures that both mini models recognise, for `natadv doctor`: `python -m mini_world.known`."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from mini_world.datasets import NAMES, clean_samples
from mini_world.params import ROOT
from natadv.data.images import decode_image
from natadv.errors import ModelError
from natadv.models.loading import load
from natadv.models.resolve import resolve
from natadv.types import DoubleArray, Sample, ZeroShotClassifier

KNOWN = Path("fixtures/mini/known")
MODELS = ("mini-clip", "mini-siglip")


def save_known(root: Path) -> list[Path]:
    """One picture of `mini` per class, CLASS.png: the one that both models are surest of."""
    samples = [sample for sample in clean_samples() if sample.part == "seen"]
    images = [decode_image(sample.image, where=sample.id) for sample in samples]
    surest = np.minimum.reduce([_margins(name, samples, images) for name in MODELS])
    folder = root / KNOWN
    folder.mkdir(parents=True, exist_ok=True)
    return [_save(folder, label, samples, surest, images) for label in range(len(NAMES))]


def _margins(name: str, samples: list[Sample], images: list[Image.Image]) -> DoubleArray:
    """Cosine of the truth minus the best other one."""
    (spec,) = resolve(name, root=ROOT)
    model = load(spec, device="cpu", dtype="float32", threads=1)
    assert isinstance(model, ZeroShotClassifier)
    texts = model.embed_texts([f"a photo of a {name}." for name in NAMES])
    cosines = (model.embed_images(model.prepare(images)) @ texts.T).astype(np.float64)
    rows, labels = np.arange(len(samples)), np.array([sample.label for sample in samples])
    truths = cosines[rows, labels].copy()
    cosines[rows, labels] = -np.inf
    margins: DoubleArray = truths - cosines.max(axis=1)
    return margins


def _save(
    folder: Path,
    label: int,
    samples: list[Sample],
    surest: DoubleArray,
    images: list[Image.Image],
) -> Path:
    of_class = [i for i, sample in enumerate(samples) if sample.label == label]
    best = max(of_class, key=lambda i: surest[i])
    if not surest[best] > 0:
        raise ModelError(f"no picture of a {NAMES[label]} is recognised by both mini models")
    buffer = io.BytesIO()
    images[best].save(buffer, "PNG", optimize=True)
    path = folder / f"{NAMES[label]}.png"
    path.write_bytes(buffer.getvalue())
    return path


if __name__ == "__main__":
    print(f"{len(save_known(ROOT))} pictures in {KNOWN}")

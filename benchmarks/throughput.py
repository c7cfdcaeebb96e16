"""Images per second of the engine, end to end from JPEG files, against the forward pass alone.

    python benchmarks/throughput.py [--shape ViT-B-32] [--images 256] [--photos FOLDER] [--peer]

The model is open_clip's architecture of that name with random weights, which takes as long as a
trained one. Each repeat measures all ways once, in turn, so that whatever else the machine does
meets all of them; the table shows medians, and ratios to the forward pass on tensors that are in
memory already. `--peer` adds CLIP_benchmark on the same weights and files (pip install
scikit-learn; pip install --no-deps clip-benchmark).
"""

from __future__ import annotations

import argparse
import io
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from open_clip.transform import PreprocessCfg
from PIL import Image
from safetensors.torch import save_file

from natadv.data.card import CardDraft
from natadv.data.packing import write_dataset
from natadv.data.reader import decode_image, read_samples
from natadv.evaluate.compute import compute
from natadv.evaluate.datasets import Dataset
from natadv.evaluate.embeddings import EmbeddingCache
from natadv.evaluate.loaded_model import LoadedModel
from natadv.evaluate.plan import dataset_units
from natadv.evaluate.units import Numerics, Unit, installed_packages
from natadv.models.loading import fingerprint, load
from natadv.models.resolve import resolve
from natadv.rng import rng_for
from natadv.types import Case, Sample, ZeroShotClassifier

CLASSES = ("cat", "dog", "cow", "hen", "horse", "sheep", "spider", "squirrel", "elephant", "moth")
TEMPLATE = "a photo of a {}."
BATCH = 64
PHOTO = (500, 375)
"""The usual size of a photograph of ImageNet."""

Way = Callable[[], None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", default="ViT-B-32", help="architecture of open_clip")
    parser.add_argument("--images", type=int, default=256, metavar="N")
    parser.add_argument("--photos", type=Path, metavar="FOLDER", help="JPEG files to repeat")
    parser.add_argument("--repeats", type=int, default=3, metavar="N")
    parser.add_argument("--peer", action="store_true", help="measure CLIP_benchmark too")
    options = parser.parse_args()
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        files = list(jpegs(options.images, options.photos))
        checkpoint = save_model(options.shape, root / "checkpoint")
        dataset = save_dataset(files, root / "jpegs")
        ways = engine_ways(checkpoint, dataset, root)
        if options.peer:
            ways |= peer_ways(options.shape, checkpoint, files)
        times = measure(ways, options.repeats)
    report(times, images=options.images, shape=options.shape, repeats=options.repeats)


def jpegs(count: int, photos: Path | None) -> Iterator[bytes]:
    """Encoded pictures: photographs over and over, or coloured clouds of their size."""
    found = sorted(photos.rglob("*.jp*g")) if photos else []
    for number in range(count):
        if found:
            yield found[number % len(found)].read_bytes()
            continue
        grid = rng_for("throughput", number).integers(0, 256, (24, 32, 3), dtype=np.uint8)
        out = io.BytesIO()
        Image.fromarray(grid).resize(PHOTO, Image.Resampling.BICUBIC).save(out, "JPEG", quality=90)
        yield out.getvalue()


def save_model(shape: str, folder: Path) -> Path:
    """A checkpoint of open_clip with random weights."""
    folder.mkdir()
    model = open_clip.create_model(shape)
    save_file(
        {name: tensor.contiguous() for name, tensor in model.state_dict().items()},
        folder / "open_clip_model.safetensors",
    )
    preprocessing = {
        key: value
        for key, value in asdict(PreprocessCfg()).items()
        if key in ("mean", "std", "interpolation", "resize_mode")
    }
    config = {"model_cfg": open_clip.get_model_config(shape), "preprocess_cfg": preprocessing}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    return folder


def save_dataset(files: Sequence[bytes], folder: Path) -> Dataset:
    draft = CardDraft(
        name="jpegs",
        tasks=("classification",),
        scenario="clean",
        classes=CLASSES,
        templates=(TEMPLATE,),
        licence="none",
        source="benchmarks/throughput.py",
        description="Pictures to be timed with.",
    )
    # A comment after the end makes each file another picture, which no cache has seen.
    samples = (
        Sample(id=f"{i}", group=f"{i}", image=data + i.to_bytes(4, "big"), label=i % len(CLASSES))
        for i, data in enumerate(files)
    )
    return Dataset("jpegs", folder, write_dataset(folder, draft, samples))


def engine_ways(checkpoint: Path, dataset: Dataset, root: Path) -> dict[str, Way]:
    (spec,) = resolve(str(checkpoint), root=root)
    model = load(spec, device="cpu", dtype="float32", threads=1)
    assert isinstance(model, ZeroShotClassifier)
    units = units_of(dataset, fingerprint(spec))
    images = [decode_image(s.image, where=s.id) for s in samples_of(dataset)]
    batches = [model.prepare(images[a : a + BATCH]) for a in range(0, len(images), BATCH)]
    warm = LoadedModel(model, EmbeddingCache(root, "warm"), BATCH)
    run_units(units, dataset, warm)
    return {
        "forward pass on preloaded tensors": lambda: forward(model, batches),
        "decoding and preprocessing alone": lambda: preprocess(model, dataset),
        "engine, cold": lambda: cold(units, dataset, model),
        "engine, embeddings cached": lambda: run_units(units, dataset, warm),
    }


def units_of(dataset: Dataset, weights: str) -> tuple[Unit, ...]:
    card = dataset.card
    return dataset_units(
        Case("classification", card.scenario, dataset.name, "random"),
        dataset,
        variant="attack",
        weights=weights,
        rows=card.rows,
        numerics=Numerics("cpu", "float32", BATCH, 1, installed_packages()),
    )


def samples_of(dataset: Dataset) -> list[Sample]:
    return list(read_samples(dataset.folder, dataset.card, start=0, stop=dataset.card.rows))


def forward(model: ZeroShotClassifier, batches: Sequence[Any]) -> None:
    for batch in batches:
        model.embed_images(batch)


def preprocess(model: ZeroShotClassifier, dataset: Dataset) -> None:
    images = [decode_image(s.image, where=s.id) for s in samples_of(dataset)]
    for a in range(0, len(images), BATCH):
        model.prepare(images[a : a + BATCH])


def cold(units: Sequence[Unit], dataset: Dataset, model: ZeroShotClassifier) -> None:
    with tempfile.TemporaryDirectory() as folder:
        cache = EmbeddingCache(Path(folder), "cold")
        run_units(units, dataset, LoadedModel(model, cache, BATCH))


def run_units(units: Sequence[Unit], dataset: Dataset, loaded: LoadedModel) -> None:
    for unit in units:
        compute([unit], dataset, clean=None, loaded=loaded)


class JpegFiles(torch.utils.data.Dataset[tuple[torch.Tensor, int]]):
    """As CLIP_benchmark reads an image folder: file, transform, label."""

    def __init__(self, files: Sequence[bytes], transform: Callable[[Any], torch.Tensor]) -> None:
        self.files, self.transform = files, transform

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        image = Image.open(io.BytesIO(self.files[index])).convert("RGB")
        return self.transform(image), index % len(CLASSES)


def peer_ways(shape: str, checkpoint: Path, files: Sequence[bytes]) -> dict[str, Way]:
    from clip_benchmark.metrics import zeroshot_classification as peer

    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{checkpoint}")
    tokenizer = open_clip.get_tokenizer(shape)

    def evaluate(workers: int) -> None:
        loader = torch.utils.data.DataLoader(
            JpegFiles(files, transform), batch_size=BATCH, num_workers=workers
        )
        # Its evaluate() in two steps: the scores that it adds fail under NumPy 2.4.
        classifier = peer.zero_shot_classifier(
            model, tokenizer, list(CLASSES), [TEMPLATE.replace("{}", "{c}")], "cpu", amp=False
        )
        peer.run_classification(model, classifier, loader, "cpu", amp=False)

    model.eval()
    return {
        "CLIP_benchmark, no worker": lambda: evaluate(0),
        "CLIP_benchmark, one worker": lambda: evaluate(1),
    }


def measure(ways: dict[str, Way], repeats: int) -> dict[str, float]:
    """Median seconds by way."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            began = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - began)
    return {name: statistics.median(found) for name, found in seconds.items()}


def report(times: dict[str, float], *, images: int, shape: str, repeats: int) -> None:
    base = next(iter(times.values()))
    versions = f"torch {torch.__version__}, python {platform.python_version()}"
    print(f"{shape}, {images} JPEGs, {repeats} repeats, 1 thread, {platform.machine()}, {versions}")
    for name, seconds in times.items():
        print(f"{name:36} {images / seconds:9.1f} images/s   x {base / seconds:.2f}")


if __name__ == "__main__":
    main()

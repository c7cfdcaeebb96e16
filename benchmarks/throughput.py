"""Images per second of the engine, end to end from packed files, against the forward pass alone.

    python benchmarks/throughput.py [--model mini-clip] [--dataset mini] [--repeats 5]

Each repeat measures all ways once, in turn, so that whatever else the machine does meets all of
them; the table shows medians, and ratios to the forward pass on tensors that are already in memory.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from transformers import AutoImageProcessor, AutoModel, PreTrainedModel

from natadv.data.reader import decode_image, read_samples
from natadv.engine.datasets import Dataset, load_datasets
from natadv.engine.embeddings import EmbeddingCache
from natadv.engine.evaluate import Bench, compute
from natadv.engine.plan import dataset_units
from natadv.engine.units import Numerics, Unit, installed_packages
from natadv.models.loading import fingerprint, load
from natadv.models.zoo import resolve
from natadv.types import Case, ZeroShotClassifier

ROOT = Path(__file__).resolve().parent.parent
BATCH = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="mini-clip")
    parser.add_argument("--dataset", default="mini")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    dataset = load_datasets(ROOT)[options.dataset]
    (spec,) = resolve(options.model, root=ROOT)
    model = load(spec, device="cpu", dtype="float32", threads=1)
    units = units_of(dataset, options.model, fingerprint(spec))
    raw, pixels = AutoModel.from_pretrained(spec.folder).eval(), preloaded(dataset, spec.folder)
    with tempfile.TemporaryDirectory() as folder:
        warm = Bench(model, EmbeddingCache(Path(folder), "warm"), BATCH)
        run_units(units, dataset, warm)
        ways: dict[str, Callable[[], None]] = {
            "forward pass on preloaded tensors": lambda: forward(raw, pixels),
            "decoding alone": lambda: decode(dataset),
            "engine, cold": lambda: cold(units, dataset, model),
            "engine, embeddings cached": lambda: run_units(units, dataset, warm),
        }
        times = measure(ways, options.repeats)
    report(times, rows=dataset.card.rows, model=options.model, repeats=options.repeats)


def units_of(dataset: Dataset, model: str, weights: str) -> tuple[Unit, ...]:
    card = dataset.card
    return dataset_units(
        Case("classification", card.scenario, dataset.name, model),
        dataset,
        variant="attack",
        weights=weights,
        rows=card.rows,
        numerics=Numerics("cpu", "float32", BATCH, 1, installed_packages()),
    )


def preloaded(dataset: Dataset, folder: Path) -> list[torch.Tensor]:
    """Every picture, decoded and preprocessed, in batches."""
    processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    samples = read_samples(dataset.folder, dataset.card, start=0, stop=dataset.card.rows)
    images = [decode_image(s.image, where=s.id) for s in samples]
    batches = [images[a : a + BATCH] for a in range(0, len(images), BATCH)]
    return [processor(images=batch, return_tensors="pt")["pixel_values"] for batch in batches]


@torch.inference_mode()
def forward(raw: PreTrainedModel, pixels: list[torch.Tensor]) -> None:
    for batch in pixels:
        raw.get_image_features(pixel_values=batch)


def decode(dataset: Dataset) -> None:
    for sample in read_samples(dataset.folder, dataset.card, start=0, stop=dataset.card.rows):
        decode_image(sample.image, where=sample.id)


def cold(units: Sequence[Unit], dataset: Dataset, model: ZeroShotClassifier) -> None:
    with tempfile.TemporaryDirectory() as folder:
        cache = EmbeddingCache(Path(folder), "cold")
        run_units(units, dataset, Bench(model, cache, BATCH))


def run_units(units: Sequence[Unit], dataset: Dataset, bench: Bench) -> None:
    for unit in units:
        compute(unit, dataset, clean=None, bench=bench)


def measure(ways: dict[str, Callable[[], None]], repeats: int) -> dict[str, float]:
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            began = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - began)
    return {name: statistics.median(found) for name, found in seconds.items()}


def report(times: dict[str, float], *, rows: int, model: str, repeats: int) -> None:
    base = next(iter(times.values()))
    versions = f"torch {torch.__version__}, python {platform.python_version()}"
    print(
        f"{model}, {rows} pictures, {repeats} repeats, 1 thread, {platform.machine()}, {versions}"
    )
    for name, seconds in times.items():
        print(f"{name:36} {rows / seconds:9.0f} images/s   x {base / seconds:.2f}")


if __name__ == "__main__":
    main()

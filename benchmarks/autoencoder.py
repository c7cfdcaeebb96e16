"""Memory and speed of the training of a sparse autoencoder, for more and more pictures.

    python benchmarks/autoencoder.py [--pictures 500 2000 8000] [--model mini-clip] [--tokens all]

For each number of pictures a process of its own passes all of them through the tower, writes their
activations to disk and trains some steps on them, and tells its peak memory (Linux only). Another
one passes the same tensors through the tower alone: what cannot be done without.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from natadv.data.card import CardDraft
from natadv.data.packing import write_dataset
from natadv.rng import rng_for
from natadv.types import Sample

ROOT = Path(__file__).resolve().parents[1]
STEPS, BATCH = 200, 512
SIDE = 96

# What a process says of itself: what its parent is told would count the parent's own memory too.
PEAK_MB = """
def peak_mb():
    for line in open("/proc/self/status"):
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
"""
TRAIN = f"""{PEAK_MB}
import io, json, sys, time
from pathlib import Path
import natadv.training.train_sae as training
from natadv.training.sae_settings import BatchTopKSettings
root, model, tokens, device = sys.argv[1:]
settings = BatchTopKSettings(
    steps={STEPS}, batch={BATCH}, expansion=4.0, threshold_start=10, validate_every=10**6
)
times = {{}}
def timed(name):
    work = getattr(training, name)
    def timed_work(*args, **kwargs):
        began = time.perf_counter()
        result = work(*args, **kwargs)
        times[name] = time.perf_counter() - began
        return result
    setattr(training, name, timed_work)
for name in ("stored_activations", "fit"):
    timed(name)
training.train_sae(training.SaePlan(
    kind="batch-topk", model=model, layer=None, tokens=tokens, data=("benchmark",),
    out=Path(root) / "sae", settings=settings, root=Path(root), device=device, fresh=True,
    stream=io.StringIO(),
))
print(json.dumps({{"peak_mb": peak_mb(), **times}}))
"""
TOWER = """
import json, sys, time
from pathlib import Path
from natadv.data.images import decode_image
from natadv.data.reader import iter_samples
from natadv.evaluate.datasets import dataset_named
from natadv.models.loading import load
from natadv.models.resolve import resolve_one
root, model, _, device = sys.argv[1:]
spec = resolve_one(model, root=Path(root), wanted="to measure")
loaded = load(spec, device=device, dtype="float32", threads=1)
dataset = dataset_named("benchmark", Path(root))
seconds, part = 0.0, []
def embed():
    global seconds
    prepared = loaded.prepare(part)
    began = time.perf_counter()
    loaded.embed_images(prepared)
    seconds += time.perf_counter() - began
    part.clear()
for sample in iter_samples(dataset.folder, dataset.card):
    part.append(decode_image(sample.image, where=sample.id))
    if len(part) == 64:
        embed()
if part:
    embed()
print(json.dumps({"tower_s": seconds}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, nargs="+", default=[500, 2000, 8000], metavar="N")
    parser.add_argument("--model", default="mini-clip")
    parser.add_argument("--tokens", default="all")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    results = {count: measured(count, options) for count in options.pictures}
    report(results, options)


def measured(count: int, options: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        (root / "fixtures" / "datasets").mkdir(parents=True)
        (root / "fixtures" / "models").symlink_to(ROOT / "fixtures" / "models")
        card = CardDraft(
            name="benchmark",
            tasks=("classification",),
            scenario="clean",
            classes=("one", "other"),
            templates=("a photo of {}.",),
            licence="CC0-1.0",
            source="drawn by benchmarks/autoencoder.py",
            description="soft shapes",
        )
        samples = (picture(number) for number in range(count))
        write_dataset(root / "fixtures" / "datasets" / "benchmark", card, samples)
        arguments = (str(root), options.model, options.tokens, options.device)
        return {**told_by(TOWER, arguments), **told_by(TRAIN, arguments)}


def picture(number: int) -> Sample:
    rng = rng_for("autoencoder", number)
    small = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
    out = io.BytesIO()
    small.resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(out, "PNG")
    name = f"benchmark-{number:06d}"
    return Sample(id=name, group=name, image=out.getvalue(), label=number % 2)


def told_by(program: str, arguments: tuple[str, ...]) -> dict[str, Any]:
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def report(results: dict[int, dict[str, Any]], options: argparse.Namespace) -> None:
    least = results[min(results)]
    print(f"{'pictures':>8} {'peak MB':>8} {'ratio':>6} {'tower/s':>8} {'stored/s':>9} {'ratio':>6}"
          f" {'steps/s':>8}")  # fmt: skip
    for count, told in results.items():
        print(
            f"{count:>8} {told['peak_mb']:>8.0f} {told['peak_mb'] / least['peak_mb']:>6.3f} "
            f"{count / told['tower_s']:>8.0f} {count / told['stored_activations']:>9.0f} "
            f"{told['tower_s'] / told['stored_activations']:>6.2f} {STEPS / told['fit']:>8.0f}"
        )
    facts = {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "model": options.model,
        "tokens": options.tokens,
        "device": options.device,
        "results": results,
    }
    print(json.dumps(facts))


if __name__ == "__main__":
    main()

"""Memory and speed of an import, against reading and decoding the same pictures and no more.

    python benchmarks/importing.py [--pictures 1000 10000] [--side 500] [--repeats 3]

The source is a tar with the layout of ImageNet-A, and the same pictures as Parquet files of the
hub; each is imported in a process of its own, which tells its peak memory (Linux only). The other
way is one loop over the tar that decodes every picture with Pillow: what cannot be done without.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from natadv.data.classes import class_table
from natadv.rng import rng_for

DIFFERENT = 64
ROWS_PER_FILE = 2500

PEAK = """
for line in open("/proc/self/status"):
    if line.startswith("VmHWM:"):
        print(line.split()[1])
"""
# What a process says of itself: what its parent is told would count the parent's own memory too.
IMPORT = """
import sys
from pathlib import Path
from natadv.data.importers import FORMATS, ImportRequest, import_dataset
format, path, root = sys.argv[1:]
row = FORMATS[format]
import_dataset(ImportRequest(row, Path(path), row.name), root=Path(root), force=True)
"""
DECODE = """
import io, sys, tarfile
from PIL import Image
with tarfile.open(sys.argv[1], "r:") as tar:
    while (member := tar.next()) is not None:
        tar.members.clear()
        with Image.open(io.BytesIO(tar.extractfile(member).read())) as image:
            image.convert("RGB").load()
"""


class Run(NamedTuple):
    wall_s: float
    peak_mb: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, nargs="+", default=[1000, 10_000], metavar="N")
    parser.add_argument("--side", type=int, default=500, metavar="PX", help="their longer side")
    parser.add_argument("--repeats", type=int, default=3, metavar="N")
    options = parser.parse_args()
    ways = ("reading and decoding", "imagenet-a, tar", "imagenet, Parquet")
    results: dict[int, dict[str, Run]] = {}
    for count in options.pictures:
        with tempfile.TemporaryDirectory() as scratch:
            sources = _write_sources(Path(scratch), count, options.side)
            # In turn, so that whatever else the machine does meets all of them.
            runs = [[_measured(way, sources) for way in ways] for _ in range(options.repeats)]
            results[count] = {
                way: Run(
                    statistics.median(run[i].wall_s for run in runs),
                    max(run[i].peak_mb for run in runs),
                )
                for i, way in enumerate(ways)
            }
    _report(results)


def _write_sources(scratch: Path, count: int, side: int) -> Path:
    pictures = list(_pictures(side))
    wnids = list(class_table("imagenet-a"))
    with tarfile.open(scratch / "a.tar", "w") as tar:
        for i in range(count):
            member = tarfile.TarInfo(f"imagenet-a/{wnids[i % len(wnids)]}/{i:06d}.jpg")
            member.size = len(pictures[i % DIFFERENT])
            tar.addfile(member, io.BytesIO(pictures[i % DIFFERENT]))
    all_wnids, names = zip(*class_table("imagenet").items(), strict=True)
    label = {"names": list(names), "_type": "ClassLabel"}
    features = {"info": {"features": {"image": {"_type": "Image"}, "label": label}}}
    for start in range(0, count, ROWS_PER_FILE):
        rows = [
            {
                "image": {
                    "bytes": pictures[i % DIFFERENT],
                    "path": f"ILSVRC2012_val_{i + 1:08d}_{all_wnids[i % 1000]}.JPEG",
                },
                "label": i % 1000,
            }
            for i in range(start, min(start + ROWS_PER_FILE, count))
        ]
        (scratch / "hub").mkdir(exist_ok=True)
        path = scratch / "hub" / f"validation-{start:06d}.parquet"
        table = pa.Table.from_pylist(rows)
        told = table.replace_schema_metadata({"huggingface": json.dumps(features)})
        pq.write_table(told, path, row_group_size=100)
    return scratch


def _pictures(side: int) -> Iterator[bytes]:
    """With about the bytes per pixel of a photograph: soft shapes and a little noise."""
    for number in range(DIFFERENT):
        generator = rng_for("importing", number)
        small = Image.fromarray(generator.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        soft = np.asarray(small.resize((side, side * 3 // 4), Image.Resampling.BICUBIC), int)
        noisy = soft + generator.normal(0, 12, soft.shape)
        out = io.BytesIO()
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(out, "JPEG", quality=90)
        yield out.getvalue()


def _measured(way: str, sources: Path) -> Run:
    root = sources / "root"
    shutil.rmtree(root, ignore_errors=True)
    if way == "reading and decoding":
        command = [sys.executable, "-c", DECODE + PEAK, str(sources / "a.tar")]
    else:
        format, kind = way.split(", ")
        source = sources / ("a.tar" if kind == "tar" else "hub")
        command = [sys.executable, "-c", IMPORT + PEAK, format, str(source), str(root)]
    began = time.perf_counter()
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return Run(time.perf_counter() - began, int(done.stdout) / 1024)


def _report(results: dict[int, dict[str, Run]]) -> None:
    print(f"{'pictures':>8}  {'way':<22} {'pictures/s':>10} {'ratio':>6} {'peak MB':>8}")
    for count, runs in results.items():
        plain = runs["reading and decoding"].wall_s
        for way, run in runs.items():
            speed, ratio = count / run.wall_s, plain / run.wall_s
            print(f"{count:>8}  {way:<22} {speed:>10.0f} {ratio:>6.2f} {run.peak_mb:>8.0f}")
    facts = {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "results": {
            count: {way: run._asdict() for way, run in runs.items()}
            for count, runs in results.items()
        },
    }
    print(json.dumps(facts))


if __name__ == "__main__":
    main()

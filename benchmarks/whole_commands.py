"""A measurement as a user types it, from start to exit, against CLIP_benchmark in a process of its
own.

    pip install scikit-learn && pip install --no-deps clip-benchmark
    python benchmarks/whole_commands.py [--images 200 1000] [--cores 1 2] [--photos FOLDER]

Both read the same checkpoint and JPEG files, in one repeat after another, pinned to so many cores;
CLIP_benchmark has as many threads as cores, and is measured with several numbers of workers that
load pictures, of which the fastest counts. A command that runs again finds all in its store.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from throughput import CLASSES, TEMPLATE, jpegs, save_dataset, save_model

PEER = Path(__file__).with_name("clip_benchmark_command.py")

SUITE = """
import pytest

pytestmark = pytest.mark.gate(task="classification")


def test_classification(case, gate):
    gate.check(case)
"""


class Cost(NamedTuple):
    """Of a command with all processes that it started."""

    wall_s: float
    user_s: float
    system_s: float
    peak_mb: float
    """Of its largest process."""


Way = Callable[[], Cost]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", default="ViT-B-32", help="architecture of open_clip")
    parser.add_argument("--images", type=int, nargs="+", default=[200, 1000], metavar="N")
    parser.add_argument("--cores", type=int, nargs="+", default=[1, 2], metavar="N")
    parser.add_argument("--photos", type=Path, metavar="FOLDER", help="JPEG files to repeat")
    parser.add_argument("--repeats", type=int, default=3, metavar="N")
    options = parser.parse_args()
    torch.manual_seed(0)
    print(f"{options.shape}, {options.repeats} repeats, {platform.machine()}, ", end="")
    print(f"torch {torch.__version__}, python {platform.python_version()}", flush=True)
    for images in options.images:
        with tempfile.TemporaryDirectory() as folder:
            root = make_project(Path(folder), images, shape=options.shape, photos=options.photos)
            for cores in options.cores:
                ways = own_ways(root, cores) | peer_ways(root, cores, shape=options.shape)
                report(measured(ways, options.repeats), images=images, cores=cores)


def make_project(root: Path, images: int, *, shape: str, photos: Path | None) -> Path:
    """A checkpoint, the pictures as a dataset and as files, and a suite."""
    files = list(jpegs(images, photos))
    save_model(shape, root / "checkpoint")
    (root / "conftest.py").write_text('pytest_plugins = ["natadv.pytest_plugin"]\n')
    (root / "suites").mkdir()
    (root / "suites/test_classification.py").write_text(SUITE)
    save_dataset(files, root / "fixtures/datasets/jpegs")
    labels = {}
    (root / "jpegs").mkdir()
    for number, data in enumerate(files):
        (root / f"jpegs/{number}.jpg").write_bytes(data)
        labels[f"{number}.jpg"] = number % len(CLASSES)
    facts = {"labels": labels, "classes": CLASSES, "template": TEMPLATE}
    (root / "jpegs.json").write_text(json.dumps(facts))
    return root


def own_ways(root: Path, cores: int) -> dict[str, Way]:
    ways: dict[str, Way] = {}
    for workers in sorted({0, cores} if cores > 1 else {0}):
        command = [sys.executable, "-m", "pytest", "suites", "-q", "-p", "no:cacheprovider"]
        command += ["--model", "./checkpoint", "--dataset", "jpegs", "--no-assert"]
        command += ["-n", str(workers)]
        cold = partial(forget_and_run, command, root, cores)
        again = partial(run, command, root, cores)
        ways |= {f"natadv -n {workers}, cold": cold, f"natadv -n {workers}, again": again}
    return ways


def peer_ways(root: Path, cores: int, *, shape: str) -> dict[str, Way]:
    ways: dict[str, Way] = {}
    for workers in range(cores + 1):
        command = [sys.executable, str(PEER), shape, "checkpoint", "jpegs", str(cores)]
        ways[f"CLIP_benchmark, {workers} workers"] = partial(
            run, [*command, str(workers)], root, cores
        )
    return ways


def forget_and_run(command: Sequence[str], root: Path, cores: int) -> Cost:
    shutil.rmtree(root / ".natadv", ignore_errors=True)
    return run(command, root, cores)


def run(command: Sequence[str], root: Path, cores: int) -> Cost:
    """Run a command on the first `cores` cores. Raises SystemExit with its output if it fails."""
    free = sorted(os.sched_getaffinity(0))
    log = root / "log.txt"
    with log.open("w") as out:
        began = time.perf_counter()
        process = subprocess.Popen(
            command,
            cwd=root,
            stdout=out,
            stderr=out,
            preexec_fn=lambda: os.sched_setaffinity(0, free[:cores]),
        )
        _, status, used = os.wait4(process.pid, 0)
        wall = time.perf_counter() - began
    if process.returncode or status:
        raise SystemExit(log.read_text() + f"\nfailed: {' '.join(command)}")
    return Cost(wall, used.ru_utime, used.ru_stime, used.ru_maxrss / 1000)


def measured(ways: Mapping[str, Way], repeats: int) -> dict[str, Cost]:
    """Median of each figure, by way."""
    found: dict[str, list[Cost]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            found[name].append(way())
    return {
        name: Cost(*(statistics.median(figures) for figures in zip(*costs, strict=True)))
        for name, costs in found.items()
    }


def report(costs: Mapping[str, Cost], *, images: int, cores: int) -> None:
    peer = min(c.wall_s for name, c in costs.items() if name.startswith("CLIP_benchmark"))
    print(f"\n{f'{images} JPEGs, cores: {cores}':28} seconds   user  system  peak MB   speed")
    for name, cost in costs.items():
        print(
            f"{name:28} {cost.wall_s:7.1f} {cost.user_s:6.1f} {cost.system_s:7.1f} "
            f"{cost.peak_mb:8.0f} x {peer / cost.wall_s:5.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()

"""Speed and memory of `python -m natadv.gate`, against hashing and decoding the same files alone.

    python benchmarks/judging.py [--rows 10_000_000] [--per-case 50_000] [--repeats 3]

Each model has evidence of 20 cases, as real runs write them: clean pictures, questions and phrases,
attacked twins of them, and other pictures, each with the rules of its kind. Both ways run in a
process of their own, which tells its CPU time and its peak memory (Linux only).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from natadv.columns import Texts
from natadv.data.classes import class_table
from natadv.evidence import Manifest, write_evidence
from natadv.rng import rng_for
from natadv.types import Case, DoubleArray, Outcomes

CLEAN = ("classification/clean/pictures", "vqa/clean/questions", "segmentation/clean/phrases")
OTHERS = tuple(f"classification/natural/natural-{i}" for i in range(3))
ATTACKED = (
    *(f"classification/typographic/pictures-{i}" for i in range(12)),
    *("vqa/typographic/questions-typo", "segmentation/typographic/phrases-typo"),
)
CELLS = (*CLEAN, *OTHERS, *ATTACKED)
TWINS = {"classification": "pictures", "vqa": "questions", "segmentation": "phrases"}
RULES = {
    "classification/clean/*": ("top1, floor: 0.6", "top5, floor: 0.75"),
    "classification/natural/*": ("top1, floor: 0.6",),
    "classification/typographic/*": (
        "top1, floor: 0.6",
        "accuracy_drop, ceiling: 0.2",
        "attack_success_rate, ceiling: 0.4",
    ),
    "vqa/clean/*": ("vqa_accuracy, floor: 0.4", "exact_match, floor: 0.5"),
    "vqa/typographic/*": ("vqa_accuracy, floor: 0.4", "vqa_drop, ceiling: 0.2"),
    "segmentation/clean/*": ("miou, floor: 0.3", "precision_at_50, floor: 0.2"),
    "segmentation/typographic/*": ("miou, floor: 0.3", "iou_drop, ceiling: 0.2"),
}

JUDGE = """
import sys
from natadv.gate.__main__ import main
root = sys.argv[1]
assert main(["--evidence", f"{root}/evidence", "--thresholds", f"{root}/thresholds.yaml"]) == 0
"""
DECODE = """
import hashlib, pathlib, sys
import pyarrow as pa
import pyarrow.parquet as pq
rows = 0
for path in sorted(pathlib.Path(sys.argv[1]).rglob("*.parquet")):
    body = path.read_bytes()
    hashlib.sha256(body).hexdigest()
    rows += pq.read_table(pa.BufferReader(body), use_threads=False).num_rows
print(rows)
"""
# As a process says of itself: what its parent is told would count the parent's own memory too.
PEAK = """
import time
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(time.process_time(), status["VmHWM"].split()[0])
"""


class Run(NamedTuple):
    wall_s: float
    cpu_s: float
    peak_mb: float


def main() -> None:
    """Print seconds, rows per second and peak memory of both ways."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--per-case", type=int, default=50_000)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    models = [f"model-{i}" for i in range(max(1, options.rows // options.per_case // len(CELLS)))]
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        (root / "thresholds.yaml").write_text(contract(models))
        began = time.perf_counter()
        rows = sum(write_model(root / "evidence", m, options.per_case) for m in models)
        written_s = time.perf_counter() - began
        size = sum(path.stat().st_size for path in root.rglob("*.parquet"))
        print(f"{rows:,} rows in {len(models) * len(CELLS)} cases, {size / 1e6:,.0f} MB,", end=" ")
        print(f"written in {written_s:.0f} s ({rows / written_s:,.0f} rows/s)\n", flush=True)
        ways = {"hash and decode": DECODE, "judge": JUDGE}
        # In turn, so that whatever else the machine does meets both of them.
        runs = [
            {way: measured(code, root) for way, code in ways.items()}
            for _ in range(options.repeats)
        ]
    report({way: min(run[way] for run in runs) for way in ways}, rows)


def contract(models: list[str]) -> str:
    """The text of thresholds.yaml."""
    rules = [
        f"  - {{case: {case}/*, metric: {rule}, min_n: 1, source: by design}}"
        for case, rules in RULES.items()
        for rule in rules
    ]
    tier = f"  all:\n    models: {json.dumps(models)}\n    cases: {json.dumps(CELLS)}\n"
    return f"version: 1\ndefault_tier: all\ntiers:\n{tier}rules:\n" + "\n".join(rules) + "\n"


def write_model(root: Path, model: str, n: int) -> int:
    """Write the evidence of all its cases with `n` rows each. Returns the number of rows."""
    for cell in CELLS:
        case = Case(*cell.split("/"), model)
        twin_of = TWINS[case.task] if cell in ATTACKED else None
        facts = ("revision", model, "protocol")
        manifest = Manifest(case, model, n, *facts, twin_of=twin_of)
        write_evidence(root, manifest, {"attack": outcomes(case, n, twins=twin_of is not None)})
    return n * len(CELLS)


def outcomes(case: Case, n: int, *, twins: bool) -> Outcomes:
    """Rows of a model that is right three times of four, and less often under attack."""
    rng = rng_for("judging", case.address)
    names = [name for _, name in class_table("imagenet").items()]
    truth = np.arange(n) % len(names)
    right = rng.random(n) < (0.7 if twins else 0.75)
    decoy = (truth + 1 + rng.integers(len(names) - 1, size=n)) % len(names)
    said = np.where(right, truth, np.where(rng.random(n) < 0.5, decoy, (truth + 7) % len(names)))
    pictures = [f"ILSVRC2012_val_{i:08d}" for i in range(1, n + 1)]
    nothing = (None,) * n
    return Outcomes(
        id=Texts.of([f"{name}@post-it" for name in pictures] if twins else pictures),
        group=Texts.of(pictures),
        part=Texts.of([""] * n),
        twin=Texts.of(pictures if twins else nothing),
        decoy=Texts.of([names[i] for i in decoy] if twins else nothing),
        truth=Texts.of(names[i] for i in truth),
        prediction=Texts.of(names[i] for i in said),
        values=dict(values(case.task, said == truth, (said == decoy) & twins, rng)),
    )


def values(
    task: str, right: np.ndarray, decoyed: np.ndarray, rng: np.random.Generator
) -> Iterator[tuple[str, DoubleArray]]:
    """The numbers of a task, as they agree with each other."""
    n = len(right)
    if task == "segmentation":
        counts = rng.integers(1, 5000, size=(4, n)) * np.where(right, [[3], [1], [1], [1]], 1)
        tp, fp, fn, tn = counts.astype(float)
        yield from {"tp": tp, "fp": fp, "fn": fn, "tn": tn, "iou": tp / (tp + fp + fn)}.items()
        return
    yield "said_decoy", decoyed.astype(float)
    if task == "classification":
        yield "correct", right.astype(float)
        yield "rank", np.where(right, 0, rng.integers(1, 20, size=n)).astype(float)
        score = rng.random(n)
        yield "score", score
        yield "true_score", np.where(right, score, score * rng.random(n))
        yield "margin", rng.normal(size=n)
        return
    people = np.where(right, rng.integers(1, 11, size=n), 0)
    yield "exact", (people > 0).astype(float)
    yield "simple", np.minimum(1, people / 3)
    yield "accuracy", (people * np.minimum(1, (people - 1) / 3) * (people > 0) + (10 - people)
                       * np.minimum(1, people / 3)) / 10  # fmt: skip
    kind = rng.integers(3, size=n)
    yield from ((name, (kind == i).astype(float)) for i, name in enumerate(KINDS))


KINDS = ("yes_no", "number", "other")


def measured(code: str, root: Path) -> Run:
    """A process of its own, from its start to its end."""
    began = time.perf_counter()
    command = [sys.executable, "-c", code + PEAK, str(root)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    *_, cpu_s, peak_kb = done.stdout.split()
    return Run(time.perf_counter() - began, float(cpu_s), int(peak_kb) / 1024)


def report(runs: Mapping[str, Run], rows: int) -> None:
    """A line per way, and the machine."""
    print(f"{'way':<16} {'seconds':>8} {'CPU s':>6} {'rows/s':>12} {'ratio':>6} {'peak MB':>8}")
    limit = runs["hash and decode"].wall_s
    for way, (wall_s, cpu_s, peak_mb) in runs.items():
        speed, ratio = rows / wall_s, wall_s / limit
        took = f"{wall_s:>8.2f} {cpu_s:>6.2f}"
        print(f"{way:<16} {took} {speed:>12,.0f} {ratio:>6.1f} {peak_mb:>8.0f}")
    facts = {"python": platform.python_version(), "machine": platform.machine()}
    print(json.dumps({**facts, "cores": os.cpu_count()}))


if __name__ == "__main__":
    main()

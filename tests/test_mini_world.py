"""The committed mini world, judged by the committed floors, as a user would have it judged."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

ROOT = Path(__file__).resolve().parent.parent


def gate(place: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the repository's own suites, with everything that they write under `place`."""
    written = {
        "--store": "store",
        "--evidence": "evidence",
        "--gate-json": "gate.json",
        "--alluredir": "allure",
    }
    places = [text for option, name in written.items() for text in (option, str(place / name))]
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST")}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "suites", "--device", "cpu", *places, *arguments],
        cwd=ROOT,
        env=inherited,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A copy of mini-siglip."""
    return Path(shutil.copytree(ROOT / "fixtures/models/mini-siglip", tmp_path / "my-siglip"))


def test_a_copy_inherits_the_floors_and_holds_them(checkpoint, tmp_path):
    done = gate(tmp_path, "--model", str(checkpoint), "--scenario", "typographic")

    assert done.returncode == 0, done.stdout
    (case,) = json.loads((tmp_path / "gate.json").read_text())["cases"]
    assert case["lineage"] == "mini-siglip"
    assert case["verdict"] == "PASS"


def test_noise_in_the_weights_is_caught_and_the_cases_are_named(checkpoint, tmp_path):
    weights = load_file(checkpoint / "model.safetensors")
    generator = np.random.default_rng(5)
    noisy = {
        name: (w + generator.normal(0, w.std(), w.shape)).astype(w.dtype) if w.ndim > 1 else w
        for name, w in weights.items()
    }
    save_file(noisy, checkpoint / "model.safetensors", metadata={"format": "pt"})
    done = gate(tmp_path, "--model", str(checkpoint), "--scenario", "clean,natural", "-n", "2")

    assert done.returncode == 1, done.stdout
    assert "classification/clean/mini/my-siglip: top1 0." in done.stdout
    assert "< floor" in done.stdout
    assert json.loads((tmp_path / "gate.json").read_text())["verdict"] == "fail"

"""The committed mini world, judged by the committed floors, as a user would have it judged."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

ROOT = Path(__file__).resolve().parent.parent

CONTROLS = 660
"""Pictures of each of the two controls, which only classification asks about."""


def gate(place: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the repository's own suites, with everything that they write under `place`."""
    written = {
        "--store": "store",
        "--evidence": "evidence",
        "--gate-json": "gate.json",
        "--attacks": "attacks",
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


@pytest.fixture
def noisy(checkpoint: Path) -> Path:
    """The copy, with noise in its weights."""
    weights = load_file(checkpoint / "model.safetensors")
    generator = np.random.default_rng(5)
    disturbed = {
        name: (w + generator.normal(0, w.std(), w.shape)).astype(w.dtype) if w.ndim > 1 else w
        for name, w in weights.items()
    }
    save_file(disturbed, checkpoint / "model.safetensors", metadata={"format": "pt"})
    return checkpoint


def verdicts(place: Path) -> dict[str, str]:
    told = json.loads((place / "gate.json").read_text())
    return {case["case"]: case["verdict"] for case in told["cases"]}


def units_done(store: Path) -> list[dict[str, Any]]:
    """What the unit log says of each unit that was computed."""
    texts = [log.read_text() for log in store.glob("runs/*/events.jsonl")]
    lines = [line for text in texts for line in text.splitlines()]
    return [event for event in map(json.loads, lines) if event["kind"] == "done"]


def test_a_copy_inherits_floors_and_heads_and_holds_them(checkpoint, tmp_path):
    tasks = ("classification", "segmentation", "vqa")
    asked = ("--dataset", "mini-typo", "--task", ",".join(tasks), "--explain", "0")
    done = gate(tmp_path, "--model", str(checkpoint), *asked)

    assert done.returncode == 0, done.stdout
    assert verdicts(tmp_path) == {
        f"{task}/typographic/mini-typo/my-siglip": "PASS" for task in tasks
    }
    cases = json.loads((tmp_path / "gate.json").read_text())["cases"]
    assert {case["lineage"] for case in cases} == {"mini-siglip"}
    done_units = units_done(tmp_path / "store")
    of_heads = [unit for unit in done_units if not unit["unit"].startswith("classification/")]
    # Clean and attacked for each of both heads; their pictures were encoded for classification.
    assert sum(unit["images"] for unit in of_heads) == 4 * 660
    assert sum(unit["encoded"] for unit in of_heads) == 0
    assert sum(unit["encoded"] for unit in done_units) == 2 * 660 + 2 * CONTROLS


def test_noise_in_the_weights_is_caught_and_the_cases_are_named(noisy, tmp_path):
    done = gate(tmp_path, "--model", str(noisy), "--scenario", "clean", "-n", "2", "--explain", "0")

    assert done.returncode == 1, done.stdout
    failed = r"^classification/clean/mini/my-siglip\nFAIL +top1 +0\.\d+ .* >= 0\.\d+ +-0\."
    assert re.search(failed, done.stdout, re.M), done.stdout
    assert json.loads((tmp_path / "gate.json").read_text())["verdict"] != "pass"
    # No head was trained on these weights, and that of others would tell nothing.
    assert verdicts(tmp_path) == {
        "classification/clean/mini/my-siglip": "FAIL",
        "segmentation/clean/mini/my-siglip": "INCOMPLETE",
        "vqa/clean/mini/my-siglip": "INCOMPLETE",
    }
    training = f"natadv train vqa --model {noisy} --data NAME --out {noisy}/heads/vqa"
    assert training in " ".join(done.stdout.split()), done.stdout


def test_an_activation_that_the_weights_were_not_trained_with_is_told(tmp_path):
    copy = Path(shutil.copytree(ROOT / "fixtures/models/mini-clip", tmp_path / "my-clip"))
    config = copy / "config.json"
    config.write_text(config.read_text().replace('"gelu"', '"quick_gelu"'))
    done = gate(tmp_path, "--model", str(copy), "--scenario", "natural")

    assert done.returncode == 1, done.stdout
    assert "computes 'quick_gelu'" in done.stdout
    assert "the weights were trained with 'gelu'" in done.stdout
    assert set(verdicts(tmp_path).values()) == {"INCOMPLETE"}

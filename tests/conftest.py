"""A whole small world on disk: datasets of plain colours, and models that see colours."""

from __future__ import annotations

import functools
import gc
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import settings
from PIL import Image
from safetensors.numpy import save_file

from natadv import places, wrapping
from natadv.data.card import CardDraft
from natadv.data.packing import write_dataset
from natadv.evaluate import code
from natadv.places import package_roots
from natadv.scenarios.typographic.twins import typographic_twin
from natadv.types import Sample

# A loaded machine must not fail a test, and the same examples come every time.
settings.register_profile("steady", deadline=None, derandomize=True, database=None)
settings.load_profile("steady")


def pytest_configure(config: pytest.Config) -> None:
    # Of these tests alone: no warning of any package may decide a gate.
    config.addinivalue_line("filterwarnings", "error")


def pytest_collection_finish(session: pytest.Session) -> None:
    # Thousands of tests and the packages that they import stay to the end. Each time that the
    # collector looked at all of them, as whoever frees the memory of a model makes it, cost 0.3 s.
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def no_packages() -> Iterator[None]:
    """A world of a test is all that there is: nothing comes from the clone, unless a test asks for
    `packages`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(places, "package_roots", tuple)
        yield


@pytest.fixture
def packages(monkeypatch: pytest.MonkeyPatch) -> None:
    """What installed packages hold can be found, as by a user."""
    package_roots.cache_clear()
    monkeypatch.setattr(places, "package_roots", package_roots)


@pytest.fixture(scope="session", autouse=True)
def parsed_once() -> Iterator[None]:
    """The sources of the package are parsed once: no test edits them."""
    code_of, natadv = code.code_of, code.PACKAGE
    known = functools.cache(functools.partial(code_of, natadv))

    def once(package: Path, part: code.CodeSubset) -> code.Code:
        return known(part) if package == natadv else code_of(package, part)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(code, "code_of", once)
        yield


CLASSES = ("cat", "dog", "cow")
ROWS = 600
SIDE = 16
STORE = ".natadv/store"

# What a worker's model is in these tests: colours for classes, and faults on demand.
FAKE_CONFTEST = '''
import json, os, sys, time, warnings
from pathlib import Path
import numpy as np

pytest_plugins = ["natadv.pytest_plugin"]

from natadv.models import loading

COLOURS = {"cat": 0, "dog": 1, "cow": 2}


class Scoring:
    scale, bias, activation = 10.0, 0.0, "softmax"


class Eyes:
    scoring = Scoring()

    def __init__(self, spec):
        self.spec = spec
        self.blind = float((spec.folder / "blind").read_text())

    def prepare(self, images):
        return images

    def embed_images(self, images):
        log(kind="encode", images=len(images), model=self.spec.name)
        if len(images) > int(os.environ.get("FAKE_MEMORY", "9999")):
            raise MemoryError("planted")
        rows = np.array([np.asarray(i, np.float32).mean(axis=(0, 1)) for i in images])
        rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        return np.roll(rows, 1, axis=1) if self.blind else rows

    def embed_texts(self, texts):
        found = [next(n for w, n in COLOURS.items() if w in text) for text in texts]
        return np.eye(3, dtype=np.float32)[found]


def log(**facts):
    if "FAKE_LOG" in os.environ:
        gpu = os.environ.get("CUDA_VISIBLE_DEVICES")
        worker = os.environ.get("PYTEST_XDIST_WORKER", "main")
        with open(os.environ["FAKE_LOG"], "a") as file:
            file.write(json.dumps({"gpu": gpu, "worker": worker, **facts}) + "\\n")


def once(name):
    """True the first time, over all processes."""
    try:
        os.close(os.open(os.environ[name], os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


def swap(folder):
    """What a trainer does that goes on writing to the checkpoint."""
    (folder / "model.safetensors").write_bytes((folder / "better.safetensors").read_bytes())
    (folder / "blind").write_text("0.0")


def warn():
    """What packages do that are not quite up to date."""
    warnings.warn("this will change", FutureWarning)
    open(__file__)  # and never closed


def lose(gpu):
    """The context of this GPU is lost; the others are slow enough to see it in quarantine."""
    if os.environ["CUDA_VISIBLE_DEVICES"] == gpu:
        raise RuntimeError("CUDA error: an illegal memory access was encountered (planted)")
    deadline = time.monotonic() + 60
    seen = Path(".natadv/store/runs").glob
    while not list(seen("*/quarantine/" + gpu)) and time.monotonic() < deadline:
        time.sleep(0.02)


def load(spec, *, device, dtype, threads):
    log(kind="load", model=spec.name)
    if spec.name == os.environ.get("FAKE_POISON"):
        os._exit(139)
    if "FAKE_CRASH_ONCE" in os.environ and once("FAKE_CRASH_ONCE"):
        os._exit(139)
    if "FAKE_STOP" in os.environ and once("FAKE_STOP"):
        time.sleep(60)
    if "FAKE_BAD_GPU" in os.environ:
        lose(os.environ["FAKE_BAD_GPU"])
    if spec.name == os.environ.get("FAKE_HANG"):
        time.sleep(60)
    if "FAKE_SWAP" in os.environ:
        swap(spec.folder)
    if "FAKE_WARNING" in os.environ:
        warn()
    if spec.name == os.environ.get("FAKE_ERROR"):
        raise RuntimeError("CUDA out of memory (planted)")
    return Eyes(spec)


loading.load = load

from natadv.evaluate import devices, model_runner
from natadv.plugin import session

if "FAKE_BAD_GPU" in os.environ:
    # There is none to check; in time, as the plugin is imported after this file.
    devices.check_gpus = lambda device, gpus_per_model: None

# There is no torch in these models, whose memory it would release; importing it takes a second.
model_runner.free_memory = lambda: None

unique_units = session.unique_units


def swapping(plans):
    """The keys of the units stand; nothing is loaded yet."""
    units = unique_units(plans)
    if "FAKE_EARLY" in os.environ:
        swap(Path(os.environ["FAKE_EARLY"]))
    return units


session.unique_units = swapping
'''

THRESHOLDS = """\
version: 1
default_tier: mini
tiers:
  mini:
    models: [mini-clip, mini-siglip]
    cases: [classification/clean/plain, classification/typographic/plain-typo]
rules:
  - {case: classification/clean/plain/*, metric: top1, floor: 0.9, min_n: 500, source: by design}
  - {case: classification/typographic/plain-typo/*, metric: top1, floor: 0.2, source: by design}
"""

SUITE = """\
import pytest

pytestmark = pytest.mark.gate(task="classification")


def test_classification(case, gate):
    gate.check(case)
"""


# Runs of pytest that end before they begin: most of their time goes into starting a process.
IN_ONE_PROCESS = """\
import contextlib, io, json, sys
from pathlib import Path
import pytest

verdict, told = Path("gate.json"), []
for arguments in json.loads(sys.argv[1]):
    verdict.write_text('{"verdict": "pass", "tier": "mini", "cases": []}')
    with contextlib.redirect_stdout(io.StringIO()) as out:
        with contextlib.redirect_stderr(io.StringIO()) as err:
            code = pytest.main(arguments)
    told.append([int(code), out.getvalue(), err.getvalue(), verdict.exists()])
print(json.dumps(told))
"""


class Ended(NamedTuple):
    """A run among others in one process."""

    returncode: int
    stdout: str
    stderr: str
    verdict_stays: bool
    """Whether a verdict of an earlier run in `gate.json` has outlived this run."""


@dataclass(frozen=True)
class World:
    """A repository that gates can be run in."""

    root: Path

    def pytest(
        self, *arguments: str, env: dict[str, str] | None = None, cwd: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run `pytest suites/ ...` in a process of its own."""
        return subprocess.run(
            self.command(*arguments),
            cwd=cwd or self.root,
            env=self.environment(env),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def refused(self, *runs: Sequence[str]) -> list[Ended]:
        """Run each of these in one process; they are expected to compute nothing."""
        commands = [self.command(*arguments)[3:] for arguments in runs]
        done = subprocess.run(
            [sys.executable, "-c", IN_ONE_PROCESS, json.dumps(commands)],
            cwd=self.root,
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        return [Ended(*told) for told in json.loads(done.stdout)]

    def command(self, *arguments: str) -> list[str]:
        # Without the plugins that these tests do not need, a process starts in half the time.
        plugins = ("hypothesispytest", "anyio", "cacheprovider", "hydra_pytest", "jaxtyping")
        off = [text for plugin in plugins for text in ("-p", f"no:{plugin}")]
        suites = str(self.root / "suites")
        return [sys.executable, "-m", "pytest", suites, "--device", "cpu", *off, *arguments]

    def environment(self, env: dict[str, str] | None = None) -> dict[str, str]:
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST", "FAKE"))}
        return {**inherited, "FAKE_LOG": str(self.log), **(env or {})}

    @property
    def log(self) -> Path:
        return self.root / "fake.log"

    def logged(self, kind: str) -> list[dict[str, Any]]:
        if not self.log.exists():
            return []
        events = [json.loads(line) for line in self.log.read_text().splitlines()]
        return [event for event in events if event["kind"] == kind]

    def verdict(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.root / "gate.json").read_text())
        return found

    def outcome_bytes(self) -> dict[str, bytes]:
        folder = self.root / ".natadv" / "evidence"
        files = sorted(folder.rglob("*.parquet"))
        return {str(path.relative_to(folder)): path.read_bytes() for path in files}

    def allure(self) -> list[dict[str, Any]]:
        found = sorted((self.root / "allure-results").glob("*-result.json"))
        return [json.loads(path.read_text()) for path in found]

    def model(self, name: str, *, blind: bool) -> Path:
        """Another checkpoint of mini-clip's architecture."""
        folder = self.root / "checkpoints" / name
        shutil.copytree(self.root / "fixtures/models/mini-clip", folder)
        (folder / "blind").write_text(str(float(blind)))
        save_file({"weight": np.full(4, 1 + float(blind))}, folder / "model.safetensors")
        return folder


@pytest.fixture(scope="session")
def pristine_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("world")
    (root / "suites").mkdir()
    (root / "suites" / "test_classification.py").write_text(SUITE)
    (root / "conftest.py").write_text(FAKE_CONFTEST)
    (root / "thresholds.yaml").write_text(THRESHOLDS)
    (root / "pytest.ini").write_text("[pytest]\naddopts = --import-mode=importlib\n")
    for kind in ("clip", "siglip"):
        _write_checkpoint(root / "fixtures" / "models" / f"mini-{kind}", kind)
    _write_plain(root / "fixtures" / "datasets")
    # The store of each copy has the hashes of the code, which take a second to compute.
    code.numerics_here(root / STORE, device="cpu", dtype="auto", batch_size=1, threads=1)
    return root


@pytest.fixture
def world(pristine_world: Path, tmp_path: Path) -> World:
    root = tmp_path / "world"
    shutil.copytree(pristine_world, root)
    return World(root)


@pytest.fixture(scope="session")
def world_at() -> type[World]:
    """Makes a world of a folder."""
    return World


@pytest.fixture(scope="session")
def measured_once(pristine_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = shutil.copytree(pristine_world, tmp_path_factory.mktemp("measured") / "world")
    done = World(root).pytest("-n", "0")
    assert done.returncode == 0, done.stdout
    return root


@pytest.fixture
def measured(measured_once: Path, tmp_path: Path) -> World:
    """A world whose gate has run once and passed."""
    return World(shutil.copytree(measured_once, tmp_path / "world"))


def plain_samples(rows: int = ROWS) -> list[Sample]:
    """Pictures whose colour is their class, each a little different."""
    generator = np.random.default_rng(3)
    samples = []
    for i in range(rows):
        label = i % len(CLASSES)
        pixels = generator.integers(0, 40, (SIDE, SIDE, 3), dtype=np.uint8)
        pixels[..., label] += 200
        out = io.BytesIO()
        Image.fromarray(pixels).save(out, "PNG")
        part = "seen" if i % 2 else "held-out"
        name = f"plain-{i:04d}"
        samples.append(Sample(id=name, group=name, image=out.getvalue(), label=label, part=part))
    return samples


def _write_checkpoint(folder: Path, kind: str) -> None:
    """Files that are whole; what they make is the fake model."""
    folder.mkdir(parents=True)
    tower = {"hidden_size": 8, "num_hidden_layers": 1, "patch_size": 4, "image_size": SIDE}
    texts = {
        "config.json": {"model_type": kind, "vision_config": tower, "text_config": {}},
        "preprocessor_config.json": {
            "image_mean": [0.5] * 3,
            "image_std": [0.5] * 3,
            "resample": 3,
            "size": {"height": SIDE, "width": SIDE},
        },
        "tokenizer.json": {},
        "tokenizer_config.json": {},
    }
    for name, content in texts.items():
        (folder / name).write_text(json.dumps(content))
    save_file({"weight": np.full(4, len(kind), np.float32)}, folder / "model.safetensors")
    (folder / "blind").write_text("0.0")


def _write_plain(folder: Path) -> None:
    samples = plain_samples()
    shared: dict[str, Any] = {
        "tasks": ("classification",),
        "classes": CLASSES,
        "templates": ("a photo of a {}.",),
        "licence": "CC0-1.0",
        "source": "made by the tests",
        "description": "plain colours",
    }
    write_dataset(folder / "plain", CardDraft(name="plain", scenario="clean", **shared), samples)
    twins = [
        typographic_twin(
            sample,
            Image.open(io.BytesIO(sample.image)).convert("RGB"),
            CLASSES,
            recipe="defense-prefix",
            seed=1,
        )
        for sample in samples
    ]
    card = CardDraft(name="plain-typo", scenario="typographic", twin_of="plain", **shared)
    write_dataset(folder / "plain-typo", card, twins)


@pytest.fixture
def one_line_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines are not broken, however wide: for tests of what is said, and not of its layout."""
    monkeypatch.setattr(wrapping, "WIDTH", 10_000)

"""Runs natadv on the models and datasets of the paper, only by commands that a user types.

    python -m tests.rehearsal.rehearse [--quick] [--keep DIR]

The models are tiny ones of the real architectures, which a hub on this machine serves; the datasets
are tiny ones in the published layouts. Everything happens in a copy of the repository. The first
command that fails ends the rehearsal with its output.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from safetensors.numpy import load, save

from natadv.models.zoo import PAPER, ZOO, rows_named
from tests.models.hub.conftest import ACCEPTED, LOGIN, OFFLINE, Hub
from tests.rehearsal.archives import ROOT, write_archives
from tests.rehearsal.hub import TOOLS, paper_hub

LAST_LINES = 4
AT_ONCE = 2
"""How many commands of a step run at once, if they do not need each other."""

SETTINGS = """
rehearsal-segmentation:
  seed: 1
  steps: 80
  batch: 16
  rate: 0.005
  reduce_width: 16
  feed_forward: 32
  threshold: 0.5
  held_back: 0.1
  validate_every: 80

rehearsal-vqa:
  seed: 1
  epochs: 60
  batch: 16
  warm_up: 1
  rate: 0.005
  decay_after: [50]
  dropout: 0.0
  more_than: 0
  embedding: 32
  hidden: 32
  heads: 2
  feed_forward: 32
  blocks: 1
  summary: 32
  fused: 32
  held_back: 0.1
  validate_every: 120

rehearsal-langadv:
  seed: 1
  population: 6
  generations: 1
  pictures: 4
  elite: 0.2
  crossover: 0.5
  mutation: 0.1
  pruned: 0
  weight: 0.5
  accept: 0.4
  prompts: 6
  random: 2
"""
"""Sections that a user would add to params.yaml: the least that trains and finds anything."""

GENERATOR = '''"""The renderer of the mini world, which here knows labels only, as others do."""

from dataclasses import replace

from mini_world.generator import mini


def drawings():
    return replace(mini(), asked=None)
'''
"""The file that a user writes for `--generator drawings:drawings`."""

DAMAGED = "clip-vit-l14"

HEADS = {
    "segmentation": ("clip", "clip-rn", "robust-clip", "siglip2", "blip2"),
    "vqa": ("clip", "clip-rn", "robust-clip"),
}
"""The families that need a head for a task."""


@dataclass(frozen=True, slots=True)
class Scope:
    """What is rehearsed; DAMAGED is one of the models."""

    tier: str
    models: tuple[str, ...]
    asked: str
    """The models as a user names them."""
    cases: int
    """How many cases the tier has for these models."""
    generated: bool
    """Whether to make the datasets that need models too: LangAdv, masks, questions."""
    extent: str = ""
    """How the last line of a run names the models; empty for all of the tier."""
    workers: int = 2

    @property
    def gate(self) -> str:
        """The command of the gate."""
        return f"pytest suites/ -n {self.workers} --model {self.asked} --tier {self.tier}"


WHOLE = Scope("paper", tuple(r.name for r in rows_named(PAPER)), PAPER, 214, generated=True)
_FEW = (DAMAGED, "siglip2-b16-224", "paligemma2-3b-pt-224")
QUICK = Scope(
    "release",
    _FEW,
    ",".join(_FEW),
    16,
    generated=False,
    extent=f" for {', '.join(_FEW)}",
    workers=0,
)
"""A model that needs heads, one that needs a single one, and one that answers by itself: in half a
minute."""

TYPO = {
    "imagenet-typo": ("imagenet", "imagenet-100-typo", 8),
    "phrasecut-typo": ("phrasecut", "defense-prefix", 9),
    "vqa-v2-typo": ("vqa-v2", "defense-prefix", 10),
}
"""Name -> source, recipe and seed, as in params.yaml."""


@dataclass(frozen=True, slots=True)
class Step:
    """Commands that may run side by side."""

    name: str
    commands: tuple[str, ...]
    """As a user types them in the root of the repository."""
    environment: Mapping[str, str] = field(default_factory=dict)
    code: int = 0
    """The expected exit code."""
    says: tuple[str, ...] = ()
    """What the output has to contain."""
    fails_only: str = ""
    """How the name of each failed test has to end."""


class RehearsalError(Exception):
    """A command that did not do what it should."""


@dataclass(slots=True)
class Rehearsal:
    """A copy of the repository, and what was run in it."""

    root: Path
    environment: dict[str, str]
    seconds: dict[str, tuple[int, float]] = field(default_factory=dict)
    """By step: the number of its commands and how long they took together."""

    def run(self, steps: Sequence[Step]) -> None:
        """Run the steps one after the other. Raises RehearsalError at the first failure."""
        for step in steps:
            began = time.monotonic()
            with ThreadPoolExecutor(AT_ONCE) as pool:
                for done in pool.map(partial(self._done, step), step.commands):
                    print(done, flush=True)
            self.seconds[step.name] = (len(step.commands), time.monotonic() - began)

    def _done(self, step: Step, command: str) -> str:
        """Run one command, and return what is to be shown of it."""
        began = time.monotonic()
        ended = subprocess.run(
            ["bash", "-c", command],
            cwd=self.root,
            env={**self.environment, **step.environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=600,
            check=False,
        )
        output = ended.stdout.replace("\r", "\n")
        # Long lines are broken between words, and those of commands end in a backslash.
        told = " ".join(output.replace(" \\\n", " ").split())
        missing = [text for text in step.says if " ".join(text.split()) not in told]
        # Cases whose first row fails, and tests that pytest itself names.
        failed = re.findall(r"^(\w+(?:/\S+){3})\nFAIL |^FAILED (\S+)", output, re.M)
        others = [name for name in map("".join, failed) if not name.endswith(step.fails_only)]
        if ended.returncode != step.code or missing or others:
            raise RehearsalError(
                f"$ {command}\n{output}\nexit code {ended.returncode}, expected {step.code}"
                + "".join(f"; it does not say {text!r}" for text in missing)
                + "".join(f"; unexpected: {line}" for line in others)
            )
        last = [line for line in output.splitlines() if line.strip()][-LAST_LINES:]
        shown = "\n".join(f"    {line[:160]}" for line in last)
        return f"$ {command}    ({time.monotonic() - began:.1f} s)\n{shown}"

    def table(self) -> str:
        """Seconds by step."""
        rows = [f"{name:<28} {n:>4} {s:>7.1f}" for name, (n, s) in self.seconds.items()]
        total = sum(s for _, s in self.seconds.values())
        commands = sum(n for n, _ in self.seconds.values())
        head = f"{'step':<28} {'runs':>4} {'s':>7}"
        return "\n".join([head, *rows, f"{'all':<28} {commands:>4} {total:>7.1f}"])


def preparing(archives: Path, scope: Scope) -> list[Step]:
    """All steps before the gate."""
    a = archives
    imports = (
        # 80 prompts for each of 1000 classes would take 14 models minutes on a CPU.
        f"imagenet {a}/imagenet/tiny_img_val.tar --labels {a}/imagenet/tiny_devkit_t12.tar.gz "
        "--templates single",
        f"imagenet-a {a}/imagenet-a/tiny-imagenet-a.tar --templates single",
        f"rta-100 {a}/rta-100/tiny-rta100.zip",
        f"phrasecut {a}/VGPhraseCut_v0/refer_test.json --images {a}/VGPhraseCut_v0/images",
        f"vqa-v2 {a}/vqa-v2/tiny_Questions_Val_mscoco.zip "
        f"--annotations {a}/vqa-v2/tiny_Annotations_Val_mscoco.zip "
        f"--images {a}/vqa-v2/tiny_val2014.zip",
        f"scam-clean {a}/scam",
        f"scam {a}/scam",
    )
    twins = (
        f"natadv typo {source} --name {name} --recipe {recipe} --decoy random --severity 3 "
        f"--seed {seed}"
        for name, (source, recipe, seed) in TYPO.items()
    )
    fetched, n = scope.asked.replace(",", " "), len(scope.models)
    return [
        Step("fetch models", (f"natadv models fetch {fetched}",), says=(f"{n} of {n} here",)),
        Step("import", tuple(f"natadv data import {arguments}" for arguments in imports)),
        Step("typographic twins", tuple(twins)),
        *(generating() if scope.generated else ()),
        Step("heads", tuple(_head_commands(scope))),
    ]


def generating() -> list[Step]:
    """The steps in which models make pictures, masks and questions."""
    searched = ("imagenet-a", "langadv")
    return [
        Step("fetch tools", (f"natadv models fetch {' '.join(TOOLS)}",), says=("2 of 2 here",)),
        Step(
            "langadv search",
            (
                "natadv langadv search --generator drawings:drawings "
                "--settings rehearsal-langadv --target clip-rn50 --consistency siglip2-l16-512 "
                "--classes butterfly,dog,elephant,spider --processes 2 --out found",
            ),
        ),
        Step("langadv pack", ("natadv langadv pack found --name langadv --per-class 12",)),
        Step(
            "masks",
            tuple(
                f"natadv annotate masks {name} --name {name}-masks --box-threshold 0.01 --threads 1"
                for name in searched
            ),
        ),
        Step(
            "questions",
            tuple(f"natadv annotate questions {name} --name {name}-questions" for name in searched),
        ),
    ]


def _head_commands(scope: Scope) -> Iterator[str]:
    data = {"segmentation": "phrasecut", "vqa": "vqa-v2"}
    for task, families in HEADS.items():
        for row in (ZOO[name] for name in scope.models):
            if row.family in families:
                yield (
                    f"natadv train {task} --model {row.name} --data {data[task]} "
                    f"--settings rehearsal-{task} --out fixtures/heads/{row.name}/{task} "
                    "--threads 1"
                )


def judging(scope: Scope) -> list[Step]:
    """Gate the whole grid: measured without rules, then judged by rules that follow from
    that, when nothing is computed again."""
    calibrate = "natadv calibrate --date 2026-01-01 --out thresholds/measured.yaml"
    counts = f"{len(scope.models)} models, {scope.cases} cases"
    extent = f"{scope.cases} cases of tier {scope.tier}{scope.extent}"
    return [
        Step(
            "plan",
            (f"natadv plan --model {scope.asked} --tier {scope.tier}",),
            says=(counts,),
        ),
        Step("measure", (f"{scope.gate} --no-assert",), says=(f"MEASURED: {scope.cases} cases",)),
        Step("calibrate", (calibrate,)),
        Step("judge", (scope.gate,), says=(f"PASS: {extent}, 0 units computed",)),
    ]


def judging_damaged(scope: Scope) -> list[Step]:
    """Gate again after new weights of DAMAGED were published: broken cases are named."""
    cases = tuple(
        f"classification/{dataset}/{DAMAGED} FAIL "
        for dataset in ("clean/imagenet", "natural/imagenet-a")
    )
    return [
        Step("update", (f"natadv models fetch {DAMAGED} --update",), says=("moved from",)),
        Step(
            "judge the update",
            (f"{scope.gate} --task classification --dataset imagenet,imagenet-a",),
            code=1,
            says=cases,
            fails_only=f"/{DAMAGED}",
        ),
    ]


def rehearse(scope: Scope, *, keep: Path | None = None) -> str:
    """Run all of it, and return the table of steps. Raises RehearsalError at the first failure."""
    began = time.monotonic()
    with rehearsal(scope, keep) as (rehearsed, archives, hub):
        rehearsed.seconds["copy, archives, hub"] = (0, time.monotonic() - began)
        rehearsed.run([*preparing(archives, scope), *judging(scope)])
        damage(hub)
        rehearsed.run(judging_damaged(scope))
        return rehearsed.table()


def damage(hub: Hub) -> None:
    """Publish weights of DAMAGED whose texts mean the opposite."""
    repository = hub.repositories[ZOO[DAMAGED].hub]
    files = dict(repository.commits[repository.main])
    weights = load(files["model.safetensors"])
    weights["text_projection.weight"] *= -1
    hub.publish(ZOO[DAMAGED].hub, {**files, "model.safetensors": save(weights)})


@contextmanager
def rehearsal(scope: Scope, keep: Path | None) -> Iterator[tuple[Rehearsal, Path, Hub]]:
    """A copy of the repository beside the archives, and a hub; removed afterwards unless kept."""
    with tempfile.TemporaryDirectory() as temporary:
        top = keep or Path(temporary)
        top.mkdir(parents=True, exist_ok=True)
        root, archives = top / "natadv", top / "archives"
        copy_repository(root)
        write_archives(archives)
        with paper_hub(scope.models) as hub:
            environment = _environment(root, home=top / "home", endpoint=hub.url)
            yield Rehearsal(root, environment), archives, hub


def copy_repository(root: Path) -> None:
    """The files that git tracks or would track, with the settings and the generator of a user."""
    command = ["git", "-C", str(ROOT), "ls-files", "-z"]
    command += ["--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, root / name)
    with (root / "params.yaml").open("a", encoding="utf-8") as params:
        params.write(SETTINGS)
    (root / "drawings.py").write_text(GENERATOR, encoding="utf-8")


def _environment(root: Path, *, home: Path, endpoint: str) -> dict[str, str]:
    """The environment of a user who has accepted the licences and has nothing in a cache."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTEST", "HF_")) and name not in (*OFFLINE, *LOGIN)
    }
    return {
        **kept,
        # The commands of this interpreter's environment, with the code of the copy.
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(root),
        "HF_HOME": str(home),
        "HF_ENDPOINT": endpoint,
        "HF_TOKEN": ACCEPTED,
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }


def main() -> int:
    """Rehearse, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keep", type=Path, metavar="DIR", help="a new folder, which stays")
    parser.add_argument("--quick", action="store_true", help="a model of each kind only")
    options = parser.parse_args()
    keep = options.keep.absolute() if options.keep else None
    if keep is not None and keep.exists():
        parser.error(f"--keep {keep} exists; name a new folder")
    try:
        print(rehearse(QUICK if options.quick else WHOLE, keep=keep))
    except RehearsalError as error:
        print(error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

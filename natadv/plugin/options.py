"""The gate's command-line options, and what they mean."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from natadv.engine.grid import Request

NAMES = ("model", "task", "scenario", "dataset")
"""Options that may be repeated, or hold several names with commas."""


def add_options(parser: pytest.Parser) -> None:
    group = parser.getgroup("natadv", "robustness gate")
    texts = {
        "model": "model to judge: a name or family (natadv models), a glob, a hub id, a checkpoint "
        "folder, or module:factory (default: the tier's models)",
        "task": "only this task",
        "scenario": "only this scenario",
        "dataset": "only this dataset; one that the tier does not hold is added",
    }
    for name in NAMES:
        group.addoption(
            f"--{name}",
            action="append",
            default=[],
            metavar="NAME",
            dest=f"natadv_{name}",
            help=f"{texts[name]}; repeat, or separate with commas",
        )
    _add_what(group)
    _add_how(group)
    _add_where(group)


def _add_what(group: pytest.OptionGroup) -> None:
    add = group.addoption
    add("--tier", dest="natadv_tier", metavar="NAME", help="list of cases that must run")
    add("--limit", dest="natadv_limit", type=_positive, metavar="N", help="first N samples only")
    add(
        "--no-assert",
        dest="natadv_no_assert",
        action="store_true",
        help="measure only: no rule is held, but what was asked for must be measured",
    )


def _add_how(group: pytest.OptionGroup) -> None:
    add = group.addoption
    add(
        "--device",
        dest="natadv_device",
        default="auto",
        choices=("auto", "cpu", "cuda"),
        help="where models run (auto: on GPUs if there are any, one per worker in turn)",
    )
    add(
        "--dtype",
        dest="natadv_dtype",
        default="auto",
        choices=("auto", "float32", "bfloat16", "float16"),
        help="arithmetic of the models (auto: float32 on the CPU, on a GPU what the zoo says)",
    )
    add(
        "--batch-size",
        dest="natadv_batch_size",
        type=_positive,
        default=64,
        metavar="N",
        help="pictures per forward pass (64); part of what is measured, as it can move last bits",
    )
    add(
        "--threads",
        dest="natadv_threads",
        type=_positive,
        default=1,
        metavar="N",
        help="CPU threads of one kernel (default 1; part of what is measured, so that more "
        "workers give the same bytes)",
    )
    add(
        "--gpu-slots",
        dest="natadv_gpu_slots",
        type=_positive,
        default=1,
        metavar="N",
        help="models that may be loaded on one GPU at a time (1), however many workers there are",
    )
    add(
        "--unit-timeout",
        dest="natadv_unit_timeout",
        type=float,
        default=1800.0,
        metavar="SECONDS",
        help="256 pictures that take longer take their worker down (xdist only; 0: never)",
    )


def _add_where(group: pytest.OptionGroup) -> None:
    add = group.addoption
    add(
        "--store",
        dest="natadv_store",
        metavar="DIR",
        help="results that are never computed twice (.natadv/store)",
    )
    add(
        "--thresholds",
        dest="natadv_thresholds",
        metavar="FILE",
        help="tiers and rules (thresholds.yaml)",
    )
    add(
        "--baseline",
        dest="natadv_baseline",
        metavar="DIR",
        default="none",
        help="evidence of an earlier run to compare with, sample by sample, or none",
    )
    add(
        "--evidence",
        dest="natadv_evidence",
        metavar="DIR",
        help="where each case's outcome rows are written (.natadv/evidence)",
    )
    add(
        "--attacks",
        dest="natadv_attacks",
        metavar="DIR",
        help="where the small attacks that were found are written (.natadv/attacks)",
    )
    add(
        "--gate-json",
        dest="natadv_gate_json",
        metavar="FILE",
        help="where the verdict is written for machines (gate.json)",
    )


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected a number >= 1, got {text}")
    return number


def request(config: pytest.Config) -> Request:
    """What the user asked to be measured."""
    names = {name: _split(config.getoption(f"natadv_{name}")) for name in NAMES}
    return Request(
        root=config.rootpath,
        base=config.invocation_params.dir,
        models=names["model"],
        tasks=names["task"],
        scenarios=names["scenario"],
        datasets=names["dataset"],
        tier=config.getoption("natadv_tier"),
        limit=config.getoption("natadv_limit"),
    )


def _split(values: list[str]) -> tuple[str, ...]:
    parts = (part.strip() for value in values for part in value.split(","))
    return tuple(dict.fromkeys(part for part in parts if part))


def path_option(config: pytest.Config, name: str, default: str) -> Path:
    """A path that the user gave, from where pytest was called, or the default under the root."""
    given = config.getoption(f"natadv_{name}")
    return config.invocation_params.dir / given if given else config.rootpath / default


def is_narrowed(config: pytest.Config) -> bool:
    """True if the user asked for less than all suites, so that absent cases are no surprise."""
    option = config.option
    whole = {(config.invocation_params.dir / str(arg)).resolve() for arg in config.args}
    chosen = [option.keyword, option.markexpr, option.deselect, getattr(option, "lf", False)]
    return any(chosen) or config.rootpath / "suites" not in whole


def settle_allure(config: pytest.Config) -> Path | None:
    """The folder of the Allure results, set in every process before allure-pytest reads it; None
    if that plugin is off."""
    option = config.option
    if not hasattr(option, "allure_report_dir"):
        return None
    given = option.allure_report_dir
    folder = config.invocation_params.dir / given if given else config.rootpath / "allure-results"
    option.allure_report_dir = str(folder)
    # The controller empties it: with this flag a replaced worker would wipe what others wrote.
    option.clean_alluredir = False
    return folder


def writes_allure(config: pytest.Config) -> bool:
    """True if anyone will see what a test attaches; known once `settle_allure` was called."""
    return config.getoption("allure_report_dir", None) is not None


def gates_are_asked_for(config: pytest.Config) -> bool:
    """True if an argument lies in `suites/`: other test runs must not notice this plugin."""
    suites = config.rootpath / "suites"
    here = config.invocation_params.dir
    paths = [(here / str(arg).split("::", 1)[0]).resolve() for arg in config.args]
    return any(path == suites or suites in path.parents for path in paths)

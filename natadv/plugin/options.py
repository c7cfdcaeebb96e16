"""The gate's command-line options, and what they mean."""

from __future__ import annotations

import argparse
import os
import shlex
from collections.abc import Iterable
from pathlib import Path

import pytest

from natadv import arguments
from natadv.evaluate.grid import Request

GATE_JSON = "gate.json"
EVIDENCE = ".natadv/evidence"
THRESHOLDS = "thresholds.yaml"

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
            type=arguments.names,
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
    add(
        "--tier",
        dest="natadv_tier",
        type=arguments.text,
        metavar="NAME",
        help="list of cases that must run",
    )
    add(
        "--limit",
        dest="natadv_limit",
        type=arguments.count,
        metavar="N",
        help="first N samples only",
    )
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
        type=arguments.count,
        default=64,
        metavar="N",
        help="pictures per forward pass (64); part of what is measured, as it can move last bits",
    )
    add(
        "--threads",
        dest="natadv_threads",
        type=arguments.count,
        default=1,
        metavar="N",
        help="CPU threads of one kernel (default 1; part of what is measured, so that more "
        "workers give the same bytes)",
    )
    add(
        "--gpu-slots",
        dest="natadv_gpu_slots",
        type=arguments.count,
        default=1,
        metavar="N",
        help="models that may be loaded on one GPU at a time (1), however many workers there are",
    )
    add(
        "--unit-timeout",
        dest="natadv_unit_timeout",
        type=arguments.seconds,
        default=1800.0,
        metavar="SECONDS",
        help="256 pictures that take longer take their worker down (xdist only; 0: never)",
    )


def _add_where(group: pytest.OptionGroup) -> None:
    add = group.addoption
    add(
        "--store",
        dest="natadv_store",
        type=arguments.text,
        metavar="DIR",
        help="results that are never computed twice (.natadv/store)",
    )
    add(
        "--thresholds",
        dest="natadv_thresholds",
        type=arguments.text,
        metavar="FILE",
        help=f"tiers and rules ({THRESHOLDS})",
    )
    add(
        "--baseline",
        dest="natadv_baseline",
        type=arguments.text,
        metavar="DIR",
        default="none",
        help="evidence of an earlier run to compare with, sample by sample, or none",
    )
    add(
        "--evidence",
        dest="natadv_evidence",
        type=arguments.text,
        metavar="DIR",
        help=f"where each case's outcome rows are written ({EVIDENCE})",
    )
    add(
        "--attacks",
        dest="natadv_attacks",
        type=arguments.text,
        metavar="DIR",
        help="where the small attacks that were found are written (.natadv/attacks)",
    )
    add(
        "--gate-json",
        dest="natadv_gate_json",
        type=arguments.text,
        metavar="FILE",
        help=f"where the verdict is written for machines ({GATE_JSON})",
    )


def request(config: pytest.Config) -> Request:
    """What the user asked to be measured."""
    names = {name: _joined(config.getoption(f"natadv_{name}")) for name in NAMES}
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


def _joined(given: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for names in given for name in names))


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


def let_no_warning_decide(config: pytest.Config) -> None:
    """Only show the warnings of this run, even where a repository turns them into errors for its
    own tests: they are of any package that a model needs."""
    namespace = config.known_args_namespace
    # The last filter goes before all others, and those of the command line before those of a file.
    namespace.pythonwarnings = [*(namespace.pythonwarnings or ()), "default"]


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


def keep_allure_folder(config: pytest.Config) -> None:
    """Make the folder of the results again if somebody cleared it away: Allure would end the run
    rather than make it."""
    if writes_allure(config):
        Path(config.getoption("allure_report_dir")).mkdir(parents=True, exist_ok=True)


def writes_allure(config: pytest.Config) -> bool:
    """True if anyone will see what a test attaches; known once `settle_allure` was called."""
    return config.getoption("allure_report_dir", None) is not None


def gates_are_asked_for(config: pytest.Config) -> bool:
    """True if an argument lies in `suites/`: other test runs must not notice this plugin."""
    return _in_suites(config, map(str, config.args))


def _in_suites(config: pytest.Config, given: Iterable[str]) -> bool:
    suites, here = config.rootpath / "suites", config.invocation_params.dir
    paths = [(here / argument.split("::", 1)[0]).resolve() for argument in given]
    return any(path == suites or suites in path.parents for path in paths)


_ONLY_LOOKING = {
    *("--collect-only", "--co", "--collectonly", "--setup-plan", "--setup-only", "--setupplan"),
    *("--setuponly", "--fixtures", "--fixtures-per-test", "--funcargs"),
    *("--help", "-h", "--version", "-V", "--markers"),
}
"""They list something, and leave what an earlier run wrote as it is."""


def early_gate_json(config: pytest.Config) -> Path | None:
    """Where the verdict of this run would be written, told before pytest reads its options; None if
    it would write none. What is no option of ours may be mistaken for a path of a suite."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        return None
    given = [
        *config.getini("addopts"),
        *shlex.split(os.environ.get("PYTEST_ADDOPTS", "")),
        *map(str, config.invocation_params.args),
    ]
    here = config.invocation_params.dir
    if _ONLY_LOOKING & set(given) or not _in_suites(config, [*given, str(here)]):
        return None
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--gate-json")
    try:
        named = parser.parse_known_args(given)[0].gate_json
    except (argparse.ArgumentError, SystemExit):
        return None
    return here / named if named else config.rootpath / GATE_JSON

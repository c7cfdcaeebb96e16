"""The gate's command-line options, and what they mean."""

from __future__ import annotations

import argparse
import os
import shlex
from collections.abc import Iterable, Mapping
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from natadv import arguments
from natadv.evaluate.grid import Request

THRESHOLDS, EVIDENCE, GATE_JSON = "thresholds.yaml", ".natadv/evidence", "gate.json"
ATTACKS, STORE, SHEETS = ".natadv/attacks", ".natadv/store", ".natadv/sheets"

NAMES: Mapping[str, Any] = {
    "action": "append",
    "type": arguments.names,
    "default": [],
    "metavar": "NAME",
}
"""An option that may be repeated, or hold several names with commas."""
COUNT: Mapping[str, Any] = {"type": arguments.count, "metavar": "N"}
NAME: Mapping[str, Any] = {"type": arguments.text, "metavar": "NAME"}
FILE: Mapping[str, Any] = {"type": arguments.text, "metavar": "FILE"}
DIR: Mapping[str, Any] = {"type": arguments.text, "metavar": "DIR"}


class Option(NamedTuple):
    """An option of the gate, whose value is `config.getoption("natadv_<flag>")`."""

    flag: str
    attributes: Mapping[str, Any]
    """Further arguments of `addoption`."""
    help: str


OPTIONS = (
    Option(
        "--model",
        NAMES,
        "model to judge: a name or family (natadv models), a glob, a hub id, a checkpoint "
        "folder, or module:factory (default: the tier's models)",
    ),
    Option("--task", NAMES, "only this task"),
    Option("--scenario", NAMES, "only this scenario"),
    Option("--dataset", NAMES, "only this dataset; one that the tier does not hold is added"),
    Option(
        "--tier",
        NAME,
        "list of cases that must run (default: the first that has the models)",
    ),
    Option("--limit", COUNT, "first N samples only"),
    Option(
        "--no-assert",
        {"action": "store_true"},
        "measure only: no rule is applied, but everything requested must be measured",
    ),
    Option(
        "--sequential",
        {"action": "store_true"},
        "evaluate pictures in a fixed random order, and stop each case when its rules are decided, "
        "with the same error as that of all samples",
    ),
    Option(
        "--device",
        {"default": "auto", "choices": ("auto", "cpu", "cuda")},
        "where models run (auto: on GPUs if there are any, one per worker in turn)",
    ),
    Option(
        "--dtype",
        {"default": "auto", "choices": ("auto", "float32", "bfloat16", "float16", "int8")},
        "arithmetic of the models (auto: float32 on the CPU, on a GPU what the zoo says; int8: "
        "weights of models that answer questions rounded to 8 bits, by bitsandbytes)",
    ),
    Option(
        "--gpus-per-model",
        {**COUNT, "default": 1},
        "GPUs that one model is spread over (1), for models that answer questions and do not fit "
        "on one; part of what is measured",
    ),
    Option(
        "--batch-size",
        {**COUNT, "default": 64},
        "pictures per forward pass (64); part of what is measured, as it can change last bits",
    ),
    Option(
        "--threads",
        {**COUNT, "default": 1},
        "CPU threads of one kernel (default 1; part of what is measured, so that more "
        "workers give the same bytes)",
    ),
    Option(
        "--gpu-slots",
        {**COUNT, "default": 1},
        "models that may be loaded on one GPU at a time (1), however many workers there are",
    ),
    Option(
        "--unit-timeout",
        {"type": arguments.seconds, "default": 1800.0, "metavar": "SECONDS"},
        "a worker that takes longer for 256 pictures is killed (xdist only; 0: never)",
    ),
    Option("--store", DIR, f"results that are never computed twice ({STORE})"),
    Option("--thresholds", FILE, f"tiers and rules ({THRESHOLDS})"),
    Option(
        "--baseline",
        {**DIR, "metavar": "NAME|DIR", "default": "none"},
        "a baseline that natadv bless has kept, or the evidence of an earlier run, to compare "
        "with, sample by sample; or none",
    ),
    Option("--evidence", DIR, f"where each case's outcome rows are written ({EVIDENCE})"),
    Option("--attacks", DIR, f"where the small attacks that were found are written ({ATTACKS})"),
    Option("--sheets", DIR, f"where the failing pictures of each case are written ({SHEETS})"),
    Option(
        "--explain",
        {"type": partial(arguments.count, least=0), "default": 4, "metavar": "K"},
        "failing samples of each case whose relevance maps are drawn, after its verdict (4; 0: "
        "none)",
    ),
    Option("--gate-json", FILE, f"where the verdict is written for machines ({GATE_JSON})"),
)

Flags = Mapping[str, tuple[str, ...]]

LISTING_MODES: Flags = {
    "collectonly": ("--collect-only", "--co", "--collectonly"),
    "setupplan": ("--setup-plan", "--setupplan"),
    "setuponly": ("--setup-only", "--setuponly"),
    "showfixtures": ("--fixtures", "--funcargs"),
    "show_fixtures_per_test": ("--fixtures-per-test",),
}
"""Modes of pytest that list something of the suites and compute nothing."""
HELP_MODES: Flags = {
    "help": ("--help", "-h"),
    "version": ("--version", "-V"),
    "markers": ("--markers",),
}
"""Modes of pytest that need no suite at all."""


def add_options(parser: pytest.Parser) -> None:
    """Declare `OPTIONS` to pytest."""
    group = parser.getgroup("natadv", "robustness gate")
    for flag, attributes, text in OPTIONS:
        dest = f"natadv_{flag.removeprefix('--').replace('-', '_')}"
        if attributes.get("action") == "append":
            text += "; repeat, or separate with commas"
        group.addoption(flag, dest=dest, help=text, **attributes)


def is_in_mode(config: pytest.Config, modes: Flags) -> bool:
    """True if one of these modes of pytest was chosen."""
    return any(getattr(config.option, name, False) for name in modes)


def request(config: pytest.Config) -> Request:
    """What the user asked to be measured."""
    return Request(
        root=config.rootpath,
        base=config.invocation_params.dir,
        models=_names(config, "model"),
        tasks=_names(config, "task"),
        scenarios=_names(config, "scenario"),
        datasets=_names(config, "dataset"),
        tier=config.getoption("natadv_tier"),
        limit=config.getoption("natadv_limit"),
    )


def _names(config: pytest.Config, option: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(chain.from_iterable(config.getoption(f"natadv_{option}"))))


def path_option(config: pytest.Config, name: str, default: str) -> Path:
    """A path that the user gave, from where pytest was called, or the default under the root."""
    given = config.getoption(f"natadv_{name}")
    return config.invocation_params.dir / given if given else config.rootpath / default


def is_narrowed(config: pytest.Config) -> bool:
    """True if the user asked for less than all suites, so that absent cases are expected."""
    option = config.option
    paths = {(config.invocation_params.dir / str(arg)).resolve() for arg in config.args}
    chosen = [option.keyword, option.markexpr, option.deselect, getattr(option, "lf", False)]
    return any(chosen) or config.rootpath / "suites" not in paths


def show_warnings_only(config: pytest.Config) -> None:
    """Show the warnings of this run, even where a repository turns them into errors for its own
    tests: any package that a model needs may raise one, and none decides a verdict."""
    namespace = config.known_args_namespace
    # The last filter precedes all others, and those of the command line precede those of a file.
    namespace.pythonwarnings = [*(namespace.pythonwarnings or ()), "default"]


def set_allure_folder(config: pytest.Config) -> Path | None:
    """Choose the folder of the Allure results, in every process before allure-pytest reads it.
    Returns None if that plugin is off."""
    option = config.option
    if not hasattr(option, "allure_report_dir"):
        return None
    given = option.allure_report_dir
    folder = config.invocation_params.dir / given if given else config.rootpath / "allure-results"
    option.allure_report_dir = str(folder)
    # The controller empties it: with this flag a replaced worker would delete others' results.
    option.clean_alluredir = False
    return folder


def restore_allure_folder(config: pytest.Config) -> None:
    """Make the folder of the results again if somebody removed it: Allure would end the run rather
    than make it."""
    if writes_allure(config):
        Path(config.getoption("allure_report_dir")).mkdir(parents=True, exist_ok=True)


def writes_allure(config: pytest.Config) -> bool:
    """True if what a test attaches is written; known after `set_allure_folder`."""
    return config.getoption("allure_report_dir", None) is not None


def runs_gates(config: pytest.Config) -> bool:
    """True if an argument lies in `suites/`: the plugin must not affect other test runs."""
    return _in_suites(config, map(str, config.args))


def _in_suites(config: pytest.Config, given: Iterable[str]) -> bool:
    suites, here = config.rootpath / "suites", config.invocation_params.dir
    paths = [(here / argument.split("::", 1)[0]).resolve() for argument in given]
    return any(path == suites or suites in path.parents for path in paths)


def unparsed_gate_json(config: pytest.Config) -> Path | None:
    """Where this run would write its verdict, found before pytest parses its options; None if the
    run would write none. A value of a foreign option may be mistaken for the path of a suite."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        return None
    given = [
        *config.getini("addopts"),
        *shlex.split(os.environ.get("PYTEST_ADDOPTS", "")),
        *map(str, config.invocation_params.args),
    ]
    here = config.invocation_params.dir
    listing = set(chain(*LISTING_MODES.values(), *HELP_MODES.values()))
    if listing & set(given) or not _in_suites(config, [*given, str(here)]):
        return None
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--gate-json")
    try:
        named = parser.parse_known_args(given)[0].gate_json
    except (argparse.ArgumentError, SystemExit):
        return None
    return here / named if named else config.rootpath / GATE_JSON

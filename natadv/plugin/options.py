"""The gate's options, by command line, environment variable or ini key, and what they mean."""

from __future__ import annotations

import argparse
import os
import shlex
from collections.abc import Mapping, Sequence
from functools import partial
from glob import glob
from itertools import chain
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pytest

from natadv import arguments
from natadv.errors import ConfigError
from natadv.evaluate.grid import Request
from natadv.places import CONTRACT, EVIDENCE, GATE_JSON, STORE, find
from natadv.plugin.gate_files import (
    collected_by,
    folder_without_gates,
    gate_files,
    named,
    root_of,
    roots_for,
)

ATTACKS, SHEETS, ALLURE = Path(".natadv/attacks"), Path(".natadv/sheets"), Path("allure-results")
WRITTEN_TO = {
    "store": STORE,
    "gate_json": GATE_JSON,
    "evidence": EVIDENCE,
    "attacks": ATTACKS,
    "sheets": SHEETS,
}
"""Option -> its place under the root, unless the user names another."""

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

    @property
    def dest(self) -> str:
        """Its name in `config.option`, which is also its key in pytest.ini and pyproject.toml."""
        return f"natadv_{self.flag.removeprefix('--').replace('-', '_')}"

    @property
    def variable(self) -> str:
        """The environment variable that counts where the command line says nothing."""
        return self.dest.upper()

    @property
    def switch(self) -> bool:
        """Whether it takes no value."""
        return self.attributes.get("action") == "store_true"

    @property
    def repeatable(self) -> bool:
        """Whether it may be given several times."""
        return self.attributes.get("action") == "append"

    @property
    def metavar(self) -> str:
        """What stands for its value; empty if it takes none."""
        if choices := self.attributes.get("choices"):
            return f"{{{','.join(choices)}}}"
        return str(self.attributes.get("metavar", ""))

    def read(self, given: str, *, source: str) -> Any:
        """Its value in a text from `source`. Raises pytest.UsageError, which names the source."""
        try:
            arguments.text(given)
            if choices := self.attributes.get("choices"):
                return arguments.choice(given, choices)
            return _switched(given) if self.switch else self.attributes["type"](given)
        except argparse.ArgumentTypeError as error:
            raise pytest.UsageError(f"{source}: {error}") from error


def _switched(given: str) -> bool:
    return SWITCHED[arguments.choice(given.strip().casefold(), [*SWITCHED])]


SWITCHED = {
    **dict.fromkeys(("1", "true", "yes", "on"), True),
    **dict.fromkeys(("0", "false", "no", "off"), False),
}
"""What may stand for a switch outside of the command line -> whether it is on."""


SELECTED = (
    Option(
        "--model",
        NAMES,
        "a name or family (natadv models), glob, hub id, checkpoint folder, or module:factory "
        "(default: the tier's)",
    ),
    Option("--task", NAMES, "only this task"),
    Option("--scenario", NAMES, "only this scenario"),
    Option("--dataset", NAMES, "only this dataset; one that the tier lacks is added"),
    Option("--tier", NAME, "list of cases that must run (default: the first with the models)"),
    Option("--limit", COUNT, "first N samples only"),
)
JUDGED = (
    Option("--thresholds", FILE, f"tiers and rules ({CONTRACT})"),
    Option(
        "--baseline",
        {**DIR, "metavar": "NAME|DIR", "default": "none"},
        "compare with this one, sample by sample: kept by natadv bless, or a folder of evidence",
    ),
    Option(
        "--no-assert",
        {"action": "store_true"},
        "measure only: apply no rule, but everything requested must be measured",
    ),
    Option(
        "--sequential",
        {"action": "store_true"},
        "show pictures in a fixed random order, and stop each case when its rules are decided, "
        "with the same error",
    ),
    Option(
        "--explain",
        {"type": partial(arguments.count, least=0), "default": 4, "metavar": "K"},
        "relevance maps for K failing samples of each case, after its verdict (4; 0: none)",
    ),
)
COMPUTED = (
    Option(
        "--device",
        {"default": "auto", "choices": ("auto", "cpu", "cuda")},
        "where models run (auto: GPUs if there are any, one per worker in turn)",
    ),
    Option(
        "--dtype",
        {"default": "auto", "choices": ("auto", "float32", "bfloat16", "float16", "int8")},
        "arithmetic (auto: float32 on a CPU, as in the zoo on a GPU; int8: of models that answer "
        "questions)",
    ),
    Option("--batch-size", COUNT, "pictures per forward pass (16 on a CPU, 64 on a GPU)"),
    Option("--threads", {**COUNT, "default": 1}, "CPU threads of one kernel (1)"),
    Option(
        "--gpus-per-model",
        {**COUNT, "default": 1},
        "GPUs that a model is spread over that answers questions (1)",
    ),
    Option(
        "--gpu-slots",
        {**COUNT, "default": 1},
        "models on one GPU at a time, however many workers there are (1)",
    ),
    Option(
        "--unit-timeout",
        {"type": arguments.seconds, "default": 1800.0, "metavar": "SECONDS"},
        "kill a worker that takes longer for 256 pictures (1800; 0: never; needs -n)",
    ),
)
WRITTEN = (
    Option("--store", DIR, f"results, which are never computed twice ({STORE})"),
    Option("--gate-json", FILE, f"the verdict for machines ({GATE_JSON})"),
    Option("--evidence", DIR, f"the outcome rows of each case ({EVIDENCE})"),
    Option("--sheets", DIR, f"the failing pictures of each case ({SHEETS})"),
    Option("--attacks", DIR, f"the small attacks that were found ({ATTACKS})"),
)
GROUPS: Mapping[str, tuple[Option, ...]] = {
    "what is measured (NAME: repeat, or separate with commas)": SELECTED,
    "how it is judged": JUDGED,
    "how it is computed (part of what is measured, but for the last two)": COMPUTED,
    "files": WRITTEN,
}
"""Part of the gate's options, as the help has it -> its options."""
OPTIONS = (*SELECTED, *JUDGED, *COMPUTED, *WRITTEN)


def default_of(dest: str) -> Any:
    """The value of an option that was given nowhere."""
    return next(option.attributes.get("default") for option in OPTIONS if option.dest == dest)


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
    """Declare `OPTIONS` to pytest, in their groups."""
    for title, options in GROUPS.items():
        group = parser.getgroup(f"natadv: {title}", f"robustness gate: {title}")
        for option in options:
            _declare(option, group, parser)


def _declare(option: Option, group: pytest.OptionGroup, parser: pytest.Parser) -> None:
    """Declare an option, as a key of the ini file too. Without a word on the command line its value
    is None until `settle`."""
    declared: dict[str, Any] = {"action": option.attributes.get("action", "store")}
    if not option.switch:
        declared["type"] = partial(option.read, source=option.flag)
        declared["metavar"] = option.metavar
    group.addoption(option.flag, dest=option.dest, help=option.help, default=None, **declared)
    about = f"as {option.flag}, unless that or {option.variable} is given"
    kind: Literal["linelist", "string"] = "linelist" if option.repeatable else "string"
    parser.addini(option.dest, about, kind, default=None)


def settle(config: pytest.Config) -> None:
    """Give each option that is not on the command line its value from the environment, else from
    the ini file, else its default. Raises pytest.UsageError."""
    for option in OPTIONS:
        if getattr(config.option, option.dest) is None:
            setattr(config.option, option.dest, _value_elsewhere(option, config))


def _value_elsewhere(option: Option, config: pytest.Config) -> Any:
    found = _text_elsewhere(option, config)
    if found is None:
        return option.attributes.get("default", False if option.switch else None)
    value = option.read(found.text, source=found.source)
    return [value] if option.repeatable else value


class _Text(NamedTuple):
    text: str
    source: str
    """Where it stands, for messages."""


def _text_elsewhere(option: Option, config: pytest.Config) -> _Text | None:
    """What the environment, else the ini file, says of an option."""
    if (text := os.environ.get(option.variable)) is not None:
        return _Text(text, option.variable)
    value = config.getini(option.dest)
    if value is None:
        return None
    text = ",".join(value) if isinstance(value, list) else value
    overrides = config.known_args_namespace.override_ini or ()
    if config.inipath is None or any(o.startswith(f"{option.dest}=") for o in overrides):
        return _Text(text, f"-o {option.dest}")
    if option.metavar in ("FILE", "DIR") and text.strip():
        # As pytest reads paths of an ini file: wherever it is called, they mean the same.
        text = os.path.normpath(config.inipath.parent / text)
    return _Text(text, f"{config.inipath}: {option.dest}")


def is_in_mode(config: pytest.Config, modes: Flags) -> bool:
    """True if one of these modes of pytest was chosen."""
    return any(getattr(config.option, name, False) for name in modes)


def request(config: pytest.Config) -> Request:
    """What the user asked to be measured."""
    return Request(
        root=root_of(config),
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


def path_option(config: pytest.Config, name: str) -> Path:
    """A path that the user gave, from where pytest was called, or that of `WRITTEN_TO` under the
    root."""
    given = config.getoption(f"natadv_{name}")
    return config.invocation_params.dir / given if given else root_of(config) / WRITTEN_TO[name]


def refuse_unwritable(config: pytest.Config) -> None:
    """Raises ConfigError, once for all, if this run must not write to the places under the root
    that it takes by default: in a checkout that is read only they would be refused one by one."""
    root, taken = root_of(config), {}
    for name, default in WRITTEN_TO.items():
        if not config.getoption(f"natadv_{name}"):
            taken[f"--{name.replace('_', '-')}"] = root / default
    if getattr(config.option, "allure_report_dir", "none") is None:
        taken["--alluredir"] = root / ALLURE
    if refused := [option for option, path in taken.items() if not _may_write(path)]:
        raise ConfigError(
            f"cannot write {taken[refused[0]]}: give other places by {' '.join(refused)}, or run "
            "in a copy that you may write to"
        )


def _may_write(path: Path) -> bool:
    """Whether the user may replace the file or folder, or make it."""
    there = next(p for p in (path, *path.parents) if os.path.exists(p))
    return os.access(path.parent if there.is_file() else there, os.W_OK)


def contract_of(config: pytest.Config) -> Path:
    """The contract: that which the user named, else that of the root, else that of the package.

    Raises ConfigError if there is none anywhere.
    """
    given: str | None = config.getoption("natadv_thresholds")
    if given:
        return config.invocation_params.dir / given
    root = root_of(config)
    path = find(CONTRACT, root)
    if not path.is_file():
        raise ConfigError(
            f"{path}: no such contract, and none above the gates or in a package; write one by "
            "natadv init, or name one by --thresholds FILE"
        )
    return path


def refuse_without_gates(config: pytest.Config) -> None:
    """Raises pytest.UsageError if the user asked for gates, by an option or in a folder of gates,
    and this run has none: it would be green without having judged anything."""
    folder = folder_without_gates(config)
    if folder is not None:
        raise pytest.UsageError(
            f"{folder}: no file here holds a gate, a test with `pytestmark = "
            'pytest.mark.gate(task="classification")`; natadv init writes some'
        )
    words = {str(word).partition("=")[0] for word in config.invocation_params.args}
    if asked := [option.flag for option in OPTIONS if option.flag in words]:
        given = " ".join(map(str, config.args))
        raise pytest.UsageError(
            f"{asked[0]} is an option of the gate, and {given} holds no test with the marker gate"
        )


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
    folder = config.invocation_params.dir / given if given else root_of(config) / ALLURE
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


def unparsed_gate_json(config: pytest.Config, parser: pytest.Parser) -> list[Path]:
    """Where this run would write its verdict, found before pytest parses its options: nowhere if it
    has no gates, and at one of several places if these have several contracts. A value of a foreign
    option may be mistaken for the path of a gate.

    Raises pytest.UsageError if the ini file is wrong.
    """
    if "PYTEST_XDIST_WORKER" in os.environ:
        return []
    given = [
        *config.getini("addopts"),
        *shlex.split(os.environ.get("PYTEST_ADDOPTS", "")),
        *map(str, config.invocation_params.args),
    ]
    if set(chain(*LISTING_MODES.values(), *HELP_MODES.values())) & set(given):
        return []
    known, others = _own_options(given)
    paths = named(_paths_among(others, config, parser), config)
    gates = gate_files(paths, collected_by(config, config.known_args_namespace))
    without = folder_without_gates(config)
    if not gates and without is None:
        return []
    here = config.invocation_params.dir
    gate_json = getattr(known, "natadv_gate_json", None)
    if gate_json is None:
        (option,) = (option for option in OPTIONS if option.dest == "natadv_gate_json")
        found = _text_elsewhere(option, config)
        gate_json = found.text if found else None
    roots = roots_for(gates or filter(None, [without]), here=here.resolve())
    return [here / gate_json] if gate_json else [root / GATE_JSON for root in roots]


def _own_options(given: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """The gate's options among the words of a command, unchecked, and the other words."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for option in OPTIONS:
        action = "store_true" if option.switch else "store"
        parser.add_argument(option.flag, dest=option.dest, action=action)
    try:
        return parser.parse_known_args(given)
    except (argparse.ArgumentError, SystemExit):
        return argparse.Namespace(), list(given)


def _paths_among(
    words: list[str], config: pytest.Config, parser: pytest.Parser
) -> Sequence[str | Path]:
    """The paths that pytest would collect."""
    try:
        paths = parser.parse_known_args(words).file_or_dir
    except (pytest.UsageError, SystemExit):
        # Another option is wrong, and pytest will say so.
        paths = words
    here = config.invocation_params.dir
    if not paths and here == config.rootpath:
        globs = config.getini("testpaths")
        paths = [p for text in globs for p in glob(text, root_dir=here, recursive=True)]
    return paths or [here]

"""Runs pytest with the suites of a folder, or with those of natadv where it has none."""

from __future__ import annotations

import os
import sys
from collections.abc import Generator, Sequence
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import pytest

from natadv.errors import ConfigError
from natadv.models.zoo import ZOO
from natadv.places import CONTRACT, SUITES, contract_above, find
from natadv.plugin.gate_files import Collected, gate_files
from natadv.plugin.opt_in import PLUGIN
from natadv.plugin.options import HELP_MODES, OPTIONS
from natadv.starter.repository import packaged_suites

MOST_WORKERS = 8
"""Each of them may hold a model."""

PLUGINS_OFF = ("hypothesispytest", "anyio", "hydra_pytest", "jaxtyping")
"""They cost every process 1 s, and no gate needs them."""
ALONE = (
    *("--noconftest", "--import-mode=importlib", "--assert=plain"),
    *("-p", "no:cacheprovider", "-p", __name__),
)
"""Keeps the repository of the user out of the suites of a package, and writes nothing there."""

_FOLLOWED = {
    *("-c", "-k", "-m", "-n", "-o", "-p", "-r", "-W", "--config-file", "--rootdir"),
    *("--confcutdir", "--basetemp", "--ignore", "--ignore-glob", "--deselect", "--alluredir"),
}
"""Options of pytest whose value may look like the path of a gate: all short ones, and some."""


def run_gate(words: Sequence[str], *, here: Path) -> int:
    """The exit code of pytest. Raises ConfigError as `command_words` does."""
    return int(pytest.main(command_words(words, here=here), plugins=[Workers()]))


def command_words(words: Sequence[str], *, here: Path) -> list[str]:
    """What pytest is called with for the `words` of a user in the folder `here`.

    Raises ConfigError if the words name files or folders, and none of these holds a gate.
    """
    off = [word for name in PLUGINS_OFF for word in ("-p", f"no:{name}")]
    common = ["-p", PLUGIN, *off, *words]
    if _names_gates(words, here):
        return common
    root = contract_above(here) or here
    if own := _own_gates(root):
        return [*common, *(os.path.relpath(path, here) for path in own)]
    _require_mini_world(words, root)
    ini = Path(__file__).with_name("gate.ini")
    return ["-c", str(ini), "--rootdir", str(root), *ALONE, *common, str(packaged_suites())]


def _require_mini_world(words: Sequence[str], root: Path) -> None:
    """Raises ConfigError if natadv's own gate was asked for, and its models are not here."""
    given = {word.partition("=")[0] for word in words}
    given |= {option.flag for option in OPTIONS if option.variable in os.environ}
    other = given & {"--model", "--tier", "--thresholds", *chain(*HELP_MODES.values())}
    needed = not (other or (root / CONTRACT).is_file())
    if needed and not find(Path(ZOO["mini-clip"].location), root).is_dir():
        raise ConfigError(
            "the gate of natadv itself judges the mini world, which is not installed; get it by "
            "pip install 'natadv[mini]', or gate your own model: natadv init"
        )


def _names_gates(words: Sequence[str], here: Path) -> bool:
    """Whether a word is the path of gates. Raises ConfigError if one is of nothing, or all of
    something else: nobody who names a file expects others to be judged."""
    valued = _FOLLOWED | {option.flag for option in OPTIONS if not option.switch}
    switches = {option.flag for option in OPTIONS if option.switch}
    paths: list[Path] = []
    maybe: list[Path] = []
    for last, word in pairwise(["", *words]):
        if word.startswith("-") or last in valued:
            continue
        # What follows the option of another plugin may be its value.
        certain = not last.startswith("--") or last in switches or "=" in last
        (paths if certain else maybe).append(here / word.partition("::")[0])
    if absent := [path for path in paths if not os.path.exists(path)]:
        raise ConfigError(f"{absent[0]}: no such file or folder of gates; name one, or none")
    if any(_gates_in(path) for path in (*paths, *maybe)):
        return True
    if paths:
        raise ConfigError(f"{paths[0]} holds no gate; name a file or folder that does, or none")
    return False


def _own_gates(root: Path) -> list[Path]:
    """The folders of the user's gates: `suites`, else all below the root that hold some, but not
    those of a repository within it that has its own contract."""
    if _gates_in(root / SUITES):
        return [root / SUITES]
    found = dict.fromkeys(gate.parent for gate in _gates_in(root.resolve()))
    return [folder for folder in found if contract_above(folder) in (None, root.resolve())]


def _gates_in(path: Path) -> tuple[Path, ...]:
    files = ("test_*.py", "*_test.py")
    left_out = ("*.egg", ".*", "_darcs", "build", "CVS", "dist", "node_modules", "venv", "{arch}")
    return gate_files([path], Collected(files, left_out))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, Any, Any]:
    """Import suites without writing their bytecode beside them. What computes comes later, and
    keeps its own."""
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        return (yield)
    finally:
        sys.dont_write_bytecode = before


class Workers:
    """Lets as many processes work as fit the machine where neither the command nor the settings of
    the repository say how many."""

    @pytest.hookimpl(wrapper=True)
    def pytest_cmdline_main(self, config: pytest.Config) -> Generator[None, Any, Any]:
        """Choose before pytest-xdist reads its options."""
        option = config.option
        chosen = getattr(option, "numprocesses", 0) is not None
        if not (chosen or option.tx or option.dist != "no"):
            option.numprocesses = "auto"
            option.maxprocesses = option.maxprocesses or MOST_WORKERS
        return (yield)

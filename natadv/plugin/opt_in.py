"""Loads the plugin for the gates of a folder alone: its conftest.py is all that asks for it.

Light, as every run of pytest that collects the folder imports it.
"""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

PLUGIN = "natadv.pytest_plugin"
FOLDER = "natadv-folder"
"""Name of the plugin that stands for the folder whose conftest.py has loaded this one."""


def load(pluginmanager: pytest.PytestPluginManager, conftest: str) -> None:
    """Load the gate if an argument of this run names the folder of `conftest`, or lies in it; else
    leave the folder out of the run, and say so."""
    config = pluginmanager.get_plugin("pytestconfig")
    if config is None or pluginmanager.has_plugin(FOLDER) or pluginmanager.has_plugin(PLUGIN):
        return
    folder = Path(conftest).resolve().parent
    # Once the arguments are parsed, no plugin can add options to them.
    late = bool(config.args)
    if not late and _names(config, folder):
        pluginmanager.register(Folder(folder), FOLDER)
        pluginmanager.import_plugin(PLUGIN)
        return
    pluginmanager.register(LeftOut(folder, config, late=late))


def _names(config: pytest.Config, folder: Path) -> bool:
    """Whether the run is of this folder, or of files in it. pytest also loads each conftest.py in a
    folder called `test*` beside the ones that it was asked for."""
    here = config.invocation_params.dir
    given = config.known_args_namespace.file_or_dir
    if not given and here == config.rootpath:
        given = config.getini("testpaths")
    paths = [(here / str(text).partition("::")[0]).resolve() for text in given or [""]]
    return any(folder in (path, *path.parents) for path in paths)


@dataclass(frozen=True)
class Folder:
    """The folder that has loaded the gate."""

    path: Path


class LeftOut:
    """Keeps the folder out of a run that was not asked for it."""

    def __init__(self, folder: Path, config: pytest.Config, *, late: bool) -> None:
        self._folder = folder
        shown = os.path.relpath(folder, config.invocation_params.dir)
        self._line = f"natadv: {shown}/ was left out, so no gate ran; run it by: pytest {shown}/"
        if late and getattr(config, "workerinput", {}).get("workerid") == "gw0":
            _tell_controller(config, self._line, file=f"{shown}/conftest.py")

    def pytest_ignore_collect(self, collection_path: Path) -> bool | None:
        """Collect nothing of the folder."""
        return True if self._folder in collection_path.resolve().parents else None

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Say what was left out."""
        terminalreporter.write_line(self._line)


def _tell_controller(config: pytest.Config, line: str, *, file: str) -> None:
    """Say it from a worker: its controller collects nothing, and so knows nothing of the folder.

    Not by `warnings.warn`, which a repository may have turned into an error.
    """
    said = warnings.WarningMessage(pytest.PytestWarning(line), pytest.PytestWarning, file, 1)
    config.hook.pytest_warning_recorded.call_historic(
        kwargs={"warning_message": said, "when": "collect", "nodeid": "", "location": None}
    )

"""The gate is loaded by the conftest.py of its folder, and no other run of pytest sees it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import pytest

from natadv.plugin.opt_in import LeftOut

ROOT = Path(__file__).parents[2]
VERDICT = '{"verdict": "pass", "tier": "mini", "cases": []}'
LINE = "natadv: {0}/ was left out, so no gate ran; run it by: pytest {0}/"

# Each run in a process of its own, beside a green verdict of an earlier run.
FORKED = """\
import importlib, json, os, sys, tempfile
from pathlib import Path
import pytest

verdict, told = Path("gate.json"), []
importlib.import_module(sys.argv[3])
for arguments in json.loads(sys.argv[1]):
    verdict.write_text(sys.argv[2])
    with tempfile.TemporaryFile("w+") as out:
        if not (child := os.fork()):
            os.dup2(out.fileno(), 1)
            os.dup2(out.fileno(), 2)
            code = pytest.main(arguments)
            loaded = sorted(n for n in sys.modules if n.startswith("natadv"))
            print("LOADED", *loaded, flush=True)
            os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        out.seek(0)
        told.append([code, out.read(), verdict.exists()])
print(json.dumps(told))
"""


@pytest.fixture
def repository(tmp_path):
    """Somebody's repository: its own conftest.py and tests, and gates in `checks`."""
    root = tmp_path / "theirs"
    for name, text in {
        "conftest.py": "",
        "tests/test_own.py": "def test_own(pytestconfig):\n    assert pytestconfig\n",
        "checks/deep/test_robust.py": (ROOT / "suites/test_classification.py").read_text(),
        "pytest.ini": "[pytest]\naddopts = -p no:cacheprovider --strict-markers\n",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    shutil.copy(ROOT / "suites/conftest.py", root / "checks/conftest.py")
    return root


class Run(NamedTuple):
    """How a run of pytest has ended."""

    code: int
    told: str
    verdict_stays: bool


def runs(root, *commands, imported="pytest", **environment):
    """Run pytest in the repository with each of these command lines; what is `imported` before
    takes no time in each of them."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST")}
    done = subprocess.run(
        [
            *(sys.executable, "-c", FORKED),
            *(json.dumps([command.split() for command in commands]), VERDICT, imported),
        ],
        cwd=root,
        env={**inherited, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    ended = (Run(*told) for told in json.loads(done.stdout))
    return dict(zip(commands, ended, strict=True))


def test_other_runs_do_not_see_the_gate_and_say_what_they_left_out(repository):
    (repository / "test_gates").mkdir()
    shutil.copy(repository / "checks/conftest.py", repository / "test_gates/conftest.py")
    shutil.copy(repository / "checks/deep/test_robust.py", repository / "test_gates/test_it.py")
    silent = ("tests", "tests/test_own.py")
    saying = ("", ".", "-W error", "--collect-only", "-q")
    found = runs(repository, *silent, *saying, "tests --model x", "--limit 3", "tests --help")

    # None of these runs was a gate, and none had a verdict to replace.
    assert all(run.verdict_stays for run in found.values())
    for command in silent:
        run = found[command]
        assert (run.code, "1 passed" in run.told, "left out" in run.told) == (0, True, False)
        assert run.told.splitlines()[-1] == "LOADED", run.told
    for command in saying:
        run = found[command]
        assert run.code == 0, run.told
        for folder in ("checks", "test_gates"):
            # pytest itself loads the conftest.py of each folder called test* at once.
            assert run.told.splitlines().count(LINE.format(folder)) == 1, run.told
        assert run.told.splitlines()[-1] == "LOADED natadv natadv.plugin natadv.plugin.opt_in"
    for command, flag in (("tests --model x", "--model"), ("--limit 3", "--limit")):
        assert found[command].code == 4
        assert f"unrecognized arguments: {flag}" in found[command].told
    assert "robustness gate" not in found["tests --help"].told
    assert "natadv_" not in found["tests --help"].told


def test_a_run_of_the_folder_has_all_options_and_no_old_verdict(repository):
    (repository / "empty").mkdir()
    shutil.copy(repository / "checks/conftest.py", repository / "empty/conftest.py")
    for name in ("thresholds.yaml", "checks/deep/thresholds.yaml"):
        (repository / name).touch()
    shutil.copy(repository / "checks/deep/test_robust.py", repository / "checks/test_other.py")
    helped, wrong, two, empty = runs(
        repository,
        "checks --help",
        "checks/test_other.py --limit abc",
        "checks",
        "empty",
        imported="natadv.pytest_plugin",
    ).values()

    assert "robustness gate" in helped.told
    assert "natadv_model" in helped.told
    told = "ERROR: --limit: expected a whole number from 1 on, got 'abc'"
    assert (wrong.code, wrong.told.splitlines()[0]) == (4, told)
    assert (two.code, two.told.count("run them one by one")) == (4, 1)
    assert empty.code == 4
    assert f"ERROR: {repository}/empty: no file here holds a gate" in empty.told
    stays = [run.verdict_stays for run in (helped, wrong, two, empty)]
    assert stays == [True, False, False, False]


def test_without_natadv_the_folder_is_left_out_too(repository, tmp_path):
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden/natadv.py").touch()
    plain, gates, wrong = runs(
        repository, "", "checks", "checks --model x", PYTHONPATH=str(tmp_path / "hidden")
    ).values()

    told = "natadv is not installed, so no gate can run: pip install natadv"
    ends = [(run.code, run.told.count(told)) for run in (plain, gates, wrong)]
    assert ends == [(0, 1), (pytest.ExitCode.NO_TESTS_COLLECTED, 1), (4, 1)]


def test_one_worker_says_what_its_controller_cannot_know(tmp_path):
    """Even where the repository turns every warning into an error."""
    said = []
    hook = SimpleNamespace(
        pytest_warning_recorded=SimpleNamespace(call_historic=lambda kwargs: said.append(kwargs))
    )
    for worker in ("gw0", "gw1"):
        config = SimpleNamespace(
            invocation_params=SimpleNamespace(dir=tmp_path),
            workerinput={"workerid": worker},
            hook=hook,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            LeftOut(tmp_path / "checks", config, late=True)

    (one,) = said
    assert str(one["warning_message"].message) == LINE.format("checks")

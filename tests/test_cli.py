from __future__ import annotations

import subprocess
import sys
from importlib.metadata import entry_points, version
from pathlib import Path

import pytest

from natadv import cli
from natadv.cli import gate_commands
from natadv.data.card import CardDraft
from natadv.data.writer import write_dataset
from natadv.types import Sample

HEAVY = ("torch", "transformers", "open_clip", "diffusers", "hypothesis", "pyarrow", "pytest")

# Runs a command in this very process, then tells which heavy modules it pulled in.
LOADED = f"""
import runpy, sys
from importlib.metadata import entry_points

code = 0
try:
    if sys.argv[1] == "natadv":
        (command,) = entry_points(group="console_scripts", name=sys.argv.pop(1))
        code = command.load()(sys.argv[1:])
    else:
        runpy.run_module(sys.argv.pop(1), run_name="__main__")
except SystemExit as end:
    code = end.code
print("\\nloaded:", *sorted(set({HEAVY!r}) & set(sys.modules)))
sys.exit(code)
"""


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """The folder of a dataset under the root `tmp_path`."""
    folder = tmp_path / "fixtures" / "datasets" / "tiny"
    draft = CardDraft(
        name="tiny",
        tasks=("classification",),
        scenario="clean",
        classes=("cat", "dog"),
        templates=("a photo of a {}.",),
        licence="CC0-1.0",
        source="made by the tests",
        description="no pictures",
    )
    write_dataset(folder, draft, [Sample("a", group="a", image=b"x", label=0)])
    return folder


def run(*arguments: str) -> int:
    """The exit code of `natadv ARGUMENTS`."""
    try:
        return cli.main(arguments)
    except SystemExit as end:
        return int(end.code or 0)


def test_help_names_the_commands_and_how_the_gate_is_run(capsys):
    assert run("--help") == 0

    told = capsys.readouterr().out
    assert "data" in told
    assert "contract" in told
    assert "report" in told
    assert "pytest suites/" in told


def test_the_version_is_that_of_the_package(capsys):
    assert run("--version") == 0
    assert capsys.readouterr().out == f"natadv {version('natadv')}\n"


def test_the_installed_command_is_this_one():
    (command,) = entry_points(group="console_scripts", name="natadv")

    assert command.load() is cli.main


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "Missing command"),
        (("reprot",), "No such command 'reprot'. Did you mean 'report'"),
        (("data",), "Missing command"),
        (("data", "lsit"), "No such command 'lsit'. Did you mean 'list'"),
        (("contract",), "Missing command"),
        (("contract", "diff"), "Missing argument 'OLD'"),
        (("contract", "diff", ""), "is a variable unset?"),
        (("report", "--resluts", "x"), "No such option: --resluts (Possible options: --results)"),
        (("report", "--results", "--out", "x"), "Option '--results' requires an argument"),
    ],
)
def test_a_command_that_is_not_known_is_a_usage_error(capsys, arguments, message):
    assert run(*arguments) == 2
    assert message in capsys.readouterr().err


def test_a_report_without_results_says_how_to_get_them(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    assert run("report") == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("natadv: no Allure results in allure-results; run the gate first")
    assert list(tmp_path.iterdir()) == []


def test_datasets_are_listed(capsys, tmp_path, dataset):
    assert run("data", "list", "--root", str(tmp_path)) == 0
    assert capsys.readouterr().out.startswith("tiny  ")


def test_no_dataset_is_no_error(capsys, tmp_path):
    assert run("data", "list", "--root", str(tmp_path)) == 0
    assert "no datasets under" in capsys.readouterr().out


def test_a_broken_card_is_told_and_counts(capsys, tmp_path, dataset):
    (dataset / "card.yaml").write_text("name: tiny\n")

    assert run("data", "list", "--root", str(tmp_path)) == 1
    assert "broken" in capsys.readouterr().err


def test_a_mistake_is_one_line_and_no_traceback(capsys, tmp_path):
    arguments = ("data", "import", "imagefolder", str(tmp_path / "nowhere"), "--name", "mine")

    assert run(*arguments, "--root", str(tmp_path)) == 1
    told = capsys.readouterr().err
    assert told.startswith("natadv: ")
    assert "nowhere" in told
    assert "Traceback" not in told


def test_an_interrupt_has_the_shells_exit_code(capsys, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(gate_commands, "write_report", interrupted)

    assert run("report") == 130
    assert capsys.readouterr().err == "natadv: interrupted\n"


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (("natadv", "--help"), 0),
        (("natadv", "data", "list"), 0),
        (("natadv", "overlays", "draw", "--help"), 0),
        (("natadv", "contract", "diff", "absent.yaml"), 4),
        (("natadv", "report"), 1),
        (("natadv.gate", "--help"), 0),
    ],
)
def test_what_needs_no_model_loads_no_torch(tmp_path, command, code):
    done = subprocess.run(
        [sys.executable, "-c", LOADED, *command],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == code, done.stderr
    assert done.stdout.splitlines()[-1] == "loaded:"


def test_the_gate_knows_pytests_usage_error(tmp_path):
    command = [sys.executable, "-m", "natadv.gate", "--evidense", "x"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    assert done.returncode == 4
    assert "usage: python -m natadv.gate" in done.stderr


@pytest.mark.parametrize("given", [["--model", ""], ["--model= "], ["--model", "\t"], ["--out="]])
def test_an_empty_value_is_a_usage_error(given, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["search", *given])

    assert ended.value.code == 2
    assert "expected a value, got nothing" in capsys.readouterr().err

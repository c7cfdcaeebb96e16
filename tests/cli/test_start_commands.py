"""`natadv init` in repositories of several kinds, and what `natadv gate` calls pytest with."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from datetime import date
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from natadv import cli, places
from natadv.errors import DataError
from natadv.gate.thresholds_file import load_thresholds
from natadv.places import package_roots
from natadv.starter import example, repository
from natadv.starter.run import Workers, command_words
from natadv.storage import progress

ROOT = Path(__file__).resolve().parents[2]
STARTER = ROOT / "natadv" / "starter"
GATE = "import pytest\n\npytestmark = pytest.mark.gate(task='vqa')\n"


@pytest.fixture
def init(tmp_path, packages, capsys, monkeypatch):
    """Runs `natadv init` in a folder with a blank in its name; what it ends with, and prints."""
    folder = tmp_path / "my repository"
    folder.mkdir()
    monkeypatch.chdir(folder)

    def run(*arguments: str) -> tuple[int, str]:
        code = cli.main(["init", *arguments])
        told = capsys.readouterr()
        return code, told.out + told.err

    return run


def files_in(root: Path) -> dict[str, bytes]:
    found = (path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in found}


def test_all_that_a_gate_needs_is_written_and_explained_once(init):
    code, said = init("--model", "mini-clip")
    written = files_in(Path())

    assert code == 0
    for path in written:
        (line,) = [line for line in said.splitlines() if f" {path} " in line]
        assert line.split(path)[1].strip()
    assert {path for path in written if path.startswith("suites/")} == {
        f"suites/{path.name}" for path in (ROOT / "suites").glob("*.py")
    }
    assert all(len(line) <= 100 for line in said.splitlines())
    commands = [line.partition("#")[0].strip() for line in said.splitlines() if "# " in line]
    assert commands == [
        "pytest suites/ --no-assert -n 2 --model mini-clip",
        "natadv calibrate --write",
        "pytest suites/ -n 2 --model mini-clip",
    ]

    again, said = init("--model", "mini-clip")
    assert (again, files_in(Path())) == (0, written)
    assert "wrote" not in said
    assert "nothing was changed" in said


def test_the_suites_are_those_that_natadv_runs_itself(init):
    init("--model", "mini-clip")

    for path in (ROOT / "suites").glob("*.py"):
        assert (Path("suites") / path.name).read_bytes() == path.read_bytes()


def test_the_tier_of_a_model_has_what_it_can_do_on_the_datasets_that_are_here(init):
    init("--model", "mini-clip")
    tiers = yaml.safe_load(Path("thresholds.yaml").read_text())["tiers"]

    scenarios = {"clean": "mini", "typographic": "mini-typo"}
    scenarios |= {"natural": "mini-natural", "langadv": "mini-langadv"}
    tasks = ("classification", "segmentation", "vqa")
    cases = [f"{task}/{name}/{data}" for task in tasks for name, data in scenarios.items()]
    assert tiers == {"mini-clip": {"models": ["mini-clip"], "cases": cases}}

    # With a rule, as calibration writes it, the contract is whole.
    rule = {"metric": "top1", "floor": 0.5, "source": "measured"}
    rows = [{"case": f"{c}/mini-clip", **rule} for c in cases if c.startswith("classification")]
    with Path("thresholds.yaml").open("a") as file:
        file.write(yaml.safe_dump({"rules": rows}))
    known = load_thresholds(Path("thresholds.yaml"), asserting=False)
    assert known.tier().models == ("mini-clip",)


@pytest.mark.parametrize(
    ("model", "name", "fetched_by"),
    [
        ("./my ckpt", "my-ckpt", ""),
        ("openai/some-model", "openai-some-model", "natadv models fetch openai/some-model"),
        ("siglip2-b16-224", "siglip2-b16-224", "natadv models fetch siglip2-b16-224"),
    ],
)
def test_a_model_may_come_later(init, monkeypatch, model, name, fetched_by):
    monkeypatch.setenv("HF_HUB_CACHE", "/nonexistent")
    code, said = init("--model", model, "--dataset", "mini,mini-typo")

    assert code == 0
    (tier,) = yaml.safe_load(Path("thresholds.yaml").read_text())["tiers"].values()
    assert tier["models"] == [name]
    assert tier["cases"][:2] == [
        "classification/clean/mini",
        "classification/typographic/mini-typo",
    ]
    assert fetched_by in said
    assert f"--model {shlex.quote(model)}" in said
    workflow = yaml.safe_load(Path(".github/workflows/gate.yml").read_text())
    assert workflow["env"]["MODEL"] == model
    assert workflow["env"]["NATADV"].startswith("natadv[mini]==")


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--model", "mini-clipp"], "did you mean 'mini-clip'"),
        (["--model", "siglip2"], "name one to gate"),
        (["--dataset", "nope"], "unknown dataset 'nope'"),
    ],
)
def test_what_cannot_be_gated_is_refused_in_one_line_and_nothing_is_written(init, arguments, why):
    code, said = init(*arguments)

    assert code == 4
    assert why in said
    assert said.count("\n") == 1
    assert not files_in(Path())


def test_what_a_user_has_stays_and_lacking_lines_are_added_once(init):
    Path("suites").mkdir()
    own = {"suites/conftest.py": b"import pytest\n", "thresholds.yaml": b"version: 1\n"}
    for path, content in own.items():
        Path(path).write_bytes(content)
    Path(".gitignore").write_bytes(b"*.log\r\n.natadv\r\ngate.json")
    code, said = init("--model", "mini-clip")
    after = files_in(Path())

    assert code == 0
    assert {path: after[path] for path in own} == own
    assert "does not load the gate" in said
    assert "has no tier for mini-clip" in said
    lines = after[".gitignore"].split(b"\r\n")
    assert lines[:4] == [b"*.log", b".natadv", b"gate.json", b"__pycache__/"]
    assert [lines.count(line) for line in (b".natadv/", b"gate.json")] == [0, 1]
    assert b"\n" not in after[".gitignore"].replace(b"\r\n", b"")


def test_a_folder_that_cannot_be_written_is_told_in_one_line(init, monkeypatch):
    def refuse(path: Path, content: bytes) -> None:
        raise DataError(f"{path}: cannot be written: Permission denied")

    monkeypatch.setattr(repository, "write_whole", refuse)
    code, said = init("--model", "mini-clip")

    assert code == 4
    assert said.count("\n") == 1
    assert "thresholds.yaml: cannot be written" in said


def test_a_workflow_that_github_would_not_read_is_told(init):
    (Path("..") / ".git").mkdir()

    said = " ".join(init("--model", "mini-clip")[1].split())
    assert ".github alone: move .github/workflows/gate.yml" in said


def test_the_lines_of_templates_are_in_the_files_of_this_repository():
    for name in ("gitignore", "dvcignore"):
        ours = (ROOT / f".{name}").read_text().splitlines()
        assert set((STARTER / f"{name}.txt").read_text().splitlines()) <= set(ours)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder in which the example was made of fewer pictures, with what it says."""
    root = tmp_path_factory.mktemp("example")
    package_roots.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(places, "package_roots", package_roots)
        patch.setattr(example, "PER_CLASS", 4)
        return root, example.make_example(root, today=date(2026, 12, 31))


def test_the_example_breaks_the_rules_on_words_which_the_released_model_was_measured_for(
    made, tmp_path
):
    root, (model, files, rules) = made
    contract = next(file.content for file in files if file.path == repository.CONTRACT)
    (root / "thresholds.yaml").write_text(contract)
    known = load_thresholds(root / "thresholds.yaml").rules

    assert len(known) == rules == 3
    assert all(rule.source.startswith("measured ") for rule in known)
    assert not (root / ".natadv").exists()
    cells = list(dict.fromkeys(rule.case.rpartition("/")[0] for rule in known))
    # As a run of the gate does, whose folder it is not.
    (tmp_path / "fixtures").symlink_to(root / "fixtures")
    (tmp_path / example.MODEL).symlink_to(root / example.MODEL)
    found = example.measured_rules(model, cells, root=tmp_path, today=date(2026, 12, 31))
    values = [float(rule.source.split()[1]) for rule in found]
    assert [rule.holds(v) for rule, v in zip(known, values, strict=True)] == [True, False, False]
    # The rules come from the model beside it.
    assert known[0].source.split("weights ")[1] != found[0].source.split("weights ")[1]


def test_the_example_leaves_what_its_guide_names_and_is_made_once(made, capsys, monkeypatch):
    root, (_, files, _) = made
    guide = next(file.content for file in files if file.path == example.GUIDE)
    monkeypatch.chdir(root)

    for path in ("checkpoint", "released", "pictures", "fixtures/datasets/animals-typo"):
        assert f"{path}" in guide or path.startswith("fixtures")
        assert any((root / path).iterdir())
    assert not [path for path in root.iterdir() if path.name.startswith(".natadv-init")]
    commands = {line.split()[1] for line in guide.splitlines() if line.startswith("natadv ")}
    assert commands <= set(cli.COMMANDS)
    before = files_in(root)
    assert cli.main(["init", "--example"]) == 4
    assert "expected a folder without" in capsys.readouterr().err
    (root / example.GUIDE).write_text(guide)
    assert cli.main(["init", "--example"]) == 0
    assert "here already" in capsys.readouterr().out
    assert files_in(root) == {**before, example.GUIDE.name: guide.encode()}


@pytest.fixture
def words(tmp_path, packages, monkeypatch):
    """The words that pytest gets from `natadv gate`, without those that turn plugins off."""
    monkeypatch.chdir(tmp_path)

    def of(*given: str, here: Path = tmp_path) -> list[str]:
        return command_words(given, here=here)

    return of


def write_gate(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "test_gate.py").write_text(GATE)


def test_a_folder_without_gates_gets_those_of_natadv_and_none_of_its_own_settings(words, tmp_path):
    found = words("--tier", "mini")

    assert found[-3:] == ["--tier", "mini", str(ROOT / "suites")]
    assert found[:4] == ["-c", str(STARTER / "gate.ini"), "--rootdir", str(tmp_path)]
    assert {"--noconftest", "--assert=plain", "no:cacheprovider"} <= set(found)


def test_gates_of_a_folder_are_run_wherever_it_is_called_from(words, tmp_path):
    (tmp_path / "thresholds.yaml").write_text("version: 1\n")
    write_gate(tmp_path / "checks" / "models")
    # A repository within it is another matter.
    write_gate(tmp_path / "other" / "suites")
    (tmp_path / "other" / "thresholds.yaml").write_text("version: 1\n")
    (tmp_path / "docs").mkdir()

    assert words()[-1] == os.path.join("checks", "models")
    assert words(here=tmp_path / "docs")[-1] == os.path.join("..", "checks", "models")
    assert "--noconftest" not in words()
    write_gate(tmp_path / "suites")
    assert words()[-1] == "suites"


def test_a_path_that_the_user_names_is_the_only_one(words, tmp_path):
    write_gate(tmp_path / "suites")

    chosen = "suites/test_gate.py::test_vqa"
    assert words("-x", chosen)[-2:] == ["-x", chosen]
    # Values of options are no paths of gates.
    for option in ("-k", "--ignore", "--evidence"):
        assert words(option, "suites")[-1] == "suites"
        assert len(words(option, "suites")) == len(words()) + 2


def test_pytest_alone_says_what_goes_on(monkeypatch):
    monkeypatch.setattr(progress, "EVERY_S", -1.0)
    said = []

    def run_gate(words, *, here):
        monkeypatch.setattr(progress.StatusLine, "show", lambda self, text: said.append(text))
        progress._beat_of_newest()
        return 0

    monkeypatch.setattr("natadv.starter.run.run_gate", run_gate)

    assert cli.main(["gate"]) == 0
    assert said == []


def test_a_path_without_gates_is_an_error(words, tmp_path, capsys):
    """Others would be judged instead, or, by workers, none and nothing said."""
    write_gate(tmp_path / "suites")
    other = tmp_path / "tests" / "test_other.py"
    other.parent.mkdir()
    other.write_text("def test_one(): ...\n")

    for nothing in ("suites/test_nope.py", "suiites", "suiites/"):
        assert cli.main(["gate", "suites", nothing]) == 4
        assert "no such file or folder of gates" in capsys.readouterr().err
    for given in (["tests"], ["-x", "tests/test_other.py::test_one"], ["--no-assert", "tests"]):
        assert cli.main(["gate", *given]) == 4
        assert "holds no gate" in capsys.readouterr().err
    assert words("tests", "suites")[-2:] == ["tests", "suites"]
    # What follows the option of another plugin may be its value.
    assert words("--cov", "tests")[-1] == "suites"


def test_the_gate_of_natadv_itself_says_how_to_get_its_mini_world(
    words, tmp_path, monkeypatch, capsys
):
    package = tmp_path / "natadv" / "shipped"
    write_gate(package / "suites")
    monkeypatch.setattr(places, "package_roots", lambda: (package,))
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")

    assert cli.main(["gate", "-n", "2"]) == 4
    assert "pip install 'natadv[mini]'" in capsys.readouterr().err
    assert words("--model", "./mine", here=tmp_path / "empty")[-1] == str(package / "suites")


def test_nothing_in_a_repository_can_break_the_gate_of_natadv_itself(tmp_path):
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --no-such-option\n")
    (tmp_path / "conftest.py").write_text("raise RuntimeError\n")
    before = files_in(ROOT / "suites"), files_in(tmp_path)
    program = "import sys; from natadv.cli import main; sys.exit(main(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", program, "gate", "--collect-only", "-q"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": ""},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    tier = load_thresholds(ROOT / "thresholds.yaml").tier("mini")
    assert all(f"[{case.address}]" in done.stdout for case in tier.grid)
    assert (files_in(ROOT / "suites"), files_in(tmp_path)) == before


@pytest.mark.parametrize(
    ("given", "processes"),
    [
        ({"numprocesses": None}, ("auto", 8)),
        ({"numprocesses": None, "maxprocesses": 3}, ("auto", 3)),
        ({"numprocesses": 2}, (2, None)),
        ({"numprocesses": 0}, (0, None)),
        ({"numprocesses": None, "dist": "load", "tx": ["popen"]}, (None, None)),
    ],
)
def test_as_many_processes_work_as_fit_unless_the_user_has_chosen(given, processes):
    option = SimpleNamespace(**{"dist": "no", "tx": [], "maxprocesses": None, **given})
    hook = Workers().pytest_cmdline_main(SimpleNamespace(option=option))
    next(hook)

    assert (option.numprocesses, option.maxprocesses) == processes
    # Without pytest-xdist there is nothing to choose.
    next(Workers().pytest_cmdline_main(SimpleNamespace(option=SimpleNamespace())))

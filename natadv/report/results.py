"""Files that the controller adds to an Allure results folder: environment, executor, categories,
and a result for each gate that never reported."""

from __future__ import annotations

import hashlib
import json
import os
import string
import time
import uuid
from collections.abc import Mapping
from pathlib import Path

from natadv.errors import ReportError
from natadv.report.terminal import SHORT, Row
from natadv.types import Case, Measurement

CATEGORIES = (
    {
        "name": "Regressions (worse than the baseline)",
        "matchedStatuses": ["failed"],
        "messageRegex": "^[\\s\\S]*REGRESSION [\\s\\S]*$",
    },
    {
        "name": "Floors violated",
        "matchedStatuses": ["failed"],
        "messageRegex": "^(?![\\s\\S]*REGRESSION )[\\s\\S]*[<>] (floor|ceiling) [\\s\\S]*$",
    },
    {
        "name": "Too few samples to tell",
        "matchedStatuses": ["failed"],
        "messageRegex": "^(?![\\s\\S]*(REGRESSION |[<>] (floor|ceiling) ))"
        "[\\s\\S]*too close to (floor|ceiling) [\\s\\S]*$",
    },
    {"name": "Infrastructure (not measured as planned)", "matchedStatuses": ["broken"]},
)
"""Worst first; no message matches two of them. Java (Allure 2, whole message) and JavaScript
(Allure 3, anywhere in it) read the patterns alike."""

ENVIRONMENT = "environment.properties"

RESULT_FILES = (
    "*-result.json",
    "*-container.json",
    "*-attachment",
    "*-attachment.*",
    "*-globals.json",
    "categories.json",
    ENVIRONMENT,
    "executor.json",
)
"""What Allure's integrations and this module write."""

UNESCAPED = frozenset(string.ascii_letters + string.digits + "._-+/,()[]")


def empty_results(folder: Path) -> None:
    """Remove earlier results and nothing else: the folder may hold files of the user. To be called
    by the controller only, or a replaced worker would delete the results of its own run.

    Raises:
        ReportError: Old results would stay, or new ones could not be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for pattern in RESULT_FILES:
            for path in folder.glob(pattern):
                path.unlink()
    except OSError as error:
        raise ReportError(
            f"{folder}: cannot hold Allure results: {error}; give another --alluredir DIR"
        ) from error


def write_environment(folder: Path, facts: Mapping[str, str]) -> None:
    """Write the table of names and values that Allure shows beside the results."""
    lines = [f"{_escaped(name)}={_escaped(value)}" for name, value in sorted(facts.items())]
    (folder / ENVIRONMENT).write_text("\n".join(lines) + "\n", encoding="latin-1")


def _escaped(text: str) -> str:
    """For java.util.Properties: each character that may have a meaning, as its UTF-16 number."""
    utf_16 = text.encode("utf-16-be", "surrogatepass")
    numbers = [int.from_bytes(utf_16[i : i + 2], "big") for i in range(0, len(utf_16), 2)]
    return "".join(chr(n) if chr(n) in UNESCAPED else f"\\u{n:04x}" for n in numbers)


def write_categories(folder: Path) -> None:
    """Write `CATEGORIES`, by which Allure groups what is not green."""
    (folder / "categories.json").write_text(json.dumps(CATEGORIES, indent=2))


def write_executor(folder: Path) -> None:
    """Write where the run took place."""
    executor = {"name": "local", "type": "local", "buildName": "local run"}
    if url := run_url():
        name = url.rpartition("/")[2]
        executor = {"name": "GitHub Actions", "type": "github", "buildUrl": url, "buildName": name}
    (folder / "executor.json").write_text(json.dumps(executor))


def run_url() -> str | None:
    """The page of this run, which GitHub Actions states in environment variables."""
    names = ("GITHUB_SERVER_URL", "GITHUB_REPOSITORY", "GITHUB_RUN_ID")
    server, repository, run = (os.environ.get(name) for name in names)
    return f"{server}/{repository}/actions/runs/{run}" if server and repository and run else None


def write_missing(folder: Path, case: Case, *, node: str, reason: str) -> None:
    """Write a broken result for a gate that was collected and never reported, e.g. because its
    worker died. Its history is that of the result which the gate would have written."""
    path, _, name = node.partition("::")
    function = name.partition("[")[0]
    full_name = f"{path.removesuffix('.py').replace('/', '.')}#{function}"
    now_ms = int(time.time() * 1000)
    result = {
        "uuid": str(uuid.uuid4()),
        "name": case.address,
        "fullName": full_name,
        "historyId": hashlib.md5(f"{full_name}{case.address}".encode()).hexdigest(),
        "status": "broken",
        "stage": "finished",
        "statusDetails": {"message": reason},
        "start": now_ms,
        "stop": now_ms,
        "parameters": [{"name": "case", "value": case.address}],
        "labels": [{"name": name, "value": value} for name, value in labels(case).items()],
    }
    (folder / f"{result['uuid']}-result.json").write_text(json.dumps(result))


def labels(case: Case) -> dict[str, str]:
    """The labels by which a report groups cases."""
    return {
        "model": case.model,
        "scenario": case.scenario,
        "task": case.task,
        "dataset": case.dataset,
        "parentSuite": case.model,
        "suite": case.task,
        "subSuite": case.scenario,
        "epic": case.task,
        "feature": case.scenario,
        "story": case.dataset,
    }


def parameters(row: Row, measured: Measurement) -> dict[str, str]:
    """The parameters by which Allure shows a row of the terminal that has a measurement."""
    name = SHORT.get(row.metric, row.metric)
    interval = f"[{measured.low:.4f}, {measured.high:.4f}]"
    if row.margin is None:
        return {name: f"{measured.value:.4f} {interval}, n {measured.n}"}
    return {
        name: f"{measured.value:.4f}",
        f"{name} interval": interval,
        f"{name} {'floor' if '>' in row.bound else 'ceiling'}": row.bound,
        f"{name} margin": f"{row.margin:+.4f}",
        f"{name} n": str(measured.n),
    }

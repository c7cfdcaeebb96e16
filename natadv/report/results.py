"""What the controller adds to an Allure results folder: environment, executor, categories, and the
gates that never reported."""

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
from natadv.types import Case

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
"""Worst first, and no message falls into two. Java (Allure 2, whole message) and JavaScript
(Allure 3, anywhere in it) read the patterns alike."""

ENVIRONMENT = "environment.properties"

WRITTEN = (
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

PLAIN = frozenset(string.ascii_letters + string.digits + "._-+/,()[]")


def empty_results(folder: Path) -> None:
    """Remove earlier results, and nothing else: the folder is the user's choice. Only the
    controller may, or a replaced worker would wipe a run.

    Raises:
        ReportError: Old results would stay, or new ones could not be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for pattern in WRITTEN:
            for path in folder.glob(pattern):
                path.unlink()
    except OSError as error:
        raise ReportError(
            f"{folder}: cannot hold Allure results: {error}; give another --alluredir DIR"
        ) from error


def write_environment(folder: Path, facts: Mapping[str, str]) -> None:
    lines = [f"{_escaped(name)}={_escaped(value)}" for name, value in sorted(facts.items())]
    (folder / ENVIRONMENT).write_text("\n".join(lines) + "\n", encoding="latin-1")


def _escaped(text: str) -> str:
    """As java.util.Properties reads it: whatever might mean something, by its UTF-16 number."""
    utf_16 = text.encode("utf-16-be", "surrogatepass")
    numbers = [int.from_bytes(utf_16[i : i + 2], "big") for i in range(0, len(utf_16), 2)]
    return "".join(chr(n) if chr(n) in PLAIN else f"\\u{n:04x}" for n in numbers)


def write_categories(folder: Path) -> None:
    (folder / "categories.json").write_text(json.dumps(CATEGORIES, indent=2))


def write_executor(folder: Path) -> None:
    """Where the run took place; GitHub Actions tells by environment variables."""
    server, repository = os.environ.get("GITHUB_SERVER_URL"), os.environ.get("GITHUB_REPOSITORY")
    run = os.environ.get("GITHUB_RUN_ID")
    if server and repository and run:
        url = f"{server}/{repository}/actions/runs/{run}"
        executor = {"name": "GitHub Actions", "type": "github", "buildUrl": url, "buildName": run}
    else:
        executor = {"name": "local", "type": "local", "buildName": "local run"}
    (folder / "executor.json").write_text(json.dumps(executor))


def write_missing(folder: Path, case: Case, *, node: str, reason: str) -> None:
    """A broken result for a gate that was collected and never reported, e.g. its worker died."""
    path, _, name = node.partition("::")
    function = name.partition("[")[0]
    full_name = f"{path.removesuffix('.py').replace('/', '.')}#{function}"
    now = int(time.time() * 1000)
    parameter = {"name": "case", "value": case.address}
    result = {
        "uuid": str(uuid.uuid4()),
        "name": case.address,
        "fullName": full_name,
        "historyId": hashlib.md5(f"{full_name}{case.address}".encode()).hexdigest(),
        "status": "broken",
        "stage": "finished",
        "statusDetails": {"message": reason},
        "start": now,
        "stop": now,
        "parameters": [parameter],
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

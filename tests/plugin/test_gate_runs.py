"""The gate as its user runs it: verdicts, resuming, selecting, and the same bytes for any -n."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest

from natadv import cli
from natadv.evidence import read_selection
from natadv.gate.waivers import today_utc
from natadv.plugin import options

UNITS = 2 * (3 + 3 + 3 + 3)
"""Two models; three shards each of the clean pictures, the attacked ones and two controls."""


def test_a_good_model_passes_and_the_summary_is_complete(world, verified):
    done = world.pytest("-n", "0")

    assert done.returncode == 0, done.stdout
    # Rules that hold are shown on request.
    assert "PASS " not in done.stdout
    assert f"natadv: computes {UNITS} of {UNITS} units (0 stored), " in done.stdout
    assert f"PASS: 4 cases of tier mini, {UNITS} units computed" in done.stdout
    assert f"natadv: units {UNITS}/{UNITS} (0 cached), " in done.stdout
    assert "images/s" in done.stdout
    verdict = world.verdict()
    assert verdict["verdict"] == "pass"
    assert [c["case"] for c in verdict["cases"]] == [
        "classification/clean/plain/mini-clip",
        "classification/clean/plain/mini-siglip",
        "classification/typographic/plain-typo/mini-clip",
        "classification/typographic/plain-typo/mini-siglip",
    ]
    assert {c["measurements"][0]["contract_rule"]["line"] for c in verdict["cases"]} == {8, 9}
    assert verified(world.root).recomputed.verdict == "pass"


def test_any_number_of_workers_gives_the_same_bytes(measured):
    def results():
        verdict = measured.verdict()
        assert verdict.pop("run")["units_computed"] == UNITS
        return verdict, measured.outcome_bytes()

    alone = results()
    assert all(alone[1].values())
    for workers in ("2", "4"):
        done = measured.pytest("-n", workers, "--store", f"store-{workers}")
        assert done.returncode == 0, done.stdout
        assert results() == alone, workers


def test_a_second_run_computes_nothing(measured):
    encoded = len(measured.logged("encode"))
    done = measured.pytest("-n", "2")

    assert done.returncode == 0
    assert measured.verdict()["run"]["units_computed"] == 0
    assert len(measured.logged("encode")) == encoded
    assert f"natadv: {UNITS} units, all stored: nothing to compute" in done.stdout


def test_a_suite_of_a_task_outside_the_tier_is_not_shown_as_skipped(measured):
    suite = (measured.root / "suites" / "test_classification.py").read_text()
    (measured.root / "suites" / "test_vqa.py").write_text(suite.replace("classification", "vqa"))
    done = measured.pytest("-n", "2")

    assert done.returncode == 0, done.stdout
    assert "4 passed" in done.stdout
    assert "skipped" not in done.stdout


def test_a_selection_computes_only_what_it_needs(world):
    done = world.pytest("-n", "0", "-k", "clean and mini-clip")

    assert done.returncode == 0
    assert world.verdict()["run"]["units_computed"] == 3
    assert {event["model"] for event in world.logged("encode")} == {"mini-clip"}


def test_the_clean_twins_of_an_attacked_case_are_measured_too(world):
    done = world.pytest("-n", "0", "--scenario", "typographic", "--model", "mini-clip")

    assert done.returncode == 0
    found = {m["metric"] for m in world.verdict()["cases"][0]["measurements"]}
    assert {"accuracy_drop", "occlusion_drop", "matched_drop", "reading_drop"} <= found
    folders = {p.name for p in (world.root / ".natadv" / "evidence").iterdir()}
    assert "classification__clean__plain__mini-clip" in folders


def test_a_picture_is_encoded_once_for_prompts_and_later_runs(measured):
    card = measured.root / "thresholds.yaml"
    card.write_text(card.read_text().replace("top1, floor: 0.2", "accuracy_drop, ceiling: 0.9"))
    encoded = len(measured.logged("encode"))

    assert measured.pytest("-n", "0").returncode == 0
    assert len(measured.logged("encode")) == encoded


def test_a_worse_checkpoint_of_the_same_architecture_is_caught_and_named(world):
    worse = world.model("tuned", blind=True)
    done = world.pytest("-n", "0", "--model", str(worse))

    assert done.returncode == 1
    assert re.search(
        r"^classification/clean/plain/tuned\nFAIL +top1 +0\.000 .* >= 0\.900 ", done.stdout, re.M
    )
    assert world.verdict()["verdict"] == "fail"


def test_an_equal_checkpoint_inherits_the_floors_and_passes(world):
    same = world.model("tuned", blind=False)
    done = world.pytest("-n", "0", "--model", os.path.relpath(same, world.root))

    assert done.returncode == 0, done.stdout
    assert {c["lineage"] for c in world.verdict()["cases"]} == {"mini-clip"}


def test_a_run_that_was_killed_goes_on(world, tmp_path):
    command = world.command("-n", "0")
    environment = world.environment({"FAKE_STOP": str(tmp_path / "stop")})
    # The next load of a model hangs, once: the other model's units are stored by then.
    first = world.pytest("-n", "0", "--model", "mini-clip")
    assert first.returncode == 0
    process = subprocess.Popen(command, cwd=world.root, env=environment, stdout=subprocess.DEVNULL)
    _wait_until(lambda: (tmp_path / "stop").exists())
    process.send_signal(signal.SIGKILL)
    process.wait()

    done = world.pytest("-n", "0")

    assert done.returncode == 0, done.stdout
    assert world.verdict()["run"]["units_computed"] == UNITS // 2
    assert len({json.dumps(e, sort_keys=True) for e in world.logged("load")}) == 2


def test_two_runs_on_one_store_are_both_right(world):
    processes = [
        subprocess.Popen(
            world.command(
                "-n",
                "0",
                "--gate-json",
                f"gate-{i}.json",
                "--evidence",
                f"ev-{i}",
                "--alluredir",
                f"allure-{i}",
            ),
            cwd=world.root,
            env=world.environment(),
            stdout=subprocess.PIPE,
            text=True,
        )
        for i in range(2)
    ]
    outputs = [p.communicate(timeout=120)[0] for p in processes]

    assert [p.returncode for p in processes] == [0, 0], outputs
    verdicts = [json.loads((world.root / f"gate-{i}.json").read_text()) for i in range(2)]
    assert sum(v.pop("run")["units_computed"] for v in verdicts) == UNITS
    assert verdicts[0] == verdicts[1]


def test_a_card_in_another_folder_is_a_usage_error(world):
    (world.root / "fixtures/datasets/plain").rename(world.root / "fixtures/datasets/other")
    done = world.pytest("-n", "0", "--no-assert", "--limit", "10", "--dataset", "plain-typo")

    assert done.returncode == 4
    assert "name is 'plain', the folder is 'other'" in done.stderr


def test_no_assert_measures_a_dataset_that_no_rule_covers(measured):
    rules = measured.root / "thresholds.yaml"
    text = rules.read_text().replace("classification/clean/plain, ", "")
    rules.write_text("".join(line for line in text.splitlines(True) if "clean" not in line))
    asserted = measured.pytest("-n", "0", "--dataset", "plain")
    shown = measured.pytest("-n", "0", "--dataset", "plain", "--no-assert")

    assert asserted.returncode == 1
    assert "no rule covers this case" in asserted.stdout
    assert shown.returncode == 0
    assert "MEASURED: 2 cases" in shown.stdout


def test_a_limit_that_the_tier_does_not_set_is_not_green(world):
    done = world.pytest("-n", "0", "--limit", "30")

    assert done.returncode == 1
    assert "expected 600 samples, got 30 and 0 errors" in " ".join(done.stdout.split())
    assert world.verdict()["verdict"] == "incomplete"

    # Where nobody has the cards, measured rows tell of their own number only.
    assert world.pytest("-n", "0", "--no-assert", "--limit", "30").returncode == 0
    run = read_selection(world.root / ".natadv" / "evidence")
    assert run is not None
    assert run.problems == ("INCOMPLETE: --limit 30 left samples of plain, plain-typo out",)


def test_the_baseline_catches_a_loss_that_the_floors_allow(measured, capsys, verified):
    world = measured
    run = [str(world.root / ".natadv/evidence"), "--gate-json", str(world.root / "gate.json")]
    assert cli.main(["bless", *run, "--as", "before", "--root", str(world.root)]) == 0
    assert "before: 4 cases, 2,400 rows" in capsys.readouterr().out
    rules = world.root / "thresholds.yaml"
    rules.write_text(rules.read_text().replace("floor: 0.9, min_n: 500", "floor: 0.0001"))
    rules.write_text(rules.read_text().replace("floor: 0.2", "floor: 0.0001"))
    half = world.model("half", blind=True)

    done = world.pytest("-n", "0", "--model", str(half), "--baseline", "before")
    failed = verified(world.root, baseline="baselines/before")
    absent = world.pytest("-n", "0", "--baseline", "nowhere")

    assert done.returncode == 1
    assert re.search(
        r"^classification/clean/plain/half\nFAIL +baseline .*\n +REGRESSION ", done.stdout, re.M
    )
    steps = done.stdout.partition("\nnext:\n")[2]
    assert steps.startswith("  natadv compare before .natadv/evidence  # which samples")
    assert not re.search("^FAIL: .* hold", done.stdout, re.M)
    assert absent.returncode == 4
    assert "nowhere: no such folder of evidence, and baselines/ has before" in absent.stderr
    # What each run wrote is what its rows lead to.
    assert failed.gate.verdict == failed.recomputed.verdict == "fail"
    (clean, _) = failed.gate.cases
    assert clean.case == "classification/clean/plain/half"
    (lost,) = [row.baseline for row in clean.broken if row.metric == "baseline"]
    assert lost.newly_failing > lost.newly_passing == 0
    assert clean.sheet == ".natadv/sheets/classification__clean__plain__half.png"
    assert f"sheets/{Path(clean.sheet).name}" in failed.files


def test_a_case_that_the_baseline_lacks_is_listed_as_new(measured, verified):
    world, older = measured, measured.root / "older"
    shutil.copytree(world.root / ".natadv/evidence", older)
    typographic = "classification/typographic/plain-typo/mini-clip"
    shutil.rmtree(older / typographic.replace("/", "__"))
    refused = world.pytest("-n", "0", "--baseline", "older")
    (older / "run.json").unlink()

    done = world.pytest("-n", "0", "--baseline", "older", "-v")

    # What run.json names must be there: a case that was removed spares no comparison.
    assert refused.returncode == 4
    assert f"older: lacks {typographic}, which it says it holds" in refused.stderr
    assert done.returncode == 0, done.stdout
    # A comparison that passed leaves its trace too.
    assert re.search(
        r"^classification/clean/plain/mini-clip\nPASS .*\nPASS +baseline +0\.000 ",
        done.stdout,
        re.M,
    )
    assert f"NEW {typographic}: not in the baseline yet" in " ".join(done.stdout.split())
    cases = {case["case"]: case["measurements"] for case in world.verdict()["cases"]}
    (row,) = [m for m in cases[typographic] if m["metric"] == "baseline"]
    assert row["verdict"] is None
    assert "not in the baseline yet" in row["reason"]
    passed = verified(world.root, baseline="older")
    assert passed.gate.verdict == passed.recomputed.verdict == "pass"
    assert passed.gate.baseline == "older"


def test_a_regression_is_a_failure_where_the_rules_cannot_tell(measured):
    world = measured
    rules = world.root / "thresholds.yaml"
    shutil.copytree(world.root / ".natadv/evidence", world.root / "before")
    half = world.model("half", blind=True)
    # In the middle of its interval, so that the rule alone is inconclusive.
    clean = world.pytest("-n", "0", "--model", str(half), "--no-assert")
    assert clean.returncode == 0, clean.stdout
    value = next(
        m["value"]
        for case in world.verdict()["cases"]
        if "/clean/" in case["case"]
        for m in case["measurements"]
        if m["metric"] == "top1"
    )
    text = rules.read_text().replace("floor: 0.9, min_n: 500", f"floor: {max(value, 0.001)}")
    rules.write_text(text.replace("floor: 0.2", "floor: 0.0001"))

    done = world.pytest("-n", "0", "--model", str(half), "--baseline", "before")

    verdict = world.verdict()
    assert done.returncode == 1
    assert verdict["verdict"] == "fail"
    assert "\nFAIL: " in done.stdout
    assert " hold" not in verdict["selection"]["extent"]
    regressed = {c["case"]: c for c in verdict["cases"]}["classification/clean/plain/half"]
    assert (regressed["verdict"], regressed["green"]) == ("FAIL", False)


def test_a_waived_failure_is_green_and_is_named_everywhere(measured, verified):
    known, other = (
        f"classification/typographic/plain-typo/{m}" for m in ("mini-clip", "mini-siglip")
    )
    shutil.copytree(measured.root / ".natadv/evidence", measured.root / "before")
    until = today_utc() + timedelta(days=30)
    rules = measured.root / "thresholds.yaml"
    waiver = "{{case: {}, reason: known, owner: jane, issue: '#7', expires: {}}}"
    rules.write_text(
        f"{rules.read_text()}"
        f"  - {{case: {known}, metric: top1, floor: 0.999, source: release 4}}\n"
        f"  - {{case: {other}, metric: top1, floor: 0.1, at: value, source: quick}}\n"
        f"  - {{case: {other}, metric: top1, max_regression: 0.05, source: no step back}}\n"
        f"waivers: [{waiver.format(known, until)}, {waiver.format(other, '2026-01-01')}]\n"
    )

    done = measured.pytest("-n", "2", "--baseline", "before", "-v")

    assert done.returncode == 0, done.stdout
    told = " ".join(done.stdout.split())
    assert f" {known} WAIVED top1 " in told
    assert f"; waived by jane until {until}: known (#7)" in told
    assert f"waiver of {other} by jane expired on 2026-01-01" in told
    assert re.search(r"^PASS +top1 .* >= 0\.100 at value ", done.stdout, re.M)
    assert re.search(r"^PASS +top1 loss +0\.000 .* <= 0\.050 ", done.stdout, re.M)
    named = f"; waived: {known} (jane until {until}); 1 rule at value, without confidence; "
    assert re.search(rf" WAIVED: 4 cases of tier mini.*{re.escape(named)}", told)
    verdict = measured.verdict()
    assert verdict["verdict"] == "waived"
    assert verdict["run"]["date"] == str(until - timedelta(days=30))
    assert [(w["case"], w["state"]) for w in verdict["waivers"]] == [
        (known, "applied"),
        (other, "expired"),
    ]
    cases = {case["case"]: case for case in verdict["cases"]}
    assert (cases[known]["green"], cases[known]["waiver"]["expires"]) == (True, str(until))
    assert cases[known]["verdict"] != "PASS"
    assert cases[other]["waiver"] is None
    found = verified(measured.root, baseline="before")
    assert found.gate.verdict == found.recomputed.verdict == "waived"


def test_a_baseline_without_a_judgement_is_a_contradiction(measured):
    shutil.copytree(measured.root / ".natadv/evidence", measured.root / "before")
    done = measured.pytest("-n", "0", "--baseline", "before", "--no-assert")

    assert done.returncode == 4
    assert "--baseline asks for a judgement, --no-assert for none; leave one" in done.stderr


def test_collecting_is_light(world):
    script = (
        "import sys, pytest; "
        # Hypothesis' own plugin would load it.
        "off = ['-p', 'no:hypothesispytest']; "
        "code = pytest.main(['suites', '--collect-only', '-q', *off]); "
        "heavy = {'torch', 'transformers', 'open_clip', 'pyarrow', 'dvc', 'hypothesis', "
        "'matplotlib'}; "
        "print('HEAVY', sorted(heavy & set(sys.modules))); sys.exit(code)"
    )
    (world.root / "conftest.py").write_text('pytest_plugins = ["natadv.pytest_plugin"]\n')
    shutil.rmtree(world.root / ".natadv")
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=world.root, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "HEAVY []" in done.stdout
    assert "4 tests collected" in done.stdout
    assert not (world.root / "gate.json").exists()
    assert not (world.root / ".natadv").exists()


def test_modes_that_only_list_compute_nothing(measured):
    before = (measured.root / "gate.json").read_bytes()
    units = len(measured.logged("encode"))
    for mode in ("--collect-only", "--fixtures", "--setup-plan", "--setup-only"):
        done = measured.pytest("-n", "0", mode)

        assert done.returncode in (0, 5), mode
        assert (measured.root / "gate.json").read_bytes() == before, mode
        assert len(measured.logged("encode")) == units, mode


@pytest.mark.parametrize("modes", [options.LISTING_MODES, options.HELP_MODES])
def test_the_flags_of_a_mode_are_those_of_pytest(modes, pytestconfig):
    """Before pytest parses its options they are looked up by flag, and later by name."""
    for name, flags in modes.items():
        for flag in flags:
            chosen = pytestconfig._parser.parse_known_args([flag])
            assert getattr(chosen, name), flag


def test_the_plugin_leaves_other_test_runs_alone(world):
    (world.root / "unrelated").mkdir()
    (world.root / "unrelated" / "test_it.py").write_text("def test_it():\n    assert True\n")
    command = [sys.executable, "-m", "pytest", "unrelated", "-q"]
    done = subprocess.run(
        command,
        cwd=world.root,
        capture_output=True,
        text=True,
        env=world.environment(),
        check=False,
    )

    assert done.returncode == 0
    assert "natadv" not in done.stdout
    assert not (world.root / "allure-results").exists()


def test_junit_holds_the_measurements(measured, tmp_path):
    done = measured.pytest("-n", "2", "--junitxml", str(tmp_path / "junit.xml"))

    assert done.returncode == 0, done.stdout
    text = (tmp_path / "junit.xml").read_text()
    assert '<property name="top1" value="1.0"' in text


def _wait_until(holds, *, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.02)


def test_workers_of_other_tests_keep_their_environment(world):
    tests = world.root / "others"
    tests.mkdir()
    (tests / "test_it.py").write_text(
        "import os\ndef test_it():\n    assert 'PYTEST_XDIST_WORKER' in os.environ\n"
        "    assert 'HF_HUB_OFFLINE' not in os.environ\n"
    )
    environment = world.environment(None)
    environment.pop("HF_HUB_OFFLINE", None)
    command = [*world.command("-n", "1")]
    # The options of the gate are refused where there is none.
    at = command.index(str(world.root / "suites"))
    assert command[at + 1 : at + 3] == ["--device", "cpu"]
    command[at : at + 3] = [str(tests)]

    done = subprocess.run(
        command, cwd=world.root, env=environment, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout

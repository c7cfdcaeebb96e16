"""Each way in which a gate could say yes without knowing: none of them is green."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys

import pytest

TYPO_CLIP = "classification/typographic/plain-typo/mini-clip"
EVIDENCE = f"{TYPO_CLIP.replace('/', '__')}/manifest.json"


def test_a_worker_that_dies_costs_one_unit_and_no_verdict(world, tmp_path):
    done = world.pytest("-n", "2", env={"FAKE_CRASH_ONCE": str(tmp_path / "crashed")})

    assert done.returncode == 0, done.stdout
    assert (tmp_path / "crashed").exists()
    verdict = world.verdict()
    assert verdict["verdict"] == "pass"
    assert verdict["run"]["workers_lost"] == 1
    assert verdict["run"]["units_computed"] == 24
    assert len(world.allure()) == 4


def test_a_unit_that_kills_every_worker_fails_its_own_gates_only(world):
    done = world.pytest("-n", "2", env={"FAKE_POISON": "mini-clip"})

    assert done.returncode == 1
    assert "a worker died 2 times computing classification/plain/mini-clip" in " ".join(
        done.stdout.split()
    )
    verdicts = {c["case"]: c["verdict"] for c in world.verdict()["cases"]}
    assert [v for k, v in verdicts.items() if "mini-siglip" in k] == ["PASS", "PASS"]
    assert [v for k, v in verdicts.items() if "mini-clip" in k] == ["INCOMPLETE", "INCOMPLETE"]


def test_all_workers_lost_is_not_green_and_says_why(world):
    done = world.pytest("-n", "2", "--max-worker-restart", "0", env={"FAKE_POISON": "mini-clip"})

    assert done.returncode != 0
    assert "PASS:" not in done.stdout


def test_a_unit_that_hangs_is_given_up(world):
    done = world.pytest("-n", "2", "--unit-timeout", "1", env={"FAKE_HANG": "mini-siglip"})

    assert done.returncode == 1
    assert "a worker died 2 times computing classification/plain/mini-siglip" in " ".join(
        done.stdout.split()
    )
    verdicts = {c["case"]: c["verdict"] for c in world.verdict()["cases"]}
    assert verdicts["classification/clean/plain/mini-clip"] == "PASS"


def test_a_model_that_raises_is_broken_not_failed(world, verified):
    done = world.pytest("-n", "0", env={"FAKE_ERROR": "mini-clip"})

    assert done.returncode == 1
    assert "CUDA out of memory (planted)" in " ".join(done.stdout.split())
    assert "Traceback" not in done.stdout
    status = {r["name"]: r["status"] for r in world.allure()}
    assert status[TYPO_CLIP] == "broken"
    assert status[TYPO_CLIP.replace("clip", "siglip")] == "passed"
    assert verified(world.root).gate.verdict == "incomplete"


def test_an_error_of_an_earlier_run_is_not_remembered(world):
    assert world.pytest("-n", "0", env={"FAKE_ERROR": "mini-clip"}).returncode == 1

    assert world.pytest("-n", "0").returncode == 0


def test_a_gate_whose_worker_dies_is_missed_and_shown(world, verified):
    suite = world.root / "suites" / "test_classification.py"
    suite.write_text(
        suite.read_text().replace(
            "    gate.check(case)",
            "    import os\n    if 'clean' in case.address and case.model == 'mini-clip':\n"
            "        os._exit(1)\n    gate.check(case)",
        )
    )
    done = world.pytest("-n", "2")

    assert done.returncode == 1
    status = {r["name"]: r["status"] for r in world.allure()}
    assert status["classification/clean/plain/mini-clip"] == "broken"
    assert len(status) == 4
    found = verified(world.root)
    # The rows are there, as a gate only reads them; that nobody reported it is kept beside them.
    assert (found.gate.verdict, found.recomputed.verdict) == ("incomplete", "incomplete")
    assert "the gate never reported" in found.gate.problems[0]


@pytest.mark.parametrize("line", ["pytest.skip('not today')", "return"])
def test_a_gate_that_skips_or_does_not_judge_is_not_green(world, line):
    suite = world.root / "suites" / "test_classification.py"
    text = suite.read_text().replace("    gate.check(case)", f"    {line}\n    gate.check(case)")
    suite.write_text(text)
    worse = world.model("tuned", blind=True)
    done = world.pytest("-n", "0", "--model", str(worse))

    assert done.returncode == 1
    assert world.verdict()["verdict"] == "incomplete"


def test_a_case_that_no_suite_asks_for_is_missed(measured):
    conftest = measured.root / "conftest.py"
    lost = "def pytest_collection_modifyitems(items):\n    del items[0]\n"
    conftest.write_text(conftest.read_text() + lost)
    done = measured.pytest("-n", "0")

    assert done.returncode == 1
    assert "classification/clean/plain/mini-clip: no suite asks for it" in " ".join(
        done.stdout.split()
    )


def test_a_part_of_the_tier_does_not_pass_for_the_whole(measured):
    done = measured.pytest("-n", "0", "-k", "clean and mini-clip")

    assert done.returncode == 0
    assert "PARTIAL: 1 of 4 cases of tier mini hold" in done.stdout
    assert measured.verdict()["whole_tier"] is False


def test_an_empty_selection_is_not_green(measured):
    done = measured.pytest("-n", "0", "-k", "nothing_of_that_name")

    assert done.returncode == 1
    assert "no gate was selected" in done.stdout


WRONG = (
    (("--model", "mini-clipp"), "unknown model 'mini-clipp', did you mean 'mini-clip'"),
    (("--task", "classificaton"), "unknown task 'classificaton', did you mean"),
    (("--scenario", "typografic"), "unknown scenario 'typografic', did you mean 'typographic'"),
    (("--tier", "minni"), "unknown tier 'minni', did you mean 'mini'"),
    (("--dataset", "plane"), "unknown dataset 'plane', did you mean 'plain'"),
    (("--thresholds", "no.yaml"), "no.yaml: cannot be read"),
    (("--store", "/proc/nowhere/store"), "cannot write /proc/nowhere/store"),
    (("--limit", "0"), "expected a whole number from 1 on, got '0'"),
    (("--task", "vqa"), "tier 'mini' holds no case for --task vqa"),
    (("--dist", "worksteal", "-n", "2"), "--dist worksteal loses gates"),
)


def test_a_wrong_option_is_one_usage_error(world):
    runs = world.refused(*(arguments for arguments, _ in WRONG))

    for done, (arguments, message) in zip(runs, WRONG, strict=True):
        assert done.returncode == 4, arguments
        assert message in done.stderr
        assert "Traceback" not in done.stderr + done.stdout, arguments
        assert not done.verdict_stays, arguments


def test_a_flipped_byte_in_a_dataset_is_not_measured(world):
    shard = next((world.root / "fixtures/datasets/plain").glob("*.parquet"))
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(bytes(data))
    done = world.pytest("-n", "0")

    assert done.returncode == 1
    assert f"{shard.name}: sha256 is" in " ".join(done.stdout.split())
    assert world.verdict()["verdict"] == "incomplete"


def test_everything_that_is_missing_is_said_at_once_before_anything_is_computed(world, tmp_path):
    for name in ("plain", "plain-typo"):
        (world.root / f"fixtures/datasets/{name}/card.yaml").unlink()
    log = tmp_path / "log"
    done = world.pytest("-n", "2", env={"FAKE_LOG": str(log)})

    assert done.returncode == 4
    assert "tier mini lacks 2 things, and nothing was computed" in done.stderr
    for name in ("plain", "plain-typo"):
        assert f"  # dataset {name}\n  dvc pull fixtures/datasets/{name}\n" in done.stderr + "\n"
    assert not log.exists()
    assert not (world.root / "gate.json").exists()


def test_some_tests_of_a_run_miss_only_what_they_need(world):
    (world.root / "fixtures/datasets/plain-typo/card.yaml").unlink()
    done = world.pytest("-n", "0", "-k", "clean or mini-clip")

    assert done.returncode == 1
    told = "dataset 'plain-typo' is not at fixtures/datasets/plain-typo; natadv data status says"
    assert told in " ".join(done.stdout.split())
    verdicts = {c["case"]: c["verdict"] for c in world.verdict()["cases"]}
    assert verdicts["classification/clean/plain/mini-siglip"] == "PASS"


def test_a_stale_verdict_does_not_outlive_a_run_that_broke_off(measured):
    done = measured.pytest("-n", "0", "-p", "no:terminal", "-k", "nothing")

    assert done.returncode == 1
    assert measured.verdict()["verdict"] == "incomplete"


def test_a_result_in_another_units_place_is_computed_again(measured):
    before = measured.outcome_bytes()
    units = sorted((measured.root / ".natadv/store/units").glob("*/*"))
    units[0].write_text(units[1].read_text())
    done = measured.pytest("-n", "0")

    assert done.returncode == 0
    assert "1 stored results were no longer as they were written" in done.stdout
    assert measured.verdict()["run"]["units_computed"] == 1
    assert measured.outcome_bytes() == before


def test_a_worker_keeps_its_gpu_and_the_callers_list_is_respected(world, tmp_path):
    done = world.pytest(
        "-n",
        "2",
        env={"CUDA_VISIBLE_DEVICES": "5,GPU-2", "FAKE_CRASH_ONCE": str(tmp_path / "crashed")},
    )

    assert done.returncode == 0, done.stdout
    gpus = {e["worker"]: e["gpu"] for e in world.logged("load")}
    assert set(gpus.values()) == {"5", "GPU-2"}
    assert gpus.get("gw2") in {"5", "GPU-2", None}
    lost = ({"gw0", "gw1", "gw2"} - set(gpus)) or {"gw0", "gw1"}
    assert lost


def test_the_history_of_a_case_survives_a_new_measurement(measured):
    before = {r["name"]: r["historyId"] for r in measured.allure()}
    rules = measured.root / "thresholds.yaml"
    rules.write_text(rules.read_text().replace("floor: 0.9,", "floor: 0.8,"))
    measured.pytest("-n", "0")

    assert {r["name"]: r["historyId"] for r in measured.allure()} == before
    assert len(before) == 4


def test_the_broken_result_of_a_silent_gate_has_the_history_of_the_gate(measured):
    reported = next(r for r in measured.allure() if r["name"] == TYPO_CLIP)
    from natadv.evidence import case_of
    from natadv.report.results import write_missing

    node = f"suites/test_classification.py::test_classification[{TYPO_CLIP}]"
    folder = measured.root / "silent"
    folder.mkdir()
    write_missing(folder, case_of(TYPO_CLIP), node=node, reason="lost")
    made = json.loads(next(folder.iterdir()).read_text())

    assert made["historyId"] == reported["historyId"]
    assert made["fullName"] == reported["fullName"]


def test_evidence_can_be_judged_again_without_torch_or_pytest(measured):
    script = (
        "import sys; from natadv.gate.__main__ import main; "
        "code = main(['--evidence', '.natadv/evidence']); "
        "print('HEAVY', sorted({'torch', 'pytest', 'transformers'} & set(sys.modules))); "
        "sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=measured.root,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "HEAVY []" in done.stdout
    assert "PASS: 4 cases of tier mini" in done.stdout


def test_a_failing_case_shows_its_pictures(world):
    worse = world.model("tuned", blind=True)
    world.pytest("-n", "0", "--model", str(worse))

    failed = [r for r in world.allure() if r["status"] == "failed"]
    assert failed
    for result in failed:
        assert "floor" in result["statusDetails"]["trace"]
        assert ".py" not in result["statusDetails"]["trace"]
        (sheet,) = [a for a in result["attachments"] if a["type"] == "image/png"]
        body = (world.root / "allure-results" / sheet["source"]).read_bytes()
        assert body.startswith(b"\x89PNG")
        assert hashlib.sha256(body).hexdigest()


def test_a_full_disk_keeps_what_is_stored_and_says_so(world):
    assert world.pytest("-n", "0", "--model", "mini-clip", "--scenario", "clean").returncode == 0
    stored = sorted((world.root / ".natadv/store/units").glob("*/*"))
    script = (
        "import resource, sys, pytest; "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000)); "
        "sys.exit(pytest.main(['suites', '-q', '--device', 'cpu']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=world.root,
        capture_output=True,
        text=True,
        env=world.environment(),
        check=False,
    )

    assert done.returncode == 1, done.stdout + done.stderr
    assert "cannot write" in done.stdout
    assert sorted((world.root / ".natadv/store/units").glob("*/*"))[: len(stored)]
    assert world.pytest("-n", "0").returncode == 0


def test_a_lack_of_memory_is_of_one_run_and_stands_in_the_evidence(world):
    def facts():
        return json.loads((world.root / ".natadv/evidence" / EVIDENCE).read_text())["facts"]

    done = world.pytest("-n", "0", env={"FAKE_MEMORY": "4"})

    assert done.returncode == 0, done.stdout
    line = "out of memory: mini-clip went on with 4 pictures at a time, in this run; the next one"
    assert line in " ".join(done.stdout.split())
    assert facts()["batch_size"] == 16
    assert facts()["smaller_batches"] == [4]
    rows = world.outcome_bytes()

    # Another run, with as much memory as was asked for, and one that is short of it again.
    for memory, computed in (("64", 24), ("64", 0)):
        done = world.pytest("-n", "0", env={"FAKE_MEMORY": memory})
        assert done.returncode == 0, done.stdout
        assert world.verdict()["run"]["units_computed"] == computed
        assert "smaller_batches" not in facts()
        assert world.outcome_bytes() == rows


def test_a_gpu_that_loses_its_workers_is_quarantined_and_the_others_go_on(
    world, world_at, measured_once
):
    measured = world_at(measured_once)
    smi = world.root / "bin" / "nvidia-smi"
    smi.parent.mkdir()
    smi.write_text("#!/bin/sh\necho 7, GPU-a, Card A, 550.1; echo 8, GPU-b, Card B, 550.1\n")
    smi.chmod(0o755)
    path = f"{smi.parent}:{os.environ['PATH']}"
    fleet = {"CUDA_VISIBLE_DEVICES": "7,8", "FAKE_BAD_GPU": "7", "PATH": path}
    done = world.pytest("-n", "2", "--device", "cuda", env=fleet)

    assert done.returncode == 0, done.stdout
    message = "GPU 7 lost its worker in 3 units that no other GPU lost"
    told = " ".join(done.stdout.split())
    assert told.count(f"QUARANTINED: {message}; no worker used it any more in this run") == 1
    run = world.verdict()["run"]
    assert (run["workers_lost"], run["units_computed"]) == (3, 24)
    assert run["quarantined_gpus"] == {"7": message.removeprefix("GPU 7 ")}
    assert world.outcome_bytes() == measured.outcome_bytes()
    # All was computed by the other one.
    hardware = {"gpu": "Card B", "driver": "550.1"}
    assert world.verdict()["numerics"]["hardware"] == [hardware]
    facts = json.loads((world.root / ".natadv/evidence" / EVIDENCE).read_text())["facts"]
    assert facts["hardware"] == [hardware]
    environment = (world.root / "allure-results/environment.properties").read_text()
    assert "gpu=Card\\u0020B\n" in environment
    assert "hardware" not in measured.verdict()["numerics"]


def test_one_process_that_loses_its_gpu_blames_no_model(world):
    env = {"CUDA_VISIBLE_DEVICES": "7", "FAKE_BAD_GPU": "7"}
    done = world.pytest("-n", "0", "--device", "cuda", env=env)

    assert done.returncode == 1
    assert {case["verdict"] for case in world.verdict()["cases"]} == {"INCOMPLETE"}
    assert "GPU 7 was lost in classification/plain/mini-" in " ".join(done.stdout.split())
    assert len(world.logged("load")) == 1

"""Each way in which a gate was once fooled, or ended badly, from outside."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from natadv.data.card import CardDraft, load_card
from natadv.data.packing import write_dataset
from natadv.data.reader import read_samples
from natadv.evaluate.code import PACKAGE
from natadv.plugin import options

CLEAN_CLIP = "classification/clean/plain/mini-clip"


# 1. Weights that are swapped


@pytest.fixture
def swappable(world):
    """A checkpoint that is bad now, and the good weights that will take its place."""
    folder = world.model("tuned", blind=True)
    good = world.root / "fixtures/models/mini-clip/model.safetensors"
    shutil.copy(good, folder / "better.safetensors")
    return folder


def test_weights_that_are_swapped_while_they_are_loaded_are_not_judged(world, swappable):
    done = world.pytest("-n", "0", "--model", str(swappable), env={"FAKE_SWAP": "1"})

    assert done.returncode == 1
    assert "model.safetensors: was written while the model was loaded" in " ".join(
        done.stdout.split()
    )
    assert {case["verdict"] for case in world.verdict()["cases"]} == {"INCOMPLETE"}


def test_weights_that_are_swapped_before_they_are_loaded_are_not_judged(world, swappable):
    done = world.pytest("-n", "0", "--model", str(swappable), env={"FAKE_EARLY": str(swappable)})

    assert done.returncode == 1
    assert f"{swappable}: its files changed after the run began" in " ".join(done.stdout.split())
    assert {case["verdict"] for case in world.verdict()["cases"]} == {"INCOMPLETE"}

    # Those that lie there now are good, and nothing is stored in their place.
    assert world.pytest("-n", "0", "--model", str(swappable)).returncode == 0


# 2. Empty values


EMPTY = (
    *("--model", "--task", "--scenario", "--dataset", "--tier", "--store", "--thresholds"),
    *("--baseline", "--evidence", "--attacks", "--sheets", "--gate-json", "--limit", "--device"),
)


@pytest.mark.parametrize("option", EMPTY)
def test_an_empty_value_is_refused(option):
    parser = pytest.Parser(_ispytest=True)
    options.add_options(parser)

    with pytest.raises(pytest.UsageError, match=option):
        parser.parse([f"{option}="])


def test_an_empty_name_among_others_is_a_usage_error(world):
    done = world.pytest("--model", " , ")

    assert done.returncode == 4
    assert "expected a value, got nothing; is a variable unset?" in done.stderr


# 3. A baseline that is the run's own evidence


def test_a_run_is_not_compared_with_itself(measured):
    (measured.root / "link").symlink_to(measured.root / ".natadv/evidence")
    before = measured.outcome_bytes()
    for baseline in (".natadv/evidence", "link"):
        done = measured.pytest("-n", "0", "--baseline", baseline)

        assert done.returncode == 4
        assert "it would be compared with itself" in done.stderr
        assert measured.outcome_bytes() == before


# 4. Results that somebody edited


def test_answers_that_are_set_right_by_hand_are_computed_again(world):
    worse = world.model("tuned", blind=True)
    assert world.pytest("-n", "0", "--model", str(worse)).returncode == 1
    for path in (world.root / ".natadv/store/units").glob("*/*"):
        path.write_text(path.read_text().replace('"correct": [0.0', '"correct": [1.0'))
        text = path.read_text()
        start = text.index('"correct": [')
        end = text.index("]", start)
        path.write_text(text[:start] + text[start:end].replace("0.0", "1.0") + text[end:])
    done = world.pytest("-n", "0", "--model", str(worse))

    assert done.returncode == 1
    assert "stored results were no longer as they were written" in " ".join(done.stdout.split())
    assert world.verdict()["verdict"] == "fail"


# 6. Verdicts of earlier runs


BROKEN_EARLY = {
    "a wrong option": ["--no-such-option"],
    "a wrong value": ["--limit", "abc"],
    "a wrong name": ["--model", "nobody"],
    "a missing contract": ["--thresholds", "no.yaml"],
    "a store that cannot be written": ["--store", "/proc/nowhere/store"],
    "evidence that cannot be written": ["--evidence", "/proc/nowhere/evidence"],
    "a scheduler that is refused": ["--dist", "worksteal", "-n", "2"],
}


def test_an_old_verdict_does_not_outlive_a_run_that_ends_early(world):
    runs = world.refused(*BROKEN_EARLY.values())

    for done, name in zip(runs, BROKEN_EARLY, strict=True):
        assert done.returncode == 4, name
        assert "Traceback" not in done.stderr + done.stdout, name
        assert not done.verdict_stays, name


def test_an_old_verdict_does_not_outlive_an_internal_error(world):
    verdict = world.root / "gate.json"
    verdict.write_text('{"verdict": "pass", "tier": "mini", "cases": []}')
    conftest = world.root / "conftest.py"
    lost = "\n\ndef pytest_sessionstart(session):\n    raise RuntimeError('planted')\n"
    conftest.write_text(conftest.read_text() + lost)
    done = world.pytest("-n", "0")

    assert done.returncode == 3
    assert not verdict.exists()


def test_a_verdict_elsewhere_is_removed_too_and_of_a_named_file_alone(world):
    for name in ("gate.json", "mine.json"):
        (world.root / name).write_text('{"verdict": "pass", "tier": "mini", "cases": []}')
    done = world.pytest("--gate-json=mine.json", "--no-such-option")

    assert done.returncode == 4
    assert not (world.root / "mine.json").exists()
    assert (world.root / "gate.json").exists()


def test_a_verdict_says_what_it_is_of(measured):
    assert measured.pytest("-n", "0", "--task", "classification").returncode == 0
    verdict = measured.verdict()
    contract = measured.root / "thresholds.yaml"
    told = subprocess.run(["sha256sum", str(contract)], capture_output=True, text=True, check=True)

    assert verdict["contract"] == {"file": contract.name, "sha256": told.stdout.split()[0]}
    assert verdict["selection"]["tasks"] == ["classification"]
    assert verdict["selection"]["models"] == ["mini-clip", "mini-siglip"]
    assert verdict["run"]["began"] <= time.time()
    assert {"commit", "numerics"} <= verdict.keys()
    assert len(verdict["numerics"]["code"]) == 64


def test_a_verdict_is_of_the_contract_that_it_was_judged_by(measured):
    contract, conftest = measured.root / "thresholds.yaml", measured.root / "conftest.py"
    before = hashlib.sha256(contract.read_bytes()).hexdigest()
    edit = (
        "\n\ndef pytest_runtestloop(session):\n    Path('thresholds.yaml').open('a').write('# x')\n"
    )
    conftest.write_text(conftest.read_text() + edit)

    assert measured.pytest("-n", "0", "--model", "mini-clip").returncode == 0
    assert measured.verdict()["contract"]["sha256"] == before
    assert hashlib.sha256(contract.read_bytes()).hexdigest() != before


def test_a_verdict_says_that_its_floors_are_starters(measured):
    assert measured.pytest("-n", "0").returncode == 0
    assert measured.verdict()["starters"] is None
    contract = measured.root / "thresholds.yaml"
    contract.write_text(contract.read_text().replace("source:", "starter: chance, source:"))

    done = measured.pytest("-n", "0")

    assert done.returncode == 0
    # Lines are broken at 100 columns.
    told = " ".join(done.stdout.split())
    assert "all by floors just above chance alone" in told.partition(" PASS: ")[2]
    verdict = measured.verdict()
    assert verdict["starters"] in told
    assert verdict["selection"]["extent"] == "4 cases of tier mini"


def test_a_contract_that_is_written_while_it_is_read_gives_no_verdict(measured):
    conftest = measured.root / "conftest.py"
    edit = (
        "\n\nimport natadv.plugin.session as s\nload = s.load_thresholds\n\n\n"
        "def edited(path, **options):\n"
        "    path.write_text(path.read_text() + '# weaker\\n')\n"
        "    return load(path, **options)\n\n\n"
        "s.load_thresholds = edited\n"
    )
    conftest.write_text(conftest.read_text() + edit)

    done = measured.pytest("-n", "0")

    assert done.returncode == 4
    assert "thresholds.yaml: it or a file that it includes was just written" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_a_model_that_is_not_here_is_never_green(measured):
    contract = measured.root / "thresholds.yaml"
    contract.write_text(contract.read_text().replace("mini-siglip]", "fare2-l14]", 1))

    for narrowed in ([], ["-k", "fare2-l14"], ["--no-assert"], ["--model", "fare2-l14"]):
        done = measured.pytest("-n", "0", *narrowed)
        assert done.returncode == (1 if "-k" in narrowed else 4), done.stdout
        assert "natadv models fetch fare2-l14" in done.stdout + done.stderr
        gate_json = measured.root / "gate.json"
        assert not gate_json.exists() or measured.verdict()["verdict"] == "incomplete"
    again = [sys.executable, "-m", "natadv.gate", "--evidence", ".natadv/evidence"]
    judged = subprocess.run(
        [*again, "--model", "mini-clip", "--model", "fare2-l14"],
        capture_output=True,
        text=True,
        cwd=measured.root,
    )
    assert (judged.returncode, judged.stderr) == (1, "")
    assert "INCOMPLETE   classification/clean/plain/fare2-l14" in judged.stdout
    assert measured.pytest("-n", "0", "-k", "mini-clip").returncode == 0
    assert measured.verdict()["verdict"] == "partial"
    assert measured.verdict()["selection"]["extent"].startswith("2 of 4 cases of tier mini hold")


# 7. Narrowed runs


NARROWED = {
    "by dataset": (["--dataset", "plain-typo"], "2 of 4 cases of tier mini"),
    "by keyword": (["-k", "clean and mini-clip"], "1 of 4 cases of tier mini"),
    "by model too": (["--model", "mini-clip", "--scenario", "clean"], "1 of 2 cases of tier mini"),
}


@pytest.mark.parametrize(("arguments", "extent"), NARROWED.values(), ids=NARROWED.keys())
def test_a_narrowed_run_is_partial_wherever_it_is_told(measured, arguments, extent):
    done = measured.pytest("-n", "0", *arguments)
    verdict = measured.verdict()
    environment = (measured.root / "allure-results/environment.properties").read_text()
    again = subprocess.run(
        [sys.executable, "-m", "natadv.gate", "--evidence", ".natadv/evidence"],
        cwd=measured.root,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0
    assert f"PARTIAL: {extent} hold" in done.stdout
    assert "PASS:" not in done.stdout
    assert verdict["verdict"] == "partial"
    assert verdict["whole_tier"] is False
    assert verdict["selection"]["extent"].startswith(f"{extent} hold")
    assert "verdict=PARTIAL" in environment
    assert again.returncode == 0, again.stdout + again.stderr
    assert f"PARTIAL: {extent} hold" in again.stdout


def test_all_cases_of_a_tier_for_a_model_of_ones_own_are_no_part(world):
    done = world.pytest("-n", "0", "--model", str(world.model("tuned", blind=False)))

    assert done.returncode == 0
    assert "PASS: 2 cases of tier mini for tuned" in done.stdout


def test_a_narrowed_run_that_fails_is_no_better_for_it(world):
    worse = world.model("tuned", blind=True)
    done = world.pytest("-n", "0", "--model", str(worse), "--scenario", "clean")

    assert done.returncode == 1
    assert "FAIL: 1 of 2 cases of tier mini" in done.stdout


# 8. Pictures that cannot be read


def test_a_run_that_asserts_nothing_tells_of_pictures_that_cannot_be_read(world):
    folder = world.root / "fixtures/datasets/plain"
    card = load_card(folder)
    samples = read_samples(folder, card, start=0, stop=card.rows)
    samples[3] = replace(samples[3], image=samples[3].image[:60])
    shutil.rmtree(folder)
    described = card.model_dump(include=set(CardDraft.model_fields))
    write_dataset(folder, CardDraft(**described), samples)
    done = world.pytest("-n", "0", "--no-assert", "--scenario", "clean", "--model", "mini-clip")

    assert done.returncode == 1
    assert "1 of 600 samples have no outcome" in " ".join(done.stdout.split())
    assert "the first is plain-0003" in " ".join(done.stdout.split())
    (case,) = world.verdict()["cases"]
    assert case["green"] is False


# 9. Warnings of other packages


@pytest.mark.parametrize(("strict", "workers"), [("ini", "2"), ("option", "0"), ("python", "0")])
def test_no_warning_of_a_package_decides(world, strict, workers):
    arguments = ["-n", workers, "--model", "mini-clip"]
    env = {"FAKE_WARNING": "1"}
    if strict == "ini":
        ini = world.root / "pytest.ini"
        ini.write_text(ini.read_text() + "filterwarnings = error\n")
    elif strict == "option":
        arguments += ["-W", "error"]
    else:
        env["PYTHONWARNINGS"] = "error::FutureWarning,error::ResourceWarning"
    done = world.pytest(*arguments, env=env)

    assert done.returncode == 0, done.stdout + done.stderr
    assert world.verdict()["verdict"] == "pass"


# 10. Code that computes otherwise


def test_results_of_other_code_are_not_used(measured, tmp_path):
    shutil.copytree(PACKAGE, tmp_path / "natadv")
    images = tmp_path / "natadv/data/images.py"
    text, line = images.read_text(), "return _rgb(image)"
    assert text.count(line) == 1
    for new, computed in ((f"{line}  # as it is", 0), (f"{line}.rotate(180)", 24)):
        images.write_text(text.replace(line, new))
        measured.pytest("-n", "0", env={"PYTHONPATH": str(tmp_path)})

        assert measured.verdict()["run"]["units_computed"] == computed


# 12. Files of others


def test_a_folder_of_somebody_elses_is_not_emptied(world):
    other = world.root / "shop" / "cart"
    other.mkdir(parents=True)
    (other / "manifest.json").write_text("{}")
    done = world.pytest("-n", "0", "--evidence", "shop")

    assert done.returncode == 4
    assert "shop: holds 'cart', which no run of the gate wrote" in done.stderr
    assert (other / "manifest.json").read_text() == "{}"


def test_a_file_that_is_no_verdict_is_not_overwritten(world):
    names = ("thresholds.yaml", "pytest.ini", "suites")
    paths = [world.root / name for name in (*names, "suites/test_classification.py")]
    before = [path.read_bytes() if path.is_file() else sorted(path.iterdir()) for path in paths]
    for done in world.refused(*(("-n", "0", "--gate-json", name) for name in names)):
        assert done.returncode == 4
        assert "holds something that no run of the gate wrote" in done.stderr
    after = [path.read_bytes() if path.is_file() else sorted(path.iterdir()) for path in paths]
    assert after == before


# 13. One line for each mistake


MISTAKES = (
    (["--gate-json", "/proc/nowhere/gate.json"], "cannot write /proc/nowhere"),
    (["--evidence", "/proc/nowhere/evidence"], "give another --evidence DIR"),
    (["--evidence", "thresholds.yaml"], "cannot write"),
    (["--model", "~nouser/x"], "~nouser"),
    (["--unit-timeout", "-1"], "expected seconds from 0 on, got '-1'"),
    (["--unit-timeout", "nan"], "expected seconds from 0 on, got 'nan'"),
    (["--unit-timeout", "inf"], "expected seconds from 0 on, got 'inf'"),
    (["--limit", "abc"], "expected a whole number from 1 on, got 'abc'"),
    (["--baseline", "checkpoints"], "checkpoints: no such folder of evidence"),
    (["--baseline", "fixtures/models/mini-clip"], "holds no case to compare with"),
)


def test_a_mistake_is_told_in_one_line(world):
    runs = world.refused(*(["-n", "0", *arguments] for arguments, _ in MISTAKES))

    for done, (arguments, told) in zip(runs, MISTAKES, strict=True):
        assert done.returncode == 4, (arguments, done.stdout + done.stderr)
        assert told in done.stderr
        assert "Traceback" not in done.stderr + done.stdout, arguments


def test_results_of_allure_that_are_cleared_away_are_missed(measured):
    suite = measured.root / "suites" / "test_classification.py"
    clear = (
        "    import shutil\n"
        f"    shutil.rmtree({str(measured.root / 'allure-results')!r}, ignore_errors=True)\n"
        "    gate.check(case)"
    )
    text = suite.read_text()
    suite.write_text(
        text.replace("(case, gate):\n    gate", "(gate, case):\n    gate").replace(
            "    gate.check(case)", clear
        )
    )
    done = measured.pytest("-n", "0")

    assert "Traceback" not in done.stdout + done.stderr
    assert "INTERNALERROR" not in done.stdout + done.stderr
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("workers", ["0", "2"])
def test_a_second_interrupt_ends_a_run_at_once(world, tmp_path, workers):
    process = subprocess.Popen(
        world.command("-n", workers),
        cwd=world.root,
        env=world.environment({"FAKE_STOP": str(tmp_path / "stopped")}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 60
    while not (tmp_path / "stopped").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGINT)
    # While pytest still tells of the first.
    time.sleep(0.02)
    os.kill(process.pid, signal.SIGINT)
    told, _ = process.communicate(timeout=30)

    assert process.returncode == 2, told
    assert "interrupted twice; what is stored is kept, run again to go on" in told
    assert "Traceback" not in told
    assert not (world.root / "gate.json").exists()


# 15. Workers that are killed


def test_a_gate_whose_worker_is_killed_is_judged_by_another(world, tmp_path):
    suite = world.root / "suites" / "test_classification.py"
    kill = (
        "    import os, signal\n"
        "    if case.model == 'mini-clip':\n"
        "        try:\n"
        f"            os.close(os.open({str(tmp_path / 'killed')!r}, os.O_CREAT | os.O_EXCL))\n"
        "        except FileExistsError:\n"
        "            pass\n"
        "        else:\n"
        "            os.kill(os.getpid(), signal.SIGKILL)\n"
        "    gate.check(case)"
    )
    suite.write_text(suite.read_text().replace("    gate.check(case)", kill))
    done = world.pytest("-n", "2")

    assert (tmp_path / "killed").exists()
    assert done.returncode == 0, done.stdout
    assert world.verdict()["verdict"] == "pass"
    assert len(world.allure()) == 4


def test_workers_do_not_outlive_their_controller(world, tmp_path):
    process = subprocess.Popen(
        world.command("-n", "2"),
        cwd=world.root,
        env=world.environment({"FAKE_STOP": str(tmp_path / "stopped")}),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 60
    while not (tmp_path / "stopped").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    group = os.getpgid(process.pid)
    process.kill()
    process.wait()
    # Once nobody is left in it, there is no such group.
    ended = False
    while not ended and time.monotonic() < deadline:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            ended = True
        time.sleep(0.05)
    if not ended:
        os.killpg(group, signal.SIGKILL)

    assert ended
    assert world.pytest("-n", "2").returncode == 0


# 16. Gates in other folders


def test_gates_in_any_folder_are_judged_under_the_root_of_their_contract(measured, tmp_path):
    (measured.root / "suites").rename(measured.root / "checks")
    rules = measured.root / "thresholds.yaml"
    rules.write_text(rules.read_text().replace("floor: 0.9,", "floor: 0.9999,"))
    command = measured.command("-n", "0")
    command[command.index(str(measured.root / "suites"))] = str(measured.root / "checks")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()

    done = subprocess.run(
        command, cwd=elsewhere, env=measured.environment(), capture_output=True, text=True
    )

    assert done.returncode == 1, done.stdout
    assert measured.verdict()["run"]["units_computed"] == 0
    assert measured.verdict()["verdict"] == "inconclusive"
    assert len(measured.verdict()["cases"]) == 4
    assert list(elsewhere.iterdir()) == []

"""What a user reads when a run is over: each failure once, the verdict, what to do next."""

from __future__ import annotations

import re

import pytest

CLEAN = "classification/clean/plain/mini-clip"
TYPO = "classification/typographic/plain-typo/mini-clip"


def summary(done):
    """What is said of the verdict, up to pytest's own last line."""
    told = done.stdout[re.search(r"^=+ natadv =+$", done.stdout, re.M).end() :]
    return told.strip("\n").split("\n")[:-1]


@pytest.fixture
def failing(measured):
    """A world whose typographic rules do not hold."""
    rules = measured.root / "thresholds.yaml"
    text = rules.read_text().replace("top1, floor: 0.2", "accuracy_drop, ceiling: -0.5")
    rules.write_text(text)
    return measured


def test_a_failure_is_shown_once_with_its_numbers_and_why(failing):
    done = failing.pytest("-n", "2")

    assert done.returncode == 1
    assert "2 failed, 2 passed" in done.stdout
    assert "FAILURES" not in done.stdout
    assert "short test summary" not in done.stdout
    assert "\x1b" not in done.stdout
    lines = summary(done)
    assert max(map(len, lines)) <= 100
    assert [line for line in lines if TYPO in line] == [
        TYPO,
        f"  natadv explain --case {TYPO}  # where the model looks",
    ]
    row = lines[lines.index(TYPO) + 1]
    assert re.match(r"FAIL +accuracy_drop +0\.000 +\[\S+, \S+\] +<= -0\.500 +-0\.500 +600$", row)
    assert not [line for line in lines if line.startswith("PASS ")]
    assert lines[-3] == "next:"
    assert lines[-1] == "  natadv report  # see all of it as a page"


def test_quiet_runs_show_failures_and_the_verdict_alone(failing):
    lines = summary(failing.pytest("-n", "0", "-q"))

    assert lines[0].split()[:2] == ["verdict", "metric"]
    assert sum(line.startswith("FAIL ") for line in lines) == 2
    assert any(line.startswith("FAIL: 4 cases of tier mini, ") for line in lines[-2:])
    assert "next:" not in lines


def test_verbose_runs_show_what_holds_too_and_colours_tell_them_apart(failing):
    lines = summary(failing.pytest("-n", "0", "-v", "--color=yes"))

    rows = [line for line in lines if re.match(r"\x1b\[\d+m(PASS|FAIL) ", line)]
    assert [line[:9] for line in rows] == ["\x1b[31mFAIL"] * 2 + ["\x1b[32mPASS"] * 2
    assert any(re.match(r"(\x1b\[\d+m)+FAIL: 4 cases", line) for line in lines)


def test_what_the_summary_does_not_say_is_left_to_pytest(failing):
    (failing.root / "suites" / "test_more.py").write_text("def test_more():\n    assert 1 == 2\n")
    done = failing.pytest("-n", "2")

    assert done.returncode == 1
    assert "3 failed, 2 passed" in done.stdout
    (shown,) = re.findall(r"^=+ FAILURES =+\n(.*?)^=+ natadv =", done.stdout, re.M | re.S)
    assert re.findall(r"^_+ (\S+) _+$", shown, re.M) == ["test_more"]
    assert "assert 1 == 2" in shown
    assert re.findall(r"^FAILED (\S+)", done.stdout, re.M) == ["suites/test_more.py::test_more"]


def test_a_green_run_says_how_to_keep_it(measured):
    elsewhere = ("--gate-json", "out/gate.json", "--evidence", "out/evidence")
    whole = summary(measured.pytest("-n", "0", *elsewhere))
    part = summary(measured.pytest("-n", "0", "-k", "mini-clip"))

    assert whole[-3:] == [
        "next:",
        "  natadv bless out/evidence --gate-json out/gate.json  # keep this run as a baseline",
        "  natadv report  # see all of it as a page",
    ]
    assert part[-4:-1] == [
        "next:",
        "  pytest suites/  # judge the whole tier",
        "  natadv bless --partial  # keep this run as a baseline",
    ]


def test_a_run_that_lacks_something_says_how_to_find_it_and_to_go_on(measured):
    done = measured.pytest("-n", "0", "--limit", "30")

    told = done.stdout.replace(" \\\n    ", " ")
    assert re.search(r"^INCOMPLETE +- .*\n +expected 600 samples, got 30", done.stdout, re.M)
    assert "next:\n  natadv plan --tier mini  # what is missing here\n" in told
    assert re.search(r"^  pytest .* --limit 30$", told, re.M)


def test_measured_numbers_lead_to_rules(measured):
    lines = summary(measured.pytest("-n", "0", "--no-assert"))

    assert lines[-2] == "  natadv calibrate --write  # rules from what was measured"
    assert any(line.startswith("MEASURED: 4 cases") for line in lines)

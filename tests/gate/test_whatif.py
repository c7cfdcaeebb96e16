"""`natadv whatif` judges stored rows by another contract."""

from __future__ import annotations

import subprocess
import sys

import pytest

from natadv import cli

pytestmark = pytest.mark.usefixtures("one_line_each")

CLEAN, NATURAL = "classification/clean/mini", "classification/natural/mini-natural"


@pytest.fixture
def whatif(thresholds_file, evidence_root, tmp_path, capsys):
    """Runs the command on the contract with some text replaced."""

    def run(*pairs, options=()):
        other = tmp_path / "new.yaml"
        text = thresholds_file.read_text()
        for old, new in pairs:
            assert old in text
            text = text.replace(old, new, 1)
        other.write_text(text)
        given = ["--thresholds", other, "--against", thresholds_file, "--evidence", evidence_root]
        code = cli.main(["whatif", *map(str, given), *options])
        told = capsys.readouterr()
        return code, (told.out + told.err).splitlines()

    return run


def test_what_asks_the_same_changes_nothing(whatif):
    assert whatif() == (0, ["0 verdicts would change; the run: PASS -> PASS"])
    # Other bounds, the same verdicts.
    assert whatif(("floor: 0.9", "floor: 0.85"))[1][0].startswith("0 verdicts")


def test_each_verdict_that_would_change_is_named_with_its_rule(whatif):
    code, lines = whatif(("floor: 0.9\n", "floor: 0.99\n"))

    assert code == 1
    assert lines == [
        f"{CLEAN}/mini-clip: top1 floor 0.900 -> floor 0.990: PASS -> INCONCLUSIVE",
        f"{CLEAN}/mini-siglip: top1 floor 0.900 -> floor 0.990: PASS -> INCONCLUSIVE",
        "2 verdicts would change; the run: PASS -> INCONCLUSIVE",
    ]


def test_what_becomes_better_exits_0(whatif, thresholds_file):
    text = thresholds_file.read_text()
    thresholds_file.write_text(text.replace("floor: 0.9\n", "floor: 0.9999\n"))

    code, lines = whatif(("floor: 0.9999\n", "floor: 0.9\n"))

    assert code == 0
    assert lines[-1] == "2 verdicts would change; the run: FAIL -> PASS"


def test_a_rule_that_only_one_has_counts_if_it_does_not_hold(whatif):
    rule = "rules:\n  - {{case: {}/mini-clip, metric: top1, floor: {}, part: seen, source: x}}\n"

    code, lines = whatif(("rules:\n", rule.format(CLEAN, 0.5)))

    # No sample is of that part.
    assert code == 1
    assert lines[0] == (
        f"{CLEAN}/mini-clip: top1 (seen) floor 0.500 -> added: not judged -> INCOMPLETE"
    )


def test_a_case_that_was_not_measured_gets_worse(whatif):
    code, lines = whatif(
        (f"      - {NATURAL}\n", f"      - {NATURAL}\n      - {CLEAN}-2\n"),
        ("mini/*", "mini*/*"),
    )

    assert code == 1
    assert f"{CLEAN}-2/mini-clip: the case: not judged -> INCOMPLETE" in lines or any(
        line.startswith(f"{CLEAN}-2/mini-clip: top1") for line in lines
    )
    assert lines[-1].endswith("the run: PASS -> INCOMPLETE")


def test_a_wrong_file_exits_4(whatif, tmp_path):
    code, lines = whatif(("floor: 0.9\n", "floor: 95\n"))

    assert code == 4
    assert lines[0].startswith(f"natadv: {tmp_path}/new.yaml:12: rules[0]: ")
    assert "write 0.95 for 95 %" in lines[0]
    assert whatif(options=["--tier", "release"])[0] == 4


def test_it_starts_without_torch(thresholds_file, evidence_root):
    code = (
        "import sys; from natadv import cli\n"
        "code = cli.main(['whatif', '--thresholds', sys.argv[1], '--against', sys.argv[1], "
        "'--evidence', sys.argv[2]])\n"
        "sys.exit(code or bool({'torch', 'pytest'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(thresholds_file), str(evidence_root)],
        capture_output=True,
        timeout=60,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, b"")

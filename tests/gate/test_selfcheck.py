"""The audit finds a gate that errs too often or believes a lie, and only such a gate."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from natadv.cli import main
from natadv.evidence import CaseEvidence, Evidence, folder_of, read_evidence, write_evidence
from natadv.gate import baseline, judge, sabotage
from natadv.gate.cases import stored_cases
from natadv.gate.sabotage import SABOTAGES, impossible, try_all
from natadv.gate.selfcheck import simulate
from natadv.gate.simulated import ResampledCase
from natadv.gate.small_copy import copy_of
from natadv.gate.thresholds_file import load_thresholds
from natadv.gate.trials import TrialKind, planted, study_of
from natadv.metrics import intervals, measure
from natadv.metrics.correctness import GRADES
from natadv.tasks import TASKS
from natadv.types import Case, Outcomes

RUNS = 20


def values_of(score: str, n: int) -> dict[str, np.ndarray]:
    """Rows of which two thirds are right, in the columns of each task."""
    right = np.array([float(i % 3 > 0) for i in range(n)])
    if score == "correct":
        answers = {"correct": right, "rank": 1 - right, "said_decoy": 0 * right}
        return {**answers, "layer_1_head_1": right.copy()}
    if score == "accuracy":
        return {name: right.copy() for name in ("accuracy", "simple", "exact")}
    if score == "insertion":
        return {"insertion": right, "deletion": 1 - right}
    if score == "beside_text":
        # A text on every other picture; of one without it the relevance lies beside it.
        box = np.array([0.2 * (i % 2) for i in range(n)])
        inside = (1 - right) * (box > 0)
        on_text = {"truth_in_box": inside, "prediction_in_box": inside, "box": box}
        on_object = {"in_mask": right, "mask": 0.5 + 0 * right, "pointing": right}
        return {"beside_text": 1 - inside, **on_text, **on_object}
    found = 30 * right
    return {"tp": found, "fn": 40 - found, "fp": 10 + 0 * right, "tn": 50 + 0 * right,
            "iou": found / 50}  # fmt: skip


def measured_case(task: str, *, pictures: int, rows: int) -> ResampledCase:
    """A case with several rows of each picture, and its clean twins: one per picture."""
    n, score = pictures * rows, TASKS[task].score
    group = [f"p{i % pictures}" for i in range(n)]
    values = values_of(score, n)
    truth = [f"class {i % pictures % 3}" for i in range(n)]

    def table(names, **columns):
        kept = len(names)
        said = [f"{t}{'' if i % 3 else ' no'}" for i, t in enumerate(truth[:kept])]
        base = {"group": group[:kept], "part": ["a"] * kept, "twin": [None] * kept,
                "decoy": ["x"] * kept, "truth": truth[:kept], "prediction": said,
                "values": {k: v[:kept] for k, v in values.items()}}  # fmt: skip
        columns = {k: v if k == "values" else tuple(v) for k, v in (base | columns).items()}
        return Outcomes(id=tuple(names), **columns)

    attack = table([f"s{i}" for i in range(n)], twin=[f"c{i % pictures}" for i in range(n)])
    clean = table([f"c{i}" for i in range(pictures)])
    case = Case(task, "typographic", "drawn", "m")
    found = CaseEvidence(case, Evidence(attack, clean), "revision", "weights", "protocol")
    return ResampledCase(found, lineage="m")


def test_drawn_pictures_bring_their_rows_and_clean_twins():
    measured = measured_case("classification", pictures=5, rows=3)
    drawn = measured.drawn(np.array([2, 2, 0]))
    own, whole = drawn.found.evidence, measured.found.evidence

    assert drawn.rows.tolist() == [2, 7, 12, 2, 7, 12, 0, 5, 10]
    assert list(own.attack.id)[:4] == ["0#s2", "0#s7", "0#s12", "1#s2"]
    assert list(own.attack.group) == ["0#p2"] * 3 + ["1#p2"] * 3 + ["2#p0"] * 3
    assert list(own.attack.twin) == ["0#c2"] * 3 + ["1#c2"] * 3 + ["2#c0"] * 3
    assert list(own.clean.id) == ["0#c2", "1#c2", "2#c0"]
    right = whole.attack.values["correct"][drawn.rows]
    assert own.attack.values["correct"].tolist() == right.tolist()
    # By hand: c2 is right and c0 is not, so that 6 of the 9 rows were right when clean.
    assert measure("accuracy_drop", own).value == pytest.approx((6 - right.sum()) / 9)


def test_cases_on_the_same_pictures_are_drawn_together():
    one, other = (measured_case(task, pictures=9, rows=2) for task in ("vqa", "segmentation"))

    assert one.picked(0, 1).tolist() == other.picked(0, 1).tolist()
    assert one.picked(0, 1).tolist() != one.picked(0, 2).tolist()


@pytest.mark.parametrize("task", TASKS)
def test_a_planted_loss_is_as_large_as_it_says_and_keeps_rows_consistent(task):
    measured = measured_case(task, pictures=400, rows=2)
    drawn = measured.drawn(np.arange(400))
    score = GRADES[TASKS[task].score].score
    before = score(drawn.found.evidence.attack).mean()
    means = []
    for key in range(30):
        small, large = (measured.with_loss(drawn, loss=x, key=key) for x in (0.05, 0.1))
        assert small is not None
        assert large is not None
        after = [score(found.evidence.attack) for found in (small, large)]
        assert (after[1] <= after[0]).all()
        means.append(before - after[1].mean())
    # Each of 400 pictures is lost or not: 0.1 +/- 4 standard errors of 30 runs.
    assert np.mean(means) == pytest.approx(0.1, abs=4 * before * np.sqrt(0.15 / 400 / 30))
    for name in (TASKS[task].headline, TASKS[task].drop):
        measure(name, large.evidence)
    assert measured.with_loss(drawn, loss=0.99, key=0) is None


@pytest.mark.parametrize("task", TASKS)
def test_another_model_is_as_good_on_average(task):
    measured = measured_case(task, pictures=100, rows=2)
    drawn = measured.drawn(np.arange(100))
    score = GRADES[TASKS[task].score].score
    before = score(drawn.found.evidence.attack)
    after = [
        score(measured.with_other_answers(drawn, share=0.5, key=k).evidence.attack)
        for k in range(100)
    ]

    assert np.mean(after) == pytest.approx(before.mean(), abs=4 * 0.5 / np.sqrt(100 * 100))
    assert 0.1 < np.mean([a != before for a in after]) < 0.4


@pytest.fixture
def study(evidence_root, thresholds_file):
    return study_of(evidence_root, load_thresholds(thresholds_file))


def test_an_honest_gate_is_not_reported(study):
    audit = simulate(study, runs=RUNS, processes=1)

    assert not audit.beyond
    assert {rate.table for rate in audit.rates if rate.stated is not None} == {
        "false PASS", "false FAIL", "false regression, 10% change",
        "false regression, 100% change"}  # fmt: skip
    assert audit.of("false FAIL", None).judged == RUNS
    kind = TrialKind("classification", 2, False)
    powers = [audit.of(f"found {loss}", kind).value for loss in (0.01, 0.02, 0.05, 0.1)]
    assert powers == sorted(powers)
    assert powers[-1] == 1
    # 200 rows: with 6 cases 0.5^k * 6 <= 0.025 asks for 8 lost rows, 4 points; of 5 points planted
    # so many are lost in two of three runs.
    assert audit.smallest_found(kind) == 0.07


def test_a_gate_with_intervals_that_are_too_narrow_is_reported(study, monkeypatch):
    honest = intervals.BoundedRatio.interval
    monkeypatch.setattr(intervals.BoundedRatio, "interval", lambda one, tail: honest(one, 0.25))
    audit = simulate(study, runs=RUNS, processes=1)

    found = {(rate.table, rate.kind.of) for rate in audit.beyond}
    assert found == {("false PASS", "top1"), ("false PASS", "accuracy_drop")}


def test_a_gate_that_sees_losses_everywhere_is_reported(study, monkeypatch):
    monkeypatch.setattr(baseline, "holm", lambda ps: tuple(p / 9 for p in ps))
    audit = simulate(study, runs=RUNS, processes=1)

    assert {rate.kind for rate in audit.beyond} == {None}
    assert all("regression" in rate.table for rate in audit.beyond)


def test_every_sabotage_is_caught_but_what_is_believed_by_design(evidence_root, tmp_path):
    template = copy_of(stored_cases(evidence_root)[0], tmp_path / "template")
    assert template.compare().green
    endings = {a.what: a for a in try_all(template, tmp_path)}

    assert len(endings) == len(SABOTAGES)
    assert not impossible(template)
    assert [a.what for a in endings.values() if not a.caught] == [
        "... with the answers that they follow from", "... written anew with a case less"
    ]  # fmt: skip
    assert all(a.believed for a in endings.values() if not a.caught)
    for what, reason in (
        ("a bit of a row is flipped", "sha256 is"),
        ("... and the hash of its file made anew", "was changed after it was written"),
        ("scores are set right, all hashes made anew", "is marked correct, yet"),
        ("a row is removed", "got 199 and 0 errors"),
        ("... and planned no more", "expected 200 samples"),
        ("attacked samples name other clean twins", "the pairing is wrong"),
        ("a floor is lowered", "top1 floor 0.8484 -> 0.4242"),
        ("evidence is compared with itself", "compared with itself"),
        ("an earlier verdict lies there when a run ends early", "gate.json is gone"),
    ):
        assert reason in endings[what].ending.reason, endings[what]


def test_evidence_of_one_case_is_enough_for_what_needs_no_other(
    evidence_root, tmp_path, kit, monkeypatch
):
    stored = {kit.CLEAN: stored_cases(evidence_root)[0][kit.CLEAN]}
    template = copy_of(stored, tmp_path / "template")
    assert template.compare().green
    monkeypatch.setattr(sabotage, "SABOTAGES", [s for s in SABOTAGES if s.of == "contract"])
    endings = {a.what: a for a in try_all(template, tmp_path)}

    assert [s.what for s in impossible(template)] == ["a case is removed from its tier"]
    assert all(a.caught for a in endings.values())
    # The only rule: a contract without rules is refused.
    assert endings["a rule is removed"].ending.verdict == "refused"


def test_the_command_prints_tables_and_exits_by_them(
    evidence_root, thresholds_file, tmp_path, capsys, monkeypatch
):
    escaping = ("a case is of other weights", "the data is of another revision", "a worker died")
    few = [s for s in SABOTAGES if s.what.startswith((*escaping, "a floor is NaN"))]
    monkeypatch.setattr(sabotage, "SABOTAGES", few)
    out = tmp_path / "audit.json"
    options = ["--evidence", str(evidence_root), "--thresholds", str(thresholds_file)]
    options = ["selfcheck", *options, "--runs", "30", "--json", str(out)]
    assert main([*options, "--processes", "2"]) == 0
    told = capsys.readouterr()
    figures = json.loads(out.read_text())

    assert max(map(len, told.out.splitlines()[1:])) <= 100
    assert told.out.splitlines()[-1].startswith("PASS: ")
    assert "selfcheck: 40 of 40 simulations" in told.err
    assert {row["table"] for row in figures["rates"]} >= {"false PASS", "found 0.05", "blocked 0"}
    assert "4 of 4 sabotages caught" in told.out
    assert all(row["caught"] for row in figures["sabotages"])

    # The same on one process; and a gate that is lied to is not green itself.
    monkeypatch.setattr(judge, "mismatches", lambda plan, found: ())
    assert main([*options, "--processes", "1"]) == 1
    told = capsys.readouterr()
    again = json.loads(out.read_text())
    for what in escaping:
        assert f"GREEN    evidence: {what}" in told.out
    assert "1 of 4 sabotages caught" in told.out
    assert told.out.splitlines()[-1].startswith("FAIL: ")
    assert again["rates"] == figures["rates"]


def test_evidence_that_cannot_be_studied_exits_4(
    evidence_root, thresholds_file, tmp_path, capsys, kit
):
    empty = tmp_path / "empty"
    empty.mkdir()
    rules = ["--thresholds", str(thresholds_file)]
    for options, told in (
        (["--evidence", str(tmp_path / "nowhere")], "run the suites with --evidence DIR first"),
        (["--evidence", str(empty)], "run it first: pytest suites/"),
        (["--evidence", str(evidence_root), "--thresholds", "absent.yaml"], "cannot be read"),
    ):
        assert main(["selfcheck", *rules, *options]) == 4
        err = capsys.readouterr().err
        assert told in err
        assert len(err.splitlines()) == 1

    stored = read_evidence(folder_of(evidence_root, kit.CLEAN))
    other = replace(stored.manifest, case=replace(kit.CLEAN, dataset="unruled"))
    write_evidence(tmp_path / "unruled", other, stored.outcomes)
    assert main(["selfcheck", *rules, "--evidence", str(tmp_path / "unruled")]) == 4
    assert "no rule covers a case that was measured" in capsys.readouterr().err

    (folder_of(evidence_root, kit.CLEAN) / "manifest.json").write_text("{}")
    assert main(["selfcheck", *rules, "--evidence", str(evidence_root)]) == 4
    assert "manifest.json" in capsys.readouterr().err


def test_a_planted_loss_in_one_case_is_judged_in_the_family_of_all(study, monkeypatch):
    sizes = []
    honest = baseline.holm
    monkeypatch.setattr(baseline, "holm", lambda ps: sizes.append(len(ps)) or honest(ps))
    planted(study, study.tasks[0], 0)

    assert set(sizes) == {6}

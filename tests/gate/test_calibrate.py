from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from natadv import cli
from natadv.errors import MetricError
from natadv.evidence import (
    Manifest,
    Selection,
    folder_of,
    read_evidence,
    write_evidence,
    write_selection,
)
from natadv.gate import __main__ as gate
from natadv.gate.calibrate import propose, to_yaml, weaker_than_published
from natadv.gate.judge import judge_all
from natadv.gate.thresholds_file import load_thresholds
from natadv.metrics import METRICS
from natadv.tasks import ASKED, TASKS
from natadv.types import Case

pytestmark = pytest.mark.usefixtures("one_line_each")

DAY = "2026-11-25"


@pytest.fixture
def calibrate(thresholds_file, tmp_path, capsys):
    """Runs the command on a folder of evidence; returns its code, new rules and messages."""

    def run(evidence, *options):
        out = tmp_path / "out" / "measured.yaml"
        given = ["--evidence", evidence, "--thresholds", thresholds_file, "--date", DAY]
        given += ["--out", out, *options]
        code = cli.main(["calibrate", *map(str, given)])
        told = capsys.readouterr()
        return code, yaml.safe_load(out.read_text()) if out.exists() else {}, told.out + told.err

    return run


def measured(kit, right, n, **columns):
    return kit.World().with_case(kit.CLEAN, kit.rows_of(kit.first(right, n), **columns))


def test_a_floor_lies_below_the_wide_interval_and_says_where_it_comes_from(kit):
    found = propose(measured(kit, 577, 600).evidence[kit.CLEAN], "top1", date="2026-11-24")

    # Clopper and Pearson at 99.9 % of 577 of 600 begin at 0.9288; less 0.005, rounded down.
    assert (found.side, found.bound, found.min_n) == ("floor", 0.923, 480)
    assert found.source == (
        "measured 0.962 [0.943, 0.976], n 600, data revision, weights cccccccc, 2026-11-24"
    )


@given(st.integers(30, 300), st.integers(300, 400))
def test_the_measured_model_keeps_the_rule_made_from_it(kit, right, n):
    world = measured(kit, right, n)
    made = propose(world.evidence[kit.CLEAN], "top1", date="today")

    verdict = judge_all(
        list(world.plans.values()),
        world.evidence,
        thresholds=kit.thresholds_of([made], [kit.CLEAN]),
    )

    assert verdict.green


def test_a_ceiling_lies_above(kit):
    clean = kit.rows_of(kit.first(200, 200), prefix="c")
    attack = kit.rows_of(kit.first(190, 200), prefix="t", twin_prefix="c")
    world = kit.World().with_case(kit.TYPO, attack, clean=clean)

    found = propose(world.evidence[kit.TYPO], "accuracy_drop", date="today")

    assert found.side == "ceiling"
    assert 0.1 < found.bound < 0.15


def test_a_worse_model_breaks_the_rule_made_from_a_better_one(kit):
    made = propose(measured(kit, 577, 600).evidence[kit.CLEAN], "top1", date="today")
    worse = measured(kit, 500, 600)

    verdict = judge_all(
        list(worse.plans.values()),
        worse.evidence,
        thresholds=kit.thresholds_of([made], [kit.CLEAN]),
    )

    assert verdict.overall == "fail"


def test_a_part_gets_its_own_rule(kit):
    parts = ["held-out"] * 100 + ["seen"] * 100
    world = measured(kit, 180, 200, parts=parts)

    found = propose(world.evidence[kit.CLEAN], "top1", date="today", part="held-out")

    assert (found.part, found.min_n) == ("held-out", 80)


def test_too_few_samples_for_any_bound_are_refused(kit):
    with pytest.raises(MetricError, match="leaves no bound that could be broken"):
        propose(measured(kit, 0, 4).evidence[kit.CLEAN], "top1", date="today")


def test_the_new_rules_are_a_file_that_the_contract_can_include(
    evidence_root, thresholds_file, calibrate
):
    code, _, text = calibrate(evidence_root)

    assert code == 0
    assert "6 new, in " in text
    (thresholds_file.parent / "out" / "measured.yaml").rename(thresholds_file.parent / "new.yaml")
    contract = thresholds_file.read_text()
    thresholds_file.write_text(
        contract.replace("version: 1\n", "version: 1\ninclude: [new.yaml]\n")
    )
    found = [rule for rule in load_thresholds(thresholds_file).rules if rule.file == "new.yaml"]
    # Clean: top1; typographic: top1 and the drop. Those of natural stand in the contract already.
    assert len(found) == 2 * (1 + 2)
    assert all(DAY in rule.source for rule in found)


def test_printing_is_plain_yaml(kit):
    made = propose(measured(kit, 577, 600).evidence[kit.CLEAN], "top1", date="today")

    row = yaml.safe_load(to_yaml([made]))["rules"][0]

    assert list(row) == ["case", "metric", "floor", "min_n", "source"]
    assert row["floor"] == 0.923


def test_flawed_evidence_is_no_ground_for_a_rule(evidence_root, kit, calibrate):
    stored = read_evidence(folder_of(evidence_root, kit.NATURAL))
    rows = kit.rows_of(kit.first(100, 199), errors={"s199": "truncated"})
    write_evidence(evidence_root, stored.manifest, {"attack": rows})

    code, rules, text = calibrate(evidence_root)

    assert (code, rules) == (4, {})
    assert "calibrate on flawless evidence only" in text


def test_twins_of_other_weights_are_no_ground_for_a_rule(evidence_root, kit, calibrate):
    stored = read_evidence(folder_of(evidence_root, kit.CLEAN))
    write_evidence(evidence_root, replace(stored.manifest, weights="d" * 64), stored.outcomes)

    code, _, text = calibrate(evidence_root)

    assert code == 4
    assert "mini-typo/mini-clip: calibrate on flawless" in text


def test_missing_twins_or_evidence_are_an_error(evidence_root, kit, calibrate):
    shutil.rmtree(folder_of(evidence_root, kit.CLEAN))

    assert calibrate(evidence_root)[0] == 4
    code, _, text = calibrate(evidence_root / "absent")
    assert code == 4
    assert "no such folder of evidence" in text


def test_every_task_has_a_score_and_a_drop_of_its_own_to_propose():
    for task, row in TASKS.items():
        metrics = [METRICS[name] for name in (row.headline, row.drop)]
        assert all(task in metric.tasks for metric in metrics), task
        assert [metric.kind == "difference" for metric in metrics] == [False, task in ASKED], task
        assert [metric.higher_is_better for metric in metrics] == [True, False], task


PARTS = ["held-out"] * 100 + ["seen"] * 100


def graded_rows(kit, scores, **columns):
    """Rows of both graded tasks with these scores; masks are of a million pixels."""
    rows = kit.rows_of([False] * len(scores), parts=PARTS, **columns)
    tp = np.round(np.asarray(scores, dtype=np.float64) * 1e6)
    empty = np.zeros_like(tp)
    masks = {"tp": tp, "fp": empty, "fn": 1e6 - tp, "tn": empty, "iou": tp / 1e6}
    return replace(rows, values={**masks, "accuracy": tp / 1e6})


def store_graded(kit, root, task):
    facts = ("revision-1", "c" * 64, "protocol-1")
    rng = np.random.default_rng(4)
    clean = rng.beta(9, 2, 200)
    worse = clean * rng.uniform(0.5, 1, 200)
    typo = graded_rows(kit, worse, prefix="t", twin_prefix="c")
    for case, rows, twin_of in (
        (Case(task, "clean", "mini", "mini-clip"), graded_rows(kit, clean, prefix="c"), None),
        (Case(task, "natural", "mini-natural", "mini-clip"), graded_rows(kit, worse), None),
        (Case(task, "typographic", "mini-typo", "mini-clip"), typo, "mini"),
    ):
        manifest = Manifest(case, "mini-clip", 200, *facts, twin_of=twin_of)
        write_evidence(root, manifest, {"attack": rows})


@pytest.mark.parametrize(
    ("task", "score", "drop"),
    [("segmentation", "iou_fg", "iou_drop"), ("vqa", "vqa_accuracy", "vqa_drop")],
)
def test_graded_tasks_get_floors_and_a_ceiling_and_a_part_where_clean(
    kit, tmp_path, calibrate, task, score, drop
):
    store_graded(kit, tmp_path / "evidence", task)

    code, found, _ = calibrate(tmp_path / "evidence", "--part", "held-out")

    rows = found["rules"]
    assert code == 0
    assert [(r["case"], r["metric"], r.get("part")) for r in rows] == [
        (f"{task}/clean/mini/mini-clip", score, None),
        (f"{task}/clean/mini/mini-clip", score, "held-out"),
        (f"{task}/natural/mini-natural/mini-clip", score, None),
        (f"{task}/typographic/mini-typo/mini-clip", score, None),
        (f"{task}/typographic/mini-typo/mini-clip", drop, None),
    ]
    assert [r.get("floor", r.get("ceiling")) for r in rows[:2]] == [
        pytest.approx(0.78, abs=0.03),
        pytest.approx(0.76, abs=0.04),
    ]
    assert ["floor" in r for r in rows] == [True, True, True, True, False]
    assert [r["min_n"] for r in rows] == [160, 80, 160, 160, 160]
    assert calibrate(tmp_path / "evidence", "--part", "held-in")[0] == 4


DRAWN = "mini-drawn"


def store_drawn(kit, root, task, *, covered):
    """Each of 40 clean pictures under five overlays, of which the larger ones flip it."""
    facts = ("revision-1", "c" * 64, "protocol-1")
    twins = [f"c{i // 5}" for i in range(200)]
    scores = [0.9 * (i % 5 < 3) for i in range(200)]
    clean = graded_rows(kit, [0.9] * 200, prefix="c")
    typo = replace(graded_rows(kit, scores, prefix="t"), twin=tuple(twins), group=tuple(twins))
    clean, typo = (replace(rows, truth=("ant",) * 200) for rows in (clean, typo))
    if task == "classification":
        clean, typo = (named(rows, rows.values["accuracy"] > 0.5) for rows in (clean, typo))
    typo = replace(typo, attributes={"covered": tuple(covered)})
    for case, rows, twin_of in (
        (Case(task, "clean", "mini", "mini-clip"), clean, None),
        (Case(task, "typographic", DRAWN, "mini-clip"), typo, "mini"),
    ):
        manifest = Manifest(case, "mini-clip", 200, *facts, twin_of=twin_of)
        write_evidence(root, manifest, {"attack": rows})


def named(rows, right):
    """Of classes, not of scores."""
    said = tuple("ant" if hit else "bee" for hit in right)
    return replace(rows, prediction=said, values={"correct": right * 1.0})


def of_drawn(found):
    rules = found["rules"]
    return {rule["metric"]: rule for rule in rules if f"/{DRAWN}/" in rule["case"]}


@pytest.mark.parametrize(
    ("task", "besides"),
    [
        ("classification", {"top1", "accuracy_drop", "attack_success_rate"}),
        ("segmentation", {"iou_fg", "iou_drop"}),
        ("vqa", {"vqa_accuracy", "vqa_drop"}),
    ],
)
def test_a_drawn_dataset_gets_a_floor_of_its_breaking_point(
    kit, tmp_path, calibrate, task, besides
):
    root = tmp_path / "evidence"
    store_drawn(kit, root, task, covered=[0.1 * (1 + i % 5) + i / 4000 for i in range(200)])

    _, found, told = calibrate(root)
    rules = of_drawn(found)

    assert rules.keys() == {*besides, "breaking_point"}
    # The fourth overlay flips, which covers 0.4 and a little.
    assert 0.35 < rules["breaking_point"]["floor"] < 0.43
    assert rules["breaking_point"]["min_n"] == 32
    assert "no rule for" not in told


def test_a_breaking_point_that_leaves_no_floor_is_told_of(kit, tmp_path, calibrate):
    store_drawn(kit, tmp_path / "evidence", "vqa", covered=[0.001] * 200)

    _, found, told = calibrate(tmp_path / "evidence")

    assert of_drawn(found).keys() == {"vqa_accuracy", "vqa_drop"}
    assert "no rule for breaking_point of vqa/typographic/mini-drawn/mini-clip" in told


@pytest.mark.parametrize("task", ["segmentation", "vqa"])
def test_the_rules_of_a_graded_model_hold_for_it_and_break_for_a_worse_one(kit, task):
    case = Case(task, "clean", "mini", "mini-clip")
    scores = np.random.default_rng(4).beta(9, 2, 200)
    score = TASKS[task].headline
    good = kit.World().with_case(case, graded_rows(kit, scores))
    bad = kit.World().with_case(case, graded_rows(kit, scores * 0.8))
    rules = [propose(good.evidence[case], score, date="today")]
    thresholds = kit.thresholds_of(rules, [case])

    def overall(world):
        return judge_all(list(world.plans.values()), world.evidence, thresholds=thresholds).overall

    assert overall(good) == "pass"
    assert overall(bad) == "fail"


def test_a_model_of_no_tier_gets_one_with_its_rules(evidence_root, thresholds_file, calibrate, kit):
    shutil.rmtree(evidence_root)
    kit.store_world(evidence_root, models=("mini-clip",))
    for manifest in evidence_root.glob("*/manifest.json"):
        case = Case(*yaml.safe_load(manifest.read_text())["case"].split("/"))
        kit.sign(manifest, case=replace(case, model="my_models-make").address)
        manifest.parent.rename(folder_of(evidence_root, replace(case, model="my_models-make")))

    assert calibrate(evidence_root)[0] == 0

    text = thresholds_file.read_text()
    thresholds_file.write_text(text.replace("version: 1\n", "version: 1\ninclude: [out/*.yaml]\n"))
    contract = load_thresholds(thresholds_file)
    assert {case.model for case in contract.tiers["my_models-make"].grid} == {"my_models-make"}
    assert len(contract.tiers["my_models-make"].grid) == 3


def test_a_measured_floor_below_a_published_number_is_told_of(kit):
    """A model that is fed wrongly must not be calibrated to what it does wrong in silence."""
    starters = [
        kit.rule(kit.CLEAN, bound=0.6, starter="published"),
        kit.rule(kit.NATURAL, bound=0.6, starter="chance"),
    ]
    known = kit.thresholds_of(starters, [kit.CLEAN, kit.NATURAL])

    def told(bound):
        measured = [kit.rule(case, bound=bound) for case in (kit.CLEAN, kit.NATURAL)]
        return list(weaker_than_published(measured, known))

    (line,) = told(0.11)
    assert line.startswith(f"{kit.CLEAN}: top1 floor 0.110 is weaker than 0.600, which it would")
    assert told(0.6) == []


def test_a_case_that_leaves_no_bound_is_named_and_the_others_get_rules(
    evidence_root, kit, calibrate
):
    facts = ("revision-1", "c" * 64, "protocol-1")
    weak = replace(kit.NATURAL, dataset="hard")
    write_evidence(
        evidence_root,
        Manifest(weak, "mini-clip", 50, *facts),
        {"attack": kit.rows_of([False] * 50)},
    )
    # As photographs of attacks, which have no clean twins.
    real = replace(kit.TYPO, dataset="real")
    rows = kit.rows_of(kit.first(40, 50), twin_prefix="c")
    write_evidence(evidence_root, Manifest(real, "mini-clip", 50, *facts), {"attack": rows})

    code, found, text = calibrate(evidence_root)

    assert code == 0
    assert f"no rule for top1 of {weak}" in text
    assert [r["metric"] for r in found["rules"] if r["case"] == real.address] == ["top1"]
    assert not [r for r in found["rules"] if r["case"] == weak.address]


def test_evidence_without_a_case_is_no_file_of_no_rules(tmp_path, calibrate):
    (tmp_path / "evidence").mkdir()

    code, found, text = calibrate(tmp_path / "evidence")

    assert (code, found) == (4, {})
    assert "no case in it leaves a bound; has its run ended?" in text


TIERS_ONLY = """\
# Ours.
version: 1
default_tier: mini   # the quick one

tiers:
  mini:
    models: [mini-clip]
    cases: [classification/clean/mini, classification/typographic/mini-typo,
            classification/natural/mini-natural]
# The end.
"""


@pytest.fixture
def run(kit, tmp_path, capsys, monkeypatch):
    """A repository in which one model was measured without rules; calls the command there."""
    monkeypatch.chdir(tmp_path)
    root = tmp_path / ".natadv" / "evidence"
    kit.store_world(root, models=("mini-clip",))
    cases = (kit.CLEAN, kit.NATURAL, kit.TYPO)
    write_selection(root, Selection("mini", ("mini-clip",), cases, whole=True))
    for name in ("mini", "mini-typo", "mini-natural"):
        card = tmp_path / "fixtures" / "datasets" / name / "card.yaml"
        card.parent.mkdir(parents=True)
        card.write_text("revision: revision-1\nrows: 200\n")

    def call(*options):
        code = cli.main(["calibrate", "--date", DAY, *options])
        told = capsys.readouterr()
        return code, told.out + told.err

    return call


def judged(*options):
    """The exit code of judging the evidence again, by the contract that lies here."""
    return gate.main(["--evidence", ".natadv/evidence", *options])


def test_from_nothing_to_a_contract_that_the_measured_run_keeps(run, tmp_path):
    code, text = run("--write", "--dry-run")
    assert (code, (tmp_path / "thresholds.yaml").exists()) == (0, False)
    assert "+default_tier: mini-clip" in text

    code, text = run("--write")

    assert code == 0
    assert "0 rules moved, 4 new, in thresholds.yaml" in text
    # 195 of 200, by Clopper and Pearson.
    measured = "measured 0.975 [0.943, 0.992], n 200, data revision, weights cccccccc"
    assert f"+    source: {measured}, {DAY}" in text
    found = load_thresholds(tmp_path / "thresholds.yaml")
    assert {case.cell for case in found.tier().grid} == {
        "classification/clean/mini",
        "classification/typographic/mini-typo",
        "classification/natural/mini-natural",
    }
    assert judged("--tier", "mini-clip") == 0
    # Said twice, nothing changes.
    before = (tmp_path / "thresholds.yaml").read_bytes()
    assert "0 rules moved, 4 unchanged" in run("--write")[1]
    assert (tmp_path / "thresholds.yaml").read_bytes() == before


def test_a_tier_without_rules_gets_them_below_all_that_the_file_says(run, tmp_path):
    path = tmp_path / "thresholds.yaml"
    path.write_text(TIERS_ONLY)

    assert run("--write")[0] == 0

    text = path.read_text()
    assert text.startswith(TIERS_ONLY)
    assert list(yaml.safe_load(text)["tiers"]) == ["mini"]
    assert judged() == 0


def test_a_model_of_no_tier_gets_its_own_beside_the_others(run, tmp_path):
    path = tmp_path / "thresholds.yaml"
    other = TIERS_ONLY.replace("[mini-clip]", "[other]") + (
        "rules: [] # none yet\nwaivers:\n  - {case: classification/*/mini/other, reason: r, "
        "owner: o, issue: i, expires: 2026-12-31}\n"
    )
    path.write_text(other)

    code, text = run("--write")

    assert code == 1
    assert "natadv: " not in text
    assert (
        "3 cases without a rule, so that pytest refuses the contract: classification/clean/mini/"
        "other, "
    ) in text
    found = load_thresholds(path, asserting=False)
    assert found.tier_of({"mini-clip": "mini-clip"}).name == "mini-clip"
    assert found.default_tier == "mini"
    # Every line of the file is still there, in its order; only the empty list is gone.
    lines = iter(path.read_text().splitlines())
    assert all(line in lines for line in other.replace("rules: []", "rules:").splitlines())


def test_a_rule_that_is_there_is_never_lowered(run, tmp_path):
    path = tmp_path / "thresholds.yaml"
    rule = "case: classification/clean/mini/mini-clip, metric: top1"
    path.write_text(f"{TIERS_ONLY}rules:\n  - {{{rule}, floor: 0.99, source: measured then}}\n")

    code, text = run("--write")

    assert code == 0
    assert "floor 0.990 (line 12) stays; the measurement only allows" in text
    (kept,) = [r for r in load_thresholds(path).rules if r.case.startswith("classification/clean")]
    assert kept.bound == 0.99
    assert judged() == 1


def test_a_rule_for_a_case_of_no_tier_is_not_written(run, kit, tmp_path):
    """It would cover nothing, and the contract be refused."""
    path = tmp_path / "thresholds.yaml"
    path.write_text(TIERS_ONLY.replace(",\n            classification/natural/mini-natural", ""))

    code, text = run("--write")

    assert code == 0
    assert f"1 rule not written, as no tier of the model has the case: {kit.NATURAL}" in text
    assert len(load_thresholds(path).rules) == 3


def test_a_case_that_leaves_no_bound_is_left_out_of_a_new_tier(run, kit, tmp_path):
    root = tmp_path / ".natadv" / "evidence"
    facts = ("revision-1", "c" * 64, "protocol-1")
    rows = kit.rows_of([False] * 200)
    write_evidence(root, Manifest(kit.NATURAL, "mini-clip", 200, *facts), {"attack": rows})

    code, text = run("--write")

    assert code == 0
    assert f"no rule for top1 of {kit.NATURAL}" in text
    assert len(load_thresholds(tmp_path / "thresholds.yaml").tier().grid) == 2


def test_two_places_for_new_rules_are_a_usage_error(run, tmp_path):
    try:
        code = run("--write", "--out", "more.yaml")[0]
    except SystemExit as ended:
        code = ended.code

    assert code in (2, 4)
    assert list(tmp_path.glob("*.yaml")) == []


# Ways to have rules made of evidence that is no ground for them; each returns what is said.


def _limited(root, kit):
    limit = "INCOMPLETE: --limit 200 left samples of mini out"
    found = Selection("mini", ("mini-clip",), (kit.CLEAN, kit.NATURAL, kit.TYPO), True, (limit,))
    write_selection(root, found)
    return limit


def _limited_in_silence(root, kit):
    card = root.parents[1] / "fixtures" / "datasets" / "mini-natural" / "card.yaml"
    card.write_text("revision: revision-1\nrows: 660\n")
    return f"{kit.NATURAL}: expected 660 samples, got 200 and 0 errors"


def _incomplete(root, kit):
    kit.sign(folder_of(root, kit.NATURAL) / "manifest.json", problems=["the model crashed"])
    return f"{kit.NATURAL}: calibrate on flawless evidence only"


def _cut_short(root, kit):
    shutil.rmtree(folder_of(root, kit.NATURAL))
    return f"{kit.NATURAL}: was selected, and not measured"


def _killed(root, kit):
    (root / "run.json").unlink()
    return "expected the evidence of one run, with its run.json"


def _of_another_run(root, kit):
    facts = ("revision-1", "d" * 64, "protocol-1")
    case = replace(kit.NATURAL, model="other")
    rows = kit.rows_of(kit.first(150, 200))
    write_evidence(root, Manifest(case, "other", 200, *facts), {"attack": rows})
    return f"{case}: is not of this run, which did not select it"


def _of_other_weights(root, kit):
    kit.sign(folder_of(root, kit.NATURAL) / "manifest.json", weights="d" * 64)
    return "expected weights"


def _of_other_data(root, kit):
    card = root.parents[1] / "fixtures" / "datasets" / "mini-natural" / "card.yaml"
    card.write_text("revision: revision-2\nrows: 200\n")
    return f"{kit.NATURAL}: expected data revision 'revision-2', got 'revision-1'"


def _altered(root, kit):
    path = folder_of(root, kit.NATURAL) / "manifest.json"
    path.write_text(path.read_text().replace('"planned_n": 200', '"planned_n": 100'))
    return "was changed after it was written"


def test_no_rule_is_written_from_evidence_that_is_no_ground_for_one(run, kit, tmp_path):
    ways = (
        *(_limited, _limited_in_silence, _incomplete, _cut_short, _killed, _of_another_run),
        *(_of_other_weights, _of_other_data, _altered),
    )
    here = tmp_path / "fixtures", tmp_path / ".natadv"
    whole = {folder: shutil.copytree(folder, tmp_path / "whole" / folder.name) for folder in here}
    for way in ways:
        expected = way(tmp_path / ".natadv" / "evidence", kit)

        code, text = run("--write")

        assert code != 0, way
        assert expected in text, (way, text)
        assert not (tmp_path / "thresholds.yaml").exists(), way
        for folder, kept in whole.items():
            shutil.rmtree(folder)
            shutil.copytree(kept, folder)
    # Nothing but the sabotage was in the way.
    assert run("--write")[0] == 0


def test_a_file_of_new_rules_needs_a_whole_run_too(run, kit, tmp_path):
    expected = _limited(tmp_path / ".natadv" / "evidence", kit)
    (tmp_path / "thresholds.yaml").write_text(TIERS_ONLY)

    code, text = run("--out", "more.yaml")

    assert code != 0
    assert expected in text
    assert not (tmp_path / "more.yaml").exists()

"""The gate on stored evidence, as a release engineer runs it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace

import pytest

from natadv.evidence import (
    Selection,
    folder_of,
    read_evidence,
    write_evidence,
    write_selection,
)
from natadv.gate.__main__ import main

pytestmark = pytest.mark.usefixtures("one_line_each")


@pytest.fixture
def gate(evidence_root, thresholds_file, capsys):
    def run(*options):
        code = main(
            ["--evidence", str(evidence_root), "--thresholds", str(thresholds_file), *options]
        )
        out = capsys.readouterr()
        return code, out.out + out.err

    return run


def rewritten(root, case, **columns):
    """Store the evidence of `case` again with another manifest."""
    stored = read_evidence(folder_of(root, case))
    write_evidence(root, replace(stored.manifest, **columns), stored.outcomes)


def with_cards(path, n=200, revision="revision-1"):
    for name in ("mini", "mini-typo", "mini-natural"):
        folder = path / name
        folder.mkdir(parents=True)
        (folder / "card.yaml").write_text(f"name: {name}\nrows: {n}\nrevision: {revision}\n")
    return path


def test_evidence_on_which_all_rules_hold_is_green(gate):
    code, text = gate()

    assert code == 0
    assert text.count("PASS         classification/") == 12
    assert "PASS: 6 cases of tier mini" in text


def test_it_runs_as_a_module_without_torch_or_pytest(evidence_root, thresholds_file):
    code = (
        "import runpy, sys; sys.argv = ['gate', '--evidence', sys.argv[1], '--thresholds', "
        "sys.argv[2]]\n"
        "try: runpy.run_module('natadv.gate', run_name='__main__')\n"
        "except SystemExit as done: code = done.code\n"
        "sys.exit(code or bool({'torch', 'pytest', 'pandas', 'PIL'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(evidence_root), str(thresholds_file)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, "")


def test_a_worse_model_exits_1_and_names_its_case(gate, evidence_root, kit):
    stored = read_evidence(folder_of(evidence_root, kit.CLEAN))
    worse = kit.rows_of(kit.first(120, 200), prefix="c")
    write_evidence(evidence_root, stored.manifest, {"attack": worse})

    code, text = gate()

    assert code == 1
    assert "FAIL         classification/clean/mini/mini-clip: top1 0.600" in text
    assert "FAIL: 6 cases" in text


def test_a_dropped_case_exits_1(gate, evidence_root, kit):
    shutil.rmtree(folder_of(evidence_root, kit.NATURAL))

    code, text = gate()

    assert code == 1
    assert "INCOMPLETE   classification/natural/mini-natural/mini-clip" in text


def test_an_empty_folder_exits_1(gate, evidence_root):
    shutil.rmtree(evidence_root)
    evidence_root.mkdir()

    code, text = gate()

    assert code == 1
    assert "INCOMPLETE: 6 cases" in text


def test_a_truncated_file_exits_1(gate, evidence_root, kit):
    path = folder_of(evidence_root, kit.NATURAL) / "outcomes.parquet"
    path.write_bytes(path.read_bytes()[:-10])

    code, text = gate()

    assert code == 1
    assert "manifest says" in text


def test_a_stray_broken_folder_keeps_the_run_from_being_green(gate, evidence_root):
    (evidence_root / "stray").mkdir()

    code, text = gate()

    assert code == 1
    assert "INCOMPLETE: 6 cases" in text


def test_runs_with_other_weights_do_not_mix(gate, evidence_root, kit):
    rewritten(evidence_root, kit.NATURAL, weights="d" * 64)

    code, text = gate()

    assert code == 1
    assert "expected weights \"one of ['cccccccc', 'dddddddd']\"" in text


def test_clean_twins_of_another_protocol_do_not_count(gate, evidence_root, kit):
    rewritten(evidence_root, kit.CLEAN, protocol="protocol-0")

    code, text = gate()

    assert code == 1
    assert "mini-clip, were measured by another protocol" in text


def test_missing_clean_twins_are_named(gate, evidence_root, kit):
    shutil.rmtree(folder_of(evidence_root, kit.CLEAN))

    _, text = gate()

    assert "its clean twins, classification/clean/mini/mini-clip, were not measured" in text


def test_problems_of_the_run_are_kept(gate, evidence_root, kit):
    rewritten(evidence_root, kit.NATURAL, problems=("a worker died twice",))

    code, text = gate()

    assert code == 1
    assert "a worker died twice" in text


def test_cards_beside_the_thresholds_say_how_much_was_to_be_measured(gate, thresholds_file):
    cards = with_cards(thresholds_file.parent / "fixtures" / "datasets")
    assert gate()[0] == 0

    shutil.rmtree(cards)
    with_cards(cards, n=201)
    code, text = gate()

    assert code == 1
    assert "expected 201 samples, got 200 and 0 errors" in text


def test_stale_data_is_noticed_by_the_cards(gate, tmp_path):
    code, text = gate("--datasets", str(with_cards(tmp_path / "d", revision="revision-2")))

    assert code == 1
    assert "expected data revision 'revision-2', got 'revision-1'" in text
    assert "were measured on another data revision" in text


def test_evidence_cannot_shrink_its_own_plan_when_cards_are_there(
    gate, evidence_root, kit, tmp_path
):
    stored = read_evidence(folder_of(evidence_root, kit.NATURAL))
    easy = kit.rows_of(kit.first(90, 90))
    write_evidence(evidence_root, replace(stored.manifest, planned_n=90), {"attack": easy})

    code, text = gate("--datasets", str(with_cards(tmp_path / "d")))

    assert code == 1
    assert "expected 200 samples, got 90" in text


def test_a_missing_card_is_a_usage_error(gate, tmp_path):
    code, text = gate("--datasets", str(tmp_path / "absent"))

    assert code == 4
    assert "no such card" in text


def test_an_own_checkpoint_is_judged_by_the_rules_of_its_lineage(gate, evidence_root, kit):
    for case in (kit.CLEAN, kit.TYPO, kit.NATURAL):
        stored = read_evidence(folder_of(evidence_root, case))
        own = replace(stored.manifest, case=replace(case, model="mine"), weights="9" * 64)
        write_evidence(evidence_root, own, stored.outcomes)

    code, text = gate("--model", "mine")

    assert code == 0
    assert "PASS: 3 cases" in text
    assert "not judged" in text


def test_an_own_checkpoint_without_evidence_is_not_green(gate):
    code, text = gate("--model", "absent")

    assert code == 1
    assert "INCOMPLETE" in text


def test_an_equal_run_passes_against_the_baseline(gate, evidence_root, tmp_path):
    shutil.copytree(evidence_root, tmp_path / "before")

    code, text = gate("--baseline", str(tmp_path / "before"))

    assert code == 0
    assert "PASS against the baseline" in text


def test_evidence_is_not_compared_with_itself(gate, evidence_root, tmp_path):
    (tmp_path / "link").symlink_to(evidence_root)

    code, text = gate("--baseline", str(tmp_path / "link"))

    assert code == 4
    assert "it would be compared with itself" in text


@pytest.mark.parametrize("option", ["--model", "--tier", "--baseline", "--datasets", "--evidence"])
@pytest.mark.parametrize("value", ["", " "])
def test_an_empty_value_is_a_usage_error(gate, option, value):
    code, text = gate(option, value)

    assert code == 4
    assert "expected a value, got nothing" in text


@pytest.fixture
def selected(evidence_root):
    """Writes what the run asked for beside its evidence."""

    def write(*cases, whole=False):
        selection = Selection("mini", ("mini-clip", "mini-siglip"), cases, whole)
        write_selection(evidence_root, selection)

    return write


def test_a_narrowed_run_is_partial(gate, selected, kit):
    selected(kit.CLEAN, kit.NATURAL)

    code, text = gate()

    assert code == 0
    assert "PARTIAL: 2 of 6 cases of tier mini hold" in text


def test_a_narrowed_run_that_lost_a_case_is_incomplete(gate, selected, evidence_root, kit):
    selected(kit.CLEAN, kit.NATURAL)
    shutil.rmtree(folder_of(evidence_root, kit.NATURAL))

    code, text = gate()

    assert code == 1
    assert "INCOMPLETE: 2 of 6 cases of tier mini" in text


def test_a_whole_run_is_held_to_what_the_tier_asks_now(gate, selected, evidence_root, kit):
    selected(kit.CLEAN, kit.NATURAL, whole=True)

    assert gate()[0] == 0

    shutil.rmtree(folder_of(evidence_root, kit.TYPO))

    assert gate()[0] == 1


def test_a_selection_that_was_edited_is_refused(gate, selected, evidence_root, kit):
    selected(kit.CLEAN, kit.NATURAL)
    path = evidence_root / "run.json"
    path.write_text(path.read_text().replace("mini-natural", "mini"))

    code, text = gate()

    assert code == 4
    assert "run.json: was changed after it was written" in text


def test_a_loss_against_the_baseline_exits_1_though_all_rules_hold(
    gate, evidence_root, kit, tmp_path
):
    before = tmp_path / "before"
    kit.store_world(before)
    stored = read_evidence(folder_of(before, kit.NATURAL))
    better = kit.rows_of(kit.first(130, 200))
    write_evidence(before, stored.manifest, {"attack": better})

    code, text = gate("--baseline", str(before))

    assert code == 1
    assert "PASS: 6 cases" in text
    assert "30 new errors and 0 fixed" in text
    assert "FAIL against the baseline" in text


def test_a_baseline_of_another_model_exits_1(gate, kit, tmp_path):
    kit.store_world(tmp_path / "before", models=["mini-clip"])

    code, text = gate("--baseline", str(tmp_path / "before"))

    assert code == 1
    assert "the baseline has no case of mini-siglip, only of mini-clip" in text
    assert "INCOMPLETE against the baseline" in text


def test_a_case_that_the_baseline_lacks_is_new_and_stays_green(gate, kit, tmp_path):
    before = tmp_path / "before"
    kit.store_world(before)
    shutil.rmtree(folder_of(before, kit.NATURAL))

    code, text = gate("--baseline", str(before))

    assert code == 0
    assert f"NEW          {kit.NATURAL}: not in the baseline yet; natadv bless adds it" in text


def test_a_case_that_only_the_baseline_has_is_missing_and_never_green(
    gate, kit, evidence_root, tmp_path
):
    shutil.copytree(evidence_root, tmp_path / "before")
    shutil.rmtree(folder_of(evidence_root, kit.NATURAL))

    code, text = gate("--baseline", str(tmp_path / "before"))

    assert code == 1
    assert f"MISSING      {kit.NATURAL}: in the baseline, but the candidate was not" in text


def test_a_baseline_by_name_lies_beside_the_thresholds(gate, kit, thresholds_file, monkeypatch):
    kept = thresholds_file.parent / "baselines" / "main"
    kit.store_world(kept)

    # Whoever removed its record could remove a case with it.
    code, text = gate("--baseline", "main")
    assert code == 4
    assert "is no record of a baseline" in text

    write_selection(kept, Selection("mini", (), (kit.CLEAN,), whole=False))
    assert gate("--baseline", "main")[0] == 0

    # A folder of that name where the command is called: which one is meant?
    monkeypatch.chdir(thresholds_file.parent)
    kit.store_world(thresholds_file.parent / "main")
    code, text = gate("--baseline", "main")
    assert code == 4
    assert "'main' is a baseline and a folder; say baselines/main or ./main" in text
    assert gate("--baseline", "./main")[0] == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--tier", "mimi"], "unknown tier 'mimi', did you mean 'mini'"),
        (["--thresholds", "absent.yaml"], "absent.yaml: cannot be read"),
        (["--evidence", "absent"], "absent: no such folder of evidence"),
        (["--baseline", "absent"], "absent: no such folder of evidence"),
    ],
)
def test_what_cannot_be_asked_exits_4(gate, options, message):
    code, text = gate(*options)

    assert code == 4
    assert message in text


@pytest.mark.parametrize("options", [[], ["--evidense", "x"]])
def test_wrong_options_exit_4(options, capsys):
    assert main(options) == 4
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("natadv: ")
    assert line.endswith("; see python -m natadv.gate --help")


def test_a_manifest_edited_by_hand_is_not_trusted_blindly(gate, evidence_root, kit):
    manifest = folder_of(evidence_root, kit.NATURAL) / "manifest.json"
    for planned_n, told in ((0, "holds 200 rows, and its manifest plans 0"),
                            (201, "expected 201 samples, got 200")):  # fmt: skip
        kit.sign(manifest, planned_n=planned_n)
        code, text = gate()

        assert code == 1
        assert told in text


@pytest.fixture
def with_heads(evidence_root, thresholds_file, kit):
    """Each model answers questions too, by a head on its tower."""
    for model in ("mini-clip", "mini-siglip"):
        own = replace(kit.CLEAN, model=model)
        stored = read_evidence(folder_of(evidence_root, own))
        tower = stored.manifest.weights
        for case in (own, replace(kit.TYPO, model=model), replace(kit.NATURAL, model=model)):
            rewritten(evidence_root, case, tower=tower)
        rows = stored.outcomes["attack"]
        right = rows.values["correct"]
        asked = replace(rows, values={"accuracy": right, "exact": right, "said_decoy": 1 - right})
        manifest = replace(
            stored.manifest, case=replace(own, task="vqa"), weights="4" * 64, tower=tower
        )
        write_evidence(evidence_root, manifest, {"attack": asked})
    text = thresholds_file.read_text()
    text = text.replace("    cases:\n", "    cases:\n      - vqa/clean/mini\n")
    rule = "  - {case: vqa/clean/mini/*, metric: vqa_accuracy, floor: 0.5, source: by hand}\n"
    thresholds_file.write_text(text + rule)
    return evidence_root


def test_a_head_of_a_task_is_not_taken_for_another_model(gate, with_heads):
    code, text = gate()

    assert code == 0, text
    assert "PASS: 8 cases of tier mini" in text


def test_tasks_that_stand_on_several_towers_are_never_green(gate, with_heads, kit):
    rewritten(with_heads, replace(kit.CLEAN, task="vqa"), tower="7" * 64)

    code, text = gate()

    assert code == 1
    for case in ("vqa/clean/mini/mini-clip", "classification/clean/mini/mini-clip"):
        assert f"{case}: expected weights \"one of ['77777777'" in text

"""Two folders of evidence against each other, as `natadv compare` shows them."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from math import comb

import pytest

from natadv.errors import ConfigError, StoreError
from natadv.evidence import (
    Selection,
    folder_of,
    read_all,
    write_evidence,
    write_selection,
)
from natadv.gate.comparison import compare_runs


def renamed(root, name, *, lineage="mini-clip", source="mini-clip"):
    """Evidence of a checkpoint: that of a model, under another name."""
    for stored in read_all(root)[0].values():
        case = stored.manifest.case
        if case.model == source:
            manifest = replace(stored.manifest, case=replace(case, model=name), lineage=lineage)
            write_evidence(root, manifest, stored.outcomes)
        shutil.rmtree(folder_of(root, case))


def rewritten(root, case, rights, kit, **columns):
    stored = read_all(root)[0][case]
    write_evidence(root, replace(stored.manifest, **columns), {"attack": kit.rows_of(rights)})


@pytest.fixture
def sides(tmp_path, kit):
    """Evidence of two checkpoints of mini-clip that answer alike."""
    folders = tmp_path / "a", tmp_path / "b"
    for folder, name in zip(folders, ("first", "second"), strict=True):
        kit.store_world(folder, models=["mini-clip"])
        renamed(folder, name)
    return folders


def named(case, model="second"):
    return replace(case, model=model)


def labels(runs):
    return {judged.case: judged.label for judged in runs.verdict.cases}


def test_the_case_the_samples_and_the_corrected_p_of_a_loss_are_named(sides, kit):
    # 100 of 200 were right: 12 of them are lost now, and 2 others gained.
    natural = named(kit.NATURAL)
    rights = [12 <= i < 102 for i in range(200)]
    rewritten(sides[1], natural, rights, kit)

    runs = compare_runs(*sides, models={"first": "second"})

    assert labels(runs) == {
        named(kit.CLEAN): "PASS",
        named(kit.TYPO): "PASS",
        natural: "FAIL",
    }
    (worse,) = [judged for judged in runs.verdict.cases if judged.verdict == "FAIL"]
    assert worse.comparison.difference == pytest.approx(-10 / 200)
    # McNemar by hand, then Holm: the smallest of three.
    p = sum(comb(14, k) for k in range(3)) / 2**14
    assert worse.comparison.p_worse == pytest.approx(p, rel=0.01)
    assert worse.p_adjusted == pytest.approx(3 * p, rel=0.01)
    failing = runs.newly_failing(worse)
    assert [sample.id for sample in failing] == [f"s{i}" for i in range(12)]
    assert tuple(failing[0]) == ("s0", "ant", "ant", "bee")
    assert [sample.id for sample in runs.newly_passing(worse)] == ["s100", "s101"]
    assert runs.overall == "fail"


def test_the_json_holds_all_numbers_under_the_names_of_both_runs(sides, kit):
    rewritten(sides[1], named(kit.NATURAL), kit.first(80, 200), kit)

    content = json.loads(json.dumps(compare_runs(*sides, models={}).as_json(), allow_nan=False))

    assert content["verdict"] == "fail"
    case = next(c for c in content["cases"] if c["case"] == named(kit.NATURAL).address)
    assert case["before"] == named(kit.NATURAL, "first").address
    assert (case["n"], case["difference"], case["verdict"]) == (200, -0.1, "FAIL")
    assert len(case["newly_failing"]) == 20
    assert case["newly_passing"] == []


def test_the_only_checkpoint_of_a_family_is_found_without_being_named(sides, kit):
    assert compare_runs(*sides, models={}).overall == "pass"

    # A third one makes it ambiguous.
    kit.store_world(sides[0].with_name("c"), models=["mini-clip"])
    renamed(sides[0].with_name("c"), "third")
    for folder in sides[0].with_name("c").iterdir():
        shutil.copytree(folder, sides[0] / folder.name)
    runs = compare_runs(*sides, models={})
    assert runs.overall == "incomplete"
    assert "2 checkpoints of mini-clip: first, third" in runs.verdict.cases[0].reason
    assert compare_runs(*sides, models={"third": "second"}).overall == "partial"


def test_models_of_two_families_are_compared_only_if_the_user_says_so(tmp_path, kit):
    for name, model in (("a", "mini-clip"), ("b", "mini-siglip")):
        kit.store_world(tmp_path / name, models=[model])
    folders = tmp_path / "a", tmp_path / "b"

    alone = compare_runs(*folders, models={})
    assert alone.overall == "incomplete"
    assert "no case of mini-siglip, only of mini-clip" in alone.verdict.cases[0].reason
    assert compare_runs(*folders, models={"mini-clip": "mini-siglip"}).overall == "pass"


def test_two_models_of_one_run_are_compared_and_the_others_are_left_out(tmp_path, kit):
    kit.store_world(tmp_path)

    runs = compare_runs(tmp_path, tmp_path, models={"mini-clip": "mini-siglip"})

    assert runs.overall == "pass"
    assert {case.model for case in labels(runs)} == {"mini-siglip"}
    assert {evidence.case.model for evidence in runs.before.values()} == {"mini-clip"}


def test_a_checkpoint_of_another_family_under_the_same_name_is_not_compared(tmp_path, kit):
    for name, lineage in (("a", "mini-clip"), ("b", "mini-siglip")):
        kit.store_world(tmp_path / name, models=["mini-clip"])
        renamed(tmp_path / name, "ckpt", lineage=lineage)

    runs = compare_runs(tmp_path / "a", tmp_path / "b", models={})

    assert runs.overall == "incomplete"
    assert "ckpt is of family 'mini-clip' in the baseline, here of 'mini-siglip'" in (
        runs.verdict.cases[0].reason
    )


def test_a_case_that_one_side_lacks_is_new_or_missing(sides, kit):
    shutil.rmtree(folder_of(sides[0], named(kit.NATURAL, "first")))
    assert labels(compare_runs(*sides, models={}))[named(kit.NATURAL)] == "NEW"
    assert compare_runs(*sides, models={}).overall == "pass"

    back = compare_runs(*sides[::-1], models={"second": "first"})
    assert labels(back)[named(kit.NATURAL, "first")] == "MISSING"
    assert back.overall == "incomplete"


def test_a_candidate_is_not_green_by_a_case_that_it_selected_and_lost(sides, kit):
    cases = sorted(map(named, (kit.CLEAN, kit.TYPO, kit.NATURAL)))
    write_selection(sides[1], Selection("mini", ("second",), tuple(cases), True))
    shutil.rmtree(folder_of(sides[1], named(kit.NATURAL)))

    runs = compare_runs(*sides, models={})

    assert labels(runs)[named(kit.NATURAL)] == "MISSING"
    assert runs.overall == "incomplete"


def test_a_narrowed_candidate_is_compared_in_part_and_says_so(sides, kit):
    write_selection(sides[1], Selection("mini", ("second",), (named(kit.CLEAN),), False))

    runs = compare_runs(*sides, models={})

    assert runs.overall == "partial"
    assert runs.only_before == (named(kit.NATURAL, "first"), named(kit.TYPO, "first"))


def test_nothing_in_common_is_never_green(sides, kit):
    write_selection(sides[1], Selection("mini", ("second",), (named(kit.NATURAL),), False))
    shutil.rmtree(folder_of(sides[0], named(kit.NATURAL, "first")))

    runs = compare_runs(*sides, models={})

    assert runs.overall == "incomplete"
    assert "the baseline has none of the cases of this run" in runs.verdict.cases[0].reason


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"protocol": "protocol-2"}, "protocol is 'protocol-2', the baseline's is 'protocol-1'"),
        ({"data_revision": "revision-2"}, "data revision is 'revision-2', the baseline's is"),
    ],
)
def test_another_protocol_or_revision_is_one_line(sides, kit, columns, message):
    rewritten(sides[1], named(kit.NATURAL), kit.first(100, 200), kit, **columns)

    runs = compare_runs(*sides, models={})

    assert runs.overall == "incomplete"
    (line,) = [j.reason for j in runs.verdict.cases if j.verdict == "INCOMPLETE"]
    assert message in line


def test_an_unknown_model_the_same_folder_and_edited_rows_are_our_errors(sides, kit):
    for models, message in (
        ({"fist": "second"}, "unknown model of .*a 'fist', did you mean 'first'"),
        ({"first": "secnd"}, "unknown model of .*b 'secnd', did you mean 'second'"),
    ):
        with pytest.raises(ConfigError, match=message):
            compare_runs(*sides, models=models)
    with pytest.raises(ConfigError, match="would be compared with itself"):
        compare_runs(sides[0], sides[0], models={})
    manifest = folder_of(sides[1], named(kit.NATURAL)) / "manifest.json"
    manifest.write_text(manifest.read_text().replace("revision-1", "revision-2"))
    for selected in (False, True):
        if selected:
            write_selection(sides[1], Selection("mini", ("second",), (named(kit.CLEAN),), False))
        with pytest.raises((ConfigError, StoreError), match="was changed after it was written"):
            compare_runs(*sides, models={})

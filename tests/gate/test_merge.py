"""Runs of a CI matrix, put together again."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest

from natadv import cli
from natadv.evidence import (
    Selection,
    folder_of,
    read_evidence,
    read_selection,
    write_evidence,
    write_selection,
)
from natadv.gate.__main__ import main as gate_main
from natadv.types import Case
from tests.gate import conftest as kit

pytestmark = pytest.mark.usefixtures("one_line_each")

MODELS = tuple(kit.WEIGHTS)


def cases_of(model):
    cells = (("clean", "mini"), ("typographic", "mini-typo"), ("natural", "mini-natural"))
    return tuple(Case("classification", scenario, dataset, model) for scenario, dataset in cells)


@pytest.fixture
def shards(tmp_path):
    """A run for each model, as jobs of a matrix leave them."""
    for model in MODELS:
        root = tmp_path / "shards" / f"gate-{model}" / "evidence"
        kit.store_world(root, models=[model])
        write_selection(root, Selection("mini", (model,), cases_of(model), whole=False))
    return tmp_path / "shards"


@pytest.fixture
def merge(shards, tmp_path, capsys):
    def run(*arguments, roots=(shards,)):
        code = cli.main(["merge", *map(str, roots), "--out", str(tmp_path / "out"), *arguments])
        out = capsys.readouterr()
        return code, out.out + out.err

    return run


@pytest.fixture
def judged(tmp_path, thresholds_file, capsys):
    def run():
        arguments = ["--evidence", str(tmp_path / "out"), "--thresholds", str(thresholds_file)]
        code = gate_main(arguments)
        return code, capsys.readouterr().out

    return run


def test_the_jobs_of_a_matrix_are_judged_as_one_run(merge, judged, tmp_path):
    matrix = json.dumps(
        {"include": [{"tier": "mini", "model": model, "task": "any"} for model in MODELS]}
    )
    code, text = merge("--matrix", matrix)

    assert (code, text) == (0, f"{tmp_path / 'out'}: 6 cases of 2 runs of tier mini\n")
    code, text = judged()
    assert code == 0
    assert text.endswith("PASS: 6 cases of tier mini\n")


def test_a_job_that_left_nothing_is_missed(merge, judged, shards):
    shutil.rmtree(shards / "gate-mini-siglip")

    assert merge("--model", ",".join(MODELS))[0] == 0
    code, text = judged()
    assert code == 1
    assert text.count("mini-siglip: not measured") == 3
    assert "INCOMPLETE" in text.splitlines()[-1]


def test_a_case_that_no_job_measured_is_missed_though_its_model_was(merge, judged, shards):
    root = shards / "gate-mini-clip" / "evidence"
    shutil.rmtree(folder_of(root, kit.NATURAL))
    selection = Selection("mini", ("mini-clip",), (kit.CLEAN, kit.TYPO), whole=False)
    write_selection(root, selection)

    assert merge()[0] == 0
    code, text = judged()
    assert code == 1
    assert f"{kit.NATURAL}: not measured" in text


def test_as_selected_judges_the_cases_that_were_asked_for(merge, judged, shards, tmp_path):
    root = shards / "gate-mini-clip" / "evidence"
    write_selection(root, Selection("mini", ("mini-clip",), (kit.CLEAN,), whole=False))

    assert merge("--as-selected")[0] == 0
    selection = read_selection(tmp_path / "out")
    assert selection is not None
    assert not selection.whole
    code, text = judged()
    assert code == 0
    assert "PARTIAL: 4 of 6 cases of tier mini hold\n" in text


def test_a_case_measured_twice_must_have_the_same_rows(merge, shards, tmp_path):
    again = shards / "again"
    shutil.copytree(shards / "gate-mini-clip", again)
    # Another machine, the same rows.
    folder = folder_of(again / "evidence", kit.CLEAN)
    stored = read_evidence(folder)
    manifest = replace(stored.manifest, facts={"device": "another"})
    write_evidence(again / "evidence", manifest, stored.outcomes)
    assert merge()[0] == 0

    write_evidence(
        again / "evidence", manifest, {"attack": kit.rows_of(kit.first(190, 200), prefix="c")}
    )
    code, text = merge()
    assert code == 4
    assert f"{kit.CLEAN}: " in text
    assert "have other outcome rows" in text

    write_evidence(again / "evidence", replace(manifest, weights="e" * 64), stored.outcomes)
    assert "have other weights" in merge()[1]


def test_a_run_that_kept_a_case_as_a_twin_has_less_of_it(merge, judged, shards, tmp_path):
    """As reading keeps the attacked pictures: without their clean twins and controls."""
    typo = cases_of("mini-clip")[1]
    stored = read_evidence(folder_of(shards / "gate-mini-clip" / "evidence", typo))
    for name in ("a-first", "z-last"):
        again = shards / name / "evidence"
        bare = {"attack": stored.outcomes["attack"]}
        write_evidence(again, replace(stored.manifest, twin_of=None), bare)
        write_selection(again, Selection("mini", ("mini-clip",), (), whole=False))

    assert merge()[0] == 0
    kept = read_evidence(folder_of(tmp_path / "out", typo))
    assert (kept.manifest, set(kept.outcomes)) == (stored.manifest, set(stored.outcomes))
    assert judged()[0] == 0
    # Its rows must be the same all the same, and who selected a case has all of it.
    other = {"attack": kit.rows_of(kit.first(100, 200), prefix="t", twin_prefix="c")}
    write_evidence(again, replace(stored.manifest, twin_of=None), other)
    assert "have other outcome rows" in merge()[1]
    write_evidence(again, replace(stored.manifest, twin_of=None), bare)
    write_selection(again, Selection("mini", ("mini-clip",), (typo,), whole=False))
    assert "have other twin of" in merge()[1]


def test_what_cannot_be_merged_is_refused_in_one_line(merge, shards, tmp_path):
    def refusal(*arguments, **options):
        code, text = merge(*arguments, **options)
        assert code == 4
        assert text.count("\n") == 1
        return text

    empty = tmp_path / "empty"
    empty.mkdir()
    assert "holds no run.json" in refusal(roots=[empty])
    assert "mini-siglip, which no --model names" in refusal("--model", "mini-clip")
    assert "expected the line that natadv plan --matrix prints" in refusal("--matrix", "{}")
    inside = shards / "gate-mini-clip" / "evidence"
    shutil.copytree(inside, tmp_path / "out")
    assert "is one of the folders to merge" in refusal(roots=[shards, tmp_path / "out"])
    write_selection(inside, Selection("other", ("mini-clip",), (kit.CLEAN,), whole=False))
    assert "one of tier" in refusal()
    (inside / "run.json").write_text("{}")
    assert "run.json" in refusal()


def test_the_runs_of_another_tier_than_was_planned_are_refused(merge):
    job = {"model": "mini-clip", "task": "any"}
    for tiers, told in (
        (["release"], "are of tier mini, planned was release"),
        (["mini", "release"], "expected the line"),
        ([], "expected the line"),
    ):
        matrix = json.dumps({"include": [job | {"tier": tier} for tier in tiers]})
        code, text = merge("--matrix", matrix)

        assert code == 4
        assert told in text


def test_what_went_wrong_with_one_run_is_not_lost_beside_the_others(
    merge, judged, shards, tmp_path
):
    root = shards / "gate-mini-clip" / "evidence"
    why = "INCOMPLETE: the gate never reported; its worker may have died"
    write_selection(root, replace(read_selection(root), problems=(why,)))

    assert merge()[0] == 0
    code, text = judged()
    assert code == 1
    assert f"{root}: {why}" in text
    assert text.splitlines()[-1].startswith("INCOMPLETE")
    # Nor by an edit that forgets the hash.
    path = tmp_path / "out" / "run.json"
    content = json.loads(path.read_text())
    del content["problems"]
    path.write_text(json.dumps(content))
    assert judged()[0] == 4

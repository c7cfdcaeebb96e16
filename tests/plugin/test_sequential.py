"""`--sequential` as its user runs it."""

from __future__ import annotations

import json
import shutil
from types import SimpleNamespace

import pytest

from natadv.evaluate.plan import CaseUnits
from natadv.evaluate.units import Numerics
from natadv.gate.__main__ import main
from natadv.gate.rules import Rule
from natadv.metrics.sequential import SEED
from natadv.plugin.session import GateSession
from natadv.types import Case

CLEAN = "classification/clean/plain/mini-clip"


def test_a_run_stops_early_with_the_same_bytes_for_any_number_of_workers(world, capsys):
    found = []
    for workers in ("0", "2"):
        options = ("--sequential", "--model", "mini-clip", "--store", f"store-{workers}")
        done = world.pytest("-n", workers, *options)
        assert done.returncode == 0, done.stdout
        verdict = world.verdict()
        run = verdict.pop("run")
        found.append((verdict, world.outcome_bytes(), done.stdout))
        # Each picture of 600 is shown clean, attacked, without letters and with the true word.
        assert run["images_encoded"] < 1200

    (verdict, files, shown), (other_verdict, other_files, _) = found
    assert (verdict, files) == (other_verdict, other_files)
    (clean, typo) = verdict["cases"]
    assert clean["case"] == CLEAN
    record = clean["sequence"]
    assert (record["seed"], record["planned"], clean["planned_n"]) == (SEED, 600, 600)
    assert 64 <= record["rows"] < 600
    assert record["decisions"][0].startswith("top1 floor 0.900: PASS after ")
    used = record["rows"] + typo["sequence"]["rows"]
    saved = f"{record['rows']} of     600 samples,  {1 - record['rows'] / 600:.0%} saved: {CLEAN}"
    assert saved in shown
    assert f"sequential: {used} of 1,200 samples, {1 - used / 1200:.0%} saved" in shown

    evidence, contract = world.root / ".natadv/evidence", world.root / "thresholds.yaml"
    again = ["--evidence", str(evidence), "--thresholds", str(contract)]
    assert main(again) == 0
    judged = capsys.readouterr().out
    assert judged.count("in random order") == 2
    # A case with its own twins needs no other case.
    shutil.rmtree(evidence / CLEAN.replace("/", "__"))
    run_file = evidence / "run.json"
    assert len(json.loads(run_file.read_text())["cases"]) == 2
    assert main(again) == 1
    assert "PASS         classification/typographic" in capsys.readouterr().out


def test_options_that_contradict_it_are_refused_in_one_line(world):
    for other, told in (
        (("--no-assert",), "--no-assert applies none"),
        (("--baseline", "elsewhere"), "--baseline compares all samples"),
    ):
        done = world.pytest("--sequential", *other)
        assert done.returncode == 4
        assert told in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("drawn", "metrics", "problem", "why"),
    [
        (True, ["top1"], "", "overlays and pictures are crossed"),
        (False, ["top1", "macro_f1"], "", "a rule of it is about no mean"),
        (False, [], "", "no rule says when it is decided"),
        (False, ["top1"], "no such dataset", "it cannot be measured"),
    ],
)
def test_what_cannot_be_decided_early_is_evaluated_as_a_whole(drawn, metrics, problem, why):
    case = Case("classification", "typographic", "d", "m")
    rules = [Rule(str(case), metric, "floor", 0.5, "by hand") for metric in metrics]
    grid = SimpleNamespace(
        lineages={"m": "m"},
        thresholds=SimpleNamespace(rules=rules),
        datasets={"d": SimpleNamespace(card=SimpleNamespace(drawn=drawn, twin_of=None))},
        rows=lambda name: 10,
    )
    units = CaseUnits(problem=problem)
    session = GateSession(
        grid,  # type: ignore[arg-type]
        contract="c",
        contract_file="thresholds.yaml",
        store=None,  # type: ignore[arg-type]
        run=None,  # type: ignore[arg-type]
        numerics=Numerics("cpu", "float32", batch_size=4, threads=1),
        sequential=True,
        selected=(case,),
        _units={case: units},
    )

    assert session.sequence(case) is None, why
    assert session.units(case) is units

"""A model that is blind to words holds on typographic pictures, and is caught by their twins."""

from __future__ import annotations

import io
import re

import pytest

from natadv import cli
from natadv.evidence import read_selection
from natadv.pipelines.reading_twins import ReadingPlan, make_reading
from natadv.types import Case

TYPO = Case("classification", "typographic", "plain-typo", "mini-clip")
READING = Case("classification", "reading", "plain-reading", "mini-clip")
THRESHOLDS = f"""\
version: 1
default_tier: mini
tiers:
  mini:
    models: [mini-clip]
    cases: [{TYPO.cell}, {READING.cell}]
rules:
  - {{case: {TYPO}, metric: top1, floor: 0.2, min_n: 500, source: by design}}
  - {{case: {READING}, metric: reading_accuracy, floor: 0.2, min_n: 500, source: by design}}
"""


@pytest.fixture
def asked(world):
    """A world whose models see colours and no words, and are asked for both."""
    make_reading(ReadingPlan("plain-typo", "plain-reading", root=world.root, stream=io.StringIO()))
    (world.root / "thresholds.yaml").write_text(THRESHOLDS)
    return world


def measured(world, case):
    (entry,) = [c for c in world.verdict()["cases"] if c["case"] == case.address]
    return entry["verdict"], {m["metric"]: m for m in entry["measurements"]}


def test_a_text_blind_model_passes_the_attack_and_fails_its_reading_twin(asked, verified):
    done = asked.pytest("-n", "0")

    assert done.returncode == 1, done.stdout
    assert re.search(
        rf"^{READING}\nFAIL +reading_accuracy +0\.000 +\[0\.000, 0\.0", done.stdout, re.M
    )
    verdict, attacked = measured(asked, TYPO)
    assert verdict == "PASS"
    assert attacked["top1"]["value"] > 0.9
    assert "reading_accuracy" not in attacked
    verdict, read = measured(asked, READING)
    assert verdict == "FAIL"
    assert (read["reading_accuracy"]["value"], read["read_or_ignore"]["value"]) == (0, 0)
    # Clean and attacked pictures and two controls, in full batches: its own were seen already, and
    # it has no controls.
    assert sum(event["images"] for event in asked.logged("encode")) == 4 * 608
    assert verified(asked.root).recomputed.verdict == "fail"


def test_asked_alone_it_brings_the_rows_of_its_twins_and_nothing_more(
    asked, verified, monkeypatch, capsys
):
    done = asked.pytest("-n", "0", "--scenario", "reading")

    assert done.returncode == 1, done.stdout
    assert measured(asked, READING)[0] == "FAIL"
    evidence = asked.root / ".natadv" / "evidence"
    assert read_selection(evidence).cases == (READING,)
    kept = {path.name for path in (evidence / TYPO.file_stem).iterdir()}
    assert kept == {"manifest.json", "outcomes.parquet"}
    assert verified(asked.root).recomputed.verdict == "fail"
    monkeypatch.chdir(asked.root)
    assert cli.main(["judge"]) == 1
    assert "INCOMPLETE" not in capsys.readouterr().out

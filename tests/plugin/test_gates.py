"""What the report shows of drawn overlays, and that no verdict hangs on it."""

from __future__ import annotations

import shutil

import pytest

from natadv.gate.cases import drawn_cases
from natadv.plugin.explanations import CAUSES, NO_MAPS
from natadv.report.overlay_rates import as_table, dataset_rates

CELL = "classification/typographic/lot"
CASE = f"{CELL}/mini-clip"
RULE = f"  - {{case: {CELL}/*, metric: top1, floor: 0.1, source: by design}}\n"
ONE_MODEL = ("-n", "0", "--model", "mini-clip")

TABLE = ("rates by factor", "text/plain")
WHY = [(CAUSES, "text/plain"), (NO_MAPS, "text/plain")]
"""Its models give no relevance maps."""
CHARTS = [("rates by factor", "image/png"), ("breaking points", "image/png")]

SABOTAGE = """
from natadv.report import overlay_charts


def broken(*_):
    log(kind="draw")
    {fault}


overlay_charts.rates_chart = broken
"""
FAULTS = {
    "RuntimeError: planted": "raise RuntimeError('planted')",
    "UserWarning: planted": "raise UserWarning('planted')",
}


@pytest.fixture(scope="module")
def drawn_once(pristine_world, populate, world_at, tmp_path_factory):
    root = shutil.copytree(pristine_world, tmp_path_factory.mktemp("drawn") / "world")
    populate(root, "lot", count=12)
    contract = root / "thresholds.yaml"
    contract.write_text(contract.read_text().replace("plain-typo]", f"plain-typo, {CELL}]") + RULE)
    with (root / "pytest.ini").open("a") as settings:
        settings.write("filterwarnings = error\n")
    done = world_at(root).pytest(*ONE_MODEL)
    assert done.returncode == 0, done.stdout
    return root


@pytest.fixture
def drawn(drawn_once, world_at, tmp_path):
    """A world whose tier holds pictures with drawn overlays, and whose gate has run once."""
    return world_at(shutil.copytree(drawn_once, tmp_path / "world"))


def attached(world, case=CASE):
    """(Name, type) -> content, in order."""
    (result,) = [r for r in world.allure() if r["name"] == case]
    folder = world.root / "allure-results"
    return {
        (a["name"], a["type"]): (folder / a["source"]).read_bytes()
        for a in result.get("attachments", [])
    }


def sabotage(world, fault):
    with (world.root / "conftest.py").open("a") as conftest:
        conftest.write(SABOTAGE.format(fault=fault))


def verdict(world):
    return {key: value for key, value in world.verdict().items() if key != "run"}


def test_a_few_overlays_are_no_sample_of_anything(drawn, populate):
    populate(drawn.root, "few", count=7)
    case = "classification/typographic/few/mini-clip"

    assert drawn.pytest(*ONE_MODEL, "--dataset", "few", "--no-assert").returncode == 0
    assert attached(drawn, case) == {}


def test_a_drawn_case_shows_its_rates_and_no_other_case_does(drawn):
    found = attached(drawn)

    assert list(found) == [TABLE, *CHARTS]
    assert all(found[chart].startswith(b"\x89PNG") for chart in CHARTS)
    others = [r["name"] for r in drawn.allure() if r["name"] != CASE]
    assert len(others) == 2
    assert not any(attached(drawn, other) for other in others)


def test_the_evidence_that_is_left_tells_the_same(drawn):
    (cases,) = drawn_cases(drawn.root / ".natadv" / "evidence", None)
    (rates,) = dataset_rates(cases)
    assert attached(drawn)[TABLE].decode().splitlines() == as_table(rates)


@pytest.mark.parametrize("error", FAULTS)
def test_a_chart_that_fails_changes_no_verdict_and_is_told(drawn, error):
    before, table = verdict(drawn), attached(drawn)[TABLE]
    sabotage(drawn, FAULTS[error])
    done = drawn.pytest(*ONE_MODEL)

    assert done.returncode == 0, done.stdout
    assert verdict(drawn) == before
    failed = ("rates by factor: not shown", "text/plain")
    assert attached(drawn) == {TABLE: table, failed: error.encode()}


def test_a_chart_that_fails_leaves_a_red_case_red_with_its_pictures(drawn):
    contract = drawn.root / "thresholds.yaml"
    contract.write_text(contract.read_text().replace("floor: 0.1", "floor: 0.999"))
    assert drawn.pytest(*ONE_MODEL).returncode == 1
    before, pictures = verdict(drawn), ("failing pictures", "image/png")
    assert list(attached(drawn)) == [TABLE, *CHARTS, pictures, *WHY]
    sabotage(drawn, FAULTS["RuntimeError: planted"])
    done = drawn.pytest(*ONE_MODEL)

    assert done.returncode == 1
    assert verdict(drawn) == before
    failed = ("rates by factor: not shown", "text/plain")
    assert list(attached(drawn)) == [TABLE, failed, pictures, *WHY]


def test_nothing_is_drawn_where_no_results_are_written(drawn):
    sabotage(drawn, FAULTS["RuntimeError: planted"])
    done = drawn.pytest(*ONE_MODEL, "-p", "no:allure_pytest")

    assert done.returncode == 0, done.stdout
    assert not drawn.logged("draw")
    drawn.pytest(*ONE_MODEL)
    assert len(drawn.logged("draw")) == 1

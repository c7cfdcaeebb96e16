"""Which runs become a baseline, and which baselines are refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from natadv.bundle.bless import bless
from natadv.errors import ConfigError, GateFailure, ReportError, StoreError
from natadv.evidence import (
    Selection,
    folder_of,
    read_all,
    read_evidence,
    read_selection,
    write_evidence,
    write_selection,
)
from natadv.gate.kept_baselines import baseline_folder, read_baseline, read_record
from natadv.report.gate_json import MeasurementEntry
from tests.bundle.conftest import RUN
from tests.gate.conftest import kit

__all__ = ["kit"]


class Run:
    """Evidence with the verdict on it, as a run of the gate leaves them."""

    def __init__(self, root, kit, *, models=("mini-clip", "mini-siglip")):
        self.root, self.evidence, self.gate_json = root, root / "evidence", root / "gate.json"
        self.folder = root / "baselines" / "main"
        kit.store_world(self.evidence, models=models)
        self.record()

    def record(self, verdict="pass", *, cases=None):
        stored, _ = read_all(self.evidence)
        cases = sorted(stored if cases is None else cases)
        write_selection(self.evidence, Selection("mini", ("mini-clip",), tuple(cases), True))
        content = {
            "version": 3,
            "verdict": verdict,
            "tier": "mini",
            "asserted": verdict != "measured",
            "whole_tier": True,
            "confidence": 0.95,
            "contract": {"file": "thresholds.yaml", "sha256": "c0"},
            "selection": {
                **{name: [] for name in ("models", "tasks", "scenarios", "datasets")},
                "limit": None,
                "keyword": "",
                "extent": f"{len(cases)} cases of tier mini",
            },
            "reasons": [],
            "problems": [],
            "cases": [self.case_json(stored[case]) for case in cases],
            "numerics": {},
            "commit": "abc",
            "run": RUN.model_dump() | {"id": "run-1"},
        }
        self.gate_json.write_text(json.dumps(content))

    @staticmethod
    def case_json(stored):
        manifest = stored.manifest
        names = ("planned_n", "data_revision", "weights", "protocol")
        top1 = float(np.mean(stored.outcomes["attack"].values["correct"]))
        facts = {name: getattr(manifest, name) for name in names}
        others = dict.fromkeys(MeasurementEntry.model_fields)
        return {
            "case": manifest.case.address,
            "verdict": "PASS",
            "green": True,
            "lineage": manifest.lineage,
            **facts,
            "measurements": [{**others, "metric": "top1", "value": top1}],
            "searches": [],
        }

    def bless(self, **options):
        settled = {"gate_json": self.gate_json, "folder": self.folder, "by": "me", "at": "today"}
        return bless(self.evidence, **(settled | options))

    def improve(self, case, kit):
        """Other rows of a case, in evidence that is whole again."""
        folder = folder_of(self.evidence, case)
        better = kit.rows_of(kit.first(150, 200))
        write_evidence(self.evidence, read_evidence(folder).manifest, {"attack": better})
        self.record()


@pytest.fixture
def run(tmp_path, kit):
    return Run(tmp_path, kit)


def test_a_green_run_is_kept_with_who_when_and_which_verdict(run, kit):
    kept = run.bless()

    assert (len(kept.cases), len(kept.added), kept.rows) == (6, 6, 1200)
    (blessing,) = read_record(run.folder)
    assert (blessing.by, blessing.at, blessing.verdict) == ("me", "today", "pass")
    assert (blessing.run, blessing.commit, blessing.contract) == ("run-1", "abc", "c0")
    before, now = read_all(run.evidence)[0], read_baseline(run.folder)
    assert set(before) == set(now)
    for case, stored in before.items():
        assert now[case].manifest == stored.manifest
        assert tuple(now[case].outcomes["attack"].id) == tuple(stored.outcomes["attack"].id)
        # Controls are never compared with a baseline.
        assert set(now[case].outcomes) == {"attack"}


@pytest.mark.parametrize(
    ("verdict", "message"),
    [
        ("fail", "the run was FAIL"),
        ("incomplete", "the run was INCOMPLETE"),
        ("inconclusive", "only a green run can be a baseline"),
        ("measured", "the run was MEASURED"),
        ("partial", "--partial keeps what it measured"),
    ],
)
def test_a_run_that_was_not_green_is_refused(run, verdict, message):
    run.record(verdict)

    with pytest.raises(GateFailure, match=message):
        run.bless(partial=verdict != "partial")
    assert not run.folder.exists()


def test_a_partial_run_is_kept_on_request_with_its_clean_twins(run, kit):
    run.record("partial", cases=[kit.TYPO])

    assert run.bless(partial=True).cases == (kit.CLEAN, kit.TYPO)


def test_a_verdict_on_other_evidence_is_refused(run, kit):
    good = run.gate_json.read_text()
    edits = {
        '"planned_n": 200': '"planned_n": 199',
        "revision-1": "revision-2",
        "protocol-1": "protocol-2",
        '"weights": "ccc': '"weights": "ddd',
        '"value": 0.975': '"value": 0.976',
        kit.NATURAL.address: kit.NATURAL.address + "2",
        # A verdict that somebody called a pass.
        '"green": true': '"green": false',
        '"problems": []': '"problems": ["a worker died"]',
        '"asserted": true': '"asserted": false',
        '"metric": "top1"': '"metric": "top5"',
    }
    for old, new in edits.items():
        assert old in good
        run.gate_json.write_text(good.replace(old, new))
        with pytest.raises((ConfigError, ReportError), match=r"is not the verdict on|says 'pass'"):
            run.bless()
    for other in ("[]", "{", good.replace("planned_n", "planned_m")):
        run.gate_json.write_text(other)
        with pytest.raises(ReportError, match=r"gate\.json: "):
            run.bless()
    assert not run.folder.exists()


def test_evidence_that_was_edited_or_lost_a_case_is_refused(run, kit):
    manifest = folder_of(run.evidence, kit.NATURAL) / "manifest.json"
    manifest.write_text(manifest.read_text().replace("revision-1", "revision-2"))
    with pytest.raises(StoreError, match="was changed after it was written"):
        run.bless()

    shutil.rmtree(manifest.parent)
    with pytest.raises(ConfigError, match=f"{kit.NATURAL} is not there"):
        run.bless()
    run.record(cases=[kit.TYPO])
    shutil.rmtree(folder_of(run.evidence, kit.CLEAN))
    with pytest.raises(ConfigError, match=f"its clean twins, {kit.CLEAN}, were not measured"):
        run.bless()


def test_evidence_that_no_run_finished_is_refused(run):
    (run.evidence / "run.json").unlink()

    with pytest.raises(ConfigError, match=r"has no run\.json"):
        run.bless()


def test_a_folder_that_is_no_baseline_is_left_as_it_is(run):
    run.folder.mkdir(parents=True)
    (run.folder / "notes.txt").write_text("mine")

    with pytest.raises(ConfigError, match="is no baseline, so it is left as it is"):
        run.bless(replacing=True)
    assert (run.folder / "notes.txt").read_text() == "mine"


def test_the_same_run_twice_changes_nothing(run):
    run.bless()
    before = {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()}

    assert run.bless(by="somebody else").added == ()
    assert {path: path.read_bytes() for path in before} == before


def test_rows_of_a_baseline_are_never_changed_unless_it_is_given_up(run, kit):
    run.bless()
    run.improve(kit.NATURAL, kit)

    with pytest.raises(ConfigError, match=rf"has other rows of {kit.NATURAL}; .* by --replace"):
        run.bless()
    assert read_baseline(run.folder)[kit.NATURAL].outcomes["attack"].values["correct"].sum() == 100

    run.bless(replacing=True)
    assert read_baseline(run.folder)[kit.NATURAL].outcomes["attack"].values["correct"].sum() == 150
    assert len(read_record(run.folder)) == 1


def test_a_later_run_adds_the_cases_of_a_new_dataset(run, kit):
    run.record(cases=[kit.CLEAN, kit.TYPO])
    run.bless()
    run.record()

    assert kit.NATURAL in run.bless(at="later").added
    assert [blessing.at for blessing in read_record(run.folder)] == ["today", "later"]
    assert len(read_baseline(run.folder)) == 6


def test_a_baseline_never_mixes_weights_of_one_model(run, kit):
    run.record(cases=[kit.CLEAN])
    run.bless()
    stored = read_all(run.evidence)[0]
    for case in (kit.TYPO, kit.NATURAL, kit.CLEAN):
        other = replace(stored[case].manifest, weights="e" * 64)
        write_evidence(run.evidence, other, stored[case].outcomes)
    run.record(cases=[kit.NATURAL])

    with pytest.raises(ConfigError, match="made with other weights of mini-clip"):
        run.bless()


def test_a_baseline_that_lost_a_case_is_not_compared_with(run, kit):
    run.bless()
    shutil.rmtree(folder_of(run.folder, kit.TYPO))

    with pytest.raises(ConfigError, match=f"lacks {kit.TYPO}, which it says it holds"):
        read_baseline(run.folder)


def test_a_record_that_was_edited_is_refused(run, kit):
    run.bless()
    record = run.folder / "baseline.json"
    content = json.loads(record.read_text())
    content["blessings"][0]["cases"].remove(kit.TYPO.address)
    record.write_text(json.dumps(content))

    with pytest.raises(ConfigError, match=r"baseline\.json: was changed after it was written"):
        read_baseline(run.folder)
    record.unlink()
    with pytest.raises(ConfigError, match=r"baseline\.json: is no record of a baseline"):
        read_baseline(run.folder)
    for garbage in (b"", b"[]", b"\xff", b"{}", b"[" * 9999):
        record.write_bytes(garbage)
        with pytest.raises(ConfigError, match=r"baseline\.json: is no record of a baseline"):
            read_baseline(run.folder)


def test_a_name_that_is_not_kept_says_what_is(run, tmp_path):
    run.bless()
    for given in ("mian", "baselines/mian"):
        folder = baseline_folder(given, here=tmp_path, root=tmp_path)
        with pytest.raises(
            ConfigError, match="no such folder of evidence, and baselines/ has main"
        ):
            read_baseline(folder)
    (tmp_path / "baselines" / "big.dvc").touch()
    with pytest.raises(ConfigError, match=r"run dvc pull .*baselines/big\.dvc"):
        read_baseline(tmp_path / "baselines" / "big")


def test_a_run_with_which_something_was_wrong_is_refused_though_its_verdict_is_green(run):
    selection = read_selection(run.evidence)
    write_selection(run.evidence, replace(selection, problems=("a worker died",)))

    with pytest.raises(ConfigError, match=r"is not the verdict on .*: a worker died"):
        run.bless()

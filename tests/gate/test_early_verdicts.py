"""Evidence of cases that were stopped, and the ways in which it could lie."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from natadv.errors import MetricError, StoreError
from natadv.evidence import (
    Manifest,
    SequenceRecord,
    StoredCase,
    folder_of,
    read_evidence,
    select,
    write_evidence,
)
from natadv.gate.__main__ import main
from natadv.gate.calibrate import proposals
from natadv.gate.cases import stored_evidence
from natadv.gate.early_verdicts import levels_of
from natadv.gate.judge import judge_all
from natadv.metrics.sequential import rank

pytestmark = pytest.mark.usefixtures("one_line_each")

PLANNED, REVISION = 1000, "revision-1"


def in_order(planned=PLANNED, seed=1):
    """Numbers of the samples `s0`, `s1`, ... in the order of evaluation."""
    return sorted(range(planned), key=lambda i: rank(f"s{i}", revision=REVISION, seed=seed))


@pytest.fixture
def world(kit):
    """A case of 1,000 samples that was stopped after 200, all of them right."""
    return stopped(kit)


def stopped(kit, *, share=1.0, rows=200, seed=1, **record):
    """`share` of the first `rows` are right, spread evenly."""
    order = in_order(seed=seed)
    steps = np.floor(np.arange(1, PLANNED + 1) * share + 1e-9)
    rights = np.zeros(PLANNED, dtype=bool)
    rights[order] = np.diff(steps, prepend=0) > 0
    whole = kit.rows_of(rights)
    first = set(order[:rows])
    kept = select(whole, [i in first for i in range(PLANNED)])
    found = kit.World().with_case(kit.CLEAN, kept)
    plans = {kit.CLEAN: replace(found.plans[kit.CLEAN], planned_n=PLANNED)}
    last = rank(f"s{order[rows - 1]}", revision=REVISION, seed=seed)
    facts = {"seed": seed, "groups": PLANNED, "group_rows": 1, "last": last} | record
    made = SequenceRecord(
        **({"revision": REVISION, "planned": PLANNED, "rows": rows} | facts)  # type: ignore[arg-type]
    )
    return kit.World(plans, found.evidence).changed(kit.CLEAN, sequence=made)


def judged(kit, world, *rules):
    given = rules or (kit.rule(kit.CLEAN),)
    return judge_all(
        tuple(world.plans.values()),
        world.evidence,
        thresholds=kit.thresholds_of(given, [kit.CLEAN]),
    ).of(kit.CLEAN)


def with_rows(world, kit, change):
    """With other outcomes."""
    evidence = world.evidence[kit.CLEAN].evidence
    return world.changed(kit.CLEAN, evidence=replace(evidence, attack=change(evidence.attack)))


def said(verdict):
    return " ".join(verdict.lines)


@pytest.mark.parametrize(("share", "verdict", "sign"), [(1, "PASS", ">="), (0.4, "FAIL", "<")])
def test_a_stopped_case_is_judged_by_its_sequence(kit, share, verdict, sign):
    found = judged(kit, stopped(kit, share=share))

    assert found.verdict == verdict
    (own,) = found.judgements
    assert f"{sign} floor 0.800 (n 200" in own.reason
    assert "decided by the first " in own.reason


def test_the_interval_of_a_stopped_case_is_wider_than_that_of_a_fixed_number(kit, world):
    own = judged(kit, stopped(kit, share=0.95)).judgements[0].measurement
    alike = world.changed(kit.CLEAN, sequence=None)
    plan = replace(world.plans[kit.CLEAN], planned_n=200)
    fixed = stopped(kit, share=0.95).changed(kit.CLEAN, sequence=None)
    other = judged(kit, kit.World({kit.CLEAN: plan}, fixed.evidence)).judgements[0].measurement

    assert alike.evidence[kit.CLEAN].sequence is None
    assert own is not None
    assert other is not None
    assert own.low < other.low < other.value == own.value < other.high < own.high


def test_the_order_of_the_rows_in_the_file_changes_nothing(kit, world):
    mixed = np.random.default_rng(3).permutation(200)

    def shuffle(rows):
        columns = ("id", "group", "part", "twin", "decoy", "truth", "prediction")
        return replace(
            rows,
            **{name: tuple(getattr(rows, name)[i] for i in mixed) for name in columns},
            values={name: column[mixed] for name, column in rows.values.items()},
        )

    for made in (world, stopped(kit, share=0.95), stopped(kit, share=0.5)):
        assert judged(kit, with_rows(made, kit, shuffle)) == judged(kit, made)


def test_truncated_evidence_is_incomplete_without_its_record(kit, world):
    found = judged(kit, world.changed(kit.CLEAN, sequence=None))

    assert found.verdict == "INCOMPLETE"
    assert "expected 1000 samples, got 200 and 0 errors" in said(found)


def test_truncated_evidence_that_is_called_whole_is_incomplete(kit):
    found = judged(kit, stopped(kit, planned=200))

    assert found.verdict == "INCOMPLETE"
    assert "expected an order of 1000 samples, got one of 200" in said(found)


@pytest.mark.parametrize("share", [0.8, 0.82, 0.77])
def test_a_stop_that_the_sequence_does_not_support_is_incomplete(kit, share):
    found = judged(kit, stopped(kit, share=share))

    assert found.verdict == "INCOMPLETE"
    assert "stopped after 200 of 1000 samples, which do not decide this rule" in said(found)


def test_a_row_more_or_less_than_the_stop_is_incomplete(kit, world):
    fewer = with_rows(world, kit, lambda rows: select(rows, [i != 7 for i in range(200)]))
    more = stopped(kit, rows=201)
    record = world.evidence[kit.CLEAN].sequence

    for made, got in ((fewer, 199), (more.changed(kit.CLEAN, sequence=record), 201)):
        found = judged(kit, made)
        assert found.verdict == "INCOMPLETE"
        assert f"expected 200 samples, got {got}" in said(found)


def test_a_row_from_another_place_of_the_order_is_incomplete(kit, world):
    later = f"s{in_order()[500]}"

    def swap(rows):
        return replace(rows, id=(later, *tuple(rows.id)[1:]), group=(later, *tuple(rows.group)[1:]))

    found = judged(kit, with_rows(world, kit, swap))

    assert found.verdict == "INCOMPLETE"
    assert f"pictures ['{later}'] do not belong to the first 200 samples" in said(found)


def test_rows_of_another_seed_are_incomplete(kit, world):
    record = world.evidence[kit.CLEAN].sequence
    for wrong in (replace(record, seed=2), replace(record, revision="revision-2")):
        found = judged(kit, world.changed(kit.CLEAN, sequence=wrong))
        assert found.verdict == "INCOMPLETE"
        assert "do not belong to the first 200 samples" in said(found)

    # Right in itself, and one of many orders that somebody may have tried.
    found = judged(kit, stopped(kit, seed=2))
    assert found.verdict == "INCOMPLETE"
    assert "its order is that of seed 2, every run has seed 1" in said(found)


def test_a_picture_with_more_samples_than_the_record_allows_is_incomplete(kit, world):
    def join(rows):
        return replace(rows, group=(rows.group[1], *tuple(rows.group)[1:]))

    found = judged(kit, with_rows(world, kit, join))

    assert found.verdict == "INCOMPLETE"
    assert "a picture has 2 samples, the plan says at most 1" in said(found)


def test_a_stopped_case_cannot_answer_for_what_is_no_mean(kit, world):
    found = judged(kit, world, kit.rule(kit.CLEAN, "macro_recall"))

    assert found.verdict == "INCOMPLETE"
    assert "macro_recall not measured as planned: it is no mean over samples" in said(found)


def test_a_stopped_case_is_incomplete_while_one_of_its_rules_is_open(kit, world):
    rules = (kit.rule(kit.CLEAN), kit.rule(kit.CLEAN, "decoy_rate", side="ceiling", bound=1e-3))
    decoys = with_rows(world, kit, lambda rows: replace(rows, decoy=("owl",) * 200))
    found = judged(kit, decoys, *rules)

    assert [j.verdict for j in found.judgements] == ["PASS", "INCOMPLETE"]
    assert found.verdict == "INCOMPLETE"


def test_as_large_a_share_as_min_n_asks_for_is_enough(kit, world):
    # Nine of the first 200 failed: 191 of them are left of at least 190, or of 192.
    failed = with_rows(
        world,
        kit,
        lambda rows: replace(
            select(rows, [i >= 9 for i in range(200)]),
            errors={name: "broken" for name in tuple(rows.id)[:9]},
        ),
    )
    thresholds = {"max_excluded": 0.1}
    for min_n, verdict in ((950, "PASS"), (960, "INCOMPLETE")):
        given = kit.thresholds_of([kit.rule(kit.CLEAN, min_n=min_n)], [kit.CLEAN], **thresholds)
        found = judge_all(tuple(failed.plans.values()), failed.evidence, thresholds=given)
        assert found.of(kit.CLEAN).verdict == verdict


def test_a_fail_is_corrected_for_all_rules_of_the_run(kit):
    world = stopped(kit, share=0.68)
    others = [kit.rule(kit.CLEAN, bound=0.1 + i / 1e4) for i in range(50)]

    assert judged(kit, world).verdict == "FAIL"
    found = judged(kit, world, kit.rule(kit.CLEAN), *others)
    assert found.judgements[0].verdict == "INCOMPLETE"
    assert {j.verdict for j in found.judgements[1:]} == {"PASS"}
    assert levels_of(0.95, rules=51).breaks == pytest.approx(0.3 * 0.025 / 51)


def test_what_the_sequence_leaves_open_is_judged_by_all_samples_at_the_rest_of_the_level(kit):
    stricter = 0
    for right in range(815, 840, 2):
        whole = stopped(kit, share=right / PLANNED, rows=PLANNED)
        plain = judged(kit, whole.changed(kit.CLEAN, sequence=None)).judgements[0]
        shared = judged(kit, whole).judgements[0]

        assert "random order" not in shared.reason
        assert shared.measurement.low < plain.measurement.low
        assert (shared.verdict == "PASS") == (shared.measurement.low >= 0.8)
        stricter += (plain.verdict, shared.verdict) == ("PASS", "INCONCLUSIVE")
    # In about a tenth of a standard error of 0.0126.
    assert 1 <= stricter <= 3
    assert judged(kit, stopped(kit, share=0.9, rows=PLANNED)).verdict == "PASS"


@pytest.fixture
def manifest(kit, world):
    facts = ("revision-1", "c" * 64, "protocol-1")
    record = world.evidence[kit.CLEAN].sequence
    return Manifest(kit.CLEAN, "mini-clip", PLANNED, *facts, sequence=record)


def test_a_record_is_read_back_and_absent_where_nothing_was_stopped(kit, world, manifest, tmp_path):
    rows = {"attack": world.evidence[kit.CLEAN].evidence.attack}
    folder = write_evidence(tmp_path / "a", manifest, rows)
    plain = write_evidence(tmp_path / "b", replace(manifest, sequence=None), rows)

    assert read_evidence(folder).manifest == manifest
    assert "sequence" not in (plain / "manifest.json").read_text()
    assert read_evidence(plain).manifest.sequence is None


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"rows": 0}, "rows: input should be greater than 0"),
        ({"planned": 0}, "planned: input should be greater than 0"),
        ({"rows": 200.0}, "rows: input should be a valid integer"),
        ({"last": None}, "last: input should be a valid string"),
        ({"extra": 1}, "unknown key"),
    ],
)
def test_a_damaged_record_is_one_clear_line(kit, world, manifest, tmp_path, change, told):
    rows = {"attack": world.evidence[kit.CLEAN].evidence.attack}
    path = write_evidence(tmp_path, manifest, rows) / "manifest.json"
    record = {f: getattr(manifest.sequence, f) for f in SequenceRecord.__dataclass_fields__}
    kit.sign(path, sequence=record | {"decisions": []} | change)

    with pytest.raises(StoreError, match=told) as caught:
        read_evidence(path.parent)
    assert "\n" not in str(caught.value)


def test_stored_evidence_of_a_stopped_case_is_judged_again(
    kit, world, manifest, tmp_path, thresholds_file, capsys
):
    root = tmp_path / "evidence"
    write_evidence(root, manifest, {"attack": world.evidence[kit.CLEAN].evidence.attack})
    text = thresholds_file.read_text().split("      - classification/typographic")[0]
    text = text.replace(", mini-siglip", "")
    rules = "rules:\n  - {case: '*/clean/*/*', metric: top1, floor: FLOOR, source: by hand}\n"
    for floor, code, told in (
        (0.9, 0, "decided by the first "),
        (0.99, 1, "stopped after 200 of 1000 samples"),
    ):
        thresholds_file.write_text(text + rules.replace("FLOOR", str(floor)))

        assert main(["--evidence", str(root), "--thresholds", str(thresholds_file)]) == code
        assert told in capsys.readouterr().out
    assert folder_of(root, kit.CLEAN).is_dir()


def test_floors_are_not_calibrated_on_stopped_cases(kit, world, manifest, tmp_path):
    write_evidence(tmp_path, manifest, {"attack": world.evidence[kit.CLEAN].evidence.attack})

    with pytest.raises(MetricError, match="stopped early; calibrate on all samples"):
        proposals(tmp_path, "2026-11-27", None)


def test_stored_rows_in_the_order_of_another_revision_are_incomplete(kit, world, manifest):
    rows = {"attack": world.evidence[kit.CLEAN].evidence.attack}
    other = replace(manifest, data_revision="revision-2")

    for wrong, own, told in (
        (other, rows, "in the order of another data revision"),
        (replace(manifest, sequence=None), {**rows, "clean": rows["attack"]}, "twins of its own"),
    ):
        (problem,) = stored_evidence(kit.CLEAN, {kit.CLEAN: StoredCase(wrong, own)}).problems
        assert told in problem
    assert not stored_evidence(kit.CLEAN, {kit.CLEAN: StoredCase(manifest, rows)}).problems

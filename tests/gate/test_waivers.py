"""Known failures that do not keep a run from being green, as long as somebody answers for them."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date

import pytest

from natadv.errors import ConfigError
from natadv.evidence import folder_of, read_evidence, write_evidence
from natadv.gate.__main__ import main
from natadv.gate.judge import judge_all, worse
from natadv.gate.rules import Waiver
from natadv.gate.thresholds_file import load_thresholds
from natadv.gate.waivers import today_utc

pytestmark = pytest.mark.usefixtures("one_line_each")

TODAY = date(2026, 11, 27)
NATURAL = "classification/natural/mini-natural/mini-clip"
ROW = {
    "case": NATURAL,
    "reason": "flaky light, mended in release 4",
    "owner": "jane",
    "issue": "https://example.org/12",
    "expires": "2026-12-20",
}


def with_waivers(path, *rows):
    """The contract with these waivers, each of which changes some keys of ROW."""
    listed = [{k: v for k, v in {**ROW, **row}.items() if v is not None} for row in rows]
    # JSON is YAML, but would quote the day.
    text = json.dumps(listed).replace('"2026-', "2026-").replace('-20"', "-20")
    path.write_text(f"{path.read_text()}waivers: {text}\n")
    return path


def waiver(case=NATURAL, **columns):
    defaults = {"reason": "known", "owner": "jane", "issue": "#1", "expires": date(2026, 12, 20)}
    return Waiver(str(case), **(defaults | columns))


@pytest.fixture
def gate(evidence_root, thresholds_file, capsys):
    def run(*options):
        given = ["--evidence", evidence_root, "--thresholds", thresholds_file]
        code = main([*map(str, given), "--date", str(TODAY), *options])
        told = capsys.readouterr()
        return code, (told.out + told.err).splitlines()

    return run


@pytest.fixture
def broken(evidence_root, kit):
    """Evidence in which one model fails on natural pictures."""
    stored = read_evidence(folder_of(evidence_root, kit.NATURAL))
    rows = kit.rows_of(kit.first(20, 200))
    write_evidence(evidence_root, stored.manifest, {"attack": rows})


def test_a_run_whose_only_failure_is_waived_is_green_and_says_so(gate, broken, thresholds_file):
    assert gate()[0] == 1
    with_waivers(thresholds_file, {})

    code, lines = gate()

    assert code == 0
    assert f"WAIVED       {NATURAL}" in lines
    (rule,) = [line for line in lines if line.startswith(f"    FAIL         {NATURAL}: top1 0.100")]
    note = "waived by jane until 2026-12-20: flaky light, mended in release 4"
    assert rule.endswith(f"; {note} (https://example.org/12)")
    assert lines[-1] == (f"WAIVED: 6 cases of tier mini; waived: {NATURAL} (jane until 2026-12-20)")


def test_a_waiver_covers_its_last_day_and_no_other(gate, broken, thresholds_file):
    with_waivers(thresholds_file, {})

    assert gate("--date", "2026-12-20")[0] == 0
    code, lines = gate("--date", "2026-12-21")

    assert code == 1
    assert f"FAIL         {NATURAL}" in lines
    (told,) = [line for line in lines if line.startswith("waiver of")]
    assert "by jane expired on 2026-12-20, so it does not apply (line 29)" in told
    assert lines[-1] == "FAIL: 6 cases of tier mini"


def test_an_idle_waiver_is_told_and_is_no_error(gate, thresholds_file):
    with_waivers(thresholds_file, {})

    code, lines = gate()

    assert code == 0
    assert f"waiver of {NATURAL} by jane matches no failing case (line 29); remove it" in lines
    assert lines[-1] == "PASS: 6 cases of tier mini"


def judged(kit, world, rules, *waivers, today=TODAY, **options):
    thresholds = kit.thresholds_of(rules, tuple(world.plans), **options)
    return judge_all(
        list(world.plans.values()),
        world.evidence,
        thresholds=replace(thresholds, waivers=waivers),
        today=today,
    )


@pytest.fixture
def failing(kit):
    return kit.World().with_case(kit.CLEAN, kit.rows_of(kit.first(300, 600)))


def test_without_a_day_no_waiver_applies(kit, failing):
    found = judged(kit, failing, [kit.rule(kit.CLEAN)], waiver(kit.CLEAN), today=None)

    assert (found.overall, found.waivers) == ("fail", ())


def test_a_waiver_of_a_metric_covers_no_other_rule(kit, failing):
    rules = [kit.rule(kit.CLEAN), kit.rule(kit.CLEAN, "macro_f1", bound=0.9)]
    one = waiver(kit.CLEAN, metric="top1")

    found = judged(kit, failing, rules, one)

    assert found.overall == "fail"
    case = found.of(kit.CLEAN)
    assert case.waiver is None
    assert [j.waiver for j in case.judgements] == [one, None]
    # What is waived is no reason.
    assert len(case.lines) == 1
    assert "macro_f1" in case.lines[0]


def test_a_case_is_green_until_the_first_of_its_waivers_ends(kit, failing):
    rules = [kit.rule(kit.CLEAN), kit.rule(kit.CLEAN, "macro_f1", bound=0.9)]
    first = waiver(kit.CLEAN, metric="top1", expires=date(2026, 12, 1))
    whole = waiver(kit.CLEAN, metric="macro_f1")

    found = judged(kit, failing, rules, whole, first)

    assert (found.overall, found.green) == ("waived", True)
    assert found.of(kit.CLEAN).waiver == first
    assert judged(kit, failing, rules, whole, first, today=date(2026, 12, 2)).overall == "fail"


def test_what_is_inconclusive_can_be_waived(kit):
    world = kit.World().with_case(kit.CLEAN, kit.rows_of(kit.first(481, 600)))

    found = judged(kit, world, [kit.rule(kit.CLEAN)], waiver(kit.CLEAN))

    assert found.of(kit.CLEAN).verdict == "INCONCLUSIVE"
    assert found.overall == "waived"


def test_what_was_not_measured_as_planned_cannot_be_waived(kit, failing):
    short = [kit.rule(kit.CLEAN), kit.rule(kit.CLEAN, "macro_f1", bound=0.1, min_n=601)]
    stale = failing.changed(kit.CLEAN, weights="d" * 64)
    absent = kit.World(failing.plans, {})

    for world, rules in ((failing, short), (stale, short[:1]), (absent, short[:1])):
        found = judged(kit, world, rules, waiver(kit.CLEAN))
        assert found.of(kit.CLEAN).waiver is None
        assert not found.green
        # Nobody knows whether the waiver is needed.
        assert "unused" not in {use.state for use in found.waivers}


def test_another_failure_is_not_hidden_by_a_waived_one(kit, failing):
    world = failing.with_case(kit.NATURAL, kit.rows_of(kit.first(300, 600)))

    found = judged(kit, world, [kit.rule("*/*/*/*")], waiver(kit.CLEAN))

    assert found.overall == "fail"
    assert found.of(kit.CLEAN).waiver is not None
    assert "waived" not in [*found.report][-1]


def test_a_checkpoint_does_not_inherit_the_waiver_of_its_lineage(kit):
    own = replace(kit.CLEAN, model="my-clip")
    world = kit.World().with_case(own, kit.rows_of(kit.first(100, 600)), lineage="mini-clip")

    assert judged(kit, world, [kit.rule(kit.CLEAN)], waiver(kit.CLEAN)).of(own).waiver is None


def test_a_waiver_of_another_way_of_asking_does_not_apply(kit):
    paper = replace(kit.CLEAN, model="mini-clip@paper")

    assert not waiver("classification/clean/mini/*").covers(paper)
    assert waiver("classification/clean/mini/*@paper").covers(paper)


def test_waived_is_worse_than_pass_and_better_than_anything_red():
    order = ["fail", "incomplete", "inconclusive", "waived", "partial", "pass"]

    assert [worse("waived", other) for other in order] == [*order[:3], *["waived"] * 3]


MISTAKES = [
    ({"reason": ""}, "waivers[0].reason: expected a plain word without blanks around, got ''"),
    ({"reason": "-"}, "waivers[0].reason: expected words, got '-'"),
    ({"reason": None}, "waivers[0].reason: required, but not given"),
    ({"owner": None}, "waivers[0].owner: required, but not given"),
    ({"issue": " "}, "waivers[0].issue: expected a plain word"),
    ({"expires": None}, "waivers[0].expires: required, but not given"),
    (
        {"expires": "soon"},
        "waivers[0].expires: expected a day such as 2026-12-31, without quotes and",
    ),
    (
        {"expires": 2026},
        "waivers[0].expires: expected a day such as 2026-12-31, without quotes and",
    ),
    ({"expire": "2026-12-20"}, "waivers[0].expire: unknown key, did you mean 'expires'?"),
    ({"case": "*/*/*/*"}, "waivers[0].case: a waiver names at least two of scenario, dataset and"),
    ({"case": "classification/*/*/mini-clip"}, "waivers[0].case: a waiver names at least two"),
    ({"case": "classification/clean/m?ni/*"}, "waivers[0].case: a waiver names at least two"),
    ({"case": "classification/clean/mini"}, "expected task/scenario/dataset/model"),
    ({"case": "classification/clean/mini/other"}, "this waiver covers no case of any tier"),
    ({"metric": "top2"}, "waivers[0].metric: unknown metric 'top2', did you mean"),
    ({"metric": "miou"}, "'miou' is of segmentation, not of classification"),
]


def test_a_mistake_in_a_waiver_is_one_line(thresholds_file):
    original = thresholds_file.read_text()
    for row, message in MISTAKES:
        thresholds_file.write_text(original)
        with_waivers(thresholds_file, row)

        with pytest.raises(ConfigError) as caught:
            load_thresholds(thresholds_file, today=TODAY)

        (line,) = str(caught.value).splitlines()
        assert line.startswith(f"{thresholds_file}:29: "), row
        assert message in line, row


def test_a_waiver_lasts_for_at_most_ninety_days(thresholds_file):
    # 25 + 31 + 31 + 3 days after the 5th of October.
    with_waivers(thresholds_file, {"expires": "2027-01-03"})
    thresholds_file.write_text(thresholds_file.read_text().replace('"2027-01-03"', "2027-01-03"))

    assert load_thresholds(thresholds_file, today=date(2026, 10, 5)).waivers
    with pytest.raises(ConfigError, match="within 90 days from 2026-10-04, got 2027-01-03"):
        load_thresholds(thresholds_file, today=date(2026, 10, 4))


def test_a_second_waiver_of_one_thing_is_refused(thresholds_file):
    with_waivers(thresholds_file, {}, {"owner": "joe"})

    with pytest.raises(ConfigError, match="a second waiver, see line 29; keep one"):
        load_thresholds(thresholds_file)


def test_waivers_may_stand_in_an_included_file(thresholds_file):
    with_waivers(thresholds_file, {})
    text, waivers = thresholds_file.read_text().split("waivers:")
    (thresholds_file.parent / "waivers.yaml").write_text(f"waivers:{waivers}")
    thresholds_file.write_text(text.replace("version: 1\n", "version: 1\ninclude: [w*.yaml]\n"))

    (found,) = load_thresholds(thresholds_file).waivers

    assert (found.file, found.line, found.expires) == ("waivers.yaml", 1, date(2026, 12, 20))


def test_a_day_is_a_day_of_the_calendar(gate):
    for given in ("2026-02-30", "20261127", "2026-W48-5", "tomorrow"):
        assert gate("--date", given)[0] == 4, given


def test_by_default_it_is_judged_by_today(evidence_root, thresholds_file, capsys):
    before = today_utc()
    main(["--evidence", str(evidence_root), "--thresholds", str(thresholds_file)])

    first = capsys.readouterr().out.splitlines()[0]
    assert first.startswith(f"contract {thresholds_file}, sha256 ")
    assert first.rpartition(" on ")[2] in (str(before), str(today_utc()))

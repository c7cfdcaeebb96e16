"""What a change of the contract does to the gate, as a release engineer reads it."""

from __future__ import annotations

import hashlib
import os
import threading
from collections import Counter
from dataclasses import replace
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natadv import cli
from natadv.errors import ConfigError
from natadv.gate.contract import contract_digest, differences
from natadv.gate.rules import Rule, SearchProfile, Thresholds, Tier, TierGrid, Waiver
from natadv.gate.thresholds_file import load_thresholds

MIRRORED = {"WEAKER": "STRICTER", "STRICTER": "WEAKER", "CHANGED": "CHANGED", "neutral": "neutral"}

CELLS = ("classification/clean/a", "classification/typographic/b", "vqa/clean/a")
PATTERNS = ("classification/clean/a", "*/clean/a", "classification/*/*", "*/*/*")
"""Which overlap, so that several rules ask for the same number."""
MODELS = ("m", "n")

SIDES = {"top1": "floor", "decoy_rate": "ceiling"}
rules = st.builds(
    lambda cell, model, metric, bound, min_n, part, source, at: Rule(
        f"{cell}/{model}", metric, SIDES[metric], bound, source, min_n, part, at=at
    ),
    st.sampled_from(PATTERNS),
    st.sampled_from((*MODELS, "*")),
    st.sampled_from(sorted(SIDES)),
    st.sampled_from((0.1, 0.5, 0.9)),
    st.sampled_from((1, 10)),
    st.sampled_from((None, None, "held-out")),
    st.sampled_from(("by hand", "measured")),
    st.sampled_from(("interval", "value")),
)
searches = st.builds(
    SearchProfile,
    population=st.sampled_from(("p", "q")),
    subjects=st.sampled_from((("dog",), ("dog", "cat"), ("cat", "dog"), ("*",), ("d*",))),
    pictures=st.sampled_from((8, 16)),
    at_least=st.sampled_from((0.25, 0.5)),
    evaluations=st.sampled_from((30, 60)),
    discover=st.sampled_from((0, 300)),
    seed=st.sampled_from((1, 2)),
)
plain_tiers = st.builds(
    Tier,
    name=st.just("t"),
    grids=st.lists(
        st.builds(
            TierGrid,
            models=st.lists(st.sampled_from(MODELS), min_size=1, unique=True).map(tuple),
            cases=st.lists(st.sampled_from(CELLS), min_size=1, unique=True).map(tuple),
        ),
        min_size=1,
        max_size=2,
    ).map(tuple),
    max_excluded=st.sampled_from((0.0, 0.1)),
)
tiers = st.builds(
    replace,
    plain_tiers,
    limit=st.sampled_from((None, 5, 10)),
    searches=st.dictionaries(st.sampled_from(("b", "c")), searches, max_size=2),
)


def contracts(of_tiers, confidence):
    """Contracts whose rules are each on something else, as those of a file are."""
    return st.builds(
        lambda found, level, kept: Thresholds(
            next(iter(found)), level, {n: replace(t, name=n) for n, t in found.items()}, tuple(kept)
        ),
        st.dictionaries(st.sampled_from(("t", "u")), of_tiers, min_size=1),
        confidence,
        st.lists(rules, min_size=2, max_size=8, unique_by=lambda r: (r.case, r.metric, r.part)),
    )


def edited(contract):
    """Contracts with some of these rules dropped, moved, or asked of fewer samples."""

    def edits(rule):
        bounds, counts = (0.1, 0.4, 0.9), (1, 5, 10)
        return st.sampled_from(
            [rule, rule, None]
            + [replace(rule, bound=bound) for bound in bounds]
            + [replace(rule, min_n=n) for n in counts]
            + [replace(rule, at=at) for at in ("interval", "value")]
        )

    return st.tuples(*map(edits, contract.rules)).map(
        lambda found: replace(contract, rules=tuple(rule for rule in found if rule))
    )


def pairs(of_contracts):
    return of_contracts.flatmap(lambda old: st.tuples(st.just(old), edited(old) | of_contracts))


anything = contracts(tiers, st.sampled_from((0.9, 0.95)))
rules_alone = contracts(plain_tiers, st.just(0.95))


def effects(found):
    """All that has a mirror: how a model joins, it does not leave."""
    return Counter(
        (one.effect, one.subject) for one in found if not one.subject.startswith("model ")
    )


def weaker(found):
    return [one for one in found if one.effect == "WEAKER"]


@given(anything)
def test_a_contract_does_not_differ_from_itself(contract):
    assert differences(contract, contract) == ()


@given(pairs(anything))
def test_what_is_weaker_one_way_is_stricter_the_other_way(pair):
    old, new = pair
    there, back = differences(old, new), differences(new, old)

    mirrored = [replace(one, effect=MIRRORED[one.effect]) for one in back]
    assert effects(there) == effects(mirrored)


@given(anything, st.randoms(use_true_random=False))
def test_order_and_lines_are_no_difference(contract, random):
    def mixed(items):
        listed = tuple(items)
        return tuple(random.sample(listed, k=len(listed)))

    moved = {
        name: replace(
            tier,
            grids=mixed(
                replace(grid, models=mixed(grid.models), cases=mixed(grid.cases))
                for grid in tier.grids
            ),
        )
        for name, tier in mixed(contract.tiers.items())
    }
    again = replace(
        contract, tiers=moved, rules=tuple(replace(r, line=9) for r in mixed(contract.rules))
    )

    assert differences(contract, again) == ()


@given(rules_alone)
def test_globs_that_are_written_out_are_neutral(contract):
    grid = {case for tier in contract.tiers.values() for case in tier.grid}
    single = {
        (case, rule): replace(rule, case=case.address)
        for rule in contract.rules
        for case in sorted(grid)
        if rule.covers(case, case.model)
    }

    found = differences(contract, replace(contract, rules=tuple(single.values())))

    assert {one.effect for one in found} <= {"neutral"}


def just_kept(contract, name):
    """What a tier measures where it only just keeps to the contract."""
    measured = {}
    for case in contract.tiers[name].grid:
        for metric, side in SIDES.items():
            for part in (None, "held-out"):
                pick, n = (max, 0) if side == "floor" else (min, 0)
                value = end = 0.0 if side == "floor" else 1.0
                for rule in contract.rules:
                    if rule.covers(case, case.model) and (rule.metric, rule.part) == (metric, part):
                        value, n = pick(value, rule.bound), max(n, rule.min_n)
                        end = pick(end, rule.bound) if rule.at == "interval" else end
                measured[case, metric, part] = value, end, n
    return measured, contract.tiers[name].max_excluded


def keeps(contract, name, measured, excluded):
    """Whether the tier of `contract` would be green; by hand, rule for rule."""
    tier = contract.tiers[name]
    if excluded > tier.max_excluded:
        return False
    for case in tier.grid:
        if not any(key[0] == case for key in measured):
            return False
        for rule in contract.rules:
            if rule.covers(case, case.model):
                value, end, n = measured[case, rule.metric, rule.part]
                judged = end if rule.at == "interval" else value
                if not (rule.holds(judged) and n >= rule.min_n):
                    return False
    return True


@given(pairs(rules_alone))
def test_it_is_weaker_exactly_if_something_passes_that_did_not(pair):
    old, new = pair
    new = replace(new, default_tier=old.default_tier, tiers={**old.tiers, **new.tiers})
    passes = all(keeps(old, name, *just_kept(new, name)) for name in old.tiers)

    assert passes is (weaker(differences(old, new)) == [])


def told(old, new):
    return [str(one) for one in differences(old, new)]


@pytest.fixture
def contract(thresholds_file):
    return load_thresholds(thresholds_file)


def with_rule(contract, index, /, **columns):
    changed = list(contract.rules)
    changed[index] = replace(changed[index], **columns)
    return replace(contract, rules=tuple(changed))


def of_grid(tier, **columns):
    return replace(tier, grids=(replace(tier.grids[0], **columns),))


def with_tier(contract, **columns):
    tier = contract.tier()
    in_grid = {name: columns.pop(name) for name in ("models", "cases") if name in columns}
    return replace(contract, tiers={"mini": replace(of_grid(tier, **in_grid), **columns)})


CLEAN, TYPO = "classification/clean/mini", "classification/typographic/mini-typo"
WAIVER = Waiver(f"{CLEAN}/mini-clip", "known", "jane", "#1", date(2026, 12, 20))


@pytest.mark.parametrize(
    ("change", "lines"),
    [
        (lambda c: with_rule(c, 0, bound=0.8), [f"WEAKER   {CLEAN}/*: top1 floor 0.9 -> 0.8"]),
        (lambda c: with_rule(c, 1, bound=0.2),
         [f"STRICTER {TYPO}/*: accuracy_drop ceiling 0.3 -> 0.2"]),
        (lambda c: with_rule(c, 0, min_n=1), [f"WEAKER   {CLEAN}/*: top1 min_n 100 -> 1"]),
        (lambda c: with_rule(c, 0, bound=0.95, min_n=1),
         [f"WEAKER   {CLEAN}/*: top1 min_n 100 -> 1",
          f"STRICTER {CLEAN}/*: top1 floor 0.9 -> 0.95"]),
        (lambda c: with_rule(c, 0, at="value"),
         [f"WEAKER   {CLEAN}/*: top1 floor at interval -> value"]),
        (lambda c: with_rule(c, 0, at="value", bound=0.95),
         [f"WEAKER   {CLEAN}/*: top1 floor at interval -> value",
          f"STRICTER {CLEAN}/*: top1 floor 0.9 -> 0.95"]),
        (lambda c: with_rule(c, 0, max_excluded=0.01),
         [f"STRICTER {CLEAN}/*: top1 max_excluded none -> 0.01"]),
        (lambda c: with_rule(c, 0, side="ceiling", bound=0.05, of_loss=True),
         [f"WEAKER   {CLEAN}/*: top1 floor 0.9 (min_n 100) removed",
          f"STRICTER {CLEAN}/*: top1 loss ceiling 0.05 (min_n 100) added"]),
        (lambda c: replace(c, waivers=(WAIVER,)),
         [f"WEAKER   {CLEAN}/mini-clip: waived by jane until 2026-12-20: known (#1)"]),
        (lambda c: with_rule(c, 0, case=f"{CLEAN}/mini-clip"),
         [f"WEAKER   {CLEAN}/mini-siglip: top1 floor 0.9 (min_n 100) removed"]),
        (lambda c: with_rule(c, 0, part="held-out"),
         [f"WEAKER   {CLEAN}/*: top1 floor 0.9 (min_n 100) removed",
          f"STRICTER {CLEAN}/*: top1 (held-out) floor 0.9 (min_n 100) added"]),
        (lambda c: with_rule(c, 0, metric="top5"),
         [f"WEAKER   {CLEAN}/*: top1 floor 0.9 (min_n 100) removed",
          f"STRICTER {CLEAN}/*: top5 floor 0.9 (min_n 100) added"]),
        (lambda c: with_rule(c, 0, source="measured"),
         ["neutral  rules: the source of 1 is another"]),
        (lambda c: replace(c, rules=c.rules[:2]),
         ["WEAKER   classification/natural/mini-natural/*: top1 floor 0.4 (min_n 1) removed"]),
        (lambda c: replace(c, confidence=0.9), ["WEAKER   confidence: 0.95 -> 0.9"]),
        (lambda c: with_tier(c, models=("mini-clip",)),
         ["WEAKER   tier mini: model mini-siglip removed"]),
        (lambda c: with_tier(c, cases=(CLEAN, TYPO)),
         ["WEAKER   tier mini: case classification/natural/mini-natural removed"]),
        (lambda c: with_tier(c, limit=5), ["WEAKER   tier mini: limit none -> 5"]),
        (lambda c: with_tier(c, max_excluded=0.1), ["WEAKER   tier mini: max_excluded 0.0 -> 0.1"]),
        (lambda c: replace(c, tiers={**c.tiers, "b": replace(c.tier(), name="b", limit=5)}),
         ["STRICTER contract: tier b added"]),
        (lambda c: replace(c, default_tier="b", tiers={"b": replace(c.tier(), name="b")}),
         ["WEAKER   contract: tier mini removed", "STRICTER contract: tier b added",
          "neutral  default_tier: mini -> b: asks the same"]),
        (lambda c: replace(c, default_tier="b", tiers={
            **c.tiers, "b": replace(of_grid(c.tier(), cases=(CLEAN,)), name="b", limit=9)}),
         ["WEAKER   default_tier: mini -> b: limit none -> 9",
          "WEAKER   default_tier: mini -> b: leaves out 4 of 6 cases",
          "STRICTER contract: tier b added"]),
    ],
)  # fmt: skip
def test_a_change_is_told_by_what_it_does(contract, change, lines):
    assert told(contract, change(contract)) == lines


def test_a_waiver_that_lasts_longer_is_weaker(contract):
    old = replace(contract, waivers=(WAIVER,))
    longer = replace(old, waivers=(replace(WAIVER, expires=date(2026, 12, 31)),))
    other = replace(old, waivers=(replace(WAIVER, owner="joe", line=9),))
    change = f"{CLEAN}/mini-clip: waiver until 2026-12-20 -> 2026-12-31"

    assert told(old, longer) == [f"WEAKER   {change}"]
    assert [one.effect for one in differences(longer, old)] == ["STRICTER"]
    assert told(old, contract) == [f"STRICTER {CLEAN}/mini-clip: waiver until 2026-12-20 removed"]
    assert [one.effect for one in differences(old, other)] == ["neutral"]


SEARCH = SearchProfile("p", ("dog",), 16, 0.25, 60)


@pytest.mark.parametrize(
    ("columns", "line"),
    [
        ({"at_least": 0.5}, "WEAKER   tier mini: search of b: at_least 0.25 -> 0.5"),
        ({"evaluations": 30}, "WEAKER   tier mini: search of b: evaluations 60 -> 30"),
        ({"discover": 300}, "STRICTER tier mini: search of b: discover 0 -> 300"),
        ({"subjects": ("cat",)}, "CHANGED  tier mini: search of b: subjects dog -> cat"),
        ({"subjects": ("*",)}, "STRICTER tier mini: search of b: subjects dog -> *"),
        ({"subjects": ("d*",)}, "STRICTER tier mini: search of b: subjects dog -> d*"),
        ({"subjects": ("d?t",)}, "CHANGED  tier mini: search of b: subjects dog -> d?t"),
        ({"pictures": 8}, "CHANGED  tier mini: search of b: pictures 16 -> 8"),
        ({"population": "q"}, "CHANGED  tier mini: search of b: population p -> q"),
        ({"seed": 2}, "CHANGED  tier mini: search of b: seed 1 -> 2"),
    ],
)
def test_a_search_that_looks_for_less_is_weaker(contract, columns, line):
    old = with_tier(contract, searches={"b": SEARCH})

    assert told(old, with_tier(old, searches={"b": replace(SEARCH, **columns)})) == [line]
    assert told(old, contract) == ["WEAKER   tier mini: search of b removed"]


def test_of_several_rules_on_a_number_the_strictest_counts(contract):
    wide = replace(contract.rules[0], case="classification/*/*/*", bound=0.1, min_n=1)
    more = replace(contract, rules=(*contract.rules, wide))

    assert told(contract, more) == [f"STRICTER {TYPO}/*: top1 floor 0.1 (min_n 1) added"]
    assert weaker(differences(more, replace(more, rules=more.rules[1:])))


def test_a_starter_that_is_called_measured_is_told(contract):
    first, *others = contract.rules
    starter = replace(contract, rules=(replace(first, starter="chance"), *others))

    told = [str(difference) for difference in differences(starter, contract)]

    assert told
    assert all(line.startswith("CHANGED  ") for line in told)
    assert all(line.endswith("rests on another thing: chance -> measured") for line in told)


def test_a_glob_over_no_other_case_is_neutral(contract):
    single = [replace(contract.rules[0], case=f"{CLEAN}/{m}") for m in contract.tier().models]
    written_out = replace(contract, rules=(*single, *contract.rules[1:]))

    assert told(contract, written_out) == [
        "neutral  rules: 4 -> 5, asking the same of every case that stays"
    ]


def test_a_new_model_whose_rules_may_stand_in_for_others_is_told(contract):
    own = replace(contract.rules[0], case=f"{CLEAN}/mine", bound=0.1)
    more = with_tier(contract, models=("mini-clip", "mini-siglip", "mine"))
    more = replace(more, rules=(*contract.rules, own))

    assert (
        "CHANGED  model mine: has rules that replace those of the model" in told(contract, more)[0]
    )
    assert told(more, contract)[0] == "WEAKER   tier mini: model mine removed"
    assert len(told(more, contract)) == 2


@pytest.fixture
def diff(thresholds_file, tmp_path, monkeypatch, capsys):
    """Runs `natadv contract diff` against a file in which `old` was replaced by `new`."""
    before = tmp_path / "before.yaml"
    before.write_bytes(thresholds_file.read_bytes())
    monkeypatch.chdir(tmp_path)

    def run(old, new, *arguments):
        text = thresholds_file.read_text()
        assert old in text
        thresholds_file.write_text(text.replace(old, new, 1))
        code = cli.main(["contract", "diff", *(arguments or (str(before),))])
        return code, capsys.readouterr()

    return run


@pytest.mark.parametrize(
    ("old", "new", "code", "last"),
    [
        ("floor: 0.9", "floor: 0.8", 1,
         "1 weaker, 0 changed, 0 stricter, 0 neutral: the gate lets more pass"),
        ("floor: 0.9", "floor: 0.95", 0,
         "0 weaker, 0 changed, 1 stricter, 0 neutral: nothing is weaker"),
        ("by hand", "measured", 0, "0 weaker, 0 changed, 0 stricter, 1 neutral: nothing is weaker"),
        ("rules:", "# What must hold.\nrules:", 0, "both contracts ask the same"),
    ],
)  # fmt: skip
def test_the_command_says_what_is_weaker_and_exits_by_it(diff, old, new, code, last):
    found, out = diff(old, new)

    assert found == code
    assert out.err == ""
    assert out.out.splitlines()[-1] == last
    assert all(len(line) <= 100 for line in out.out.splitlines())


@pytest.mark.parametrize(
    ("old", "new", "arguments", "message"),
    [
        ("floor: 0.9", "flor: 0.9", (), "natadv: thresholds.yaml:"),
        ("by hand", "2026-02-30", (), "cannot be read as timestamp"),
        ("by hand", "measured", ("absent.yaml",), "natadv: absent.yaml: neither a file nor"),
        ("by hand", "measured", ("before.yaml", "."), "natadv: .: cannot be read: Is a directory"),
    ],
)
def test_a_wrong_file_exits_4(diff, old, new, arguments, message):
    code, out = diff(old, new, *arguments)

    assert code == 4
    assert out.out == ""
    assert message in out.err


def test_a_contract_may_come_from_a_pipe(diff, thresholds_file, tmp_path):
    """As of `natadv contract diff <(git show main:thresholds.yaml)`."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(thresholds_file.read_bytes(),))
    writer.start()

    code, out = diff("floor: 0.9", "floor: 0.8", str(pipe))

    writer.join(timeout=10)
    assert (code, out.err) == (1, "")


def test_the_digest_is_of_the_bytes(thresholds_file, tmp_path):
    content = thresholds_file.read_bytes()
    assert contract_digest(thresholds_file) == hashlib.sha256(content).hexdigest()

    thresholds_file.write_bytes(content + b"\n")
    assert contract_digest(thresholds_file) != hashlib.sha256(content).hexdigest()
    with pytest.raises(ConfigError, match=r"absent\.yaml: cannot be read"):
        contract_digest(tmp_path / "absent.yaml")

from __future__ import annotations

import math
import shutil
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from natadv import places
from natadv.errors import ConfigError, UnknownNameError
from natadv.gate.contract import contract_digest
from natadv.gate.judge import judge_all
from natadv.gate.rules import RuleIndex, Thresholds, Tier, TierGrid, rules_for
from natadv.gate.thresholds_file import contract_files, load_thresholds
from natadv.gate.thresholds_schema import MOST_CONFIDENCE
from natadv.types import Case


def edited(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    return path


def line_with(path, part):
    return next(i for i, line in enumerate(path.read_text().splitlines(), 1) if part in line)


def test_a_sound_file_becomes_tiers_and_rules(thresholds_file):
    found = load_thresholds(thresholds_file)

    tier = found.tier()
    assert (tier.name, tier.models, tier.max_excluded) == ("mini", ("mini-clip", "mini-siglip"), 0)
    assert tier.limit is None
    assert len(tier.grid) == 6
    assert [(r.metric, r.side, r.bound, r.min_n) for r in found.rules][:2] == [
        ("top1", "floor", 0.9, 100),
        ("accuracy_drop", "ceiling", 0.3, 1),
    ]
    assert found.rules[1].line == line_with(thresholds_file, "mini-typo/*")


MISTAKES = [
    ("floor: 0.9\n", "flor: 0.9\n", "rules[0].flor", "unknown key, did you mean 'floor'?"),
    ("confidence:", "confidense:", "confidense", "did you mean 'confidence'?"),
    ("    models:", "    model:", "tiers.mini.model", "did you mean 'models'?"),
    ("floor: 0.9\n", "floor: .nan\n", "rules[0].floor", "finite number, got nan"),
    ("floor: 0.9\n", "floor: -.inf\n", "rules[0].floor", "finite number, got -inf"),
    ("floor: 0.9\n", "floor: '0.9'\n", "rules[0].floor", "valid number, got '0.9'"),
    ("floor: 0.9\n", "floor: yes\n", "rules[0].floor", "valid number, got True"),
    ("floor: 0.9\n", "floor: 93\n", "rules[0]", "can be broken and kept"),
    ("floor: 0.9\n", "floor: 0\n", "rules[0]", "can be broken and kept"),
    ("ceiling: 0.3", "ceiling: 1.0", "rules[1]", "can be broken and kept"),
    ("floor: 0.9\n", "min_n: 3\n", "rules[0].min_n", "duplicate key"),
    ("    floor: 0.9\n", "", "rules[0]", "expected exactly one of floor"),
    ("ceiling: 0.3", "floor: 0.3", "rules[1]", "better when lower; write ceiling"),
    ("floor: 0.9\n", "ceiling: 0.9\n", "rules[0]", "better when higher; write floor"),
    ("metric: top1", "metric: top2", "rules[0].metric", "unknown metric 'top2', did you mean"),
    ("case: classification/clean", "case: clasification/clean", "rules[0].case",
     "unknown task"),
    ("- classification/typographic", "- classification/typografic", "tiers.mini.cases[1]",
     "unknown scenario 'typografic', did you mean 'typographic'?"),
    ("case: classification/clean/mini/*", "case: classification/clean/*", "rules[0].case",
     "expected task/scenario/dataset/model"),
    ("metric: top1", "metric: top*", "rules[0].metric", "unknown metric 'top*'"),
    ("min_n: 100", "min_n: 0", "rules[0].min_n", "greater than or equal to 1"),
    ("source: by hand", "source: ''", "rules[0].source", "expected words, got ''"),
    ("    source: by hand\n", "", "rules[0].source", "required, but not given"),
    ("[mini-clip, mini-siglip]", "[]", "tiers.mini.models", "at least 1 item"),
    ("[mini-clip, mini-siglip]", "[mini-*]", "tiers.mini.models[0]", "without glob"),
    ("[mini-clip, mini-siglip]", "[mini-clip, mini-clip]", "tiers.mini.models",
     "each entry once"),
    ("version: 1", "version: 2", "version", "less than or equal to 1, got 2"),
    ("version: 1\n", "", "version", "required, but not given"),
    ("default_tier: mini", "default_tier: mimi", "the file", "did you mean 'mini'?"),
    ("confidence: 0.95", "confidence: 95", "confidence", "less than or equal to 0.999999"),
]  # fmt: skip


def test_a_mistake_is_named_by_line_and_key(thresholds_file):
    original = thresholds_file.read_text()
    for old, new, key, message in MISTAKES:
        thresholds_file.write_text(original)
        edited(thresholds_file, old, new)

        with pytest.raises(ConfigError) as caught:
            load_thresholds(thresholds_file)

        text = str(caught.value)
        assert message in text, new
        assert key in text, new
        assert text.startswith(f"{thresholds_file}:"), new
        assert text.removeprefix(f"{thresholds_file}:").split(":")[0].isdigit(), new


LOOKS_STRICT = [
    ("ceiling: 0.3", "ceiling: 0.9999999999999999", "rules[1]", "from -1 to 0.999999"),
    ("ceiling: 0.3", "ceiling: 0.9999999", "rules[1]", "can be broken and kept"),
    ("floor: 0.9\n", "floor: 1.0e-300\n", "rules[0]", "from 1e-06 to 1"),
    ("floor: 0.9\n", "floor: 1.0e-7\n", "rules[0]", "can be broken and kept"),
    ("floor: 0.9\n", "floor: -0.0\n", "rules[0]", "can be broken and kept"),
    ("version: 1", "version: true", "version", "valid integer, got True"),
    ("version: 1", "version: 1.0", "version", "valid integer, got 1.0"),
    ("confidence: 0.95", "confidence: 0.9999999999999999", "confidence", "equal to 0.999999"),
    ("tiers:\n  mini:", "tiers:\n  mini:\n    max_excluded: 0.9999999",
     "tiers.mini.max_excluded", "less than or equal to 0.5"),
    ("tiers:\n  mini:", "tiers:\n  mini:\n    limit: 0", "tiers.mini.limit", "equal to 1"),
    ("tiers:\n  mini:", "tiers:\n  mini:\n    limit: true", "tiers.mini.limit", "got True"),
    ("tiers:\n  mini:", "tiers:\n  '':", "tiers", "expected a name of up to 100 ASCII letters"),
    ("tiers:\n  mini:", "tiers:\n  ' mini':", "tiers. mini", "got ' mini'"),
    ("[mini-clip, mini-siglip]", "[mini-clip, 'mini-siglip ']", "tiers.mini.models[1]",
     "got 'mini-siglip '"),
    ("[mini-clip, mini-siglip]", '[mini-clip, "mini-siglip\\t"]', "tiers.mini.models[1]",
     "got 'mini-siglip\\t'"),
    ("[mini-clip, mini-siglip]", "[mini-clip, mini\u2010siglip]", "tiers.mini.models[1]",
     "got 'mini\\u2010siglip'"),
    ("[mini-clip, mini-siglip]", "[mini-clip, mini-siglip\u200b]", "tiers.mini.models[1]",
     "got 'mini-siglip\\u200b'"),
    ("- classification/clean/mini\n", "- classification/clean/m\u0456n\u0456\n",
     "tiers.mini.cases[0]", "got 'm\\u0456n\\u0456'"),
    ("- classification/clean/mini\n", "- classification/clean/ mini\n", "tiers.mini.cases[0]",
     "got ' mini'"),
    ("min_n: 100", "part: ' held-out'", "rules[0].part", "without blanks around"),
    ("min_n: 100", 'part: "held-out\\u200b"', "rules[0].part", "got 'held-out\\u200b'"),
    ("min_n: 100", f"min_n: {10**10}", "rules[0].min_n", "less than or equal to 1000000000"),
    ("min_n: 100", f"min_n: 0x{'f' * 5000}", "rules[0].min_n", "too long to show"),
    ("floor: 0.9\n", f"floor: 0x{'f' * 5000}\n", "rules[0].floor", "too long to show"),
    ("version: 1", f"version: 0x{'f' * 5000}", "version", "too long to show"),
    ("min_n: 100", f"part: {'x' * 201}", "rules[0].part", "expected a plain word"),
    ("mini/*", f"mini{'x' * 300}/*", "rules[0].case", "xxx..."),
    ("metric: top1", f"metric: {'x' * 300}", "rules[0].metric", f"metric '{'x' * 200}'"),
    ("source: by hand", "source: ' '", "rules[0].source", "expected words, got ' '"),
    ("source: by hand", "source: '-'", "rules[0].source", "expected words, got '-'"),
    ("source: by hand", "source: 2026-02-30", "rules[0].source", "cannot be read as timestamp"),
]  # fmt: skip


OF_DROP = "    metric: accuracy_drop\n    ceiling: 0.3"
DROPS = "classification/typographic/mini-typo/*"
NEW_BOUNDS = [
    ("floor: 0.9\n", "at: mean\n    floor: 0.9\n", "rules[0].at",
     "input should be 'interval' or 'value', got 'mean'"),
    ("floor: 0.9\n", "floor: 95\n", "rules[0]", "(from 1e-06 to 1), got 95.0; write 0.95 for 95 %"),
    ("floor: 0.9\n", "floor: 0.9\n    ceiling: 1\n", "rules[0]", "expected exactly one of floor"),
    ("floor: 0.9\n", "floor: 0.9\n    max_excluded: 0.6\n", "rules[0].max_excluded",
     "equal to 0.5"),
    ("ceiling: 0.3", "max_drop: 0.3", "rules[1]", "on the drop of the task; remove metric"),
    (OF_DROP, "    max_drop: 30", "rules[1]",
     "write 0.3 for 30 %"),
    (OF_DROP, "    max_drop: -0.1", "rules[1]",
     "expected a max_drop that can be broken and kept (from 0 to 0.999999)"),
    (OF_DROP, "    ceiling: 0.3", "rules[1]",
     "expected a metric, got none"),
    ("    metric: top1\n    floor: 0.9", "    max_drop: 0.1", "rules[0]",
     "max_drop is about attacks, and clean cases have none"),
    (f"  - case: {DROPS}\n{OF_DROP}",
     "  - case: '*/typographic/mini-typo/*'\n    max_drop: 0.3", "rules[1]",
     "max_drop needs a task without globs, got '*'"),
    ("metric: top1\n    floor: 0.9", "metric: macro_f1\n    max_regression: 0.1", "rules[0]",
     "max_regression of 'macro_f1' is not defined: expected the mean of a score, such as top1, "),
    ("metric: top1\n    floor: 0.9", "metric: reading_accuracy\n    floor: 0.9", "rules[0]",
     "'reading_accuracy' is of reading cases, not of clean ones"),
    ("floor: 0.9\n", "max_regression: 1\n", "rules[0]", "(from 0 to 0.999999), got 1.0"),
    ("floor: 0.9\n", "max_regresion: 0.1\n", "rules[0].max_regresion",
     "did you mean 'max_regression'?"),
]  # fmt: skip


def test_bad_bounds_are_named(thresholds_file):
    original = thresholds_file.read_text()
    for old, new, key, message in NEW_BOUNDS:
        thresholds_file.write_text(original)
        edited(thresholds_file, old, new)

        with pytest.raises(ConfigError) as caught:
            load_thresholds(thresholds_file)

        # Rules that lack something may have further mistakes.
        (line,) = [line for line in str(caught.value).splitlines() if f" {key}: " in line]
        assert message in line, new


def test_a_max_drop_is_a_ceiling_on_the_drop_of_the_task(thresholds_file):
    ceiling = load_thresholds(thresholds_file).rules[1]
    edited(thresholds_file, OF_DROP, "    max_drop: 0.3")

    assert load_thresholds(thresholds_file).rules[1] == ceiling


def test_a_max_drop_and_a_ceiling_on_the_drop_contradict_each_other(thresholds_file):
    drop = f"rules:\n  - {{case: {DROPS}, max_drop: 0.1, source: x}}\n"
    edited(thresholds_file, "rules:\n", drop)
    at = line_with(thresholds_file, "accuracy_drop") - 1
    see = line_with(thresholds_file, "max_drop")

    with pytest.raises(ConfigError) as caught:
        load_thresholds(thresholds_file)

    assert str(caught.value) == (
        f"{thresholds_file}:{at}: {DROPS}: a second rule on "
        f"accuracy_drop: ceiling 0.300, and ceiling 0.100 in line {see}; keep one"
    )


def test_rules_on_a_number_and_on_its_loss_stand_side_by_side(thresholds_file):
    bounds = ("metric: top1, max_regression: 0.1", "metric: decoy_rate, max_regression: 0")
    rows = [f"  - {{case: classification/clean/mini/*, {b}, source: x}}\n" for b in bounds]
    edited(thresholds_file, "rules:\n", f"rules:\n{''.join(rows)}")

    rules = load_thresholds(thresholds_file).rules

    assert [str(rule).split(": ")[1] for rule in rules[:2]] == [
        "top1 loss ceiling 0.100 (line 12)",
        "decoy_rate loss ceiling 0.000 (line 13)",
    ]


def test_what_only_looks_strict_is_refused(thresholds_file):
    original = thresholds_file.read_text()
    for old, new, key, message in LOOKS_STRICT:
        thresholds_file.write_text(original)
        edited(thresholds_file, old, new)

        with pytest.raises(ConfigError) as caught:
            load_thresholds(thresholds_file)

        # The tier that was renamed is missed where it was named.
        text = next(line for line in str(caught.value).splitlines() if "default_tier" not in line)
        assert message in text, new
        assert f": {key}" in text, new
        assert text.startswith(f"{thresholds_file}:"), new


@pytest.mark.parametrize(
    "search",
    [
        f"{{subjects: [cat], evaluations: {10**10}}}",
        f"{{subjects: [cat], discover: {10**10}}}",
        f"{{subjects: [cat], pictures: {10**10}}}",
        f"{{subjects: [cat], seed: 0x{'f' * 5000}}}",
        "{subjects: [cat], population: ../x}",
        "{subjects: ['cat ']}",
    ],
)
def test_a_search_without_end_or_aim_is_refused(thresholds_file, search):
    edited(thresholds_file, "  mini:\n", f"  mini:\n    searches: {{mini-typo: {search}}}\n")

    with pytest.raises(ConfigError, match=r":6: tiers\.mini\.searches\.mini-typo"):
        load_thresholds(thresholds_file)


def test_what_can_be_meant_is_accepted(thresholds_file):
    original = thresholds_file.read_text()
    for old, new in (
        ("ceiling: 0.3", "ceiling: 0.99"),
        ("floor: 0.9\n", "floor: 0.001\n"),
        ("floor: 0.9\n", "floor: 1\n"),
        ("ceiling: 0.3", "ceiling: -0.0"),
        ("confidence: 0.95", "confidence: 0.999"),
        ("version: 1", "version: 0x1"),
        ("source: by hand", "source: gemäß Messung ±0.02"),
        ("source: by hand", "source: |\n      measured twice,\n      see the report"),
        ("tiers:\n  mini:", "tiers:\n  mini:\n    max_excluded: -0.0"),
        ("min_n: 100", "part: gehört zurückgehalten"),
    ):
        thresholds_file.write_text(original)
        assert load_thresholds(edited(thresholds_file, old, new)).rules, new


def test_intervals_and_tests_compute_at_the_greatest_confidence(kit):
    plan = kit.World().with_case(kit.CLEAN, kit.rows_of(kit.first(400, 400)))
    rules = [kit.rule(kit.CLEAN, bound=0.9), kit.rule(kit.CLEAN, "macro_f1", bound=0.9)]
    thresholds = kit.thresholds_of(rules, [kit.CLEAN])

    found = judge_all(
        list(plan.plans.values()),
        plan.evidence,
        thresholds=replace(thresholds, confidence=MOST_CONFIDENCE),
    )

    assert found.green


@pytest.mark.parametrize(
    ("old", "new", "shown"),
    [
        ("floor: 0.9\n", "flor: 0.9\n", "flor:"),
        ("ceiling: 0.3", "ceiling: .nan", "ceiling: .nan"),
        ("- classification/typographic", "- classification/typografic", "typografic"),
        ("case: classification/natural/mini-natural/mini-clip",
         "case: classification/neutral/mini-natural/mini-clip", "neutral"),
    ],
)  # fmt: skip
def test_the_line_is_the_one_of_the_mistake(thresholds_file, old, new, shown):
    edited(thresholds_file, old, new)

    with pytest.raises(ConfigError, match=rf":{line_with(thresholds_file, shown)}: "):
        load_thresholds(thresholds_file)


def test_all_mistakes_come_at_once(thresholds_file):
    edited(thresholds_file, "metric: top1", "metric: top2")
    edited(thresholds_file, "ceiling: 0.3", "celing: 0.3")

    with pytest.raises(ConfigError) as caught:
        load_thresholds(thresholds_file)

    assert "'top2'" in str(caught.value)
    assert "'ceiling'" in str(caught.value)


def test_a_duplicate_key_names_both_lines(thresholds_file):
    edited(thresholds_file, "confidence: 0.95", "confidence: 0.95\nconfidence: 0.5")

    with pytest.raises(ConfigError, match=r":4: duplicate key 'confidence', first given on line 3"):
        load_thresholds(thresholds_file)


def test_a_duplicate_tier_is_refused(thresholds_file):
    extra = "  mini: {models: [a], cases: [classification/clean/mini]}\nrules:"
    edited(thresholds_file, "rules:", extra)

    with pytest.raises(ConfigError, match=r"duplicate key 'tiers\.mini'"):
        load_thresholds(thresholds_file)


def test_a_second_rule_on_the_same_thing_is_refused(thresholds_file):
    edited(
        thresholds_file,
        "mini-natural/mini-siglip",
        "mini-natural/mini-clip",
    )

    with pytest.raises(
        ConfigError,
        match=r"a second rule on top1: floor 0.400, and floor 0.400 in line \d+; keep one",
    ):
        load_thresholds(thresholds_file)


def test_a_second_rule_on_the_same_line_is_refused(thresholds_file):
    rule = "{case: classification/*/*/*, metric: top1, floor: 0.5, source: x}"
    text = thresholds_file.read_text()
    thresholds_file.write_text(text[: text.index("rules:")] + f"rules: [{rule}, {rule}]\n")

    with pytest.raises(ConfigError, match=r"a second rule on top1: floor 0\.500, and"):
        load_thresholds(thresholds_file)


def test_a_rule_that_covers_no_case_is_refused(thresholds_file):
    edited(thresholds_file, "mini-natural/mini-siglip", "mini-natural/mini-sigllp")
    edited(thresholds_file, "mini-natural/mini-clip", "mini-natural/mini-*")

    with pytest.raises(ConfigError, match="this rule covers no case of any tier") as caught:
        load_thresholds(thresholds_file)

    assert f":{line_with(thresholds_file, 'sigllp')}:" in str(caught.value)


def test_a_case_that_no_rule_covers_is_refused(thresholds_file):
    edited(thresholds_file, "clean/mini/*", "clean/mini/mini-clip")

    with pytest.raises(ConfigError, match="mini-siglip: no rule covers this case of tier 'mini'"):
        load_thresholds(thresholds_file)

    # Before the first measurement there is nothing that a rule could be made of.
    assert len(load_thresholds(thresholds_file, asserting=False).tier().grid) == 6


def test_a_yaml_alias_is_refused(thresholds_file):
    edited(thresholds_file, "floor: 0.9", "floor: &f 0.9")
    edited(thresholds_file, "floor: 0.4", "floor: *f")

    with pytest.raises(ConfigError, match=r"rules\[2\]\.floor is a YAML alias; write it out"):
        load_thresholds(thresholds_file)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty file"),
        ("version: [1", "not valid YAML"),
        ("a: b: c", "not valid YAML"),
        ("- 1", "valid dictionary"),
        ("a: &a [*a]", "YAML alias"),
        ("? [1]\n: 2", "expected a plain word as key"),
        ("a: !!python/object/apply:os.system ['true']", "not valid YAML"),
        ("a: \x07", "not valid YAML"),
    ],
)
def test_what_is_no_such_file_is_refused(tmp_path, text, message):
    path = tmp_path / "thresholds.yaml"
    path.write_text(text)

    with pytest.raises(ConfigError, match=message):
        load_thresholds(path)


def test_a_missing_or_binary_file_is_named(tmp_path):
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    messages = {
        "absent.yaml": "cannot be read: No such file",
        "binary.yaml": "cannot be read as UTF-8 text: line 1: .*; save it as UTF-8",
    }

    for name, message in messages.items():
        with pytest.raises(ConfigError, match=f"{name}: {message}"):
            load_thresholds(tmp_path / name)


def test_an_unknown_tier_names_the_near_misses(thresholds_file):
    with pytest.raises(UnknownNameError, match="unknown tier 'mimi', did you mean 'mini'"):
        load_thresholds(thresholds_file).tier("mimi")


def test_a_bound_holds_only_if_it_is_met(kit):
    floor = kit.rule(kit.CLEAN, bound=0.8)
    ceiling = kit.rule(kit.CLEAN, bound=0.8, side="ceiling")

    assert floor.holds(0.8)
    assert not floor.holds(0.7999)
    assert not floor.holds(math.nan)
    assert ceiling.holds(0.8)
    assert not ceiling.holds(0.8001)
    assert not ceiling.holds(math.nan)


@pytest.mark.parametrize(
    ("pattern", "covers"),
    [
        ("classification/clean/mini/mini-clip", True),
        ("classification/*/*/*", True),
        ("*/clean/mini/mini-*", True),
        ("classification/clean/mini/mini", False),
        ("classification/clean/min/mini-clip", False),
        ("classification/clean/mini/Mini-clip", False),
    ],
)
def test_a_glob_covers_part_by_part(kit, pattern, covers):
    assert kit.rule(pattern).covers(kit.CLEAN, "mini-clip") is covers


@pytest.mark.parametrize(
    ("pattern", "model", "covers"),
    [
        ("classification/*/*/siglip2-*", "siglip2-b16-224@paper", False),
        ("classification/*/*/*", "siglip2-b16-224@paper", False),
        ("classification/*/*/*@paper", "siglip2-b16-224@paper", True),
        ("classification/*/*/siglip2-b16-224@paper", "siglip2-b16-224@paper", True),
        ("classification/*/*/*@paper", "siglip2-b16-224", False),
    ],
)
def test_floors_of_the_two_ways_of_feeding_never_meet(kit, pattern, model, covers):
    case = replace(kit.CLEAN, model=model)

    assert kit.rule(pattern).covers(case, model) is covers


def test_a_star_does_not_reach_into_the_next_part(kit):
    assert not kit.rule("classification/*/mini-clip/x").covers(kit.CLEAN, "x")


def test_a_checkpoint_keeps_the_rules_of_its_lineage(kit):
    inherited = kit.rule("classification/clean/mini/mini-base")
    wide = kit.rule("classification/*/*/*", bound=0.1)

    found = rules_for(kit.CLEAN, "mini-base", RuleIndex((inherited, wide)))

    assert found == (inherited, wide)


def test_a_rule_by_name_stands_in_for_the_lineage_on_the_same_metric_only(kit):
    inherited = kit.rule("classification/clean/mini/mini-base")
    other = kit.rule("classification/clean/mini/mini-base", "macro_f1")
    part = kit.rule("classification/clean/mini/mini-base", part="held-out")
    own = kit.rule(kit.CLEAN, bound=0.5)

    found = rules_for(kit.CLEAN, "mini-base", RuleIndex((inherited, other, part, own)))

    assert found == (other, part, own)


def test_loading_is_light():
    """A fresh interpreter: no torch, no pytest, and quick."""
    code = (
        "import sys, time; began = time.perf_counter(); import natadv.gate.rules, "
        "natadv.gate.judge, natadv.gate.__main__; took = time.perf_counter() - began; "
        "heavy = {'torch', 'pytest', 'pyarrow', 'PIL', 'scipy', 'transformers'} & set(sys.modules);"
        "print(sorted(heavy), took)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )

    assert done.stdout.startswith("[] ")


def test_a_long_file_loads_quickly(thresholds_file):
    rules = "".join(
        f"  - {{case: classification/*/*/*, metric: top1, floor: 0.5, part: p{i}, source: x}}\n"
        for i in range(200)
    )
    thresholds_file.write_text(thresholds_file.read_text() + rules)
    began = time.process_time()

    found = load_thresholds(thresholds_file)

    assert len(found.rules) == 204
    assert time.process_time() - began < 1.0


GRIDS = """\
tiers:
  other:
    grids:
      - models: [a, my_models:make]
        on_request: [b]
        cases: [classification/clean/mini]
      - models: [a]
        cases: [vqa/clean/mini]
"""
RULES = """\
rules:
  - {case: classification/clean/mini/a, metric: top1, floor: 0.5, source: by hand}
  - {case: classification/clean/mini/b, metric: top1, floor: 0.4, source: by hand}
  - {case: 'classification/clean/mini/my_models:make', metric: top1, floor: 0.3, source: by hand}
  - {case: vqa/clean/mini/a, metric: vqa_accuracy, floor: 0.3, source: by hand}
"""


@pytest.fixture
def split_contract(thresholds_file):
    """A contract in three files."""
    edited(thresholds_file, "version: 1\n", "version: 1\ninclude: [parts/*.yaml]\n")
    parts = thresholds_file.parent / "parts"
    parts.mkdir()
    (parts / "grids.yaml").write_text(GRIDS)
    (parts / "rules.yaml").write_text(RULES)
    return thresholds_file


def test_included_files_add_tiers_and_rules(split_contract):
    found = load_thresholds(split_contract)
    other = found.tiers["other"]

    assert list(found.tiers) == ["mini", "other"]
    assert [str(case) for case in other.grid] == [
        "classification/clean/mini/a",
        "classification/clean/mini/my_models-make",
        "vqa/clean/mini/a",
    ]
    assert len(other.covered) == 4
    assert other.references == {"my_models-make": "my_models:make"}
    assert (found.rules[-1].file, found.rules[-1].line) == ("parts/rules.yaml", 5)
    assert "(parts/rules.yaml:5)" in str(found.rules[-1])


def test_a_glob_includes_no_hidden_files_and_no_backups(split_contract):
    sound = load_thresholds(split_contract)
    parts = split_contract.parent / "parts"
    for name in (
        ".#rules.yaml",
        "._rules.yaml",
        ".rules.yaml.31.yaml",
        "rules.yaml~",
        "a.yaml.bak",
    ):
        (parts / name).write_text(RULES.replace("0.5", "0.1"))
    (parts / "dangling.yaml").symlink_to("nowhere")

    (parts / ".old").mkdir()
    (parts / ".old" / "rules.yaml").write_text(RULES)

    assert load_thresholds(split_contract) == sound
    edited(split_contract, "parts/*.yaml", "'**/[gr]*.yaml'")
    assert load_thresholds(split_contract) == sound
    edited(split_contract, "'**/[gr]*.yaml'", "parts/g*.yaml, parts/._rules.yaml")
    assert load_thresholds(split_contract).rules[-4].bound == 0.1


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("parts/rules.yaml", "mini/b", "mini/c",
         "parts/rules.yaml:3: classification/clean/mini/c: this rule covers no case of any tier: "
         "none has the model 'c'"),
        ("parts/rules.yaml", "mini/b", "mini/a",
         "parts/rules.yaml:3: classification/clean/mini/a: a second rule on top1: "
         "floor 0.400, and floor 0.500 in parts/rules.yaml:2; keep one"),
        ("parts/rules.yaml", "  - {case: vqa", "#", "grids.yaml:8: vqa/clean/mini/a: no rule"),
        ("parts/rules.yaml", "rules:", "rulez:", "parts/rules.yaml:1: rulez: unknown key, did you"),
        ("parts/grids.yaml", "  other:", "  mini:", "grids.yaml:2: a second tier 'mini'; rename"),
        ("parts/grids.yaml", "models: [a]", "models: [b]", "always or on request, got ['b'] as"),
        ("parts/grids.yaml", "vqa/clean/mini", "classification/clean/mini", "each entry once"),
        ("parts/grids.yaml", "models: [a]", "max: 1", "tiers.other.grids[1].max: unknown key"),
        ("parts/grids.yaml", "    grids:", "    models: [a]\n    grids:", "or else grids of them"),
        ("thresholds.yaml", "parts/*.yaml", "party/*.yaml", "thresholds.yaml:2: include[0]: exp"),
        ("thresholds.yaml", "parts/*.yaml", "../*.yaml", "which names none"),
        ("thresholds.yaml", "parts/*.yaml", "/etc/hosts", "which names none"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_split_contract_is_named_by_file_and_line(
    split_contract, file, old, new, message
):
    edited(split_contract.parent / file, old, new)

    with pytest.raises(ConfigError) as caught:
        load_thresholds(split_contract)

    assert message in str(caught.value)


@pytest.fixture
def packaged(tmp_path, monkeypatch, split_contract):
    """A contract that includes the other two files from the package."""
    package = tmp_path / "site-packages"
    package.mkdir()
    (split_contract.parent / "parts").rename(package / "thresholds")
    monkeypatch.setattr(places, "package_roots", lambda: (package,))
    edited(split_contract, "parts/*.yaml", "'natadv:grids.yaml', 'natadv:rules.yaml'")
    return split_contract


def test_a_contract_includes_files_of_the_package(packaged):
    found = load_thresholds(packaged)

    assert list(found.tiers) == ["mini", "other"]
    assert "(natadv:rules.yaml:5)" in str(found.rules[-1])
    # A mistake is to be mended in a file, and so names it.
    in_package = places.package_roots()[0] / "thresholds/rules.yaml"
    in_package.write_text(RULES.replace("rules:", "rulez:"))
    with pytest.raises(ConfigError, match=f"^{in_package}:1: rulez"):
        load_thresholds(packaged)


def test_a_rule_of_the_package_for_tiers_that_are_not_included_is_left_out(packaged):
    """Nobody could take it out, and a rule that covers no case makes a run INCOMPLETE."""
    mine = load_thresholds(packaged).rules
    edited(packaged, "'natadv:grids.yaml', ", "")
    here = load_thresholds(packaged).rules

    assert {rule.file for rule in here} == {""}
    assert len(here) < len(mine)


def test_an_unknown_file_of_the_package_lists_the_known_ones(packaged):
    for wrong in ("natadv:grid.yaml", "natadv:../thresholds/grids.yaml", "natadv:/etc/hosts"):
        text = packaged.read_text()
        edited(packaged, "natadv:grids.yaml", wrong)
        with pytest.raises(ConfigError) as caught:
            load_thresholds(packaged)
        packaged.write_text(text)

        told = "include[0]: expected natadv: and one of grids.yaml, rules.yaml, got"
        assert str(caught.value).startswith(f"{packaged}:2: {told} {wrong!r}")


def test_a_copy_of_such_a_contract_stays_what_it_was(packaged, tmp_path):
    digest = contract_digest(packaged)
    for file in contract_files(packaged):
        copied = tmp_path / "copy" / file.copied_as
        copied.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file.path, copied)
    copy = tmp_path / "copy" / packaged.name
    rules = load_thresholds(packaged).rules
    # Another version of the package has other rules.
    edited(places.package_roots()[0] / "thresholds/rules.yaml", "0.5", "0.1")

    assert contract_digest(copy) == digest != contract_digest(packaged)
    assert load_thresholds(copy).rules == rules != load_thresholds(packaged).rules


def test_measuring_needs_no_rule_and_judging_does(thresholds_file):
    text = thresholds_file.read_text()
    for none in ("", "rules:\n", "rules: []\n", "rules:\n# none yet\n"):
        thresholds_file.write_text(text[: text.index("rules:")] + none)

        assert load_thresholds(thresholds_file, asserting=False).rules == ()
        with pytest.raises(ConfigError) as caught:
            load_thresholds(thresholds_file)
        told = "rules: expected at least 1 item; measure first: pytest suites/ --no-assert, then "
        assert f"{told}natadv calibrate --write" in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_measured_rule_replaces_a_starter_and_nothing_else(kit):
    starter = kit.rule(kit.CLEAN, bound=0.5, starter="published")
    of_part = kit.rule(kit.CLEAN, bound=0.4, part="held-out", starter="chance")
    measured = kit.rule(kit.CLEAN, bound=0.3)
    wide = kit.rule("classification/*/*/*", bound=0.2)

    def kept(*rules):
        return rules_for(kit.CLEAN, "mini-clip", RuleIndex(rules))

    assert kept(starter, of_part) == (starter, of_part)
    assert kept(starter, of_part, measured) == (of_part, measured)
    # Otherwise a floor for all models would switch off the published number of each.
    assert kept(wide, starter) == (wide, starter)


def test_a_verdict_says_how_many_of_its_rules_are_starters(kit):
    world = kit.World().with_case(kit.CLEAN, kit.rows_of(kit.first(190, 200)))
    rules = [
        kit.rule(kit.CLEAN, bound=0.5, starter="published"),
        kit.rule(kit.CLEAN, "top5", bound=0.4, starter="chance"),
    ]

    verdict = judge_all(
        list(world.plans.values()),
        world.evidence,
        thresholds=kit.thresholds_of(rules, [kit.CLEAN]),
    )

    assert "starters: 2 of 2 rules, 1 from published numbers, 1 just above" in verdict.starters
    assert verdict.starters in list(verdict.report)
    assert verdict.extent == "1 case of tier mini"


def test_a_pass_by_floors_just_above_chance_says_so_in_its_last_line(kit):
    world = kit.World()
    for case in (kit.CLEAN, kit.NATURAL):
        world = world.with_case(case, kit.rows_of(kit.first(190, 200)))

    def last_line(*starters):
        cases = (kit.CLEAN, kit.NATURAL)
        rules = [kit.rule(c, bound=0.2, starter=s) for c, s in zip(cases, starters, strict=True)]
        thresholds = kit.thresholds_of(rules, cases)
        verdict = judge_all(list(world.plans.values()), world.evidence, thresholds=thresholds)
        return list(verdict.report)[-1]

    weak = "by floors just above chance alone"
    assert last_line("chance", "chance") == f"PASS: 2 cases of tier mini; all {weak}"
    assert last_line("chance", "published") == f"PASS: 2 cases of tier mini; 1 of them {weak}"
    assert last_line(None, "published") == "PASS: 2 cases of tier mini"


def test_an_index_finds_what_trying_every_rule_finds(kit):
    paper = Case("classification", "clean", "mini", "mini-clip@paper")
    rules = tuple(
        kit.rule(f"{cell}/{model}", bound=bound)
        for cell in (
            "classification/clean/mini",
            "*/clean/*",
            "classification/natural/mini-natural",
        )
        for model in ("mini-clip", "mini-*", "*", "mini-clip@paper", "*@paper")
        for bound in (0.4, 0.5)
    )
    index = RuleIndex(rules)

    for case in (kit.CLEAN, kit.TYPO, kit.NATURAL, paper):
        for lineage in (case.model, "mini-clip", "mini-base@paper", "other"):
            assert index.covering(case, lineage) == [r for r in rules if r.covers(case, lineage)]


def tiers_of(**grids):
    tiers = {name: Tier(name, of) for name, of in grids.items()}
    return Thresholds("mini", 0.95, tiers, ())


def test_the_tier_follows_from_the_models_that_are_named():
    clean = ("classification/clean/mini",)
    contract = tiers_of(
        mini=(TierGrid(("mini-clip",), clean),),
        release=(TierGrid(("a", "b"), clean, on_request=("c",)),),
        paper=(TierGrid(("a", "b", "mini-clip"), clean, on_request=("a@paper",)),),
    )

    def tier(**lineages):
        return contract.tier_of(lineages).name

    assert tier(**{"mini-clip": "mini-clip"}) == "mini"
    assert tier(a="a") == tier(a="a", c="c") == tier(checkpoint="b") == "release"
    assert contract.tier_of({"a@paper": "a@paper"}).name == "paper"
    assert contract.tier_of({"b@2-shot": "b@2-shot"}).name == "release"
    assert contract.tier_of({"a": "a", "mini-clip": "mini-clip"}).name == "paper"
    assert tier(stranger="stranger") == "mini"
    # Its own name counts more than that of its ancestor.
    assert tier(c="mini-clip") == "release"
    with pytest.raises(ConfigError, match="mini, paper: mini-clip; release: c") as caught:
        contract.tier_of({"mini-clip": "mini-clip", "c": "c"})
    assert "name a tier with --tier" in str(caught.value)


def test_a_tier_gives_each_model_the_cases_of_its_grids():
    one, two = "classification/clean/x", "vqa/clean/y"
    tier = Tier("t", (TierGrid(("a", "b"), (one,), on_request=("c",)), TierGrid(("b",), (two,))))

    def cells(model, lineage):
        return [case.address for case in tier.grid_of({model: lineage})]

    assert cells("a", "a") == [f"{one}/a"]
    assert cells("b", "b") == [f"{one}/b", f"{two}/b"]
    assert cells("tuned", "c") == [f"{one}/tuned"]
    assert cells("a", "b") == [f"{one}/a"]
    # Nothing is known of it, so nothing may be left out in silence.
    assert cells("new", "new") == [f"{one}/new", f"{two}/new"]
    assert [case.model for case in tier.grid] == ["a", "b", "b"]


def test_the_committed_tier_paper_is_the_grid_of_the_paper():
    root = Path(__file__).resolve().parents[2]
    tier = load_thresholds(root / "thresholds.yaml").tier("paper")
    by_task = Counter(case.task for case in tier.grid)

    # 14 models classify on 5 datasets; 18 segment, and 18 answer, on 4.
    assert by_task == {"classification": 70, "segmentation": 72, "vqa": 72}
    assert len(tier.models) == 22

"""However a contract is damaged: a plain answer, and never green without a weakening that shows."""

from __future__ import annotations

import copy
import datetime
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from natadv.evidence import Manifest, write_evidence
from natadv.gate.__main__ import main
from natadv.gate.contract import Difference, differences
from natadv.gate.rules import Thresholds
from natadv.gate.thresholds_file import load_thresholds
from natadv.gate.waivers import today_utc
from natadv.types import Case, Outcomes

CONTRACT = """\
version: 1
default_tier: mini
confidence: 0.95
tiers:
  mini:
    models: [mini-clip, mini-siglip]
    cases:
      - classification/clean/mini
      - classification/typographic/mini-typo
      - classification/natural/mini-natural
    max_excluded: 0.1
    searches:
      mini-typo: {subjects: [cat], evaluations: 60}
  nightly:
    models: [mini-clip]
    cases: [classification/natural/mini-natural]
    limit: 50
rules:
  - case: classification/clean/mini/*
    metric: top1
    floor: 0.65
    min_n: 90
    source: measured 1.000, n 120
  - case: classification/clean/mini/mini-clip
    metric: top1
    floor: 0.5
    min_n: 20
    part: held-out
    source: measured 1.000, n 24
  - case: classification/typographic/mini-typo/*
    metric: accuracy_drop
    ceiling: 0.15
    min_n: 90
    source: by hand
  - case: classification/typographic/mini-typo/mini-clip
    metric: attack_success_rate
    ceiling: 0.4
    source: by hand
  - case: classification/natural/mini-natural/mini-clip
    metric: top1
    floor: 0.4
    source: by hand
  - case: classification/natural/mini-natural/mini-siglip
    metric: macro_f1
    floor: 0.4
    source: by hand
"""

MODELS = ("mini-clip", "mini-siglip")
CLASSES = ("ant", "bee", "cat", "cow", "dog")
N, HELD_OUT, FEW = 120, 24, 54
MOST_CHARACTERS = 1_000
"""In a line that a person reads; the list of all metrics is half of that."""


@dataclass(frozen=True)
class Damage:
    """Evidence on which some rules are broken beyond doubt, and no others."""

    root: Path
    broken: tuple[tuple[Case, str], ...]
    """Case, and the metric with its part."""


def outcomes(right: np.ndarray, *, prefix: str, twins: bool) -> Outcomes:
    """Rows that are right where `right` says so, the last of them held out."""
    n = len(right)
    truth = [CLASSES[i % 5] for i in range(n)]
    decoy = [CLASSES[(i + 1) % 5] for i in range(n)]
    ids = tuple(f"{prefix}{i}" for i in range(n))
    return Outcomes(
        id=ids,
        group=ids,
        part=tuple("held-out" if i >= n - HELD_OUT else "seen" for i in range(n)),
        twin=tuple(f"clean{i}" for i in range(n)) if twins else (None,) * n,
        decoy=tuple(decoy) if twins else (None,) * n,
        truth=tuple(truth),
        prediction=tuple(t if ok else d for t, d, ok in zip(truth, decoy, right, strict=True)),
        values={"correct": right.astype(float), "rank": 1.0 - right, "said_decoy": 1.0 - right},
    )


def store(root: Path, *, wrong: dict[str, slice]) -> Path:
    """Evidence of the whole tier; of the cases in `wrong` these rows are answered wrong."""
    for model in MODELS:
        for scenario, dataset in (("clean", "mini"), ("typographic", "mini-typo"),
                                  ("natural", "mini-natural")):  # fmt: skip
            case = Case("classification", scenario, dataset, model)
            right = np.ones(N, dtype=bool)
            right[wrong.get(case.address, slice(0))] = False
            twins = scenario == "typographic"
            manifest = Manifest(
                case, model, N, "revision-1", model, "protocol-1", twin_of="mini" if twins else None
            )
            rows = outcomes(right, prefix=scenario, twins=twins)
            write_evidence(root, manifest, {"attack": rows})
    return root


@pytest.fixture(scope="module")
def contract(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("contract") / "original.yaml"
    path.write_text(CONTRACT)
    return path


@pytest.fixture(scope="module")
def original(contract) -> Thresholds:
    return load_thresholds(contract)


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> Path:
    return store(tmp_path_factory.mktemp("good"), wrong={})


@pytest.fixture(scope="module")
def damages(tmp_path_factory, original) -> list[Damage]:
    """All rules broken, then those of each case alone, then the rule of the part alone."""
    every = slice(None)
    grid = {case.address: case for case in original.tier("mini").grid}
    # Where a clean twin is wrong, nothing is left to be lost: a few stay right.
    everywhere = {a: slice(FEW, None) if "/clean/" in a else every for a in grid}
    part = "classification/clean/mini/mini-clip"
    found = [(everywhere, grid)]
    found += [({address: every}, {address: case}) for address, case in grid.items()]
    damages = []
    for number, (wrong, cases) in enumerate(found):
        root = store(tmp_path_factory.mktemp(f"bad{number}"), wrong=wrong)
        broken = [(c, r.subject) for c in cases.values() for r in original.rules
                  if r.covers(c, c.model)]  # fmt: skip
        damages.append(Damage(root, tuple(broken)))
    root = store(tmp_path_factory.mktemp("part"), wrong={part: slice(N - HELD_OUT, None)})
    return [*damages, Damage(root, ((grid[part], "top1 (held-out)"),))]


@pytest.fixture
def judge(capsys) -> Callable[[Path, Path], int]:
    """The exit code of the gate; whatever it prints is for people."""

    def run(evidence: Path, thresholds: Path) -> int:
        options = ["--evidence", evidence, "--thresholds", thresholds, "--tier", "mini"]
        code = main(list(map(str, options)))
        told = capsys.readouterr()
        assert code in (0, 1, 4)
        assert "Traceback" not in told.out + told.err
        if code == 4:
            assert told.out == ""
            assert told.err.startswith((f"natadv: {thresholds}:", "natadv: unknown tier"))
            assert max(map(len, told.err.splitlines())) < MOST_CHARACTERS
        return code

    return run


def test_the_original_tells_the_evidence_apart(contract, good, damages, judge):
    assert judge(good, contract) == 0
    assert [judge(damage.root, contract) for damage in damages] == [1] * len(damages)


def test_each_damage_breaks_the_rules_it_names(contract, original, damages, capsys):
    for damage in damages:
        main(["--evidence", str(damage.root), "--thresholds", str(contract), "--tier", "mini"])
        failed = [line for line in capsys.readouterr().out.splitlines() if "    FAIL" in line]

        assert len(failed) == len(damage.broken)
        for case, subject in damage.broken:
            assert any(f"{case}: {subject} " in line for line in failed)


def test_a_damaged_contract_is_refused_or_its_weakening_shows(
    chance, tmp_path, original, good, damages, judge
):
    path = tmp_path / "mutated.yaml"
    path.write_bytes(mutated(chance))

    code = judge(good, path)

    if code == 4:
        assert judge(damages[0].root, path) == 4
        return
    found = differences(original, load_thresholds(path))
    assert all(len(str(one).splitlines()) == 1 for one in found)
    lost = set(original.tier("mini").grid) - set(load_thresholds(path).tier("mini").grid)
    assert all(dropped(case, found) for case in lost)
    for damage in damages:
        if judge(damage.root, path) == 0:
            for case, subject in damage.broken:
                assert dropped(case, found) or weakened(case, subject, found)


def dropped(case: Case, found: tuple[Difference, ...]) -> bool:
    cell = case.address.rpartition("/")[0]
    changes = {f"case {cell} removed", f"model {case.model} removed"}
    return any(
        (d.effect, d.subject) == ("WEAKER", "tier mini") and d.change in changes for d in found
    )


def weakened(case: Case, subject: str, found: tuple[Difference, ...]) -> bool:
    metric = subject.partition(" ")[0]
    waived = [d.subject.partition(": ") for d in found if d.change.startswith("waived by ")]
    if any(fnmatchcase(case.address, of) and m in ("", metric) for of, _, m in waived):
        return True
    return any(
        d.effect == "WEAKER"
        and fnmatchcase(case.address, d.subject)
        and re.match(rf"{re.escape(subject)} (floor|ceiling|min_n) ", d.change)
        for d in found
    )


def mutated(chance: np.random.Generator) -> bytes:
    """The contract after one or a few changes: of its text, of its values, or as people make."""
    changes = int(chance.choice([1, 1, 1, 2, 3]))
    table = one_of(chance, (TEXT_CHANGES, TREE_CHANGES, EDITS, EDITS))
    if table is TEXT_CHANGES:
        content = CONTRACT.encode()
        for _ in range(changes):
            content = one_of(chance, table)(content, chance)
        return content
    tree = {"": yaml.safe_load(CONTRACT)}
    for _ in range(changes):
        one_of(chance, table)(tree, chance)
    text = yaml.safe_dump(tree[""], sort_keys=False, allow_unicode=True)
    return str(text).encode(errors="surrogatepass")


def one_of(chance: np.random.Generator, items: Any) -> Any:
    return items[int(chance.integers(len(items)))]


def line_changed(content: bytes, chance: np.random.Generator) -> bytes:
    """One line deleted, repeated, or put in the place of another."""
    lines = content.splitlines(keepends=True) or [b""]
    at, other = (int(chance.integers(len(lines))) for _ in range(2))
    kind = int(chance.integers(3))
    if kind == 0:
        del lines[at]
    elif kind == 1:
        lines.insert(at, lines[at])
    else:
        lines[at], lines[other] = lines[other], lines[at]
    return b"".join(lines)


def bit_flipped(content: bytes, chance: np.random.Generator) -> bytes:
    if not content:
        return content
    at = int(chance.integers(len(content)))
    flipped = content[at] ^ 1 << int(chance.integers(8))
    return content[:at] + bytes([flipped]) + content[at + 1 :]


def cut_off(content: bytes, chance: np.random.Generator) -> bytes:
    return content[: int(chance.integers(len(content) + 1))]


def values_swapped(content: bytes, chance: np.random.Generator) -> bytes:
    found = list(re.finditer(rb"(?<=: )[^\n\[{]+", content))
    if len(found) < 2:
        return content
    first, second = sorted(
        (one_of(chance, found) for _ in range(2)), key=lambda value: value.start()
    )
    if first.start() == second.start():
        return content
    between = content[first.end() : second.start()]
    return b"".join(
        (content[: first.start()], second[0], between, first[0], content[second.end() :])
    )


TAGS = ("!!int ", "!!float ", "!!bool ", "!!timestamp ", "!!binary ", "!!set ", "!!omap ",
        "!!str ", "!!null ", "!!map ", "!!seq ", "!x ", "!!python/object:os.system ", "&a ", "*a ",
        "|\n", ">\n", "? ", "- ", "<<: ")  # fmt: skip


def tag_inserted(content: bytes, chance: np.random.Generator) -> bytes:
    places = [m.end() for m in re.finditer(rb": |- |\[|, ", content)]
    at = one_of(chance, places or [0])
    return content[:at] + one_of(chance, TAGS).encode() + content[at:]


ODDITIES = ("\0", "\ufeff", "\u2028", "\u200b", "\x85", "\t", "\r", "'", '"', "#", "~", "\xe9",
            "\n---\n", "\n...\n", "%YAML 9.9\n", "<<: {floor: 0.1}\n    ", "[" * 20_000,
            "- " * 20_000, "{a: " * 50, "9" * 5_000, "x" * 50_000, "2026-02-30", "&a [*a]",
            "!!int ''", "1:1", "0x", ".nan")  # fmt: skip


def oddity_inserted(content: bytes, chance: np.random.Generator) -> bytes:
    at = int(chance.integers(len(content) + 1))
    return content[:at] + one_of(chance, ODDITIES).encode() + content[at:]


def value_replaced(content: bytes, chance: np.random.Generator) -> bytes:
    found = list(re.finditer(rb"(?<=: )[^\n\[{]+|(?<=- )[^\n]+", content))
    if not found:
        return content
    value = one_of(chance, found)
    odd = one_of(chance, ODDITIES).encode()
    return content[: value.start()] + odd + content[value.end() :]


TEXT_CHANGES = (line_changed, line_changed, bit_flipped, bit_flipped, cut_off, values_swapped,
                tag_inserted, oddity_inserted, value_replaced)  # fmt: skip


def places(node: Any) -> Iterator[tuple[Any, Any]]:
    """Every container of a tree, with each of its keys."""
    keys = list(node) if isinstance(node, dict) else range(len(node))
    for key in keys if isinstance(node, dict | list) else ():
        yield node, key
        if isinstance(node[key], dict | list):
            yield from places(node[key])


def inner_place(tree: Any, chance: np.random.Generator, kinds: tuple[type, ...] = (object,)) -> Any:
    """Some place below the root that holds one of these kinds, or None."""
    found = [
        (node, key)
        for node, key in places(tree)
        if node is not tree and isinstance(node[key], kinds) and not isinstance(node[key], bool)
    ]
    return one_of(chance, found) if found else None


def node_dropped(tree: Any, chance: np.random.Generator) -> None:
    if place := inner_place(tree, chance):
        del place[0][place[1]]


def node_repeated(tree: Any, chance: np.random.Generator) -> None:
    lists = [node for node, _ in places(tree) if isinstance(node, list)]
    if lists:
        node = one_of(chance, lists)
        node.insert(int(chance.integers(len(node) + 1)), copy.deepcopy(one_of(chance, node)))


OTHERS = (None, True, False, 0, 1, -1, 1.0, "", " ", "x", [], {}, ["x"], {"x": 1}, float("nan"),
          float("inf"), 10**400, b"x", datetime.date(2026, 1, 1), "1", "*", "\ud800")  # fmt: skip


def node_retyped(tree: Any, chance: np.random.Generator) -> None:
    if place := inner_place(tree, chance):
        place[0][place[1]] = copy.deepcopy(one_of(chance, OTHERS))


EXTREMES = (0, 1, -1, -0.0, 0.5, 1e-300, 1e-7, 1e-6, 2e-6, 0.999998, 0.999999, 0.9999999,
            0.9999999999999999, 1.0, 2, 10**9, 10**10, 10**400, -(10**400), 5e-324,
            1.7e308)  # fmt: skip


def number_made_extreme(tree: Any, chance: np.random.Generator) -> None:
    if place := inner_place(tree, chance, (int, float)):
        place[0][place[1]] = one_of(chance, EXTREMES)


def near(name: str, chance: np.random.Generator) -> str:
    at = int(chance.integers(len(name) + 1))
    changed = (name[:at] + name[at + 1 :], name[:at] + "*" + name[at:], name[:at] + "*",
               name[:at] + " " + name[at:], name[:at] + "\t" + name[at:], name + " ", name.upper(),
               name.replace("i", "\u0456"), name.replace("-", "\u2010"), name + "\u200b",
               name + "@paper", name + "\n", "[" + name + "]", name[:at] + "?" + name[at + 1 :],
               name.replace("mini-siglip", "mini-clip"), name.replace("clean", "natural"),
               "*/*/*/*", name.replace("mini-clip", "*"))  # fmt: skip
    return str(one_of(chance, changed))


def name_nearly_missed(tree: Any, chance: np.random.Generator) -> None:
    if place := inner_place(tree, chance, (str,)):
        place[0][place[1]] = near(place[0][place[1]], chance)


def key_nearly_missed(tree: Any, chance: np.random.Generator) -> None:
    mappings = [(n, k) for n, k in places(tree) if n is not tree and isinstance(n, dict)]
    node, key = one_of(chance, mappings)
    node[near(str(key), chance)] = node.pop(key)


def nodes_swapped(tree: Any, chance: np.random.Generator) -> None:
    first, second = inner_place(tree, chance), inner_place(tree, chance)
    if first and second:
        one, other = (copy.deepcopy(node[key]) for node, key in (first, second))
        first[0][first[1]], second[0][second[1]] = other, one


TREE_CHANGES = (node_dropped, node_dropped, node_repeated, node_retyped, number_made_extreme,
                name_nearly_missed, key_nearly_missed, nodes_swapped)  # fmt: skip


def number_moved(tree: Any, chance: np.random.Generator) -> None:
    """To where a person might have moved it."""
    if place := inner_place(tree, chance, (int, float)):
        value = place[0][place[1]]
        moved = value * float(chance.uniform(0.2, 1.5))
        place[0][place[1]] = int(moved) if isinstance(value, int) else round(moved, 3)


def rule_dropped(tree: Any, chance: np.random.Generator) -> None:
    rules = tree[""]["rules"]
    del rules[int(chance.integers(len(rules)))]


def rule_added(tree: Any, chance: np.random.Generator) -> None:
    """A copy, which covers more, asks for less, or is about something else."""
    rules = tree[""]["rules"]
    rule = copy.deepcopy(one_of(chance, rules))
    rule["case"] = "/".join(one_of(chance, (p, p, "*")) for p in rule["case"].split("/"))
    bound = "floor" if "floor" in rule else "ceiling"
    rule[bound] = round(float(chance.uniform(0.01, 0.99)), 3)
    rule["part"] = one_of(chance, ("held-out", "seen", "nowhere"))
    rules.insert(int(chance.integers(len(rules) + 1)), rule)


def rule_column_changed(tree: Any, chance: np.random.Generator) -> None:
    rule = one_of(chance, tree[""]["rules"])
    columns: tuple[dict[str, Any], ...] = (
        {"min_n": 1}, {"min_n": 500}, {"part": "seen"}, {"part": "held-out"}, {"part": None},
        {"metric": "top5"}, {"metric": "decoy_rate"}, {"metric": "macro_recall"},
        {"source": "felt right"}, {"floor": 0.000001}, {"ceiling": 0.999999},
        {"at": "value"}, {"at": "interval"}, {"max_excluded": 0.0}, {"max_drop": 0.5},
    )  # fmt: skip
    rule |= one_of(chance, columns)


def waiver_added(tree: Any, chance: np.random.Generator) -> None:
    """Of what fails, for a while that may be too long, or over."""
    case = one_of(chance, tree[""]["rules"])["case"].split("/")
    until = today_utc() + datetime.timedelta(days=int(chance.integers(-30, 120)))
    row = {"case": "/".join(one_of(chance, (p, p, p, p, "*")) for p in case), "expires": until}
    row |= one_of(chance, ({}, {}, {"metric": "top1"}, {"metric": "accuracy_drop"}))
    waivers = tree[""].setdefault("waivers", [])
    waivers.append(row | {"reason": "known", "owner": "jane", "issue": "#1"})


def rule_moved(tree: Any, chance: np.random.Generator) -> None:
    """To one model, to all models, or to another dataset or model."""
    rule = one_of(chance, tree[""]["rules"])
    old, new = one_of(chance, (
        ("*", "mini-clip"), ("*", "mini-siglip"), ("*", "mini-*"), ("mini-clip", "*"),
        ("mini-clip", "mini-siglip"), ("/mini/", "/*/"), ("/mini-typo/", "/mini*/"),
        ("clean", "*"), ("classification", "*"), ("mini-siglip", "[m]ini-siglip"),
    ))  # fmt: skip
    rule["case"] = rule["case"].replace(old, new)


def case_dropped_with_its_rules(tree: Any, chance: np.random.Generator) -> None:
    cases = tree[""]["tiers"]["mini"]["cases"]
    if cases:
        cell = cases.pop(int(chance.integers(len(cases))))
        tree[""]["rules"] = [r for r in tree[""]["rules"] if not r["case"].startswith(f"{cell}/")]


def model_dropped_with_its_rules(tree: Any, chance: np.random.Generator) -> None:
    models = tree[""]["tiers"]["mini"]["models"]
    if models:
        model = models.pop(int(chance.integers(len(models))))
        tree[""]["rules"] = [r for r in tree[""]["rules"] if not r["case"].endswith(f"/{model}")]


def tier_changed(tree: Any, chance: np.random.Generator) -> None:
    tier = tree[""]["tiers"][one_of(chance, ("mini", "nightly"))]
    columns: tuple[dict[str, Any], ...] = (
        {"limit": 10}, {"limit": 1000}, {"limit": None}, {"max_excluded": 0.5}, {"searches": {}},
        {"models": ["mini-siglip"]}, {"models": ["mini-clip", "mini-siglip"]}, {"models": ["mine"]},
        {"cases": ["classification/natural/mini-natural"]},
    )  # fmt: skip
    tier |= one_of(chance, columns)


def setting_changed(tree: Any, chance: np.random.Generator) -> None:
    settings = ({"confidence": 0.5}, {"confidence": 0.999999}, {"default_tier": "nightly"})
    tree[""] |= one_of(chance, settings)


EDITS = (number_moved, number_moved, rule_dropped, rule_dropped, rule_added, rule_added,
         rule_column_changed, rule_column_changed, rule_moved, rule_moved,
         waiver_added, case_dropped_with_its_rules, model_dropped_with_its_rules, tier_changed,
         setting_changed)  # fmt: skip

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
from allure_commons.utils import md5
from hypothesis import given
from hypothesis import strategies as st

from natadv.errors import ReportError
from natadv.gate.judge import Assessment, judge_rule
from natadv.gate.rules import Rule
from natadv.report.results import (
    CATEGORIES,
    empty_results,
    labels,
    write_categories,
    write_environment,
    write_executor,
    write_missing,
)
from natadv.types import Case, Measurement

CASE = Case("classification", "typographic", "mini-typo", "mini-clip")
FLOOR = Rule("*/*/*/*", "top1", "floor", 0.85, "measured")
CEILING = Rule("*/*/*/*", "attack_success_rate", "ceiling", 0.2, "measured", part="seen")


def properties(text: str) -> dict[str, str]:
    """What java.util.Properties would load, after its documentation."""
    found = {}
    for line in text.split("\n"):
        units = _units(line.lstrip(" \t\f"))
        if not units or units[0] in (("#", False), ("!", False)):
            continue
        key, rest = _split(units)
        both = ("".join(c for c, _ in part) for part in (key, rest))
        name, value = (_joined_surrogates(part) for part in both)
        found[name] = value
    return found


def _units(line: str) -> list[tuple[str, bool]]:
    """Each character, and whether it was escaped."""
    units, i = [], 0
    while i < len(line):
        if line[i] != "\\":
            units.append((line[i], False))
            i += 1
        elif line[i + 1] == "u":
            units.append((chr(int(line[i + 2 : i + 6], 16)), True))
            i += 6
        else:
            units.append(
                ({"t": "\t", "n": "\n", "r": "\r", "f": "\f"}.get(*[line[i + 1]] * 2), True)
            )
            i += 2
    return units


def _split(units: list[tuple[str, bool]]) -> tuple[list, list]:
    ends = [i for i, (c, escaped) in enumerate(units) if c in " \t\f=:" and not escaped]
    end = ends[0] if ends else len(units)
    rest = units[end:]
    while rest and rest[0] in [(c, False) for c in " \t\f"]:
        rest = rest[1:]
    if rest and rest[0] in [("=", False), (":", False)]:
        rest = rest[1:]
    while rest and rest[0] in [(c, False) for c in " \t\f"]:
        rest = rest[1:]
    return units[:end], rest


def _joined_surrogates(text: str) -> str:
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")


@given(st.dictionaries(st.text(min_size=1), st.text(), max_size=4))
def test_the_environment_reads_back_as_it_was(tmp_path_factory, facts):
    folder = tmp_path_factory.mktemp("results")
    write_environment(folder, facts)

    assert properties((folder / "environment.properties").read_text("latin-1")) == facts


def test_the_environment_is_readable_by_people_too(tmp_path):
    write_environment(tmp_path, {"torch": "2.13.0+cpu", "python": "3.11.7"})

    assert (tmp_path / "environment.properties").read_text() == (
        "python=3.11.7\ntorch=2.13.0+cpu\n"
    )


def measured_at(value: float, n: int = 660, excluded: int = 0) -> Measurement:
    return Measurement("top1", value, value - 0.02, value + 0.02, n, n, excluded)


def reason(
    rule: Rule, value: float, *, case: Case = CASE, p: float = 0.5, excluded: int = 0
) -> str:
    assessed = Assessment(case, rule, measured_at(value, excluded=excluded), p, ())
    return judge_rule(assessed, p, level=0.025, strictest=0.0025).reason


REGRESSION = f"REGRESSION {CASE}: -0.120 [-0.150, -0.090] against the baseline, 80 new errors"
VIOLATED = [
    reason(FLOOR, 0.7, p=0),
    reason(CEILING, 0.5, p=0, excluded=3),
    reason(FLOOR, 0.7, p=0, case=replace(CASE, model="floor-9")),
]
TOO_FEW = [
    reason(FLOOR, 0.84),
    reason(CEILING, 0.21),
    reason(FLOOR, 0.85),
    reason(replace(FLOOR, bound=0.8400001), 0.84),
]
UNMEASURED = judge_rule(
    Assessment(CASE, FLOOR, None, None, ("not measured",)), None, level=0.025, strictest=0.0025
).reason
REGRESSIONS = [REGRESSION, f"{REGRESSION}\n{VIOLATED[0]}", f"{REGRESSION}\n{TOO_FEW[0]}"]
MESSAGES = {
    "Regressions (worse than the baseline)": REGRESSIONS,
    "Floors violated": [
        *VIOLATED,
        "\n".join(VIOLATED),
        f"{VIOLATED[0]}\n{TOO_FEW[0]}",
        f"{TOO_FEW[0]}\n{VIOLATED[0]}",
        f"{UNMEASURED}\n{VIOLATED[0]}",
    ],
    "Too few samples to tell": [*TOO_FEW, "\n".join(TOO_FEW), f"{TOO_FEW[0]}\n{UNMEASURED}"],
}


def categories_of(message: str) -> list[str]:
    """The categories whose pattern the message matches, alike as a whole and anywhere in it."""
    patterns = {c["name"]: c["messageRegex"] for c in CATEGORIES if "messageRegex" in c}
    whole = [name for name, pattern in patterns.items() if re.fullmatch(pattern, message)]

    assert whole == [name for name, pattern in patterns.items() if re.search(pattern, message)]
    return whole


def test_a_message_of_the_gate_falls_into_one_category():
    for category, messages in MESSAGES.items():
        for message in messages:
            assert categories_of(message) == [category], message


def test_messages_of_rules_that_hold_and_foreign_messages_fall_into_no_category():
    for message in (
        reason(FLOOR, 0.9),
        reason(CEILING, 0.1),
        UNMEASURED,
        "AssertionError: assert 3 < 2",
        "",
    ):
        assert categories_of(message) == [], message


def test_broken_gates_have_a_category_of_their_own(tmp_path):
    write_categories(tmp_path)
    written = json.loads((tmp_path / "categories.json").read_text())

    assert [c["name"] for c in written if c["matchedStatuses"] == ["broken"]] == [
        "Infrastructure (not measured as planned)"
    ]
    assert {c["name"] for c in written if c["matchedStatuses"] == ["failed"]} == set(MESSAGES)


def test_only_results_are_removed(tmp_path):
    mine = ["notes.md", "history/history.json", "result.json", "suite/x-result.json"]
    old = [
        "1f-result.json",
        "1f-container.json",
        "1f-attachment.png",
        "1f-attachment",
        "1f-globals.json",
        "categories.json",
        "environment.properties",
        "executor.json",
    ]
    for name in (*mine, *old):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    empty_results(tmp_path)

    left = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()}
    assert left == set(mine)


def test_a_missing_folder_is_made(tmp_path):
    empty_results(tmp_path / "a" / "b")

    assert (tmp_path / "a" / "b").is_dir()


def test_a_file_in_the_way_says_what_to_do(tmp_path):
    (tmp_path / "results").write_text("")

    with pytest.raises(
        ReportError, match=r"cannot hold Allure results: .*give another --alluredir"
    ):
        empty_results(tmp_path / "results")


def test_an_old_result_that_cannot_be_removed_is_an_error(tmp_path):
    (tmp_path / "1f-result.json").mkdir()

    with pytest.raises(ReportError, match="cannot hold Allure results"):
        empty_results(tmp_path)


def test_the_executor_links_to_the_run_on_github(tmp_path, monkeypatch):
    monkeypatch.setenv("GITHUB_SERVER_URL", "https://github.com")
    monkeypatch.setenv("GITHUB_REPOSITORY", "owner/name")
    monkeypatch.setenv("GITHUB_RUN_ID", "17")
    write_executor(tmp_path)

    executor = json.loads((tmp_path / "executor.json").read_text())
    assert executor["buildUrl"] == "https://github.com/owner/name/actions/runs/17"


def test_elsewhere_the_executor_is_local(tmp_path, monkeypatch):
    monkeypatch.delenv("GITHUB_RUN_ID", raising=False)
    write_executor(tmp_path)

    assert json.loads((tmp_path / "executor.json").read_text())["type"] == "local"


def test_a_gate_that_never_reported_has_a_broken_result_with_its_own_history(tmp_path):
    node = f"suites/test_classification.py::test_classification[{CASE}]"
    write_missing(tmp_path, CASE, node=node, reason="its worker died")
    (path,) = tmp_path.glob("*-result.json")
    result = json.loads(path.read_text())

    assert result["status"] == "broken"
    assert result["statusDetails"] == {"message": "its worker died"}
    assert result["fullName"] == "suites.test_classification#test_classification"
    # As allure-pytest makes it of a test's own parameters: one history, whoever wrote the result.
    assert result["historyId"] == md5(result["fullName"], CASE.address)
    assert {label["name"]: label["value"] for label in result["labels"]} == labels(CASE)
    assert path.name == f"{result['uuid']}-result.json"


def test_labels_group_by_model_task_and_scenario():
    found = labels(CASE)

    assert (found["parentSuite"], found["suite"], found["subSuite"]) == (
        "mini-clip",
        "classification",
        "typographic",
    )
    assert found["dataset"] == "mini-typo"

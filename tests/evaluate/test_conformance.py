"""Code that is declared equal to older code makes the same rows of a fixed sample."""

from __future__ import annotations

import json
from typing import Any

import pytest

from natadv.evaluate.code import EQUAL, declared
from tests.evaluate.conformance import GOLDEN, measured

CLOSE = 1e-3
"""Other processors sum in another order; a real change moves far more."""


@pytest.fixture(scope="module")
def golden() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(GOLDEN.read_text())
    return found


@pytest.fixture(scope="module")
def now(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return measured(tmp_path_factory.mktemp("store"))


def near(found: Any, expected: Any) -> bool:
    """Equal, but for the last digits of floats."""
    if isinstance(expected, float) and isinstance(found, float):
        return found == pytest.approx(expected, rel=CLOSE, abs=CLOSE)
    if isinstance(expected, dict) and isinstance(found, dict):
        return found.keys() == expected.keys() and all(near(found[k], expected[k]) for k in found)
    if isinstance(expected, list) and isinstance(found, list):
        return len(found) == len(expected) and all(map(near, found, expected))
    return bool(found == expected)


def test_the_code_makes_the_rows_that_it_made(golden, now):
    """Where rows change on purpose, write the sample anew and declare nothing equal."""
    changed = [
        name
        for name, result in golden["results"].items()
        if not near(now["results"].get(name), result)
    ]

    assert changed == []
    assert now["results"].keys() == golden["results"].keys()


def test_code_is_declared_equal_only_to_that_of_the_sample(golden):
    older = set(declared(EQUAL.read_text(encoding="utf-8")).values())

    assert older <= {golden["rows"], golden["searches"]}


def test_another_picture_does_not_pass_for_the_same(golden):
    result = golden["results"]["classification/mini/mini-clip/attack[0:12]"]
    scores = result["values"]["score"]
    moved = {**result, "values": {**result["values"], "score": [s + 0.01 for s in scores]}}

    assert near(result, json.loads(json.dumps(result)))
    assert not near(moved, result)
    assert not near({**result, "prediction": result["prediction"][::-1]}, result)

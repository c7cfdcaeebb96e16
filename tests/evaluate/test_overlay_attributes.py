from __future__ import annotations

import json

import pytest

from natadv.evaluate.overlay_attributes import factors_of
from natadv.types import Sample


def told(*facts):
    rows = [Sample(f"s{i}", "g", b"", facts=json.dumps(fact)) for i, fact in enumerate(facts)]
    return factors_of(rows)


def test_text_stays_numbers_are_floats_and_claims_are_yes_or_no():
    found = told(
        {"kind": "decoy", "size": 1, "off_object": True},
        {"kind": "other", "size": 0.25, "off_object": False},
    )

    assert found == {"kind": ("decoy", "other"), "size": (1.0, 0.25), "off_object": ("yes", "no")}
    assert type(found["size"][0]) is float


def test_only_what_is_told_of_all_rows_is_a_factor():
    assert told({"size": 0.1, "hidden": 0.5}, {"size": 0.2}) == {"size": (0.1, 0.2)}
    assert told({"size": 0.1}, {}) == {}
    assert told() == {}


@pytest.mark.parametrize("odd", [None, [1], {"a": 1}, "0.1", True])
def test_what_is_not_of_one_kind_is_none(odd):
    assert told({"size": 0.1}, {"size": odd}) == {}

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from natadv.errors import StoreError
from natadv.evaluate.outcomes_json import attributes_of, columns, outcomes_of
from natadv.types import Outcomes, Sample

NAMES = ("correct", "margin")
TEXT = st.text(max_size=4)
FINITE = st.floats(allow_nan=False, allow_infinity=False)


@st.composite
def tables(draw):
    n = draw(st.integers(0, 4))
    maybe = st.none() | TEXT

    def column(strategy):
        return tuple(draw(st.lists(strategy, min_size=n, max_size=n)))

    return Outcomes(
        id=column(TEXT),
        group=column(TEXT),
        part=column(TEXT),
        twin=column(maybe),
        decoy=column(maybe),
        truth=column(TEXT),
        prediction=column(TEXT),
        values={name: np.array(column(FINITE), dtype=np.float64) for name in NAMES},
        attributes={"kind": column(TEXT), "size": column(FINITE)},
    )


def stored(table, errors=None):
    """As the store would give it back."""
    return json.loads(json.dumps({"outcomes": columns(table), "errors": errors or {}}))


@given(st.lists(tables(), min_size=1, max_size=3))
def test_units_come_back_as_one_table_bit_for_bit(parts):
    whole = outcomes_of(map(stored, parts))

    for name in ("id", "group", "part", "twin", "decoy", "truth", "prediction"):
        expected = [x for part in parts for x in getattr(part, name)]
        assert list(getattr(whole, name)) == expected
    for name in NAMES:
        expected = np.concatenate([part.values[name] for part in parts])
        assert np.asarray(whole.values[name], np.float64).tobytes() == expected.tobytes()
    for name, told in whole.attributes.items():
        assert told == tuple(x for part in parts for x in part.attributes[name])
    assert bool(whole.attributes) == bool(whole.n)


def test_errors_of_all_units_are_kept():
    empty = Outcomes((), (), (), (), (), (), (), {name: np.array([]) for name in NAMES})
    whole = outcomes_of([stored(empty, {"s1": "damaged"}), stored(empty, {"s2": "bomb"})])

    assert whole.n == 0
    assert whole.errors == {"s1": "damaged", "s2": "bomb"}


def test_only_factors_that_every_unit_tells_are_kept():
    def table(name, **attributes):
        return stored(Outcomes(*((name,),) * 7, values={}, attributes=attributes))

    empty = stored(Outcomes((), (), (), (), (), (), (), {}))
    whole = outcomes_of(
        [table("s0", size=(0.1,), hidden=(0.2,)), empty, table("s1", size=(0.3,), kind=("other",))]
    )

    assert whole.attributes == {"size": (0.1, 0.3)}


def test_without_factors_nothing_is_told_of_them():
    table = Outcomes(*(("s0",),) * 7, values={})

    assert "factors" not in columns(table)
    assert outcomes_of([stored(table)]).attributes == {}


def test_no_unit_is_an_empty_table():
    whole = outcomes_of([])

    assert whole.n == 0
    assert whole.values == {}


def test_columns_are_plain_json_values():
    table = Outcomes(*(("s0",),) * 7, values={name: np.ones(1, dtype=np.float32) for name in NAMES})

    assert type(columns(table)["values"]["margin"][0]) is float


def test_units_with_other_columns_cannot_be_joined():
    table = Outcomes(*(("s0",),) * 7, values={name: np.ones(1) for name in NAMES})
    short = Outcomes(*(("s1",),) * 7, values={"correct": np.ones(1)})

    # The first one may have fewer: what the others add is not dropped without a word.
    for units in ([table, short], [short, table]):
        with pytest.raises(StoreError, match=r"margin.* is not in each of them"):
            outcomes_of(map(stored, units))


def told(*facts):
    rows = [Sample(f"s{i}", "g", b"", facts=json.dumps(fact)) for i, fact in enumerate(facts)]
    return attributes_of(rows)


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

from __future__ import annotations

import contextlib
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from natadv.data.importers.json_stream import iter_list
from natadv.errors import DataError

Layouts = dict[str, Callable[..., Any]]

NUMBERS = st.integers(1 - 2**63, 2**63 - 1)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | FLOATS | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)
OBJECTS = st.lists(st.dictionaries(st.text(max_size=4), VALUES, max_size=4), max_size=8)


@settings(max_examples=40)
@given(OBJECTS, st.sampled_from([None, 1]), st.booleans())
def test_the_stream_gives_what_the_whole_gives(
    tmp_path_factory: pytest.TempPathFactory,
    objects: list[dict[str, Any]],
    indent: int | None,
    ascii_only: bool,
) -> None:
    path = tmp_path_factory.mktemp("json") / "list.json"
    whole = {"info": {"a": [1, 2]}, "n": 12, "wanted": objects, "after": 3}
    path.write_text(json.dumps(objects, indent=indent, ensure_ascii=ascii_only), "utf-8")
    assert list(iter_list(path)) == objects
    path.write_text(json.dumps(whole, indent=indent, ensure_ascii=ascii_only), "utf-8")
    assert list(iter_list(path, "wanted")) == objects


@pytest.mark.parametrize(
    ("text", "key", "complaint"),
    [
        ("", "", "expected JSON with a list: .*premature EOF; get it again"),
        ('[{"a": 1}', "", "premature EOF"),
        ('[{"a": 1}, {"b"', "", "premature EOF"),
        ('[{"a": 1}] {}', "", "trailing garbage"),
        ('[{"a": 1}]]', "", "trailing garbage"),
        ('[{"a": 1}, ]', "", "unallowed token"),
        ('{"wanted": [{"a": 1}]', "wanted", "premature EOF"),
        ('{"wanted": [{"a": 1}], "b"}', "wanted", "expected JSON with a list at 'wanted'"),
        ('{"wanted": [{"a": 1}]} x', "wanted", "trailing garbage"),
        ('{"a": 1}', "", "it is not a list"),
        ('{"a": 1}', "wanted", "no list at 'wanted' in it"),
        ('{"a": {"wanted": []}}', "wanted", "no list at 'wanted' in it"),
        ('{"wanted": {}}', "wanted", "no list at 'wanted' in it"),
        ("[1, 2]", "", "expected a list of objects, got 1"),
        ("[" * 100_000, "", "nested more than 64 deep"),
        ('[{"a":' * 100_000, "", "nested more than 64 deep"),
        ("[NaN]", "", "invalid char"),
        ('["\xff"]', "", "expected JSON with a list: .*invalid bytes"),
    ],
)
def test_what_is_no_such_list_is_refused(
    tmp_path: Path, text: str, key: str, complaint: str
) -> None:
    path = tmp_path / "odd.json"
    path.write_bytes(text.encode("latin-1"))

    with pytest.raises(DataError, match=complaint):
        list(iter_list(path, key))


def test_a_zip_holds_one_json(tmp_path: Path, layouts: Layouts) -> None:
    one = layouts["zip"](tmp_path / "one.zip", {"a.json": b'[{"a": 1}]', "readme.txt": b""})
    two = layouts["zip"](tmp_path / "two.zip", {"a.json": b"[]", "b.json": b"[]"})

    assert list(iter_list(one)) == [{"a": 1}]
    with pytest.raises(DataError, match=r"expected one JSON file in it, got \['a.json', 'b.json'"):
        list(iter_list(two))
    with pytest.raises(DataError, match="expected a JSON file, or a zip with one in it"):
        list(iter_list(tmp_path))


def damaged_zip(path: Path, layouts: Layouts) -> None:
    layouts["zip"](path, {"a.json": json.dumps([{"a": n} for n in range(9000)]).encode()})
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_a_damaged_zip_is_refused(tmp_path: Path, layouts: Layouts) -> None:
    damaged_zip(tmp_path / "a.zip", layouts)

    with pytest.raises(DataError, match=r"a.zip: expected JSON with a list: .*; get it again"):
        list(iter_list(tmp_path / "a.zip"))


@pytest.mark.parametrize("kind", ["json", "zip"])
@pytest.mark.parametrize("sabotage", ["", " x"])
def test_memory_does_not_grow_with_the_file(
    tmp_path: Path, layouts: Layouts, kind: str, sabotage: str
) -> None:
    def peak(count: int) -> int:
        text = json.dumps({"wanted": [{"a": "x" * 1000}] * count}) + sabotage
        path = tmp_path / f"{count}.{kind}"
        if kind == "zip":
            layouts["zip"](path, {"a.json": text.encode()})
        else:
            path.write_text(text)
        tracemalloc.start()
        with pytest.raises(DataError) if sabotage else contextlib.nullcontext():
            assert sum(1 for _ in iter_list(path, "wanted")) == count
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    few, many = peak(500), peak(5000)

    assert many - few < 500_000

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natadv.data.importers import json_stream
from natadv.data.importers.json_stream import iter_list
from natadv.errors import DataError

Layouts = dict[str, Callable[..., Any]]

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)
OBJECTS = st.lists(st.dictionaries(st.text(max_size=4), VALUES, max_size=4), max_size=8)


@given(OBJECTS, st.integers(1, 40), st.sampled_from([None, 1]), st.booleans())
def test_the_stream_gives_what_the_whole_gives(
    tmp_path_factory: pytest.TempPathFactory,
    objects: list[dict[str, Any]],
    chunk: int,
    indent: int | None,
    ascii_only: bool,
) -> None:
    path = tmp_path_factory.mktemp("json") / "list.json"
    whole = {"info": {"a": [1, 2]}, "n": 12, "wanted": objects, "after": 3}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_stream, "_CHUNK", chunk)
        path.write_text(json.dumps(objects, indent=indent, ensure_ascii=ascii_only), "utf-8")
        assert list(iter_list(path)) == objects
        path.write_text(json.dumps(whole, indent=indent, ensure_ascii=ascii_only), "utf-8")
        assert list(iter_list(path, "wanted")) == objects


@pytest.mark.parametrize(
    ("text", "key", "complaint"),
    [
        ("", "", "the text ends in the middle"),
        ('[{"a": 1}', "", "the text ends in the middle"),
        ('[{"a": 1}, {"b"', "", "expected JSON with a list"),
        ('{"a": 1}', "", r"expected '\[', came '\{'"),
        ('{"a": 1}', "wanted", "no 'wanted' in it"),
        ('{"wanted": {}}', "wanted", r"a list at 'wanted': expected '\['"),
        ("[1, 2]", "", "expected a list of objects, came 1"),
        ("[" * 100_000, "", "expected JSON with a list"),
        ("\xff", "", "expected JSON with a list"),
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
    with pytest.raises(DataError, match=r"expected one JSON file in it, came \['a.json', 'b.json'"):
        list(iter_list(two))
    with pytest.raises(DataError, match="expected a JSON file, or a zip with one in it"):
        list(iter_list(tmp_path))

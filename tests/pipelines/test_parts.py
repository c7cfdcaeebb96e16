"""A part is there whole or not at all, and only for those who would make the same."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from natadv.errors import DataError
from natadv.pipelines.parts import Part, Parts, parts_beside

ONE = {"seed": 1}


def test_a_part_comes_back_as_it_was_put(tmp_path, samples):
    part = Part(list(samples[:3]), {"s9": "no word"})
    with parts_beside(tmp_path / "x", ONE) as parts:
        assert not parts.has(0)
        parts.put(0, part)

        assert parts.has(0)
        assert parts.get(0) == part
        assert parts.left_out(0) == {"s9": "no word"}


def test_a_part_may_hold_nothing(tmp_path):
    with parts_beside(tmp_path / "x", ONE) as parts:
        parts.put(0, Part([], {"s9": "no word"}))

        assert parts.get(0) == Part([], {"s9": "no word"})


def interrupted(tmp_path: Path, samples, identity) -> None:
    with contextlib.suppress(ZeroDivisionError), parts_beside(tmp_path / "x", identity) as parts:
        parts.put(0, Part(list(samples[:1]), {}))
        _ = 1 / 0


def test_parts_stay_for_whoever_comes_back_with_the_same_identity(tmp_path, samples):
    interrupted(tmp_path, samples, ONE)

    with parts_beside(tmp_path / "x", ONE) as parts:
        assert parts.has(0)
    assert list(tmp_path.iterdir()) == []


def test_parts_of_another_identity_are_removed(tmp_path, samples):
    interrupted(tmp_path, samples, ONE)

    with parts_beside(tmp_path / "x", {"seed": 2}) as parts:
        assert not parts.has(0)


@pytest.mark.parametrize("read", [Parts.get, Parts.left_out])
def test_a_damaged_part_is_told_with_what_to_do(tmp_path, samples, read):
    with parts_beside(tmp_path / "x", ONE) as parts:
        parts.put(0, Part(list(samples[:1]), {}))
        (parts.folder / "part-00000.parquet").write_bytes(b"half")

        with pytest.raises(DataError, match=r"part-00000.parquet.*cannot be read.*remove it"):
            read(parts, 0)


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "x").write_text("a file in the way")

    with (
        pytest.raises(DataError, match="cannot be written"),
        parts_beside(tmp_path / "x" / "y", ONE),
    ):
        pass

"""A reader sees what was there before or what was written, and never half of it."""

from __future__ import annotations

import contextlib

import pytest

from natadv.errors import DataError, StoreError
from natadv.storage.atomic import replace_folder, replacing, write_whole, writing


def test_a_file_is_written_with_its_folder_and_replaced(tmp_path):
    path = tmp_path / "made" / "file"
    for content in (b"one", b"two"):
        write_whole(path, content)

        assert path.read_bytes() == content
    assert [found.name for found in path.parent.iterdir()] == ["file"]


def test_a_block_that_fails_leaves_the_old_file_and_no_debris(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    with contextlib.suppress(ZeroDivisionError), replacing(path) as temporary:
        temporary.write_bytes(b"half")
        _ = 1 / 0

    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_refusal_is_an_error_of_ours(tmp_path):
    (tmp_path / "in-the-way").write_text("")
    path = tmp_path / "in-the-way" / "file"

    with pytest.raises(DataError, match=r"file: cannot be written: File exists$"):
        write_whole(path, b"")


def test_what_to_do_about_a_refusal_is_told(tmp_path):
    path = tmp_path / "nowhere" / "file"

    with (
        pytest.raises(StoreError, match=r"cannot write .*file: No such .*; free space$"),
        writing(path, remedy="free space"),
    ):
        path.write_bytes(b"")


def test_a_folder_that_cannot_be_replaced_stays(tmp_path):
    folder, old = tmp_path / "folder", tmp_path / ".old"
    folder.mkdir()

    with pytest.raises(FileNotFoundError):
        replace_folder(tmp_path / "nothing", folder, old=old)

    assert folder.is_dir()
    assert not old.exists()

"""What heads and autoencoders have in common; what is particular is tested with them."""

from __future__ import annotations

import hashlib

import pytest

from natadv.errors import ModelError
from natadv.storage.trained_folder import as_json, read_verified, write_files


def test_what_was_written_is_read_and_nothing_else(tmp_path):
    content = as_json({"b": 1, "a": "ü"})
    write_files(tmp_path / "made", {"a.json": content}, what="thing")
    path, expected = tmp_path / "made" / "a.json", hashlib.sha256(content).hexdigest()

    assert (
        read_verified(path, expected, what="thing")
        == content
        == b'{\n "a": "\xc3\xbc",\n "b": 1\n}\n'
    )
    path.write_bytes(content[:-1])
    with pytest.raises(ModelError, match="the file is damaged or of another thing"):
        read_verified(path, expected, what="thing")
    with pytest.raises(ModelError, match=r"no b\.json in .*; copy the whole folder"):
        read_verified(path.with_name("b.json"), expected, what="thing")


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ModelError, match="file: the thing cannot be written"):
        write_files(tmp_path / "file", {"a": b"x"}, what="thing")

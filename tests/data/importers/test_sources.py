from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from natadv.data.importers import Checksum
from natadv.data.importers.sources import check_archive
from natadv.errors import DataError

DATA = b"bytes of an archive" * 1000
SHA256 = hashlib.sha256(DATA).hexdigest()
PUBLISHED = {
    "sha256": Checksum("sha256", SHA256),
    "md5": Checksum("md5", hashlib.md5(DATA).hexdigest()),
    "git-blob": Checksum("git-blob", hashlib.sha1(b"blob 19000\0" + DATA).hexdigest()),
}


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "official.tar"
    path.write_bytes(DATA)
    return path


@pytest.mark.parametrize("algorithm", PUBLISHED)
def test_a_published_archive_is_known_and_a_flipped_byte_refused(
    archive: Path, algorithm: str
) -> None:
    published = {"official.tar": PUBLISHED[algorithm]}
    assert check_archive(archive, published) == (SHA256, True)
    flipped = bytearray(DATA)
    flipped[1234] ^= 1
    archive.write_bytes(flipped)

    with pytest.raises(DataError, match=rf"official\.tar: {algorithm} is .* is published"):
        check_archive(archive, published)


@pytest.mark.parametrize("algorithm", PUBLISHED)
def test_a_published_archive_is_known_by_another_name(archive: Path, algorithm: str) -> None:
    renamed = archive.rename(archive.with_name("mine.tar"))
    others = {"other.tar": Checksum("sha256", "0" * 64)}

    published = {**others, "official.tar": PUBLISHED[algorithm]}
    assert check_archive(renamed, published) == (SHA256, True)
    assert check_archive(renamed, others) == (SHA256, False)


def test_an_unknown_archive_is_told_its_hash(archive: Path) -> None:
    assert check_archive(archive, {}) == (SHA256, False)


def test_what_the_user_expects_comes_first_but_does_not_make_it_the_published_one(
    archive: Path,
) -> None:
    other = {"official.tar": Checksum("md5", "0" * 32)}

    assert check_archive(archive, other, sha256=SHA256.upper()) == (SHA256, False)
    with pytest.raises(DataError, match="0000 was requested"):
        check_archive(archive, {}, sha256="0" * 64)


def test_the_name_of_a_blob_is_that_of_git(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"hello\n")

    published = {"f": Checksum("git-blob", "ce013625030ba8dba906f756967f9e9ca394464a")}

    assert check_archive(path, published).published

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from natadv.data.archives.checksums import Checksum
from natadv.data.importers import FORMATS
from natadv.errors import DataError

Layouts = dict[str, Callable[..., Any]]


@pytest.fixture
def files(encode: Any) -> dict[str, bytes]:
    return {
        "imagenet-a/README.txt": b"about",
        "imagenet-a/n01498041/0.000116_digital clock _ digital clock_0.865662.jpg": encode(1),
        "imagenet-a/n01498041/0.000348_bra _ bra_0.99.jpg": encode(2, format="JPEG"),
        "imagenet-a/n12267677/0.1_a.jpg": encode(3, format="JPEG"),
    }


@pytest.fixture
def archive(tmp_path: Path, files: dict[str, bytes], layouts: Layouts) -> Path:
    path: Path = layouts["tar"](tmp_path / "imagenet-a-copy.tar", files)
    return path


def test_the_tar_gives_200_classes(importing: Any, archive: Path, files: dict[str, bytes]) -> None:
    card = importing("imagenet-a", archive).card

    samples = importing.samples(card)
    assert (card.scenario, len(card.classes), card.rows) == ("natural", 200, 3)
    assert [card.classes[s.label or 0] for s in samples] == ["stingray", "stingray", "acorn"]
    assert [s.id for s in samples][2] == "n12267677/0.1_a.jpg"
    assert [s.image for s in samples] == list(files.values())[1:]
    assert "3 of the 7500 that are published" in card.description
    assert card.licence.startswith("MIT for the collection")


def test_the_unpacked_folder_gives_the_same(
    importing: Any, archive: Path, files: dict[str, bytes], tmp_path: Path, layouts: Layouts
) -> None:
    expected = importing("imagenet-a", archive).card.revision
    folder = layouts["folder"](tmp_path / "unpacked", files)

    for path in (folder, folder / "imagenet-a"):
        assert importing("imagenet-a", path, force=True).card.revision == expected


def test_a_flipped_byte_is_refused_by_its_checksum(
    importing: Any, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = archive.read_bytes()
    official = archive.rename(archive.with_name("imagenet-a.tar"))
    published = {"imagenet-a.tar": Checksum("sha256", hashlib.sha256(data).hexdigest())}
    row = replace(FORMATS["imagenet-a"], published=published)
    monkeypatch.setitem(FORMATS, "imagenet-a", row)
    assert importing("imagenet-a", official).card.rows == 3
    flipped = bytearray(data)
    flipped[1800] ^= 1
    official.write_bytes(flipped)

    with pytest.raises(DataError, match=r"imagenet-a.tar: sha256 is .* is published"):
        importing("imagenet-a", official, force=True)


def test_under_the_official_name_only_the_official_bytes_are_taken(
    importing: Any, archive: Path
) -> None:
    with pytest.raises(DataError, match=r"3bb3632277e6.* is published"):
        importing("imagenet-a", archive.rename(archive.with_name("imagenet-a.tar")))

    assert importing.leftovers() == []


def test_an_unknown_archive_is_told_its_hash_and_can_be_pinned(
    importing: Any, archive: Path
) -> None:
    stream, digest = io.StringIO(), hashlib.sha256(archive.read_bytes()).hexdigest()

    card = importing("imagenet-a", archive, stream=stream).card

    assert f"sha256 {digest}; no published hash is known" in stream.getvalue()
    assert digest in card.source
    assert importing("imagenet-a", archive, sha256=digest, force=True).card == card
    with pytest.raises(DataError, match="0000 was asked for"):
        importing("imagenet-a", archive, sha256="0" * 64, force=True)


HOSTILE = {
    "no class": ({"imagenet-a/fish/1.jpg": None}, "lies in 'fish', expected the WordNet id"),
    "other class": ({"imagenet-a/n01440764/1.jpg": None}, "one of the 200 classes of ImageNet-A"),
    "no picture": ({"imagenet-a/n12267677/z.jpg": b"words"}, "z.jpg: not a picture"),
    "cut picture": ({"imagenet-a/n12267677/z.jpg": "cut"}, "z.jpg: damaged picture"),
    "twice": ({"imagenet-a/n12267677/0.1_a.jpg/../0.1_a.jpg": None}, "climbs out"),
    "two folders": ({"copy/n12267677/0.1_a.jpg": None}, "1 ids come more than once"),
}


@pytest.mark.parametrize("hostile", HOSTILE)
def test_bad_input_is_named_and_nothing_is_written(
    importing: Any,
    tmp_path: Path,
    files: dict[str, bytes],
    layouts: Layouts,
    encode: Any,
    hostile: str,
) -> None:
    odd, complaint = HOSTILE[hostile]
    whole = encode(9, format="JPEG")
    made = {None: whole, "cut": whole[:-100]}
    more = {name: data if isinstance(data, bytes) else made[data] for name, data in odd.items()}
    archive = layouts["tar"](tmp_path / "odd.tar", {**files, **more})

    with pytest.raises(DataError, match=complaint):
        importing("imagenet-a", archive)

    assert importing.leftovers() == []


def test_a_file_that_is_not_there_is_told_how_to_get(importing: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not there; to get it:\ndvc import-url https://people"):
        importing("imagenet-a", tmp_path / "imagenet-a.tar")


def test_an_empty_archive_is_named(importing: Any, tmp_path: Path, layouts: Layouts) -> None:
    archive = layouts["tar"](tmp_path / "empty.tar", {"imagenet-a/README.txt": b""})

    with pytest.raises(DataError, match="no pictures in it"):
        importing("imagenet-a", archive)


def test_it_can_start_anywhere(importing: Any, archive: Path) -> None:
    importing.check_starts("imagenet-a", archive)

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import os
import stat
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from natadv.data.archives import iter_entries, open_files, plain_path
from natadv.errors import DataError

FILES = {"a/1.jpg": b"one", "a/2.jpg": b"two" * 9000, "b/ünï code.png": b"", "top.txt": b"x"}


def tarred(path: Path, files: dict[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def zipped(path: Path, files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def foldered(path: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


MAKERS: dict[str, Callable[[Path, dict[str, bytes]], Path]] = {
    "tar": tarred,
    "tar.gz": lambda path, files: tarred(path, files, "w:gz"),
    "tar.xz": lambda path, files: tarred(path, files, "w:xz"),
    "zip": zipped,
    "stored": lambda path, files: zipped(path, files, zipfile.ZIP_STORED),
    "folder": foldered,
}
ANY_ORDER = ("tar", "zip", "folder")


@pytest.mark.parametrize("kind", MAKERS)
def test_all_files_come_in_order_with_their_bytes(tmp_path: Path, kind: str) -> None:
    source = MAKERS[kind](tmp_path / "source", FILES)

    entries = [(entry.path, entry.size, entry.read()) for entry in iter_entries(source)]

    assert entries == [(name, len(data), data) for name, data in FILES.items()]


@pytest.mark.parametrize("kind", MAKERS)
def test_entries_that_are_not_read_cost_nothing_and_do_not_disturb(
    tmp_path: Path, kind: str
) -> None:
    source = MAKERS[kind](tmp_path / "source", FILES)

    read = [entry.read() for entry in iter_entries(source) if entry.path == "a/2.jpg"]

    assert read == [FILES["a/2.jpg"]]


@pytest.mark.parametrize("kind", ANY_ORDER)
def test_files_can_be_read_in_any_order(tmp_path: Path, kind: str) -> None:
    with open_files(MAKERS[kind](tmp_path / "source", FILES)) as files:
        assert list(files.sizes) == list(FILES)
        assert {path: files.read(path) for path in reversed(files.sizes)} == FILES


@pytest.mark.parametrize("kind", MAKERS)
def test_files_of_the_file_manager_are_left_out(tmp_path: Path, kind: str) -> None:
    hidden = {".DS_Store": b"x", "__MACOSX/a.jpg": b"x", "a/._1.jpg": b"x"}
    source = MAKERS[kind](tmp_path / "source", {**hidden, **FILES})

    assert [entry.path for entry in iter_entries(source)] == list(FILES)


def test_a_compressed_tar_cannot_be_read_by_path(tmp_path: Path) -> None:
    source = MAKERS["tar.gz"](tmp_path / "source.tar.gz", FILES)

    complaint = "compressed tar cannot be read file by file; unpack it"
    with pytest.raises(DataError, match=complaint), open_files(source):
        pass


def twice_in_tar(path: Path) -> None:
    with tarfile.open(path, "w") as tar:
        for _ in range(2):
            tar.addfile(tarfile.TarInfo("a/1.jpg"))


def twice_in_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/1.jpg", "x")
        archive.writestr("./a//1.jpg", "x")


def link_in_tar(path: Path) -> None:
    with tarfile.open(path, "w") as tar:
        member = tarfile.TarInfo("a/1.jpg")
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(member)


def hard_link_in_tar(path: Path) -> None:
    with tarfile.open(path, "w") as tar:
        member = tarfile.TarInfo("a/1.jpg")
        member.type, member.linkname = tarfile.LNKTYPE, "b"
        tar.addfile(member)


def link_in_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        member = zipfile.ZipInfo("a/1.jpg")
        member.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(member, "/etc/passwd")


def bomb_in_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/1.jpg", bytes(100 * 2**20))


def many_times_in_zip(path: Path) -> None:
    """Each alone is small enough."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for i in range(80):
            archive.writestr(f"a/{i}.jpg", bytes(2**20))


def bomb_in_tar(path: Path) -> None:
    with gzip.open(path, "wb", 9) as file:
        for name in ("a/1.jpg", "a/2.jpg"):
            member = tarfile.TarInfo(name)
            member.size = 50 * 2**20
            file.write(member.tobuf())
            file.write(bytes(member.size))


def endless_tar(path: Path) -> None:
    """Its first file alone would fill the disk, and it ends long before."""
    member = tarfile.TarInfo("a/1.jpg")
    member.size = 2**43
    with gzip.open(path, "wb") as file:
        file.write(member.tobuf(tarfile.GNU_FORMAT))


def cut_tar(path: Path) -> None:
    tarred(path, FILES)
    path.write_bytes(path.read_bytes()[:9000])


def sixth_header(change: Callable[[bytearray, int], bytes]) -> Callable[[Path], None]:
    """A tar of ten files, whose sixth header is changed; compressed afterwards if it is to be."""

    def sabotage(path: Path) -> None:
        tarred(path, {f"a/{i}.jpg": b"x" * 700 for i in range(10)})
        path.write_bytes(change(bytearray(path.read_bytes()), 5 * 3 * 512))

    return sabotage


def flipped_at(data: bytearray, start: int) -> bytes:
    data[start + 3] ^= 1
    return bytes(data)


def zeroed_at(data: bytearray, start: int) -> bytes:
    data[start : start + 512] = bytes(512)
    return bytes(data)


HEADERS = {
    "flipped": sixth_header(flipped_at),
    "zeroed": sixth_header(zeroed_at),
    "cut before": sixth_header(lambda data, start: data[:start]),
    "cut inside": sixth_header(lambda data, start: data[: start + 200]),
}


def cut_gzip(path: Path) -> None:
    tarred(path, {"a": os.urandom(40000)}, "w:gz")
    path.write_bytes(path.read_bytes()[:-9000])


def cut_zip(path: Path) -> None:
    zipped(path, FILES)
    path.write_bytes(path.read_bytes()[:-30])


def flipped_in_zip(path: Path) -> None:
    zipped(path, {"a/1.jpg": b"\xff\xd8" * 90}, zipfile.ZIP_STORED)
    data = bytearray(path.read_bytes())
    data[80] ^= 1
    path.write_bytes(data)


def encrypted(path: Path) -> None:
    zipped(path, {"a/1.jpg": b"x"})
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\1\2") + 8] |= 1
    path.write_bytes(data)


def name_that_is_no_text(path: Path) -> None:
    zipped(path, {"ü": b"x"})
    path.write_bytes(path.read_bytes().replace("ü".encode(), b"\xff\xff"))


def words(path: Path) -> None:
    path.write_bytes(b"no archive at all")


def climbing(name: str, make: Callable[[Path, dict[str, bytes]], Path]) -> Callable[[Path], None]:
    def sabotage(path: Path) -> None:
        make(path, {"a/1.jpg": b"x", name: b"x"})

    return sabotage


HOSTILE: dict[str, tuple[Callable[[Path], None], str]] = {
    "tar climbs": (climbing("../x.jpg", tarred), r"'\.\./x\.jpg' climbs out of its folder"),
    "tar climbs later": (climbing("a/../../x", tarred), "climbs out"),
    "tar absolute": (climbing("/etc/x", tarred), "climbs out"),
    "zip climbs": (climbing("../x.jpg", zipped), "climbs out"),
    "zip absolute": (climbing("/etc/x", zipped), "climbs out"),
    "zip backslash": (climbing("..\\x", zipped), "climbs out"),
    "zip drive": (climbing("C:x", zipped), "climbs out"),
    "twice in tar": (twice_in_tar, "'a/1.jpg' is in it twice"),
    "twice in zip": (twice_in_zip, "'a/1.jpg' is in it twice"),
    "link in tar": (link_in_tar, "'a/1.jpg' is a link or a device"),
    "hard link in tar": (hard_link_in_tar, "'a/1.jpg' is a link or a device"),
    "link in zip": (link_in_zip, "'a/1.jpg' is a link or a device"),
    "bomb in zip": (bomb_in_zip, "expands without end"),
    "many bombs in zip": (many_times_in_zip, "expands without end"),
    "bomb in tar": (bomb_in_tar, "expands without end: at 'a/2.jpg'"),
    "endless tar": (endless_tar, "expands without end"),
    "cut tar": (cut_tar, "damaged archive"),
    "cut gzip": (cut_gzip, "damaged archive"),
    "cut zip": (cut_zip, "neither or is damaged|damaged archive"),
    "flipped byte in zip": (flipped_in_zip, "damaged archive at 'a/1.jpg'"),
    "name of no text in zip": (name_that_is_no_text, "damaged archive"),
    "encrypted": (encrypted, "'a/1.jpg' is encrypted"),
    "no archive": (words, "got a file that is neither or is damaged"),
}


def read_all(source: Path) -> None:
    for entry in iter_entries(source):
        entry.read()


@pytest.mark.parametrize("hostile", HOSTILE)
def test_no_archive_is_trusted(tmp_path: Path, hostile: str) -> None:
    sabotage, complaint = HOSTILE[hostile]
    source = tmp_path / "source"
    sabotage(source)
    tracemalloc.start()

    with pytest.raises(DataError, match=complaint):
        read_all(source)

    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 128 * 2**20
    assert [path.name for path in tmp_path.rglob("*")] == ["source"]


@pytest.mark.parametrize("packed", [None, gzip.compress, bz2.compress, lzma.compress])
@pytest.mark.parametrize("header", HEADERS)
def test_a_tar_never_ends_at_a_damaged_header(
    tmp_path: Path, header: str, packed: Callable[[bytes], bytes] | None
) -> None:
    source = tmp_path / "source"
    HEADERS[header](source)
    if packed is not None:
        source.write_bytes(packed(source.read_bytes()))

    with pytest.raises(DataError, match=r"damaged archive: neither a file nor the end .* 7680"):
        read_all(source)
    if packed is None:
        complaint = "neither a file nor the end"
        with pytest.raises(DataError, match=complaint), open_files(source):
            pass


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "tar.xz"])
def test_a_tar_without_files_has_none(tmp_path: Path, kind: str) -> None:
    assert list(iter_entries(MAKERS[kind](tmp_path / "source", {}))) == []


@pytest.mark.parametrize("hostile", [name for name in HOSTILE if "zip" in name])
def test_no_zip_is_trusted_by_path(tmp_path: Path, hostile: str) -> None:
    sabotage, complaint = HOSTILE[hostile]
    if hostile == "cut gzip":
        complaint = "compressed tar"
    sabotage(tmp_path / "source")

    with pytest.raises(DataError, match=complaint), open_files(tmp_path / "source") as files:
        files.read("a/1.jpg")


def test_a_folder_with_a_pipe_or_a_linked_folder_is_refused(tmp_path: Path) -> None:
    for name, sabotage in {
        "pipe": lambda p: os.mkfifo(p),
        "folder": lambda p: p.symlink_to(tmp_path, target_is_directory=True),
    }.items():
        source = foldered(tmp_path / name, FILES)
        sabotage(source / "a/odd")
        with pytest.raises(DataError, match="a/odd: expected a picture or a folder"):
            list(iter_entries(source))


def test_headers_of_a_long_tar_are_not_kept(tmp_path: Path) -> None:
    source = tarred(tmp_path / "long.tar", {f"{i:06d}": b"" for i in range(6_000)})
    peaks = []
    for stop in (1_000, 6_000):
        tracemalloc.start()
        for _, entry in zip(range(stop), iter_entries(source), strict=False):
            entry.read()
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()

    # 300 bytes a path at most: the header of each would take over a thousand.
    assert peaks[1] - peaks[0] < 5_000 * 300


@given(st.text(st.sampled_from("ab./\\:\0 C"), max_size=12))
def test_an_admitted_path_never_leaves_its_folder(path: str) -> None:
    try:
        plain = plain_path(path, Path("x.tar"))
    except DataError:
        return

    assert os.path.normpath(os.path.join("/in", plain)).startswith("/in/")
    assert plain_path(plain, Path("x.tar")) == plain


@pytest.mark.parametrize("kind", [kind for kind in MAKERS if kind != "folder"])
@settings(max_examples=40)
@given(st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), min_size=1))
def test_a_changed_archive_is_refused_or_gives_some_files(
    tmp_path_factory: pytest.TempPathFactory, kind: str, changes: list[tuple[float, int]]
) -> None:
    source = MAKERS[kind](tmp_path_factory.mktemp("changed") / "source", FILES)
    data = bytearray(source.read_bytes())
    for place, change in changes:
        data[int(place * len(data))] ^= change
    source.write_bytes(data)

    # Any other error would reach the user as a traceback.
    with contextlib.suppress(DataError):
        read_all(source)


def test_a_tar_that_ends_in_a_zip_is_a_tar(tmp_path: Path) -> None:
    inner = zipped(tmp_path / "inner.zip", {"x": b"x"}).read_bytes()
    source = tarred(tmp_path / "outer.tar", {"a.txt": b"a", "z.zip": inner})

    assert [entry.path for entry in iter_entries(source)] == ["a.txt", "z.zip"]

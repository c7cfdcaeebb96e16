"""Packing gives equal bytes, and a stranger's zip file can do no harm."""

from __future__ import annotations

import hashlib
import json
import stat
import warnings
import zipfile
from contextlib import suppress

import pytest

from natadv.bundle import archive
from natadv.bundle.archive import INDEX, unpack
from natadv.errors import ReportError


def zipped(path, files, *, index=None, link=None):
    """A zip file of these files, with the right hashes unless `index` is given."""
    digests = {name: hashlib.sha256(body).hexdigest() for name, body in files}
    listed = {"format": 1, "natadv": "0", "files": digests}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        out.writestr(INDEX, json.dumps(listed) if index is None else index)
        for name, body in files:
            entry = zipfile.ZipInfo(name)
            kind = stat.S_IFLNK if name == link else stat.S_IFREG
            entry.external_attr = (kind | 0o644) << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # a second file of one name
                out.writestr(entry, body)
    return path


def test_equal_runs_give_equal_bytes_whatever_the_time(ended):
    first = ended.pack().read_bytes()
    for path in ended.root.rglob("*"):
        path.touch()

    assert ended.pack().read_bytes() == first


def test_it_holds_all_that_the_verdict_rests_on(ended, tmp_path):
    gate = json.loads(ended.contents.gate_json.read_text())
    sheet = gate["cases"][0]["case"].replace("/", "__") + ".png"
    (ended.root / sheet).write_bytes(b"png")
    gate["cases"][0]["sheet"] = sheet
    ended.write(gate)
    (ended.root / "evidence" / ".half.new").mkdir()
    (ended.root / "evidence" / ".half.new" / "manifest.json").write_text("{}")

    found = unpack(ended.pack(), tmp_path / "out")

    kinds = [name.partition("/")[0] for name in found.index.files]
    assert sorted(set(kinds)) == ["contract", "datasets", "evidence", "gate.json", "sheets"]
    assert kinds.count("datasets") == 3
    assert not [name for name in found.index.files if ".half" in name]
    assert (found.root / "sheets" / sheet).read_bytes() == b"png"
    assert found.sha256 == hashlib.sha256((ended.root / "evidence.zip").read_bytes()).hexdigest()


def test_no_other_file_is_packed_as_a_sheet(ended):
    gate = json.loads(ended.contents.gate_json.read_text())
    gate["cases"][0]["sheet"] = "../../secret.txt"
    ended.write(gate)

    with pytest.raises(ReportError, match="expected a sheet"):
        ended.pack()


def test_a_missing_card_is_one_line(ended):
    (ended.root / "datasets" / "mini" / "card.yaml").unlink()

    with pytest.raises(ReportError, match=r"^[^\n]*mini/card.yaml: cannot be read: [^\n]*$"):
        ended.pack()
    assert not (ended.root / "evidence.zip").exists()


def test_what_no_evidence_looks_like_is_refused_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "SMALL", 2**20)
    good = ("gate.json", b"{}")
    hostile = {
        "expected a path inside": [
            [("../evil", b"x")],
            [("/etc/evil", b"x")],
            [("a/../../evil", b"x")],
            [("a\\..\\evil", b"x")],
            [("C:evil", b"x")],
            [("a//b", b"x")],
            [("folder/", b"")],
            [("nu\tl", b"x")],
        ],
        "is there twice": [[good, good], [good, ("GATE.json", b"{}")]],
        "it is not unpacked": [[("bomb", bytes(2**22))]],
    }
    for message, archives in hostile.items():
        for files in archives:
            path = zipped(tmp_path / "x.zip", files)
            with pytest.raises(ReportError, match=message) as refused:
                unpack(path, tmp_path / "out")
            assert "\n" not in str(refused.value)
    with pytest.raises(ReportError, match="a link, a device or encrypted"):
        unpack(zipped(tmp_path / "x.zip", [good], link="gate.json"), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ("{", "index.json: the file: invalid JSON"),
        ("[]", "index.json: the file: input should be an object"),
        (json.dumps({"format": 2, "natadv": "0", "files": {"a": "0"}}), "index.json: format"),
        (json.dumps({"format": 1, "natadv": "0", "files": {}}), "index.json: files"),
        (json.dumps({"format": 1, "natadv": "0", "files": {"b": "0"}}), "only in the archive"),
        (json.dumps({"format": 1, "natadv": "0", "files": {"a": "0"}}), "was changed after"),
    ],
)
def test_an_index_that_does_not_fit_is_refused(tmp_path, index, message):
    path = zipped(tmp_path / "x.zip", [("a", b"x")], index=index)

    with pytest.raises(ReportError, match=message):
        unpack(path, tmp_path / "out")


def test_every_flipped_byte_is_noticed(ended, tmp_path):
    body, survived = ended.pack().read_bytes(), 0
    whole = unpack(ended.root / "evidence.zip", tmp_path / "whole")
    for at in range(0, len(body), max(1, len(body) // 60)):
        damaged = bytearray(body)
        damaged[at] ^= 0x55
        path = tmp_path / "damaged.zip"
        path.write_bytes(damaged)
        with suppress(ReportError):
            found = unpack(path, tmp_path / f"out{at}")
            # Such as a bit of the date: then all files are as they were.
            assert found.index == whole.index
            survived += 1
    assert survived < 20


def test_no_zip_file_is_one_line(tmp_path):
    (tmp_path / "text").write_text("hello")
    for name, message in (("text", "not a whole zip"), ("nix", "no such file"), (".", "not a")):
        with pytest.raises(ReportError, match=message):
            unpack(tmp_path / name, tmp_path / "out")
    zipfile.ZipFile(tmp_path / "empty.zip", "w").close()
    with pytest.raises(ReportError, match="has no index"):
        unpack(tmp_path / "empty.zip", tmp_path / "out")

"""Small archives with the exact layouts of the official ones."""

from __future__ import annotations

import io
import json
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from natadv.data.card import DATASETS_FOLDER, Card
from natadv.data.importers import FORMATS
from natadv.data.importers.format import Request, import_dataset
from natadv.data.packing import Packed
from natadv.data.reader import iter_samples
from natadv.types import Sample

VAL = {
    1: "n01751748",
    2: "n09193705",
    3: "n02105855",
    4: "n04263257",
}
"""The first pictures of ImageNet's validation set and their true classes."""


def write_tar(path: Path, files: dict[str, bytes]) -> Path:
    mode = "w:gz" if path.name.endswith("gz") else "w"
    with tarfile.open(path, mode) as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def write_zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def write_folder(path: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


def write_parquet(path: Path, rows: list[dict[str, Any]], names: list[str] | None = None) -> Path:
    """As `datasets` writes it: features in the metadata, a struct for a picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist(rows)
    features: dict[str, Any] = {"image": {"_type": "Image"}}
    if names is not None:
        features["label"] = {"names": names, "_type": "ClassLabel"}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    pq.write_table(table.replace_schema_metadata(metadata), path, row_group_size=3)
    return path


def _element(kind: int, data: bytes) -> bytes:
    if 0 < len(data) <= 4:
        return struct.pack("<HH", kind, len(data)) + data.ljust(4, b"\0")
    return struct.pack("<II", kind, len(data)) + data + bytes(-len(data) % 8)


def _matrix(kind: int, *parts: bytes) -> bytes:
    flags, dimensions = struct.pack("<II", kind, 0), struct.pack("<ii", 1, 1)
    return _element(14, b"".join([_element(6, flags), _element(5, dimensions), *parts]))


def meta_mat(wnids: dict[int, str], *, compressed: bool) -> bytes:
    """meta.mat of the devkit: a struct array `synsets` with numbers and texts."""
    fields = b"".join(name.ljust(16, b"\0") for name in (b"ILSVRC2012_ID", b"WNID", b"words"))
    cells = [
        cell
        for number, wnid in wnids.items()
        for cell in (
            _matrix(6, _element(1, b""), _element(9, struct.pack("<d", number))),
            _matrix(4, _element(1, b""), _element(4, wnid.encode("utf-16-le"))),
            _matrix(4, _element(1, b""), _element(16, b"two, words")),
        )
    ]
    whole = _matrix(
        2,
        _element(1, b"synsets"),
        _element(5, struct.pack("<i", 16)),
        _element(1, fields),
        *cells,
    )
    if compressed:
        squeezed = zlib.compress(whole)
        whole = struct.pack("<II", 15, len(squeezed)) + squeezed
    header = b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack("<HH", 0x0100, 0x4D49)
    return header + whole


def write_devkit(path: Path, *, compressed: bool = True) -> Path:
    """Its ids are not in the order of the WordNet ids."""
    ids = {wnid: number for number, wnid in enumerate(sorted(VAL.values(), reverse=True), start=7)}
    folder = "ILSVRC2012_devkit_t12"
    truth = "".join(f"{ids[wnid]}\n" for wnid in VAL.values())
    mat = meta_mat({number: wnid for wnid, number in ids.items()}, compressed=compressed)
    return write_tar(
        path,
        {
            f"{folder}/readme.txt": b"about",
            f"{folder}/data/ILSVRC2012_validation_ground_truth.txt": truth.encode(),
            f"{folder}/data/meta.mat": mat,
        },
    )


class Importing:
    """Imports into one root, and reads what came out."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def __call__(self, format: str, path: Path, *, force: bool = False, **options: Any) -> Packed:
        row = FORMATS[format]
        name = options.pop("name", row.name)
        return import_dataset(Request(row, path, name, **options), root=self.root, force=force)

    def samples(self, card: Card) -> list[Sample]:
        return list(iter_samples(self.root / DATASETS_FOLDER / card.name, card))

    def check_starts(self, format: str, path: Path, **options: Any) -> None:
        """A killed import relies on it: from any item on, the same ones come."""
        row = FORMATS[format]
        plan = row.plan(Request(row, path, row.name or "pets", **options))
        whole = list(plan.items(0))
        assert len(whole) == plan.total
        for start in range(plan.total + 1):
            assert list(plan.items(start)) == whole[start:]

    def leftovers(self) -> list[Path]:
        return [path for path in self.root.rglob("*") if not path.is_dir()]


@pytest.fixture
def importing(tmp_path: Path) -> Importing:
    return Importing(tmp_path / "root")


@pytest.fixture(scope="session")
def layouts() -> dict[str, Callable[..., Any]]:
    """What writes them."""
    return {
        "tar": write_tar,
        "zip": write_zip,
        "folder": write_folder,
        "parquet": write_parquet,
        "devkit": write_devkit,
        "meta.mat": meta_mat,
    }


@pytest.fixture
def val() -> dict[int, str]:
    return VAL

"""Small archives with the exact layouts of the official ones."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from natadv.data.card import DATASETS_FOLDER, Card
from natadv.data.importers import FORMATS, ImportRequest, import_dataset
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


def write_devkit(path: Path) -> Path:
    """It names classes by ids of its own, which are not in the order of the WordNet ids."""
    folder = "ILSVRC2012_devkit_t12"
    return write_tar(
        path,
        {
            f"{folder}/readme.txt": b"about",
            f"{folder}/data/ILSVRC2012_validation_ground_truth.txt": b"490\n361\n171\n822\n",
            f"{folder}/data/meta.mat": b"not read",
        },
    )


class Importing:
    """Imports into one root, and reads what came out."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def __call__(self, format: str, path: Path, *, force: bool = False, **options: Any) -> Packed:
        row = FORMATS[format]
        name = options.pop("name", row.name)
        return import_dataset(
            ImportRequest(row, path, name, **options), root=self.root, force=force
        )

    def samples(self, card: Card) -> list[Sample]:
        return list(iter_samples(self.root / DATASETS_FOLDER / card.name, card))

    def check_starts(self, format: str, path: Path, **options: Any) -> None:
        """A killed import relies on it: from any item on, the same ones come."""
        row = FORMATS[format]
        plan = row.plan(ImportRequest(row, path, row.name or "pets", **options))
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
    }


@pytest.fixture
def val() -> dict[int, str]:
    return VAL

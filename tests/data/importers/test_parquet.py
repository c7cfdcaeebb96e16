from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from natadv.data.importers.parquet import iter_rows, parquet_files
from natadv.errors import DataError

Layouts = dict[str, Callable[..., Any]]
NAMES = ["cat", "dog"]


@pytest.fixture
def rows(encode: Any) -> list[dict[str, Any]]:
    return [
        {"image": {"bytes": encode(i), "path": f"{i}.png"}, "label": i % 2, "key": f"k{i}"}
        for i in range(10)
    ]


@pytest.fixture
def folder(tmp_path: Path, rows: list[dict[str, Any]], layouts: Layouts) -> Path:
    layouts["parquet"](tmp_path / "hub/data/train-00000-of-00002.parquet", rows[:7], NAMES)
    layouts["parquet"](tmp_path / "hub/data/train-00001-of-00002.parquet", rows[7:], NAMES)
    return tmp_path / "hub"


def test_rows_become_samples_with_the_names_of_the_label(
    importing: Any, folder: Path, rows: list[dict[str, Any]]
) -> None:
    card = importing("parquet", folder, name="pets", licence="MIT").card

    samples = importing.samples(card)
    assert card.classes == ("cat", "dog")
    assert [s.id for s in samples] == [f"{i}.png" for i in range(10)]
    assert [s.label for s in samples] == [i % 2 for i in range(10)]
    assert [s.image for s in samples] == [row["image"]["bytes"] for row in rows]
    assert card.licence == "MIT"


def test_columns_can_be_named(
    importing: Any, rows: list[dict[str, Any]], tmp_path: Path, layouts: Layouts
) -> None:
    named = [{"image": r["image"], "label": r["label"], "key": r["key"]} for r in rows]
    path = layouts["parquet"](tmp_path / "one.parquet", named, NAMES)

    card = importing("parquet", path, name="pets", id_column="key").card

    assert [s.id for s in importing.samples(card)][:2] == ["k0", "k1"]


@pytest.mark.parametrize("start", range(11))
def test_rows_can_be_read_from_anywhere(
    folder: Path, rows: list[dict[str, Any]], start: int
) -> None:
    found = iter_rows(parquet_files(folder), ["image", "label"], start)

    assert [row["image"]["path"] for row in found] == [r["image"]["path"] for r in rows[start:]]


@pytest.fixture
def splits(tmp_path: Path, rows: list[dict[str, Any]], layouts: Layouts) -> Path:
    """Of one hub folder."""
    for split, part in {"train": rows[:5], "test": rows[5:8], "validation": rows[8:]}.items():
        layouts["parquet"](tmp_path / f"hub/data/{split}-00000-of-00001.parquet", part, NAMES)
    return tmp_path / "hub"


def test_splits_are_never_mixed(importing: Any, splits: Path) -> None:
    complaint = r"test-00000-of-00001.parquet and train-00000-of-00001.parquet are of different"
    with pytest.raises(DataError, match=complaint):
        importing("parquet", splits, name="pets")
    with pytest.raises(DataError, match="no split 'dev' in it, it has test, train, validation"):
        importing("parquet", splits, name="pets", split="dev")
    assert importing.leftovers() == []

    card = importing("parquet", splits, name="pets", split="test").card

    assert [s.id for s in importing.samples(card)] == ["5.png", "6.png", "7.png"]


@pytest.mark.parametrize(
    ("names", "mixed"),
    [
        (("train.parquet", "test.parquet"), True),
        (("a-00000-of-00001-1ab.parquet", "b-00000-of-00001-2cd.parquet"), True),
        (("test-1.parquet", "all.parquet"), True),
        (("a-00000-of-00002.parquet", "a-00001-of-00002.parquet"), False),
        (("train-00000-of-00002-1ab.parquet", "train-00001-of-00002-2cd.parquet"), False),
        (("train_1.parquet", "train_2.parquet"), False),
        (("cats.parquet", "dogs.parquet"), False),
        (("trains.parquet", "tests.parquet"), False),
    ],
)
def test_a_split_is_what_a_name_says(tmp_path: Path, names: tuple[str, str], mixed: bool) -> None:
    for name in names:
        (tmp_path / name).touch()

    if mixed:
        with pytest.raises(DataError, match="are of different splits"):
            parquet_files(tmp_path)
    else:
        assert {path.name for path in parquet_files(tmp_path)} == {*names}


def test_files_that_number_their_classes_differently_are_refused(
    importing: Any, folder: Path, rows: list[dict[str, Any]], layouts: Layouts
) -> None:
    second = folder / "data/train-00001-of-00002.parquet"
    layouts["parquet"](second, rows[7:], NAMES[::-1])

    with pytest.raises(DataError, match=r"train-00000-of-.* and .*train-00001-of-.* name the cl"):
        importing("parquet", folder, name="pets")

    assert importing.leftovers() == []


def test_files_that_hold_other_types_are_refused(
    importing: Any, folder: Path, rows: list[dict[str, Any]], layouts: Layouts
) -> None:
    second = folder / "data/train-00001-of-00002.parquet"
    layouts["parquet"](second, [{**row, "image": "1.png"} for row in rows[7:]], NAMES)

    with pytest.raises(DataError, match=r"00001-of-.*: column 'image' holds string, but struct"):
        importing("parquet", folder, name="pets")


def changed(**fields: Any) -> Callable[[list[dict[str, Any]]], list[dict[str, Any]]]:
    return lambda rows: [*rows[:-1], {**rows[-1], **fields}]


HOSTILE: dict[str, tuple[Any, list[str] | None, dict[str, Any], str]] = {
    "no names": (changed(), None, {}, "column 'label' has no class names"),
    "no column": (changed(), NAMES, {"label_column": "fine"}, "no column 'fine', it has image"),
    "no column of pictures": (changed(), NAMES, {"columns": ["image=pic"]}, "no column 'pic', it"),
    "no pictures": (changed(), NAMES, {"image_column": "label"}, "image must be the path of a pic"),
    "no files": (changed(), NAMES, {"image_column": "key"}, "row 0: no file 'k0' in "),
    "held back": (changed(label=-1), NAMES, {}, "row 9: has no label; a test split"),
    "no label": (changed(label=None), NAMES, {}, "row 9: has no label"),
    "too large": (changed(label=2), NAMES, {}, "label must be from 0 to 1, got 2"),
    "no bytes": (
        changed(image={"bytes": None, "path": "9.png"}), NAMES, {}, "row 9: holds no bytes"
    ),
    "no path": (changed(image={"bytes": b"x", "path": None}), NAMES, {}, "name a column of ids"),
    "damaged": (
        changed(image={"bytes": b"words", "path": "9.png"}), NAMES, {}, "9.png.*not a picture"
    ),
    "twice": (changed(image={"bytes": b"x", "path": "0.png"}), NAMES, {}, "1 ids come more"),
    "collide": (changed(), ["Cat", "cat"], {}, "class names 'Cat' and 'cat' collide"),
}  # fmt: skip


@pytest.mark.parametrize("hostile", HOSTILE)
def test_bad_input_is_named_and_nothing_is_written(
    importing: Any,
    rows: list[dict[str, Any]],
    tmp_path: Path,
    layouts: Layouts,
    hostile: str,
) -> None:
    change, names, options, complaint = HOSTILE[hostile]
    path = layouts["parquet"](tmp_path / "one.parquet", change(rows), names)

    with pytest.raises(DataError, match=complaint):
        importing("parquet", path, name="pets", **options)

    assert importing.leftovers() == []


def test_a_cut_file_is_refused(importing: Any, folder: Path) -> None:
    path = folder / "data/train-00001-of-00002.parquet"
    path.write_bytes(path.read_bytes()[:-50])

    with pytest.raises(DataError, match="not a whole Parquet file"):
        importing("parquet", folder, name="pets")


@pytest.mark.parametrize("column", ["image.bytes", "image.path", "label"])
def test_a_damaged_page_is_told_of_its_file(importing: Any, folder: Path, column: str) -> None:
    path = folder / "data/train-00001-of-00002.parquet"
    group = pq.read_metadata(path).row_group(0)
    columns = [group.column(number) for number in range(group.num_columns)]
    found = next(one for one in columns if one.path_in_schema == column)
    start = found.dictionary_page_offset or found.data_page_offset
    data = bytearray(path.read_bytes())
    data[start : start + 12] = b"\xff" * 12
    path.write_bytes(data)

    with pytest.raises(DataError, match=r"train-00001-of-00002.parquet: not a whole .* get it"):
        importing("parquet", folder, name="pets")

    assert importing.leftovers() == []


def test_a_flipped_byte_is_found_by_the_checksum_of_its_page(
    importing: Any, rows: list[dict[str, Any]], tmp_path: Path, layouts: Layouts
) -> None:
    path = layouts["parquet"](tmp_path / "one.parquet", rows, NAMES)
    pq.write_table(pq.read_table(path), path, compression="none", write_page_checksum=True)
    data = bytearray(path.read_bytes())
    data[data.index(b"0.png")] ^= 1
    path.write_bytes(data)

    with pytest.raises(DataError, match=r"not a whole Parquet file: .*checksum"):
        importing("parquet", path, name="pets")


def test_a_folder_without_any_is_refused(importing: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected a Parquet file, or a folder of them"):
        importing("parquet", tmp_path, name="pets")


def test_it_can_start_anywhere(importing: Any, folder: Path) -> None:
    importing.check_starts("parquet", folder)

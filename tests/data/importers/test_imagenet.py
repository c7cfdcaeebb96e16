from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from natadv.data.classes import class_table
from natadv.data.importers.matlab import read_structs
from natadv.errors import ConfigError, DataError

Layouts = dict[str, Callable[..., Any]]
Sources = dict[str, tuple[Path, dict[str, Any]]]

CLASSES = list(class_table("imagenet").values())


def name(number: int) -> str:
    return f"ILSVRC2012_val_{number:08d}.JPEG"


@pytest.fixture
def sources(tmp_path: Path, encode: Any, layouts: Layouts, val: dict[int, str]) -> Sources:
    """The same four pictures in all forms in which the set is published."""
    pictures = {number: encode(number, format="JPEG") for number in val}
    flat = {name(number): data for number, data in pictures.items()}
    by_class = {f"val/{val[number]}/{name(number)}": data for number, data in pictures.items()}
    of_hub = {
        f"ILSVRC2012_val_{number:08d}_{val[number]}.JPEG": data for number, data in pictures.items()
    }
    index = {wnid: label for label, wnid in enumerate(class_table("imagenet"))}
    rows = [
        {"image": {"bytes": data, "path": path}, "label": index[val[number]]}
        for (path, data), number in zip(of_hub.items(), val, strict=True)
    ]
    hub = tmp_path / "hub/data"
    layouts["parquet"](hub / "validation-00000-of-00002.parquet", rows[:2], CLASSES)
    layouts["parquet"](hub / "validation-00001-of-00002.parquet", rows[2:], CLASSES)
    layouts["parquet"](hub / "train-00000-of-00294.parquet", rows[:1], CLASSES)
    tar = layouts["tar"](tmp_path / "val.tar", flat)
    listed = tmp_path / "labels.txt"
    listed.write_text("".join(f"{wnid}\n" for wnid in val.values()))
    kaggle = tmp_path / "LOC_val_solution.csv"
    boxes = [f"{Path(name(n)).stem},{wnid} 85 1 499 272 " for n, wnid in reversed(val.items())]
    kaggle.write_text("\n".join(["ImageId,PredictionString", *boxes]) + "\n")
    devkit = layouts["devkit"](tmp_path / "devkit.tar.gz")
    plain = layouts["devkit"](tmp_path / "plain.tar.gz", compressed=False)
    return {
        "tar and devkit": (tar, {"labels": devkit}),
        "tar and plain devkit": (tar, {"labels": plain}),
        "tar and Kaggle": (tar, {"labels": kaggle}),
        "tar and list": (tar, {"labels": listed}),
        "tar of the hub": (layouts["tar"](tmp_path / "val_images.tar.gz", of_hub), {}),
        "flat folder": (layouts["folder"](tmp_path / "flat", flat), {"labels": devkit}),
        "Parquet of the hub": (tmp_path / "hub", {}),
        "folder by class": (layouts["folder"](tmp_path / "by_class", by_class), {}),
    }


FORMS = [
    "tar and devkit",
    "tar and plain devkit",
    "tar and Kaggle",
    "tar and list",
    "tar of the hub",
    "flat folder",
    "Parquet of the hub",
]


@pytest.mark.parametrize("form", FORMS)
def test_all_forms_give_the_same_samples_and_revision(
    importing: Any, sources: Sources, form: str, val: dict[int, str]
) -> None:
    path, options = sources[form]
    card = importing("imagenet", path, **options).card
    reference, labels = sources["tar and list"]
    expected = importing("imagenet", reference, **labels, force=True).card

    samples = importing.samples(card)
    assert [sample.id for sample in samples] == [name(number) for number in val]
    assert [list(class_table("imagenet"))[s.label or 0] for s in samples] == list(val.values())
    assert card.revision == expected.revision
    assert (card.scenario, len(card.classes)) == ("clean", 1000)
    assert "4 of the 50000 that are published" in card.description


def test_a_folder_by_class_has_the_same_samples(importing: Any, sources: Sources) -> None:
    path, _ = sources["folder by class"]
    reference, labels = sources["tar and list"]

    ours = importing.samples(importing("imagenet", path).card)

    theirs = importing.samples(importing("imagenet", reference, **labels, force=True).card)
    assert sorted(ours, key=lambda s: s.id) == theirs


def test_a_picture_without_a_label_is_told_how_to_give_one(
    importing: Any, sources: Sources, tmp_path: Path
) -> None:
    tar, _ = sources["tar and list"]
    with pytest.raises(DataError, match=r"00000001.JPEG: nothing says its class; give --labels"):
        importing("imagenet", tar)
    (tmp_path / "labels.txt").write_text("n01751748\n")
    with pytest.raises(DataError, match=r"has 1 labels, none for 'ILSVRC2012_val_00000002.JPEG'"):
        importing("imagenet", tar, labels=tmp_path / "labels.txt")

    assert importing.leftovers() == []


def test_truths_that_disagree_are_refused(importing: Any, sources: Sources, tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("n01440764\n" * 4)

    with pytest.raises(DataError, match="is said to be n01440764 and n01751748"):
        importing("imagenet", sources["tar of the hub"][0], labels=tmp_path / "labels.txt")


CUT_CSV = "ImageId,PredictionString\nILSVRC2012_val_00000001,n01751748 1 2 3 4\nILSVRC2012_val_00"


@pytest.mark.parametrize(
    ("file", "content", "complaint"),
    [
        ("labels.txt", "dog\n", "expected one WordNet id a line"),
        ("labels.txt", "", "expected one WordNet id a line"),
        ("labels.csv", "a,b\n1,2\n", "expected columns ImageId and PredictionString"),
        ("labels.csv", "ImageId,PredictionString\n", "has 0 labels, none for"),
        ("labels.csv", CUT_CSV, r"labels.csv: line 3: expected a WordNet id .*, came None"),
        ("labels.csv", f"{CUT_CSV},n0210", "line 3: expected a WordNet id .*, came 'n0210'"),
        ("labels.csv", f'{CUT_CSV},"n02105855', "after line 2: no CSV: unexpected end of data"),
        ("nowhere.txt", None, "nowhere.txt: is not there"),
    ],
)
def test_labels_that_are_none_are_named(
    importing: Any, sources: Sources, tmp_path: Path, file: str, content: str | None, complaint: str
) -> None:
    if content is not None:
        (tmp_path / file).write_text(content)

    with pytest.raises(DataError, match=complaint):
        importing("imagenet", sources["tar and list"][0], labels=tmp_path / file)


def test_a_devkit_without_its_files_is_named(
    importing: Any, sources: Sources, tmp_path: Path, layouts: Layouts
) -> None:
    devkit = layouts["tar"](tmp_path / "other.tar.gz", {"data/readme.txt": b"x"})

    with pytest.raises(DataError, match=r"no ILSVRC2012_validation_ground_truth.txt and no meta"):
        importing("imagenet", sources["tar and list"][0], labels=devkit)


@pytest.mark.parametrize("cut", [0, 100, 200, 300, 400])
def test_a_damaged_matlab_file_is_refused(layouts: Layouts, cut: int) -> None:
    whole = layouts["meta.mat"]({1: "n01440764", 2: "n01443537"}, compressed=False)

    with pytest.raises(DataError, match=r"where: (damaged|not a) MATLAB file"):
        read_structs(whole[:cut], "synsets", where="where")


HUB: dict[str, tuple[str, int, list[str], str]] = {
    "other classes": ("ILSVRC2012_val_00000001_n01440764.JPEG", 0, ["tench"], "names 1 classes"),
    "other numbers": (
        "ILSVRC2012_val_00000001_n01440764.JPEG", 1, CLASSES,
        "has label 1, but n01440764 is number 0"
    ),
    "other class": (
        "ILSVRC2012_val_00000001_n00000001.JPEG", 1, CLASSES, "n00000001 is number None"
    ),
    "held back": ("ILSVRC2012_val_00000001_n01440764.JPEG", -1, CLASSES, "has label -1"),
    "no class in the name": ("1.JPEG", 0, CLASSES, "'1.JPEG' does not tell its class"),
}  # fmt: skip


@pytest.mark.parametrize("hostile", HUB)
def test_the_label_of_a_row_is_that_of_its_name(
    importing: Any, encode: Any, tmp_path: Path, layouts: Layouts, hostile: str
) -> None:
    path, label, classes, complaint = HUB[hostile]
    rows = [{"image": {"bytes": encode(), "path": path}, "label": label}]
    file = layouts["parquet"](tmp_path / "validation-00000-of-00001.parquet", rows, classes)

    with pytest.raises(DataError, match=complaint):
        importing("imagenet", file)

    assert importing.leftovers() == []


def test_another_split_of_the_hub_is_refused(
    importing: Any, sources: Sources, tmp_path: Path
) -> None:
    for path in tmp_path.glob("hub/data/validation-*"):
        path.unlink()

    for path in (tmp_path / "hub", next(tmp_path.glob("hub/data/*"))):
        with pytest.raises(DataError, match="no split 'validation' in it, it has train"):
            importing("imagenet", path)


def test_labels_beside_parquet_are_a_mistake(
    importing: Any, sources: Sources, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="leave --labels out"):
        importing("imagenet", sources["Parquet of the hub"][0], labels=tmp_path)


def test_a_name_that_comes_twice_is_refused(
    importing: Any, tmp_path: Path, encode: Any, layouts: Layouts
) -> None:
    files = {f"{wnid}/{name(1)}": encode() for wnid in ("n01440764", "n01443537")}

    with pytest.raises(DataError, match="1 ids come more than once, first 'ILSVRC2012_val_0"):
        importing("imagenet", layouts["folder"](tmp_path / "twice", files))


def test_imagenet_a_is_never_asked_among_1000(
    importing: Any, tmp_path: Path, encode: Any, layouts: Layouts
) -> None:
    files = {f"{wnid}/{i}.jpg": encode() for i, wnid in enumerate(class_table("imagenet-a"))}

    with pytest.raises(DataError, match="natadv data import imagenet-a"):
        importing("imagenet", layouts["folder"](tmp_path / "a", files))


@pytest.mark.parametrize("form", [*FORMS, "folder by class"])
def test_it_can_start_anywhere(importing: Any, sources: Sources, form: str) -> None:
    path, options = sources[form]

    importing.check_starts("imagenet", path, **options)

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from natadv.data.card import UNSTATED
from natadv.data.classes import class_table
from natadv.data.importers import FORMATS, Checksum
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
    return {
        "tar and devkit": (tar, {"labels": devkit}),
        "tar and Kaggle": (tar, {"labels": kaggle}),
        "tar and list": (tar, {"labels": listed}),
        "tar of the hub": (layouts["tar"](tmp_path / "val_images.tar.gz", of_hub), {}),
        "flat folder": (layouts["folder"](tmp_path / "flat", flat), {"labels": devkit}),
        "Parquet of the hub": (tmp_path / "hub", {}),
        "folder by class": (layouts["folder"](tmp_path / "by_class", by_class), {}),
    }


FORMS = [
    "tar and devkit",
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
    assert card.source.startswith("files of the user, in the layout of imagenet (https://")
    assert "published" not in card.description
    assert card.licence == UNSTATED


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
    with pytest.raises(DataError, match=r"has 1 labels, none for 'ILSVRC2012_val_00000002'"):
        importing("imagenet", tar, labels=tmp_path / "labels.txt")

    assert importing.leftovers() == []


def test_truths_that_disagree_are_refused(importing: Any, sources: Sources, tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("n01440764\n" * 4)

    with pytest.raises(DataError, match="say that it is n01440764 and n01751748"):
        importing("imagenet", sources["tar of the hub"][0], labels=tmp_path / "labels.txt")


CUT_CSV = "ImageId,PredictionString\nILSVRC2012_val_00000001,n01751748 1 2 3 4\nILSVRC2012_val_00"


@pytest.mark.parametrize(
    ("file", "content", "complaint"),
    [
        ("labels.txt", "dog\n", "expected one WordNet id a line"),
        ("labels.txt", "", "expected one WordNet id a line"),
        ("labels.csv", "a,b\n1,2\n", "expected columns ImageId and PredictionString"),
        ("labels.csv", "ImageId,PredictionString\n", "has 0 labels, none for"),
        ("labels.csv", CUT_CSV, r"labels.csv: line 3: expected a WordNet id .*, got None"),
        ("labels.csv", f"{CUT_CSV},n0210", "line 3: expected a WordNet id .*, got 'n0210'"),
        (
            "labels.csv",
            f'{CUT_CSV},"n02105855',
            "after line 2: not a CSV file: unexpected end of data",
        ),
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

    with pytest.raises(DataError, match=r"no ILSVRC2012_validation_ground_truth.txt in it; is"):
        importing("imagenet", sources["tar and list"][0], labels=devkit)


@pytest.mark.parametrize("line", ["0", "1001", "one"])
def test_an_id_that_no_class_has_is_named(
    importing: Any, sources: Sources, tmp_path: Path, layouts: Layouts, line: str
) -> None:
    truth = {"data/ILSVRC2012_validation_ground_truth.txt": f"490\n{line}\n".encode()}
    devkit = layouts["tar"](tmp_path / "other.tar.gz", truth)

    with pytest.raises(DataError, match=r"ground_truth.txt: expected ids from 1 to 1000: .*again"):
        importing("imagenet", sources["tar and list"][0], labels=devkit)


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


# --- ImageNet-A ---


@pytest.fixture
def natural(encode: Any) -> dict[str, bytes]:
    return {
        "imagenet-a/README.txt": b"about",
        "imagenet-a/n01498041/0.000116_digital clock _ digital clock_0.865662.jpg": encode(1),
        "imagenet-a/n01498041/0.000348_bra _ bra_0.99.jpg": encode(2, format="JPEG"),
        "imagenet-a/n12267677/0.1_a.jpg": encode(3, format="JPEG"),
    }


@pytest.fixture
def natural_tar(tmp_path: Path, natural: dict[str, bytes], layouts: Layouts) -> Path:
    path: Path = layouts["tar"](tmp_path / "imagenet-a-copy.tar", natural)
    return path


def test_the_tar_of_imagenet_a_gives_200_classes(
    importing: Any, natural_tar: Path, natural: dict[str, bytes]
) -> None:
    card = importing("imagenet-a", natural_tar).card

    samples = importing.samples(card)
    assert (card.scenario, len(card.classes), card.rows) == ("natural", 200, 3)
    assert [card.classes[s.label or 0] for s in samples] == ["stingray", "stingray", "acorn"]
    assert [s.id for s in samples][2] == "n12267677/0.1_a.jpg"
    assert [s.image for s in samples] == list(natural.values())[1:]
    assert card.source.startswith("files of the user, in the layout of imagenet-a (https://")
    assert "published" not in card.description
    assert card.licence == UNSTATED


def test_the_unpacked_folder_gives_the_same(
    importing: Any, natural_tar: Path, natural: dict[str, bytes], tmp_path: Path, layouts: Layouts
) -> None:
    expected = importing("imagenet-a", natural_tar).card.revision
    folder = layouts["folder"](tmp_path / "unpacked", natural)

    for path in (folder, folder / "imagenet-a"):
        assert importing("imagenet-a", path, force=True).card.revision == expected


def test_a_flipped_byte_is_refused_by_its_checksum(
    importing: Any, natural_tar: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = natural_tar.read_bytes()
    official = natural_tar.rename(natural_tar.with_name("imagenet-a.tar"))
    published = {"imagenet-a.tar": Checksum("sha256", hashlib.sha256(data).hexdigest())}
    row = replace(FORMATS["imagenet-a"], published=published)
    monkeypatch.setitem(FORMATS, "imagenet-a", row)
    card = importing("imagenet-a", official).card
    assert card.rows == 3
    assert card.source.endswith(f"; from {row.source}")
    assert card.description.endswith(": 3 of the 7500 that are published")
    assert card.licence == row.licence
    flipped = bytearray(data)
    flipped[1800] ^= 1
    official.write_bytes(flipped)

    with pytest.raises(DataError, match=r"imagenet-a.tar: sha256 is .* is published"):
        importing("imagenet-a", official, force=True)


def test_under_the_official_name_only_the_official_bytes_are_taken(
    importing: Any, natural_tar: Path
) -> None:
    with pytest.raises(DataError, match=r"3bb3632277e6.* is published"):
        importing("imagenet-a", natural_tar.rename(natural_tar.with_name("imagenet-a.tar")))

    assert importing.leftovers() == []


def test_an_unknown_archive_is_told_its_hash_and_can_be_pinned(
    importing: Any, natural_tar: Path
) -> None:
    stream, digest = io.StringIO(), hashlib.sha256(natural_tar.read_bytes()).hexdigest()

    card = importing("imagenet-a", natural_tar, stream=stream).card

    assert f"sha256 {digest}; no published hash is known" in stream.getvalue()
    assert digest in card.source
    assert importing("imagenet-a", natural_tar, sha256=digest, force=True).card == card
    with pytest.raises(DataError, match="0000 was requested"):
        importing("imagenet-a", natural_tar, sha256="0" * 64, force=True)


HOSTILE = {
    "no class": ({"imagenet-a/fish/1.jpg": None}, "lies in 'fish', expected the WordNet id"),
    "other class": ({"imagenet-a/n01440764/1.jpg": None}, "one of the 200 classes of ImageNet-A"),
    "no picture": ({"imagenet-a/n12267677/z.jpg": b"words"}, "z.jpg: not a picture"),
    "cut picture": ({"imagenet-a/n12267677/z.jpg": "cut"}, "z.jpg: damaged picture"),
    "twice": ({"imagenet-a/n12267677/0.1_a.jpg/../0.1_a.jpg": None}, "climbs out"),
    "two folders": ({"copy/n12267677/0.1_a.jpg": None}, "1 ids come more than once"),
}


@pytest.mark.parametrize("hostile", HOSTILE)
def test_bad_input_of_imagenet_a_is_named_and_nothing_is_written(
    importing: Any,
    tmp_path: Path,
    natural: dict[str, bytes],
    layouts: Layouts,
    encode: Any,
    hostile: str,
) -> None:
    odd, complaint = HOSTILE[hostile]
    whole = encode(9, format="JPEG")
    made = {None: whole, "cut": whole[:-100]}
    more = {name: data if isinstance(data, bytes) else made[data] for name, data in odd.items()}
    natural_tar = layouts["tar"](tmp_path / "odd.tar", {**natural, **more})

    with pytest.raises(DataError, match=complaint):
        importing("imagenet-a", natural_tar)

    assert importing.leftovers() == []


def test_a_file_that_is_not_there_is_told_how_to_get(importing: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not there; to get it:\ndvc import-url https://people"):
        importing("imagenet-a", tmp_path / "imagenet-a.tar")


def test_an_empty_archive_is_named(importing: Any, tmp_path: Path, layouts: Layouts) -> None:
    natural_tar = layouts["tar"](tmp_path / "empty.tar", {"imagenet-a/README.txt": b""})

    with pytest.raises(DataError, match="no pictures in it"):
        importing("imagenet-a", natural_tar)


def test_imagenet_a_can_start_anywhere(importing: Any, natural_tar: Path) -> None:
    importing.check_starts("imagenet-a", natural_tar)

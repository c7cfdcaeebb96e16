"""Whatever the format, one import names all pictures that cannot be decoded."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from natadv.data.importers import FORMATS
from natadv.errors import DataError

Layouts = dict[str, Callable[..., Any]]
Options = dict[str, Any]
Make = Callable[[Path, Layouts, list[bytes]], tuple[Path, Options]]


def imagefolder(root: Path, layouts: Layouts, pictures: list[bytes]) -> tuple[Path, Options]:
    files = {f"{'cat' if i < 3 else 'dog'}/{i}.png": data for i, data in enumerate(pictures)}
    return layouts["folder"](root / "photos", files), {"name": "pets"}


def imagenet(root: Path, layouts: Layouts, pictures: list[bytes]) -> tuple[Path, Options]:
    files = {f"n01440764/{i}.JPEG": data for i, data in enumerate(pictures)}
    return layouts["tar"](root / "val.tar.gz", files), {}


def imagenet_a(root: Path, layouts: Layouts, pictures: list[bytes]) -> tuple[Path, Options]:
    files = {f"imagenet-a/n01498041/{i}.jpg": data for i, data in enumerate(pictures)}
    return layouts["tar"](root / "a.tar", files), {}


def rta_100(root: Path, layouts: Layouts, pictures: list[bytes]) -> tuple[Path, Options]:
    files = {f"label=cat_text=dog{i}.png": data for i, data in enumerate(pictures)}
    return layouts["zip"](root / "rta.zip", files), {}


def parquet(root: Path, layouts: Layouts, pictures: list[bytes]) -> tuple[Path, Options]:
    rows = [
        {"image": {"bytes": data, "path": f"{i}.png"}, "label": 0}
        for i, data in enumerate(pictures)
    ]
    layouts["parquet"](root / "train-00000-of-00001.parquet", rows, ["cat", "dog"])
    return root / "train-00000-of-00001.parquet", {"name": "pets"}


def jsonl(root: Path, layouts: Layouts, pictures: list[bytes]) -> tuple[Path, Options]:
    files = {f"photos/{i}.png": data for i, data in enumerate(pictures)}
    rows = [{"image": name, "label": ["cat", "dog"][i % 2]} for i, name in enumerate(files)]
    files["rows.jsonl"] = "\n".join(map(json.dumps, rows)).encode()
    return layouts["folder"](root / "mine", files) / "rows.jsonl", {"name": "pets"}


def gqa(root: Path, layouts: Layouts, pictures: list[bytes]) -> tuple[Path, Options]:
    asked = {
        f"{i}{n}": {"imageId": f"n{i}", "question": "Is it red?", "answer": "yes"}
        for i in range(len(pictures))
        for n in range(3)
    }
    files = {"questions.json": json.dumps(asked).encode()}
    files |= {f"images/n{i}.jpg": data for i, data in enumerate(pictures)}
    folder = layouts["folder"](root / "gqa", files)
    return folder / "questions.json", {"images": folder / "images"}


def easy_vqa(root: Path, layouts: Layouts, pictures: list[bytes]) -> tuple[Path, Options]:
    asked = [["is it red?", "yes", i] for i in range(len(pictures)) for _ in range(3)]
    files = {"questions.json": json.dumps(asked).encode()}
    files |= {f"images/{i}.png": data for i, data in enumerate(pictures)}
    folder = layouts["folder"](root / "easy", files)
    return folder / "questions.json", {"images": folder / "images"}


def scam(root: Path, layouts: Layouts, pictures: list[bytes]) -> tuple[Path, Options]:
    rows = [
        {
            "image": {"bytes": data, "path": "x"},
            "id": f"NoSCAM_{i}",
            "object_label": "mug",
            "attack_word": "taxi",
            "postit_area_pct": 0.0,
        }
        for i, data in enumerate(pictures)
    ]
    layouts["parquet"](root / "hub/data/train-00000-of-00001.parquet", rows)
    return root / "hub", {}


def rio_bench(root: Path, layouts: Layouts, pictures: list[bytes]) -> tuple[Path, Options]:
    rows = [
        {
            "image": {"bytes": data, "path": "x"},
            "question_id": i,
            "image_id": f"scene{i}",
            "question": "what is the brand?",
            "answer": "A",
            "answers": ["nokia"] * 10,
            "choices": {"A": "Phone", "B": "Spoon"},
            "attack_word": "Spoon",
        }
        for i, data in enumerate(pictures)
    ]
    layouts["parquet"](root / "hard/val-00000-of-00001.parquet", rows)
    return root / "hard", {}


def phrasecut(root: Path, layouts: Layouts, pictures: list[bytes]) -> tuple[Path, Options]:
    square = [[[[2, 3], [8, 3], [8, 9], [2, 9]]]]
    tasks = [
        {"task_id": f"{i}__{n}", "image_id": i, "Polygons": square, "phrase": "brown dog"}
        for i in range(len(pictures))
        for n in range(3)
    ]
    files = {"refer_test.json": json.dumps(tasks).encode()}
    files |= {f"images/{i}.jpg": data for i, data in enumerate(pictures)}
    folder = layouts["folder"](root / "phrases", files)
    return folder / "refer_test.json", {"images": folder / "images"}


def vqa_v2(root: Path, layouts: Layouts, pictures: list[bytes]) -> tuple[Path, Options]:
    pairs = [(i, 10 * i + n) for i in range(len(pictures)) for n in range(3)]
    asked = [{"image_id": i, "question_id": q, "question": "Is it red?"} for i, q in pairs]
    answers = [{"answer": "yes"}] * 10
    answered = [
        {"image_id": i, "question_id": q, "answer_type": "yes/no", "answers": answers}
        for i, q in pairs
    ]
    files = {
        "questions.json": json.dumps({"questions": asked}).encode(),
        "annotations.json": json.dumps({"annotations": answered}).encode(),
    }
    files |= {f"images/COCO_val2014_{i:012d}.jpg": data for i, data in enumerate(pictures)}
    folder = layouts["folder"](root / "vqa", files)
    options = {"annotations": folder / "annotations.json", "images": folder / "images"}
    return folder / "questions.json", options


SOURCES: dict[str, Make] = {
    "imagefolder": imagefolder,
    "imagenet": imagenet,
    "imagenet-a": imagenet_a,
    "rta-100": rta_100,
    "rta-100-pairs": rta_100,
    "parquet": parquet,
    "jsonl": jsonl,
    "gqa": gqa,
    "easy-vqa": easy_vqa,
    "scam-clean": scam,
    "rio-bench-objects": rio_bench,
    "rio-bench-text": rio_bench,
    "phrasecut": phrasecut,
    "vqa-v2": vqa_v2,
}


def test_every_planner_has_a_source_here() -> None:
    assert {FORMATS[name].planner for name in SOURCES} == {row.planner for row in FORMATS.values()}


@pytest.mark.parametrize("name", SOURCES)
def test_broken_pictures_are_named_together_and_nothing_is_imported(
    importing: Any, encode: Any, layouts: Layouts, tmp_path: Path, name: str
) -> None:
    pictures = [encode(i) for i in range(6)]
    pictures[1] = b"no picture"
    pictures[4] = pictures[4][:60]
    path, options = SOURCES[name](tmp_path, layouts, pictures)

    with pytest.raises(DataError) as caught:
        importing(name, path, **options)
    head, first, second = str(caught.value).splitlines()
    assert head == "2 pictures cannot be used, so nothing was imported:"
    assert "1" in first
    assert "not a picture in one of" in first
    assert "4" in second
    assert "damaged picture" in second
    assert importing.leftovers() == []


@pytest.mark.parametrize("name", SOURCES)
def test_the_same_source_without_them_is_imported(
    importing: Any, encode: Any, layouts: Layouts, tmp_path: Path, name: str
) -> None:
    path, options = SOURCES[name](tmp_path, layouts, [encode(i) for i in range(6)])

    assert importing(name, path, **options).card.rows in (6, 18)

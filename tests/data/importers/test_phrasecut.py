from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from natadv.data.importers.phrasecut import LEFT_OUT, polygon_mask
from natadv.errors import ConfigError, DataError

Layouts = dict[str, Callable[..., Any]]
SQUARE = [[2, 3], [8.6, 3], [8, 9], [2, 9]]
TRIANGLE = [[10, 2], [14, 2], [14, 5]]


def task(image_id: int, number: int, phrase: str, polygons: Any) -> dict[str, Any]:
    """As refer_test.json has it: polygons by instance."""
    return {
        "task_id": f"{image_id}__{number}",
        "image_id": image_id,
        "ann_ids": [number],
        "instance_boxes": [[2, 3, 7, 7]],
        "Polygons": polygons,
        "phrase": phrase,
        "phrase_structure": {
            "name": phrase.split()[-1],
            "attributes": phrase.split()[:-1],
            "relation_ids": [],
            "relation_descriptions": [],
            "type": "name",
        },
    }


TASKS = [
    task(2345, 1, "brown dog", [[SQUARE]]),
    task(2345, 2, "two wheels", [[SQUARE], [TRIANGLE, [[12, 8], [13, 9], [15, 8]]]]),
    task(61564, 3, "left out", [[SQUARE]]),
    task(777, 4, "line", [[[[1, 1], [3, 3], [2, 2]]]]),
    task(777, 5, "elsewhere", [[[[99, 1], [120, 3], [110, 12]]]]),
    task(777, 6, "tree", [[SQUARE]]),
]


@pytest.fixture
def folder(tmp_path: Path, encode: Any, layouts: Layouts) -> Path:
    """data/VGPhraseCut_v0 as its download script leaves it."""
    path: Path = layouts["folder"](
        tmp_path / "VGPhraseCut_v0",
        {
            "refer_test.json": json.dumps(TASKS).encode(),
            "image_data_split3000.json": b"[]",
            "images/2345.jpg": encode(1, format="JPEG"),
            "images/777.jpg": encode(2, format="JPEG"),
            "images/1.jpg": encode(3, format="JPEG"),
        },
    )
    return path


def write(folder: Path, tasks: list[dict[str, Any]]) -> Path:
    path = folder / "refer_test.json"
    path.write_text(json.dumps(tasks))
    return path


def test_a_sample_is_a_phrase_with_the_union_of_its_polygons(importing: Any, folder: Path) -> None:
    packed = importing("phrasecut", folder / "refer_test.json", images=folder / "images")

    samples = importing.samples(packed.card)
    assert [(s.id, s.group, s.phrase) for s in samples] == [
        ("2345__1", "2345", "brown dog"),
        ("2345__2", "2345", "two wheels"),
        ("777__4", "777", "line"),
        ("777__6", "777", "tree"),
    ]
    assert packed.card.tasks == ("segmentation",)
    assert samples[0].image == (folder / "images/2345.jpg").read_bytes()


@pytest.mark.parametrize(
    ("structure", "facts"),
    [
        ({"name": "dog house", "type": "name"}, {"noun": "dog house"}),
        ({"name": " "}, {}),
        ({"name": 3}, {}),
        (None, {}),
        ([], {}),
    ],
)
def test_the_noun_is_the_one_that_the_annotators_named(
    importing: Any, folder: Path, structure: Any, facts: dict[str, str]
) -> None:
    path = write(folder, [{**TASKS[0], "phrase_structure": structure}])

    card = importing("phrasecut", path, images=folder / "images").card

    assert json.loads(importing.samples(card)[0].facts) == facts


def test_what_has_no_mask_and_what_clipseg_leaves_out_is_set_aside(
    importing: Any, folder: Path
) -> None:
    packed = importing("phrasecut", folder / "refer_test.json", images=folder / "images")

    assert [(item.id, item.why) for item in packed.set_aside] == [
        ("61564__3", "CLIPSeg leaves out its picture"),
        ("777__5", "a polygon lies outside the picture"),
    ]
    listed = importing.root / "fixtures/datasets/phrasecut/set-aside.jsonl"
    assert len(listed.read_text().splitlines()) == 2


def test_the_17_pictures_are_those_of_clipseg() -> None:
    listed = """150417 285665 498246 61564 285743 498269 498010 150516 150344 286093 61530 150333
        286065 285814 498187 285761 498042"""

    assert {*map(int, listed.split())} == LEFT_OUT
    assert len(LEFT_OUT) == 17


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_pictures_may_lie_in_an_archive(
    importing: Any, folder: Path, layouts: Layouts, tmp_path: Path, kind: str
) -> None:
    plain = importing("phrasecut", folder / "refer_test.json", images=folder).card
    files = {f"VGPhraseCut_v0/images/{p.name}": p.read_bytes() for p in folder.glob("images/*")}
    archive = layouts[kind](tmp_path / f"images.{kind}", files)

    packed = importing("phrasecut", folder / "refer_test.json", images=archive, force=True)

    assert packed.card.revision == plain.revision


def broken(**fields: Any) -> list[dict[str, Any]]:
    return [*TASKS, {**task(777, 9, "sky", [[SQUARE]]), **fields}]


HOSTILE = {
    "twice": (broken(task_id="777__6"), "1 ids come more than once, first '777__6'"),
    "no picture": (broken(image_id=31), r"1 of 4 pictures are missing, first 31\.jpg"),
    "no id": (broken(task_id=None), "phrase number 6: task_id must be a text, got None"),
    "odd id": (broken(image_id="777"), "image_id must be a whole number, got '777'"),
    "truth for an id": (broken(image_id=True), "image_id must be a whole number, got True"),
    "no phrase": (broken(phrase=None), "phrase must be a text"),
    "empty phrase": (broken(phrase=" "), "expected a phrase"),
    "no polygons": (broken(Polygons=None), "phrase '777__9': Polygons must be lists"),
    "odd polygons": (broken(Polygons=[[[[1, 2, 3]]]]), "Polygons must be lists"),
    "endless corner": (broken(Polygons=[[[[1, 2], [3, 1e999], [0, 0]]]]), "invalid char"),
    "nothing": ([], "no phrases in it"),
}


@pytest.mark.parametrize("hostile", HOSTILE)
def test_bad_input_is_named_and_nothing_is_written(
    importing: Any, folder: Path, hostile: str
) -> None:
    tasks, complaint = HOSTILE[hostile]
    path = write(folder, tasks)

    with pytest.raises(DataError, match=complaint):
        importing("phrasecut", path, images=folder / "images")

    assert importing.leftovers() == []


def test_two_pictures_of_one_id_are_refused(
    importing: Any, folder: Path, layouts: Layouts, encode: Any
) -> None:
    files = {"VG_100K/777.jpg": encode(1), "VG_100K_2/0777.png": encode(2)}
    layouts["folder"](folder / "images", files)

    with pytest.raises(DataError, match=r"'777.jpg' and 'VG_100K/777.jpg' are both picture 777"):
        importing("phrasecut", folder / "refer_test.json", images=folder / "images")
    (folder / "images/777.jpg").unlink()
    with pytest.raises(DataError, match=r"'VG_100K/777.jpg' and 'VG_100K_2/0777.png' are both"):
        importing("phrasecut", folder / "refer_test.json", images=folder / "images")

    assert importing.leftovers() == []


def test_without_pictures_it_is_told_what_else_is_needed(importing: Any, folder: Path) -> None:
    with pytest.raises(ConfigError, match="also needs --images"):
        importing("phrasecut", folder / "refer_test.json")


def test_it_can_start_anywhere(importing: Any, folder: Path) -> None:
    importing.check_starts("phrasecut", folder / "refer_test.json", images=folder / "images")


# --- polygons to masks ---

SIZE = (20, 10)
POINTS = st.tuples(st.floats(-30, 50), st.floats(-30, 50))


def pixels(mask: bytes | str) -> np.ndarray:
    assert isinstance(mask, bytes)
    return np.asarray(Image.open(io.BytesIO(mask)))


def test_borders_count_as_inside() -> None:
    mask = pixels(polygon_mask([[(2, 3), (5.9, 3), (5, 6), (2, 6)]], SIZE))

    expected = np.zeros((10, 20), np.uint8)
    expected[3:7, 2:6] = 255
    assert (mask == expected).all()


def test_polygons_are_united() -> None:
    left, right = [(0, 0), (3, 0), (3, 3), (0, 3)], [(10, 5), (12, 5), (12, 8), (10, 8)]

    both = pixels(polygon_mask([left, right], SIZE))

    assert (both == pixels(polygon_mask([left], SIZE)) | pixels(polygon_mask([right], SIZE))).all()


def test_what_reaches_over_the_edge_is_cut_off() -> None:
    mask = pixels(polygon_mask([[(15, 5), (1e12, 5), (1e12, 1e12), (15, 1e12)]], SIZE))

    expected = np.zeros((10, 20), np.uint8)
    expected[5:, 15:] = 255
    assert (mask == expected).all()


@pytest.mark.parametrize(
    ("polygons", "why"),
    [
        ([], "the mask is empty"),
        ([[(1, 1)]], "the mask is empty"),
        ([[(30, 1), (40, 9)]], "the mask is empty"),
        ([[(20, 0), (30, 0), (30, 5)]], "a polygon lies outside the picture"),
        ([[(1, 1), (5, 1), (5, 5)], [(-9, -9), (-2, -9), (-2, -2)]], "a polygon lies outside"),
    ],
)
def test_a_phrase_without_a_mask_says_why(
    polygons: list[list[tuple[float, float]]], why: str
) -> None:
    found = polygon_mask(polygons, SIZE)

    assert isinstance(found, str)
    assert found.startswith(why)


def official_mask(polygons: list[list[tuple[float, float]]]) -> np.ndarray:
    """As PhraseCut's own evaluation draws them: each polygon of two corners or more by itself."""
    united = np.zeros((SIZE[1], SIZE[0]), bool)
    for polygon in polygons:
        if len(polygon) >= 2:
            drawn = Image.new("L", SIZE)
            corners = [(int(x), int(y)) for x, y in polygon]
            ImageDraw.Draw(drawn).polygon(corners, fill=1, outline=1)
            united |= np.asarray(drawn) > 0
    return united


def test_degenerate_polygons_are_drawn_as_in_the_official_evaluation() -> None:
    triangle = [(2, 3), (8.6, 3), (8, 9)]
    lines = [[(1, 1), (15, 7)], [(1, 1), (5, 5), (3, 3)], [(4, 4), (4, 4), (4, 4)], [(7, 7)], []]
    for polygons in ([triangle, *lines], *([line] for line in lines[:3])):
        assert ((pixels(polygon_mask(polygons, SIZE)) > 0) == official_mask(polygons)).all()

    # A line outside adds nothing, and does not make the phrase one about another picture.
    astray = [triangle, [(-9, -9), (-2, -5)]]
    assert ((pixels(polygon_mask(astray, SIZE)) > 0) == official_mask([triangle])).all()


@given(st.lists(st.lists(POINTS, min_size=0, max_size=6), min_size=1, max_size=3))
def test_a_mask_is_whole_or_there_is_none(polygons: list[list[tuple[float, float]]]) -> None:
    found = polygon_mask(polygons, SIZE)

    if isinstance(found, bytes):
        mask = pixels(found)
        assert mask.shape == (10, 20)
        assert mask.any()
        assert set(np.unique(mask)) <= {0, 255}

"""A user's own rows: what JSON Lines and Parquet share is tested on JSON Lines."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from natadv.data.importers import FORMATS, ImportRequest
from natadv.data.importers.phrasecut import box_mask
from natadv.data.importers.rows import FIELDS
from natadv.data.reader import decode_image
from natadv.errors import ConfigError, DataError
from natadv.tasks.masks import mask_of
from natadv.tasks.vqa import accuracy

Layouts = dict[str, Callable[..., Any]]
Rows = Sequence[dict[str, Any] | str]
WIDTH, HEIGHT = 16, 12


@pytest.fixture
def write(tmp_path: Path, encode: Any) -> Callable[..., Path]:
    """Four pictures beside a file with these rows."""

    def written(rows: Rows) -> Path:
        folder = tmp_path / "mine"
        (folder / "photos").mkdir(parents=True, exist_ok=True)
        for i in range(4):
            (folder / f"photos/{i}.png").write_bytes(encode(i))
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        path = folder / "rows.jsonl"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path

    return written


def photo(number: int, **fields: Any) -> dict[str, Any]:
    return {"image": f"photos/{number}.png", **fields}


def test_labels_by_name(importing: Any, write: Any, encode: Any) -> None:
    path = write([photo(0, label="dog", url="x"), "", photo(1, label="cat"), photo(2, label="dog")])

    card = importing("jsonl", path, name="pets", licence="CC0-1.0").card

    samples = importing.samples(card)
    assert card.classes == ("cat", "dog")
    assert [s.id for s in samples] == ["photos/0.png", "photos/1.png", "photos/2.png"]
    assert [s.group for s in samples] == [s.id for s in samples]
    assert [s.label for s in samples] == [1, 0, 1]
    assert [s.image for s in samples] == [encode(i) for i in range(3)]
    assert (card.tasks, card.scenario, card.licence) == (("classification",), "clean", "CC0-1.0")
    assert card.description == "Pictures with labels: 3"
    assert card.source.startswith("rows.jsonl, sha256 ")


def test_labels_by_number_of_the_classes_that_the_user_names(
    importing: Any, write: Any, tmp_path: Path
) -> None:
    classes = tmp_path / "classes.txt"
    classes.write_text("dog\ncat\ncow\n")
    path = write([photo(0, label=1), photo(1, label="dog"), photo(2, label=2)])

    card = importing("jsonl", path, name="pets", classes=str(classes)).card

    assert card.classes == ("dog", "cat", "cow")
    assert [s.label for s in importing.samples(card)] == [1, 0, 2]
    fish = write([photo(0, label="n01440764"), photo(1, label="goldfish")])
    card = importing("jsonl", fish, name="fish", classes="imagenet").card
    assert [card.classes[s.label] for s in importing.samples(card)] == ["tench", "goldfish"]
    assert len(card.classes) == 1000


def test_regions_as_mask_box_and_polygon(importing: Any, write: Any, tmp_path: Path) -> None:
    inside = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    inside[3:6, 2:9] = 255
    corners = [[2, 3], [8, 3], [8, 5], [2, 5]]
    path = write(
        [
            photo(0, phrase="a dog", mask="photos/mask.png"),
            photo(0, phrase="a dog", box=[2, 3, 7, 3]),
            photo(1, phrase="a dog", polygon=corners),
            photo(1, phrase="a dog", polygon=[corners, [[3, 4], [4, 4], [4, 5]]]),
        ]
    )
    Image.fromarray(inside).save(tmp_path / "mine/photos/mask.png")

    card = importing("jsonl", path, name="dogs").card

    samples = importing.samples(card)
    assert card.tasks == ("segmentation",)
    for sample in samples:
        found = mask_of(sample.mask, where=sample.id)
        np.testing.assert_array_equal(found, inside > 0, err_msg=sample.id)
    assert [s.id for s in samples] == [
        *("photos/0.png#0", "photos/0.png#1", "photos/1.png#0", "photos/1.png#1")
    ]
    assert [s.group for s in samples] == ["photos/0.png"] * 2 + ["photos/1.png"] * 2


def test_questions_with_one_answer_and_with_ten(importing: Any, write: Any) -> None:
    one = write(
        [
            photo(0, question="Is it red?", answer="yes", answer_type="yes/no"),
            photo(0, question="How many?", answer=2),
        ]
    )
    card = importing("jsonl", one, name="one").card

    assert [s.answers for s in importing.samples(card)] == [("yes",), ("2",)]
    assert [s.answer_type for s in importing.samples(card)] == ["yes/no", ""]
    assert card.description == "Pictures with questions, one answer each, scored by exact match: 2"
    ten = [{"answer": "down", "answer_id": i} for i in range(10)]
    lists = {"answer": ["down"] * 10, "answer_id": [*range(10)]}
    path = write([photo(0, question="Where?", answers=answers) for answers in (ten, lists)])
    card = importing("jsonl", path, name="ten").card
    assert [s.answers for s in importing.samples(card)] == [("down",) * 10] * 2
    assert card.description == "Pictures with questions: 2"


def test_unanimous_answers_are_spelt_as_a_model_can_say_them(importing: Any, write: Any) -> None:
    rows = [["Yes."] * 10, ["Red.", "Red. "] * 5, ["Two", "two"] * 5, ["The"] * 10, ["no"] * 10]
    path = write([photo(0, question="Is it?", answers=answers) for answers in rows])

    card = importing("jsonl", path, name="pets").card

    stored = [sample.answers for sample in importing.samples(card)]
    # The official evaluation normalises where people disagree, and `the` has no other form.
    assert stored == [("yes",) * 10, ("red",) * 10, *map(tuple, rows[2:])]
    assert [accuracy(said, stored[0]) for said in ("yes", "Yes.")] == [1, 0]
    assert "unanimous answers in the official form of VQA v2 (2 changed): 5" in card.description


def test_a_blank_answer_is_left_out_where_any_answer_counts(importing: Any, write: Any) -> None:
    many = ["yes", "", "yes", "no"]
    path = write([photo(0, question="Is it?", answers=["yes", " "])])
    few = importing("jsonl", path, name="few").card
    path = write([photo(0, question="Is it?", answers=many)])
    four = importing("jsonl", path, name="four").card

    assert importing.samples(few)[0].answers == ("yes",)
    assert importing.samples(four)[0].answers == tuple(many)


def test_all_tasks_and_all_that_is_optional(importing: Any, write: Any) -> None:
    def row(number: int) -> dict[str, Any]:
        return photo(
            number,
            label=("cat", "dog")[number % 2],
            phrase="a pet",
            box=[0, 0, 5, 5],
            question="What is it?",
            answers=["cat", "kitten"],
            id=7 + number,
            group=f"g{number}",
            part="seen",
            decoy="fox",
        )

    path = write([row(0), row(1)])
    attacked = {"scenario": "typographic", "twin_of": "pets"}
    card = importing("jsonl", path, name="pets-typo", **attacked).card

    sample = importing.samples(card)[1]
    assert card.tasks == ("classification", "segmentation", "vqa")
    assert (card.scenario, card.twin_of, card.parts) == ("typographic", "pets", {"seen": 2})
    assert (sample.id, sample.group, sample.part, sample.decoy) == ("8", "g1", "seen", "fox")
    # The clean picture has the same id, if the row names no other.
    assert sample.twin == "8"
    assert "at most 2 answers each, scored by exact match" in card.description


def test_columns_can_have_other_names(importing: Any, write: Any) -> None:
    path = write([{"file": "photos/0.png", "caption": "Is it red?", "truth": "no", "label": 3}])
    columns = ["image=file", "question=caption", "answer=truth", "label=class"]

    with pytest.raises(DataError, match=r"rows.jsonl:1: has no 'class', which was named for label"):
        importing("jsonl", path, name="one", columns=columns)
    with pytest.raises(ConfigError, match="unknown field 'quest', did you mean 'question'"):
        importing("jsonl", path, name="one", columns=["quest=caption"])
    with pytest.raises(ConfigError, match="--column takes FIELD=NAME, got 'caption'"):
        importing("jsonl", path, name="one", columns=["caption"])
    path = write([photo(i, label=["cat", "dog", "cow"][i], box=[0, 0, 1, 1]) for i in range(3)])
    with pytest.raises(DataError, match=r"3 of 3 rows .*\n.*got box; --column FIELD= leaves a f"):
        importing("jsonl", path, name="some")
    assert importing("jsonl", path, name="some", columns=["box="]).card.rows == 3
    # A field that another column stands for is not read from its own name.
    path = write([{"file": "photos/0.png", "caption": "Is it red?", "answer": "no", "class": "x"}])
    card = importing("jsonl", path, name="one", columns=columns[:2]).card
    assert importing.samples(card)[0].question == "Is it red?"


def test_pictures_can_lie_in_an_archive_or_another_folder(
    importing: Any, write: Any, encode: Any, layouts: Layouts, tmp_path: Path
) -> None:
    files = {f"photos/{i}.png": encode(i) for i in range(2)}
    rows = [photo(0, label="cat"), photo(1, label="dog")]
    path = write(rows)
    expected = importing("jsonl", path, name="pets").card.revision

    for images in (
        layouts["zip"](tmp_path / "a.zip", files),
        layouts["tar"](tmp_path / "a.tar", files),
        layouts["folder"](tmp_path / "elsewhere", files),
    ):
        card = importing("jsonl", path, name="pets", images=images, force=True).card
        assert card.revision == expected
        other = write([photo(3, label="cat")])
        with pytest.raises(DataError, match=r"rows.jsonl:1: no file 'photos/3.png' in .*a"):
            importing("jsonl", other, name="pets", images=images, force=True)
        write(rows)


ONE: dict[str, tuple[dict[str, Any] | str, str]] = {
    "not JSON": ('{"image": ', "not JSON at column 10: Expecting value"),
    "deep": ("[" * 100_000, "not JSON: "),
    "a list": ("[1, 2]", r"expected one JSON object a line, got \[1, 2\]"),
    "no image": ({"label": "cat"}, "has no image, only label"),
    "no label": (photo(1), "has no label, but .*rows.jsonl:1 has one; every row needs the fields"),
    "another task": (
        photo(1, label="cat", question="What?", answer="cat"), "has a question, but .*:1 has none"
    ),
    "no file": (photo(9, label="cat"), "no file 'photos/9.png' in .*; paths start at the folder"),
    "a way out": ({"image": "../mine/photos/1.png", "label": "cat"}, "no file '../mine/photos/1"),
    "a zero byte": ({"image": "a\0b", "label": "cat"}, "no file"),
    "a number": ({"image": 3, "label": "cat"}, "image must be the path of a picture, .* got 3"),
    "a label of a list": (photo(1, label=["cat"]), "label must be the name of a class, or its n"),
    "true": (photo(1, label=True), "label must be the name of a class, or its number, got True"),
    "blank": (photo(1, label=" "), "label must be the name of a class, got ' '"),
    "a number without classes": (photo(1, label=1), "label 1 is a number, but no class names"),
    "odd id": (photo(1, label="cat", id=[1]), r"id must be a text, got \[1\]"),
}  # fmt: skip


@pytest.mark.parametrize("hostile", ONE)
def test_a_bad_row_is_named_by_file_and_line(importing: Any, write: Any, hostile: str) -> None:
    row, complaint = ONE[hostile]
    path = write([photo(0, label="dog"), "", row])

    with pytest.raises(DataError, match=f"mine/rows.jsonl:3: {complaint}") as caught:
        importing("jsonl", path, name="pets")
    assert "\n" not in str(caught.value)
    assert importing.leftovers() == []


ALONE: dict[str, tuple[dict[str, Any], str]] = {
    "nothing": (photo(0, caption="x"), "expected a label, a phrase or a question, got none of th"),
    "no region": (photo(0, phrase="x"), "expected a phrase and one of mask, box, polygon, got phr"),
    "no phrase": (photo(0, box=[0, 0, 1, 1]), "expected a phrase and one of .*, got box"),
    "two regions": (photo(0, phrase="x", box=[0, 0, 1, 1], mask="m.png"), "got box, mask, phrase"),
    "regions alone": (photo(0, label="a", box=[0, 0, 1, 1], mask="m.png"), "got box, mask; --col"),
    "no answer": (photo(0, question="x?"), "expected a question and either answer or answers, g"),
    "two kinds": (photo(0, question="x?", answer="a", answers=["a"]), "got answer, answers, quest"),
    "no question": (photo(0, answer="x"), "either answer or answers, got answer"),
    "marks": (photo(0, question="?", answer="x"), "expected a question, got '\\?'"),
    "blank answer": (photo(0, question="x?", answer=" "), "expected what people answered"),
    "no answers": (photo(0, question="x?", answers=[]), "expected what people answered, got noth"),
    "odd type": (photo(0, question="x?", answer="a", answer_type="b"), "expected an answer type"),
    "odd answers": (photo(0, question="x?", answers="a"), "answers must be a list of texts, got"),
    "marks for a phrase": (photo(0, phrase="!", box=[0, 0, 1, 1]), "expected a phrase to look for"),
    "half a box": (photo(0, phrase="x", box=[0, 0, 1]), r"box must be \[x, y, width, height\] in"),
    "a box of texts": (photo(0, phrase="x", box=["0", 0, 1, 1]), r"box must be \[x, y, w"),
    "infinite": (photo(0, phrase="x", box=[0, 0, 1, float("inf")]), r"box must be \[x, y"),
    "a flat polygon": (photo(0, phrase="x", polygon=[1, 2, 3, 4]), "polygon must be a list of cor"),
    "a line": (photo(0, phrase="x", polygon=[[1, 2], [3, 4]]), "an area; correct it, or import"),
    "outside": (photo(0, phrase="x", box=[99, 0, 1, 1]), "covers no pixel of the pic"),
    "no mask": (photo(0, phrase="x", mask="m.png"), "no file 'm.png'"),
    "a mask of another size": (
        photo(0, phrase="x", mask="small.png"), "expected a mask of the picture's 16 x 12 pixels"
    ),
    "no PNG": (photo(0, phrase="x", mask="rows.jsonl"), "its mask is not a PNG"),
}  # fmt: skip


@pytest.mark.parametrize("hostile", ALONE)
def test_half_a_task_is_refused(importing: Any, write: Any, tmp_path: Path, hostile: str) -> None:
    row, complaint = ALONE[hostile]
    path = write([row])
    Image.new("L", (3, 3), 255).save(tmp_path / "mine/small.png")

    with pytest.raises(DataError, match=f"rows.jsonl:1: .*{complaint}"):
        importing("jsonl", path, name="x")
    assert importing.leftovers() == []


def test_every_bad_row_has_a_line_of_its_own(importing: Any, write: Any) -> None:
    path = write([photo(0, label="cat"), *(photo(9, label="cat") for _ in range(25))])

    with pytest.raises(DataError) as caught:
        importing("jsonl", path, name="pets")
    head, *lines = str(caught.value).splitlines()
    assert head.endswith("rows.jsonl: 25 of 26 rows cannot be used, so nothing was imported:")
    assert [line.split(": no file")[0][-2:] for line in lines[:3]] == [":2", ":3", ":4"]
    assert len(lines) == 21
    assert lines[-1] == "  and 5 more"


def test_questions_scored_by_two_rules_are_two_datasets(importing: Any, write: Any) -> None:
    rows = [photo(0, question="x?", answers=["a"] * n) for n in (10, 4, 3)]

    with pytest.raises(
        DataError, match=r"rows.jsonl:3: has 3 answers, and .*:1 is scored by anoth"
    ):
        importing("jsonl", write(rows), name="x")


def test_other_files_are_refused(importing: Any, write: Any, tmp_path: Path) -> None:
    path = write([])
    for source, complaint in (
        (path, "no rows in it"),
        (path.parent, "expected a file with one JSON object a line, got a folder"),
        (path.with_name("none.jsonl"), "none.jsonl: is not there"),
    ):
        with pytest.raises(DataError, match=complaint):
            importing("jsonl", source, name="x")
    path.write_bytes(b'{"image": "\xff"}')
    with pytest.raises(DataError, match=r"rows.jsonl:1: not JSON: 'utf-8' codec"):
        importing("jsonl", path, name="x")
    twice = write([photo(0, label="cat"), photo(0, label="dog")])
    with pytest.raises(DataError, match=r"1 ids come more than once, first 'photos/0.png'"):
        importing("jsonl", twice, name="x")
    alike = write([photo(0, label="cat"), photo(1, label="Cat")])
    with pytest.raises(DataError, match="class names 'Cat' and 'cat' collide"):
        importing("jsonl", alike, name="x")
    classes = tmp_path / "classes.txt"
    for text, complaint in (
        ("cat\n\ndog\n", "classes.txt:2: expected a class, got an empty line"),
        ("cat\ncat\n", "1 ids come more than once, first 'cat'"),
        ("cow\nfox\n", "rows.jsonl:1: label 'cat' is not one of the 2 classes"),
    ):
        classes.write_text(text)
        with pytest.raises(DataError, match=complaint):
            importing("jsonl", twice, name="x", classes=str(classes))


def test_damaged_rows_are_set_aside_if_the_user_asks_for_it(
    importing: Any, write: Any, tmp_path: Path
) -> None:
    rows = [photo(i, label=["cat", "dog"][i % 2]) for i in range(4)]
    path = write(rows)
    (tmp_path / "mine/photos/1.png").write_bytes(b"no picture")

    with pytest.raises(DataError, match=r"photos/1.png.: not a picture"):
        importing("jsonl", path, name="pets")
    packed = importing("jsonl", path, name="pets", skip_damaged=True)

    assert packed.card.rows == 3
    assert [item.id for item in packed.set_aside] == ["photos/1.png"]
    assert "rows.jsonl:2 (photos/1.png): not a picture" in packed.set_aside[0].why
    assert "the damaged ones set aside" in packed.card.description


def test_another_state_of_a_picture_is_another_source(importing: Any, write: Any) -> None:
    path = write([photo(0, label="cat"), photo(1, label="dog")])
    request = ImportRequest(FORMATS["jsonl"], path, "pets")
    before = request.format.plan(request).fingerprint
    assert request.format.plan(request).fingerprint == before

    (path.parent / "photos/1.png").write_bytes((path.parent / "photos/3.png").read_bytes() + b"\0")
    assert request.format.plan(request).fingerprint != before


def test_it_can_start_anywhere(importing: Any, write: Any) -> None:
    rows = [photo(i % 4, phrase="a dog", box=[0, 0, 5, 5]) for i in range(6)]
    rows.insert(2, "")  # type: ignore[arg-type]
    importing.check_starts("jsonl", write(rows))


@given(
    st.tuples(*[st.floats(-30, 30)] * 2, *[st.floats(0, 60)] * 2),
)
def test_a_box_holds_the_pixels_whose_centres_lie_in_it(
    box: tuple[float, float, float, float],
) -> None:
    x, y, width, height = box
    expected = np.array(
        [
            [x <= i + 0.5 < x + width and y <= j + 0.5 < y + height for i in range(WIDTH)]
            for j in range(HEIGHT)
        ]
    )
    # Where an edge meets a centre, rounding errors decide.
    edges = [x, y, x + width, y + height]
    if any(abs(edge % 1 - 0.5) < 1e-9 for edge in edges):
        return
    made = box_mask(box, (WIDTH, HEIGHT))

    if isinstance(made, str):
        assert not expected.any()
    else:
        np.testing.assert_array_equal(mask_of(made, where="box"), expected)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)


@given(
    st.dictionaries(
        st.sampled_from(FIELDS),
        VALUES,
    )
)
def test_any_object_is_a_row_or_one_clear_error(tmp_path_factory: Any, row: Any) -> None:
    path = tmp_path_factory.mktemp("any") / "rows.jsonl"
    path.write_text(json.dumps(row))
    request = ImportRequest(FORMATS["jsonl"], path, "x")

    # None of them names a picture that is there.
    with pytest.raises(DataError, match=r"rows.jsonl:1: [^\n]+\Z"):
        request.format.plan(request)


def test_parquet_has_the_same_rows(
    importing: Any, write: Any, encode: Any, tmp_path: Path, layouts: Layouts
) -> None:
    texts = [
        {"id": f"q{i}", "question": "Is it red?", "answers": ["no", "yes"], "phrase": "dog"}
        for i in range(3)
    ]
    boxes = [[1.0, 2.0, 5.0, 6.0]] * 3
    rows = [photo(i, box=boxes[i], **text) for i, text in enumerate(texts)]
    expected = importing("jsonl", write(rows), name="pets").card

    paths = layouts["parquet"](tmp_path / "mine/paths.parquet", rows)
    card = importing("parquet", paths, name="pets", force=True).card
    assert card.revision == expected.revision
    masks = [s.mask for s in importing.samples(expected)]
    embedded = [
        {
            **text,
            "image": {"bytes": encode(i), "path": "same.png"},
            "region": {"bytes": masks[i], "path": None},
            "group": f"photos/{i}.png",
        }
        for i, text in enumerate(texts)
    ]
    path = layouts["parquet"](tmp_path / "embedded.parquet", embedded)
    card = importing("parquet", path, name="pets", columns=["mask=region"], force=True).card
    assert card.revision == expected.revision
    for row, mask in zip(embedded, masks, strict=True):
        row["image"], row["region"] = row["image"]["bytes"], mask
        del row["group"]
    path = layouts["parquet"](tmp_path / "bytes.parquet", embedded)
    card = importing("parquet", path, name="pets", columns=["mask=region"], force=True).card
    samples = importing.samples(card)
    assert [s.image for s in samples] == [encode(i) for i in range(3)]
    # Nothing but the bytes tells which questions share a picture.
    assert len({s.group for s in samples}) == 3
    assert all(s.group.startswith("sha256:") for s in samples)
    importing.check_starts("parquet", path, columns=["mask=region"])


def test_bad_rows_of_parquet_are_named(
    importing: Any, encode: Any, tmp_path: Path, layouts: Layouts
) -> None:
    rows = [
        {
            "image": {"bytes": encode(i), "path": f"{i}"},
            "phrase": "dog",
            "mask": b"x" if i else None,
        }
        for i in range(2)
    ]
    path = layouts["parquet"](tmp_path / "a.parquet", rows)

    with pytest.raises(DataError) as caught:
        importing("parquet", path, name="pets")
    head, first, second = str(caught.value).splitlines()
    assert head == "2 pictures cannot be used, so nothing was imported:"
    assert "a.parquet: row 0: holds no mask" in first
    assert "a.parquet: row 1: sample '1#0': its mask is not a PNG" in second


def test_labels_of_parquet_by_name_or_number(
    importing: Any, encode: Any, tmp_path: Path, layouts: Layouts
) -> None:
    def written(labels: Sequence[Any], names: list[str] | None = None) -> Path:
        rows = [
            {"image": {"bytes": encode(i), "path": f"{i}"}, "label": label}
            for i, label in enumerate(labels)
        ]
        made: Path = layouts["parquet"](tmp_path / "a.parquet", rows, names)
        return made

    def found(path: Path, **options: Any) -> list[str]:
        card = importing("parquet", path, name="pets", force=True, **options).card
        assert decode_image(importing.samples(card)[0].image, where="x").size == (WIDTH, HEIGHT)
        return [card.classes[s.label] for s in importing.samples(card)]

    classes = tmp_path / "classes.txt"
    classes.write_text("dog\ncow\ncat\n")
    assert found(written(["dog", "cat"])) == ["dog", "cat"]
    assert found(written(["dog", "cat"]), classes=str(classes)) == ["dog", "cat"]
    assert found(written([0, 2]), classes=str(classes)) == ["dog", "cat"]
    # The file's own numbers win: `--classes` says what there is to choose among.
    assert found(written([0, 1], ["cat", "dog"]), classes=str(classes)) == ["cat", "dog"]
    with pytest.raises(DataError, match="column 'label' has no class names; it must be a ClassLab"):
        found(written([0, 1]))
    path = written([0, 1], ["cat", "dog"])
    cut = io.BytesIO()
    pq.write_table(pq.read_table(path).slice(0, 0), cut)
    path.write_bytes(cut.getvalue())
    with pytest.raises(DataError, match="no rows in it"):
        found(path)


def test_the_examples_of_the_documentation_can_be_imported(
    importing: Any, encode: Any, tmp_path: Path
) -> None:
    page = Path(__file__).resolve().parents[3] / "docs/data.md"
    blocks = re.findall(r'```json title="\w+.jsonl"\n(.*?)```', page.read_text(), re.S)
    for name in ("photos", "masks"):
        (tmp_path / name).mkdir()
    for i in (1, 2, 3):
        (tmp_path / f"photos/{i}.png").write_bytes(
            encode(format="PNG") if i == 3 else large_photo()
        )
    Image.new("1", (300, 200), 1).save(tmp_path / "masks/1.png")
    tasks = []
    for number, block in enumerate(blocks):
        path = tmp_path / f"{number}.jsonl"
        path.write_text(block)
        card = importing("jsonl", path, name=f"doc-{number}").card
        assert card.rows == 3
        tasks += card.tasks

    assert tasks == ["classification", "segmentation", "vqa"]


def large_photo() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (300, 200), "white").save(out, "PNG")
    return out.getvalue()

"""The files of an attack: which pictures come first on the sheet, and what is said below them."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from natadv.scenarios.typographic.overlay import Overlay, to_json
from natadv.scenarios.typographic.population import BLANK, DrawnOverlay
from natadv.search import contact_sheet
from natadv.search.contact_sheet import AttackedSample, attack_sheet, file_part
from natadv.search.result import Attack
from natadv.tasks.task import Prediction
from natadv.types import Sample


def png(colour, mode="RGB") -> bytes:
    out = io.BytesIO()
    Image.new(mode, (40, 40), colour).save(out, "PNG")
    return out.getvalue()


def attacked_sample(name, *, right, mask=None, **values) -> AttackedSample:
    clean = Sample(
        name, group=name, image=png("red"), mask=png(255, "L"), phrase="the dog", question="what?"
    )
    overlay = to_json(Overlay(text="cat"))
    attacked = Sample(
        f"{name}@x",
        group=name,
        image=b"",
        mask=clean.mask,
        twin=name,
        overlay=overlay,
        drawn_size=(40, 40),
    )
    numbers = {"score": 0.5, "true_score": 0.5, "iou": 0.5, "accuracy": 0.5}
    before = Prediction(text="dog", correct=True, values=numbers)
    after = Prediction(text="cat", correct=right, values=numbers | values, mask=mask)
    return AttackedSample(clean, attacked, before, after)


def attack(task) -> Attack:
    drawn = DrawnOverlay("new", "decoy", 0.0, False, Overlay(text=BLANK))
    return Attack(
        version=1,
        task=task,
        dataset="d",
        revision="r",
        subject="dog",
        pictures=("a", "b", "c"),
        text="cat",
        decoy="cat",
        drawn=drawn,
        covered=0.1,
        place="top",
        flipped=("a", "b"),
        hidden=("b", "c"),
        model="m",
        weights="w",
        run="",
    )


@pytest.fixture
def sheet(monkeypatch):
    """The tiles and the title of a sheet."""
    seen = []
    draw = contact_sheet.contact_sheet
    monkeypatch.setattr(
        contact_sheet,
        "contact_sheet",
        lambda tiles, *, title: seen.append((tiles, title)) or draw(tiles, title=title),
    )

    def made(task, rows):
        drawn = attack_sheet(attack(task), rows)
        with Image.open(io.BytesIO(drawn)) as image:
            assert image.format == "PNG"
        return seen[-1]

    return made


def names(tiles):
    return [tile.captions[-1].text for tile in tiles]


def test_what_is_flipped_comes_first_and_the_worst_of_it_before_the_rest(sheet):
    rows = [
        attacked_sample("held", right=True, true_score=0.1),
        attacked_sample("less", right=False, true_score=0.4),
        attacked_sample("worst", right=False, true_score=0.2),
    ]
    tiles, title = sheet("classification", rows)

    assert names(tiles) == ["worst", "less", "held"]
    assert title == (
        "m, classification: 'cat' flips 2 of 3 pictures of dog, 1 of them without letters too"
    )
    assert [line.text for line in tiles[0].captions[:2]] == [
        "clean: dog (0.50)",
        "attacked: cat (0.50)",
    ]


def test_there_are_twelve_at_most(sheet):
    tiles, _ = sheet(
        "vqa", [attacked_sample(f"s{i:02d}", right=False, accuracy=0.0) for i in range(20)]
    )

    assert names(tiles) == [f"s{i:02d}" for i in range(12)]


def test_segmentation_is_outlined_where_the_mask_is_known(sheet):
    rows = [
        attacked_sample("a", right=False, iou=0.1, mask=png(255, "L")),
        attacked_sample("b", right=False, iou=0.2),
    ]
    tiles, _ = sheet("segmentation", rows)

    assert [len(tile.panels[1].outlines) for tile in tiles] == [2, 0]
    assert [line.text for line in tiles[0].captions] == [
        "the dog",
        "meant",
        "marked: cat",
        "clean: IoU 0.50",
        "attacked: IoU 0.10",
        "a",
    ]


def test_answers_stand_below_their_question(sheet):
    tiles, _ = sheet("vqa", [attacked_sample("a", right=False)])

    texts = [caption.text for caption in tiles[0].captions]
    assert texts == ["what?", "clean: dog", "attacked: cat", "a"]


def test_no_two_classes_share_a_file_and_none_leaves_its_folder():
    names = ["a b", "a-b", "a/b", "a  b", "../../a", "a__b", "É", "e", "猫", "犬", "[x]", "w" * 300]
    parts = [file_part(name) for name in [*names, "w" * 301]]

    assert len(set(parts)) == len(parts)
    assert file_part("polar bear") == "polar-bear"
    assert all("/" not in part and not part.startswith(".") for part in parts)
    assert max(map(len, parts)) < 100

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from natadv.errors import DataError

Layouts = dict[str, Callable[..., Any]]
PAIRS = [("mug", "taxi"), ("clock", "mug"), ("pen", "sofa")]


@pytest.fixture
def rows(encode: Any) -> list[dict[str, Any]]:
    """As BLISS-e-V/SCAM has them: all variants in one split, told apart by the id."""
    variants = ("SCAM", "NoSCAM", "SynthSCAM")
    return [
        {
            "image": {"bytes": encode(10 * i + j), "path": f"{variant}_{i:04d}.jpg"},
            "id": f"{variant}_{i:04d}",
            "object_label": thing,
            "attack_word": word,
            "postit_area_pct": 3.5 + i,
            "type": variant,
        }
        for j, variant in enumerate(variants)
        for i, (thing, word) in enumerate(PAIRS)
    ]


@pytest.fixture
def make(tmp_path: Path, layouts: Layouts) -> Callable[[list[dict[str, Any]]], Path]:
    def made(rows: list[dict[str, Any]]) -> Path:
        layouts["parquet"](tmp_path / "hub/data/train-00000-of-00001.parquet", rows)
        return tmp_path / "hub"

    return made


def test_attacked_pictures_know_their_word_and_their_clean_twin(
    importing: Any, rows: list[dict[str, Any]], make: Any
) -> None:
    path = make(rows)
    clean = importing("scam-clean", path).card
    attacked = importing("scam", path).card
    typed = importing("scam-synth", path).card

    assert clean.classes == attacked.classes == ("clock", "mug", "pen", "sofa", "taxi")
    assert (attacked.twin_of, clean.twin_of, typed.twin_of) == ("scam-clean", None, "scam-clean")
    assert (attacked.scenario, clean.scenario) == ("typographic", "clean")
    ids = {s.id: s for s in importing.samples(clean)}
    for card in (attacked, typed):
        for sample, (thing, word) in zip(importing.samples(card), PAIRS, strict=True):
            twin = ids[sample.twin]
            assert (card.classes[sample.label], sample.decoy) == (thing, word)
            assert (twin.label, twin.group, twin.decoy) == (sample.label, sample.group, None)
            assert sample.candidates == (thing, word)
    assert all(s.candidates == pair for s, pair in zip(ids.values(), PAIRS, strict=True))
    first = importing.samples(attacked)[0]
    assert first.id == "SCAM_0000"
    assert json.loads(first.facts) == {"postit_area_pct": 3.5}


def test_its_authors_protocol_is_on_the_card(
    importing: Any, rows: list[dict[str, Any]], make: Any
) -> None:
    card = importing("scam", make(rows)).card
    single = importing("scam-clean", make(rows), templates="single").card

    assert (card.candidates, card.averaging, len(card.templates)) == (True, "raw", 32)
    assert card.templates[0] == "a bad photo of a {}."
    assert card.templates[-1] == "a blurry photo of the {}."
    assert (single.candidates, single.averaging) == (True, "unit")
    assert single.templates == ("a photo of a {}.",)


def test_files_that_the_hub_converted_are_found_in_their_folder(
    importing: Any, rows: list[dict[str, Any]], tmp_path: Path, layouts: Layouts
) -> None:
    layouts["parquet"](tmp_path / "scam/default/train/0000.parquet", rows)

    assert importing("scam", tmp_path / "scam").card.rows == len(PAIRS)


def without(position: int) -> Callable[[list[dict[str, Any]]], list[dict[str, Any]]]:
    return lambda rows: [row for i, row in enumerate(rows) if i != position]


def changed(position: int, **fields: Any) -> Callable[[list[Any]], list[dict[str, Any]]]:
    return lambda rows: [{**row, **fields} if i == position else row for i, row in enumerate(rows)]


HOSTILE: dict[str, tuple[Any, str]] = {
    "no twin": (without(4), "1 of 3 rows of SCAM have no NoSCAM twin of the same object"),
    "other twin": (changed(4, object_label="pen"), "first '0001'"),
    "no area": (
        changed(1, postit_area_pct=float("nan")),
        "'SCAM_0001': postit_area_pct must be a number, got nan",
    ),
    "endless area": (changed(1, postit_area_pct=float("inf")), "must be a number, got inf"),
    "area in words": (
        lambda rows: [{**row, "postit_area_pct": "3.5"} for row in rows],
        "postit_area_pct must be a number, got '3.5'",
    ),
    "bytes for pictures": (
        lambda rows: [{**row, "image": row["image"]["bytes"]} for row in rows],
        "column 'image' holds binary, not pictures",
    ),
    "twice": (changed(1, id="SCAM_0000"), "1 ids come more than once, first 'SCAM_0000'"),
    "two clean": (changed(4, id="NoSCAM_0000"), "more than once, first 'NoSCAM_0000'"),
    "odd id": (changed(1, id="17"), "id '17' begins with none of SynthSCAM"),
    "no word": (changed(1, attack_word=None), "attack_word '' must differ"),
    "no attack": (changed(1, attack_word="clock"), "object_label 'clock' and attack_word 'clock'"),
    "collide": (changed(1, attack_word="Mug"), "class names 'Mug' and 'mug' collide"),
    "no bytes": (changed(1, image={"bytes": None, "path": "x"}), "'SCAM_0001' holds no bytes"),
    "no columns": (lambda rows: [{"image": r["image"], "id": r["id"]} for r in rows], "no column"),
}


@pytest.mark.parametrize("hostile", HOSTILE)
def test_bad_input_is_named_and_nothing_is_written(
    importing: Any, rows: list[dict[str, Any]], make: Any, hostile: str
) -> None:
    change, complaint = HOSTILE[hostile]

    with pytest.raises(DataError, match=complaint):
        importing("scam", make(change(rows)))

    assert importing.leftovers() == []


def test_a_folder_without_parquet_is_refused(importing: Any, tmp_path: Path) -> None:
    (tmp_path / "images.zip").touch()

    with pytest.raises(DataError, match=r"images\.zip only, so fetch the revision"):
        importing("scam", tmp_path)


@pytest.mark.parametrize("format", ["scam", "scam-clean", "scam-synth"])
def test_it_can_start_anywhere(
    importing: Any, rows: list[dict[str, Any]], make: Any, format: str
) -> None:
    importing.check_starts(format, make(rows))

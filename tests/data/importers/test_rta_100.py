from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from natadv.errors import DataError

Layouts = dict[str, Callable[..., Any]]


@pytest.fixture
def files(encode: Any) -> dict[str, bytes]:
    return {
        "ours/data/label=alarm clock_text=pear.png": encode(1),
        "ours/data/label=pear_text=alarm clock.jpeg": encode(2, format="JPEG"),
        "ours/data/label=desk_lamp_text=ice_cream.JPG": encode(3, format="JPEG"),
        "ours/data/.DS_Store": b"x",
        "__MACOSX/ours/data/._label=pear_text=x.png": b"x",
    }


def test_label_and_word_come_from_the_name(
    importing: Any, files: dict[str, bytes], tmp_path: Path, layouts: Layouts
) -> None:
    card = importing("rta-100", layouts["zip"](tmp_path / "copy.zip", files)).card

    samples = importing.samples(card)
    assert card.classes == ("alarm clock", "desk_lamp", "ice_cream", "pear")
    assert (card.scenario, card.templates) == ("typographic", ("a photo of a {}.",))
    assert [(card.classes[s.label or 0], s.decoy) for s in samples] == [
        ("alarm clock", "pear"),
        ("pear", "alarm clock"),
        ("desk_lamp", "ice_cream"),
    ]
    assert samples[0].id == "label=alarm clock_text=pear.png"


def test_other_pictures_are_set_aside_and_counted(
    importing: Any, files: dict[str, bytes], tmp_path: Path, layouts: Layouts, encode: Any
) -> None:
    odd = {"ours/example.png": encode(), "ours/data/label=pear_text=pear.png": encode()}

    packed = importing("rta-100", layouts["zip"](tmp_path / "copy.zip", {**odd, **files}))

    assert packed.card.rows == 3
    assert [(item.id, item.why) for item in packed.set_aside] == [
        ("ours/example.png", "not named label=..._text=..."),
        ("ours/data/label=pear_text=pear.png", "the written word is the truth"),
    ]


def test_pairs_are_asked_label_against_word_about_the_same_pictures(
    importing: Any, files: dict[str, bytes], tmp_path: Path, layouts: Layouts
) -> None:
    archive = layouts["zip"](tmp_path / "copy.zip", files)
    plain, paint = importing("rta-100", archive).card, importing("paint", archive).card
    pairs = importing("rta-100-pairs", archive).card

    samples = importing.samples(pairs)
    assert [s.candidates for s in samples] == [
        ("alarm clock", "pear"),
        ("pear", "alarm clock"),
        ("desk_lamp", "ice_cream"),
    ]
    assert (pairs.candidates, pairs.averaging, len(pairs.templates)) == (True, "raw", 32)
    assert [replace(s, candidates=()) for s in samples] == importing.samples(plain)
    # Nothing of the old protocol changed.
    assert (plain.candidates, plain.averaging, paint.candidates) == (False, "unit", False)
    assert paint.shards == plain.shards
    assert importing("paint-pairs", archive).card.shards == pairs.shards


@pytest.mark.parametrize(
    ("odd", "complaint"),
    [
        ("ours/data/label=Pear_text=x.png", "class names 'Pear' and 'pear' collide"),
        ("ours/data/label=desk lamp_text=x.png", "class names 'desk lamp' and 'desk_lamp' collide"),
        ("more/label=alarm clock_text=pear.png", "1 ids come more than once"),
        ("../label=a_text=b.png", "climbs out of its folder"),
    ],
)
def test_bad_input_is_named_and_nothing_is_written(
    importing: Any,
    files: dict[str, bytes],
    tmp_path: Path,
    layouts: Layouts,
    encode: Any,
    odd: str,
    complaint: str,
) -> None:
    archive = layouts["zip"](tmp_path / "copy.zip", {**files, odd: encode(7)})

    with pytest.raises(DataError, match=complaint):
        importing("rta-100", archive)

    assert importing.leftovers() == []


def test_another_archive_is_told_what_was_expected(
    importing: Any, tmp_path: Path, layouts: Layouts, encode: Any
) -> None:
    archive = layouts["zip"](tmp_path / "other.zip", {"cat.png": encode()})

    with pytest.raises(
        DataError, match=r"expected names such as label=.*got 'cat.png'; is this rta-100"
    ):
        importing("rta-100", archive)


def test_it_can_start_anywhere(
    importing: Any, files: dict[str, bytes], tmp_path: Path, layouts: Layouts, encode: Any
) -> None:
    odd = {"ours/example.png": encode()}

    importing.check_starts("rta-100", layouts["zip"](tmp_path / "copy.zip", {**odd, **files}))

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import ImageFont

from natadv.scenarios.typographic import fonts
from natadv.scenarios.typographic.fonts import CHARACTERS, FONTS, font_at

FOLDER = Path(fonts.__file__).parent


@pytest.mark.parametrize("name", FONTS)
def test_every_font_can_draw_every_character_that_an_overlay_may_have(name: str) -> None:
    font = font_at(name, 40)
    missing = bytes(font.getmask("\ufffe"))

    visible = sorted(c for c in CHARACTERS if not c.isspace())
    empty_boxes = [c for c in visible if bytes(font.getmask(c)) == missing]

    assert empty_boxes == []


@pytest.mark.parametrize("name", FONTS)
def test_every_font_is_drawn_with_basic_layout(name: str) -> None:
    assert font_at(name, 12).layout_engine == ImageFont.Layout.BASIC


def test_every_font_file_is_in_the_table_and_its_licence_lies_beside_it() -> None:
    files = {path.name for path in FOLDER.glob("*.ttf")}
    licences = {path.name.split("-")[0] for path in FOLDER.glob("*.txt")}

    assert files == set(FONTS.values())
    for file in files:
        assert any(file.startswith(licence) for licence in licences), file


def test_fonts_are_small_enough_to_commit() -> None:
    assert sum(path.stat().st_size for path in FOLDER.iterdir() if path.is_file()) < 2_000_000

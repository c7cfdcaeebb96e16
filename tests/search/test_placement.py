"""One overlay on one clean picture, before anything is drawn."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from natadv.data.images import decode_image
from natadv.errors import ConfigError, DataError
from natadv.evaluate.pictures import overlaid
from natadv.scenarios.typographic.overlay import Overlay, box, from_json, render
from natadv.scenarios.typographic.population import BLANK, DrawnOverlay
from natadv.search.placement import drawn_row, place_overlay
from natadv.tasks.masks import truth_mask
from natadv.types import Sample

SIZE = (60, 40)


def written(*, off_object=False, **other) -> DrawnOverlay:
    drawn = Overlay(**{"text": BLANK, "size": 0.3, "x": 0.0, "y": 0.0, "frame": "picture", **other})
    return DrawnOverlay("new", "decoy", 0.0, off_object, drawn)


def png(pixels) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


@pytest.fixture
def clean() -> Sample:
    """The object is at the left."""
    mask = np.zeros(SIZE[::-1], np.uint8)
    mask[5:35, :25] = 255
    pixels = np.random.default_rng(1).integers(0, 255, (*SIZE[::-1], 3), dtype=np.uint8)
    return Sample(
        "s1", group="g", image=png(pixels), label=1, mask=png(mask), phrase="dog", facts='{"a":1}'
    )


def test_the_text_stands_where_the_overlay_was_drawn(clean):
    drawn = written(x=0.3, y=0.7, angle=20.0)

    assert place_overlay(drawn, "cat", clean, size=SIZE) == replace(drawn.overlay, text="cat")


def test_it_is_kept_off_the_object_where_that_is_asked_for_and_known(clean):
    drawn = written(off_object=True)
    off = place_overlay(drawn, "cat", clean, size=SIZE)
    left, top, right, bottom = box(off, SIZE)

    assert not truth_mask(clean)[top:bottom, left:right].any()
    assert replace(off, x=0.0, y=0.0) == drawn.saying("cat")
    assert off.x > 0
    assert place_overlay(drawn, "cat", replace(clean, mask=None), size=SIZE) == drawn.saying("cat")
    assert place_overlay(written(), "cat", clean, size=SIZE) == drawn.saying("cat")


def test_what_cannot_be_drawn_there_is_refused(clean):
    for text, error in [("word " * 100, DataError), ("\u4f60", ConfigError)]:
        with pytest.raises(error):
            place_overlay(written(), text, clean, size=SIZE)


def test_there_is_room_or_not_by_the_size_of_the_picture(clean):
    text = "word " * 20

    assert place_overlay(written(), text, clean, size=(600, 400)).text == text
    with pytest.raises(DataError, match="does not fit into 20 x 20 px"):
        place_overlay(written(), text, clean, size=(20, 20))


def test_a_row_is_the_clean_one_with_the_overlay_drawn_on_it(clean):
    overlay = place_overlay(written(panel=(255, 0, 0)), "cat", clean, size=SIZE)
    row = drawn_row(overlay, clean, decoy="cat", size=SIZE)

    changed = ("id", "image", "twin", "decoy", "overlay", "drawn_size")
    assert replace(row, **{name: getattr(clean, name) for name in changed}) == clean
    assert (row.image, row.twin, row.decoy, row.drawn_size) == (b"", "s1", "cat", SIZE)
    assert row.id == f"s1@{row.overlay}"
    assert from_json(row.overlay) == (overlay,)
    expected = render(overlay, decode_image(clean.image, where="s1"))
    assert overlaid(row, clean).open().tobytes() == expected.tobytes()


def test_other_overlays_are_other_rows(clean):
    overlay = place_overlay(written(), "cat", clean, size=SIZE)
    others = (overlay, replace(overlay, letters=False), replace(overlay, opacity=0.5))

    assert len({drawn_row(one, clean, decoy=None, size=SIZE).id for one in others}) == 3


def test_a_band_makes_the_row_taller_and_moves_its_truth(clean):
    for side in ["top", "bottom"]:
        overlay = place_overlay(written(band=side, panel=(0, 0, 0)), "cat", clean, size=SIZE)
        row = drawn_row(overlay, clean, decoy=None, size=SIZE)

        strip = row.drawn_size[1] - SIZE[1]
        assert strip > 0
        assert overlaid(row, clean).open().size == row.drawn_size
        above, below = (strip, 0) if side == "top" else (0, strip)
        expected = np.pad(truth_mask(clean), ((above, below), (0, 0)))
        assert np.array_equal(truth_mask(row), expected)
        assert drawn_row(overlay, replace(clean, mask=None), decoy=None, size=SIZE).mask is None

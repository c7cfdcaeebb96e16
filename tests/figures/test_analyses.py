"""Figures 6 to 8: what is drawn are the arrays that were given."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.colors import to_hex
from PIL import Image

from natadv.errors import ReportError
from natadv.explain.latents import LatentPoints
from natadv.figures.analyses import (
    LatentPanel,
    MapRow,
    even,
    head_grid,
    latent_scatter,
    map_grid,
)
from natadv.metrics.heads import HeadChanges
from natadv.metrics.intervals import Interval
from natadv.plots import png, svg
from natadv.report.triptych import overlaid


def heads(change: np.ndarray) -> HeadChanges:
    """What masking changes, with intervals of three points to either side."""
    sizes = np.abs(change)
    return HeadChanges(
        change=change,
        low=change - 0.03,
        high=change + 0.03,
        p_adjusted=np.ones_like(change),
        count=Interval((sizes - 0.03 > 0.15).sum(), (sizes + 0.03 > 0.15).sum()),
        accuracy=0.5,
        n=100,
        groups=100,
    )


def panels_of(figure, title):
    return [axis for axis in figure.axes if axis.get_title(loc="left").startswith(title)]


def test_heads_beyond_fifteen_points_are_outlined_and_no_others():
    change = np.array([[0.15, -0.16, 0.0], [0.02, 0.3, -0.149]])
    figure = head_grid({"typo": heads(change), "clean": heads(0 * change)}, title="t", width_in=3.5)

    assert np.argwhere(heads(change).critical).tolist() == [[0, 1], [1, 1]]
    (typo,), (clean,) = panels_of(figure, "typo"), panels_of(figure, "clean")
    assert np.asarray(typo.images[0].get_array()) == pytest.approx(100 * change)
    corners = {
        (round(p.get_x() + p.get_width() / 2, 6), round(p.get_y() + p.get_height() / 2, 6))
        for p in typo.patches
    }
    assert corners == {(1, 0), (1, 1)}
    assert not clean.patches
    assert typo.images[0].get_clim() == clean.images[0].get_clim() == (-30, 30)
    assert [t.get_text() for t in typo.texts] == [
        "+15.0", "-16.0", "0", "+2.0", "+30.0", "-14.9",
    ]  # fmt: skip
    assert "±3.0 points" in figure.get_supxlabel()
    assert typo.get_title(loc="left") == "typo\nn = 100, top-1 50.0 %"


def test_living_latents_stand_at_their_logarithms():
    """The last one has a colour of no entropy, as only nine pictures activate it."""
    found = LatentPoints(
        np.array([0.1, 0.0, 1.0, 0.09]),
        np.array([10.0, np.nan, 0.1, 1.0]),
        np.array([0.7, np.nan, 2.0, 0.0]),
    )
    figure = latent_scatter([LatentPanel("mini", 100, found)], title="t", width_in=3.5)

    (axis,) = panels_of(figure, "mini")
    (points,) = axis.collections
    places = np.array([[-1.0, 1.0], [0.0, -1.0], [np.log10(0.09), 0.0]])
    assert np.asarray(points.get_offsets()) == pytest.approx(places)
    assert np.ma.filled(points.get_array(), -1.0).tolist() == [0.7, 2.0, -1.0]
    assert to_hex(points.get_cmap().get_bad()) == "#c4c4c4"
    assert axis.get_title(loc="left") == "mini\nn = 100; 3 alive, 1 dead"


def picture(dataset: str, *maps: np.ndarray | None) -> MapRow:
    pixels = np.full((12, 20, 3), 90, dtype=np.uint8)
    said = ("dog",) * (len(maps) - 1) + ("cat",)
    return MapRow(dataset, "dog", pixels, maps, said)


def test_maps_of_one_picture_share_a_scale_and_cover_it():
    """Both maps are given in units of their own."""
    spread, peak = np.ones((2, 3), dtype=np.float32), np.zeros((2, 3), dtype=np.float32)
    peak[1, 2] = 50
    figure = map_grid([picture("typo", 7 * spread, peak)], ["a", "b"], width_in=3.5)

    original, one, other = figure.axes[:3]
    assert even(7 * spread) == pytest.approx(spread)
    plain = Image.fromarray(np.full((12, 20, 3), 90, dtype=np.uint8))
    for axis, multiples in ((one, spread), (other, peak * 6 / 50)):
        drawn = np.asarray(axis.images[0].get_array())
        assert (drawn == np.asarray(overlaid(plain, multiples, most=6))).all()
    assert [a.get_xlabel() for a in (original, one, other)] == ["dog", "dog ✓", "cat ✗"]
    assert [a.get_title() for a in (original, one, other)] == ["original", "a", "b"]
    assert "1 of typo" in figure.get_supxlabel()


def test_a_model_without_maps_is_said_to_have_none():
    empty = np.zeros((2, 2), dtype=np.float32)
    figure = map_grid([picture("typo", None, empty)], ["a", "b"], width_in=3.5)

    assert [text.get_text() for text in figure.axes[1].texts] == ["no map"]
    plain = Image.fromarray(np.full((12, 20, 3), 90, dtype=np.uint8))
    assert (np.asarray(figure.axes[1].images[0].get_array()) == 90).all()
    drawn = np.asarray(figure.axes[2].images[0].get_array())
    assert (drawn == np.asarray(overlaid(plain, empty, most=1))).all()


def test_on_a_page_datasets_stand_in_two_columns():
    rows = [picture(name, np.eye(2, dtype=np.float32)) for name in "abcd"]
    figure = map_grid(rows, ["m"], width_in=7)

    named = [axis.get_ylabel() for axis in figure.axes[:8]]
    assert named == ["a", "", "b", "", "c", "", "d", ""]


def test_the_same_arrays_give_the_same_bytes():
    change = np.array([[0.15, -0.16], [0.02, 0.3]])
    points = LatentPoints(np.array([0.1]), np.array([1.0]), np.array([0.0]))

    def drawn():
        figures = (
            head_grid({"d": heads(change)}, title="t", width_in=3.5),
            latent_scatter([LatentPanel("d", 5, points)], title="t", width_in=3.5),
            map_grid([picture("d", np.eye(2, dtype=np.float32))], ["m"], width_in=3.5),
        )
        return [(png(figure), svg(figure)) for figure in figures]

    assert drawn() == drawn()


def test_nothing_to_show_is_an_error_and_no_empty_figure():
    for draw in (
        lambda: head_grid({}, title="t", width_in=3.5),
        lambda: latent_scatter([], title="t", width_in=3.5),
        lambda: map_grid([], ["m"], width_in=3.5),
    ):
        with pytest.raises(ReportError, match="to show"):
            draw()

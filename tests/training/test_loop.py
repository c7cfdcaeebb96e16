from __future__ import annotations

import io

import pytest
from PIL import Image

from natadv.training.loop import Curve, CurvePoint
from natadv.training.train import chart, without_steep_start


@pytest.fixture
def curve():
    points = [CurvePoint(step, 1 / step, 0.5 if step % 4 == 0 else None) for step in range(1, 13)]
    return Curve(points, 0.7, 2)


def test_a_point_is_the_mean_since_the_one_before():
    curve = Curve([])
    for loss in (3.0, 5.0):
        curve.add(loss)
    curve.mark(2, None)
    curve.add(1.0)

    assert curve.mark(3, 0.25) == CurvePoint(3, 1.0, 0.25)
    assert curve.points == [CurvePoint(2, 4.0), CurvePoint(3, 1.0, 0.25)]
    assert curve.last_validation == 0.25


def test_the_file_names_the_metric(curve):
    found = curve.as_json(metric="iou_fg")

    assert found["metric"] == "iou_fg"
    assert found["points"][3] == {"step": 4, "loss": 0.25, "iou_fg": 0.5}
    assert found["points"][4]["iou_fg"] is None


def test_the_chart_shows_both(curve):
    pictures = {}
    for name, points in {
        "both": curve.points,
        "loss": [CurvePoint(p.step, p.loss) for p in curve.points],
    }.items():
        with Image.open(io.BytesIO(chart(Curve(points), title="x", metric="m"))) as picture:
            found = picture.convert("RGB")
        below = found.crop((0, 340, found.width, found.height))  # without its heading
        pictures[name] = {colour for _, colour in below.getcolors(2**24)}

    assert (214, 96, 20) in pictures["both"]
    assert (214, 96, 20) not in pictures["loss"]


@pytest.mark.parametrize(
    "points",
    [
        [],
        [CurvePoint(1, 0.5)],
        [CurvePoint(1, 0.5, 1.0), CurvePoint(2, 0.5, 1.0)],
        [CurvePoint(1, 1e9, 0.0)],
    ],
)
def test_any_curve_can_be_drawn(points):
    assert chart(Curve(points), title="", metric="m").startswith(b"\x89PNG")


def test_a_steep_beginning_does_not_flatten_the_rest():
    fall = [(1, 70.0), (2, 9.0), *((step, 1.0 + 1 / step) for step in range(3, 41))]

    assert without_steep_start(fall) == fall[2:]
    assert without_steep_start(fall[2:]) == fall[2:]
    assert without_steep_start([(1, 5.0)]) == [(1, 5.0)]
    assert without_steep_start([]) == []


def test_a_loss_that_rises_later_is_all_shown():
    rises = [(step, float(step)) for step in range(40)]

    assert without_steep_start(rises) == rises

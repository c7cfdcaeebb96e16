from __future__ import annotations

import io
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from natadv.errors import DataError, ModelError
from natadv.rng import rng_for
from natadv.tasks import segmentation
from natadv.types import Sample

SIDES = st.integers(1, 7)
MAPS = arrays.arrays(
    np.float32,
    st.tuples(SIDES, SIDES),
    # Few values, so that ties with the threshold are common.
    elements=st.integers(0, 8).map(lambda k: k / 8),
)
MASKS = st.tuples(SIDES, SIDES).flatmap(
    lambda shape: st.tuples(arrays.arrays(np.bool_, shape), arrays.arrays(np.bool_, shape))
)


def png(pixels, **options):
    file = io.BytesIO()
    Image.fromarray(np.asarray(pixels)).save(file, "PNG", **options)
    return file.getvalue()


def photo(width, height, **options):
    file = io.BytesIO()
    Image.new("RGB", (width, height), (90, 120, 60)).save(file, "JPEG", **options)
    return file.getvalue()


def drawn(inside):
    return png(np.where(np.asarray(inside), 255, 0).astype(np.uint8))


def sample(inside, name="s", **columns):
    inside = np.asarray(inside)
    picture = photo(inside.shape[1], inside.shape[0])
    columns = {"phrase": "a cat", "mask": drawn(inside), "image": picture} | columns
    return Sample(name, f"g{name}", columns.pop("image"), **columns)


def pixel_by_pixel(values, height, width):
    """Each pixel from its four neighbours, the corners' centres on each other."""
    h, w = values.shape
    values = values.tolist()
    found = np.zeros((height, width))
    for i in range(height):
        for j in range(width):
            y = i * (h - 1) / (height - 1) if height > 1 else 0.0
            x = j * (w - 1) / (width - 1) if width > 1 else 0.0
            y0, x0 = min(math.floor(y), h - 1), min(math.floor(x), w - 1)
            y1, x1 = min(y0 + 1, h - 1), min(x0 + 1, w - 1)
            top = values[y0][x0] * (1 - (x - x0)) + values[y0][x1] * (x - x0)
            bottom = values[y1][x0] * (1 - (x - x0)) + values[y1][x1] * (x - x0)
            found[i, j] = top * (1 - (y - y0)) + bottom * (y - y0)
    return found


def counted_by_hand(found, truth):
    cells = {(True, True): 0, (True, False): 0, (False, True): 0, (False, False): 0}
    for row, wanted in zip(found.tolist(), truth.tolist(), strict=True):
        for pair in zip(row, wanted, strict=True):
            cells[pair] += 1
    return (
        cells[True, True],
        cells[True, False],
        cells[False, True],
        cells[False, False],
    )


@given(MAPS, SIDES, SIDES)
def test_resizing_equals_a_double_loop(values, height, width):
    found = segmentation.resized(values.astype(np.float64), height=height, width=width)

    assert found == pytest.approx(pixel_by_pixel(values, height, width), abs=1e-12)


@pytest.mark.parametrize(
    ("shape", "size"),
    [((22, 22), (48, 64)), ((64, 48), (9, 7)), ((5, 3), (5, 3)), ((2, 9), (1, 1))],
)
def test_resizing_equals_that_of_torch_with_aligned_corners(shape, size):
    values = rng_for("resize", shape).random(shape)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(values)[None, None], size=size, mode="bilinear", align_corners=True
    )[0, 0].numpy()
    elsewhere = torch.nn.functional.interpolate(
        torch.from_numpy(values)[None, None], size=size, mode="bilinear", align_corners=False
    )[0, 0].numpy()

    found = segmentation.resized(values, height=size[0], width=size[1])

    assert found == pytest.approx(expected, abs=1e-12)
    assert shape == size or np.abs(found - elsewhere).max() > 0.01


@given(MAPS, SIDES, SIDES)
def test_resizing_keeps_bounds_and_mirrors(values, height, width):
    values = values.astype(np.float64)
    found = segmentation.resized(values, height=height, width=width)
    turned = segmentation.resized(values.T, height=width, width=height)

    assert values.min() - 1e-12 <= found.min()
    assert found.max() <= values.max() + 1e-12
    assert np.abs(turned.T - found).max() < 1e-12


@given(SIDES, SIDES, st.floats(0, 1, width=32))
def test_a_constant_stays_exactly_itself(height, width, value):
    found = segmentation.resized(np.full((3, 4), value), height=height, width=width)

    assert (found == value).all()


@given(MAPS)
def test_a_map_of_the_right_size_stays_exactly_itself(values):
    height, width = values.shape
    found = segmentation.resized(values.astype(np.float64), height=height, width=width)

    assert (found == values).all()


@pytest.mark.parametrize("threshold", [0.0, 0.25, 0.5])
def test_a_probability_at_the_threshold_is_outside(threshold):
    values = np.full((2, 2), threshold, np.float32)

    at = segmentation.marked(values, height=5, width=3, threshold=threshold)
    above = segmentation.marked(
        np.nextafter(values, np.float32(1)), height=5, width=3, threshold=threshold
    )
    assert not at.any()
    assert above.all()


@given(MAPS, st.sampled_from([0.0, 0.25, 0.3, 0.5, 0.875]))
def test_a_higher_threshold_marks_no_more(values, threshold):
    size = {"height": 5, "width": 4}
    low = segmentation.marked(values, threshold=threshold, **size)
    high = segmentation.marked(values, threshold=threshold + 0.1, **size)

    assert not (high & ~low).any()


@given(MASKS)
def test_counts_equal_a_double_loop(masks):
    found, truth = masks
    tp, fp, fn, tn = counted_by_hand(found, truth)

    counts = segmentation.compared(found, truth)
    assert (counts.tp, counts.fp, counts.fn, counts.tn) == (tp, fp, fn, tn)
    assert counts.marked == (tp + fp) / found.size
    assert counts.iou == (tp / (tp + fp + fn) if tp + fp + fn else 1.0)


@given(MASKS)
def test_iou_is_symmetric_and_bounded_and_one_for_equals_alone(masks):
    found, truth = masks
    iou = segmentation.compared(found, truth).iou

    assert 0 <= iou <= 1
    assert iou == segmentation.compared(truth, found).iou
    assert (iou == 1) == (found == truth).all()


def test_masks_of_two_shapes_are_not_compared():
    with pytest.raises(DataError, match=r"one shape, got \(2, 3\) and \(3, 2\)"):
        segmentation.compared(np.ones((2, 3), bool), np.ones((3, 2), bool))


@pytest.mark.parametrize(("found", "iou"), [(0.0, 1.0), (1.0, 0.0)])
def test_where_there_is_nothing_to_find_only_nothing_is_right(found, iou):
    nowhere = np.zeros((4, 6), bool)

    rows = segmentation.outcomes([sample(nowhere)], [np.full((2, 2), found, np.float32)])

    assert rows.values["iou"].tolist() == [iou]
    assert rows.values["tp"].tolist() == rows.values["fn"].tolist() == [0]
    assert rows.values["fp"].tolist() == [24 * found]


def test_outcomes_are_one_row_per_sample():
    left = np.zeros((4, 10), bool)
    left[:, :5] = True
    samples = [
        sample(left, "a", decoy="dog", twin="ta", part="seen"),
        sample(left, "b", phrase="the sky"),
        sample(np.zeros((10, 20), bool), "c"),
    ]
    tile = np.zeros((4, 10), np.float32)
    tile[:, 4:7] = 0.9
    speck = np.zeros((10, 20), np.float32)
    speck[0, 0] = 1

    rows = segmentation.outcomes(samples, [tile, tile * 0, speck], errors={"d": "broken"})

    assert rows.id == ("a", "b", "c")
    assert rows.group == ("ga", "gb", "gc")
    assert rows.part == ("seen", "", "")
    assert rows.twin == ("ta", None, None)
    assert rows.decoy == ("dog", None, None)
    assert rows.truth == ("a cat", "the sky", "a cat")
    assert rows.prediction == ("30 % of the picture", "nothing", "under 1 % of the picture")
    assert rows.errors == {"d": "broken"}
    assert tuple(rows.values) == segmentation.SEGMENTATION.values
    expected = {
        "tp": [4, 0, 0],
        "fp": [8, 0, 1],
        "fn": [16, 20, 0],
        "tn": [12, 20, 199],
        "iou": [4 / 28, 0, 0],
    }
    assert {name: column.tolist() for name, column in rows.values.items()} == expected
    assert all(column.dtype == np.float64 for column in rows.values.values())


@pytest.mark.parametrize(
    ("pixels", "told"), [(0, "nothing"), (3, "under 1 %"), (4, "1 %"), (10, "2 %"), (400, "100 %")]
)
def test_the_prediction_tells_how_much_was_found(pixels, told):
    found = (np.arange(400) < pixels).reshape(20, 20).astype(np.float32)

    rows = segmentation.outcomes([sample(np.zeros((20, 20), bool))], [found])
    assert rows.prediction[0].removesuffix(" of the picture") == told


@given(
    MAPS,
    arrays.arrays(np.bool_, st.tuples(SIDES, SIDES)),
    st.sampled_from([0.3, segmentation.THRESHOLD]),
)
def test_a_row_equals_resizing_and_counting_by_hand(values, inside, threshold):
    resized = pixel_by_pixel(values, *inside.shape)
    # Where a pixel lies on the threshold up to rounding, either side is right.
    if np.abs(resized - threshold).min() < 1e-9:
        return
    expected = counted_by_hand(resized > threshold, inside)

    rows = segmentation.outcomes([sample(inside)], [values], threshold=threshold)
    assert tuple(int(rows.values[name][0]) for name in ("tp", "fp", "fn", "tn")) == expected


def test_the_threshold_is_one_half_unless_the_decoder_says_otherwise():
    faint = np.full((3, 3), 0.499, np.float32)
    everywhere = sample(np.ones((6, 5), bool))

    assert segmentation.outcomes([everywhere], [faint]).values["iou"].tolist() == [0]
    assert segmentation.outcomes([everywhere], [faint + 0.002]).values["iou"].tolist() == [1]
    assert segmentation.outcomes([everywhere], [faint], threshold=0.3).values["iou"].tolist() == [1]


@given(st.permutations(range(4)))
def test_rows_are_the_same_in_any_order(order):
    rng = rng_for("order")
    samples = [sample(rng.random((3 + i, 5)) > 0.5, f"s{i}") for i in range(4)]
    maps = [rng.random((4, 4)).astype(np.float32) for _ in range(4)]
    straight = segmentation.outcomes(samples, maps)

    found = segmentation.outcomes([samples[i] for i in order], [maps[i] for i in order])

    for name, column in found.values.items():
        assert column.tolist() == straight.values[name][list(order)].tolist()


def test_no_samples_give_no_rows():
    rows = segmentation.outcomes([], [], errors={"a": "why"})

    assert rows.n == 0
    assert [len(column) for column in rows.values.values()] == [0] * len(
        segmentation.SEGMENTATION.values
    )


@pytest.mark.parametrize("phrase", [None, "", "  "])
def test_a_missing_phrase_is_refused(phrase):
    with pytest.raises(
        DataError, match=f"sample 's': expected a phrase to look for, got {phrase!r}"
    ):
        segmentation.outcomes(
            [sample(np.ones((4, 6), bool), phrase=phrase)], [np.zeros((2, 2), np.float32)]
        )


@pytest.mark.parametrize("value", [-0.1, 1.01, 7.3, math.nan, math.inf, -math.inf])
def test_what_is_no_probability_is_refused(value):
    mask = np.zeros((3, 3), np.float32)
    mask[1, 1] = value

    with pytest.raises(ModelError, match="sample 's': expected probabilities from 0 to 1"):
        segmentation.outcomes([sample(np.ones((4, 6), bool))], [mask])


@pytest.mark.parametrize("shape", [(3,), (1, 3, 3), (0, 4), (3, 0)])
def test_a_map_of_another_shape_is_refused(shape):
    with pytest.raises(ModelError, match=r"sample 's': expected probabilities of shape \(h, w\)"):
        segmentation.outcomes([sample(np.ones((4, 6), bool))], [np.zeros(shape, np.float32)])


@pytest.mark.parametrize("threshold", [-0.1, 1.0, 30, math.nan])
def test_a_threshold_that_decides_nothing_is_refused(threshold):
    with pytest.raises(ModelError, match="threshold of at least 0 and below 1"):
        segmentation.outcomes([], [], threshold=threshold)


@pytest.mark.parametrize("n", [0, 2])
def test_every_sample_needs_its_mask(n):
    with pytest.raises(DataError, match=f"one mask per sample, got {n} for 1"):
        segmentation.outcomes([sample(np.ones((4, 6), bool))], [np.zeros((2, 2), np.float32)] * n)

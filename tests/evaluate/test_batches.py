"""Batches of one size, of pictures of which few are decoded at a time."""

from __future__ import annotations

import io
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from transformers.image_processing_base import BatchFeature

from natadv.evaluate import batches
from natadv.evaluate.batches import filled_up_lightly, has_rows, joined, prefetch, within_budget
from natadv.evaluate.compute import compute
from natadv.evaluate.loaded_model import LoadedModel
from natadv.tasks import ASKED

SIDE = 96
"""Larger than a picture that only fills up."""
WIDTHS = (SIDE, SIDE, 3 * SIDE)


def px(images):
    return sum(image.width * image.height for image in images)


@given(st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), max_size=30), st.integers(1, 7))
def test_groups_keep_to_the_budget_the_size_and_the_order(sizes, most):
    opened = [(at, Image.new("RGB", size)) for at, size in enumerate(sizes)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batches, "PIXELS_AT_ONCE", 1000)
        groups = list(within_budget(iter(opened), most=most))

    assert [key for group in groups for key, _ in group] == list(range(len(sizes)))
    for group in groups:
        assert 1 <= len(group) <= most
        assert len(group) == 1 or px(image for _, image in group) <= 1000


def test_usual_photographs_of_a_batch_go_together():
    opened = [(at, Image.new("RGB", (640, 480))) for at in range(64)]

    assert [len(group) for group in within_budget(opened, most=64)] == [64]


def test_what_fills_up_is_small_only_where_the_last_picture_is_too_large(monkeypatch):
    monkeypatch.setattr(batches, "PIXELS_AT_ONCE", 4 * SIDE * SIDE)
    large = Image.new("RGB", (SIDE, SIDE // 2), "red")

    assert filled_up_lightly([large], 4) == [large] * 4
    first, *rest = filled_up_lightly([large], 9)
    assert first is large
    assert {image.size for image in rest} == {(32, 16)}
    assert {image.getpixel((0, 0)) for image in rest} == {(255, 0, 0)}


def array(rows, *shape, dtype=np.float32):
    return np.random.default_rng(rows).integers(0, 9, (rows, *shape)).astype(dtype)


LIKE = {
    "array": lambda n: array(n, 3, 4),
    "tensor": lambda n: torch.from_numpy(array(n, 3, 4)),
    "mapping": lambda n: {"pixels": torch.from_numpy(array(n, 2)), "mask": array(n, dtype=bool)},
    "feature": lambda n: BatchFeature({"pixel_values": torch.from_numpy(array(n, 2))}),
    "list": lambda n: [f"picture {i}" for i in range(n)],
    "tuple": lambda n: tuple(array(5)[:i] for i in range(n)),
}


@pytest.mark.parametrize("kind", LIKE)
def test_rows_are_joined_in_what_they_came_in(kind):
    parts = [LIKE[kind](n) for n in (3, 1, 2)]

    assert all(has_rows(part, n) for part, n in zip(parts, (3, 1, 2), strict=True))
    found = joined(parts)
    assert type(found) is type(parts[0])
    assert has_rows(found, 6)
    flat = [list(p.values()) if kind in ("mapping", "feature") else [p] for p in (*parts, found)]
    for *pieces, whole in zip(*flat, strict=True):
        rows = [row for piece in pieces for row in piece]
        assert all(np.array_equal(a, b) for a, b in zip(rows, whole, strict=True))


@pytest.mark.parametrize(
    ("prepared", "count"),
    [
        (None, 1),
        ("ab", 2),
        ({}, 2),
        ({"pixels": array(2, 3), "scale": 0.5}, 2),
        (array(3, 2), 2),
        (np.float32(1), 1),
        (array(4, 2)[::2], 2),
        (torch.zeros(3, 2).T, 2),
        # All of one thing and all of another, or a picture each?
        ((array(2, 3), array(2, 3)), 2),
        ([array(1, 3)], 1),
        ((array(3, 3), array(3, 3)), 3),
    ],
)
def test_what_may_be_something_else_than_rows_is_left_alone(prepared, count):
    assert not has_rows(prepared, count)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (array(2, 3), array(2, 4)),
        (array(2, 3), array(2, 3, dtype=np.float64)),
        (array(2, 3), torch.zeros(2, 3)),
        ({"a": array(2)}, {"b": array(2)}),
        ({"a": array(2, 3)}, {"a": array(2, 4)}),
        ([1], (2,)),
    ],
)
def test_parts_that_are_unlike_are_not_joined(one, other):
    assert joined([one, other]) is None


@pytest.fixture
def large_samples(clean_samples):
    """Of two sizes, so that a budget is met within a batch."""
    rows = []
    for at, sample in enumerate(clean_samples):
        out = io.BytesIO()
        image = Image.open(io.BytesIO(sample.image)).resize((WIDTHS[at % 3], SIDE))
        image.save(out, "PNG")
        mask = io.BytesIO()
        Image.new("L", image.size, 255).save(mask, "PNG")
        asked = {"phrase": "a cat", "mask": mask.getvalue(), "question": "is it red"}
        rows.append(replace(sample, image=out.getvalue(), answers=("yes",) * 4, **asked))
    return rows


def colours(images):
    return np.stack([np.asarray(image, np.float64).mean(axis=(0, 1)) for image in images])


def padded(images):
    """As many columns as the widest picture of a call has."""
    rows = np.zeros((len(images), 3, max(image.width for image in images)))
    rows[:, :, 0] = colours(images)
    return rows


PREPARED = {
    "list": (lambda images: images, colours),
    "array": (colours, lambda rows: rows),
    "tensor": (lambda images: torch.from_numpy(colours(images)), lambda rows: rows.numpy()),
    "mapping": (lambda images: {"x": colours(images)}, lambda rows: rows["x"]),
    "unlike parts": (padded, lambda rows: rows[:, :, 0]),
    "no rows": (lambda images: (colours(images), colours(images)), lambda pair: pair[1]),
}


@pytest.mark.parametrize("kind", PREPARED)
def test_no_budget_moves_an_embedding(
    kind, make_unit, pack, large_samples, loaded, eyes, monkeypatch
):
    prepare, rows_of = PREPARED[kind]
    looked = []

    def embed(prepared):
        rows = rows_of(prepared)
        looked.append(len(rows))
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)

    monkeypatch.setattr(eyes, "prepare", prepare)
    monkeypatch.setattr(eyes, "embed_images", embed)
    dataset = pack("large", large_samples, tasks=tuple(ASKED))
    unit = make_unit(revision=dataset.card.revision)
    found = []
    for at, most in enumerate((2**25, 3 * SIDE * SIDE, 1)):
        monkeypatch.setattr(batches, "PIXELS_AT_ONCE", most)
        cache = type(loaded.cache)(loaded.cache.path.parent, f"budget-{at}")
        own = LoadedModel(eyes, cache, batch_size=4)
        found.append(compute([unit], dataset, clean=None, loaded=own)[unit.key]["outcomes"])

    assert found[0] == found[1] == found[2]
    assert len(found[0]["id"]) == 10
    assert set(looked) == {4}


def test_preprocessing_is_never_given_more_pixels_than_the_budget(
    make_unit, pack, large_samples, loaded, eyes, monkeypatch
):
    budget = 2 * SIDE * SIDE
    given_to = []
    monkeypatch.setattr(batches, "PIXELS_AT_ONCE", budget)
    monkeypatch.setattr(eyes, "prepare", lambda images: given_to.append(images) or colours(images))
    monkeypatch.setattr(
        eyes, "embed_images", lambda rows: rows / np.linalg.norm(rows, axis=1)[:, None]
    )
    dataset = pack("large", large_samples, tasks=tuple(ASKED))
    compute([make_unit(revision=dataset.card.revision)], dataset, clean=None, loaded=loaded)

    assert sum(map(len, given_to)) == 10  # nothing is prepared again to fill up
    assert all(len(images) == 1 or px(images) <= budget for images in given_to)
    assert max(map(len, given_to)) > 1
    assert max(map(px, given_to)) > budget


@pytest.mark.parametrize("task", ["segmentation", "vqa"])
def test_a_model_that_takes_questions_is_never_given_more_pixels_than_the_budget(
    task, make_unit, pack, large_samples, loaded, monkeypatch
):
    budget = 2 * SIDE * SIDE
    monkeypatch.setattr(batches, "PIXELS_AT_ONCE", budget)
    given_to = []

    class Alone:
        def segment(self, images, phrases):
            given_to.append(images)
            return np.stack([np.full((4, 4), np.asarray(i)[0, 0, 0] / 255) for i in images])

        def answer(self, images, questions):
            given_to.append(images)
            return [f"{image.width} wide" for image in images]

    dataset = pack("large", large_samples, tasks=tuple(ASKED))
    unit = make_unit(task=task, dataset="large", revision=dataset.card.revision)
    own = LoadedModel(Alone(), loaded.cache, batch_size=8)
    rows = compute([unit], dataset, clean=None, loaded=own)[unit.key]["outcomes"]

    assert rows["id"] == [sample.id for sample in large_samples]
    if task == "vqa":
        assert rows["prediction"] == [f"{WIDTHS[at % 3]} wide" for at in range(10)]
    fillers = 8 * 32 * 32
    assert {len(images) for images in given_to} == {8}
    for images in given_to:
        assert px(images) <= budget + fillers or px(images[1:]) <= fillers


@given(st.lists(st.integers() | st.none()), st.integers(1, 4))
def test_items_come_whole_and_in_order(items, depth):
    assert list(prefetch(iter(items), depth=depth)) == items


def test_the_next_item_is_made_while_this_one_is_used():
    made = threading.Event()

    def items():
        yield 1
        made.set()
        yield 2

    found = prefetch(items())

    assert next(found) == 1
    assert made.wait(timeout=10)
    assert list(found) == [2]


def test_no_more_than_the_depth_is_made_ahead():
    made = []
    found = prefetch((made.append(i) or i for i in range(100)), depth=2)

    for used in range(10):
        next(found)
        assert len(made) <= used + 3
    found.close()
    assert len(made) <= 13


def test_what_making_an_item_raises_is_raised_in_its_place():
    def items():
        yield 1
        raise KeyError("planted")

    found = prefetch(items())

    assert next(found) == 1
    with pytest.raises(KeyError, match="planted"):
        next(found)


def test_leaving_early_leaves_no_thread_behind():
    before = threading.active_count()
    found = prefetch(iter(range(100)))
    next(found)
    found.close()

    assert threading.active_count() == before

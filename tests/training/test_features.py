"""What is computed of a tower is computed once."""

from __future__ import annotations

import errno
import io
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from natadv.errors import StoreError
from natadv.evaluate.pictures import squared
from natadv.models.adapters.encoder import DualEncoder
from natadv.models.resolve import resolve_one
from natadv.storage.progress import Progress
from natadv.tasks.masks import truth_mask
from natadv.training import features
from natadv.training.features import (
    STATE,
    ArrayFile,
    FeatureSource,
    cached_arrays,
    mask_targets,
    picture_features,
    whole,
)
from natadv.training.tower import load_tower
from natadv.training.train import find_data, train
from natadv.training.training_rows import read_rows

FEW = ("steps=1", "batch=2")


@pytest.fixture
def seen(monkeypatch):
    """The number of pictures of each pass through a tower."""
    passes = []
    forward_features = DualEncoder.forward_features

    def counted(self, prepared, layers):
        passes.append(len(prepared["pixel_values"]))
        return forward_features(self, prepared, layers)

    monkeypatch.setattr(DualEncoder, "forward_features", counted)
    return passes


@pytest.fixture(scope="module")
def towers(root, plan_for):
    """Loads a tower; layers as `--set` takes them."""

    def load(name, *overrides):
        settings = plan_for("segmentation", *overrides, out=root).settings
        return load_tower(
            resolve_one(name, root=root, wanted="to test"), settings, device="cpu", threads=1
        )

    return load


@pytest.fixture(scope="module")
def tower(towers):
    return towers("mini-clip")


@pytest.fixture
def make_source(root, tmp_path):
    def make(limit=None):
        dataset = find_data("animals", "segmentation", root=root)
        progress = Progress("reading", 80, unit="rows", stream=io.StringIO())
        rows = read_rows(dataset, "segmentation", limit=limit, progress=progress)
        return FeatureSource(dataset, limit, rows, tmp_path / "cache", io.StringIO())

    return make


@pytest.fixture
def source(make_source):
    return make_source()


def test_equal_bytes_are_one_picture(source):
    assert source.rows.n == 80
    assert list(source.rows.pictures) == [row // 2 for row in range(80)]
    assert list(source.rows.first_rows) == list(range(0, 80, 2))


def test_features_are_those_of_each_picture(source, tower, samples):
    layers = picture_features(source, tower, whole)
    for number in (0, 17, 39):
        picture = Image.open(io.BytesIO(samples[2 * number].image)).convert("RGB")
        look = tower.dense.forward_features(tower.dense.prepare([picture]), tower.layers)
        for layer, places in zip(layers, look.features, strict=True):
            assert layer.shape == (40, 8, 8, 128)
            assert layer[number] == pytest.approx(places[0], abs=0.02)


def test_each_picture_goes_through_the_tower_once(source, tower, seen):
    first = picture_features(source, tower, whole)
    assert sum(seen) == 40

    second = picture_features(source, tower, whole)

    assert sum(seen) == 40
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def test_an_interrupted_pass_goes_on_where_it_was(source, tower, seen, monkeypatch, tmp_path):
    expected = [np.array(layer) for layer in picture_features(source, tower, whole)]
    again = FeatureSource(source.dataset, None, source.rows, tmp_path / "other", source.stream)
    monkeypatch.setattr(features, "AT_ONCE", 8)
    monkeypatch.setattr(features, "_COMMIT_EVERY_S", 0.0)
    forward_features = DualEncoder.forward_features

    def dies(self, prepared, layers):
        if len(seen) == 4:
            raise KeyboardInterrupt
        return forward_features(self, prepared, layers)

    seen.clear()
    with monkeypatch.context() as patch:
        patch.setattr(DualEncoder, "forward_features", dies)
        with pytest.raises(KeyboardInterrupt):
            picture_features(again, tower, whole)
    (state,) = (tmp_path / "other").rglob(STATE)
    done = json.loads(state.read_text())["rows"]
    assert 0 < done < 40
    seen.clear()

    found = picture_features(again, tower, whole)

    assert sum(seen) == 40 - done
    assert all(np.allclose(a, b, atol=0.02) for a, b in zip(found, expected, strict=True))


def test_a_second_training_computes_none(make_plan, seen, tmp_path):
    train(make_plan("segmentation", *FEW, out=tmp_path / "one"))
    seen.clear()

    train(make_plan("segmentation", *FEW, "seed=5", out=tmp_path / "two"))

    # The one picture that asks for the sizes of its layers.
    assert seen == [1]


@pytest.mark.parametrize(
    ("model", "overrides", "limit", "pictures"),
    [
        ("mini-siglip", (), None, 40),
        ("mini-clip", ("layers=[1, 3]",), None, 40),
        ("mini-clip", (), 20, 10),
    ],
)
def test_another_tower_layer_or_limit_is_computed_anew(
    make_source, towers, tower, seen, model, overrides, limit, pictures
):
    picture_features(make_source(), tower, whole)
    other = towers(model, *overrides)
    seen.clear()

    picture_features(make_source(limit), other, whole)

    assert sum(seen) == pictures


def test_another_view_is_computed_anew(source, tower, seen):
    picture_features(source, tower, whole)
    picture_features(source, tower, squared)

    assert sum(seen) == 80


def test_targets_are_the_means_of_what_each_pixel_covers(source, samples):
    targets = mask_targets(source, height=32, width=32)
    mask = truth_mask(samples[5])
    by_hand = mask.reshape(32, 3, 32, 3).mean(axis=(1, 3)) * 255

    assert targets.shape == (80, 32, 32)
    assert targets[5].astype(float) == pytest.approx(by_hand, abs=1)


@pytest.fixture
def numbers():
    """Blocks of 3 of the numbers 0 to 9."""

    def blocks(start):
        for first in range(start, 10, 3):
            yield [np.arange(first, min(first + 3, 10))[:, None]]

    return blocks


NUMBERS = [ArrayFile("numbers", (1,), np.int64)]
HOW = {"unit": "numbers", "stream": io.StringIO()}


def test_a_full_disk_is_reported_before_anything_is_computed(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def blocks(start):
        raise AssertionError("nothing may be computed")

    monkeypatch.setattr(os, "posix_fallocate", full)

    with pytest.raises(StoreError, match=r"No space left on device; free space, or .*--limit"):
        cached_arrays(tmp_path / "x", NUMBERS, rows=10, blocks=blocks, **HOW)
    assert not list((tmp_path / "x").glob("*.npy"))


def test_the_space_is_taken_before_the_first_block(tmp_path, numbers):
    sizes = []

    def blocks(start):
        sizes.append((tmp_path / "x" / "numbers.npy").stat().st_blocks * 512)
        return numbers(start)

    (found,) = cached_arrays(tmp_path / "x", NUMBERS, rows=10, blocks=blocks, **HOW)

    assert sizes[0] >= 80
    assert list(found[:, 0]) == list(range(10))


def test_what_is_there_is_read_and_not_written(tmp_path, numbers):
    cached_arrays(tmp_path / "x", NUMBERS, rows=10, blocks=numbers, **HOW)

    (found,) = cached_arrays(tmp_path / "x", NUMBERS, rows=10, blocks=None, **HOW)

    assert list(found[:, 0]) == list(range(10))
    with pytest.raises(ValueError, match="read-only"):
        found[0] = 1


def test_too_few_blocks_are_an_error_and_not_zeros(tmp_path, numbers):
    with pytest.raises(StoreError, match="expected 12 rows, got 10"):
        cached_arrays(tmp_path / "x", NUMBERS, rows=12, blocks=numbers, **HOW)


HOLDER = """
import fcntl, sys
file = open(sys.argv[1], "w")
fcntl.lockf(file, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


def test_two_trainings_do_not_fill_the_same_arrays_at_once(tmp_path, numbers):
    (tmp_path / "x").mkdir()
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "x" / "lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"held\n"

        class Stream(io.StringIO):
            def write(self, text):
                if text.startswith("another training is filling"):
                    assert not list((tmp_path / "x").glob("*.npy"))
                    other.stdin.close()
                return super().write(text)

        how = {"unit": "numbers", "stream": Stream()}
        (found,) = cached_arrays(tmp_path / "x", NUMBERS, rows=10, blocks=numbers, **how)

    assert how["stream"].getvalue().count("another training is filling") == 1
    assert list(found[:, 0]) == list(range(10))


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "numbers.npy").write_bytes(b"\x93NUMPY"),
        lambda folder: (folder / "numbers.npy").unlink(),
        lambda folder: np.save(folder / "numbers.npy", np.zeros((9, 1))),
        lambda folder: (folder / STATE).write_text("{"),
        lambda folder: (folder / STATE).write_text("[]"),
    ],
)
def test_a_damaged_cache_is_reported(tmp_path, numbers, damage):
    cached_arrays(tmp_path / "x", NUMBERS, rows=10, blocks=numbers, **HOW)
    damage(tmp_path / "x")

    with pytest.raises(StoreError, match="only a cache: delete"):
        cached_arrays(tmp_path / "x", NUMBERS, rows=10, blocks=numbers, **HOW)

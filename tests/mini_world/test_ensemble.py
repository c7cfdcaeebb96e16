"""The committed ensemble, which pictures are filtered with and searched against."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from mini_world.ensemble import (
    MEMBERS,
    fingerprint,
    load_ensemble,
    probabilities,
    save_ensemble,
)
from mini_world.params import ROOT, params
from mini_world.pool import seen_by_model
from natadv.data.card import load_card
from natadv.data.reader import read_samples
from natadv.errors import DataError


def pixels_of(name: str, rows: int):
    folder = ROOT / "fixtures" / "datasets" / name
    samples = read_samples(folder, load_card(folder), start=0, stop=rows)
    images = [Image.open(io.BytesIO(s.image)).convert("RGB") for s in samples]
    return np.stack(list(map(seen_by_model, images))), np.array([s.label for s in samples])


def test_every_picture_of_mini_natural_fools_every_member():
    pixels, labels = pixels_of("mini-natural", 660)
    p = probabilities(load_ensemble(), pixels)

    assert p.shape == (len(MEMBERS), 660, 10)
    assert p[:, np.arange(660), labels].max() < params("mini-natural")["threshold"]
    assert (p.argmax(axis=2) != labels).all()


def test_the_members_know_what_was_not_filtered():
    pixels, labels = pixels_of("mini", 300)
    right = (probabilities(load_ensemble(), pixels).argmax(axis=2) == labels).mean(axis=1)

    assert (right > 0.5).all()


def test_what_is_saved_is_loaded(tmp_path):
    torch.manual_seed(1)
    members = {name: build().eval() for name, build in MEMBERS.items()}
    save_ensemble(members, tmp_path / "ensemble.safetensors")
    again = load_ensemble(tmp_path / "ensemble.safetensors")

    assert fingerprint(again) == fingerprint(members) != fingerprint(load_ensemble())
    pixels = np.random.default_rng(1).integers(0, 256, (3, 64, 64, 3)).astype(np.uint8)
    np.testing.assert_array_equal(probabilities(again, pixels), probabilities(members, pixels))


@pytest.mark.parametrize("content", [None, b"", b"nothing"])
def test_a_spoilt_file_is_named_with_the_command_that_makes_it(tmp_path, content):
    path = tmp_path / "ensemble.safetensors"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(DataError, match=r"ensemble.safetensors: .*mini_world\.ensemble"):
        load_ensemble(path)

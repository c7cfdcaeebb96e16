"""The tiny models are the same networks in either library, and fed with either scale of pixels."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPModel

from natadv.models.zoo import ZOO

from . import answerers, hub
from .archives import ROOT, shown


@pytest.fixture(scope="module")
def pixels() -> torch.Tensor:
    """Random, in OpenAI's scale."""
    return torch.randn((3, 3, 64, 64), generator=torch.Generator().manual_seed(1))


def test_picture_tower_is_the_same_in_both_libraries(pixels: torch.Tensor) -> None:
    row = ZOO["fare2-l14"]
    theirs, (ours, _) = hub._clip(row), hub._open_clip(row)
    ours.visual.load_state_dict(hub._in_open_clip(theirs.state_dict()))
    with torch.inference_mode():
        expected = theirs.get_image_features(pixel_values=pixels).pooler_output
        found = ours.encode_image(pixels)

    assert found.numpy() == pytest.approx(expected.numpy(), abs=1e-4)


def test_openais_scale_of_pixels_changes_nothing(
    pixels: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "NOISE", 0.0)
    mean, std = (torch.tensor(v)[:, None, None] for v in (hub.MEAN, hub.STD))
    original = CLIPModel.from_pretrained(ROOT / "fixtures/models/mini-clip")
    with torch.inference_mode():
        expected = original.vision_model.embeddings((pixels * std + mean) * 2 - 1)
        found = hub._clip(ZOO["clip-vit-b32"]).vision_model.embeddings(pixels)

    assert found.numpy() == pytest.approx(expected.numpy(), abs=1e-4)


def test_position_embeddings_of_the_same_size_stay() -> None:
    stored = torch.arange(32.0).reshape(16, 2)

    assert hub._resized(stored, 4).numpy() == pytest.approx(stored.numpy())
    assert hub._resized(stored, 8).shape == (64, 2)


def test_shards_hold_all_weights_once(tmp_path: Path) -> None:
    state = {name: torch.full((2,), float(i)) for i, name in enumerate("abcde")}
    save_file(state, tmp_path / "model.safetensors")
    answerers.shard(tmp_path)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())["weight_map"]
    files = {file: load_file(tmp_path / file) for file in set(index.values())}

    assert len(files) == 2
    assert {name: files[file][name].tolist() for name, file in index.items()} == {
        name: tensor.tolist() for name, tensor in state.items()
    }
    assert sum(map(len, files.values())) == len(state)


def test_questions_are_to_be_answered_by_yes_or_no() -> None:
    asked = [hub._asked(picture, number) for number, picture in enumerate(shown("mini"))]

    assert {answer for _, answer in asked} == {"yes", "no"}

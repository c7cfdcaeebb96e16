"""The committed mini models are small, load with transformers, and know the ten classes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mini_world.embedding import as_input, embed_texts, look
from mini_world.params import ROOT
from mini_world.pool import seen_by_model
from mini_world.tokenizer import CONTEXT, make_tokenizer
from mini_world.train import MODELS
from natadv.data.card import load_card
from natadv.data.images import decode_image
from natadv.data.reader import read_samples
from natadv.models.loading import load
from natadv.models.resolve import resolve

LARGEST_BYTES = 8_000_000


def folder_of(name: str) -> Path:
    return ROOT / "fixtures" / "models" / name


def adapter(name: str):
    (spec,) = resolve(name, root=ROOT)
    return load(spec, device="cpu", dtype="float32", threads=1)


@pytest.mark.parametrize("name", MODELS)
def test_weights_are_small_and_finite(name):
    path = folder_of(name) / "model.safetensors"

    assert path.stat().st_size <= LARGEST_BYTES
    assert all(torch.isfinite(tensor).all() for tensor in load_file(path).values())


@pytest.mark.parametrize("name", MODELS)
def test_the_committed_tokenizer_is_the_one_that_the_code_makes(name):
    saved = json.loads((folder_of(name) / "tokenizer.json").read_text(encoding="utf-8"))

    assert (
        saved["model"]["vocab"]
        == json.loads(make_tokenizer().backend_tokenizer.to_str())["model"]["vocab"]
    )


@pytest.mark.parametrize("name", MODELS)
def test_the_adapter_sees_what_training_saw(name):
    from transformers import AutoTokenizer, CLIPModel, SiglipModel

    folder = ROOT / "fixtures" / "datasets" / "mini"
    samples = read_samples(folder, load_card(folder), start=0, stop=6)
    kind = CLIPModel if MODELS[name].kind == "clip" else SiglipModel
    model = kind.from_pretrained(folder_of(name), dtype=torch.float32).eval()
    pictures = [decode_image(sample.image, where=sample.id) for sample in samples]
    with torch.inference_mode():
        pixels = torch.stack([as_input(seen_by_model(p)[None].copy())[0] for p in pictures])
        trained = torch.nn.functional.normalize(look(model, pixels).embeddings, dim=-1)
        ids = AutoTokenizer.from_pretrained(folder_of(name))(
            [MODELS[name].spell("a photo of a cat.")],
            padding="max_length",
            max_length=CONTEXT,
            return_tensors="pt",
        )["input_ids"]
        text = torch.nn.functional.normalize(embed_texts(model, ids), dim=-1)

    served = adapter(name)

    torch.testing.assert_close(
        torch.from_numpy(served.embed_images(served.prepare(pictures))),
        trained,
        atol=2e-3,
        rtol=0,
    )
    torch.testing.assert_close(
        torch.from_numpy(served.embed_texts(["a photo of a cat."])), text, atol=1e-4, rtol=0
    )

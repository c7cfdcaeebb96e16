from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import AutoImageProcessor, AutoModel

from natadv.errors import ModelError
from natadv.models.adapters.attention import Attention, eager
from natadv.types import Explainable


def test_maps_are_those_of_transformers(tiny, load_folder, photographs):
    model = load_folder(tiny)
    found = model.attention(model.prepare(photographs))
    reference = AutoModel.from_pretrained(tiny, attn_implementation="eager").eval()
    pixels = AutoImageProcessor.from_pretrained(tiny, backend="pil")(
        images=photographs, return_tensors="pt"
    )
    with torch.inference_mode():
        expected = reference.vision_model(**pixels, output_attentions=True).attentions

    assert isinstance(model, Explainable)
    assert len(found) == len(expected) == 2
    for ours, theirs in zip(found, expected, strict=True):
        assert ours == pytest.approx(theirs.numpy(), abs=1e-6)
        assert ours.sum(axis=-1) == pytest.approx(np.ones(ours.shape[:-1]), abs=1e-5)


def test_embeddings_are_the_same_bytes_before_and_after(tiny, load_folder, photographs, embedded):
    model = load_folder(tiny)
    before = embedded(model, photographs)
    model.attention(model.prepare(photographs))

    assert embedded(model, photographs).tobytes() == before.tobytes()


def test_no_picture_gives_no_maps(tiny, load_folder):
    model = load_folder(tiny)

    assert {maps.shape[0] for maps in model.attention(model.prepare([]))} == {0}


def test_maps_that_come_back_as_none_are_an_error(tiny):
    """What a fused kernel gives: silently nothing."""
    fused = AutoModel.from_pretrained(tiny, attn_implementation="sdpa").eval()
    pixels = {"pixel_values": torch.zeros(1, 3, 32, 32)}

    class StaysFused:
        config = fused.config

        def set_attn_implementation(self, name):
            pass

    def forward_features(pixels):
        return fused.vision_model(**pixels, output_attentions=True)

    with pytest.raises(ModelError, match="candidate: its attention maps came back as None"):
        Attention("candidate", StaysFused(), forward_features).maps(pixels)


def test_fused_attention_comes_back_whatever_happens(tiny):
    model = AutoModel.from_pretrained(tiny, attn_implementation="sdpa")

    def fail():
        with eager(model):
            assert model.config._attn_implementation == "eager"
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert model.config._attn_implementation == "sdpa"

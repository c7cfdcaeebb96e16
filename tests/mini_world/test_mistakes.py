"""The planted mistakes change what they should, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from mini_world import mistakes

PROMPTS = ["a photo of a dog.", "a photo of a cat."]


def embedded(factory):
    model = factory().load("cpu", "float32")
    picture = Image.linear_gradient("L").convert("RGB")
    return model.embed_texts(PROMPTS), model.embed_images(model.prepare([picture])), model


def test_each_mistake_moves_the_embeddings_that_it_is_about():
    texts, pictures, model = embedded(mistakes.as_trained)
    weak_texts, weak_pictures, _ = embedded(mistakes.weak_prompts)
    quick_texts, quick_pictures, _ = embedded(mistakes.wrong_activation)

    assert np.array_equal(weak_pictures, pictures)
    weaker = model.embed_texts(["a bad photo of the dog.", "a bad photo of the cat."])
    assert weak_texts == pytest.approx(weaker)
    assert not np.allclose(weak_texts, texts, atol=0.01)
    for changed, right in ((quick_texts, texts), (quick_pictures, pictures)):
        # Another activation, yet not another network.
        assert not np.allclose(changed, right, atol=1e-4)
        assert (changed * right).sum(axis=1) == pytest.approx(1, abs=0.1)

"""The contrastive losses against plain loops, and the starting point of SigLIP."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mini_world import towers
from mini_world.embedding import look, look_at_some
from mini_world.losses import clip_loss, siglip_loss
from mini_world.tokenizer import make_tokenizer

SCALE, BIAS = 7.0, -3.0
MODEL = SimpleNamespace(logit_scale=torch.tensor(math.log(SCALE)), logit_bias=torch.tensor(BIAS))
RNG = np.random.default_rng(0)
IMAGES, TEXTS = RNG.normal(size=(2, 4, 6))
PAIRS = np.eye(4, dtype=bool) | (RNG.random((4, 4)) < 0.3)


def cosine(a, b) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def called(loss) -> float:
    images, texts = torch.from_numpy(IMAGES), torch.from_numpy(TEXTS)
    return float(loss(MODEL, images, texts, torch.from_numpy(PAIRS)))


def test_clip_loss_shares_the_target_among_true_pairs():
    logits = np.array([[SCALE * cosine(i, t) for t in TEXTS] for i in IMAGES])

    def one_way(rows, pairs) -> float:
        total = 0.0
        for row, true in zip(rows, pairs, strict=True):
            log_p = row - math.log(sum(math.exp(v) for v in row))
            total -= sum(log_p[true]) / sum(true)
        return total / len(rows)

    expected = (one_way(logits, PAIRS) + one_way(logits.T, PAIRS.T)) / 2
    assert called(clip_loss) == pytest.approx(expected, rel=1e-5)


def test_siglip_loss_asks_every_pair():
    total = 0.0
    for i, image in enumerate(IMAGES):
        for j, text in enumerate(TEXTS):
            logit = SCALE * cosine(image, text) + BIAS
            total += math.log1p(math.exp(-logit if PAIRS[i, j] else logit))

    assert called(siglip_loss) == pytest.approx(total / len(IMAGES), rel=1e-5)


def test_siglip_starts_with_the_scale_and_bias_of_its_paper():
    model = towers.siglip(make_tokenizer())

    assert float(model.logit_scale.detach().exp()) == pytest.approx(10.0)
    assert float(model.logit_bias.detach()) == pytest.approx(-10.0)


@pytest.mark.parametrize("build", [towers.clip, towers.siglip])
def test_looking_at_all_patches_is_what_transformers_computes(build):
    model = build(make_tokenizer()).eval()
    pixels = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))

    seen = look(model, pixels)
    reference = model.get_image_features(pixel_values=pixels)

    torch.testing.assert_close(seen.embeddings, reference.pooler_output)
    torch.testing.assert_close(seen.patches, reference.last_hidden_state[:, -64:])


def test_looking_at_some_patches_returns_those():
    model = towers.clip(make_tokenizer()).eval()

    seen = look_at_some(model, torch.zeros(1, 3, 64, 64), torch.tensor([3, 9, 40]))

    assert seen.patches.shape == (1, 3, towers.WIDTH)

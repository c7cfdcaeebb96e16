from __future__ import annotations

import numpy as np
import pytest
import torch

from natadv.heads.config import McanConfig
from natadv.heads.mcan_layers import Norm, Residual, Summary

CONFIG = McanConfig(
    words=9, answers=3, layer=1, image_width=4, hidden=8, heads=2, summary=6, fused=10
)


def test_norm_divides_by_the_unbiased_deviation_plus_its_eps(randomised, noise):
    norm, rows = randomised(Norm(6)), (1e-6 * noise(3, 6)).numpy().astype(np.float64)
    deviation = np.sqrt(((rows - rows.mean(1, keepdims=True)) ** 2).sum(1, keepdims=True) / 5)
    expected = norm.weight.detach().numpy() * (rows - rows.mean(1, keepdims=True))
    expected = expected / (deviation + 1e-6) + norm.bias.detach().numpy()

    found = norm(torch.tensor(rows, dtype=torch.float32)).detach().numpy()
    assert found == pytest.approx(expected, abs=1e-5)
    # So small that an eps within the root would leave nothing.
    assert np.abs(found - norm.bias.detach().numpy()).max() > 0.1


def test_norm_of_large_rows_differs_from_layer_norm_by_the_bias_of_the_deviation(noise):
    rows = 100 * noise(3, 6)
    biased = torch.nn.functional.layer_norm(rows, (6,))

    assert torch.allclose(Norm(6)(rows), biased * (5 / 6) ** 0.5, atol=1e-5)


def test_norm_of_half_precision_is_computed_in_float32(noise):
    rows = (1e-4 * noise(3, 6)).half()

    assert torch.allclose(Norm(6)(rows), Norm(6)(rows.float()))


def test_residual_drops_what_was_found_and_never_what_was_given(randomised, noise):
    residual, given, found = randomised(Residual(CONFIG)), noise(2, 5, 8), noise(2, 5, 8, seed=1)
    assert torch.equal(residual(given, found), residual.norm(given + found))

    residual.train()
    residual.dropout.p = 1.0
    assert torch.equal(residual(given, found), residual.norm(given))


def test_summary_is_the_mean_of_the_tokens_weighted_by_the_softmax_of_their_scores(
    randomised, noise
):
    summary, tokens = randomised(Summary(CONFIG)), noise(2, 5, 8)
    hidden = torch.arange(5) >= torch.tensor([[3], [5]])
    for picture, count in enumerate((3, 5)):
        kept = tokens[picture, :count]
        powers = summary.weigh(kept).exp()
        expected = summary.merge((powers / powers.sum() * kept).sum(0))

        assert torch.allclose(summary(tokens, hidden=hidden)[picture], expected, atol=1e-5)


def test_summary_of_hidden_tokens_alone_is_their_mean(randomised, noise):
    summary, tokens = randomised(Summary(CONFIG)), noise(2, 5, 8)

    found = summary(tokens, hidden=torch.ones(2, 5, dtype=torch.bool))
    assert torch.allclose(found, summary.merge(tokens.mean(1)), atol=1e-5)

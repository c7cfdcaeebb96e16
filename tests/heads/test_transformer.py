"""Against torch's own attention."""

from __future__ import annotations

import pytest
import torch

from natadv.heads.transformer import Attention, FeedForward

WIDTH, HEADS = 12, 3


@pytest.fixture
def attention(randomised):
    return randomised(Attention(WIDTH, heads=HEADS))


@pytest.fixture
def reference(attention):
    """The same weights in the attention of torch."""
    found = torch.nn.MultiheadAttention(WIDTH, HEADS, batch_first=True).eval()
    parts = (attention.q_proj, attention.k_proj, attention.v_proj)
    found.load_state_dict(
        {
            "in_proj_weight": torch.cat([part.weight for part in parts]),
            "in_proj_bias": torch.cat([part.bias for part in parts]),
            "out_proj.weight": attention.out_proj.weight,
            "out_proj.bias": attention.out_proj.bias,
        }
    )
    return found


def test_attention_is_that_of_torch(attention, reference, noise):
    tokens, context = noise(2, 5, WIDTH), noise(2, 7, WIDTH, seed=1)
    hidden = torch.arange(7) >= torch.tensor([[4], [7]])

    for mask in (None, hidden):
        expected, _ = reference(tokens, context, context, key_padding_mask=mask)
        found = attention(tokens, context, hidden=mask)
        assert torch.allclose(found, expected, atol=1e-5)


def test_what_is_hidden_does_not_count(attention, noise):
    tokens, context = noise(1, 5, WIDTH), noise(1, 7, WIDTH, seed=1)
    hidden = torch.arange(7)[None] >= 4

    found = attention(tokens, context, hidden=hidden)
    assert torch.allclose(found, attention(tokens, context[:, :4]), atol=1e-6)
    assert not torch.allclose(found, attention(tokens, context), atol=1e-2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_all_hidden_is_finite(attention, noise, dtype):
    tokens, context = noise(1, 5, WIDTH).to(dtype), noise(1, 7, WIDTH, seed=1).to(dtype)

    found = attention.to(dtype)(tokens, context, hidden=torch.ones(1, 7, dtype=torch.bool))
    found.sum().backward()
    assert torch.isfinite(found).all()
    assert all(torch.isfinite(parameter.grad).all() for parameter in attention.parameters())


def test_dropout_acts_in_training_only(noise):
    tokens = noise(1, 6, WIDTH)
    attention = Attention(WIDTH, heads=HEADS, dropout=0.5)

    assert not torch.equal(attention(tokens, tokens), attention(tokens, tokens))
    attention.eval()
    assert torch.equal(attention(tokens, tokens), attention(tokens, tokens))


def test_feed_forward_by_hand(randomised, noise):
    module, tokens = randomised(FeedForward(4, inner=6, out=3)), noise(2, 5, 4)
    inner = tokens @ module.fc1.weight.T + module.fc1.bias
    expected = inner.clamp(min=0) @ module.fc2.weight.T + module.fc2.bias

    assert torch.allclose(module(tokens), expected, atol=1e-6)
    assert FeedForward(4, inner=6)(tokens).shape == tokens.shape

"""Against explicit loops over pictures, heads and tokens, on a tower of two layers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from natadv.errors import ModelError
from natadv.explain import head_masking
from natadv.explain.head_masking import masked_embeddings
from natadv.explain.layers import LayerwisePass, TowerLayer, attention, side_by_side

B, N, D, HEADS = 3, 5, 6, 2
NEAR = {"rel": 1e-4, "abs": 1e-4}
"""Softmax is in float32."""
NAMES = ("q", "k", "v", "out", "mlp")


def matrices(seed):
    generator = np.random.default_rng(seed)
    return {name: generator.normal(size=(D, D)) for name in NAMES} | {
        "bias": generator.normal(size=D)
    }


LAYERS = [matrices(seed) for seed in range(2)]
FIRST = np.random.default_rng(9).normal(size=(B, N, D))


def tower(*, pooled=False):
    def layer(of):
        q, k, v, out, mlp, bias = (torch.from_numpy(of[name]) for name in (*NAMES, "bias"))

        def join(state, outputs):
            state = state + side_by_side(outputs) @ out.T + bias
            return state + torch.tanh(state @ mlp.T)

        return TowerLayer(HEADS, lambda x: attention(x @ q.T, x @ k.T, x @ v.T, heads=HEADS), join)

    def pool(state):
        return attention(state.mean(1, keepdim=True), state, state, heads=HEADS)

    return LayerwisePass(
        torch.from_numpy(FIRST),
        tuple(map(layer, LAYERS)),
        (lambda outputs: side_by_side(outputs)[:, 0]) if pooled else (lambda state: state[:, 0]),
        grid=(2, 2),
        leading=0 if pooled else 1,
        pool=pool if pooled else None,
    )


def softmax(row):
    powers = np.exp(row - row.max())
    return powers / powers.sum()


def by_loops(picture, masked, *, only_class=False):
    """The state after both layers, without the heads in `masked` (layer, head)."""
    state, width = picture, D // HEADS
    for number, of in enumerate(LAYERS):
        heads = np.zeros((N, D))
        for head in range(HEADS):
            part = slice(head * width, (head + 1) * width)
            q, k, v = (state @ of[name].T[:, part] for name in "qkv")
            for token in range(N):
                if (number, head) in masked and (token == 0 or not only_class):
                    continue
                heads[token, part] = softmax(k @ q[token] / np.sqrt(width)) @ v
        state = state + heads @ of["out"].T + of["bias"]
        state = state + np.tanh(state @ of["mlp"].T)
    return state


@pytest.mark.parametrize("tokens", ["all", "class"])
def test_each_head_is_masked_as_in_loops(tokens):
    found = list(masked_embeddings(tower(), tokens=tokens))

    assert [tuple(of_layer.shape) for of_layer in found] == [(HEADS, B, D)] * 2
    for layer, head in np.ndindex(2, HEADS):
        expected = [by_loops(p, {(layer, head)}, only_class=tokens == "class")[0] for p in FIRST]
        assert found[layer][head].numpy() == pytest.approx(np.array(expected), **NEAR)
    untouched = np.array([by_loops(p, set())[0] for p in FIRST])
    assert all(not np.allclose(rows, untouched) for of_layer in found for rows in of_layer)


def test_a_tower_that_pools_is_masked_for_all_tokens_and_has_no_class_token():
    opened = tower(pooled=True)
    found = list(masked_embeddings(opened))

    for layer, head in np.ndindex(2, HEADS):
        states = torch.from_numpy(np.stack([by_loops(p, {(layer, head)}) for p in FIRST]))
        assert found[layer][head].numpy() == pytest.approx(opened.embed(states).numpy(), **NEAR)
    with pytest.raises(ModelError, match="has no class token; mask the heads for all tokens"):
        next(masked_embeddings(opened, tokens="class"))


def test_without_any_head_the_attention_adds_its_bias_alone():
    opened = tower()
    (layer, _), state = opened.layers, opened.first
    none = torch.zeros_like(layer.attend(state).outputs)
    plain = FIRST + LAYERS[0]["bias"]

    assert layer.join(state, none).numpy() == pytest.approx(
        plain + np.tanh(plain @ LAYERS[0]["mlp"].T)
    )
    both = np.array([by_loops(p, {(0, 0), (0, 1)})[0] for p in FIRST])
    rest = opened.layers[1](layer.join(state, none))
    assert opened.embed(rest).numpy() == pytest.approx(both, **NEAR)


def test_memory_bounds_the_heads_at_once_and_changes_no_number(monkeypatch):
    together = [rows.numpy() for rows in masked_embeddings(tower())]
    widest = []

    def counted(layer):
        def join(state, outputs):
            widest.append(len(state))
            return layer.join(state, outputs)

        return TowerLayer(layer.heads, layer.attend, join)

    monkeypatch.setattr(head_masking, "MOST_NUMBERS", 1)
    opened = tower()
    layers = tuple(map(counted, opened.layers))
    alone = masked_embeddings(
        LayerwisePass(opened.first, layers, opened.finish, grid=(2, 2), leading=1)
    )

    for rows, expected in zip(alone, together, strict=True):
        assert rows.numpy() == pytest.approx(expected, **NEAR)
    assert max(widest) == B
    # Layer 1 and what follows it per head, then layer 2 per head; each layer once for all.
    assert len(widest) == 2 * HEADS + HEADS + 2

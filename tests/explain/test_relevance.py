"""Against the equations, as loops over single numbers, with gradients by differences."""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch

from natadv.explain.layers import LayerwisePass, TowerLayer, attention, side_by_side
from natadv.explain.relevance import (
    Reading,
    Step,
    answer_relevance,
    attention_relevance,
    grad_cam,
)

TOKENS, DIM, HEADS = 4, 4, 2
WIDTH = DIM // HEADS
STEP = 1e-5


def drawn(*shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


MATRICES = [
    {w: 0.6 * drawn(DIM, DIM, seed=10 * i + n) for n, w in enumerate("qkvo")} for i in range(3)
]
TARGET = torch.nn.functional.normalize(drawn(DIM, seed=50), dim=0)
PICTURES = drawn(2, TOKENS, DIM, seed=51)
PROBE = drawn(1, 1, DIM, seed=52)


def layer_of(matrices):
    def attend(state):
        return attention(*(state @ matrices[w] for w in "qkv"), heads=HEADS)

    def join(state, outputs):
        state = state + side_by_side(outputs) @ matrices["o"]
        return state + state.tanh()

    return TowerLayer(HEADS, attend, join)


def opened(*, pooled):
    """Two layers, and the token of a class in front or a pooling attention behind."""
    layers = tuple(map(layer_of, MATRICES[:2]))
    last = MATRICES[2]
    if not pooled:
        return LayerwisePass(PICTURES, layers, lambda s: s[:, 0] @ last["o"], (1, 3), leading=1)

    def pool(state):
        probe = PROBE.expand(len(state), -1, -1) @ last["q"]
        return attention(probe, state @ last["k"], state @ last["v"], heads=HEADS)

    def finish(outputs):
        return side_by_side(outputs)[:, 0] @ last["o"]

    return LayerwisePass(PICTURES, layers, finish, (2, 2), leading=0, pool=pool)


def similarity(embeddings):
    return torch.nn.functional.normalize(embeddings, dim=-1) @ TARGET


# The same network in plain numbers. A state is a list of rows, weights are [head][to][from].


def times(row, matrix):
    return [sum(row[i] * matrix[i][j] for i in range(DIM)) for j in range(DIM)]


def attended(queries, tokens, matrices, weights):
    """The weights of each head, or those given, and what the heads read side by side."""
    q = [times(row, matrices["q"]) for row in queries]
    k, v = ([times(row, matrices[w]) for row in tokens] for w in "kv")
    if weights is None:
        weights = []
        for head in range(HEADS):
            parts = range(head * WIDTH, (head + 1) * WIDTH)
            rows = []
            for a in q:
                powers = [math.exp(sum(a[i] * b[i] for i in parts) / WIDTH**0.5) for b in k]
                rows.append([power / sum(powers) for power in powers])
            weights.append(rows)
    read = [
        [sum(weights[i // WIDTH][to][n] * v[n][i] for n in range(len(v))) for i in range(DIM)]
        for to in range(len(q))
    ]
    return weights, read


def run(picture, *, pooled, given=None):
    """The weights of all modules, or those given, and the similarity."""
    given = given or [None] * 3
    numbers = [{w: m[w].tolist() for w in m} for m in MATRICES]
    state, found = picture, []
    for matrices, weights in zip(numbers[:2], given, strict=False):
        weights, read = attended(state, state, matrices, weights)
        found.append(weights)
        joined = []
        for row, other in zip(state, read, strict=True):
            moved = [a + b for a, b in zip(row, times(other, matrices["o"]), strict=True)]
            joined.append([a + math.tanh(a) for a in moved])
        state = joined
    first = state[0]
    if pooled:
        weights, (first,) = attended(PROBE[0].tolist(), state, numbers[2], given[2])
        found.append(weights)
    embedding = times(first, numbers[2]["o"])
    length = math.sqrt(sum(x * x for x in embedding))
    return found, sum(x * t for x, t in zip(embedding, TARGET.tolist(), strict=True)) / length


def positive(picture, weights, module, *, pooled):
    """Eq. 4: the mean over the heads of what raises the similarity, by differences."""

    def at(head, to, source, change):
        moved = [[list(row) for row in rows] for rows in weights[module]]
        moved[head][to][source] += change
        # All later attention follows from it.
        given = [moved if m == module else None for m in range(3)]
        return run(picture, pooled=pooled, given=given)[1]

    own = weights[module]
    found = [[0.0] * TOKENS for _ in own[0]]
    for head, to, source in product(range(HEADS), range(len(own[0])), range(TOKENS)):
        slope = (at(head, to, source, STEP) - at(head, to, source, -STEP)) / (2 * STEP)
        found[to][source] += max(0.0, slope * own[head][to][source]) / HEADS
    return found


def accumulated(steps):
    """Eq. 3: from the identity, R becomes R + A R."""
    relevance = [[float(i == j) for j in range(TOKENS)] for i in range(TOKENS)]
    for step in steps:
        relevance = [
            [
                relevance[i][j] + sum(step[i][k] * relevance[k][j] for k in range(TOKENS))
                for j in range(TOKENS)
            ]
            for i in range(TOKENS)
        ]
    return relevance


@pytest.mark.parametrize("pooled", [False, True])
@pytest.mark.parametrize("layers", ["last", "all"])
def test_relevance_is_that_of_the_equations(pooled, layers):
    found = attention_relevance(opened(pooled=pooled), similarity, layers=layers).numpy()

    for mine, picture in zip(found, PICTURES.tolist(), strict=True):
        weights, _ = run(picture, pooled=pooled)
        own = range(1 if layers == "last" else 0, 2)
        relevance = accumulated([positive(picture, weights, m, pooled=pooled) for m in own])
        row = relevance[0][1:]
        if pooled:
            (weighed,) = positive(picture, weights, 2, pooled=True)
            row = [sum(weighed[k] * relevance[k][j] for k in range(TOKENS)) for j in range(TOKENS)]
        assert mine.max() > 0.01
        assert mine.ravel() == pytest.approx(row, rel=1e-4, abs=1e-6)


def test_a_map_does_not_depend_on_the_rest_of_the_batch():
    whole = opened(pooled=True)
    alone = LayerwisePass(
        PICTURES[1:], whole.layers, whole.finish, whole.grid, leading=0, pool=whole.pool
    )

    assert attention_relevance(alone, similarity, layers="all").numpy() == pytest.approx(
        attention_relevance(whole, similarity, layers="all")[1:].numpy(), abs=1e-12
    )


def test_grad_cam_is_the_sum_of_weighted_channels():
    features = drawn(2, 3, 4, 5, seed=60).requires_grad_()
    matrix = drawn(3, 4, 5, seed=61)
    scores = (features.square() * matrix).sum(dim=(1, 2, 3))
    found = grad_cam(features, scores).numpy()

    values = features.detach().numpy()
    slopes = 2 * values * matrix.numpy()
    for picture, row, column in product(range(2), range(3), range(4)):
        total = 0.0
        for channel in range(5):
            weight = sum(slopes[picture, r, c, channel] for r in range(3) for c in range(4)) / 12
            total += weight * values[picture, row, column, channel]
        assert found[picture, row, column] == pytest.approx(max(0.0, total), rel=1e-5)
    assert 0 < (found > 0).mean() < 1


def seen_by_one_layer(weights):
    """A tower of one layer and one head, whose attention is given, for two tokens in a row."""
    kept = []

    def attend(state):
        kept.append(weights + 0 * state.sum())
        return attention(state, state, state, heads=1)._replace(weights=kept[-1])

    layer = TowerLayer(1, attend, lambda state, outputs: state + side_by_side(outputs))
    tower = LayerwisePass(torch.zeros(1, 2, 2), (layer,), lambda s: s, (1, 2), leading=0)
    return tower, kept


VISION = torch.tensor([[[[0.0, 0.5], [0.0, 0.0]]]])
OWN = torch.tensor([[[[0.0, 0.25], [0.0, 0.0]]]])
ACROSS = torch.tensor([[[[0.5, 0.0], [0.1, 0.3]]]])
ANSWER = torch.tensor([[[[0.2, 0.0, 0.0], [0.4, 0.1, 0.0], [0.3, 0.2, 0.5]]]])


def relevance_of(queries, *, layers):
    """With gradients of 1 everywhere; `queries` are blocks of pairs (weights, across)."""
    tower, kept = seen_by_one_layer(VISION)

    def read(state):
        blocks = tuple(
            tuple(Step(w.clone().requires_grad_(), across) for w, across in block)
            for block in queries
        )
        decoder = ((Step(ANSWER.clone().requires_grad_()),),)
        steps = [step.weights for block in (*blocks, *decoder) for step in block]
        return Reading(
            log_probability=sum(t.sum() for t in (*kept, *steps))[None],
            queries=blocks,
            decoder=decoder,
            predicting=torch.tensor([[0.0, 0.5, 0.5]]),
            image_tokens=torch.tensor([[True, True, False]]),
        )

    return answer_relevance(tower, read, layers=layers)[0, 0].tolist()


def test_cross_attention_shares_out_what_self_attention_found():
    """Rule 10 of Chefer et al. by hand, with gradients of 1.

    Vision [[1, .5], [0, 1]] is [[1, 1], [0, 1]] in shares, and so are the queries. Then
    [[1, 0], [1, 1]] [[.5, 0], [.1, .3]] [[1, 1], [0, 1]] = [[.5, .5], [.6, .9]]. The answer looks
    at image tokens by (.4, 1.1) and (.3, .2), in the mean (.35, .65).
    """
    found = relevance_of([[(OWN, False), (ACROSS, True)]], layers="last")

    assert found == pytest.approx([0.35 * 0.5 + 0.65 * 0.6, 0.35 * 0.5 + 0.65 * 0.9], rel=1e-5)


def test_image_tokens_of_the_tower_itself_are_read_without_queries():
    """(.35, .65) [[1, .5], [0, 1]]."""
    found = relevance_of([], layers="last")

    assert found == pytest.approx([0.35, 0.35 * 0.5 + 0.65], rel=1e-5)


def test_last_begins_at_the_last_layer_that_looks_at_the_picture():
    """A Q-Former ends with layers that do not."""
    blocks = [[(OWN, False), (ACROSS, True)], [(ACROSS, False)], [(ACROSS, True)], [(OWN, False)]]

    assert relevance_of(blocks, layers="last") == relevance_of(blocks[2:], layers="all")
    assert relevance_of(blocks, layers="last") != relevance_of(blocks, layers="all")

from __future__ import annotations

import math

import pytest
import torch

from mini_world.optimizers import optimizers, rate_factor
from mini_world.params import params
from mini_world.tokenizer import make_tokenizer
from mini_world.train import MODELS


@pytest.mark.parametrize("name", MODELS)
def test_every_weight_moves_under_one_optimiser(name):
    model, heads = MODELS[name].build(make_tokenizer()), torch.nn.Linear(4, 3)
    weights = [*model.parameters(), *heads.parameters()]
    held = [w for found in optimizers(model, heads, params(name)) for w in weights_of(found)]

    assert len(held) == len(weights)
    assert {id(w) for w in held} == {id(w) for w in weights}


@pytest.mark.parametrize("name", MODELS)
def test_muon_gets_the_matrices_of_the_layers_and_nothing_else(name):
    model = MODELS[name].build(make_tokenizer())
    muon, _ = optimizers(model, torch.nn.Linear(4, 3), params(name))
    of_muon = {id(w) for w in weights_of(muon)}
    names = {name for name, weight in model.named_parameters() if id(weight) in of_muon}

    assert len(names) == 8 * 6  # layers of both towers x matrices of attention and MLP
    assert all(".layers." in name and name.endswith("weight") for name in names)


def test_norms_and_biases_do_not_decay():
    model = MODELS["mini-siglip"].build(make_tokenizer())
    _, adam = optimizers(model, torch.nn.Linear(4, 3), params("mini-siglip"))

    for group in adam.param_groups:
        assert all((w.ndim <= 1) == (group["weight_decay"] == 0.0) for w in group["params"])


def test_the_rate_rises_and_falls_to_zero_at_the_last_step():
    factor = rate_factor({"warm_up": 10, "steps": 110})

    assert [factor(step) for step in (0, 4, 9, 10)] == [0.1, 0.5, 1.0, 1.0]
    assert factor(60) == pytest.approx(0.5 + 0.5 * math.cos(math.pi / 2))
    assert factor(110) == pytest.approx(0.0)


def weights_of(optimizer):
    return [weight for group in optimizer.param_groups for weight in group["params"]]

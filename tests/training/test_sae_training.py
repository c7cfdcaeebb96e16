"""Losses against numpy; planted directions are found; and the bookkeeping of dead latents."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch

from natadv.errors import DataError
from natadv.explain.autoencoder import AutoencoderConfig, SparseAutoencoder
from natadv.rng import rng_for
from natadv.training.loop import Checkpoint, fit
from natadv.training.sae_activations import Activations, StoredFile
from natadv.training.sae_settings import SAE_SETTINGS
from natadv.training.sae_training import (
    SaeTraining,
    auxiliary_loss,
    fidelity,
    geometric_median,
    l1_loss,
    nested,
)
from natadv.training.training_rows import Split

DIM, DIRECTIONS, ACTIVE = 24, 32, 3
PICTURES, HELD_BACK = 8000, 500


def numbers(*shape, seed=1):
    return rng_for("sae", seed).standard_normal(shape).astype(np.float32)


def tensor(*shape, seed=1):
    return torch.from_numpy(numbers(*shape, seed=seed))


def stored(folder, values, per_picture=1):
    path = folder / "activations.npy"
    np.save(path, values.astype(np.float32))
    offset = np.load(path, mmap_mode="r").offset
    part = StoredFile(path, offset, len(values))
    return Activations([part], width=values.shape[1], per_picture=per_picture)


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """Known unit directions, and activations that are sums of three of them."""
    rng = rng_for("planted")
    directions = rng.standard_normal((DIRECTIONS, DIM))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    chosen = rng.permuted(np.tile(np.arange(DIRECTIONS), (PICTURES, 1)), axis=1)[:, :ACTIVE]
    amounts = np.zeros((PICTURES, DIRECTIONS))
    np.put_along_axis(amounts, chosen, rng.uniform(1, 2, chosen.shape), axis=1)
    values = amounts @ directions + 0.5
    return directions, stored(tmp_path_factory.mktemp("planted"), values)


def training_of(kind, activations, **settings):
    usual = {
        "batch": 128, "expansion": 2.0, "warm_up": 20, "rate": 0.01, "checkpoint_every": 10**6,
        "validate_every": 10**6,
    }  # fmt: skip
    made = SAE_SETTINGS[kind].model_validate({**usual, **settings})
    latents = round(made.expansion * activations.width)
    config = AutoencoderConfig(
        kind=kind,
        layer=1,
        tokens="class",
        width=activations.width,
        latents=latents,
        k=getattr(made, "k", None),
        groups=made.group_sizes(latents) if kind == "matryoshka" else (),
    )
    count = activations.rows // activations.per_picture
    held_back = min(HELD_BACK, count // 2)
    parts = Split(np.arange(count - held_back), np.arange(count - held_back, count))
    return SaeTraining(activations, parts, config=config, settings=made, device="cpu"), made


def finished(training, settings, tmp_path):
    checkpoint = Checkpoint(tmp_path / "sae", {})
    fit(training, settings, checkpoint=checkpoint, device="cpu", stream=io.StringIO())
    return training


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("topk", {"k": 3, "dead_after": 1000, "decay_start": 300}),
        ("relu", {"l1": 0.2, "sparsity_warm_up": 50}),
    ],
)
def test_a_planted_dictionary_is_recovered(planted, tmp_path, kind, settings):
    directions, activations = planted

    training = finished(*training_of(kind, activations, steps=400, **settings), tmp_path)

    decoder = training.autoencoder.decoder.detach().numpy()
    assert np.linalg.norm(decoder, axis=1) == pytest.approx(1, abs=1e-5)
    closest = (directions @ decoder.T).max(axis=1)
    untrained = (
        directions
        @ training_of(kind, activations, steps=400, **settings)[0]
        .autoencoder.decoder.detach()
        .numpy()
        .T
    ).max(axis=1)
    assert closest.mean() > 0.95 > untrained.mean() + 0.2
    assert training.validate() < 0.1


def test_shuffled_activations_have_no_dictionary_to_recover(planted, tmp_path):
    """With each dimension shuffled, there is no such structure."""
    directions, activations = planted
    values = rng_for("shuffled").permuted(activations.take(np.arange(PICTURES)), axis=0)

    settings = {"k": 3, "dead_after": 1000, "decay_start": 100, "steps": 150}
    training = finished(*training_of("topk", stored(tmp_path, values), **settings), tmp_path)

    decoder = training.autoencoder.decoder.detach().numpy()
    assert (directions @ decoder.T).max(axis=1).mean() < 0.8
    assert training.validate() > 0.3


def test_the_l1_loss_is_eq_5():
    x, decoded, latents = numbers(5, 4), numbers(5, 4, seed=2), numbers(5, 9, seed=3)

    loss = l1_loss(*map(torch.from_numpy, (x, decoded, latents)), weight=0.3)

    per_row = [
        ((x[i] - decoded[i]) ** 2).sum() + 0.3 * np.abs(latents[i]).sum() for i in range(len(x))
    ]
    assert float(loss) == pytest.approx(np.mean(per_row), rel=1e-5)


def test_dead_latents_explain_what_is_left():
    residual, positive, decoder = numbers(6, 4), np.abs(numbers(6, 9, seed=2)), numbers(9, 4)
    dead = np.array([True, False, True, True, False, False, True, False, False])

    loss = auxiliary_loss(*map(torch.from_numpy, (residual, positive, dead, decoder)), most=2)

    errors = []
    for i in range(6):
        strongest = sorted(np.flatnonzero(dead), key=lambda k: -positive[i, k])[:2]
        explained = sum(positive[i, k] * decoder[k] for k in strongest)
        errors.append(((residual[i] - explained) ** 2).sum())
    variance = ((residual - residual.mean(axis=0)) ** 2).sum(axis=1)
    assert float(loss) == pytest.approx(np.mean(errors) / variance.mean(), rel=1e-5)
    flat = auxiliary_loss(
        torch.zeros(3, 4), torch.zeros(3, 9), torch.from_numpy(dead), tensor(9, 4), most=2
    )
    assert float(flat) == 0


def test_nested_groups_decode_their_own_latents_only():
    config = AutoencoderConfig(
        kind="matryoshka", layer=1, tokens="class", width=4, latents=9, k=2, groups=(2, 3, 4)
    )
    autoencoder = SparseAutoencoder(config)
    autoencoder.decoder.data, autoencoder.bias.data = tensor(9, 4), tensor(4)
    latents = np.abs(numbers(5, 9, seed=2))

    parts = nested(torch.from_numpy(latents), autoencoder)

    for size, part in zip((2, 5, 9), parts, strict=True):
        expected = latents[:, :size] @ numbers(9, 4)[:size] + numbers(4)
        assert part.detach().numpy() == pytest.approx(expected, abs=1e-5)


def test_batch_topk_keeps_k_per_activation_on_average_and_follows_its_threshold(planted):
    _, activations = planted
    settings = {"k": 3, "steps": 9, "threshold_start": 2, "threshold_decay": 0.5}
    training, made = training_of("batch-topk", activations, **settings)
    least = []
    for step in range(4):
        x = torch.from_numpy(training._batch(step))
        positive = training.autoencoder.positive(x).detach().numpy().ravel()
        least.append(np.sort(positive)[-3 * made.batch])
        training.loss(step)

    # The first one that is measured stands as it is.
    assert float(training.autoencoder.threshold) == pytest.approx(
        0.5 * least[2] + 0.5 * least[3], rel=1e-5
    )


def test_the_rate_and_the_penalty_follow_the_published_schedules():
    topk = SAE_SETTINGS["topk"]
    assert topk().rate_for(2**14) == pytest.approx(2e-4)
    assert topk().rate_for(2**16) == pytest.approx(1e-4)
    assert SAE_SETTINGS["relu"]().rate_for(2**16) == 1e-3
    # Published: the rate falls from step 109,999 of 110,000, so it never does.
    assert [topk().share_of_rate(step) for step in (0, 999, 109_998, 109_999)] == [0.001, 1, 1, 1]
    falling = topk(steps=20, warm_up=4, decay_start=10)
    shares = [falling.share_of_rate(step) for step in (0, 1, 3, 9, 10, 15, 19)]
    assert shares == pytest.approx([0.25, 0.5, 1, 1, 1, 0.5, 0.1])
    relu = SAE_SETTINGS["relu"](l1=0.4, sparsity_warm_up=10)
    assert [relu.penalty(step) for step in (0, 5, 10, 99)] == pytest.approx([0, 0.2, 0.4, 0.4])
    groups = SAE_SETTINGS["matryoshka"]().group_sizes(1000)
    assert groups == (62, 125, 250, 563)


def test_fidelity_equals_its_definition_and_counts_dead_latents():
    config = AutoencoderConfig(kind="relu", layer=1, tokens="class", width=4, latents=6)
    autoencoder = SparseAutoencoder(config)
    for parameter in autoencoder.parameters():
        parameter.data = tensor(*parameter.shape)
    # Two latents that nothing activates, and one that everything does.
    autoencoder.encoder_bias.data[:3] = torch.tensor([-1e3, -1e3, 1e3])
    x = numbers(50, 4, seed=4)

    found = fidelity(autoencoder, np.array_split(x, 3))

    latents = np.maximum(
        (x - numbers(4)) @ numbers(6, 4).T + autoencoder.encoder_bias.detach().numpy(), 0
    )
    error = ((x - latents @ numbers(6, 4) - numbers(4)) ** 2).sum()
    assert found.fvu == pytest.approx(error / ((x - x.mean(axis=0)) ** 2).sum(), rel=1e-4)
    assert found.l0 == pytest.approx((latents > 0).sum(axis=1).mean())
    assert found.fired == tuple((latents > 0).any(axis=0))
    assert found.dead == (~(latents > 0).any(axis=0)).sum() >= 2
    assert found.fired[2]
    with pytest.raises(DataError, match="all 5 are equal"):
        fidelity(autoencoder, [np.ones((5, 4), np.float32)])


def test_latents_count_as_dead_after_so_many_activations(planted):
    _, activations = planted
    training, made = training_of("topk", activations, k=3, steps=9, dead_after=200)
    training.autoencoder.encoder_bias.data[7] = -1e3
    training.loss(0)
    assert training.module.silent[7] == made.batch
    assert not (training.module.silent >= made.dead_after).any()
    training.loss(1)

    dead = training.module.silent >= made.dead_after
    assert dead[7]
    # From now on the loss is about dead latents too.
    other, _ = training_of("topk", activations, k=3, steps=9, dead_after=10**6)
    other.autoencoder.load_state_dict(training.autoencoder.state_dict())
    before = training.module.silent.clone()
    assert training.loss(2) > other.loss(2)
    training.module.silent.copy_(before)
    # A latent that fired in the last batch starts again.
    fired = training.autoencoder.encode(torch.from_numpy(training._batch(1))) > 0
    assert (training.module.silent[fired.any(dim=0)] == 0).all()


def test_the_start_is_a_geometric_median_and_unit_directions(planted):
    assert geometric_median(np.array([[0, 0], [0, 0], [9, 0]], np.float32)) == pytest.approx(
        0, abs=1e-6
    )
    triangle = np.array([[0, 0], [4, 0], [2, 3]], np.float32)
    median = geometric_median(triangle)
    steps = np.array([[0.01, 0], [-0.01, 0], [0, 0.01], [0, -0.01]])

    def distance(point):
        return np.linalg.norm(triangle - point, axis=1).sum()

    assert all(distance(median) < distance(median + step) for step in steps)
    autoencoder = training_of("topk", planted[1], steps=9, k=3)[0].autoencoder
    assert torch.equal(autoencoder.encoder, autoencoder.decoder)
    assert autoencoder.decoder.norm(dim=1).detach().numpy() == pytest.approx(1, abs=1e-6)


def test_gradients_that_only_lengthen_a_direction_are_removed(planted):
    training, _ = training_of("topk", planted[1], steps=9, k=3, clip=1e9)
    decoder = training.autoencoder.decoder
    training.loss(0).backward()
    before = decoder.grad.clone()

    training._before_step()

    along = (decoder.grad * decoder).sum(dim=1)
    assert along.detach().numpy() == pytest.approx(0, abs=1e-5)
    assert (before * decoder).sum(dim=1).abs().max() > 0.01


def test_several_files_are_read_as_one(tmp_path):
    values = numbers(30, 5)
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    parts = [
        stored(tmp_path / name, part)._stored[0]
        for name, part in (("a", values[:12]), ("b", values[12:]))
    ]
    activations = Activations(parts, width=5, per_picture=3)
    rows = rng_for("rows").integers(0, 30, 40)

    assert np.array_equal(activations.take(rows), values[rows])
    assert activations.rows == 30
    pictures = np.array([1, 9, 4])
    expected = np.concatenate([values[3 * p : 3 * p + 3] for p in pictures])
    assert np.array_equal(np.concatenate(list(activations.of_pictures(pictures))), expected)

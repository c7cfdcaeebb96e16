from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import binomtest

from natadv.data.images import decode_image
from natadv.data.reader import read_samples
from natadv.errors import ConfigError, DataError, ModelError
from natadv.evaluate.datasets import dataset_named
from natadv.evaluate.latents import (
    DatasetLatents,
    LatentReader,
    PictureRows,
    dataset_latents,
    paired,
    rising_latents,
)
from natadv.explain.autoencoder import AutoencoderConfig, SparseAutoencoder
from natadv.explain.latents import latent_points, picture_latents
from natadv.explain.monosemanticity import Monosemanticity, MonosemanticityScores
from natadv.models.loading import load
from natadv.models.resolve import resolve_one
from natadv.rng import rng_for

ROOT = Path(__file__).resolve().parents[2]
N = 40


def latents_of(name, values, twins=None, groups=None):
    found = picture_latents([values.astype(np.float32)], latents=values.shape[1])
    ids = tuple(f"{name}-{i}" for i in range(len(values)))
    labels = (0,) * len(values)
    rows = PictureRows(ids, tuple(groups or ids), labels, tuple(twins or (None,) * len(values)))
    nothing = Monosemanticity(np.zeros(0), np.zeros(0))
    points = latent_points(found, labels)
    return DatasetLatents(dataset_named(name, ROOT), rows, found, points, 0.0, nothing)


@pytest.fixture
def attacked():
    """Latent 0 appears on 30 of 40 pictures, 1 on six, 2 goes, 3 is always active, 4 never, and 5
    comes and goes."""
    clean, attack = np.zeros((N, 6)), np.zeros((N, 6))
    attack[:30, 0] = np.arange(1, 31)
    attack[:6, 1] = 1
    clean[:20, 2] = 1
    clean[:, 3] = attack[:, 3] = 1
    clean[:10, 5] = 1
    attack[10:21, 5] = 1
    order = rng_for("order of twins").permutation(N)
    twins = [f"mini-{i}" for i in order]
    return latents_of("mini-typo", attack[order], twins, twins), latents_of("mini", clean)


def test_latents_that_appear_are_found_by_an_exact_test(attacked):
    rising = rising_latents(paired(*attacked))

    assert [row.latent for row in rising] == [0]
    row = rising[0]
    assert (row.clean, row.attacked) == (0, 0.75)
    assert row.low < 0.75 < row.high
    # McNemar's test, which five latents share: 4 is never active.
    expected = binomtest(30, 30, alternative="greater").pvalue
    assert row.p_value == pytest.approx(5 * expected)
    every = {row.latent: row for row in rising_latents(paired(*attacked), level=1.1)}
    assert set(every) == {0, 1, 2, 3, 5}
    six = binomtest(6, 6, alternative="greater").pvalue
    assert every[1].p_value == pytest.approx(4 * six)
    assert every[2].p_value == every[3].p_value == 1
    assert every[2].high < 0 < every[1].attacked
    assert every[5].low < 0 < every[5].high


def test_pictures_of_one_source_are_not_counted_as_many(attacked):
    attack, clean = attacked
    groups = ["one"] * N
    joined = latents_of("mini-typo", attack.found.matrix.toarray(), list(attack.rows.twins), groups)

    assert rising_latents(paired(joined, clean)) == []


def test_the_pairs_that_gain_most_come_first(attacked):
    pairs = paired(*attacked)

    top = pairs.top(0, most=3)

    assert [pairs.attack.rows.twins[i] for i in pairs.after[top]] == [
        "mini-29", "mini-28", "mini-27",
    ]  # fmt: skip
    assert [pairs.clean.rows.ids[i] for i in pairs.before[top]] == ["mini-29", "mini-28", "mini-27"]
    assert len(pairs.top(2, most=3)) == 0


def test_other_datasets_and_missing_twins_are_refused(attacked):
    attack, clean = attacked
    with pytest.raises(ConfigError, match=r"twins of None, not of 'mini-typo'"):
        paired(clean, attack)
    elsewhere = latents_of("mini-typo", np.ones((2, 6)), ["mini-900", None])
    with pytest.raises(DataError, match=r"has its twin among those of 'mini'.*--limit"):
        paired(elsewhere, clean)


@pytest.fixture(scope="module")
def clip():
    return load(
        resolve_one("mini-clip", root=ROOT, wanted=""), device="cpu", dtype="float32", threads=1
    )


def drawn_autoencoder(width=128, tokens="patches"):
    config = AutoencoderConfig(kind="topk", layer=3, tokens=tokens, width=width, latents=40, k=2)
    made = SparseAutoencoder(config)
    weights = rng_for("weights").standard_normal((40, width)).astype(np.float32)
    made.encoder.data = torch.from_numpy(weights)
    return made.requires_grad_(False)


def test_a_picture_is_as_active_as_its_most_active_token(clip):
    made = drawn_autoencoder()
    dataset = dataset_named("mini", ROOT)
    stream = io.StringIO()
    found = dataset_latents(dataset, LatentReader(clip, made, clip), limit=66, stream=stream)

    samples = read_samples(dataset.folder, dataset.card, start=0, stop=66)
    images = [decode_image(sample.image, where=sample.id) for sample in samples]
    with torch.inference_mode():
        state = clip.layerwise(clip.prepare(images)).state(3)[:, 1:]
        expected = made.encode(state).numpy().max(axis=1)
    rows = clip.embed_images(clip.prepare(images))
    scores = MonosemanticityScores(40, rows.shape[1])
    scores.add(expected, rows)
    assert found.found.matrix.toarray() == pytest.approx(expected, abs=1e-3)
    assert found.points.frequency == pytest.approx((expected > 0).mean(axis=0))
    assert found.monosemanticity.weighted == pytest.approx(
        scores.scores().weighted, abs=1e-4, nan_ok=True
    )
    assert found.rows.ids == tuple(sample.id for sample in samples)
    assert found.rows.labels == tuple(sample.label for sample in samples)
    assert "66 of 66 pictures" in stream.getvalue()

    some = [0, *range(2, 66)]
    part = dataset_latents(dataset, LatentReader(clip, made, clip), rows=some, stream=stream)
    assert part.rows.ids == tuple(samples[row].id for row in some)
    assert part.found.matrix.toarray() == pytest.approx(expected[some], abs=1e-3)


def test_an_autoencoder_of_another_width_and_drawn_pictures_are_refused(clip):
    reader = LatentReader(clip, drawn_autoencoder(width=64), clip)
    with pytest.raises(ModelError, match="reads 64 dimensions, the tower has 128"):
        dataset_latents(dataset_named("mini", ROOT), reader, limit=2, stream=io.StringIO())
    with pytest.raises(DataError, match="mini-overlays"):
        dataset_latents(dataset_named("mini-overlays", ROOT), reader, limit=2, stream=io.StringIO())

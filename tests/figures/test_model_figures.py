"""Figures 7 and 8 on mini-clip: what is drawn is what the analyses found."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from natadv.evaluate.datasets import dataset_named
from natadv.evaluate.masked_heads import MaskingPlan, masked_outcomes
from natadv.evidence import Manifest, StoredCase
from natadv.figures.measured import Measured
from natadv.figures.model_figures import Computing, few_classes, head_tables, latent_panels
from natadv.metrics.heads import head_changes
from natadv.models.resolve import resolve_one
from natadv.pipelines.embedders import STORE, Arithmetic
from natadv.types import Case

ROOT = Path(__file__).resolve().parents[2]
N = 6


@pytest.fixture
def computing(tmp_path: Path) -> Computing:
    """On the mini world, whose store and autoencoders lie in an empty folder."""
    (tmp_path / "fixtures").symlink_to(ROOT / "fixtures")
    return Computing(tmp_path, Arithmetic(), limit=N, stream=io.StringIO())


def test_heads_come_from_the_evidence_or_else_from_the_model(computing):
    dataset = dataset_named("mini-typo", computing.root)
    nothing = Measured({}, ())
    computed = head_tables(nothing, "mini-clip", [dataset], computing)["mini-typo"]

    assert (computed.change.shape, computed.n) == ((6, 4), N)
    case = Case("heads", "typographic", "mini-typo", "mini-clip")
    facts = {"lineage": "mini-clip", "planned_n": N, "data_revision": dataset.card.revision}
    spec = resolve_one("mini-clip", root=computing.root, wanted="")
    store = computing.root / STORE
    numerics = computing.arithmetic.numerics(spec, store)
    plan = MaskingPlan(
        spec, ("mini-typo",), numerics, store, limit=N, root=computing.root, stream=io.StringIO()
    )
    ((_, rows),) = masked_outcomes(plan)
    assert np.array_equal(computed.change, head_changes(rows).change)
    # The evidence knows another answer: the first sample is wrong with all heads.
    right = rows.values["correct"].copy()
    changed = replace(rows, values={**rows.values, **{
        name: np.zeros_like(right) for name in rows.values if name.startswith("layer_")
    }})  # fmt: skip
    stored = StoredCase(Manifest(case, **facts, weights="w", protocol="1"), {"attack": changed})
    found = head_tables(Measured({case: stored}, ()), "mini-clip", [dataset], computing)
    assert np.allclose(found["mini-typo"].change, -right.mean())


def test_an_autoencoder_is_trained_once_and_read_on_each_dataset(computing, monkeypatch):
    from natadv.figures import model_figures

    monkeypatch.setattr(model_figures, "STEPS", 20)
    monkeypatch.setattr(model_figures, "KEPT", Path("nothing/here"))
    datasets = [dataset_named(name, computing.root) for name in ("mini", "mini-typo")]
    first = latent_panels("mini-clip", datasets, computing, folder=None)
    again = latent_panels("mini-clip", datasets, computing, folder=None)

    assert [(panel.dataset, panel.n) for panel in first] == [("mini", N), ("mini-typo", N)]
    assert {len(panel.by_chance) for panel in first} == {model_figures.SHUFFLES}
    assert len(first[0].points.frequency) == 512
    assert len(list((computing.root / ".natadv/autoencoders").iterdir())) == 1
    for one, other in zip(first, again, strict=True):
        assert np.array_equal(one.points.frequency, other.points.frequency)
    clean = computing.root / ".natadv/autoencoders"
    (folder,) = clean.iterdir()
    given = latent_panels("mini-clip", datasets[:1], computing, folder=folder)
    assert np.array_equal(given[0].points.frequency, first[0].points.frequency)


def test_first_pictures_of_few_classes_are_told_of(computing):
    """The counter-examples begin with those of one class."""
    datasets = [dataset_named(name, computing.root) for name in ("mini", "mini-counterexamples")]
    (why,) = few_classes(datasets, {"mini": 20, "mini-counterexamples": 20})

    assert why.startswith(
        "the first 20 pictures of mini-counterexamples are of 1 of its 10 classes"
    )
    # All of them, or none, are what they are.
    assert not few_classes(datasets, {"mini": 660, "mini-counterexamples": 48})
    assert not few_classes(datasets, {})

"""What every model gets wrong is kept, and nothing else; and the curve of all thresholds."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from natadv.data.card import load_card
from natadv.data.reader import decode_image
from natadv.errors import ConfigError, DataError, ModelError, UnknownNameError
from natadv.models.loading import load
from natadv.models.resolve import resolve
from natadv.pipelines import embedders
from natadv.pipelines.filtering import (
    THRESHOLDS,
    AcceptanceCurve,
    EnsemblePredictions,
    Filtered,
    FilterPlan,
    accepted_counts,
    ensemble_predictions,
    filter_pool,
    fools_all,
)

from .conftest import read

BOTH = ("mini-clip", "mini-siglip")
LIMIT = 128
Filter = Callable[..., Filtered]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("embedded")


@pytest.fixture
def filtered(root: Path, store: Path) -> Filter:
    """Filters `mini`; what one test has embedded, the next one need not."""
    (root / ".natadv").symlink_to(store)

    def run(**fields: Any) -> Filtered:
        told: dict[str, Any] = {"pool": "mini", "name": "hard", "ensemble": BOTH, "limit": LIMIT}
        return filter_pool(FilterPlan(**{**told, "root": root, "stream": io.StringIO(), **fields}))

    return run


def told(made: Filtered) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(made.curve.with_suffix(".json").read_text())
    return found


def ids(root: Path, name: str = "hard") -> set[str]:
    return {sample.id for sample in read(root, name)}


def likelihoods(name: str, root: Path) -> np.ndarray:
    """As written out by hand: softmax over scaled cosines."""
    (spec,) = resolve(name, root=root)
    model: Any = load(spec, device="cpu", dtype="float32", threads=1)
    images = [decode_image(s.image, where=s.id) for s in read(root, "mini")[:LIMIT]]
    seen = np.concatenate(
        [
            model.embed_images(model.prepare(images[start : start + 64]))
            for start in range(0, LIMIT, 64)
        ]
    )
    classes = load_card(root / "fixtures/datasets/mini").classes
    texts = model.embed_texts([f"a photo of a {c}." for c in classes])
    z = model.scoring.scale * (seen @ texts.T).astype(np.float64)
    powers = np.exp(z - z.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def test_kept_is_exactly_what_both_conditions_say_of_every_member(filtered, root):
    made = filtered()

    expected = set()
    each = [likelihoods(name, root) for name in BOTH]
    for row, sample in enumerate(read(root, "mini")[:LIMIT]):
        p_true = [p[row, sample.label] for p in each]
        wrong = [p[row].argmax() != sample.label for p in each]
        if max(p_true) < 0.15 and all(wrong):
            expected.add(sample.id)
    assert expected
    assert ids(root) == expected
    assert made.card.rows == told(made)["kept"] == len(expected)


def test_what_is_kept_is_the_pools_own_rows(filtered, root):
    made = filtered()

    pool = {sample.id: sample for sample in read(root, "mini")}
    assert all(sample == pool[sample.id] for sample in read(root, "hard"))
    assert (made.card.scenario, made.card.classes) == ("natural", load_card(pool_of(root)).classes)
    assert made.card.tasks == load_card(pool_of(root)).tasks


def pool_of(root: Path) -> Path:
    return root / "fixtures/datasets/mini"


def test_a_higher_threshold_keeps_all_that_a_lower_one_kept(filtered, root):
    kept = []
    for threshold in (0.1, 0.15, 0.4, 1.0):
        filtered(threshold=threshold, force=True)
        kept.append(ids(root))

    assert kept == sorted(kept, key=len)
    assert all(low <= high for low, high in pairwise(kept))


def test_a_member_more_only_shrinks_what_is_kept(filtered, root):
    filtered(ensemble=("mini-clip",), name="one")
    filtered(ensemble=("mini-siglip",), name="other")
    filtered()

    assert ids(root) == ids(root, "one") & ids(root, "other")


def test_the_order_of_members_changes_no_byte_of_the_data(filtered):
    one = filtered().card.shards

    assert filtered(ensemble=BOTH[::-1], force=True).card.shards == one


def test_the_curve_is_what_each_threshold_would_keep(filtered):
    made = filtered()

    found = told(made)
    curve = dict(zip(found["curve"]["thresholds"], found["curve"]["kept"], strict=True))
    assert tuple(curve) == THRESHOLDS
    assert curve[0.15] == found["kept"] == made.card.rows
    assert found["curve"]["kept"] == sorted(found["curve"]["kept"])
    assert curve[0.4] == filtered(threshold=0.4, name="other").card.rows
    for member in found["members"].values():
        assert all(a >= b for a, b in zip(member["kept"], curve.values(), strict=True))
    assert found["pictures"] == LIMIT
    with Image.open(made.curve) as picture:
        assert picture.format == "PNG"


def test_scores_of_a_model_that_scores_each_class_alone_are_shared_out(filtered):
    """Its own scores are all small: as they are, every wrong picture would pass any threshold."""
    kept = told(filtered(ensemble=("mini-siglip",)))["members"]["mini-siglip"]["kept"]

    assert kept[0] < kept[-1]


def test_what_was_embedded_is_not_embedded_again(filtered, root, monkeypatch):
    filtered()
    loaded = []
    original = embedders.encode_pictures

    def watched(pictures, *arguments, **named):
        loaded.extend(pictures)
        return original(pictures, *arguments, **named)

    monkeypatch.setattr(embedders, "encode_pictures", watched)
    again = filtered(name="again", threshold=0.3)

    assert loaded == []
    assert again.card.rows >= 1


def test_a_run_that_fails_half_way_goes_on_where_it_stopped(filtered, root, tmp_path, monkeypatch):
    whole = filtered().card.shards
    (root / ".natadv").unlink()
    original, looked = embedders.encode_pictures, []

    def until_full(pictures, *arguments, **named):
        for seen in original(pictures, *arguments, **named):
            looked.extend(seen.keys)
            if len(looked) == 64:
                raise OSError("no space left on device")
            yield seen

    monkeypatch.setattr(embedders, "encode_pictures", until_full)
    with pytest.raises(OSError, match="no space"):
        filtered(name="again")
    assert not (root / "fixtures/datasets/again").exists()

    assert filtered(name="again").card.shards == whole
    assert len(looked) == len(set(looked)) + LIMIT  # each member sees each picture once


def test_pictures_that_cannot_be_decoded_are_set_aside_by_name(filtered, root, bare, packed):
    rows = bare(20)
    rows[3] = replace(rows[3], image=rows[3].image[:40])
    packed("torn", rows, "classification")

    made = filtered(pool="torn", name="torn-hard", threshold=1.0, limit=None)

    assert list(told(made)["set_aside"]) == ["s003"]
    assert "damaged" in told(made)["set_aside"]["s003"]
    assert told(made)["pictures"] == 19
    assert "s003" not in ids(root, "torn-hard")


def test_where_nothing_passes_there_is_a_curve_and_no_dataset(filtered, root):
    with pytest.raises(DataError, match=r"none of 8 pictures of mini passes at threshold 0.15"):
        filtered(limit=8)

    assert not (root / "fixtures/datasets/hard").exists()
    assert (root / "fixtures/datasets/hard.acceptance.png").is_file()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"pool": "minni"}, UnknownNameError, "unknown dataset 'minni', did you mean 'mini'"),
        ({"ensemble": ("mini-clop",)}, UnknownNameError, "unknown model 'mini-clop'"),
        ({"ensemble": ()}, ConfigError, "at least one model, got none"),
        ({"threshold": 0.0}, ConfigError, "threshold must be above 0 and at most 1"),
        ({"threshold": float("nan")}, ConfigError, "threshold must be above 0 and at most 1"),
        ({"name": "mini"}, ConfigError, "dataset 'mini' exists; replace it with --force"),
        ({"name": "A b"}, ConfigError, "a dataset cannot be made from these values"),
    ],
)
def test_a_mistake_is_told_before_anything_is_embedded(filtered, change, error, message):
    with pytest.raises(error, match=message):
        filtered(**change)


def test_a_pool_without_classes_or_with_words_on_it_is_refused(filtered, samples, packed, bare):
    nameless = [replace(s, label=None, question=None, answers=(), answer_type="") for s in samples]
    packed("found", nameless[:4], "segmentation")
    written = [replace(s, decoy="cat", twin=s.id) for s in bare(4)]
    packed("written", written, "classification", scenario="typographic", twin_of="all")

    with pytest.raises(DataError, match="found has no classes to be wrong about"):
        filtered(pool="found")
    with pytest.raises(DataError, match="written is typographic"):
        filtered(pool="written")


def test_a_member_that_classifies_nothing_is_refused(monkeypatch, root):
    (spec,) = resolve("mini-clip", root=root)
    segmenter = replace(spec, tasks=("segmentation",))
    monkeypatch.setattr(embedders, "resolve_all", lambda names, root: (segmenter,))

    with pytest.raises(ModelError, match="mini-clip: cannot classify"):
        embedders.find_ensemble(("mini-clip",), root=root)


def test_too_little_memory_is_told_with_what_to_do(filtered, monkeypatch, root):
    (root / ".natadv").unlink()

    def short(*arguments, **named):
        raise RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate")
        yield

    monkeypatch.setattr(embedders, "encode_pictures", short)

    with pytest.raises(ModelError, match="mini-clip: out of memory; run again with a smaller --ba"):
        filtered()


def drawn(seed: int, members: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.dirichlet(np.full(4, 0.4), (members, 30)), rng.integers(0, 4, 30)


def acceptance(predictions: EnsemblePredictions, **fields: object) -> AcceptanceCurve:
    models = {f"model-{place}": "0" * 64 for place in range(len(predictions.wrong))}
    known = {"name": "hard", "pool": "all", "pool_revision": "f" * 64, "threshold": 0.15}
    return AcceptanceCurve(
        **{**known, "models": models, "predictions": predictions, "set_aside": {}, **fields}
    )


@given(st.integers(0, 50), st.integers(1, 3))
def test_every_point_is_what_the_filter_would_keep(seed, members):
    probabilities, truth = drawn(seed, members)

    found = accepted_counts(ensemble_predictions(probabilities, truth), THRESHOLDS)

    expected = [accepted(probabilities, truth, threshold=t).sum() for t in THRESHOLDS]
    assert found == expected
    assert found == sorted(found)


@given(st.integers(0, 50), st.integers(2, 3))
def test_the_ensemble_never_keeps_more_than_a_member_alone(seed, members):
    told = acceptance(ensemble_predictions(*drawn(seed, members))).as_json()

    for member in told["members"].values():
        pairs = zip(member["kept"], told["curve"]["kept"], strict=True)
        assert all(alone >= together for alone, together in pairs)


def test_numbers_and_picture_are_the_same_bytes_each_time(tmp_path):
    found = acceptance(ensemble_predictions(*drawn(1, 2)), set_aside={"s1": "damaged"})

    path = found.write(tmp_path / "deep" / "hard")
    first = path.read_bytes(), path.with_suffix(".json").read_bytes()
    found.write(tmp_path / "deep" / "hard")

    assert (path.read_bytes(), path.with_suffix(".json").read_bytes()) == first
    assert json.loads(first[1])["set_aside"] == {"s1": "damaged"}
    assert sorted(p.name for p in path.parent.iterdir()) == [
        "hard.acceptance.json",
        "hard.acceptance.png",
    ]


def test_a_chart_of_many_members_can_be_drawn():
    assert acceptance(ensemble_predictions(*drawn(1, 9))).chart().startswith(b"\x89PNG")


def test_a_place_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "x").write_text("a file in the way")

    with pytest.raises(DataError, match="cannot be written"):
        acceptance(ensemble_predictions(*drawn(1, 1))).write(tmp_path / "x" / "hard")


def accepted(probabilities, truth, *, threshold):
    return fools_all(ensemble_predictions(probabilities, truth), threshold=threshold)


@st.composite
def cases(draw):
    members, n, classes = (draw(st.integers(1, high)) for high in (4, 8, 5))
    raw = draw(arrays(np.float64, (members, n, classes), elements=st.floats(0.0, 1.0)))
    truth = draw(arrays(np.int64, n, elements=st.integers(0, classes - 1)))
    return (raw + 1e-9) / (raw + 1e-9).sum(axis=2, keepdims=True), truth


SOME = st.floats(0.01, 1.0)


@given(cases(), SOME)
def test_agrees_with_the_definition_written_out(case, threshold):
    p, truth = case

    kept = accepted(p, truth, threshold=threshold)

    for i, label in enumerate(truth):
        every = all(m[i][label] < threshold and m[i][label] < max(m[i]) for m in p)
        assert kept[i] == every


@given(cases(), SOME, SOME)
def test_a_higher_threshold_never_drops_a_picture(case, one, other):
    low, high = (accepted(*case, threshold=t) for t in sorted((one, other)))

    assert not (low & ~high).any()


@given(cases(), SOME, st.integers(0, 3))
def test_another_member_only_shrinks_what_is_kept(case, threshold, seed):
    p, truth = case
    more = np.random.default_rng(seed).dirichlet(np.ones(p.shape[2]), (1, p.shape[1]))

    grown = accepted(np.concatenate([p, more]), truth, threshold=threshold)

    assert not (grown & ~accepted(p, truth, threshold=threshold)).any()


@given(cases(), SOME)
def test_the_order_of_members_does_not_matter(case, threshold):
    p, truth = case

    np.testing.assert_array_equal(
        accepted(p[::-1], truth, threshold=threshold), accepted(p, truth, threshold=threshold)
    )


def test_a_tie_with_the_truth_is_not_wrong():
    assert not accepted([[[0.5, 0.5]]], [0], threshold=1.0).any()


def test_an_impossible_threshold_is_refused():
    for threshold in (0.0, -1.0, 1.5, float("nan")):
        with pytest.raises(ConfigError, match="threshold must be above 0"):
            accepted([[[0.1, 0.9]]], [0], threshold=threshold)


def test_bad_input_is_refused():
    for probabilities, truth, message in (
        ([[0.1, 0.9]], [0], "expected probabilities of"),
        (np.zeros((0, 1, 2)), [0], "expected probabilities of"),
        ([[[0.1, 0.9]]], [0, 1], "expected 1 true classes"),
        ([[[float("nan"), 0.9]]], [0], "from 0 to 1"),
        ([[[-0.1, 0.9]]], [0], "from 0 to 1"),
        ([[[0.1, 0.9]]], [2], "from 0 to 1, some are not"),
    ):
        with pytest.raises(DataError, match=message):
            ensemble_predictions(probabilities, truth)

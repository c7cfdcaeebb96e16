from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from natadv.errors import DataError, ModelError
from natadv.evaluate.compute import compute as compute_together
from natadv.evaluate.embeddings import EmbeddingCache
from natadv.evaluate.loaded_model import LoadedModel
from natadv.evaluate.outcomes_json import outcomes_of

CLASSES = ("cat", "dog", "cow")
TEMPLATES = ("a photo of a {}.", "a drawing of a {}.")


def compute(unit, dataset, **rest):
    """One unit on its own."""
    return compute_together([unit], dataset, **rest)[unit.key]


@pytest.fixture
def unit(make_unit, plain):
    return make_unit(revision=plain.card.revision)


def test_every_batch_is_full_and_no_row_of_the_padding_counts(unit, plain, loaded, eyes):
    result = compute(unit, plain, clean=None, loaded=loaded)

    assert eyes.batches == [4, 4, 4]
    assert (result["images"], result["encoded"]) == (10, 10)
    assert len(result["outcomes"]["id"]) == 10


def test_the_batch_size_moves_no_outcome(unit, plain, store, loaded, eyes):
    results = [compute(unit, plain, clean=None, loaded=loaded)["outcomes"]]
    for size in (1, 16):
        cache = EmbeddingCache(store.root / "embeddings", f"space-{size}")
        other = LoadedModel(eyes, cache, batch_size=size)
        results.append(compute(unit, plain, clean=None, loaded=other)["outcomes"])

    assert results[0] == results[1] == results[2]


def test_rows_stand_in_the_order_of_the_samples(unit, plain, clean_samples, loaded):
    rows = outcomes_of([compute(unit, plain, clean=None, loaded=loaded)])

    assert rows.id == tuple(s.id for s in clean_samples)
    assert rows.group == tuple(s.group for s in clean_samples)
    assert rows.truth == rows.prediction == tuple(CLASSES[s.label] for s in clean_samples)


def test_a_result_says_what_it_rests_on(unit, plain, store, loaded):
    result = compute(unit, plain, clean=None, loaded=loaded)

    assert result["unit"] == unit.title
    assert result["revision"] == plain.card.revision
    assert result["weights"] == unit.weights
    assert result["protocol"] == unit.protocol
    assert result["wall_s"] >= 0

    store.put(unit.key, result)

    assert store.get(unit.key) == result


def test_a_shard_is_its_own_rows_and_nothing_else(unit, plain, loaded):
    whole = outcomes_of([compute(unit, plain, clean=None, loaded=loaded)])
    shards = [replace(unit, start=a, stop=b) for a, b in ((0, 3), (3, 10))]
    parts = outcomes_of(compute(u, plain, clean=None, loaded=loaded) for u in shards)

    assert parts.id == whole.id
    for name, column in whole.values.items():
        assert parts.values[name].tobytes() == column.tobytes()


def test_a_picture_is_embedded_once(unit, plain, loaded, eyes):
    first = compute(unit, plain, clean=None, loaded=loaded)
    batches, texts = list(eyes.batches), list(eyes.texts)
    later = LoadedModel(eyes, loaded.cache, loaded.batch_size)  # another process, the same cache
    second = compute(unit, plain, clean=None, loaded=later)

    assert second["encoded"] == 0
    assert eyes.batches == batches
    assert eyes.texts == texts
    assert second["outcomes"] == first["outcomes"]


def test_equal_pictures_of_two_samples_are_embedded_once(unit, pack, clean_samples, loaded):
    twice = [clean_samples[0], replace(clean_samples[0], id="again")]
    result = compute(replace(unit, stop=2), pack("twice", twice), clean=None, loaded=loaded)

    assert result["encoded"] == 1
    assert result["outcomes"]["id"] == ["s0", "again"]


def test_only_pictures_that_nobody_embedded_go_through_the_model(unit, plain, loaded):
    compute(replace(unit, stop=6), plain, clean=None, loaded=loaded)

    assert compute(unit, plain, clean=None, loaded=loaded)["encoded"] == 4


def test_texts_go_in_batches_of_one_size_and_once(loaded, eyes):
    loaded.batch_size = 8
    size = 2
    texts = [f"a cat, number {i}" for i in range(size + 1)]
    first = loaded.embed_texts(texts)
    again = loaded.embed_texts([texts[-1], texts[0], texts[-1]])

    assert [len(batch) for batch in eyes.texts] == [size, size]
    assert first.shape == (size + 1, 3)
    assert np.array_equal(again, first[[-1, 0, -1]])


def test_a_picture_that_cannot_be_decoded_is_excluded_and_counted(
    unit, pack, clean_samples, loaded
):
    samples = list(clean_samples)
    samples[2] = replace(samples[2], image=samples[2].image[:60])
    samples[5] = replace(samples[5], image=b"no picture")
    dataset = pack("damaged", samples)
    result = compute(unit, dataset, clean=None, loaded=loaded)

    assert result["errors"].keys() == {"s2", "s5"}
    assert "s5: not a picture" in result["errors"]["s5"]
    assert result["outcomes"]["id"] == [s.id for s in clean_samples if s.id not in ("s2", "s5")]
    assert (result["images"], result["encoded"]) == (10, 8)
    assert len(result["outcomes"]["values"]["correct"]) == 8


def test_a_damaged_picture_is_tried_again_and_never_answered(unit, pack, clean_samples, loaded):
    samples = [replace(clean_samples[0], image=b"no picture"), clean_samples[1]]
    dataset = pack("damaged", samples)
    first, second = (
        compute(replace(unit, stop=2), dataset, clean=None, loaded=loaded) for _ in range(2)
    )

    assert first["errors"] == second["errors"] != {}
    assert first["outcomes"] == second["outcomes"]


def test_nothing_but_damaged_pictures_is_a_table_of_no_rows(unit, pack, clean_samples, loaded):
    samples = [replace(s, image=b"no picture " + s.id.encode()) for s in clean_samples]
    result = compute(unit, pack("damaged", samples), clean=None, loaded=loaded)
    rows = outcomes_of([result])

    assert rows.n == 0
    assert len(rows.errors) == 10
    assert {len(column) for column in rows.values.values()} == {0}


def test_controls_are_drawn_on_the_clean_twins(unit, plain, typo, typo_samples, loaded):
    variants = ("attack", "occlusion", "matched")
    tables = {
        v: outcomes_of([compute(replace(unit, variant=v), typo, clean=plain, loaded=loaded)])
        for v in variants
    }

    assert loaded.encoded == 30  # every variant shows other pixels
    for rows in tables.values():
        assert rows.id == tuple(s.id for s in typo_samples)
        assert rows.decoy == tuple(s.decoy for s in typo_samples)
        assert rows.truth == tuple(CLASSES[s.label] for s in typo_samples)
    assert len({rows.values["margin"].tobytes() for rows in tables.values()}) == 3


def test_the_attack_does_not_ask_for_the_clean_twins(unit, typo, loaded):
    assert compute(unit, typo, clean=None, loaded=loaded)["errors"] == {}


def test_controls_without_the_clean_dataset_are_errors_of_every_sample(unit, typo, loaded):
    result = compute(replace(unit, variant="matched"), typo, clean=None, loaded=loaded)

    assert len(result["errors"]) == 10
    assert result["outcomes"]["id"] == []


def test_a_twin_that_the_clean_dataset_lacks_is_named(unit, pack, typo, clean_samples, loaded):
    smaller = pack("smaller", clean_samples[:9])

    with pytest.raises(DataError, match="first 's9'"):
        compute(replace(unit, variant="matched"), typo, clean=smaller, loaded=loaded)


def test_a_model_that_loses_rows_is_an_error(unit, plain, loaded, eyes, monkeypatch):
    embed = eyes.embed_images
    monkeypatch.setattr(eyes, "embed_images", lambda images: embed(images)[:-1])

    with pytest.raises(
        ModelError, match=r"return 4 rows for 4 inputs, got an array of shape \(3, 3\)"
    ):
        compute(unit, plain, clean=None, loaded=loaded)


def among_two(clean_samples):
    """Each picture's own class against one other, which takes turns."""
    return [
        replace(s, candidates=(CLASSES[s.label], CLASSES[(s.label + 1 + i % 2) % 3]))
        for i, s in enumerate(clean_samples)
    ]


def test_candidates_are_embedded_once_for_all_rows(unit, pack, clean_samples, loaded, eyes):
    dataset = pack("pairs", among_two(clean_samples), candidates=True)

    rows = compute(unit, dataset, clean=None, loaded=loaded)["outcomes"]

    asked = [text for batch in eyes.texts for text in dict.fromkeys(batch)]
    assert sorted(asked) == sorted({t.format(c) for t in TEMPLATES for c in CLASSES})
    assert rows["values"]["choices"] == [2.0] * len(clean_samples)
    assert rows["prediction"] == rows["truth"] == [CLASSES[s.label] for s in clean_samples]


def test_raw_embeddings_are_averaged_where_the_card_says_so(
    unit, pack, clean_samples, loaded, eyes
):
    def embed_texts_raw(texts):
        # In a drawing every class looks like the next one; a photo of a cat is told most loudly.
        at = [next(i for i, name in enumerate(CLASSES) if name in text) for text in texts]
        rows = [np.eye(3)[(i + ("drawing" in t)) % 3] for i, t in zip(at, texts, strict=True)]
        loud = [4 if text == "a photo of a cat." else 1 for text in texts]
        return (np.array(rows) * np.array(loud)[:, None]).astype(np.float32)

    eyes.embed_texts_raw = embed_texts_raw
    samples = among_two(clean_samples)
    dataset = pack("raw", samples, candidates=True, averaging="raw")

    rows = compute(unit, dataset, clean=None, loaded=loaded)["outcomes"]

    sums = {"cat": [4, 1, 0], "dog": [0, 1, 1], "cow": [1, 0, 1]}
    weights = {name: np.array(v) / np.linalg.norm(v) for name, v in sums.items()}
    for sample, margin in zip(samples, rows["values"]["margin"], strict=True):
        image = np.asarray(Image.open(io.BytesIO(sample.image)), np.float64).mean(axis=(0, 1))
        true, other = (image @ weights[c] / np.linalg.norm(image) for c in sample.candidates)
        assert margin == pytest.approx(10 * (true - other), abs=1e-5)
    assert eyes.texts == []


def test_a_model_that_tells_no_lengths_is_refused_where_they_count(
    unit, pack, clean_samples, loaded
):
    samples = among_two(clean_samples)
    dataset = pack("raw", samples, candidates=True, averaging="raw")

    with pytest.raises(ModelError, match=r"Eyes has no method embed_texts_raw.*--templates single"):
        compute(unit, dataset, clean=None, loaded=loaded)

    single = pack("single", samples, candidates=True, averaging="raw", templates=TEMPLATES[:1])
    rows = compute(unit, single, clean=None, loaded=loaded)["outcomes"]
    assert rows["prediction"] == rows["truth"]


@pytest.mark.parametrize(
    ("method", "fault", "says"),
    [
        ("embed_images", lambda rows: rows * 1.01, r"embed_images returned rows of length 1.01 to"),
        ("embed_texts", lambda rows: rows * 0.5, r"expected 1 \(within 0.001\); divide each row"),
        ("embed_images", lambda rows: rows * np.nan, "embed_images returned rows that are not fin"),
        ("embed_texts", lambda rows: rows[:, None], r"got an array of shape \(1, 1, 3\)"),
    ],
)
def test_embeddings_of_another_kind_are_refused_by_name(
    unit, plain, loaded, eyes, monkeypatch, method, fault, says
):
    """Normalised in silence, rows would hide a forgotten projection or an overflow."""
    whole = getattr(eyes, method)
    monkeypatch.setattr(eyes, method, lambda inputs: fault(whole(inputs)))
    loaded.name = "my-model"

    with pytest.raises(ModelError, match=f"^my-model: .*{says}"):
        compute(unit, plain, clean=None, loaded=loaded)


def test_embeddings_that_rounding_alone_moved_are_taken(unit, plain, loaded, eyes, monkeypatch):
    before = compute(unit, plain, clean=None, loaded=loaded)["outcomes"]
    whole = eyes.embed_images
    monkeypatch.setattr(eyes, "embed_images", lambda images: whole(images).astype(np.float16))
    other = LoadedModel(eyes, EmbeddingCache(loaded.cache.path.parent, "other"), batch_size=4)

    found = compute(unit, plain, clean=None, loaded=other)["outcomes"]
    assert found["prediction"] == before["prediction"]

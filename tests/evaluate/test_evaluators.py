"""The three tasks asked of one shard: against direct computation, and each picture encoded once."""

from __future__ import annotations

import base64
import io
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from natadv.errors import DataError, ModelError
from natadv.evaluate.compute import compute
from natadv.evaluate.embeddings import EmbeddingCache
from natadv.evaluate.loaded_model import LoadedModel
from natadv.evaluate.outcomes_json import outcomes_of
from natadv.evaluate.shard import shard_of
from natadv.heads.decoder import Decoder
from natadv.heads.folder import AnsweringHead
from natadv.heads.head_file import DecoderConfig, McanConfig
from natadv.heads.mcan import Mcan
from natadv.heads.vocabulary import Vocabulary, encode
from natadv.tasks import ASKED, segmentation, vqa
from natadv.types import ForwardFeatures

HEADS = {"segmentation": "a" * 64, "vqa": "b" * 64}
WORDS = ("animal", "colour", "is", "it", "what")
ANSWERS = ("red", "green", "blue", "yes")


def png(mask) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8) * 255).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def tower(eyes):
    """Sees the colours of a grid of places, too; its second layer is the first one squared."""

    def forward_features(images, layers):
        eyes.looks.append((len(images), tuple(layers)))
        grid = np.stack([np.asarray(i.resize((4, 4)), np.float32) / 255 for i in images])
        return ForwardFeatures(eyes.embed_images(images), tuple(grid**layer for layer in layers))

    eyes.looks, eyes.depth, eyes.forward_features = [], 2, forward_features
    return eyes


@pytest.fixture
def heads():
    torch.manual_seed(3)
    decoder = Decoder(DecoderConfig((1, 2), (3, 3), 3, 8, reduce_width=8, heads=2, feed_forward=16))
    mcan = Mcan(McanConfig(len(WORDS) + 2, len(ANSWERS), 2, 3, 8, 16, 2, 32, 1, summary=8, fused=8))
    with torch.no_grad():
        # Random weights would give every picture the same answer.
        mcan.answer.bias.zero_()
        mcan.norm.bias.zero_()
        for parameter in (mcan.image.weight, mcan.embedding.weight):
            parameter.mul_(20)
    return {
        HEADS["segmentation"]: decoder.eval(),
        HEADS["vqa"]: AnsweringHead(mcan.eval(), Vocabulary(WORDS), ANSWERS),
    }


@pytest.fixture
def equipped(loaded, tower, heads):
    loaded.heads = heads
    return loaded


@pytest.fixture
def samples(clean_samples):
    """Two rows about each picture."""
    rows = []
    for i, sample in enumerate(clean_samples):
        for ask in range(2):
            mask = np.zeros((32, 32), bool)
            mask[i : i + 9, 5 + ask : 20] = True
            rows.append(
                replace(
                    sample,
                    id=f"{sample.id}-{ask}",
                    phrase=f"a cat, {ask}" if i % 2 else "the dog",
                    mask=png(mask),
                    question="what colour is it" if ask else "is it an animal",
                    answers=("red",) * 8 + ("green",) * 2,
                    answer_type="other",
                )
            )
    return rows


@pytest.fixture
def dataset(pack, samples):
    return pack("asked", samples, tasks=tuple(ASKED))


@pytest.fixture
def units(make_unit, dataset):
    return [
        make_unit(
            task=task,
            dataset="asked",
            revision=dataset.card.revision,
            stop=20,
            protocol=ASKED[task].protocol,
            head=HEADS.get(task, ""),
        )
        for task in ASKED
    ]


def table(results, unit):
    return outcomes_of([results[unit.key]])


def test_three_tasks_encode_each_picture_once(units, dataset, equipped, tower):
    results = compute(units, dataset, clean=None, loaded=equipped)

    assert equipped.encoded == 10
    assert tower.looks == [(4, (1, 2))] * 3  # 10 pictures of 20 rows, in full batches
    assert [results[u.key]["encoded"] for u in units] == [10, 0, 0]
    assert [results[u.key]["images"] for u in units] == [20] * 3


def test_a_head_of_another_resolution_has_a_pass_of_its_own(units, dataset, equipped, tower):
    """Its features are those of that resolution, the cached embeddings are not."""
    alone = compute(units, dataset, clean=None, loaded=equipped)
    decoder = equipped.heads[HEADS["segmentation"]]
    decoder.config = replace(decoder.config, input_px=6)
    asked = []

    def at_resolution(side_px):
        asked.append(side_px)

        def forward_features(images, layers):
            grid = np.stack([np.asarray(i.resize((6, 6)), np.float32) / 255 for i in images])
            embeddings = np.zeros((len(images), 0), np.float32)
            return ForwardFeatures(embeddings, tuple(grid**layer for layer in layers))

        return SimpleNamespace(depth=2, prepare=tower.prepare, forward_features=forward_features)

    tower.at_resolution = at_resolution
    tower.looks.clear()
    equipped.cache = EmbeddingCache(equipped.cache.path.parent, "fresh")
    equipped.encoded = 0
    results = compute(units, dataset, clean=None, loaded=equipped)

    assert asked == [6]
    assert equipped.encoded == 20
    assert tower.looks == [(4, (2,))] * 3
    for unit, same in zip(units, (True, False, True), strict=True):
        both = [found[unit.key]["outcomes"] for found in (alone, results)]
        assert (both[0] == both[1]) is same
    keys = {p.key for p in shard_of(units[0], dataset, clean=None).pictures().values()}
    cached = equipped.cache.get(keys)
    assert {vector.shape for vector in cached.values()} == {(3,)}
    assert cached.keys() == keys


def test_a_head_of_another_resolution_needs_a_tower_that_has_it(units, dataset, equipped):
    decoder = equipped.heads[HEADS["segmentation"]]
    decoder.config = replace(decoder.config, input_px=6)
    equipped.name = "my-model"

    with pytest.raises(ModelError, match="my-model: its head reads pictures of 6 pixels, and the"):
        compute(units[1:2], dataset, clean=None, loaded=equipped)


def test_together_and_alone_give_the_same_rows(units, dataset, equipped):
    together = compute(units, dataset, clean=None, loaded=equipped)

    for unit in units:
        alone = compute([unit], dataset, clean=None, loaded=equipped)[unit.key]
        assert alone["outcomes"] == together[unit.key]["outcomes"]
        assert alone.get("masks") == together[unit.key].get("masks")


def test_names_need_no_second_look_where_vectors_stand(units, dataset, equipped, tower):
    compute(units, dataset, clean=None, loaded=equipped)
    tower.looks.clear()
    result = compute(units[:1], dataset, clean=None, loaded=equipped)[units[0].key]

    assert result["encoded"] == 0
    assert tower.looks == []


def grid_of(sample):
    image = Image.open(io.BytesIO(sample.image)).convert("RGB").resize((4, 4))
    return torch.from_numpy(np.asarray(image, np.float32) / 255)[None]


def test_masks_are_those_of_the_decoder_on_each_sample_alone(
    units, dataset, equipped, heads, samples
):
    rows = table(compute(units, dataset, clean=None, loaded=equipped), units[1])
    decoder = heads[HEADS["segmentation"]]
    masks = []
    for sample in samples:
        name = 0 if "cat" in sample.phrase else 1
        grid = grid_of(sample)
        with torch.inference_mode():
            logits = decoder([grid, grid**2], torch.eye(3)[name][None])
        masks.append(logits.sigmoid()[0].numpy())
    expected = segmentation.outcomes(samples, masks)

    assert rows.id == tuple(s.id for s in samples)
    assert rows.truth == tuple(s.phrase for s in samples)
    for name in ASKED["segmentation"].values:
        np.testing.assert_allclose(rows.values[name], expected.values[name], atol=1e-9)
    assert len(set(rows.values["tp"])) > 3


def test_answers_are_those_of_mcan_on_each_sample_alone(units, dataset, equipped, heads, samples):
    rows = table(compute(units, dataset, clean=None, loaded=equipped), units[2])
    head = heads[HEADS["vqa"]]
    said = []
    for sample in samples:
        words = torch.from_numpy(encode([sample.question], head.words))
        with torch.inference_mode():
            logits = head.mcan(grid_of(sample) ** 2, words)
        said.append(ANSWERS[int(logits[0].argmax())])

    assert rows.prediction == tuple(said)
    assert len(set(said)) > 1
    expected = [vqa.accuracy(a, s.answers) for a, s in zip(said, samples, strict=True)]
    np.testing.assert_array_equal(rows.values["accuracy"], expected)


def test_the_worst_masks_are_kept_for_people(units, dataset, equipped):
    result = compute(units, dataset, clean=None, loaded=equipped)[units[1].key]
    rows = outcomes_of([result])
    ious = dict(zip(rows.id, rows.values["iou"], strict=True))
    kept = result["masks"]

    assert len(kept) == 12
    assert max(ious[name] for name in kept) <= min(v for k, v in ious.items() if k not in kept)
    for name, text in kept.items():
        mask = np.asarray(Image.open(io.BytesIO(base64.b64decode(text))).convert("L"))
        assert mask.shape == (32, 32)
        at = rows.id.index(name)
        assert (mask == 255).sum() == rows.values["tp"][at] + rows.values["fp"][at]


def test_a_picture_that_cannot_be_decoded_is_excluded_from_every_task(
    units, pack, samples, equipped
):
    whole = {s.id: s for s in samples}
    # Its size can be told, its pixels cannot be read.
    cut = {n: replace(s, image=s.image[:-400]) for n, s in whole.items() if n.startswith("s4")}
    dataset = pack("cut", [cut.get(n, s) for n, s in whole.items()], tasks=tuple(ASKED))
    results = compute(units, dataset, clean=None, loaded=equipped)

    for unit in units:
        assert results[unit.key]["errors"].keys() == {"s4-0", "s4-1"}
        assert len(results[unit.key]["outcomes"]["id"]) == 18


class Alone:
    """Finds and answers by itself; embeds nothing."""

    threshold = 0.3

    def __init__(self):
        self.batches = []

    def segment(self, images, phrases):
        self.batches.append(len(images))
        bright = np.stack([np.asarray(i, np.float32).max(axis=2) / 255 for i in images])
        return bright * np.array([0.5 if "dog" in p else 1.0 for p in phrases])[:, None, None]

    def answer(self, images, questions):
        return tuple("red" if "colour" in q else "yes" for q in questions)


def test_a_model_that_is_fed_as_in_the_paper_sees_its_only_prompt(
    units, pack, samples, loaded, eyes, monkeypatch
):
    dataset = pack("wordy", samples, tasks=tuple(ASKED), templates=("{}", "the {} there"))
    asked: list[str] = []
    embed = eyes.embed_texts
    monkeypatch.setattr(eyes, "embed_texts", lambda texts: asked.extend(texts) or embed(texts))

    compute([replace(units[0], model="mini-clip@paper")], dataset, clean=None, loaded=loaded)
    assert {text.partition(" of ")[0] for text in asked} == {"a photo"}
    asked.clear()
    compute([units[0]], dataset, clean=None, loaded=loaded)
    assert any(text.startswith("the ") for text in asked)


def test_a_model_that_finds_and_answers_by_itself(units, dataset, samples, loaded):
    model = Alone()
    own = LoadedModel(model, loaded.cache, batch_size=8)
    asked = [replace(u, head="") for u in units[1:]]
    results = compute(asked, dataset, clean=None, loaded=own)
    found, said = (table(results, u) for u in asked)

    assert model.batches == [8, 8, 8]
    images = [Image.open(io.BytesIO(s.image)).convert("RGB") for s in samples]
    masks = list(model.segment(images, [s.phrase for s in samples]))
    expected = segmentation.outcomes(samples, masks, threshold=0.3)
    assert found.id == said.id == tuple(s.id for s in samples)
    np.testing.assert_array_equal(found.values["tp"], expected.values["tp"])
    assert said.prediction == ("yes", "red") * 10


@pytest.mark.parametrize(("method", "at"), [("segment", 0), ("answer", 1)])
def test_a_model_that_loses_a_row_is_refused(units, dataset, loaded, monkeypatch, method, at):
    """The rows that fill a batch up would hide it, and each answer go to the question before."""
    whole = getattr(Alone, method)
    monkeypatch.setattr(Alone, method, lambda self, *asked: whole(self, *asked)[1:])
    own = LoadedModel(Alone(), loaded.cache, batch_size=8)

    with pytest.raises(ModelError, match="per picture, got 7 for 8"):
        compute([replace(units[1:][at], head="")], dataset, clean=None, loaded=own)


def test_answers_that_are_not_finite_are_none(units, dataset, equipped, heads):
    with torch.no_grad():
        heads[HEADS["vqa"]].mcan.image.weight.fill_(3e38)

    with pytest.raises(ModelError, match="answers are not finite"):
        compute(units[2:], dataset, clean=None, loaded=equipped)


def test_a_question_without_answers_is_told_before_a_model_is_asked(
    units, pack, samples, loaded, monkeypatch
):
    monkeypatch.setattr("natadv.data.shards.check_sample", lambda *_, **__: None)
    monkeypatch.setattr(Alone, "answer", lambda *_: pytest.fail("was asked"))
    few = replace(samples[-1], answers=())
    dataset = pack("few", [*samples[:-1], few], tasks=tuple(ASKED))
    own = LoadedModel(Alone(), loaded.cache, batch_size=8)

    with pytest.raises(DataError, match=r"'s9-1': .*answer"):
        compute([replace(units[2], head="")], dataset, clean=None, loaded=own)


def test_of_masks_that_are_equally_bad_those_are_kept_that_a_sheet_shows(
    units, pack, samples, loaded, monkeypatch
):
    monkeypatch.setattr(Alone, "segment", lambda _, images, phrases: np.zeros((len(images), 4, 4)))
    order = [f"t{i}" for i in range(20)]
    rows = [replace(s, id=name) for s, name in zip(samples, order, strict=True)]
    dataset = pack("ties", rows, tasks=tuple(ASKED))
    own = LoadedModel(Alone(), loaded.cache, batch_size=8)
    unit = replace(units[1], head="")

    kept = compute([unit], dataset, clean=None, loaded=own)[unit.key]["masks"]

    assert sorted(kept) == sorted(order)[:12]


@pytest.mark.parametrize(("task", "says"), [("segmentation", "finds"), ("vqa", "answers")])
def test_a_model_that_cannot_is_refused(units, dataset, loaded, task, says):
    (unit,) = [replace(u, head="") for u in units if u.task == task]

    with pytest.raises(ModelError, match=f"Eyes {says} no"):
        compute([unit], dataset, clean=None, loaded=loaded)


def test_a_head_of_the_other_task_is_refused(units, dataset, equipped):
    crossed = [replace(units[1], head=HEADS["vqa"]), replace(units[2], head=HEADS["segmentation"])]

    for unit in crossed:
        with pytest.raises(ModelError, match="expected a head for"):
            compute([unit], dataset, clean=None, loaded=equipped)


def test_a_phrase_that_is_blank_is_named(units, pack, samples, equipped, monkeypatch):
    monkeypatch.setattr("natadv.data.shards.check_sample", lambda *_, **__: None)
    dataset = pack("blank", [replace(samples[0], phrase="  "), *samples[1:]], tasks=tuple(ASKED))

    with pytest.raises(DataError, match=r"'s0-0': expected a phrase"):
        compute(units, dataset, clean=None, loaded=equipped)


def test_layers_that_nobody_asked_for_are_not_looked_at(units, dataset, equipped, tower):
    compute(units[2:], dataset, clean=None, loaded=equipped)

    assert {layers for _, layers in tower.looks} == {(2,)}


def test_batches_of_another_size_find_the_same(units, dataset, equipped, store):
    results = []
    for size in (1, 3, 64):
        equipped.batch_size = size
        rows = table(compute(units, dataset, clean=None, loaded=equipped), units[1])
        results.append(rows.values["tp"])

    for one, other in pairwise(results):
        np.testing.assert_allclose(one, other, atol=1)


def cut_to_the_middle(images):
    return [ImageOps.fit(image, (16, 16)) for image in images]


@pytest.mark.parametrize(("prepare", "encoded"), [(None, 10), (cut_to_the_middle, 12)])
def test_a_tower_that_cuts_is_shown_squares_to_find_things(
    units, pack, samples, equipped, tower, monkeypatch, prepare, encoded
):
    # Of ten pictures two are no squares.
    wide = io.BytesIO()
    Image.effect_noise((64, 32), 90).convert("RGB").save(wide, "PNG")
    high = io.BytesIO()
    Image.effect_noise((32, 64), 90).convert("RGB").save(high, "PNG")
    other = {"s3": (wide, (32, 64)), "s7": (high, (64, 32))}
    rows = []
    for sample in samples:
        file, shape = other.get(sample.id[:2], (None, None))
        if file is not None:
            mask = np.ones(shape, bool)
            sample = replace(sample, image=file.getvalue(), mask=png(mask))
        rows.append(sample)
    shown = []
    plain = tower.prepare

    def noting(images):
        shown.extend(image.size for image in images)
        return (prepare or plain)(images)

    if prepare is None:
        monkeypatch.setattr("natadv.evaluate.shard.sees_whole", lambda _: True)
    tower.prepare = noting
    results = compute(units, pack("wide", rows, tasks=tuple(ASKED)), clean=None, loaded=equipped)

    assert equipped.encoded == encoded
    assert ((64, 64) in shown) == (encoded > 10)
    assert all(not results[u.key]["errors"] for u in units)

"""Maps of every task, with models and heads whose maps are known."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from natadv.errors import ConfigError, DataError, ModelError
from natadv.evaluate.embeddings import EmbeddingCache
from natadv.evaluate.explanation import relevance_maps
from natadv.evaluate.loaded_model import LoadedModel
from natadv.heads.decoder import Decoder
from natadv.heads.folder import AnsweringHead
from natadv.heads.head_file import DecoderConfig, McanConfig
from natadv.heads.mcan import Mcan
from natadv.heads.vocabulary import Vocabulary
from natadv.types import ForwardFeatures

CARD = SimpleNamespace(templates=("a photo of a {}.",), averaging="unit")
GRID = 4


class Squares:
    """Sees squares, as whole pictures; where it is bright speaks for whatever is asked."""

    scoring = None
    depth = 1

    def __init__(self):
        self.asked = []
        self.texts = set()

    def prepare(self, images):
        return np.stack([self.shown(image) for image in images])

    def shown(self, image):
        small = image.convert("L").resize((GRID, GRID), Image.Resampling.BOX)
        return np.asarray(small, np.float32) / 255

    def embed_images(self, prepared):
        raise AssertionError("no map needs it")

    def embed_texts(self, texts):
        self.texts |= set(texts)
        rows = {"cat": 0, "dog": 1, "cow": 2}
        return np.eye(3, dtype=np.float32)[
            [next(n for word, n in rows.items() if word in t) for t in texts]
        ]

    def relevance(self, prepared, targets, *, layers="last"):
        self.asked.append((len(prepared), layers))
        # The class shows in the scale.
        return prepared * (1 + targets.argmax(axis=1))[:, None, None]

    def forward_features(self, prepared, layers):
        places = np.stack([prepared, prepared**2, 1 - prepared], axis=-1)
        return ForwardFeatures(np.zeros((len(prepared), 0), np.float32), (places,) * len(layers))


class Middle(Squares):
    """Sees the largest square in the middle."""

    def shown(self, image):
        side = min(image.size)
        left, top = ((px - side) // 2 for px in image.size)
        return super().shown(image.crop((left, top, left + side, top + side)))


class Proportions(Squares):
    """Keeps them, and takes pictures of one shape at a time."""

    def prepare(self, images):
        return [np.asarray(image.convert("L"), np.float32) / 255 for image in images]

    def relevance(self, prepared, targets, *, layers="last"):
        if len({rows.shape for rows in prepared}) > 1:
            raise ModelError("ask for pictures of one shape at a time")
        return super().relevance(np.stack(prepared), targets, layers=layers)


@pytest.fixture
def load(store):
    def make(model, *, name="the-model"):
        cache = EmbeddingCache(store.root / "embeddings", "space")
        return LoadedModel(model, cache, batch_size=3, name=name)

    return make


@pytest.fixture
def samples(clean_samples):
    return [replace(s, question="what is it?", answers=("a",)) for s in clean_samples[:5]]


def bright(size, box=None):
    picture = Image.new("RGB", size)
    picture.paste((255, 255, 255), box or (0, 0, *size))
    return picture


def classes(loaded, samples, images, names, **other):
    return relevance_maps(
        samples, images, names, task="classification", loaded=loaded, card=CARD, **other
    )


def test_each_picture_is_explained_for_its_own_class(load, samples):
    model = Squares()
    images = [bright((8, 8), (2 * i, 0, 2 * i + 2, 2)) for i in range(4)] + [bright((8, 8))]
    names = ["cow", "cat", "dog", "cat", "cow"]
    found = classes(load(model), samples, images, names, layers="all")

    assert [maps[0].tolist() for maps in found] == [
        [3, 0, 0, 0],
        [0, 1, 0, 0],
        [0, 0, 2, 0],
        [0, 0, 0, 1],
        [3, 3, 3, 3],
    ]
    assert model.asked == [(3, "all"), (2, "all")]


def test_a_model_of_the_paper_is_asked_in_its_prompt(load, samples):
    card = SimpleNamespace(templates=("a drawing of a {}.", "a {}."), averaging="unit")
    texts = {}
    for name in ("m", "m@paper"):
        model = Squares()
        asked = {"task": "classification", "loaded": load(model, name=name), "card": card}
        relevance_maps(samples[:1], [bright((8, 8))], ["cow"], **asked)
        texts[name] = model.texts

    assert texts == {"m": {"a drawing of a cow.", "a cow."}, "m@paper": {"a photo of a cow."}}


@pytest.mark.parametrize(
    "model", [Squares(), Middle(), Proportions()], ids=lambda m: type(m).__name__
)
def test_a_map_lies_over_its_whole_picture(model, load, samples):
    """The same bright part has the same share of any map, at its own place."""
    wide, tall = bright((16, 8), (4, 2, 8, 4)), bright((8, 16), (2, 4, 4, 8))
    found = classes(
        load(model), samples[:3], [wide, tall, bright((8, 8), (2, 2, 4, 4))], ["cat"] * 3
    )

    for maps, (x, y) in zip(found, ((6 / 16, 3 / 8), (3 / 8, 6 / 16), (3 / 8, 3 / 8)), strict=True):
        rows, columns = maps.shape
        total = maps.sum()
        centre = (np.arange(columns) + 0.5) @ maps.sum(axis=0) / total / columns
        middle = (np.arange(rows) + 0.5) @ maps.sum(axis=1) / total / rows

        assert (centre, middle) == pytest.approx((x, y), abs=1e-6)


def test_what_a_crop_hides_is_not_relevant(load, samples):
    image = bright((16, 8), (0, 0, 4, 8))
    (hidden,) = classes(load(Middle()), samples[:1], [image], ["cat"])
    (seen,) = classes(load(Squares()), samples[:1], [image], ["cat"])

    assert hidden.shape == (32, 64)
    assert not hidden.any()
    assert seen.any()


def test_a_marked_region_is_explained_by_its_head(load, samples):
    torch.manual_seed(0)
    config = DecoderConfig(
        (1,), (3,), 3, 2, reduce_width=8, heads=2, feed_forward=16, threshold=0.1
    )
    head, loaded = Decoder(config).eval(), load(Middle())
    images = [bright((16, 8), (6, 2, 8, 4)), *[bright((8, 8), (0, 0, 4, 4))] * 4]
    names = ["the cat", "a dog", "cow", "dog", "cat"]
    found = relevance_maps(
        samples, images, names, task="segmentation", loaded=loaded, card=CARD, head=head
    )
    square = images[0].resize((16, 16), Image.Resampling.BICUBIC)
    features = loaded.model.forward_features(loaded.model.prepare([square]), [1]).features
    expected = head.relevance(features, loaded.embed_texts(names[:1]))

    assert [maps.shape for maps in found] == [(GRID, GRID)] * 5
    assert found[0] == pytest.approx(expected[0], abs=1e-6)


def test_an_answer_is_explained_by_its_head_or_by_the_model(load, samples):
    torch.manual_seed(0)
    config = McanConfig(
        words=5,
        answers=2,
        layer=1,
        image_width=3,
        hidden=8,
        heads=2,
        feed_forward=8,
        blocks=1,
        summary=4,
        fused=6,
        embedding=4,
    )
    head = AnsweringHead(Mcan(config).eval(), Vocabulary(("is", "it", "what")), ("yes", "no"))
    model = Squares()
    images = [bright((8, 8), (0, 0, 2 * i + 2, 4)) for i in range(3)] + [bright((8, 8))] * 2
    answers = ["yes", "no", "perhaps", "yes", "no"]
    asked = {"task": "vqa", "loaded": load(model), "card": CARD}
    found = relevance_maps(samples, images, answers, head=head, **asked)
    (features,) = model.forward_features(model.prepare(images), [1]).features
    expected = head.relevance(features, ["what is it?"] * 5, answers)

    assert np.stack(found) == pytest.approx(expected, abs=1e-6)
    with pytest.raises(
        ModelError, match="the-model gives no relevance maps; see AnswerExplainable"
    ):
        relevance_maps(samples, images, answers, **asked)

    class Answers(Squares):
        def answer_relevance(self, images, questions, answers, *, layers="last"):
            assert questions == ["what is it?"] * len(images)
            return np.stack([np.full((1, 2), len(a), np.float32) for a in answers])

    own = relevance_maps(samples, images, answers, **{**asked, "loaded": load(Answers())})
    assert [maps.tolist() for maps in own] == [[[len(a)] * 2] for a in answers]


def test_a_marked_region_is_explained_by_a_model_without_head(load, samples):
    class Marks(Squares):
        def region_relevance(self, images, phrases):
            return np.stack([np.full((2, 1), len(p), np.float32) for p in phrases])

    images, phrases = [bright((8, 6))] * 5, ["a", "ab", "abc", "abcd", "abcde"]
    found = relevance_maps(
        samples, images, phrases, task="segmentation", loaded=load(Marks()), card=CARD
    )

    assert [maps.tolist() for maps in found] == [[[n], [n]] for n in range(1, 6)]


def test_what_cannot_be_explained_says_why(load, samples, eyes):
    images = [bright((8, 8))] * 5
    wrong = load(eyes)
    with pytest.raises(ModelError, match="the-model gives no relevance maps; see Explainable in"):
        classes(wrong, samples, images, ["cat"] * 5)
    with pytest.raises(ModelError, match="gives no relevance maps; see RegionExplainable"):
        relevance_maps(samples, images, ["x"] * 5, task="segmentation", loaded=wrong, card=CARD)
    with pytest.raises(ConfigError, match="task 'heads' has no relevance maps; expected classif"):
        relevance_maps(samples, images, ["x"] * 5, task="heads", loaded=wrong, card=CARD)
    with pytest.raises(DataError, match="got 5 and 1 for 5"):
        classes(wrong, samples, images, ["cat"])
    assert classes(wrong, [], [], []) == []


def test_an_error_of_the_model_is_not_hidden(load, samples, monkeypatch):
    def fail(self, prepared, targets, *, layers="last"):
        raise ModelError("its maps are not finite")

    monkeypatch.setattr(Squares, "relevance", fail)
    for sizes in ((8, 8), (8, 6)):
        images = [bright((side, 8)) for side in sizes]
        with pytest.raises(ModelError, match="its maps are not finite"):
            classes(load(Squares()), samples[:2], images, ["cat"] * 2)

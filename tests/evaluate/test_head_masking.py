"""The task `heads` on a tower in which one head reads what is written, and against loops."""

from __future__ import annotations

import io
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch
from PIL import Image

from natadv.errors import ModelError
from natadv.evaluate.compute import compute
from natadv.evaluate.embeddings import EmbeddingCache
from natadv.evaluate.loaded_model import LoadedModel
from natadv.evaluate.outcomes_json import outcomes_of
from natadv.evidence import Evidence
from natadv.explain.head_masking import masked_embeddings
from natadv.explain.layers import Attended, LayerwisePass, TowerLayer
from natadv.metrics import measure
from natadv.metrics.heads import head_changes
from natadv.tasks.heads import HEADS, PROTOCOLS, column_of
from natadv.tasks.task import Prediction
from natadv.types import Sample

from .conftest import CLASSES, Eyes, Scoring

LEFT, RIGHT = 1, 2
READS = ({0: (LEFT, 1.0)}, {0: (LEFT, 0.3), 1: (RIGHT, 2.0)})
"""For each layer: head -> the token whose colour the class token reads, and how strongly. The last
one reads the word."""


def layer(reads):
    def attend(state):
        outputs = torch.zeros(len(state), 2, *state.shape[1:])
        for head, (token, strength) in reads.items():
            outputs[:, head, 0] = strength * state[:, token]
        return Attended(torch.zeros(0), outputs)

    return TowerLayer(2, attend, lambda state, outputs: state + outputs.sum(dim=1))


def unit_rows(rows):
    return (rows / rows.norm(dim=-1, keepdim=True)).numpy()


@dataclass
class Reader(Eyes):
    """The object is in the left half of a picture, a word in the right one."""

    def opened(self, images):
        halves = [np.asarray(image, np.float32).reshape(-1, 2, 16, 3) for image in images]
        colours = torch.from_numpy(np.stack([half.mean(axis=(0, 2)) for half in halves]))
        # Grey says nothing.
        tokens = colours - colours.mean(dim=-1, keepdim=True)
        first = torch.cat([torch.zeros(len(tokens), 1, 3), tokens], dim=1)
        return LayerwisePass(
            first, tuple(map(layer, READS)), lambda state: state[:, 0], grid=(1, 2), leading=1
        )

    def embed_images(self, images):
        opened = self.opened(images)
        return unit_rows(opened.embed(opened.state(2)))

    def masked_embeddings(self, images, *, tokens="all"):
        for rows in masked_embeddings(self.opened(images), tokens=tokens):
            yield unit_rows(rows)


def written(sample, word):
    """The sample with a colour in its right half, or with grey."""
    pixels = np.array(Image.open(io.BytesIO(sample.image)))
    pixels[:, 16:] = 120 if word is None else 240 * np.eye(3, dtype=np.uint8)[word]
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return replace(sample, image=out.getvalue(), decoy=None if word is None else CLASSES[word])


@pytest.fixture
def asked(pack, make_unit, store):
    """The outcomes of a model on samples, for a task and its protocol."""

    def ask(model, samples, *, task="heads", protocol=PROTOCOLS["all"], **card):
        name = f"{task}-{len(list(store.root.parent.glob('fixtures/datasets/*')))}"
        dataset = pack(name, samples, **card)
        revision, stop = dataset.card.revision, len(samples)
        unit = make_unit(task=task, dataset=name, revision=revision, stop=stop, protocol=protocol)
        loaded = LoadedModel(model, EmbeddingCache(store.root / "embeddings", name), batch_size=4)
        return outcomes_of(compute([unit], dataset, clean=None, loaded=loaded).values())

    return ask


def test_the_head_that_reads_the_word_is_found(asked, clean_samples):
    typo = [written(s, (s.label + 1) % 3) for s in clean_samples]
    attacked = asked(Reader(), typo)
    found = head_changes(attacked)

    assert attacked.prediction.equals("cat").any()
    assert attacked.values["said_decoy"].all()
    assert found.accuracy == 0
    assert found.change.tolist() == [[0, 0], [0, 1]]
    assert found.critical.tolist() == [[False, False], [False, True]]
    assert measure("critical_heads", Evidence(attacked)).value == 1
    assert measure("largest_head_change", Evidence(attacked)).value == 1
    plain = head_changes(asked(Reader(), [written(s, None) for s in clean_samples]))
    assert plain.accuracy == 1
    assert not plain.change.any()


def test_rows_are_those_of_classification_with_a_column_for_each_head(asked, clean_samples):
    mixed = [written(s, None if i % 2 else (s.label + 1) % 3) for i, s in enumerate(clean_samples)]
    rows = asked(Reader(), mixed)
    plain = asked(Reader(), mixed, task="classification", protocol="zero-shot-1")

    assert list(rows.prediction) == list(plain.prediction)
    assert all(rows.values[n].tolist() == plain.values[n].tolist() for n in plain.values)
    others = set(rows.values) - set(plain.values)
    assert others == {column_of(place + 1, head + 1) for place, head in np.ndindex(2, 2)}
    assert set(HEADS.values) <= set(rows.values)


def test_the_class_token_alone_is_asked_for_by_another_protocol(asked, clean_samples):
    tokens = []

    class Recorded(Reader):
        def masked_embeddings(self, images, *, tokens="all", asked=tokens):
            asked.append(tokens)
            return super().masked_embeddings(images, tokens=tokens)

    asked(Recorded(), clean_samples, protocol=PROTOCOLS["class"])
    asked(Recorded(), clean_samples)

    assert set(tokens[:3]) == {"class"}
    assert set(tokens[3:]) == {"all"}


@dataclass
class Noisy(Eyes):
    """Two layers of three heads with embeddings of no meaning."""

    scoring: Scoring = field(default_factory=lambda: Scoring(activation="sigmoid"))

    def masked_embeddings(self, images, *, tokens="all"):
        for place in range(2):
            yield np.stack([self._rows(images, place, head) for head in range(3)])

    def _rows(self, images, place, head):
        rows = [noise(image, place, head) for image in images]
        return np.array(rows, np.float32).reshape(-1, 3)


def noise(image, *key):
    row = np.random.default_rng([int(np.asarray(image).sum()), *key]).normal(size=3)
    return row / np.linalg.norm(row)


def test_each_head_is_judged_among_the_candidates_of_each_sample(asked, clean_samples):
    pairs = [("cat", "dog", "cow"), ("cow", "dog"), ("cow", "cat")]
    samples = [
        replace(s, candidates=next(p for p in pairs[i % 3 :] + pairs if CLASSES[s.label] in p))
        for i, s in enumerate(clean_samples)
    ]
    for card in ({"candidates": True}, {}):
        given = samples if card else [replace(s, candidates=()) for s in samples]
        rows = asked(Noisy(), given, **card)
        right = []
        for name, sample in zip(rows.id, samples, strict=True):
            image = Image.open(io.BytesIO(sample.image))
            for place, head in np.ndindex(2, 3):
                names = sample.candidates if card else CLASSES
                row = noise(image, place, head)
                said = max(names, key=lambda n, row=row: row[CLASSES.index(n)])
                found = rows.values[column_of(place + 1, head + 1)][list(rows.id).index(name)]
                assert found == (said == CLASSES[sample.label])
                right.append(found)
        assert 0.1 < np.mean(right) < 0.9


def test_a_broken_picture_has_no_row_and_a_shard_of_them_has_all_columns(asked, clean_samples):
    broken = [replace(s, image=s.image[:80]) for s in clean_samples]
    some = asked(Noisy(), [*clean_samples[:5], *broken[5:]])
    none = asked(Noisy(), broken)

    assert some.n == 5
    assert sorted(some.errors) == sorted(s.id for s in broken[5:])
    assert {len(column) for column in some.values.values()} == {5}
    assert none.n == 0
    assert set(none.values) == set(some.values)


def test_a_sheet_says_without_which_head_a_failure_is_right():
    sample = Sample("a", "a", b"", label=0)
    said = {"score": 0.9, "layer_1_head_1": 0.0, "layer_1_head_2": 0.0, "layer_2_head_1": 0.0}

    def last(**right):
        found = Prediction(text="dog", correct=False, values=said | right)
        return HEADS.sheet.failure(sample, "cat", found)[-1].text

    assert last() == "wrong, whichever head is masked"
    assert last(layer_2_head_1=1.0) == "right without layer 2 head 1"
    both = last(layer_1_head_2=1.0, layer_2_head_1=1.0)
    assert both == "right without layer 1 head 2 or 1 other"


def test_a_model_that_masks_in_another_shape_is_refused(asked, clean_samples):
    class Odd(Noisy):
        def masked_embeddings(self, images, *, tokens="all"):
            for place, rows in enumerate(super().masked_embeddings(images)):
                yield rows[: 3 - place]

    with pytest.raises(ModelError, match=r"of shape \(heads, 4, d\), with as many heads in each"):
        asked(Odd(), clean_samples)
    with pytest.raises(ModelError, match="the model masks no heads, or has no embeddings"):
        asked(Eyes(), clean_samples)

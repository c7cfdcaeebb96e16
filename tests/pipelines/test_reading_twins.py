"""The pictures of a typographic dataset, asked for the words on them."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest

from natadv.data.card import load_card
from natadv.errors import ConfigError, DataError, UnknownNameError
from natadv.pipelines import reading_twins
from natadv.pipelines.reading_twins import ReadingPlan, make_reading
from natadv.pipelines.typographic_twins import make_typographic
from natadv.tasks.masks import truth_mask

from .conftest import CLASSES, read

TASKS = ("classification", "segmentation", "vqa")
RECIPES = ("post-it", "defense-prefix")


@pytest.fixture
def typo(make_plan, root):
    """The name of a typographic dataset, and its samples."""
    make_typographic(make_plan(recipes=RECIPES, limit=70))
    return read(root, "all-typo")


@pytest.fixture
def reading(root):
    def make(source="all-typo", **fields):
        told = {"name": "all-reading", "root": root, "stream": io.StringIO(), **fields}
        made = make_reading(ReadingPlan(source, **told))
        return made, read(root, told["name"])

    return make


def test_the_same_picture_is_asked_for_its_word_by_every_task(typo, reading):
    made, twins = reading()

    card = made.card
    assert (card.scenario, card.twin_of, card.tasks) == ("reading", "all-typo", TASKS)
    assert (card.classes, card.templates) == (CLASSES, ("the word {}.",))
    assert len(twins) == len(typo) > 30
    assert not made.left_out
    for twin, attacked in zip(twins, typo, strict=True):
        assert (twin.twin, twin.group, twin.part) == (attacked.id, attacked.group, attacked.part)
        assert (twin.image, twin.overlay) == (attacked.image, attacked.overlay)
        assert CLASSES[twin.label] == attacked.decoy != CLASSES[attacked.label]
        assert twin.phrase == f"the word {attacked.decoy}"
        assert 0 < truth_mask(twin).mean() < 1
        assert twin.question == "What word is written on the picture?"
        assert (twin.answers, twin.answer_type) == ((attacked.decoy,), "other")
        # Nothing that is written there is wrong to say.
        assert twin.decoy is None


def test_fewer_tasks_keep_nothing_of_the_others(typo, reading):
    made, (first, *_) = reading(tasks=("vqa",), limit=3)

    assert (made.card.tasks, made.card.classes, made.card.rows) == (("vqa",), (), 3)
    assert (first.label, first.phrase, first.mask) == (None, None, None)


def test_words_that_are_no_classes_become_the_classes(make_plan, reading, root):
    made = make_typographic(make_plan(task="vqa", limit=40))

    card, twins = reading()

    words = {twin.answers[0] for twin in twins}
    assert card.card.classes == tuple(sorted(words))
    assert not words & set(CLASSES)
    assert len(twins) == made.card.rows


def test_where_only_two_words_compete_they_still_do(packed, bare, reading):
    rows = [replace(s, decoy="dog", label=0, twin=s.id, candidates=("cat", "dog")) for s in bare(6)]
    typographic = {"scenario": "typographic", "candidates": True, "twin_of": "all"}
    packed("pairs", rows, "classification", **typographic)

    made, twins = reading("pairs")

    assert made.card.candidates
    assert {(CLASSES[t.label], t.candidates) for t in twins} == {("dog", ("cat", "dog"))}


def test_a_picture_without_a_word_is_set_aside(packed, bare, reading):
    rows = [replace(s, decoy="dog" if n else None, twin=s.id) for n, s in enumerate(bare(4))]
    packed("some", rows, "classification", scenario="typographic", twin_of="all")
    none = [replace(row, decoy=None) for row in rows]
    packed("none", none, "classification", scenario="typographic", twin_of="all")

    made, twins = reading("some")

    assert len(twins) == 3
    assert made.left_out == {rows[0].id: "no word is known to be on its picture"}
    with pytest.raises(DataError, match="none: no word is known to be on its picture of any"):
        reading("none", name="nothing")


def test_what_cannot_be_asked_is_refused_in_one_line(typo, packed, samples, reading, root):
    rows = [replace(s, decoy="dog", twin=s.id) for s in samples[:4]]
    packed("bare", rows, *TASKS, scenario="typographic", twin_of="all")

    with pytest.raises(DataError, match="all is clean, so no words were written on its"):
        reading("all")
    with pytest.raises(DataError, match="out: --task classification,vqa"):
        reading("bare")
    with pytest.raises(UnknownNameError, match="unknown task of all-typo 'vga', did you"):
        reading(tasks=("vga",))
    with pytest.raises(ConfigError, match="together are classes: give --task classification"):
        reading(with_object=True)
    with pytest.raises(ConfigError, match=r"templates: .* one '\{\}', got 'word'"):
        reading(template="word")
    assert not (root / "fixtures/datasets/all-reading").exists()


def test_a_killed_run_ends_with_the_same_bytes(typo, reading, monkeypatch, root):
    whole = reading(name="whole")[0].card
    twin, done = reading_twins.reading_twin, []

    def dies(*given, **told):
        if len(done) == 20:
            raise KeyboardInterrupt
        done.append(given)
        return twin(*given, **told)

    monkeypatch.setattr(reading_twins, "reading_twin", dies)
    with pytest.raises(KeyboardInterrupt):
        reading(name="killed")
    assert not (root / "fixtures/datasets/killed").exists()
    monkeypatch.undo()

    reading(name="killed")

    again = load_card(root / "fixtures/datasets/killed")
    assert [s.sha256 for s in again.shards] == [s.sha256 for s in whole.shards]


def test_object_and_word_together_are_one_of_four_that_share_a_half(typo, reading):
    made, twins = reading(tasks=("classification",), with_object=True)

    card = made.card
    assert (card.tasks, card.candidates) == (("classification",), True)
    assert card.templates == ("a photo of a {}.",)
    for twin, attacked in zip(twins, typo, strict=True):
        thing, word = CLASSES[attacked.label], attacked.decoy
        halves = [tuple(text.split(" with the word ")) for text in twin.candidates]
        assert card.classes[twin.label] == twin.candidates[0] == f"{thing} with the word {word}"
        assert len(set(halves)) == 4
        assert [a == thing for a, _ in halves] == [True, True, False, False]
        assert [b == word for _, b in halves] == [True, False, True, False]
        assert not {halves[3][0], halves[3][1]} & {thing, word}


def test_object_and_word_need_a_class_that_is_neither(packed, bare, reading):
    names = ("cat", "dog")
    rows = [
        replace(s, label=n % 2, decoy=names[1 - n % 2], twin=s.id) for n, s in enumerate(bare(4))
    ]
    packed("two", rows, "classification", classes=names, scenario="typographic", twin_of="all")

    with pytest.raises(DataError, match="no class is neither shown nor written"):
        reading("two", with_object=True, tasks=("classification",))

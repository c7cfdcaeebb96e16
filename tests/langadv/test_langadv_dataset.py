"""What was found becomes a dataset: with everything asked where the facts are known."""

from __future__ import annotations

import io
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from mini_world.generator import MINI_WORDS, MiniGenerator, mini
from natadv.data.card import load_card
from natadv.data.reader import iter_samples
from natadv.errors import DataError
from natadv.langadv.langadv_dataset import pack_accepted
from natadv.langadv.search_run import run
from natadv.langadv.word_space import plural
from natadv.tasks.masks import truth_mask

from .conftest import SETTINGS, plan_in


class Easily:
    """Fooled by all that is not the first class, and by none of it."""

    name = "easily"

    def probabilities(self, pictures):
        return np.tile([[[0.1, 0.2, 0.7]]], (1, len(pictures), 1))

    def consistency(self, pictures, label):
        return np.ones(len(pictures))


SMALL = {"generations": 1, "population": 3, "random": 1}


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    out = tmp_path_factory.mktemp("mini") / "search"
    plan = replace(
        plan_in(out, settings=SETTINGS.model_copy(update=SMALL)),
        classes={"cat": plural("cat"), "dog": plural("dog"), "cow": plural("cow")},
        space=MINI_WORDS,
        generator=MiniGenerator(),
        target=Easily(),
    )
    run(plan, stream=io.StringIO())
    return plan


@pytest.fixture
def found(pristine, tmp_path):
    out = tmp_path / "search"
    shutil.copytree(pristine.out, out)
    return replace(pristine, out=out)


@pytest.fixture
def tricked(found):
    """As if the last class had fooled somebody too."""
    history = json.loads((found.out / "history.json").read_text())
    last = history["histories"][2]
    last["accepted"] = last["generations"][0]["prompts"][:5]
    (found.out / "history.json").write_text(json.dumps(history))
    return found


def test_all_three_tasks_are_asked_of_the_mini_worlds_pictures(tricked, tmp_path):
    card = pack_accepted(
        tricked.out, tmp_path / "made", per_class=6, licence="CC0-1.0", plug=mini()
    )

    samples = list(iter_samples(tmp_path / "made", load_card(tmp_path / "made")))
    assert (card.rows, card.scenario) == (18, "langadv")
    assert card.tasks == ("classification", "segmentation", "vqa")
    assert [sample.label for sample in samples] == [0, 1, 2] * 6
    for sample in samples:
        facts = json.loads(sample.facts)
        assert {"prompt", "seed", "fooled", "consistency", "p_true", "scene"} <= facts.keys()
        assert truth_mask(sample).any()
        assert len(sample.answers) == 10


def test_packing_twice_gives_the_same_revision(tricked, tmp_path):
    kept = {"per_class": 4, "licence": "CC0-1.0", "plug": mini(), "force": True}
    one, other = (pack_accepted(tricked.out, tmp_path / "made", **kept) for _ in range(2))

    assert one.revision == other.revision


def test_pictures_without_facts_are_for_classification_only(plan, tmp_path):
    run(replace(plan, classes={"cat": "cats", "dog": "dogs"}), stream=io.StringIO())
    history = json.loads((plan.out / "history.json").read_text())
    for one in history["histories"]:
        one["accepted"] = one["generations"][-1]["prompts"]
    (plan.out / "history.json").write_text(json.dumps(history))

    card = pack_accepted(plan.out, tmp_path / "made", per_class=2, licence="CC0-1.0", plug=None)

    assert card.tasks == ("classification",)


def test_facts_without_their_generator_are_not_packed(tricked, tmp_path):
    with pytest.raises(DataError, match="only their generator 'mini' understands"):
        pack_accepted(tricked.out, tmp_path / "made", per_class=2, licence="CC0-1.0", plug=None)
    assert not (tmp_path / "made").exists()


def test_a_class_with_too_few_pictures_is_named(found, tmp_path):
    with pytest.raises(DataError, match=r"cow: 0 prompts were accepted, with 0 pictures"):
        pack_accepted(found.out, tmp_path / "made", per_class=2, licence="CC0-1.0", plug=mini())
    assert not (tmp_path / "made").exists()

"""The committed pictures of the search: whole, asked about, and hard for whom nobody asked."""

from __future__ import annotations

import io
import json
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from mini_world.datasets import NAMES
from mini_world.generator import MiniGenerator, scene_in, understood
from mini_world.params import ROOT, params
from mini_world.render import render
from mini_world.scene import main_thing
from natadv.data.card import load_card
from natadv.data.reader import read_samples
from natadv.models.loading import load
from natadv.models.resolve import resolve
from natadv.tasks.masks import truth_mask

DATASETS = ROOT / "fixtures" / "datasets"


def samples_of(name: str):
    card = load_card(DATASETS / name)
    return list(read_samples(DATASETS / name, card, start=0, stop=card.rows))


@pytest.fixture(scope="module")
def samples():
    return samples_of("mini-langadv")


def test_at_least_five_hundred_balanced_and_different_pictures(samples):
    counts = Counter(sample.label for sample in samples)

    assert len(samples) >= 500
    assert sorted(counts) == list(range(len(NAMES)))
    assert len(set(counts.values())) == 1
    assert len({sample.image for sample in samples}) == len(samples)


def test_every_prompt_is_one_that_fooled_the_ensemble(samples):
    fooled = [json.loads(sample.facts)["fooled"] for sample in samples]
    prompts = {json.loads(sample.facts)["prompt"] for sample in samples}

    assert np.mean(fooled) > params("mini-langadv")["accept"]
    assert len(prompts) > 5 * len(NAMES)


def test_all_three_tasks_are_asked(samples):
    assert load_card(DATASETS / "mini-langadv").tasks == ("classification", "segmentation", "vqa")
    for sample in samples:
        assert truth_mask(sample).sum() >= 100
        assert len(sample.answers) == 10
        assert (sample.question or "").endswith("?")


def test_the_pictures_are_what_their_prompts_and_seeds_draw(samples):
    for sample in samples[::60]:
        facts = json.loads(sample.facts)
        (made,) = MiniGenerator().generate(facts["prompt"], [facts["seed"]])
        stored = Image.open(io.BytesIO(sample.image)).convert("RGB")
        assert stored.tobytes() == made.image.tobytes() == render(scene_in(sample.facts)).tobytes()
        main = main_thing(scene_in(sample.facts))
        assert main is not None
        assert main.name == NAMES[sample.label] == understood(facts["prompt"]).name


@pytest.mark.parametrize("name", ["mini-clip", "mini-siglip"])
def test_models_that_were_not_searched_on_are_fooled_too(name, samples):
    (spec,) = resolve(name, root=ROOT)
    model = load(spec, device="cpu", dtype="float32", threads=1)
    texts = model.embed_texts([f"a photo of a {noun}." for noun in NAMES])

    def fooled(rows):
        images = [Image.open(io.BytesIO(row.image)).convert("RGB") for row in rows]
        said = (model.embed_images(model.prepare(images)) @ texts.T).argmax(axis=1)
        return np.mean(said != np.array([row.label for row in rows]))

    assert fooled(samples[:200]) > fooled(samples_of("mini")[:200]) + 0.3

"""A generator that comes in from outside: a factory of one's own, or an entry point."""

from __future__ import annotations

import json
import sys
import uuid

import pytest

from mini_world.generator import MINI_WORDS
from natadv import factories
from natadv.cli import main
from natadv.data.card import load_card
from natadv.data.reader import iter_samples

from .conftest import ROOT

FACTORY = """
import io
import json
from dataclasses import replace

import numpy as np
from PIL import Image

from natadv.langadv.generator import Generated, GeneratorPlug
from natadv.langadv.word_space import WordSpace

WORDS = WordSpace(
    words={"number": ("one", "two"), "colour": ("red", "green", "blue", "grey")},
    template="{number} {colour} {noun}",
    prunable=("colour",),
)


class Painter:
    name = "painter 3"

    def generate(self, prompt, seeds):
        facts = json.dumps({"said": prompt})
        colours = [(len(prompt), seed % 256, 9) for seed in seeds]
        return [Generated(Image.new("RGB", (16, 16), colour), facts) for colour in colours]


class Gullible:
    name = "gullible"

    def probabilities(self, pictures):
        return np.tile([[[0.1, 0.1, 0.8]]], (2, len(pictures), 1))

    def consistency(self, pictures, label):
        return np.ones(len(pictures))


def asked(sample):
    mask = io.BytesIO()
    Image.new("L", (16, 16), 255).save(mask, "PNG")
    return replace(
        sample,
        phrase=json.loads(sample.facts)["said"],
        mask=mask.getvalue(),
        question="What is this?",
        answers=("box",) * 10,
        answer_type="other",
    )


def boxes():
    return GeneratorPlug(
        generator=Painter(),
        words=WORDS,
        classes=("box", "crate"),
        licence="CC0-1.0",
        target=Gullible,
        asked=asked,
    )


def drawings():
    return replace(boxes(), target=None, asked=None)


def nothing():
    return 7
"""
TINY = ["generations=1", "population=2", "pictures=2", "random=1", "accept=0.0"]


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Writes the factories into a module of a fresh name, in the working directory."""
    name = f"boxes_{uuid.uuid4().hex}"
    (tmp_path / f"{name}.py").write_text(FACTORY)
    monkeypatch.chdir(tmp_path)
    return name


def search(generator: str, *more: str) -> int:
    options = ["--generator", generator, "--out", "found", "--device", "cpu", "--set", *TINY]
    return main(["langadv", "search", *options, *more])


def pack(*more: str) -> int:
    return main(["langadv", "pack", "found", "--name", "boxes", "--per-class", "2", *more])


def test_a_factory_brings_its_words_classes_target_licence_and_questions(module, tmp_path):
    assert search(f"{module}:boxes") == 0
    assert pack() == 0

    history = json.loads((tmp_path / "found" / "history.json").read_text())
    assert history["generator"] == f"{module}:boxes painter 3"
    assert history["classes"] == ["box", "crate"]
    assert history["words"]["colour"] == ["red", "green", "blue", "grey"]
    folder = tmp_path / "fixtures" / "datasets" / "boxes"
    card = load_card(folder)
    assert card.licence == "CC0-1.0"
    assert card.tasks == ("classification", "segmentation", "vqa")
    assert {sample.question for sample in iter_samples(folder, card)} == {"What is this?"}


def test_what_a_factory_leaves_out_is_asked_for(module, tmp_path, capsys):
    assert search(f"{module}:drawings") == 4
    assert "needs --target and --consistency" in capsys.readouterr().err

    chosen = ["--target", "mini-clip", "--consistency", "mini-siglip"]
    (tmp_path / "fixtures").mkdir()
    for name in ("models", "heads", "mini"):
        (tmp_path / "fixtures" / name).symlink_to(ROOT / "fixtures" / name)
    assert search(f"{module}:drawings", *chosen, "--classes", "cat,dog,cow") == 0
    assert json.loads((tmp_path / "found" / "search.json").read_text())["classes"][2] == "cow"


def test_an_entry_point_is_a_generator_by_its_name(module, tmp_path, declare):
    declare(ours=f"{module}:boxes")

    assert search("ours") == 0
    assert pack() == 0
    identity = json.loads((tmp_path / "found" / "search.json").read_text())
    assert identity["generator"] == "ours painter 3"


def test_its_words_can_be_had_with_another_generator(module, tmp_path, installed):
    assert search(f"{module}:boxes", "--words", "mini") == 0

    identity = json.loads((tmp_path / "found" / "search.json").read_text())
    assert identity["template"] == MINI_WORDS.template


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("nothing", "expected it to return natadv.langadv.generator.GeneratorPlug, got"),
        ("crates", "has no function 'crates'"),
    ],
)
def test_a_factory_that_is_none_is_told_in_one_line(module, capsys, factory, message):
    assert search(f"{module}:{factory}") == 4

    told = capsys.readouterr().err
    assert f"--generator {module}:{factory}: " in told
    assert message in told
    assert told.count("\n") == 1


def test_the_generator_of_a_search_must_be_there_when_it_is_packed(
    module, tmp_path, declare, capsys
):
    declare(ours=f"{module}:boxes")
    search("ours")

    declare()

    assert pack() == 4
    assert "'ours painter 3' understands, and it is not installed" in capsys.readouterr().err


def test_without_the_mini_world_one_message_says_what_to_do(tmp_path, monkeypatch, declare, capsys):
    declare(mini="mini_world.generator:mini")
    for name in [name for name in sys.modules if name.partition(".")[0] == "mini_world"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "mini_world", None)
    monkeypatch.chdir(tmp_path)
    factories.module_of.cache_clear()

    assert search("mini") == 4

    told = capsys.readouterr().err
    assert "cannot import 'mini_world.generator'" in told
    assert "run in the folder that holds it" in told
    assert told.count("\n") == 1


def test_a_name_that_nobody_declares_is_no_pipeline(tmp_path, monkeypatch, declare, capsys):
    monkeypatch.chdir(tmp_path)
    declare(mini="mini_world.generator:mini")

    assert search("minni") == 4

    told = capsys.readouterr().err
    assert "unknown generator 'minni', did you mean 'mini'?" in told
    assert "pip install --editable ." in told

"""`natadv replay`: the same attack on any model."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from PIL import Image

from natadv.scenarios.typographic.attack import read_attack

from .conftest import edited, write_world


@pytest.fixture
def replay(natadv):
    def run(file, model, *arguments, code=0):
        return natadv("replay", file, "--model", model, "--device", "cpu", *arguments, code=code)

    return run


def test_on_the_model_that_it_was_found_on_it_does_the_same(replay, found, world):
    attack = read_attack(found)
    told, sheet = replay(found, "mini-clip")

    did = f"{len(attack.flipped)} of 6{{}} ({100 * attack.share:.0f} %), without letters "
    did += str(len(attack.hidden))
    assert told == (
        f"on mini-clip: flips {did.format(' pictures of dog')}; found on mini-clip: "
        f"{did.format('')}"
    )
    assert sheet == str(
        world / ".natadv/attacks/classification__plain__mini-clip__dog__on__mini-clip.png"
    )


def test_on_another_model_both_are_told_and_shown(replay, found, tmp_path):
    picture = tmp_path / "sheets" / "other.png"
    told, sheet = replay(found, "mini-siglip", "--out", picture)

    assert re.match(
        r"on mini-siglip: flips \d of 6 pictures of dog \(\d+ %\), without letters \d;"
        r" found on mini-clip: [3-6] of 6",
        told,
    )
    assert sheet == str(picture)
    with Image.open(picture) as image:
        assert image.format == "PNG"


def test_pictures_that_it_is_wrong_about_clean_are_left_out_and_counted(replay, found, tmp_path):
    attack = read_attack(found)
    more = edited(found, tmp_path / "more.json", pictures=("s01", *attack.pictures), weights="0")
    told, remark, _ = replay(more, "mini-clip")

    assert told.startswith(f"on mini-clip: flips {len(attack.flipped)} of 6 pictures of dog")
    assert "found on mini-clip with other weights: " in told
    assert remark == (
        "left out: 1 of 7 pictures, which mini-clip is wrong about when they are clean"
    )


def test_where_all_are_left_out_there_is_nothing_to_flip(replay, found, tmp_path):
    only = edited(found, tmp_path / "o.json", pictures=("s01",), flipped=(), hidden=(), weights="0")
    (told,) = replay(only, "mini-siglip")

    assert told == (
        "on mini-siglip: nothing to flip, as it is wrong about all of 1 clean pictures of dog; "
        "found on mini-clip: 0 of 1 (0 %), without letters 0"
    )


def test_other_flips_on_the_very_same_weights_are_told_plainly(replay, found, tmp_path):
    attack = read_attack(found)
    other = edited(found, tmp_path / "other.json", flipped=attack.flipped[:-1])
    told, remark, _ = replay(other, "mini-clip")

    assert f"flips {len(attack.flipped)} of 6" in told
    assert remark.startswith("this is the very model that the attack was found on, and yet it does")


def test_the_text_is_that_of_the_file(replay, found, tmp_path, monkeypatch):
    from natadv.pipelines.attacks import replaying

    other = edited(found, tmp_path / "other.json", text="i", decoy=None, weights="0")
    seen = []
    monkeypatch.setattr(replaying, "attack_sheet", lambda *told: seen.append(told))
    replay(other, "mini-clip")

    ((_, attack, shown),) = seen
    assert attack.text == "i"
    assert all('"text":"i"' in one.attacked.overlay for one in shown)


def test_a_dataset_of_another_revision_is_refused(replay, found, world, samples, loads):
    write_world(world, [*samples, replace(samples[0], id="new", group="new")])
    before = len(loads)
    (told,) = replay(found, "mini-clip", code=1)

    assert re.search(
        r"dog\.json: its pictures are of 'plain' of revision \w{12}, but \w{12} is there; run dvc "
        r"pull fixtures/datasets/plain, or search again",
        told,
    )
    assert len(loads) == before


def test_a_dataset_that_is_not_there_is_named(replay, found, tmp_path):
    other = edited(found, tmp_path / "other.json", dataset="gone")
    (told,) = replay(other, "mini-clip", code=1)

    assert "'gone' of revision" in told
    assert told.endswith("which is not there; run dvc pull fixtures/datasets/gone")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"subject": "dgo"}, "unknown class of plain 'dgo', did you mean 'dog'"),
        ({"subject": "cat"}, "is of 'dog', the attack is on pictures of 'cat'; search again"),
        ({"pictures": ("s99",), "flipped": (), "hidden": ()}, "1 ids are not in 'plain'"),
        ({"task": "vqa"}, "plain has no vqa: its tasks are classification, segmentation"),
    ],
)
def test_a_file_that_was_edited_is_refused(replay, found, tmp_path, fields, message):
    (told,) = replay(edited(found, tmp_path / "o.json", **fields), "mini-clip", code=1)

    assert message in told


def test_files_and_models_that_are_not_there_are_told(replay, found, tmp_path):
    (no_file,) = replay(tmp_path / "no.json", "mini-clip", code=1)
    (no_model,) = replay(found, "mini-clpi", code=1)

    assert no_file.endswith(
        "no.json: cannot be read: No such file or directory; expected a file that a search has "
        "written"
    )
    assert no_model.startswith("natadv: unknown model 'mini-clpi', did you mean 'mini-clip'")

"""`natadv replay`: the same attack on any model."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from natadv.search.attack import read_attack

from .conftest import edited, write_world


@pytest.fixture
def replay(natadv):
    def run(file, model, *arguments, code=0):
        return natadv("replay", file, "--model", model, "--device", "cpu", *arguments, code=code)

    return run


def test_on_the_model_that_it_was_found_on_it_does_the_same(replay, found, world):
    attack = read_attack(found)
    told, sheet = replay(found, "mini-clip")

    both = len(set(attack.flipped) & set(attack.hidden))
    did = f"{len(attack.flipped)} of 6{{}} ({100 * attack.share:.0f} %), "
    did += f"{both} of them without letters too"
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

    now = re.match(
        r"on mini-siglip: flips (\d) of 6 pictures of dog \(\d+ %\), \d of them without letters "
        r"too; found on mini-clip: [3-6] of 6",
        told,
    )
    assert int(now[1]) < len(read_attack(found).flipped)
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


def test_what_the_box_flips_is_told_of_the_flipped_ones_only(replay, found, tmp_path):
    pictures = read_attack(found).pictures
    some = {"flipped": pictures[:2], "hidden": pictures[1:4], "weights": "0"}
    told, _ = replay(edited(found, tmp_path / "some.json", **some), "mini-clip")

    assert told.endswith(" weights: 2 of 6 (33 %), 1 of them without letters too")


def test_where_all_are_left_out_there_is_nothing_to_flip(replay, found, tmp_path):
    only = edited(found, tmp_path / "o.json", pictures=("s01",), flipped=(), hidden=(), weights="0")
    (told,) = replay(only, "mini-siglip")

    assert told == (
        "on mini-siglip: nothing to flip, as it is wrong about all of 1 clean pictures of dog; "
        "found on mini-clip: 0 of 1 (0 %), 0 of them without letters too"
    )


def test_other_flips_on_the_very_same_weights_are_told_plainly(replay, found, tmp_path):
    attack = read_attack(found)
    other = edited(found, tmp_path / "other.json", flipped=attack.flipped[:-1])
    told, remark, _ = replay(other, "mini-clip")

    assert f"flips {len(attack.flipped)} of 6" in told
    assert remark.startswith("this is the very model that the attack was found on, and yet it does")


def test_the_text_is_that_of_the_file(replay, found, tmp_path, monkeypatch):
    from natadv.search import replay as replay_module

    other = edited(found, tmp_path / "other.json", text="i", decoy=None, weights="0")
    seen = []
    monkeypatch.setattr(replay_module, "attack_sheet", lambda *told: seen.append(told) or b"drawn")
    _, sheet = replay(other, "mini-clip")

    ((attack, shown),) = seen
    assert attack.text == "i"
    assert Path(sheet).read_bytes() == b"drawn"
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


def test_a_file_that_was_edited_is_refused(replay, found, tmp_path):
    for fields, message in [
        ({"subject": "dgo"}, "unknown class of plain 'dgo', did you mean 'dog'"),
        ({"subject": "cat"}, "is of 'dog', the attack is on pictures of 'cat'; search again"),
        ({"pictures": ("s99",), "flipped": (), "hidden": ()}, "1 ids are not in 'plain'"),
        ({"task": "vqa"}, "plain has no vqa: its tasks are classification, segmentation"),
    ]:
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

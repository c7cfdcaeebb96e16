"""`natadv search` and `natadv replay`: the unit of the gate, and an attack on any model."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from natadv.evaluate.code import numerics_here
from natadv.evaluate.datasets import load_datasets
from natadv.evaluate.grid import Grid
from natadv.evaluate.model_runner import ModelRunner
from natadv.evaluate.plan import units_of
from natadv.evaluate.run import Run
from natadv.evaluate.store import Store
from natadv.evaluate.worker import Worker
from natadv.gate.rules import SearchProfile, Thresholds, Tier, TierGrid
from natadv.models import loading
from natadv.models.resolve import resolve
from natadv.search import contact_sheet
from natadv.search.compute_search import compute_with
from natadv.search.profile import with_searches
from natadv.search.result import read_attack
from natadv.types import Case

from .conftest import Eyes, edited, write_world

PROFILE = SearchProfile("few", ("dog",), pictures=6, at_least=0.5, evaluations=20, discover=5)


@pytest.fixture
def gate_units(world, natadv):
    """The searches that a tier with such a profile would run."""
    pack = ("few", "--data", "plain", "--name", "plain-few", "--pictures", "3")
    natadv("overlays", "pack", *pack)
    case = Case("classification", "typographic", "plain-few", "mini-clip")
    tier = Tier("t", (TierGrid(("mini-clip",), (str(case),)),), searches={"plain-few": PROFILE})
    thresholds = Thresholds("t", 0.95, {"t": tier}, ())
    (spec,) = resolve("mini-clip", root=world)
    grid = Grid(thresholds, tier, (case,), {"mini-clip": spec}, load_datasets(world), 2, world)
    how = {"device": "cpu", "dtype": "auto", "batch_size": 64, "threads": 1}
    numerics = numerics_here(world / ".natadv/store", **how)
    found = with_searches(units_of(case, grid, numerics=numerics), case, grid)
    assert not found.problem
    return found.searches, grid


def store_of(world: Path) -> Store:
    return Store(world / ".natadv/store")


def units_written(store: Store) -> dict[Path, int]:
    """When each result was written."""
    units = (store.root / "units").rglob("*")
    return {path: path.stat().st_mtime_ns for path in units if path.is_file()}


def test_it_writes_an_attack_and_its_sheet_and_says_how_to_replay_it(search, world, loads):
    told, files, command = search()

    file = world / ".natadv/attacks/classification__plain__mini-clip__dog.json"
    attack = read_attack(file)
    assert told == attack.in_words
    assert files == f"{file}, {file.with_suffix('.png')}"
    assert command == f"natadv replay {file} --model mini-clip"
    assert (attack.dataset, attack.subject, attack.model) == ("plain", "dog", "mini-clip")
    by_letters = set(attack.flipped) - set(attack.hidden)
    assert len(by_letters) >= 0.5 * len(attack.pictures)
    assert (world / ".natadv/store/runs" / attack.run).is_dir()
    with Image.open(file.with_suffix(".png")) as sheet:
        assert sheet.width > 600
    assert len(loads) == 1


def test_what_the_command_computed_the_gate_finds(search, gate_units, world):
    search()
    search("--discover", "5")

    assert [store_of(world).has(unit.key) for unit in gate_units[0]] == [True, True]


def test_what_the_gate_computed_the_command_finds(search, gate_units, world, loads):
    units, grid = gate_units
    store = store_of(world)
    store.prepare()
    run = Run(store, "gate")
    run.prepare()
    runner = ModelRunner(store, grid.datasets, grid.specs, run=run)
    Worker(store, run, compute_with(runner)).drain(units)
    before = units_written(store)
    assert len(before) == len(units) == 2
    search()
    search("--discover", "5")

    assert units_written(store) == before
    # Nor was there a model to draw the sheets.
    assert len(loads) == 1


def test_a_discovery_lies_beside_what_the_population_gave(search, found):
    told, files, _ = search("--discover", "30", "--seed", "3")

    assert "__dog__discovered.json" in files
    assert found.is_file()
    assert told


def test_a_kill_before_the_sheet_loses_nothing(search, world, loads, monkeypatch):
    class Killed(BaseException):
        """What no handler catches."""

    def killed(*_):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(contact_sheet, "attack_sheet", killed)
        with pytest.raises(Killed):
            search()
    file = world / ".natadv/attacks/classification__plain__mini-clip__dog.json"
    first = read_attack(file)
    assert not file.with_suffix(".png").exists()
    search()

    assert file.with_suffix(".png").is_file()
    assert read_attack(file).flipped == first.flipped
    assert len(loads) == 1


def test_where_nothing_flips_enough_the_strongest_is_told(search, world, monkeypatch):
    monkeypatch.setattr(loading, "load", lambda *_, **__: Eyes(bears=1000.0))
    (told,) = search()

    assert told == (
        "none of 8 overlays flips 50 % of 6 pictures of dog by its letters; the strongest flips "
        "0 %; take a smaller --at-least, or another population"
    )
    assert not (world / ".natadv/attacks").exists()


def test_where_the_model_is_right_about_none_that_is_told(search, world, monkeypatch):
    monkeypatch.setattr(loading, "load", lambda *_, **__: Eyes(bears=-1.0, turns=2))
    (told,) = search()

    assert told == ("of 12 clean pictures of dog none is answered right, so none can be flipped")


def test_a_mistake_is_told_before_a_model_is_loaded(search, loads):
    for arguments, message in (
        (("--subject", "dgo"), "natadv: unknown class of plain 'dgo', did you mean 'dog'"),
        (("--subject", "d*"), "natadv: unknown class of plain 'd*'"),
        (("--model", "mini-clpi"), "natadv: unknown model 'mini-clpi', did you mean 'mini-clip'"),
        (("--model", "mini"), "natadv: 'mini' means 2 models (mini-clip, mini-siglip); name one"),
        (("--data", "plian"), "natadv: unknown dataset 'plian', did you mean 'plain'"),
        (("--task", "vqa"), "plain has no vqa: its tasks are classification, segmentation"),
        (("--population", "fwe"), "fwe.json: cannot be read: No such file or directory"),
    ):
        (told,) = search(*arguments, code=4)

        assert message in told
        assert loads == []


def test_numbers_that_mean_nothing_are_usage_errors(search):
    wrong = (("--at-least", "0"), ("--at-least", "1.1"), ("--pictures", "0"), ("--seed", "x"))
    for arguments in wrong:
        assert len(search(*arguments, code=4)) == 1


def test_a_model_whose_code_fails_is_one_line(search, monkeypatch):
    def load(*_, **__):
        raise ValueError("planted")

    monkeypatch.setattr(loading, "load", load)
    told = search(code=4)

    assert told[-1] == (
        "natadv: classification/plain/mini-clip/search for dog: mini-clip: loading failed: "
        "ValueError: planted"
    )


def test_a_population_that_can_no_longer_be_drawn_is_refused_first(search, world, loads):
    path = world / "fixtures/populations/few.json"
    raw = json.loads(path.read_text())
    raw["overlays"][3]["overlay"]["opacity"] = 0.5
    path.write_text(json.dumps(raw))
    (told,) = search(code=4)

    assert "draw it again with natadv overlays draw --force" in told
    assert loads == []


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
    from natadv.search import standalone

    other = edited(found, tmp_path / "other.json", text="i", decoy=None, weights="0")
    seen = []
    monkeypatch.setattr(standalone, "attack_sheet", lambda *told: seen.append(told) or b"drawn")
    _, sheet = replay(other, "mini-clip")

    ((attack, shown),) = seen
    assert attack.text == "i"
    assert Path(sheet).read_bytes() == b"drawn"
    assert all('"text":"i"' in one.attacked.overlay for one in shown)


def test_a_dataset_of_another_revision_is_refused(replay, found, world, samples, loads):
    write_world(world, [*samples, replace(samples[0], id="new", group="new")])
    before = len(loads)
    (told,) = replay(found, "mini-clip", code=4)

    assert re.search(
        r"dog\.json: its pictures are of 'plain' of revision \w{12}, but \w{12} is there; run dvc "
        r"pull fixtures/datasets/plain, or search again",
        told,
    )
    assert len(loads) == before


def test_a_dataset_that_is_not_there_is_named(replay, found, tmp_path):
    other = edited(found, tmp_path / "other.json", dataset="gone")
    (told,) = replay(other, "mini-clip", code=4)

    assert "'gone' of revision" in told
    assert told.endswith("which is not there; run dvc pull fixtures/datasets/gone")


def test_a_file_that_was_edited_is_refused(replay, found, tmp_path):
    for fields, message in [
        ({"subject": "dgo"}, "unknown class of plain 'dgo', did you mean 'dog'"),
        ({"subject": "cat"}, "is of 'dog', the attack is on pictures of 'cat'; search again"),
        ({"pictures": ("s99",), "flipped": (), "hidden": ()}, "1 ids are not in 'plain'"),
        ({"task": "vqa"}, "plain has no vqa: its tasks are classification, segmentation"),
    ]:
        (told,) = replay(edited(found, tmp_path / "o.json", **fields), "mini-clip", code=4)

        assert message in told


def test_files_and_models_that_are_not_there_are_told(replay, found, tmp_path):
    (no_file,) = replay(tmp_path / "no.json", "mini-clip", code=4)
    (no_model,) = replay(found, "mini-clpi", code=4)

    assert no_file.endswith(
        "no.json: cannot be read: No such file or directory; expected a file that a search has "
        "written"
    )
    assert no_model.startswith("natadv: unknown model 'mini-clpi', did you mean 'mini-clip'")

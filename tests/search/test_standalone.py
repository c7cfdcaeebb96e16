"""`natadv search`: the unit of the gate, and what is made of its result."""

from __future__ import annotations

import json
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
from natadv.gate.rules import SearchProfile, Thresholds, Tier
from natadv.models import loading
from natadv.models.resolve import resolve
from natadv.search import attack_files
from natadv.search.attack import read_attack
from natadv.search.profile import with_searches
from natadv.search.worker import compute_with
from natadv.types import Case

from .conftest import Eyes

PROFILE = SearchProfile("few", ("dog",), pictures=6, at_least=0.5, evaluations=20, discover=5)


@pytest.fixture
def gate_units(world, natadv):
    """The searches that a tier with such a profile would run."""
    pack = ("few", "--data", "plain", "--name", "plain-few", "--pictures", "3")
    natadv("overlays", "pack", *pack)
    case = Case("classification", "typographic", "plain-few", "mini-clip")
    tier = Tier("t", ("mini-clip",), (str(case),), searches={"plain-few": PROFILE})
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
    assert len(attack.flipped) > len(by_letters) >= 0.5 * len(attack.pictures)
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
        patch.setattr(attack_files, "attack_sheet", killed)
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
        (told,) = search(*arguments, code=1)

        assert message in told
        assert loads == []


def test_numbers_that_mean_nothing_are_usage_errors(search):
    wrong = (("--at-least", "0"), ("--at-least", "1.1"), ("--pictures", "0"), ("--seed", "x"))
    for arguments in wrong:
        with pytest.raises(SystemExit, match="2"):
            search(*arguments)


def test_a_model_whose_code_fails_is_one_line(search, monkeypatch):
    def load(*_, **__):
        raise ValueError("planted")

    monkeypatch.setattr(loading, "load", load)
    told = search(code=1)

    assert told[-1] == (
        "natadv: classification/plain/mini-clip/search for dog: ValueError: planted"
    )


def test_a_population_that_can_no_longer_be_drawn_is_refused_first(search, world, loads):
    path = world / "fixtures/populations/few.json"
    raw = json.loads(path.read_text())
    raw["overlays"][3]["overlay"]["opacity"] = 0.5
    path.write_text(json.dumps(raw))
    (told,) = search(code=1)

    assert "draw it again with natadv overlays draw --force" in told
    assert loads == []

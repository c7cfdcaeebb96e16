"""Searches beside the cases of a population: awaited, written, and the same for any -n."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from natadv.evaluate.store import Store
from natadv.scenarios.typographic.population import population_path
from natadv.search.result import read_attack

SUITE = """\
import pytest

pytestmark = pytest.mark.gate(searched=True)


def test_typographic_search(case, gate):
    gate.show_attacks(case)
    gate.check(case)
"""
READ = """\
def read(image):
    pixels = np.asarray(image)
    _, colour, counts = np.unique(
        pixels.reshape(-1, 3), axis=0, return_inverse=True, return_counts=True
    )
    panel = (colour.ravel() == counts.argmax()).reshape(pixels.shape[:2])
    places = [row.nonzero()[0] for row in panel if row.any()]
    return int(counts.max() >= 4 and sum(at[-1] - at[0] + 1 - len(at) for at in places) >= 4)


"""
"""Noise has no colour twice, a panel has one; only letters make holes in it."""
CELL = "classification/typographic/lot"
SEARCHES = """\
    searches:
      lot: {subjects: [dog], pictures: 4, at_least: 0.5, evaluations: 30}
"""
RULE = f"  - {{case: {CELL}/*, metric: decoy_rate, ceiling: 0.9, source: by design}}\n"


@pytest.fixture(scope="module")
def searchable(pristine_world, populate, tmp_path_factory):
    """A world with a population, whose tier searches beside it."""
    root = shutil.copytree(pristine_world, tmp_path_factory.mktemp("searchable") / "world")
    populate(root, "lot", count=12, opacity=[1.0, 1.0])
    (root / "suites" / "test_typographic_search.py").write_text(SUITE)
    fakes = root / "conftest.py"
    means = "np.asarray(i, np.float32).mean(axis=(0, 1))"
    text = fakes.read_text().replace(means, f"np.roll({means}, read(i))")
    fakes.write_text(text.replace("class Eyes:", f"{READ}class Eyes:"))
    contract = root / "thresholds.yaml"
    text = contract.read_text().replace("plain-typo]\n", f"plain-typo, {CELL}]\n{SEARCHES}")
    contract.write_text(text + RULE)
    return root


@pytest.fixture
def unsearched(searchable, world_at, tmp_path):
    return world_at(shutil.copytree(searchable, tmp_path / "world"))


@pytest.fixture(scope="module")
def searched_once(searchable, world_at, tmp_path_factory):
    root = shutil.copytree(searchable, tmp_path_factory.mktemp("searched") / "world")
    done = world_at(root).pytest("-n", "0")
    assert done.returncode == 0, done.stdout
    assert "6 passed" in done.stdout
    return root


@pytest.fixture
def searched(searched_once, world_at, tmp_path):
    """A world whose searches have ended."""
    return world_at(shutil.copytree(searched_once, tmp_path / "world"))


def attacks(world) -> dict[str, dict]:
    found = {p.name: json.loads(p.read_text()) for p in attack_files(world)}
    return {name: raw | {"run": ""} for name, raw in found.items()}


def attack_files(world) -> list[Path]:
    return sorted((world.root / ".natadv" / "attacks").glob("*.json"))


def search_unit(world, model) -> tuple[Store, str]:
    """The store, and the key of the finished search of `model` in it."""
    store = Store(world.root / ".natadv" / "store")
    for path in (store.root / "units").rglob("*"):
        search = (store.get(path.name) or {}).get("search") if path.is_file() else None
        if search and search["attack"]["model"] == model:
            return store, path.name
    raise AssertionError(f"no search of {model} is stored")


def test_any_number_of_workers_finds_the_same_attacks(searched):
    def results():
        verdict = searched.verdict()
        assert verdict.pop("run")["units_computed"] > 0
        return verdict, attacks(searched), searched.outcome_bytes()

    alone = results()
    done = searched.pytest("-n", "2", "--store", "another-store")

    assert done.returncode == 0, done.stdout
    assert "6 passed" in done.stdout
    assert results() == alone
    assert len(alone[1]) == 2
    assert all(attack["flipped"] for attack in alone[1].values())


def test_an_attack_is_printed_written_attached_and_stored(searched):
    done = searched.pytest("-n", "0", "--model", "mini-clip")

    (path,) = attack_files(searched)
    assert path.name == "classification__typographic__lot__mini-clip__dog.json"
    attack = read_attack(path)
    assert (attack.model, attack.dataset, attack.subject) == ("mini-clip", "plain", "dog")
    assert attack.run == searched.verdict()["run"]["id"]
    assert f"{CELL}/mini-clip: {attack.in_words}" in " ".join(done.stdout.split())
    command = f"natadv replay .natadv/attacks/{path.name} --model mini-clip"
    assert command in done.stdout.replace("\\\n    ", "")
    (case,) = [c for c in searched.verdict()["cases"] if c["case"] == f"{CELL}/mini-clip"]
    assert case["searches"][0]["attack"]["text"] == attack.text
    (result,) = [r for r in searched.allure() if r["name"] == f"{CELL}/mini-clip"]
    assert {(a["name"], a["type"]) for a in result["attachments"]} >= {
        ("smallest attack on dog", "text/plain"),
        ("smallest attack on dog, to replay", "application/json"),
        ("smallest attack on dog", "image/png"),
    }
    assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    other = [r for r in searched.allure() if r["name"] != f"{CELL}/mini-clip"]
    assert not any("attachments" in r for r in other)

    # The search was stored by the first run.
    assert searched.verdict()["run"]["units_computed"] == 0

    (own := path.with_name("classification__plain__mine.json")).touch()
    searched.pytest("-n", "0", "--scenario", "clean")
    # The files of an earlier run are removed, those of the user are not.
    assert [found.name for found in path.parent.iterdir()] == [own.name]


def test_a_search_that_cannot_be_done_leaves_its_case_incomplete_and_no_other(unsearched):
    searched = unsearched
    population_path("lot", searched.root).unlink()
    done = searched.pytest("-n", "0", "--model", "mini-clip")

    assert done.returncode == 1
    assert "lot.json: cannot be read" in " ".join(done.stdout.split())
    verdicts = {c["case"]: c["verdict"] for c in searched.verdict()["cases"]}
    assert verdicts.pop(f"{CELL}/mini-clip") == "INCOMPLETE"
    assert set(verdicts.values()) == {"PASS"}


def test_a_search_that_was_not_run_makes_its_case_incomplete(searched):
    """The tier requires the search beside the outcome rows."""
    store, key = search_unit(searched, "mini-clip")
    store.path(key).unlink()
    suite = searched.root / "suites" / "test_typographic_search.py"
    moved = suite.rename(searched.root / "away.py")
    done = searched.pytest("-n", "0", "--model", "mini-clip")
    assert done.returncode == 1
    assert f"{CELL}/mini-clip: no suite asks for it" in " ".join(done.stdout.split())

    moved.rename(suite)
    assert searched.pytest("-n", "0", "--model", "mini-clip").returncode == 0
    assert searched.verdict()["run"]["units_computed"] == 1


def test_a_subject_that_is_not_a_class_is_reported(searched):
    contract = searched.root / "thresholds.yaml"
    contract.write_text(contract.read_text().replace("[dog]", "[horse]"))
    done = searched.pytest("-n", "0", "--model", "mini-clip")

    assert done.returncode == 1
    assert "asks for pictures of 'horse', 'plain' has cat, dog, cow" in " ".join(
        done.stdout.split()
    )


def test_a_search_beside_no_case_is_refused(searched):
    contract = searched.root / "thresholds.yaml"
    contract.write_text(contract.read_text().replace("lot: {subjects", "lots: {subjects"))
    done = searched.pytest("-n", "0")

    assert done.returncode == 4
    assert "'lots', did you mean 'lot'?" in done.stderr + done.stdout


def test_a_result_stored_for_equal_weights_takes_the_name_of_the_judged_model(searched):
    store, key = search_unit(searched, "mini-clip")
    raw = store.get(key)
    raw["search"]["attack"] |= {"model": "other"}
    store.put(key, raw)
    done = searched.pytest("-n", "0", "--model", "mini-clip", "--dataset", "lot")

    assert done.returncode == 0, done.stdout
    (attack,) = map(read_attack, attack_files(searched))
    assert attack.model == "mini-clip"


def test_attacks_that_cannot_be_removed_are_an_error_before_anything_runs(searched):
    folder = searched.root / ".natadv" / "attacks"
    (folder / "x__typographic__y.json").mkdir(parents=True)
    inside = searched.pytest("-n", "0")
    shutil.rmtree(folder)
    folder.touch()
    instead = searched.pytest("-n", "0")

    assert (inside.returncode, instead.returncode) == (4, 4)
    assert "x__typographic__y.json: an earlier run left it" in inside.stderr
    assert "is not a folder; remove it, or give another --attacks DIR" in instead.stderr

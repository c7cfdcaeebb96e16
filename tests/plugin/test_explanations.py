"""Why a case failed is said after its verdict, and nothing that is said changes it."""

from __future__ import annotations

import io
import shutil

import pytest
from PIL import Image

from natadv.gate.cases import whole_cases
from natadv.plugin import explanations
from natadv.tasks import TASKS
from natadv.types import Case

FAILING = "classification/typographic/plain-typo/mini-clip"
RAISING = "classification/clean/plain/mini-clip"

MISTAKES = """
see = Eyes.embed_images


def embed_images(self, images):
    rows = see(self, images)
    odd = [int(np.asarray(image, np.int64).sum()) % 3 == 0 for image in images]
    return np.where(np.array(odd)[:, None], np.roll(rows, 1, axis=1), rows)


Eyes.embed_images = embed_images
"""
ONE_MODEL = ("--model", "mini-clip")
EXPLAINS = """

def relevance(self, prepared, targets, *, layers="last"):
    log(kind="relevance", pictures=len(prepared))
    Eyes.asked += 1
    {fault}
    # Of a class: how much of its colour each quarter has.
    pixels = np.stack([np.asarray(i, np.float32) for i in prepared])
    quarters = pixels.reshape(len(pixels), 2, 8, 2, 8, 3).mean(axis=(2, 4))
    return np.einsum("nhwc,nc->nhw", quarters, targets)


Eyes.relevance, Eyes.asked = relevance, 0


def pytest_sessionfinish(session):
    log(kind="torch", there="torch" in sys.modules)
"""
RAISE = "if Eyes.asked == 1: raise RuntimeError('planted')"
DIE = "os._exit(139)"
LEAVE = "import pytest; pytest.skip('planted') if Eyes.asked == 1 else pytest.exit('planted', 0)"


def explaining(world, fault="pass"):
    with (world.root / "conftest.py").open("a") as conftest:
        conftest.write(EXPLAINS.format(fault=fault))
    return world


@pytest.fixture(scope="module")
def mistaken_once(pristine_world, world_at, tmp_path_factory):
    """A world whose models mistake a third of the pictures."""
    world = world_at(shutil.copytree(pristine_world, tmp_path_factory.mktemp("red") / "world"))
    contract = world.root / "thresholds.yaml"
    contract.write_text(contract.read_text().replace("floor: 0.2", "floor: 0.999"))
    with (world.root / "conftest.py").open("a") as conftest:
        conftest.write(MISTAKES)
    return world


def attached(world, case):
    """Name -> content."""
    (result,) = [r for r in world.allure() if r["name"] == case]
    folder = world.root / "allure-results"
    found = result.get("attachments", [])
    return {a["name"]: (folder / a["source"]).read_bytes() for a in found}


def verdict(world):
    return {key: value for key, value in world.verdict().items() if key != "run"}


@pytest.fixture(scope="module")
def explained(mistaken_once):
    """A red run, whose model raises where it should explain the first of its two cases."""
    world = explaining(mistaken_once, RAISE)
    done = world.pytest("-n", "0", *ONE_MODEL, "--explain", "3")
    assert done.returncode == 1, done.stdout
    return world, done.stdout


def test_a_failing_case_shows_where_its_model_looked(explained):
    world, _ = explained
    found = attached(world, FAILING)

    assert list(found) == ["failing pictures", explanations.CAUSES, explanations.MAPS]
    sheet = Image.open(io.BytesIO(found[explanations.MAPS]))
    stem = FAILING.replace("/", "__")
    beside = world.root / ".natadv" / "sheets" / f"{stem}__relevance.png"
    assert beside.read_bytes() == found[explanations.MAPS]
    # Three rows of pictures; each with two maps beside two pictures, and a bar.
    assert sheet.width > 4 * 200
    assert 3 * 200 < sheet.height < 4 * 300
    # The truth and the answer of three samples, for either case.
    assert [event["pictures"] for event in world.logged("relevance")] == [6, 6]


def test_the_failures_are_counted_by_cause_in_every_report(explained):
    world, stdout = explained
    case = Case(*FAILING.split("/"))
    rows = whole_cases(world.root / ".natadv" / "evidence")[case].outcomes["attack"]
    wrong = [i for i in range(rows.n) if rows.prediction[i] != rows.truth[i]]
    said = [i for i in wrong if rows.prediction[i] == rows.decoy[i]]
    rest = [i for i in wrong if i not in said]
    close = [i for i in rest if rows.values["margin"][i] > -0.6931]
    counts = {
        "said the word": len(said),
        "low margin": len(close),
        "another wrong class": len(rest) - len(close),
    }

    entries = {c["case"]: c for c in world.verdict()["cases"]}
    assert entries[FAILING]["causes"] == counts
    assert wrong
    line = attached(world, FAILING)[explanations.CAUSES].decode()
    assert line.startswith(f"{FAILING}: {len(wrong)} samples failed: ")
    # The address of the case stands above.
    assert line.removeprefix(f"{FAILING}: ") in " ".join(stdout.split())
    assert f"{len(said)} said the word" in line


def test_a_model_that_raises_leaves_its_verdict_and_says_so_in_one_line(explained):
    world, _ = explained
    found = attached(world, RAISING)

    assert list(found) == ["failing pictures", explanations.CAUSES, explanations.NO_MAPS]
    assert found[explanations.NO_MAPS] == b"RuntimeError: planted"
    with_maps, evidence = verdict(world), world.outcome_bytes()
    done = world.pytest("-n", "0", *ONE_MODEL, "--explain", "0")
    assert done.returncode == 1
    assert (verdict(world), world.outcome_bytes()) == (with_maps, evidence)
    assert list(attached(world, FAILING)) == ["failing pictures", explanations.CAUSES]
    assert not list((world.root / ".natadv" / "sheets").glob("*__relevance.png"))


def test_a_model_that_kills_its_worker_while_it_explains_leaves_the_verdict(
    explained, world_at, tmp_path
):
    world = world_at(shutil.copytree(explained[0].root, tmp_path / "world"))
    conftest = world.root / "conftest.py"
    conftest.write_text(conftest.read_text().replace(RAISE, DIE))
    done = world.pytest("-n", "1", *ONE_MODEL, "-k", "typographic")

    assert done.returncode == 1
    assert world.verdict()["verdict"] == "fail"
    assert world.verdict()["problems"] == []
    found = attached(world, FAILING)
    assert list(found) == ["failing pictures", explanations.CAUSES, explanations.NO_MAPS]
    assert b"a process died while it explained the case" in found[explanations.NO_MAPS]


def test_a_model_cannot_skip_its_test_or_end_the_run_while_it_explains(
    explained, world_at, tmp_path
):
    world = world_at(shutil.copytree(explained[0].root, tmp_path / "world"))
    conftest = world.root / "conftest.py"
    conftest.write_text(conftest.read_text().replace(RAISE, LEAVE))
    done = world.pytest("-n", "0", *ONE_MODEL)

    assert done.returncode == 1
    assert (world.verdict()["verdict"], world.verdict()["problems"]) == ("fail", [])
    said = {attached(world, case)[explanations.NO_MAPS] for case in (FAILING, RAISING)}
    assert said == {b"Skipped: planted", b"Exit: planted"}


def test_a_green_run_loads_nothing_to_explain_itself(measured):
    world = explaining(measured)
    loads = len(world.logged("load"))
    done = world.pytest("-n", "0", *ONE_MODEL)

    assert done.returncode == 0, done.stdout
    assert {c["causes"] for c in world.verdict()["cases"]} == {None}
    assert len(world.logged("load")) == loads
    assert not world.logged("relevance")
    assert [event["there"] for event in world.logged("torch")] == [False]


def test_only_tasks_with_answers_have_maps():
    named = {name for name, task in TASKS.items() if task.explained}
    assert {"classification", "segmentation", "vqa"} <= named
    for task in TASKS.values():
        assert not task.explained or task.causes

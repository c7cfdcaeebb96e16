"""A search finds what fools, keeps everything, goes on after a kill, and is the same each time."""

from __future__ import annotations

import io
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

from natadv.errors import ConfigError, DataError, ModelError
from natadv.langadv.search_run import CHART, TABLE, read_history, run, table

from .conftest import SETTINGS, Gullible, Painter, all_bytes, plan_in

KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from conftest import Painter, plan_in
from natadv.langadv.search_run import run

class Dying(Painter):
    def generate(self, prompt, seeds):
        if len(self.prompts) == 7:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().generate(prompt, seeds)

plan = plan_in(Path({out!r}))
object.__setattr__(plan, "generator", Dying())
run(plan, stream=sys.stderr)
"""


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    """A search that has ended, which no test changes."""
    plan = plan_in(tmp_path_factory.mktemp("pristine") / "search")
    run(plan, stream=io.StringIO())
    return plan


@pytest.fixture
def ended(pristine, tmp_path):
    """A search that has ended, to change."""
    return plan_in(shutil.copytree(pristine.out, tmp_path / "search"))


def test_accepted_prompts_fool_more_than_random_ones_on_new_pictures(pristine):
    (history,) = read_history(pristine.out)["histories"]

    asr = {kind: [row["asr"] for row in rows] for kind, rows in history["fresh"].items()}
    assert all("fog" in row["prompt"] for row in history["accepted"])
    assert all(row["asr"] > SETTINGS.accept for row in history["accepted"])
    assert min(asr["accepted"]) > sum(asr["random"]) / len(asr["random"])


def test_the_best_never_gets_worse_and_words_only_go(pristine):
    (history,) = read_history(pristine.out)["histories"]

    generations = history["generations"]
    best = [generation["best"] for generation in generations]
    assert len(generations) == SETTINGS.generations + 1
    assert best == sorted(best)
    for before, after in pairwise(generations):
        for gene, words in after["words"].items():
            assert set(words) <= set(before["words"][gene])


def test_every_picture_is_kept_with_prompt_seed_and_scores(pristine):
    files = sorted(pristine.out.rglob("searched/cat/*.parquet"))
    rows = [row for path in files for row in pq.read_table(path).to_pylist()]
    assert len(rows) == SETTINGS.pictures * len(set(row["prompt"] for row in rows))
    for row in rows:
        made = Painter().generate(row["prompt"], [row["seed"]])[0]
        stored = Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGB")
        assert stored.tobytes() == made.image.tobytes()
        (wrong,) = Gullible().probabilities([made])[0][:, 1]
        assert row["fooled"] == (wrong > 0.5)


def test_two_searches_end_with_the_same_bytes(pristine, plan):
    run(plan, stream=io.StringIO())

    assert all_bytes(plan.out) == all_bytes(pristine.out)
    assert {CHART, TABLE} <= set(all_bytes(plan.out))


def test_a_killed_search_goes_on_and_ends_with_the_same_bytes(pristine, tmp_path):
    out = tmp_path / "killed"
    script = KILLED.format(tests=str(Path(__file__).parent), out=str(out))
    ended = subprocess.run([sys.executable, "-c", script], timeout=60, check=False)
    assert ended.returncode == -signal.SIGKILL
    found = len(list(out.rglob("*.parquet")))
    again = plan_in(out)

    run(again, stream=io.StringIO())

    assert found == 7
    assert len(again.generator.prompts) == len(pristine.generator.prompts) - 7
    assert all_bytes(out) == all_bytes(pristine.out)


def test_a_search_that_has_ended_draws_nothing(ended):
    run(ended, stream=io.StringIO())

    assert ended.generator.prompts == []


def test_two_processes_share_the_work(tmp_path):
    small = {"population": 3, "generations": 1, "pictures": 2, "random": 2}
    shared, alone = (
        replace(
            plan_in(tmp_path / name, settings=SETTINGS.model_copy(update=small)),
            classes={"cat": "cats", "dog": "dogs"},
        )
        for name in ("shared", "alone")
    )
    child = os.fork()
    if child == 0:
        run(shared, stream=io.StringIO())
        os._exit(0)
    run(shared, stream=io.StringIO())
    _, status = os.waitpid(child, 0)

    run(alone, stream=io.StringIO())
    assert status == 0
    assert all_bytes(shared.out) == all_bytes(alone.out)


def test_another_search_in_the_folder_is_refused(ended):
    other = plan_in(ended.out, settings=SETTINGS.model_copy(update={"seed": 2}))

    with pytest.raises(ConfigError, match="belongs to a search with other settings"):
        run(other, stream=io.StringIO())


def test_a_spoilt_file_of_pictures_is_named(ended):
    spoilt = next(ended.out.rglob("*.parquet"))
    spoilt.write_bytes(b"no parquet")
    (ended.out / "classes" / "cat.json").unlink()

    with pytest.raises(DataError, match=rf"{spoilt.name}: cannot be read"):
        run(ended, stream=io.StringIO())


def test_pictures_of_other_seeds_are_not_taken_for_these(ended):
    one, other, *_ = sorted(ended.out.rglob("searched/cat/*.parquet"))
    one.write_bytes(other.read_bytes())
    (ended.out / "classes" / "cat.json").unlink()

    with pytest.raises(DataError, match="got others"):
        run(ended, stream=io.StringIO())


def test_a_target_that_says_nan_is_refused(plan):
    class Broken(Gullible):
        def consistency(self, pictures, label):
            return super().consistency(pictures, label) * float("nan")

    with pytest.raises(ModelError, match="not from 0 to 1"):
        run(replace(plan, target=Broken()), stream=io.StringIO())


def test_a_generator_that_draws_too_few_is_refused(plan):
    class Lazy(Painter):
        def generate(self, prompt, seeds):
            return super().generate(prompt, seeds)[1:]

    with pytest.raises(ModelError, match=r"expected 4 pictures of '.*', got 3"):
        run(replace(plan, generator=Lazy()), stream=io.StringIO())


def test_a_search_that_has_not_ended_has_no_history(tmp_path):
    with pytest.raises(DataError, match="run natadv langadv search"):
        read_history(tmp_path)


def history(noun: str, accepted: list[float], random: list[float]):
    def rows(values):
        return [{"prompt": "", "asr": value, "sem": 1.0, "fitness": value} for value in values]

    return {"class": noun, "fresh": {"accepted": rows(accepted), "random": rows(random)}}


def test_means_of_all_classes():
    text = table([history("cat", [1.0], [0.5]), history("dog", [0.9], [0.3])])

    assert text.splitlines()[-1] == "| all | 2 | 0.950 | 1.000 | 2 | 0.400 | 1.000 |"


def test_a_class_without_accepted_prompts_weighs_on_neither_side():
    text = table([history("cat", [1.0], [0.5]), history("spider", [], [0.1])])

    assert "| spider | 0 | none | none | 1 | 0.100 | 1.000 |" in text
    assert text.splitlines()[-1].startswith(
        "| 1 with accepted prompts | 1 | 1.000 | 1.000 | 1 | 0.5"
    )

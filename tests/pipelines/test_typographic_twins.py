"""Twins of whole datasets: a word that is wrong, the clean id kept, the same bytes each time."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial

import pytest
from PIL import Image

from natadv.data.card import load_card
from natadv.data.dataset_plan import summary_of
from natadv.data.importers import FORMATS, ImportRequest, import_dataset
from natadv.data.packing import pack
from natadv.errors import ConfigError, DataError, UnknownNameError
from natadv.pipelines import typographic_twins
from natadv.pipelines.decoys import noun_of, singular
from natadv.pipelines.typographic_twins import make_typographic
from natadv.scenarios.typographic.twins import lossless, typographic_twin
from natadv.tasks.vqa_text import same

from .conftest import CLASSES, ROWS, read


def hidden(root):
    return sorted(p.name for p in (root / "fixtures" / "datasets").glob(".*"))


@pytest.mark.parametrize("task", ["classification", "segmentation", "vqa"])
def test_a_twin_names_its_clean_sample_and_keeps_its_truth(make_plan, root, samples, task):
    made = make_typographic(make_plan(task=task, recipes=("post-it", "defense-prefix")))

    clean = {sample.id: sample for sample in samples}
    twins = read(root, "all-typo")
    assert made.card.rows == len(twins) == ROWS - len(made.left_out)
    assert {twin.twin for twin in twins} | made.left_out.keys() == clean.keys()
    assert {twin.id.split("@")[1] for twin in twins} == {"post-it", "defense-prefix"}
    for twin in twins:
        one = clean[twin.twin]
        assert (twin.group, twin.label, twin.part) == (one.group, one.label, one.part)
        assert (twin.phrase, twin.question, twin.answers) == (one.phrase, one.question, one.answers)
        assert twin.image != one.image
    card = made.card
    assert (card.scenario, card.twin_of, card.overlays) == ("typographic", "all", True)


def test_of_classes_another_one_is_written(make_plan, root):
    make_typographic(make_plan(task="classification"))

    for twin in read(root, "all-typo"):
        assert twin.decoy in CLASSES
        assert twin.decoy != CLASSES[twin.label]


def test_of_answers_one_of_the_same_type_that_would_not_count_as_right(make_plan, root, samples):
    make_typographic(make_plan(task="vqa"))

    kinds = {answer: sample.answer_type for sample in samples for answer in sample.answers}
    for twin in read(root, "all-typo"):
        assert kinds[twin.decoy] == twin.answer_type
        assert sum(same(answer, twin.decoy) for answer in twin.answers) < 3


def test_answers_that_no_font_can_write_or_nobody_could_read_are_never_written(
    make_plan, root, samples, packed
):
    odd = ("\u732b", "an answer of far more than twenty-four letters", "blue", "green", "red")
    rows = [replace(samples[n], answers=(odd[n % 5],) * 10, answer_type="other") for n in range(40)]
    packed("odd", rows, "classification", "segmentation", "vqa")

    make_typographic(make_plan(source="odd", name="odd-typo", task="vqa"))

    assert {twin.decoy for twin in read(root, "odd-typo")} == {"blue", "green", "red"}


def test_of_phrases_the_noun_of_one_about_another_picture(make_plan, root, samples):
    make_typographic(make_plan(task="segmentation"))

    nouns = {noun_of(sample.phrase) for sample in samples}
    for twin in read(root, "all-typo"):
        assert twin.decoy in nouns
        assert singular(twin.decoy) != singular(noun_of(twin.phrase))


def test_a_noun_that_the_importer_knows_goes_before_what_the_phrase_reads_like(
    make_plan, root, samples, packed
):
    rows = [replace(s, facts=f'{{"noun": "thing{n // 2}"}}') for n, s in enumerate(samples[:8])]
    packed("known", rows, "classification", "segmentation", "vqa")

    make_typographic(make_plan(source="known", name="known-typo", task="segmentation"))

    assert all(twin.decoy.startswith("thing") for twin in read(root, "known-typo"))


def test_twins_of_phrasecut_say_a_noun_that_its_annotators_named(make_plan, root, tmp_path):
    nouns, polygon = ("boat", "kite", "lamp", "tram"), [[[1, 1], [30, 1], [30, 30]]]
    (tmp_path / "pictures").mkdir()
    for number in range(4):
        picture = lossless(Image.new("RGB", (48, 40), (60 * number, 90, 200)))
        (tmp_path / f"pictures/{number}.png").write_bytes(picture)
    tasks = [
        {
            "task_id": f"{number}__1",
            "image_id": number,
            "phrase": "red one on the left",
            "phrase_structure": {"name": noun},
            "Polygons": [polygon],
        }
        for number, noun in enumerate(nouns)
    ]
    (tmp_path / "refer.json").write_text(json.dumps(tasks))
    asked = {"name": "phrasecut", "images": tmp_path / "pictures"}
    import_dataset(ImportRequest(FORMATS["phrasecut"], tmp_path / "refer.json", **asked), root=root)

    make_typographic(make_plan(source="phrasecut", name="said", task="segmentation"))

    twins = read(root, "said")
    assert len(twins) == 4
    assert all(twin.decoy in set(nouns) - {nouns[int(twin.group)]} for twin in twins)


def test_the_word_of_the_first_task_is_written_unless_another_is_named(make_plan, root):
    make_typographic(make_plan())

    assert all(twin.decoy in CLASSES for twin in read(root, "all-typo"))


def test_twins_of_classes_are_those_of_a_single_sample(make_plan, root, samples):
    make_typographic(make_plan(seed=7))

    picture = Image.open(io.BytesIO(samples[5].image)).convert("RGB")
    expected = typographic_twin(samples[5], picture, CLASSES, recipe="post-it", seed=7)
    assert read(root, "all-typo")[5] == expected


def test_a_similar_word_is_the_nearest_to_the_model_that_reads(make_plan, root):
    make_typographic(make_plan(decoy="similar", reader="mini-clip"))

    words = {twin.label: set() for twin in read(root, "all-typo")}
    for twin in read(root, "all-typo"):
        words[twin.label].add(twin.decoy)
    assert all(len(of_class) == 1 for of_class in words.values())


def test_similar_words_go_for_answers_too(make_plan, root):
    make_typographic(make_plan(task="vqa", decoy="similar", reader="mini-clip", limit=60))

    assert {twin.decoy for twin in read(root, "all-typo") if twin.answers[0] == "yes"} == {"no"}


@pytest.mark.parametrize(
    "change", [{"seed": 2}, {"severity": 5}, {"recipes": ("defense-prefix",)}, {"limit": 149}]
)
def test_another_seed_severity_or_recipe_is_another_dataset(make_plan, change):
    one = make_typographic(make_plan())

    assert make_typographic(make_plan(**change, force=True)).card.revision != one.card.revision


def test_the_number_of_workers_changes_nothing(make_plan):
    one = make_typographic(make_plan(workers=1))

    assert make_typographic(make_plan(workers=3, force=True)).card.revision == one.card.revision


@pytest.fixture
def small_shards(monkeypatch):
    """Of 64 rows, so that some are finished when a run ends early."""
    monkeypatch.setattr(typographic_twins, "pack", partial(pack, rows_per_shard=64))


@pytest.fixture
def full_disk(monkeypatch):
    """Ids of the samples that are drawn; the disk is full at the hundredth, and never again."""
    drawn = []
    original = typographic_twins.twin_with_word

    def draw_until_full(word, sample, *arguments, **named):
        drawn.append(sample.id)
        if len(drawn) == 100:
            raise OSError("no space left on device")
        return original(word, sample, *arguments, **named)

    def fill():
        monkeypatch.setattr(typographic_twins, "twin_with_word", draw_until_full)
        return drawn

    return fill


def test_a_run_that_fails_half_way_goes_on_and_ends_with_the_same_bytes(
    make_plan, root, small_shards, full_disk
):
    whole = make_typographic(make_plan(workers=1)).card.revision
    drawn = full_disk()
    with pytest.raises(DataError, match="no space"):
        make_typographic(make_plan(force=True))
    assert load_card(root / "fixtures/datasets/all-typo").revision == whole
    before = len(drawn)

    assert make_typographic(make_plan(force=True)).card.revision == whole
    # The first shard of 64 was whole.
    assert sorted(drawn[before:]) == [f"s{number:03d}" for number in range(64, ROWS)]
    assert hidden(root) == []


def test_shards_of_another_plan_or_source_are_never_used(make_plan, root, small_shards, full_disk):
    whole = make_typographic(make_plan(seed=2)).card.revision
    full_disk()
    with pytest.raises(DataError, match="no space"):
        make_typographic(make_plan(seed=1, force=True))
    assert hidden(root) == [".all-typo.importing"]

    assert make_typographic(make_plan(seed=2, force=True)).card.revision == whole


def test_a_killed_run_goes_on_and_ends_with_the_same_revision(root, bare, packed):
    rows = [replace(sample, id=f"{sample.id}-{n}") for n in range(14) for sample in bare(ROWS)]
    packed("many", rows, "classification")
    command = [
        *(sys.executable, "-c", "import sys; from natadv.cli import main; sys.exit(main())"),
        *("typo", "many", "--root", str(root), "--workers", "1"),
        *("--recipe", "post-it", "--seed", "3"),
    ]
    whole = subprocess.run(
        [*command, "--name", "whole"], capture_output=True, text=True, check=True
    )
    journal = root / "fixtures/datasets/.killed.importing/finished.jsonl"
    process = subprocess.Popen([*command, "--name", "killed"], stderr=subprocess.DEVNULL)
    until = time.monotonic() + 60
    while not (journal.exists() and journal.stat().st_size) and time.monotonic() < until:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (root / "fixtures/datasets/killed").exists()

    again = subprocess.run(
        [*command, "--name", "killed"], capture_output=True, text=True, check=True
    )

    assert "continues after" in again.stderr
    # Only the name differs.
    shards = [load_card(root / "fixtures/datasets" / name).shards for name in ("whole", "killed")]
    assert shards[0] == shards[1]
    assert f"{len(rows)} twins of many, none left out" in whole.stdout


def test_two_processes_do_not_make_one_dataset_together(make_plan, root):
    lock = root / "fixtures/datasets/.all-typo.importing.lock"
    code = (
        "import sys; from pathlib import Path; from natadv.storage.locks import LockFile\n"
        "lock = LockFile(Path(sys.argv[1])); print(lock.take(), flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(lock)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "True\n"

    with pytest.raises(ConfigError, match="another import of 'all-typo' is running"):
        make_typographic(make_plan())
    holder.communicate("")
    make_typographic(make_plan())


def test_samples_without_a_wrong_word_are_counted_and_told(make_plan, root, samples, packed):
    agreed = [
        replace(s, question="Is it?", answers=("yes",) * 10, answer_type="yes/no")
        for s in samples[:3]
    ]
    packed("asked", [*agreed, *samples[3:20]], "classification", "segmentation", "vqa")
    split = replace(samples[0], answers=("yes",) * 6 + ("no",) * 4, answer_type="yes/no")
    packed("split", [split, samples[3]], "classification", "segmentation", "vqa")

    made = make_typographic(make_plan(source="split", name="split-typo", task="vqa"))

    # Four said no: it would count as right.
    assert made.left_out == {"s000": "no wrong word of its kind"}
    assert summary_of(made.left_out) == "1 left out (no wrong word of its kind: 1)"
    assert "1 left out" in made.card.description
    assert [twin.twin for twin in read(root, "split-typo")] == ["s003"]


def test_a_picture_too_small_for_its_word_is_counted_and_told(make_plan, root, bare, packed):
    rows = bare(6)
    rows[2] = replace(rows[2], image=lossless(Image.new("RGB", (4, 4), "red")))
    packed("small", rows, "classification")

    made = make_typographic(make_plan(source="small", name="small-typo"))

    assert made.left_out == {"s002": "too small a picture for its word"}
    assert made.card.rows == 5


def test_nothing_is_written_if_nothing_is_left(make_plan, root, bare, packed):
    rows = [replace(s, image=lossless(Image.new("RGB", (4, 4), "red"))) for s in bare(3)]
    packed("small", rows, "classification")

    with pytest.raises(DataError, match="no sample of small has a twin: 3 left out"):
        make_typographic(make_plan(source="small", name="small-typo"))
    assert not (root / "fixtures/datasets/small-typo").exists()


def test_a_picture_that_cannot_be_decoded_is_refused_by_name(make_plan, root, bare, packed):
    rows = bare(6)
    rows[4] = replace(rows[4], image=rows[4].image[:40])
    packed("torn", rows, "classification")

    with pytest.raises(DataError, match="torn: sample 's004': damaged picture"):
        make_typographic(make_plan(source="torn", name="torn-typo"))
    assert not (root / "fixtures/datasets/torn-typo").exists()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"source": "al"}, UnknownNameError, "unknown dataset 'al', did you mean 'all'"),
        ({"recipes": ("post",)}, UnknownNameError, "unknown overlay recipe 'post'"),
        ({"recipes": ()}, ConfigError, "expected a recipe, got none"),
        ({"severity": 0}, ConfigError, "severity must be one of 1, 2, 3, 4, 5"),
        ({"decoy": "similar"}, ConfigError, "name it with --reader"),
        ({"decoy": "similar", "reader": "minni"}, UnknownNameError, "unknown model 'minni'"),
        ({"name": "Not/This"}, ConfigError, "first a letter or digit, got 'Not/This'"),
        ({"name": "all"}, ConfigError, "twin_of names the dataset itself"),
        ({"name": "mini"}, ConfigError, "dataset 'mini' exists; replace it with --force"),
    ],
)
def test_a_mistake_is_told_before_anything_is_drawn(make_plan, root, change, error, message):
    before = hidden(root)

    with pytest.raises(error, match=message):
        make_typographic(make_plan(**change))
    assert hidden(root) == before


def test_a_task_that_the_source_has_not_is_refused(make_plan, bare, packed):
    packed("named", bare(3), "classification")

    with pytest.raises(ConfigError, match="named has no vqa"):
        make_typographic(make_plan(source="named", name="named-typo", task="vqa"))


def test_a_typographic_source_is_refused(make_plan):
    make_typographic(make_plan())

    with pytest.raises(ConfigError, match=r"typographic already.*start from all"):
        make_typographic(make_plan(source="all-typo", name="twice"))

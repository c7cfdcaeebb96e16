"""Pictures under every overlay of a population, as rows that hold no pictures."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pytest
from PIL import Image

from natadv.cli import main
from natadv.data.card import dataset_folder, load_card
from natadv.data.images import decode_image
from natadv.errors import ConfigError, DataError, UnknownNameError
from natadv.evaluate.datasets import Dataset
from natadv.pipelines import overlay_dataset
from natadv.pipelines.filtering import FilterPlan, filter_pool
from natadv.pipelines.overlay_dataset import NO_ROOM, NO_WORD, OverlaidPlan, chosen_rows
from natadv.scenarios.typographic import population
from natadv.scenarios.typographic.overlay import Overlay, from_json
from natadv.scenarios.typographic.population import BLANK, DrawnOverlay, overlay_id
from natadv.scenarios.typographic.rendering import box, lay_out, mask_after, size_after

from .conftest import CLASSES, read


@dataclass(frozen=True)
class Population:
    """As far as packing looks at it."""

    overlays: tuple[DrawnOverlay, ...]
    name: str = "tests"


def written(**other) -> Overlay:
    return Overlay(**{"text": BLANK, "size": 0.2, "x": 0.0, "y": 0.0, **other})


def drawn_overlay(number, overlay, *, kind="decoy", pick=0.5, off_object=False) -> DrawnOverlay:
    return DrawnOverlay(overlay_id(number), kind, pick, off_object, overlay)


OVERLAYS = (
    drawn_overlay(0, written(opacity=0.5)),
    drawn_overlay(1, written(x=0.5, y=0.5, panel=(0, 0, 0)), pick=0.1),
    drawn_overlay(2, written(x=0.3, y=0.3), kind="nonword", off_object=True),
    drawn_overlay(3, written(band="bottom", panel=(255, 255, 255), fill=(0, 0, 0))),
    drawn_overlay(4, written(stroke=(255, 0, 0), angle=30.0, x=1.0, y=1.0)),
)


@pytest.fixture
def make(root):
    def pack(**other):
        told = {
            "population": Population(OVERLAYS),
            "data": "all",
            "name": "all-overlays",
            "pictures": 9,
            "root": root,
            "stream": io.StringIO(),
        }
        return overlay_dataset.pack_overlaid(OverlaidPlan(**{**told, **other}))

    return pack


def files(root, name="all-overlays"):
    folder = root / "fixtures/datasets" / name
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def source(root, name="all") -> Dataset:
    folder = dataset_folder(name, root)
    return Dataset(name, folder, load_card(folder))


def test_every_picture_is_there_under_every_overlay(make, root, samples):
    made = make()
    rows, clean = read(root, "all-overlays"), {s.id: s for s in samples}
    twins = list(dict.fromkeys(row.twin for row in rows))

    assert made.left_out == {}
    assert [row.id for row in rows] == [f"{t}@{o.id}" for t in twins for o in OVERLAYS]
    assert len(twins) == 9
    for row in rows:
        one = clean[row.twin]
        same = ("group", "label", "part", "phrase", "question", "answers", "answer_type")
        assert all(getattr(row, name) == getattr(one, name) for name in same)
        assert row.image == b""
    card = made.card
    assert (card.drawn, card.twin_of, card.overlays) == (True, "all", True)
    assert card.twin_revision == load_card(root / "fixtures/datasets/all").revision
    assert (card.scenario, card.tasks, card.classes) == (
        "typographic",
        ("classification", "segmentation", "vqa"),
        CLASSES,
    )


def test_words_are_those_of_the_population_and_overlays_say_them(make, root):
    make()

    for row in read(root, "all-overlays"):
        drawn = next(o for o in OVERLAYS if row.id.endswith(o.id))
        truth = CLASSES[row.label]
        text, decoy = drawn.text_for(truth=truth, names=CLASSES, sample_id=row.twin)
        (layer,) = from_json(row.overlay)
        assert (layer.text, row.decoy) == (text, decoy)
        assert replace(layer, text="word", x=0, y=0) == replace(drawn.overlay, x=0, y=0)
        if not drawn.off_object:
            assert (layer.x, layer.y) == (drawn.overlay.x, drawn.overlay.y)


def test_facts_are_of_the_overlay_as_it_comes_out(make, root, samples):
    make()
    clean = {s.id: s for s in samples}

    for row in read(root, "all-overlays"):
        drawn = next(o for o in OVERLAYS if row.id.endswith(o.id))
        (layer,), facts = from_json(row.overlay), json.loads(row.facts)
        left, top, right, bottom = box(layer, (48, 40))
        width, height = size_after(layer, (48, 40))
        assert facts["covered"] == pytest.approx(
            (right - left) * (bottom - top) / (width * height), abs=1e-6
        )
        assert (facts["overlay"], facts["kind"]) == (drawn.id, drawn.kind)
        assert (facts["size"], facts["opacity"]) == (0.2, drawn.overlay.opacity)
        shown = np.asarray(Image.open(io.BytesIO(clean[row.twin].mask))) == 255
        inside = 0 if layer.band else shown[top:bottom, left:right].sum()
        assert facts["hidden"] == pytest.approx(inside / shown.sum(), abs=1e-6)
        assert facts["off_object"] is bool(inside == 0)
        assert facts["off_object"] or not drawn.off_object
        pixels = np.asarray(decode_image(clean[row.twin].image, where=""), float)[top:bottom]
        luma = (pixels[:, left:right] @ [0.299, 0.587, 0.114]).mean() / 255 if pixels.size else 0
        behind = {"o001": 0.0, "o003": 1.0, "o004": 0.299}.get(drawn.id, luma)
        fill = 0.0 if drawn.id == "o003" else 1.0
        assert facts["contrast"] == pytest.approx(abs(fill - behind), abs=1e-6)
    places = {json.loads(r.facts)["overlay"]: json.loads(r.facts)["place"] for r in _read(root)}
    assert places["o001"] == "centre"
    assert places["o003"] == "bottom"
    assert places["o000"] in ("top left", "top")


def _read(root):
    return read(root, "all-overlays")


def test_masks_stay_where_the_object_stays(make, root, samples):
    make()
    clean = {s.id: s for s in samples}

    for row in read(root, "all-overlays"):
        expected = clean[row.twin].mask
        if row.id.endswith("@o003"):
            expected = mask_after(expected, from_json(row.overlay))
            assert Image.open(io.BytesIO(expected)).size == (48, 50)
        assert row.mask == expected


def test_an_overlay_is_moved_off_the_object_only_where_it_stands_on_it(make, root):
    overlays = (
        drawn_overlay(0, written(x=0.2, y=0.4), off_object=True),
        drawn_overlay(1, written(x=0.2, y=0.4)),
        drawn_overlay(2, written(x=1.0, y=1.0), off_object=True),
    )
    make(population=Population(overlays))

    for row in read(root, "all-overlays"):
        (layer,) = from_json(row.overlay)
        left, top, right, bottom = lay_out(layer, (48, 40)).box
        mask = np.asarray(Image.open(io.BytesIO(row.mask))) == 255
        stands_on = mask[top:bottom, left:right].any()
        if row.id.endswith("@o001"):
            assert stands_on
            assert json.loads(row.facts)["off_object"] is False
        else:
            assert not stands_on
            assert json.loads(row.facts)["off_object"] is True
        if row.id.endswith("@o002"):
            assert (layer.x, layer.y) == (1.0, 1.0)


def test_what_finds_no_room_or_no_word_is_left_out_and_counted(make, root, samples, packed):
    full = Image.new("L", (48, 40), 255)
    buffer = io.BytesIO()
    full.save(buffer, "PNG")
    rows = [replace(s, mask=buffer.getvalue(), label=0) for s in samples[:4]]
    # Neither of the wrong names can be written with other letters.
    packed("full", rows, "classification", "segmentation", "vqa", classes=("cat", "4", "2"))
    overlays = (
        drawn_overlay(0, written(), off_object=True),
        drawn_overlay(1, written(), kind="script"),
        drawn_overlay(2, written(line_gap=0.1)),
        drawn_overlay(3, written(padding=4.0, panel=(0, 0, 0), band="top", band_height=0.03)),
    )
    made = make(population=Population(overlays), data="full", name="left", pictures=2)

    assert Counter(made.left_out.values()) == {NO_WORD: 2, NO_ROOM: 2}
    left = read(root, "left")
    assert [row.id[-4:] for row in left] == ["o000", "o002"] * 2
    assert {json.loads(row.facts)["off_object"] for row in left} == {False}
    listed = (root / "fixtures/datasets/left/set-aside.jsonl").read_text().splitlines()
    assert {json.loads(line)["id"]: json.loads(line)["why"] for line in listed} == made.left_out


def test_without_a_mask_the_overlay_stands_where_it_was_drawn(make, root, bare, packed):
    packed("named", bare(20), "classification")
    make(data="named", name="named-overlays", pictures=6)

    for row in read(root, "named-overlays"):
        drawn = next(o for o in OVERLAYS if row.id.endswith(o.id))
        (layer,) = from_json(row.overlay)
        assert (layer.x, layer.y) == (drawn.overlay.x, drawn.overlay.y)
        assert not {"off_object", "hidden"} & json.loads(row.facts).keys()
        assert row.mask is None


def test_classes_are_shared_out_evenly_and_pictures_taken_once(root, samples):
    for count in [1, 3, 7, 30, 75]:
        rows = chosen_rows(source(root), count, seed=4)
        labels = Counter(samples[row].label for row in rows)

        assert list(rows) == sorted(set(rows))
        assert len({samples[row].group for row in rows}) == count
        # The first rows of all pictures are of every class, the same number of each.
        assert max(labels.values()) - min(labels.get(label, 0) for label in range(3)) <= 1


def test_the_seed_alone_chooses(root):
    first, again, other = (chosen_rows(source(root), 12, seed=seed) for seed in (1, 1, 2))

    assert first == again != other
    # More pictures are those, and more.
    assert set(first) <= set(chosen_rows(source(root), 30, seed=1))


def test_a_class_that_runs_out_leaves_its_share_to_others(root, bare, packed):
    rows = [replace(s, label=0 if n else 1, group=s.id) for n, s in enumerate(bare(10))]
    packed("uneven", rows, "classification")

    found = chosen_rows(source(root, "uneven"), 6, seed=1)

    assert 0 in found
    assert len(found) == 6


def test_the_same_plan_gives_the_same_bytes(make, root):
    make()
    first = files(root)
    make(force=True)

    assert files(root) == first
    assert make(force=True, seed=2).card.revision != load_card(dataset_folder("all", root)).revision
    assert files(root) != first


class Killed(BaseException):
    """What no handler catches."""


def test_a_killed_run_goes_on_in_the_middle_of_a_picture(make, root, monkeypatch):
    whole = make(name="whole").card
    small_shards = partial(overlay_dataset.pack, rows_per_shard=7)
    monkeypatch.setattr(overlay_dataset, "pack", small_shards)
    expected = make(name="sharded").card
    original, calls = DrawnOverlay.text_for, []
    limit = 0

    def counted(drawn, **about):
        calls.append(drawn.id)
        if len(calls) == limit:
            raise Killed
        return original(drawn, **about)

    monkeypatch.setattr(DrawnOverlay, "text_for", counted)
    for killed_at in [3, 7, 22, 44]:
        name = f"killed-{killed_at}"
        calls.clear()
        limit = killed_at + 1
        with pytest.raises(Killed):
            make(name=name)
        assert not (root / "fixtures/datasets" / name).exists()
        calls.clear()
        limit = 0
        made = make(name=name)

        assert [s.sha256 for s in made.card.shards] == [s.sha256 for s in expected.shards]
        assert made.card.rows == whole.rows == 45
        # Whole shards are not made again.
        assert len(calls) == 45 - killed_at // 7 * 7


def test_a_run_that_was_killed_for_good_leaves_nothing_half(root, tmp_path):
    script = tmp_path / "slow.py"
    script.write_text(
        textwrap.dedent(
            f"""
            import sys, time
            from functools import partial
            from pathlib import Path
            from types import SimpleNamespace as N
            from natadv.pipelines import overlay_dataset
            from natadv.scenarios.typographic.overlay import Overlay
            from natadv.scenarios.typographic.population import BLANK, DrawnOverlay, overlay_id

            overlay_dataset.pack = partial(overlay_dataset.pack, rows_per_shard=20)
            overlays = [
                DrawnOverlay(overlay_id(n), "decoy", 0.5, False, Overlay(text=BLANK, x=n / 10))
                for n in range(10)
            ]
            original = DrawnOverlay.text_for

            def slow(drawn, **about):
                time.sleep(float(sys.argv[1]))
                return original(drawn, **about)

            DrawnOverlay.text_for = slow
            made = overlay_dataset.pack_overlaid(overlay_dataset.OverlaidPlan(
                N(name="n", overlays=overlays), "mini", sys.argv[2], 20, root=Path({str(root)!r}),
            ))
            print([s.sha256 for s in made.card.shards])
            """
        )
    )

    def command(pause, name):
        return [sys.executable, str(script), str(pause), name]

    whole = subprocess.run(command(0, "whole"), capture_output=True, text=True, check=True)
    process = subprocess.Popen(command(0.01, "killed"), stderr=subprocess.DEVNULL)
    journal = root / "fixtures/datasets/.killed.importing/finished.jsonl"
    until = time.monotonic() + 60
    while not (journal.exists() and journal.read_text().count("\n") >= 2):
        assert time.monotonic() < until
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (root / "fixtures/datasets/killed").exists()
    again = subprocess.run(command(0, "killed"), capture_output=True, text=True, check=True)

    assert "continues after" in again.stderr
    assert again.stdout == whole.stdout


def test_a_mistake_is_told_before_anything_is_written(make, root):
    before = sorted(path.name for path in (root / "fixtures/datasets").iterdir())
    for change, error, message in [
        ({"data": "al"}, UnknownNameError, "unknown dataset 'al', did you mean 'all'"),
        ({"name": "Not/This"}, ConfigError, "a dataset cannot be made from these values"),
        ({"name": "all"}, ConfigError, "twin_of names the dataset itself"),
        ({"name": "mini"}, ConfigError, "dataset 'mini' exists; replace it with --force"),
        ({"pictures": 0}, ConfigError, "expected 1 to 75 pictures, because 'all' has 75; got 0"),
        ({"pictures": 76}, ConfigError, "expected 1 to 75 pictures"),
    ]:
        with pytest.raises(error, match=message):
            make(**change)
    assert sorted(path.name for path in (root / "fixtures/datasets").iterdir()) == before


def test_sources_that_do_not_fit_are_refused(make, root, samples, packed, bare):
    nameless = [replace(s, label=None, question=None, answers=(), answer_type="") for s in samples]
    packed("found", nameless[:4], "segmentation")
    written_on = [replace(s, decoy="cat", twin=s.id) for s in bare(4)]
    packed("written", written_on, "classification", scenario="typographic", twin_of="all")
    make()

    with pytest.raises(DataError, match="found has no classes, so no word is a wrong one"):
        make(data="found", name="x", pictures=1)
    with pytest.raises(ConfigError, match=r"written is typographic already.*start from all"):
        make(data="written", name="x", pictures=1)
    with pytest.raises(DataError, match=r"all-overlays holds no pictures.*start from all"):
        make(data="all-overlays", name="x", pictures=1)


def test_a_picture_that_cannot_be_decoded_is_refused_by_name(make, root, bare, packed):
    rows = bare(6)
    rows[4] = replace(rows[4], image=rows[4].image[:40])
    packed("torn", rows, "classification")

    with pytest.raises(DataError, match="torn: sample 's004': damaged picture"):
        make(data="torn", name="torn-overlays", pictures=3)
    assert not (root / "fixtures/datasets/torn-overlays").exists()


def test_makers_that_need_pictures_refuse_what_is_drawn(make, make_plan, root):
    from natadv.annotate.job import AnnotationJob
    from natadv.pipelines.typographic_twins import make_typographic

    make()

    with pytest.raises(DataError, match=r"all-overlays holds no pictures.*start from all"):
        make_typographic(make_plan(source="all-overlays", name="twice"))
    with pytest.raises(DataError, match=r"all-overlays holds no pictures.*filter natural"):
        filter_pool(FilterPlan("all-overlays", "hard", ("mini-clip",), root=root))
    with pytest.raises(DataError, match=r"all-overlays holds no pictures.*annotate all"):
        AnnotationJob(dataset="all-overlays", name="x", root=root).source()


@pytest.fixture
def command(monkeypatch, root):
    """`natadv overlays pack`, with a population that lies in no file."""
    asked = []

    def read_population(path):
        asked.append(path)
        return Population(OVERLAYS)

    monkeypatch.setattr(population, "read_population", read_population)

    def run(*arguments):
        return main(["overlays", "pack", *arguments, "--root", str(root)]), asked

    return run


def test_the_command_packs(command, root, capsys):
    code, asked = command("p", "--data", "all", "--name", "made", "--pictures", "6", "--seed", "3")

    first, second = capsys.readouterr().out.splitlines()
    card = load_card(root / "fixtures/datasets/made")
    assert code == 0
    assert asked == [root / "fixtures/populations/p.json"]
    assert first.endswith("made: 30 rows, 6 pictures of all under 5 overlays, none left out")
    assert second == f"revision {card.revision}"
    assert "seed 3" in card.description


def test_the_command_takes_a_file(command, root, tmp_path):
    file = str(tmp_path / "own.json")
    _, asked = command(file, "--data", "all", "--name", "made", "--pictures", "3", "--force")

    assert [str(path) for path in asked] == [file]

"""With a finder and a drawer that do as they are told, and once with tiny real ones."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from natadv.annotate.job import AnnotationJob
from natadv.annotate.mask_annotation import MaskSettings, annotate_masks
from natadv.data.card import DATASETS_FOLDER, load_card
from natadv.data.reader import iter_samples
from natadv.errors import ConfigError, DataError
from natadv.models.adapters.grounded_sam import PhraseBox

from .conftest import pets

BOXES = {"dog": [(2.0, 3.0, 10.0, 12.0), (8.0, 8.0, 20.0, 20.0)], "owl": [(0.0, 0.0, 5.0, 5.0)]}
SETTINGS = MaskSettings(models={"fake": "0"}, box_threshold=0.3, text_threshold=0.25)


class FakeGrounding:
    """Knows where dogs and owls are, and no cats; a box is all mask."""

    def __init__(self):
        self.found, self.drawn = [], []
        self.dies_at = None

    def find(self, picture, phrase, *, box_threshold, text_threshold):
        if len(self.found) == self.dies_at:
            raise KeyboardInterrupt
        self.found.append(phrase)
        return tuple(PhraseBox(box, 0.9, phrase) for box in BOXES.get(phrase, ()))

    def draw(self, picture, boxes):
        self.drawn.append(boxes)
        mask = np.zeros((picture.height, picture.width), bool)
        for x0, y0, x1, y1 in boxes:
            mask[round(y0) : round(y1), round(x0) : round(x1)] = True
        return mask


class Run(NamedTuple):
    grounding: FakeGrounding
    loads: list[int]


@pytest.fixture
def fake():
    return Run(FakeGrounding(), [])


@pytest.fixture
def annotate(pack, fake):
    root = pack()

    def annotated(*, settings=SETTINGS, **job):
        def load():
            fake.loads.append(1)
            return fake.grounding, fake.grounding

        described = {"dataset": "pets", "name": "pets-masks", "root": root, **job}
        return annotate_masks(
            AnnotationJob(**described), settings, load=load, progress_to=io.StringIO()
        )

    return annotated


@pytest.fixture
def place(tmp_path):
    return tmp_path / "fixtures/annotations/pets-masks"


@pytest.fixture
def packed(tmp_path):
    def read():
        folder = tmp_path / DATASETS_FOLDER / "pets-masks"
        return {s.id: s for s in iter_samples(folder, load_card(folder))}

    return read


def edit(place, name, **fields):
    """What a person does to the line of `name`."""
    lines = [json.loads(text) for text in (place / "review.jsonl").read_text().splitlines()]
    for line in lines:
        if line.get("id") == name:
            line.update(fields)
    (place / "review.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def pixels(sample):
    return np.asarray(Image.open(io.BytesIO(sample.mask))) == 255


def test_a_mask_is_the_union_of_what_is_in_the_boxes(annotate, packed):
    made = annotate()

    found = packed()
    mask = pixels(found["pet/0"])
    assert (made.card.tasks, made.card.scenario) == (("segmentation",), "natural")
    assert mask.shape == (24, 32)
    assert mask.sum() == 8 * 9 + 12 * 12 - 2 * 4
    assert found["pet/0"].phrase == "dog"
    assert (found["pet/0"].label, found["pet/0"].group, found["pet/0"].part) == (0, "g0", "all")


def test_candidates_are_not_for_the_new_task(pack, fake, packed, tmp_path):
    samples = [replace(sample, candidates=("dog", "cat", "owl")) for sample in pets()]
    root = pack("pairs", samples=samples, candidates=True)

    job = AnnotationJob(dataset="pairs", name="pets-masks", root=root)
    annotate_masks(job, SETTINGS, load=lambda: (fake.grounding,) * 2, progress_to=io.StringIO())

    made = packed()
    assert made
    assert {sample.candidates for sample in made.values()} == {()}


def test_a_picture_without_a_box_is_dropped_and_counted(annotate, packed, place):
    made = annotate()

    assert list(packed()) == ["pet/0", "pet/2", "pet/3"]
    assert made.left_out == 2
    assert '"id":"pet/1","keep":false,"note":"no box"' in (place / "review.jsonl").read_text()


def test_every_picture_is_on_a_sheet(annotate, place):
    made = annotate()

    assert made.pages == 1
    sheet = Image.open(place / "sheets" / "0001.png").convert("RGB")
    colours = {colour for _, colour in sheet.getcolors(1 << 20)}
    assert (20, 190, 90) in colours


def test_the_second_run_finds_nothing_anew_and_gives_the_same(annotate, fake):
    first = annotate()
    second = annotate(force=True)

    assert second.card.revision == first.card.revision
    assert len(fake.grounding.found) == 5
    assert len(fake.loads) == 1


def test_a_killed_run_goes_on_and_ends_the_same(annotate, fake, tmp_path, place):
    fake.grounding.dies_at = 3
    with pytest.raises(KeyboardInterrupt):
        annotate()
    assert not (tmp_path / DATASETS_FOLDER / "pets-masks").exists()
    with (place / "review.jsonl").open("a") as file:
        file.write('{"id":"pet/3","ke')
    fake.grounding.dies_at = None

    made = annotate()

    review = (place / "review.jsonl").read_bytes()
    assert fake.grounding.found == ["dog", "cat", "owl", "dog", "cat"]
    (place / "review.jsonl").unlink()
    assert annotate(force=True).card.revision == made.card.revision
    assert (place / "review.jsonl").read_bytes() == review


def test_what_a_person_leaves_out_is_left_out(annotate, packed, place):
    annotate()
    edit(place, "pet/0", keep=False)

    made = annotate(force=True)

    assert "pet/0" not in packed()
    assert made.left_out == 3


def test_other_boxes_give_another_mask(annotate, packed, place, fake):
    annotate()
    edit(place, "pet/1", keep=True, boxes=[[0, 0, 4, 4]], phrase="small cat")

    annotate(force=True)

    assert pixels(packed()["pet/1"]).sum() == 16
    assert packed()["pet/1"].phrase == "small cat"
    assert len(fake.grounding.found) == 5


def test_a_mask_that_a_person_has_painted_wins(annotate, packed, place, fake):
    annotate()
    painted = np.zeros((24, 32), np.uint8)
    painted[5, 6] = 255
    Image.fromarray(painted).save(place / "mine.png")
    edit(place, "pet/1", keep=True, mask="mine.png")
    drawn = len(fake.grounding.drawn)

    annotate(force=True)

    assert np.argwhere(pixels(packed()["pet/1"])).tolist() == [[5, 6]]
    assert len(fake.grounding.drawn) == drawn


def test_a_drawn_mask_that_a_person_has_painted_over_wins(annotate, packed, place):
    annotate()
    (path,) = (place / "masks").glob("pet-2-*.png")
    Image.fromarray(np.full((24, 32), 255, np.uint8)).save(path)

    annotate(force=True)

    assert pixels(packed()["pet/2"]).all()


def test_a_line_that_was_deleted_is_found_anew(annotate, place, fake):
    annotate()
    lines = (place / "review.jsonl").read_text().splitlines(keepends=True)
    (place / "review.jsonl").write_text("".join(lines[:1] + lines[2:]))

    annotate(force=True)

    assert len(fake.grounding.found) == 6


def test_a_mask_that_was_lost_is_drawn_again(annotate, place, packed, fake):
    annotate()
    before = packed()
    for path in (place / "masks").iterdir():
        path.unlink()

    annotate(force=True)

    assert packed() == before
    assert len(fake.grounding.found) == 5


def test_a_limit_takes_the_first_pictures(annotate, packed):
    annotate(limit=1)
    assert list(packed()) == ["pet/0"]

    annotate(force=True)
    assert len(packed()) == 3


def unknown_id(place):
    with (place / "review.jsonl").open("a") as file:
        file.write('{"id": "pet/77", "keep": false, "phrase": "dog"}\n')


def climbing(place):
    edit(place, "pet/0", mask="../../../pets.png")


def missing_mask(place):
    edit(place, "pet/0", mask="none.png")


def black_mask(place):
    Image.new("L", (32, 24)).save(place / "black.png")
    edit(place, "pet/0", mask="black.png")


def grey_mask(place):
    Image.new("L", (32, 24), 7).save(place / "grey.png")
    edit(place, "pet/0", mask="grey.png")


def small_mask(place):
    Image.new("L", (8, 8), 255).save(place / "small.png")
    edit(place, "pet/0", mask="small.png")


def text_mask(place):
    (place / "text.png").write_text("no picture")
    edit(place, "pet/0", mask="text.png")


def outside(place):
    edit(place, "pet/0", boxes=[[100, 100, 120, 120]])


MISTAKES = {
    unknown_id: r"1 lines are about pictures that 'pets' lacks, first 'pet/77'",
    climbing: "must lie in",
    missing_mask: r"none\.png: the mask of 'pet/0' cannot be read",
    black_mask: r"black\.png: the mask of 'pet/0' is empty",
    grey_mask: "255 inside and 0 outside",
    small_mask: "32 x 24 pixels, got 8 x 8",
    text_mask: "not a picture",
    outside: "boxes of 'pet/0' give an empty mask",
}


def test_a_mistake_of_the_person_is_told_and_nothing_is_packed(annotate, place, packed):
    annotate()
    before, review = packed(), (place / "review.jsonl").read_text()
    for sabotage, message in MISTAKES.items():
        (place / "review.jsonl").write_text(review)
        sabotage(place)

        with pytest.raises(DataError, match=message):
            annotate(force=True)
        assert packed() == before, sabotage


def test_an_existing_dataset_is_not_replaced_unasked(annotate):
    annotate()

    with pytest.raises(ConfigError, match="--force"):
        annotate()


def test_the_dataset_itself_cannot_be_the_name(annotate):
    with pytest.raises(ConfigError, match="give another name"):
        annotate(name="pets", force=True)


def test_other_settings_do_not_mix_with_what_is_there(annotate):
    annotate()
    other = MaskSettings(models={"fake": "0"}, box_threshold=0.5, text_threshold=0.25)

    with pytest.raises(ConfigError, match=r"begun with box_threshold 0\.3, not 0\.5"):
        annotate(settings=other, force=True)


def test_two_processes_do_not_annotate_the_same(annotate, place):
    import subprocess
    import sys

    place.mkdir(parents=True)
    code = (
        "import fcntl, sys; file = open(sys.argv[1], 'w'); "
        "fcntl.lockf(file, fcntl.LOCK_EX); print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(place / ".lock")]
    with subprocess.Popen(command, stdin=-1, stdout=-1, text=True) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(ConfigError, match="another process is annotating 'pets-masks'"):
            annotate()
        other.communicate("")


def test_when_nothing_is_found_nothing_is_packed(annotate, fake, monkeypatch, packed, tmp_path):
    monkeypatch.setattr(fake.grounding, "find", lambda *_, **__: ())

    with pytest.raises(DataError, match="none of 5 pictures is kept"):
        annotate()
    assert not (tmp_path / DATASETS_FOLDER / "pets-masks").exists()

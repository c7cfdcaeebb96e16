"""Which samples of each task a contact sheet shows, and with which captions."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from natadv.data.card import CardDraft, load_card
from natadv.data.packing import write_dataset
from natadv.errors import DataError
from natadv.evaluate.datasets import Dataset
from natadv.evaluate.plan import CaseUnits
from natadv.evidence import CaseEvidence, Evidence
from natadv.plugin import failures
from natadv.plugin.failures import failing_tiles, marked_text
from natadv.report.sheet import contact_sheet
from natadv.scenarios.typographic.overlay import Overlay, to_json
from natadv.scenarios.typographic.rendering import render
from natadv.tasks import ASKED
from natadv.tasks.task import PREDICTED_REGION as MARKED
from natadv.tasks.task import QUIET, WRONG
from natadv.tasks.task import TRUE_REGION as MEANT
from natadv.types import Case, Outcomes, Sample

N, SIDE = 20, 32
ANSWERS = ("red",) * 6 + ("blue",) * 2 + ("dark red", "pink")
BOX = (4, 4, 20, 12)


def png(colour, *, mode="RGB", box=None) -> bytes:
    image = Image.new(mode, (SIDE, SIDE), colour)
    if box:
        image.paste(255, box)
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def sample(i, **other) -> Sample:
    settled = {
        "id": f"c{i:02d}",
        "group": f"c{i:02d}",
        "image": png((10, 200, i)),
        "label": 0,
        "facts": json.dumps({}),
        "phrase": f"the cat number {i}",
        "mask": png(0, mode="L", box=BOX),
        "question": f"What colour is cat {i}?",
        "answers": ANSWERS,
        "answer_type": "other",
    }
    return Sample(**(settled | other))


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    shared = {
        "tasks": tuple(ASKED),
        "classes": ("cat", "dog"),
        "templates": ("a {}",),
        "licence": "CC0-1.0",
        "source": "made by the tests",
        "description": "plain colours",
    }
    twins = [
        sample(i, id=f"t{i:02d}", twin=f"c{i:02d}", decoy="dog", image=png((200, 10, i)))
        for i in range(N)
    ]
    clean = CardDraft(name="clean", scenario="clean", **shared)
    typo = CardDraft(name="typo", scenario="typographic", twin_of="clean", **shared)
    write_dataset(root / "clean", clean, [sample(i) for i in range(N)])
    write_dataset(root / "typo", typo, twins)
    return {n: Dataset(n, root / n, load_card(root / n)) for n in ("clean", "typo")}


def rows(prefix="c", *, prediction="dog", **values) -> Outcomes:
    ids = tuple(f"{prefix}{i:02d}" for i in range(N))
    return Outcomes(
        id=ids,
        group=ids,
        part=("",) * N,
        twin=tuple(f"c{i:02d}" if prefix == "t" else None for i in range(N)),
        decoy=("dog",) * N if prefix == "t" else (None,) * N,
        truth=tuple(f"the truth of {i}" for i in range(N)),
        prediction=(prediction,) * N,
        values={name: np.asarray(column, float) for name, column in values.items()},
    )


def session_of(case, found, datasets, *, before=None, new=()):
    evidence = CaseEvidence(case, Evidence(found), "", "", "")
    change = SimpleNamespace(comparison=SimpleNamespace(new_flips=new))
    return SimpleNamespace(
        comparison=lambda case: change if before else None,
        counterparts={case: replace(evidence, evidence=Evidence(before))} if before else {},
        evidence={case: evidence},
        grid=SimpleNamespace(datasets=datasets),
        units=lambda case: f"units of {case}",
        store="the store",
        run="the run",
    )


@pytest.fixture
def tiles_of(datasets, monkeypatch):
    """The tiles of a case on either dataset; `masks` are the predictions in the store."""

    def make(task, found, *, masks=None, **baseline):
        typo = found.id[:1] == ("t00",)
        scenario, dataset = ("typographic", "typo") if typo else ("clean", "clean")
        case = Case(task, scenario, dataset, "mini-clip")

        def kept_masks(units, *, store, run):
            assert (units, store, run) == (f"units of {case}", "the store", "the run")
            return masks or {}

        monkeypatch.setattr(failures, "kept_masks", kept_masks)
        return failing_tiles(session_of(case, found, datasets, **baseline), case)

    return make


def texts(tile):
    return [line.text for line in tile.captions]


def ids(tiles):
    return [texts(tile)[-1] for tile in tiles]


def scores(**at):
    """1 for every sample but these."""
    column = np.ones(N)
    for name, value in at.items():
        column[int(name.removeprefix("s"))] = value
    return column


def test_classification_shows_wrong_answers_by_their_margin(tiles_of):
    margin = np.linspace(1, -1, N)
    margin[3] = -5
    right = scores(s3=0, s7=0, s19=0)

    tiles = tiles_of("classification", rows(correct=right, margin=margin, score=[0.71] * N))

    assert ids(tiles) == ["c03", "c19", "c07"]
    assert texts(tiles[0]) == ["truth: the truth of 3", "said: dog (0.71)", "c03"]
    assert [len(tile.panels) for tile in tiles] == [1, 1, 1]
    assert tiles[0].panels[0].outlines == ()


def test_new_mistakes_come_first_and_say_what_was_answered_before(tiles_of):
    found = rows(correct=[0] * N, margin=np.arange(N), score=[0.5] * N)
    before = rows(prediction="cat", correct=scores(s0=0))

    tiles = tiles_of("classification", found, before=before, new=("c18", "c05"))

    assert ids(tiles)[:4] == ["c05", "c18", "c00", "c01"]
    assert texts(tiles[0]) == ["truth: the truth of 5", "said: dog (0.50)", "before: cat", "c05"]
    assert texts(tiles[2]) == ["truth: the truth of 0", "said: dog (0.50)", "c00"]


def test_one_picture_does_not_fill_the_sheet(tiles_of):
    found = rows(correct=[0] * N, margin=np.arange(N), score=[0.5] * N)
    found = replace(found, group=("one",) * 15 + found.group[15:])

    tiles = tiles_of("classification", found)

    assert ids(tiles)[:8] == ["c00", *(f"c{i}" for i in range(15, 20)), "c01", "c02"]


def test_segmentation_shows_regions_of_less_than_half_iou_worst_first(tiles_of):
    iou = scores(s2=0.5, s5=0.49, s6=0.1, s4=0, s3=0, s9=0.51)

    tiles = tiles_of("segmentation", rows(iou=iou, prediction="12 % of the picture"))

    assert ids(tiles) == ["c03", "c04", "c06", "c05"]


def test_vqa_shows_answers_that_nobody_gave_before_those_that_some_people_gave(tiles_of):
    accuracy = scores(s1=0.9, s2=0.3, s8=0, s4=0, s5=0.6)

    tiles = tiles_of("vqa", rows(accuracy=accuracy))

    assert ids(tiles) == ["c04", "c08", "c02", "c05", "c01"]


@pytest.mark.parametrize(
    ("task", "worst_first"),
    [
        ("classification", {"correct": [0] * N, "margin": -np.arange(N), "score": [0.5] * N}),
        ("segmentation", {"iou": np.linspace(0.4, 0, N)}),
        ("vqa", {"accuracy": np.linspace(0.4, 0, N)}),
    ],
)
def test_only_the_twelve_worst_samples_are_shown(tiles_of, task, worst_first):
    tiles = tiles_of(task, rows(**worst_first))

    assert ids(tiles) == [f"c{i:02d}" for i in range(19, 7, -1)]


@pytest.mark.parametrize(
    ("task", "perfect"),
    [
        ("classification", {"correct": [1] * N, "margin": [1] * N, "score": [1] * N}),
        ("segmentation", {"iou": [0.5] * N}),
        ("vqa", {"accuracy": [1] * N}),
    ],
)
def test_a_case_without_failures_has_no_tiles(tiles_of, task, perfect):
    assert tiles_of(task, rows(**perfect)) == []


def test_a_segmentation_tile_shows_both_outlines_in_their_colours(tiles_of):
    found = rows(iou=scores(s3=0.25), prediction="12 % of the picture")
    (tile,) = tiles_of("segmentation", found, masks={"c03": png(0, mode="L", box=(0, 0, 5, 5))})

    meant, marked = tile.panels[0].outlines
    assert (meant.colour, meant.mask.getbbox()) == (MEANT, BOX)
    assert (marked.colour, marked.mask.getbbox()) == (MARKED, (0, 0, 5, 5))
    assert texts(tile) == [
        "the truth of 3",
        "meant",
        "marked: 12 % of the picture",
        "IoU 0.25",
        "c03",
    ]
    assert [line.swatch for line in tile.captions] == [None, MEANT, MARKED, None, None]
    assert [line.colour for line in tile.captions[-2:]] == [WRONG, QUIET]


def test_every_tile_has_its_own_mask(tiles_of):
    boxes = {"c03": (0, 0, 5, 5), "c04": (9, 9, 30, 30)}
    masks = {name: png(0, mode="L", box=box) for name, box in boxes.items()}
    tiles = tiles_of("segmentation", rows(iou=scores(s3=0, s4=0.2, s7=0.3)), masks=masks)

    found = [tile.panels[0].outlines[1:] for tile in tiles]
    assert [[o.mask.getbbox() for o in outlines] for outlines in found] == [
        [boxes["c03"]],
        [boxes["c04"]],
        [],
    ]


def test_a_mask_that_was_not_stored_is_marked_as_missing(tiles_of):
    (tile,) = tiles_of("segmentation", rows(iou=scores(s3=0.25), prediction="7 % of the picture"))

    assert [outline.colour for outline in tile.panels[0].outlines] == [MEANT]
    assert "marked: 7 % of the picture (not drawn)" in texts(tile)
    assert [line.swatch for line in tile.captions].count(MARKED) == 0


def test_a_damaged_mask_is_our_error(tiles_of):
    with pytest.raises(DataError, match=r"c03.: the predicted mask"):
        tiles_of("segmentation", rows(iou=scores(s3=0)), masks={"c03": b"\x89PNG no more"})


def test_a_vqa_tile_shows_the_question_and_what_people_said(tiles_of):
    (tile,) = tiles_of("vqa", rows(accuracy=scores(s3=0.3)))

    assert texts(tile) == [
        "What colour is cat 3?",
        "people: red (6), blue (2), dark red (1), pink (1)",
        "said: dog",
        "accuracy 0.30",
        "c03",
    ]
    assert tile.captions[0].most > 1


def test_an_empty_answer_is_shown_as_empty(tiles_of):
    (tile,) = tiles_of("vqa", rows(accuracy=scores(s3=0), prediction=""))

    assert "said: (nothing)" in texts(tile)


ALL_WRONG = {
    "classification": {"correct": [0] * N, "margin": [-1] * N, "score": [0.5] * N},
    "segmentation": {"iou": [0.1] * N},
    "vqa": {"accuracy": [0.1] * N},
}


@pytest.mark.parametrize("task", ASKED)
def test_the_clean_twin_stands_beside_the_attacked_picture(tiles_of, task):
    tiles = tiles_of(task, rows("t", **ALL_WRONG[task]))

    for i, tile in enumerate(tiles):
        before, after = (picture.image.getpixel((0, 0)) for picture in tile.panels)
        assert (before, after) == ((10, 200, i), (200, 10, i))
        assert tile.panels[0].outlines == ()
        assert texts(tile)[-2:] == ["word: dog", f"t{i:02d}"]


@pytest.mark.parametrize("task", ASKED)
def test_a_sheet_can_be_drawn_for_every_task(tiles_of, task):
    masks = {f"t{i:02d}": png(0, mode="L", box=(8, 8, 30, 30)) for i in range(N)}
    tiles = tiles_of(task, rows("t", **ALL_WRONG[task]), masks=masks)
    sheet = Image.open(io.BytesIO(contact_sheet(tiles, title=task)))

    seen = {tuple(c) for c in np.unique(np.asarray(sheet).reshape(-1, 3), axis=0).tolist()}
    assert {MEANT, MARKED} & seen == ({MEANT, MARKED} if task == "segmentation" else set())


@pytest.mark.parametrize("task", ASKED)
def test_without_outcomes_or_dataset_there_are_no_tiles(datasets, task):
    case = Case(task, "clean", "clean", "mini-clip")
    nothing = Outcomes((), (), (), (), (), (), (), {})
    wrong = rows(**ALL_WRONG[task])

    assert failing_tiles(session_of(case, nothing, datasets), case) == []
    assert failing_tiles(session_of(case, wrong, {}), case) == []
    other = replace(case, model="another")
    assert failing_tiles(session_of(case, wrong, datasets), other) == []


def test_overlays_drawn_at_load_time_are_drawn_for_the_sheet_too(datasets, tmp_path):
    clean = datasets["clean"]
    overlay = Overlay(text="dog", size=0.5, band="bottom", panel=(255, 0, 0))
    before, after = (Image.new("L", (SIDE, height), 0) for height in (SIDE, SIDE + SIDE // 4))
    for mask in (before, after):
        mask.paste(255, BOX)
    out = io.BytesIO()
    after.save(out, "PNG")
    rows_ = [
        sample(i, id=f"t{i:02d}", twin=f"c{i:02d}", image=b"", decoy="dog", mask=out.getvalue())
        for i in range(N)
    ]
    card = CardDraft(
        name="drawn",
        scenario="typographic",
        twin_of="clean",
        drawn=True,
        twin_revision=clean.card.revision,
        **clean.card.model_dump(
            include={"tasks", "classes", "templates", "licence", "source", "description"}
        ),
    )
    folder = tmp_path / "drawn"
    packed = write_dataset(folder, card, [replace(r, overlay=to_json(overlay)) for r in rows_])
    drawn = Dataset("drawn", folder, packed)
    case = Case("segmentation", "typographic", "drawn", "mini-clip")
    found = rows("t", iou=scores(s3=0.2))
    session = session_of(case, found, {"clean": clean, "drawn": drawn})
    session.units, session.store = lambda case: CaseUnits(), None

    (tile,) = failing_tiles(session, case)

    twin, shown = tile.panels
    assert (twin.image.size, shown.image.size) == ((SIDE, SIDE), (SIDE, SIDE + SIDE // 4))
    assert np.array_equal(shown.image, render(overlay, twin.image))
    assert shown.outlines[0].mask.size == shown.image.size
    assert "word: dog" in texts(tile)


def test_a_mask_on_the_text_beside_the_object_is_counted(datasets, monkeypatch, tmp_path):
    overlay = to_json(Overlay(text="dog", panel=(9, 9, 9), size=0.4, x=1.0, y=1.0))
    attacked = [
        sample(i, id=f"t{i:02d}", twin=f"c{i:02d}", decoy="dog", overlay=overlay) for i in range(4)
    ]
    card = CardDraft(
        name="lot",
        scenario="typographic",
        twin_of="clean",
        tasks=("classification", "segmentation", "vqa"),
        classes=("cat", "dog"),
        templates=("a {}",),
        licence="CC0-1.0",
        source="made by the tests",
        description="plain colours",
    )
    write_dataset(tmp_path / "lot", card, attacked)
    known = {**datasets, "lot": Dataset("lot", tmp_path / "lot", load_card(tmp_path / "lot"))}
    case = Case("segmentation", "typographic", "lot", "mini-clip")
    # The last one did not fail, and of the one before it no mask was kept.
    found = rows("t", iou=scores(s0=0, s1=0, s2=0), tp=scores(), fp=scores(), fn=scores())
    masks = {
        "t00": png(255, mode="L"),
        "t01": png(0, mode="L", box=BOX),
        "t03": png(255, mode="L"),
    }
    monkeypatch.setattr(failures, "kept_masks", lambda units, *, store, run: masks)

    assert marked_text(session_of(case, found, known), case) == (1, 2)
    plain = Case("segmentation", "clean", "clean", "mini-clip")
    monkeypatch.setattr(failures, "kept_masks", lambda units, *, store, run: {"c00": masks["t00"]})
    without = rows(iou=scores(s0=0))
    assert marked_text(session_of(plain, without, known), plain) is None
    assert marked_text(session_of(plain, without, known), replace(plain, task="vqa")) is None

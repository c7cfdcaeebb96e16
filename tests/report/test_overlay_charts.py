"""`natadv overlays rates`: from evidence to a table, a CSV and pictures."""

from __future__ import annotations

import contextlib
import csv
import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from natadv import cli
from natadv.evidence import Manifest, folder_of, write_evidence
from natadv.metrics.breaking import NEVER
from natadv.plots import COLOURS
from natadv.report.overlay_charts import breaking_chart
from natadv.report.overlay_rates import CaseRates
from natadv.types import Case, Outcomes

PICTURES, OVERLAYS = 12, 8
PLACES = ("bottom right", "top left", "centre", "top")
FACTS = ("revision-1", "c" * 64, "protocol-1")
MODELS = ("mini-clip", "mini-siglip")


def rows_of(task, right, *, drawn) -> Outcomes:
    """Of pictures, each once, or under each overlay."""
    n = len(right)
    twins = tuple(f"c{i // OVERLAYS}" for i in range(n))
    right = np.asarray(right, dtype=np.float64)
    numbers = {
        "classification": {"correct": right, "said_decoy": 1 - right, "rank": 1 - right},
        "segmentation": {
            **{"tp": 90 * right + 5, "fp": 0 * right, "fn": 95 - 90 * right, "tn": 0 * right + 9},
            "iou": (90 * right + 5) / 100,
        },
        "vqa": {"accuracy": 0.9 * right, "said_decoy": 1 - right},
    }[task]
    ids = tuple(f"t{i}" if drawn else f"c{i}" for i in range(n))
    at = np.arange(n)
    attributes = {
        "covered": tuple((0.05 + 0.05 * (at % OVERLAYS) + at / 10_000).tolist()),
        "kind": tuple("other" if i % 4 == 3 else "decoy" for i in range(n)),
        "overlay": tuple(f"o{i % OVERLAYS:03d}" for i in range(n)),
        "place": tuple(PLACES[i % 4] for i in range(n)),
        "size": tuple((0.1 + at / 1000).tolist()),
    }
    return Outcomes(
        id=ids,
        group=twins if drawn else ids,
        part=("",) * n,
        twin=twins if drawn else (None,) * n,
        decoy=tuple("bee" if drawn and i % 4 != 3 else None for i in range(n)),
        truth=("ant",) * n,
        prediction=tuple("ant" if hit else "bee" for hit in right),
        values=numbers,
        attributes=attributes if drawn else {},
    )


def store(root, task="classification", dataset="drawn", models=MODELS, **columns):
    """Clean pictures that are all right but one, and overlays of which the larger ones flip."""
    clean = rows_of(task, np.arange(PICTURES) > 0, drawn=False)
    at = np.arange(PICTURES * OVERLAYS)
    for number, model in enumerate(models):
        held = {
            "attack": at % OVERLAYS < 4 + number,
            "occlusion": at % OVERLAYS < 5 + number,
            "matched": at % OVERLAYS < 7,
        }
        tables = {
            name: replace(rows_of(task, right, drawn=True), **columns)
            for name, right in held.items()
            if name == "attack" or task == "classification"
        }
        typo = Case(task, "typographic", dataset, model)
        twins = Case(task, "clean", "plain", model)
        write_evidence(root, Manifest(typo, model, len(at), *FACTS, twin_of="plain"), tables)
        write_evidence(root, Manifest(twins, model, PICTURES, *FACTS), {"attack": clean})


@pytest.fixture
def evidence(tmp_path):
    return tmp_path / "evidence"


@pytest.fixture
def run(evidence, tmp_path, capsys):
    def command(*arguments):
        usual = ["--evidence", str(evidence), "--out", str(tmp_path / "out")]
        code = cli.main(["overlays", "rates", *usual, *arguments])
        out, err = capsys.readouterr()
        return code, out, err

    return command


@pytest.fixture
def written(tmp_path):
    def files():
        return {path.name: path.read_bytes() for path in sorted((tmp_path / "out").iterdir())}

    return files


@pytest.fixture(scope="module")
def plain_run(tmp_path_factory):
    """The lines of the CSV and the output of a run on plain evidence."""
    root = tmp_path_factory.mktemp("plain")
    store(root / "evidence")
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        places = ["--evidence", str(root / "evidence"), "--out", str(root / "out")]
        assert cli.main(["overlays", "rates", *places]) == 0
    return list(csv.DictReader((root / "out/rates.csv").read_text().splitlines())), out.getvalue()


def lines_of(written):
    return list(csv.DictReader(io.StringIO(written()["rates.csv"].decode())))


@pytest.mark.parametrize("task", ["classification", "segmentation", "vqa"])
def test_every_task_gets_its_table_its_numbers_and_its_pictures(evidence, run, written, task):
    store(evidence, task)
    code, out, err = run()

    assert (code, err) == (0, "")
    assert out.startswith(f"{task}/typographic/drawn/mini-clip\nbreaks ")
    names = [f"breaking-{task}-drawn.png", "rates.csv", f"rates-{task}-drawn.png"]
    assert sorted(written()) == sorted(names)
    for name in names[::2]:
        with Image.open(io.BytesIO(written()[name])) as picture:
            assert (picture.format, picture.mode) == ("PNG", "RGBA")
    score = {"classification": "top1", "segmentation": "iou_fg", "vqa": "vqa_accuracy"}[task]
    found = [line for line in lines_of(written) if line["metric"] == score]
    assert {line["model"] for line in found} == set(MODELS)
    levels = [line["level"] for line in found if line["model"] == "mini-clip"]
    assert levels[0] == "all"
    assert [level for level in levels if level in PLACES] == [
        "top left",
        "top",
        "centre",
        "bottom right",
    ]
    assert "o000" not in levels


def test_the_numbers_are_those_of_the_rows(plain_run):
    lines, _ = plain_run

    found = {
        (line["factor"], line["level"], line["metric"]): line
        for line in lines
        if line["model"] == "mini-clip"
    }
    whole = found["all", "all", "top1"]
    assert (float(whole["value"]), whole["n"], whole["groups"]) == (0.5, "96", "12")
    assert float(found["all", "all", "top1 (occlusion)"]["value"]) == 0.625
    assert float(found["all", "all", "top1 (matched)"]["value"]) == 0.875
    # Of the overlays at the top left (1 and 5 of each picture) the second flips.
    assert float(found["place", "top left", "top1"]["value"]) == 0.5
    assert ("kind", "other", "decoy_rate") not in found
    # The fifth overlay of the sixth of the eleven pictures that are right when clean.
    median = found["all", "all", "breaking_point"]
    assert (float(median["value"]), median["n"]) == (0.255, "11")


def test_a_table_is_aligned_and_narrow(plain_run):
    _, out = plain_run

    block = out.split("\n\n")[0].splitlines()
    head = block[2].split()
    assert head[:4] == ["factor", "level", "n", "pictures"]
    assert head[4:] == ["top1", "95%", "interval", "occlusion", "matched", "attack", "decoy"]
    assert max(map(len, block)) <= 100
    ends = {line.index("]") for line in block[3:]}
    assert len(ends) == 1


def colours_in(content):
    with Image.open(io.BytesIO(content)) as picture:
        return {colour for _, colour in picture.convert("RGB").getcolors(2**24)}


def test_each_model_has_a_colour_and_too_many_get_another_picture(evidence, run, written):
    store(evidence, models=[f"m{i}" for i in range(len(COLOURS) + 1)])
    run()
    files = written()

    wanted = [tuple(bytes.fromhex(colour[1:])) for colour in COLOURS]
    for kind in ("rates", "breaking"):
        first, second = (files[f"{kind}-classification-drawn{n}.png"] for n in ("", "-2"))
        assert set(wanted) <= colours_in(first)
        assert set(wanted) & colours_in(second) == {wanted[0]}


def test_equal_evidence_gives_equal_bytes(evidence, run, written):
    store(evidence)
    run()
    first = written()
    run()

    assert written() == first


def test_only_the_dataset_that_was_asked_for(evidence, run, written):
    store(evidence, dataset="one")
    store(evidence, dataset="two")
    assert {line["dataset"] for line in (run(), lines_of(written))[1]} == {"one", "two"}
    run("--dataset", "two")

    assert {line["dataset"] for line in lines_of(written)} == {"two"}
    code, _, err = run("--dataset", "to")
    assert code == 4
    assert "unknown dataset with drawn overlays 'to', did you mean 'two'" in err


def test_any_other_factor_is_told_too(evidence, run, written):
    rows = rows_of("vqa", np.arange(96) % 2, drawn=True)
    hidden = tuple((np.arange(96) / 96).tolist())
    store(evidence, "vqa", attributes={**rows.attributes, "hidden": hidden, "mood": ("calm",) * 96})
    run()

    told = {line["factor"] for line in lines_of(written)}
    assert {"hidden", "mood"} < told


def test_without_what_is_covered_the_rest_is_told(evidence, run, written):
    store(evidence, attributes={"kind": ("decoy",) * 96})
    code, out, _ = run()

    assert code == 0
    assert "note: no breaking point: expected an overlay attribute 'covered', got ['kind']" in out
    assert sorted(written()) == ["rates-classification-drawn.png", "rates.csv"]


def test_what_cannot_be_split_is_told_as_a_whole(evidence, run, written):
    store(evidence, attributes={"overlay": ("o000",) * 96})
    code, _, _ = run()

    assert code == 0
    assert sorted(written()) == ["rates.csv"]
    assert {line["factor"] for line in lines_of(written)} == {"all"}


def test_twins_that_were_not_measured_are_told_of(evidence, run, written):
    store(evidence, models=("mini-clip",))
    for file in folder_of(
        evidence, Case("classification", "clean", "plain", "mini-clip")
    ).iterdir():
        file.unlink()
    file.parent.rmdir()
    code, out, _ = run()

    assert code == 0
    assert "note: its clean twins, classification/clean/plain/mini-clip, were not measured" in out
    metrics = {line["metric"] for line in lines_of(written)}
    assert metrics == {"top1", "top1 (occlusion)", "top1 (matched)", "decoy_rate"}


def test_no_evidence_and_stored_pictures_alone_say_what_to_do(evidence, run):
    for prepare in (lambda: None, lambda: store(evidence, attributes={})):
        prepare()
        code, _, err = run("--dataset", "drawn")
        assert code == 4
        assert "run the gate first: pytest suites/ --dataset drawn --no-assert" in err


def test_torn_evidence_is_refused(evidence, run, tmp_path):
    store(evidence)
    folder = folder_of(evidence, Case("classification", "typographic", "drawn", "mini-clip"))
    (folder / "outcomes.parquet").write_bytes(b"")
    code, _, err = run()

    assert code == 4
    assert "manifest says" in err
    assert not (tmp_path / "out").exists()


def test_an_unwritable_place_is_an_error(evidence, run, tmp_path):
    store(evidence)
    (tmp_path / "out").write_text("a file")
    code, _, err = run()

    assert code == 4
    assert "out cannot be written: it is a file" in err


@pytest.mark.parametrize(("flipped", "is_left"), [(12, False), (13, True), (18, False)])
def test_the_name_of_a_share_makes_way_for_the_end_of_a_curve(flipped, is_left):
    points = {f"c{i}": 0.3 if i < flipped else NEVER for i in range(25)}
    case = Case("classification", "typographic", "drawn", "mini-clip")
    chart = breaking_chart([CaseRates(case, (), points, (), 0.6, ())])

    with Image.open(io.BytesIO(chart)) as picture:
        pixels = np.asarray(picture.convert("L"), dtype=np.int64)
    # Inside of the left edge, about the middle of the plot, nothing else is dark but the line of
    # the half itself.
    rows = (pixels[200:450, 32:60] < 150).any(axis=1)
    assert (np.count_nonzero(rows) > 1) == is_left

"""What is drawn equals the evidence; what is missing is a gap that says so."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.patches import Rectangle

from natadv.errors import ConfigError, ReportError, UnknownNameError
from natadv.evidence import Evidence
from natadv.figures.measured import Cell, read_measured
from natadv.figures.paper_figures import performance_figure, radar_figure, radar_of
from natadv.metrics import measure
from natadv.plots import png, svg
from natadv.types import Case
from tests.figures.conftest import outcomes, share

CLEAN, TYPO = "classification/clean/imagenet", "classification/typographic/rta-100"


def bars_of(figure):
    """Panel title -> the widths of its bars from the top, without those of the frame."""
    return {
        axis.get_title(loc="left"): [
            patch.get_width() for patch in axis.patches if isinstance(patch, Rectangle)
        ]
        for axis in figure.axes
    }


def words_of(figure):
    return [text.get_text() for axis in figure.axes for text in axis.texts]


def test_bars_and_their_lines_are_those_of_the_evidence(write):
    for model, right in (("clip-vit-b32", 60), ("siglip2-b16-224", 90)):
        folder = write(f"{CLEAN}/{model}", outcomes(share(right)))
        write(f"{TYPO}/{model}", outcomes(share(right - 30)))
    figure = performance_figure(read_measured([folder]), "classification", width_in=3.5)

    assert bars_of(figure) == {"imagenet\nn = 100": [60, 90], "rta-100\nn = 100": [30, 60]}
    wanted = measure("top1", Evidence(outcomes(share(60))))
    line = figure.axes[0].lines[0].get_xdata()
    assert list(line) == pytest.approx([100 * wanted.low, 100 * wanted.high])
    assert [tick.get_text() for tick in figure.axes[0].get_yticklabels()] == [
        "clip-vit-b32",
        "siglip2-b16-224",
    ]
    assert "95 % intervals" in figure.get_supxlabel()


def test_both_metrics_of_a_segmentation_are_drawn(write):
    folder = write("segmentation/clean/phrasecut/clip-vit-b32", outcomes(share(50)))
    figure = performance_figure(read_measured([folder]), "segmentation", width_in=3.5)

    # 50 masks of 30 hits, 5 alarms and 5 misses; 50 of 10, 20 and 20: see make_outcomes.
    hits, alarms, misses = 50 * (30 + 10), 50 * (5 + 20), 50 * (5 + 20)
    iou, precision = hits / (hits + alarms + misses), hits / (hits + alarms)
    assert bars_of(figure)["phrasecut\nn = 100"] == pytest.approx([100 * iou, 100 * precision])


def test_a_case_that_was_not_measured_is_a_gap_and_no_zero(write):
    folder = write(f"{CLEAN}/clip-vit-b32", outcomes(share(60)))
    write(f"{CLEAN}/fare2-l14", outcomes(share(50)))
    write(f"{TYPO}/fare2-l14", outcomes(share(20)))
    write(f"{TYPO}/clip-rn50", outcomes(share(20)), problems=("a worker died",))
    measured = read_measured([folder])
    figure = performance_figure(measured, "classification", width_in=3.5)

    assert bars_of(figure)["rta-100\nn = 100"] == [20]
    assert words_of(figure).count("not measured") == 3
    # A case with problems is not drawn either, and its reason is known.
    cell = Cell("classification", "typographic", "rta-100")
    assert measured.score(cell, "clip-rn50", metric="top1").why == "a worker died"
    with pytest.raises(ReportError, match="no case of task 'vqa'"):
        performance_figure(measured, "vqa", width_in=3.5)


def test_the_radar_has_the_mean_of_a_family_and_a_gap_where_one_model_lacks(write):
    for model, typo, natural in (("clip-vit-b32", 40, 20), ("clip-vit-b16", 60, None)):
        folder = write(f"{TYPO}/{model}", outcomes(share(typo)))
        if natural is not None:
            write(f"classification/natural/imagenet-a/{model}", outcomes(share(natural)))
    write("vqa/langadv/langadv-questions/blip2-opt-2.7b", outcomes(share(70)))
    measured = read_measured([folder])
    radar = radar_of(measured)

    assert radar.axes == ("rta-100\nclassify", "imagenet-a\nclassify", "langadv-questions\nanswer")
    # Answers that three of ten people gave count 0.9.
    assert radar.lines == {
        "clip (2)": (0.5, None, None),
        "blip2-opt-2.7b": (None, None, pytest.approx(0.7 * 0.9)),
    }
    assert "not measured: clip on classify imagenet-a" in radar.note
    figure = radar_figure(measured, width_in=3.5)
    (line, *_) = figure.axes[0].lines
    assert line.get_ydata()[0] == 50
    assert np.isnan(line.get_ydata()[1])


def test_the_same_evidence_gives_the_same_bytes(write):
    folder = write(f"{CLEAN}/clip-vit-b32", outcomes(share(60)))
    write(f"{TYPO}/clip-vit-b32", outcomes(share(20)))

    def drawn():
        measured = read_measured([folder])
        figures = (
            performance_figure(measured, "classification", width_in=3.5),
            radar_figure(measured, width_in=3.5),
        )
        return [(png(figure), svg(figure)) for figure in figures]

    first = drawn()
    assert drawn() == first
    text = first[0][1].decode()
    assert not re.search(r"dc:date|matplotlib", text.lower().split("<metadata>")[-1][:400])


def test_models_fed_as_in_the_paper_are_shown_only_where_the_others_are_not(write):
    folder = write(f"{CLEAN}/clip-vit-b32", outcomes(share(60)))
    write(f"{CLEAN}/clip-vit-b32@paper", outcomes(share(50)))
    write(f"{CLEAN}/fare2-l14@paper", outcomes(share(50)))

    measured = read_measured([folder])
    assert measured.shown == ("clip-vit-b32", "fare2-l14@paper")
    families = [measured.family(model) for model in measured.models]
    assert families == ["clip", "clip@paper", "robust-clip@paper"]


def test_cases_of_other_scenarios_are_no_adversarial_pictures(write):
    folder = write(f"{CLEAN}/clip-vit-b32", outcomes(share(60)))
    write(f"{TYPO}/clip-vit-b32", outcomes(share(60)))
    measured = read_measured([folder])
    other = {Case("classification", "reading", "notes", "clip-vit-b32"): object()}
    more = replace(measured, cases={**measured.cases, **other})

    assert [cell.dataset for cell in more.cells("classification")] == ["imagenet", "rta-100"]
    assert [cell.dataset for cell in more.attacks("classification")] == ["rta-100"]


def test_evidence_that_does_not_fit_together_is_refused(write, tmp_path):
    folder = write(f"{CLEAN}/clip-vit-b32", outcomes(share(60)))
    other = write(f"{CLEAN}/clip-vit-b16", outcomes(share(60)), root="b", data_revision="s" * 64)
    with pytest.raises(ConfigError, match="measured on revision ssssssssssss of imagenet"):
        read_measured([folder, other])
    with pytest.raises(ConfigError, match="in another folder of evidence too"):
        read_measured([folder, folder])
    with pytest.raises(UnknownNameError, match="clip-vit-b32"):
        read_measured([folder], models=["clip-vit-b33"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="no readable evidence"):
        read_measured([tmp_path / "empty"])

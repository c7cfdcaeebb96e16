"""The paper's findings, by models whose every sample is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from natadv.explain.latents import LatentPoints
from natadv.figures.analyses import LatentPanel
from natadv.figures.findings import agrees, artefacts, comparisons, gap_of
from natadv.figures.gaps import Gap
from natadv.figures.measured import Cell, Measured, Score, read_measured
from natadv.figures.tables import (
    artefact_table,
    claims,
    head_claims,
    latent_claims,
    overall,
    published_table,
    text_box_claims,
)
from natadv.metrics.heads import HeadChanges
from natadv.types import Case, Measurement
from tests.figures.conftest import outcomes, share
from tests.figures.test_analyses import heads

TYPO = "classification/typographic/rta-100"


def rows_of(text: str) -> list[list[str]]:
    """The cells of the lines of all tables."""
    return [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]


def test_robust_models_are_compared_with_the_plain_one_of_their_architecture(write):
    for model, right in (("clip-vit-l14", 80), ("clip-vit-b32", 50), ("fare2-l14", 30)):
        folder = write(f"{TYPO}/{model}", outcomes(share(right, 200)))
    measured = read_measured([folder])

    (found,) = [one for one in comparisons(measured) if one.finding == "1"]
    assert (found.left.model, found.right.model) == ("clip-vit-l14", "fare2-l14")
    assert gap_of(measured, found).value == pytest.approx(0.25)
    assert "- clip-vit-l14 minus fare2-l14, classification: **yes** (1 yes" in claims(measured)


def test_siglip_is_compared_with_the_clip_of_its_size_in_whatever_way_both_are_asked(write):
    for model in ("clip-vit-b32", "clip-vit-b16", "clip-vit-l14", "siglip2-b16-512",
                  "siglip2-l16-256", "siglip2-so400m-14-224"):  # fmt: skip
        folder = write(f"{TYPO}/{model}@paper", outcomes(share(50)))
    measured = read_measured([folder])

    pairs = [(c.left.model, c.right.model) for c in comparisons(measured) if c.finding == "3"]
    assert pairs == [
        ("siglip2-b16-512@paper", "clip-vit-b16@paper"),
        ("siglip2-l16-256@paper", "clip-vit-l14@paper"),
        ("siglip2-so400m-14-224@paper", "clip-vit-l14@paper"),
    ]
    assert "--model clip-vit-b32,clip-vit-b16" in artefact_table(measured, fed={})


def test_a_checkpoint_of_the_user_can_be_named_as_robust(write):
    folder = write(f"{TYPO}/mini-clip", outcomes(share(80)))
    write(f"{TYPO}/mine", outcomes(share(90)), lineage="mini-clip")
    measured = read_measured([folder], robust={"mine": "mini-clip"})

    (found,) = [one for one in comparisons(measured) if one.finding == "1"]
    assert (found.left.model, found.right.model) == ("mini-clip", "mine")
    assert agrees(gap_of(measured, found)) == "no"


def test_a_drop_is_measured_on_the_twins_of_the_attacked_pictures_alone(write):
    """50 of 100 clean pictures have twins, all of them right; half of the twins are."""
    clean = outcomes(share(50), names="c")
    folder = write("classification/clean/mini/mini-clip", clean)
    attacked = outcomes(share(25, 50), names="t", twins="c")
    write("classification/typographic/mini-typo/mini-clip", attacked, twin_of="mini")
    measured = read_measured([folder])

    (found,) = [one for one in comparisons(measured) if one.finding == "2"]
    assert gap_of(measured, found).value == pytest.approx(0.5)
    assert gap_of(measured, found).n == 50


def test_language_comes_last_only_if_no_other_dataset_is_lower(write):
    for scenario, right in (("typographic", 60), ("natural", 10), ("langadv", 40)):
        folder = write(f"classification/{scenario}/{scenario}/clip-vit-b32", outcomes(share(right)))
    text = claims(read_measured([folder]))

    (line,) = [line for line in text.splitlines() if line.startswith("- clip-vit-b32")]
    assert "**no** (1 yes, 1 no; typographic minus langadv +20.0" in line
    assert "natural minus langadv -30.0" in line


def test_what_was_not_measured_is_said_and_never_judged(write):
    folder = write("vqa/natural/imagenet-a-questions/blip2-opt-2.7b", outcomes(share(60)))
    text = claims(read_measured([folder]))

    assert text.count("Not measured:") == 7
    assert "**" not in text


@pytest.mark.parametrize(
    ("interval", "said"), [((0.1, 0.3), "yes"), ((-0.3, -0.1), "no"), ((-0.1, 0.1), "open")]
)
def test_a_finding_is_supported_if_the_whole_interval_is_above_nothing(interval, said):
    assert agrees(Gap(sum(interval) / 2, *interval, n=10)) == said


def test_verdicts_of_several_datasets_are_put_together():
    assert overall(["yes", "yes"]) == "yes"
    assert overall(["yes", "no", "open"]) == "in part"
    assert overall(["no", "open"]) == "no"
    assert overall(["open"]) == "open"
    assert overall(["yes", "open"]) == "yes where it is clear"


ARTEFACTS = {
    # (plain, robust) as in the paper, the same as trained: share, and what the table says.
    ((160, 80), (160, 140)): (75, "the feeding explains a part"),
    ((160, 80), (160, 160)): (100, "no clear gap is left when fed as trained"),
    ((160, 80), (120, 160)): (150, "the ranking turns round when fed as trained"),
    ((160, 120), (160, 80)): (-100, "the feeding hides a part"),
    ((160, 80), (160, 80)): (0, "no clear effect"),
    ((160, 160), (160, 80)): (None, "no clear gap as the paper fed it: nothing to explain"),
    ((80, 160), (80, 120)): (50, "against the paper's claim; the feeding explains a part"),
}


@pytest.mark.parametrize(("right", "wanted"), ARTEFACTS.items())
def test_the_table_says_how_much_of_a_gap_the_feeding_explains(write, right, wanted):
    for suffix, (plain, robust) in zip(("@paper", ""), right, strict=True):
        folder = write(f"{TYPO}/clip-vit-l14{suffix}", outcomes(share(plain, 200)))
        write(f"{TYPO}/fare2-l14{suffix}", outcomes(share(robust, 200)))
    measured = read_measured([folder])

    (found,) = artefacts(measured, fed={})
    share_found = None if found.found.share is None else round(100 * found.found.share)
    assert (share_found, found.verdict) == wanted
    # Published: CLIP L/14 42.0, FARE2 L/14 31.6 (Appendix Table 1).
    assert found.published == pytest.approx(0.104)
    (cells,) = [row for row in rows_of(artefact_table(measured, fed={})) if row[0] == "1"]
    assert cells[4] == "+10.4"
    assert cells[7].startswith("-" if wanted[0] is None else f"{wanted[0]} % [")


def test_another_model_may_stand_for_the_feeding_of_the_paper(write):
    """Planted: the robust model equals the plain one, and loses half of it to its feeding."""
    for model, right in (("mini-clip", 80), ("robust", 80), ("badly-fed", 40)):
        folder = write(f"{TYPO}/{model}", outcomes(share(right)))
    measured = read_measured([folder], robust={"robust": "mini-clip"})

    (found,) = artefacts(measured, fed={"mini-clip": "mini-clip", "robust": "badly-fed"})
    assert (found.found.paper.value, found.found.trained.value) == pytest.approx((0.4, 0.0))
    assert found.found.share == 1
    # The same feeding twice is no comparison of two.
    assert artefacts(measured, fed={"mini-clip": "mini-clip", "robust": "robust"}) == []
    assert artefacts(measured, fed={}) == []
    text = artefact_table(measured, fed={})
    assert "Nothing to compare." in text
    assert "measured under one feeding only: mini-clip, badly-fed, robust" in text


def test_published_numbers_stand_beside_measured_ones_of_their_feeding(write, tmp_path: Path):
    folder = write(f"{TYPO}/fare2-l14@paper", outcomes(share(35)))
    write(f"{TYPO}/fare2-l14", outcomes(share(60)))
    write(f"{TYPO}/mini-clip", outcomes(share(50)))
    text = published_table(read_measured([folder]), root=tmp_path)

    found = {row[0]: row for row in rows_of(text)}
    assert found["fare2-l14@paper"][4:6] == ["31.60 %", "35.00 %"]
    assert found["fare2-l14@paper"][8:10] == ["+3.40", "Appendix Table 1 (primary)"]
    assert found["fare2-l14"][4] == found["mini-clip"][4] == "not published"
    assert found["mini-clip"][8] == "-"


def test_claims_about_text_follow_from_the_measured_ratio(monkeypatch):
    """The tables of the case are not read: only the metric is."""
    bounds = {"a": (1.2, 1.1, 1.3), "b": (0.8, 0.7, 0.9), "c": (1.0, 0.9, 1.1), "d": None}

    def score(self: Measured, cell: Cell, model: str, *, metric: str) -> Score:
        assert (cell.dataset, metric) == ("typo", "text_box_relevance")
        of = bounds[model]
        return Score(of and Measurement(metric, *of, n=9, groups=9, excluded=0), "no text box")

    monkeypatch.setattr(Measured, "score", score)
    cases = [Case("relevance", "typographic", "typo", model) for model in bounds]
    clean = [Case("relevance", "clean", "mini", model) for model in bounds]
    text = text_box_claims(Measured(dict.fromkeys([*cases, *clean]), ()))

    lines = [line for line in text.splitlines() if line.startswith("- ")]
    assert [line.split(" (")[0] for line in lines] == [
        "- a on typo: **yes**",
        "- b on typo: **no**",
        "- c on typo: **open**",
    ]
    assert "(1.20 [1.10, 1.30] times the share of the picture" in lines[0]


def test_claims_about_heads_follow_from_their_changes():
    change = np.zeros((2, 2))
    large = change.copy()
    large[1, 0] = 0.2
    scenarios = {"typo": "typographic", "natural": "natural"}

    def said(typo: np.ndarray, natural: np.ndarray, kind: str) -> str:
        tables: dict[str, HeadChanges] = {"typo": heads(typo), "natural": heads(natural)}
        text = head_claims({"m": tables}, scenarios, kind_of=lambda _: kind)
        return text.splitlines()[-1]

    cited = "(typo 1 [1, 1]: layer 2, head 1 +20.0 [17.0, 23.0]; natural 0 [0, 0])"
    assert said(large, change, "clip") == f"- m: **yes** {cited}"
    assert said(change, change, "clip").startswith("- m: **no**")
    assert said(large, large, "clip").startswith("- m: **no**")
    assert said(large, change, "siglip").startswith("- m: **no**")
    assert said(change, change, "siglip").startswith("- m: **yes**")
    # Beyond 15 points, or within them, by less than the interval.
    for near in (0.8 * large, 0.7 * large):
        assert said(near, change, "clip").startswith("- m: **open**")
        assert said(near, change, "siglip").startswith("- m: **open**")
        assert said(large, near, "clip").startswith("- m: **open**")


def test_claims_about_latents_follow_from_their_points():
    n = 200
    common, rare, rarest = np.full(n, 0.5), np.full(n, 0.02), np.full(n, 0.015)
    pure, mixed = np.zeros(n), np.full(n, 2.0)
    clean = LatentPanel("mini", 500, LatentPoints(common, np.ones(n), pure))
    scenarios = {"mini": "clean", "typo": "typographic"}

    def said(frequency: np.ndarray, entropy: np.ndarray) -> str:
        panel = LatentPanel("typo", 500, LatentPoints(frequency, np.ones(n), entropy))
        return latent_claims({"m": [clean, panel]}, scenarios).splitlines()[-1]

    nothing, everything = "0.0 % (by chance 0.0 %)", "100.0 % (by chance 0.0 %)"
    assert said(rare, pure).startswith(f"- m: **yes** (mini {nothing}, typo {everything}")
    assert said(rare, mixed).startswith(f"- m: **open** (mini {nothing}, typo {nothing}")
    # Of seven pictures the labels are few by chance.
    assert said(rarest, pure).startswith(f"- m: **open** (mini {nothing}, typo {nothing}")
    # A dead latent is not rare.
    dead = np.full(n, np.nan)
    assert said(np.zeros(n), dead).startswith("- m: **open**")


def test_latents_that_chance_makes_pure_say_nothing():
    """On a dataset of few classes shuffled labels are as pure."""
    n = 200
    points = LatentPoints(np.full(n, 0.02), np.ones(n), np.zeros(n))
    mixed = LatentPoints(np.full(n, 0.02), np.ones(n), np.full(n, 2.0))
    clean = LatentPanel("mini", 500, mixed, by_chance=(mixed, mixed))
    scenarios = {"mini": "clean", "typo": "typographic"}

    def said(*by_chance: LatentPoints) -> str:
        panels = [clean, LatentPanel("typo", 500, points, by_chance)]
        return latent_claims({"m": panels}, scenarios).splitlines()[-1]

    assert said(points, points).startswith("- m: **open** (mini 0.0 % (by chance 0.0 %), typo 100.")
    assert "typo +0.0 [" in said(points, points)
    assert said(mixed, points).startswith("- m: **yes**")
    assert "(by chance 50.0 %)" in said(mixed, points)
    assert "typo +50.0 [" in said(mixed, points)

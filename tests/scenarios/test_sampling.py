"""Draws that a rate can be estimated from: within the bounds, independent, uniform, repeatable."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from PIL import Image

from natadv.errors import ConfigError
from natadv.scenarios.typographic.overlay import contrast
from natadv.scenarios.typographic.population import DrawnOverlay, SearchSpace
from natadv.scenarios.typographic.rendering import box, render
from natadv.scenarios.typographic.sampling import backend, draw_iid, overlays

ROOT = Path(__file__).resolve().parents[2]
# Constants such as Hypothesis collects from local modules, to draw them more often.
LOCAL = "SIZES = [17, 23, 999, 31337]\nNAMES = ['squirrel', 'grey']\nRATE = 0.123456\n"
DRAWN = """
import hashlib, sys
{importing}
from hypothesis import HealthCheck, given, settings, strategies as st
from natadv.scenarios.typographic.sampling import draw_iid

asked = st.tuples(st.integers(0, 40000), st.floats(0, 1), st.sampled_from("abcde"), st.text("xyz"))
found = draw_iid(asked, count=300, seed=5)
print("iid", hashlib.sha256(repr(found).encode()).hexdigest())

own = []
@settings(max_examples=300, derandomize=True, database=None, deadline=None)
@given(asked)
def keep(value):
    own.append(value)
keep()
print("own", hashlib.sha256(repr(own).encode()).hexdigest())
"""


def far_from_even(values: list[object], options: int) -> float:
    """Chi squared by its standard deviations from what even shares would give."""
    counts = np.array([*Counter(values).values()] + [0] * (options - len(set(values))))
    even = len(values) / options
    chi2 = float(((counts - even) ** 2 / even).sum())
    return (chi2 - (options - 1)) / float(np.sqrt(2 * (options - 1)))


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize(
    ("strategy", "options"),
    [
        (st.integers(0, 1000).map(lambda value: value // 91), 11),
        (st.integers(-3, 3), 7),
        (st.sampled_from("abcde"), 5),
        (st.booleans(), 2),
        (st.floats(2, 4).map(lambda value: int((value - 2) * 5)), 10),
    ],
)
def test_every_part_of_a_range_is_as_likely_as_any_other(strategy, options, seed):
    found = draw_iid(strategy, count=2200, seed=seed)

    assert len(found) == 2200
    assert len(set(found)) == options
    assert far_from_even(found, options) < 4


def test_neither_bounds_nor_the_simplest_are_favoured():
    found = draw_iid(st.integers(0, 999), count=3000, seed=1)

    assert sum(value in (0, 1, 998, 999) for value in found) < 30
    assert found[0] != 0


def test_one_draw_tells_nothing_of_the_next_or_of_another_in_the_same_example():
    pairs = np.array(draw_iid(st.tuples(st.floats(0, 1), st.floats(0, 1)), count=2000, seed=4))

    within = np.corrcoef(pairs[:, 0], pairs[:, 1])[0, 1]
    following = np.corrcoef(pairs[:-1, 0], pairs[1:, 0])[0, 1]
    assert abs(within) < 4 / np.sqrt(2000)
    assert abs(following) < 4 / np.sqrt(2000)


def test_a_value_may_come_again():
    assert Counter(draw_iid(st.sampled_from("abc"), count=50, seed=1)).total() == 50


def test_a_longer_run_begins_as_a_shorter_one():
    asked = st.lists(st.integers(0, 9), max_size=4)

    assert draw_iid(asked, count=60, seed=3)[:20] == draw_iid(asked, count=20, seed=3)


def test_what_is_rejected_is_drawn_again_and_not_counted():
    found = draw_iid(st.integers(0, 9).filter(lambda value: value > 4), count=400, seed=1)

    assert len(found) == 400
    assert far_from_even(found, 5) < 4


def test_seeds_differ():
    asked = st.integers(0, 10**6)

    assert draw_iid(asked, count=5, seed=1) != draw_iid(asked, count=5, seed=2)


def test_texts_and_bytes_are_as_long_as_was_asked():
    for text, raw in draw_iid(
        st.tuples(st.text("ab", min_size=2, max_size=3), st.binary(max_size=2)), count=50, seed=1
    ):
        assert 2 <= len(text) <= 3
        assert set(text) <= {"a", "b"}
        assert len(raw) <= 2


def test_no_draws_are_no_draws():
    assert draw_iid(st.booleans(), count=0, seed=1) == []


@pytest.mark.parametrize("endless", [st.integers(), st.integers(0), st.floats(allow_nan=False)])
def test_what_has_no_bounds_is_refused(endless):
    with pytest.raises(ConfigError, match="give the strategy both bounds"):
        draw_iid(endless, count=3, seed=1)


def test_what_fails_is_shrunk_as_ever():
    seen = []

    @settings(
        backend=backend(7),
        phases=[Phase.generate, Phase.shrink],
        max_examples=200,
        database=None,
        deadline=None,
    )
    @given(st.integers(0, 1000))
    def small(value):
        seen.append(value)
        assert value < 637

    with pytest.raises(AssertionError):
        small()
    assert seen[-1] == 637


def told(tmp_path: Path, importing: str) -> dict[str, str]:
    done = subprocess.run(
        [sys.executable, "-c", DRAWN.format(importing=importing)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return dict(line.split() for line in done.stdout.splitlines())


def test_an_unrelated_module_with_constants_changes_nothing(tmp_path):
    (tmp_path / "unrelated.py").write_text(LOCAL)

    without, with_it = told(tmp_path, ""), told(tmp_path, "import unrelated")

    assert without["iid"] == with_it["iid"]
    # That it would: what Hypothesis draws by itself is another sequence.
    assert without["own"] != with_it["own"]
    # The same on any machine: drawn in this process, and once for all.
    asked = st.tuples(
        st.integers(0, 40000), st.floats(0, 1), st.sampled_from("abcde"), st.text("xyz")
    )
    here = hashlib.sha256(repr(draw_iid(asked, count=300, seed=5)).encode()).hexdigest()
    assert here == without["iid"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("del providers.AVAILABLE_PROVIDERS", "has moved its table of backends"),
        (
            "providers.PrimitiveProvider.__abstractmethods__ |= {'draw_complex'}",
            "expects other draws of a backend",
        ),
    ],
)
def test_another_hypothesis_is_told_in_one_line(change, message):
    code = f"""
import hypothesis.internal.conjecture.providers as providers
import hypothesis.internal.conjecture.engine
{change}
from natadv.errors import ConfigError
try:
    import natadv.scenarios.typographic.sampling
except ConfigError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )

    assert message in done.stdout
    assert "install one of these" in done.stdout
    assert len(done.stdout.splitlines()) == 1


def test_a_backend_that_is_passed_over_is_noticed(monkeypatch):
    from hypothesis.internal.conjecture import providers

    name = backend(99)
    monkeypatch.setitem(providers.AVAILABLE_PROVIDERS, name, providers.HypothesisProvider)

    with pytest.raises(ConfigError, match="made 0 draws of 5"):
        draw_iid(st.integers(0, 10**6), count=5, seed=99)


N = 1200


@pytest.fixture(scope="module")
def drawn(wide) -> list[DrawnOverlay]:
    return draw_iid(overlays(SearchSpace.model_validate(wide)), count=N, seed=1)


def shares(values: list[float], low: float, high: float) -> np.ndarray:
    """Of five equal parts of the range."""
    return np.histogram(values, bins=5, range=(low, high))[0] / len(values)


@pytest.mark.parametrize("name", ["size", "x", "y", "opacity", "stroke_width", "padding"])
def test_numbers_are_even_over_their_bounds(drawn, wide, name):
    found = [getattr(one.overlay, name) for one in drawn]

    assert min(found) >= wide[name][0]
    assert max(found) <= wide[name][1]
    assert shares(found, *wide[name]) == pytest.approx([0.2] * 5, abs=0.05)


def test_angles_go_both_ways(drawn):
    found = [one.overlay.angle for one in drawn]

    assert shares(found, -30, 30) == pytest.approx([0.2] * 5, abs=0.05)


def test_picks_are_even(drawn):
    assert shares([one.pick for one in drawn], 0, 1) == pytest.approx([0.2] * 5, abs=0.05)


def test_fonts_and_kinds_of_text_come_in_equal_shares(drawn, wide):
    kinds = Counter(one.kind for one in drawn)
    fonts = Counter(one.overlay.font for one in drawn)

    assert {kind: count / N for kind, count in kinds.items()} == pytest.approx(
        dict.fromkeys(wide["kinds"], 1 / 5), abs=0.05
    )
    assert {font: count / N for font, count in fonts.items()} == pytest.approx(
        dict.fromkeys(wide["fonts"], 1 / 7), abs=0.05
    )


def test_panels_strokes_and_what_is_kept_off_have_their_shares(drawn):
    panels = [one.overlay.panel is not None for one in drawn]
    strokes = [one.overlay.stroke is not None for one in drawn if one.overlay.panel is None]

    assert np.mean(panels) == pytest.approx(0.4, abs=0.05)
    assert np.mean(strokes) == pytest.approx(0.5, abs=0.05)
    assert np.mean([one.off_object for one in drawn]) == pytest.approx(0.25, abs=0.05)
    assert not any(one.overlay.panel and one.overlay.stroke for one in drawn)


def test_contrast_is_even_over_what_the_letters_can_have(drawn, wide):
    low, high = wide["contrast"]
    set_off = [one.overlay for one in drawn if one.overlay.panel or one.overlay.stroke]
    bare = [one.overlay for one in drawn if not (one.overlay.panel or one.overlay.stroke)]

    # Bytes round: half a step for each of the two colours.
    found = [contrast(overlay) for overlay in set_off]
    assert low - 0.005 <= min(found) <= max(found) <= high + 0.005
    assert shares(found, low, high) == pytest.approx([0.2] * 5, abs=0.06)
    found = [contrast(overlay) for overlay in bare]
    assert low - 0.005 <= min(found) <= max(found) <= 0.505
    assert shares(found, low, 0.5) == pytest.approx([0.2] * 5, abs=0.08)


def test_letters_are_lighter_as_often_as_darker_and_have_all_hues(drawn):
    fills = np.array([one.overlay.fill for one in drawn])

    assert fills.mean(axis=0) == pytest.approx([127.5] * 3, abs=12)
    assert {int(np.argmax(fill)) for fill in fills} == {0, 1, 2}
    assert (np.ptp(fills, axis=1) > 60).mean() > 0.2


@settings(max_examples=40)
@given(data=st.data())
def test_whatever_is_drawn_can_be_rendered(data, wide):
    one = data.draw(overlays(SearchSpace.model_validate(wide)))
    image = Image.new("RGB", (96, 96), (90, 120, 60))

    left, top, right, bottom = box(one.with_text("elephant"), image.size)

    assert 0 <= left < right <= 96
    assert 0 <= top < bottom <= 96
    assert render(one.with_text("elephant"), image).size == image.size


def test_the_simplest_is_the_weakest(wide):
    """So that what fails shrinks towards the smallest attack that still works."""
    seen = []

    @settings(max_examples=200, database=None)
    @given(overlays(SearchSpace.model_validate(wide)))
    def never(one):
        seen.append(one)
        raise AssertionError

    with pytest.raises(AssertionError):
        never()
    overlay = seen[-1].overlay
    assert (overlay.size, overlay.opacity, overlay.angle) == (0.05, 0.2, 0)
    assert (overlay.panel, overlay.stroke) == (None, None)
    assert contrast(overlay) == pytest.approx(0.1, abs=0.005)
    assert seen[-1].kind == "decoy"

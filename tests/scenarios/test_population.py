"""A search space, and a population in its file: every mistake is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import ValidationError

from natadv.errors import ConfigError, DataError
from natadv.scenarios.typographic.overlay import Overlay
from natadv.scenarios.typographic.population import (
    DrawnOverlay,
    Population,
    SearchSpace,
    named_population,
    population_path,
    read_population,
    write_population,
)
from natadv.scenarios.typographic.sampling import draw_iid, overlays

WRONG_BOUNDS = (
    ({"size": [0.4, 0.1]}, "expected [least, most]"),
    ({"size": [0.0, 0.1]}, "greater than or equal to 0.001"),
    ({"size": [0.1]}, "at least 2 items"),
    ({"size": 0.1}, "valid list"),
    ({"x": [0.0, 1.5]}, "less than or equal to 1"),
    ({"opacity": [0.1, True]}, "valid number"),
    ({"angle": 270.0}, "less than or equal to 180"),
    ({"panel": 1.2}, "less than or equal to 1"),
    ({"stroke_width": [0.1, 0.9]}, "less than or equal to 0.5"),
    ({"fonts": []}, "at least 1 item"),
    ({"fonts": ["comic-sans"]}, "unknown font 'comic-sans'"),
    ({"kinds": ["decoy", "decoy"]}, "expected each once"),
    ({"kinds": ["lies"]}, "unknown kind of text 'lies'; known: decoy, misspelt"),
    ({"contrast": [0.6, 1.0]}, "letters without panel and stroke cannot reach a contrast of 0.6"),
    ({"colour": [0, 1]}, "Extra inputs"),
    ({"size": [0.1, float("nan")]}, "finite"),
)


def test_bounds_that_mean_nothing_are_refused(wide):
    for change, message in WRONG_BOUNDS:
        with pytest.raises(ValidationError) as caught:
            SearchSpace.model_validate({**wide, **change})
        assert message in str(caught.value), change


def test_every_bound_is_given(wide):
    for name in wide:
        with pytest.raises(ValidationError, match=name):
            SearchSpace.model_validate({key: value for key, value in wide.items() if key != name})


def test_high_contrast_can_be_had_with_panels_or_strokes_alone(wide):
    for share in ({"panel": 1.0}, {"panel": 0.5, "stroke": 1.0}):
        assert SearchSpace.model_validate({**wide, **share, "contrast": [0.9, 1.0]})


@pytest.fixture(scope="module")
def population(wide) -> Population:
    bounds = SearchSpace.model_validate(wide)
    drawn = draw_iid(overlays(bounds), count=12, seed=1)
    return named_population("small", seed=1, bounds=bounds, drawn=drawn)


@pytest.fixture
def path(tmp_path: Path, population: Population) -> Path:
    path = population_path("small", tmp_path)
    write_population(path, population)
    return path


def test_what_is_written_is_read(path, population):
    assert read_population(path) == population


def test_equal_populations_have_equal_bytes(path, population, tmp_path):
    write_population(tmp_path / "again.json", population)

    assert (tmp_path / "again.json").read_bytes() == path.read_bytes()
    assert [p.name for p in path.parent.iterdir()] == ["small.json"]


def test_the_file_is_as_documented(path, wide):
    found = json.loads(path.read_text())

    assert list(found) == ["version", "name", "seed", "count", "bounds", "overlays"]
    assert (found["version"], found["name"], found["seed"], found["count"]) == (1, "small", 1, 12)
    assert found["bounds"] == wide
    first = found["overlays"][0]
    assert list(first) == ["id", "text", "off_object", "overlay"]
    assert set(first["text"]) == {"kind", "pick"}
    assert set(first["overlay"]) == set(Overlay.__dataclass_fields__) - {"text"}
    assert [one["id"] for one in found["overlays"]] == [f"o{i:03d}" for i in range(12)]


def edit(path: Path, change) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


EDITS = (
    (lambda c: c.update(version=2), "version: Input should be 1"),
    (lambda c: c.pop("seed"), "seed: Field required"),
    (lambda c: c.update(note="x"), "note: Extra inputs"),
    (lambda c: c.update(name="../x"), "is named with small letters"),
    (lambda c: c.update(count=11), "count is 11, but it has 12 overlays"),
    (lambda c: c["overlays"].pop(), "count is 12, but it has 11 overlays"),
    (lambda c: c.update(overlays=[]), "count is 12, but it has 0 overlays"),
    (lambda c: c["overlays"].reverse(), "overlays[0]: id must be 'o000', got 'o011'"),
    (lambda c: c["overlays"][1].update(id="o000"), "overlays[1]: id must be 'o001'"),
    (lambda c: c["overlays"][2]["text"].update(kind="lie"), "overlays[2].text.kind"),
    (lambda c: c["overlays"][2]["text"].update(pick=1.0), "overlays[2].text.pick"),
    (lambda c: c["overlays"][2]["text"].update(pick="0"), "overlays[2].text.pick"),
    (lambda c: c["overlays"][2].update(off_object=1), "overlays[2].off_object"),
    (lambda c: c["overlays"][3]["overlay"].pop("size"), "lacks ['size']"),
    (lambda c: c["overlays"][3]["overlay"].update(text="cat"), "unknown keys ['text']"),
    (
        lambda c: c["overlays"][3]["overlay"].update(size="1"),
        "overlays[3]: overlay size",
    ),
    (lambda c: c["overlays"][3]["overlay"].update(fill=[1, 2]), "overlay fill"),
    (lambda c: c["overlays"][3]["overlay"].update(size=0.9), "size 0.9 is not within"),
    (lambda c: c["overlays"][3]["overlay"].update(opacity=0.1), "opacity 0.1 is not within"),
    (lambda c: c["overlays"][3]["overlay"].update(angle=90.0), "angle 90.0 is beyond"),
    (lambda c: c["bounds"].update(kinds=["decoy"]), "is not in the bounds: decoy"),
    (lambda c: c["bounds"].update(fonts=["gelasio"]), "is not in the bounds: gelasio"),
    (lambda c: c["bounds"].update(size=[0.5, 0.1]), "bounds.size"),
)


def test_a_file_that_was_edited_is_refused_by_its_place(path):
    original = path.read_bytes()
    for change, message in EDITS:
        path.write_bytes(original)
        edit(path, change)

        with pytest.raises(DataError) as caught:
            read_population(path)
        error = str(caught.value)
        assert error.startswith(f"{path}: "), message
        assert message in error
        assert "natadv overlays draw" in error
        assert "\n" not in error


def test_a_file_that_is_not_a_population_is_refused(path):
    for content in [b"", b"{", b"[]", b"\xff\xfe", b'{"version": NaN}']:
        path.write_bytes(content)

        with pytest.raises(DataError, match="draw it again"):
            read_population(path)


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(DataError, match="cannot be read: No such file"):
        read_population(tmp_path / "none.json")


def test_a_folder_that_is_a_file_is_told(tmp_path, population):
    (tmp_path / "file").write_text("")

    with pytest.raises(DataError, match="cannot be written"):
        write_population(tmp_path / "file" / "x.json", population)


def test_names_that_lead_elsewhere_are_refused():
    for name in ["", "a/b", "../a", "A", ".a"]:
        with pytest.raises(ConfigError, match="is named with small letters"):
            population_path(name)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "lie"}, "unknown kind of text 'lie'"),
        ({"pick": 1.0}, "pick must be from 0"),
        ({"pick": float("nan")}, "pick must be from 0"),
        ({"overlay": Overlay(text="cat")}, "has no text yet, got 'cat'"),
    ],
)
def test_a_drawn_overlay_says_nothing_strange(population, change, message):
    with pytest.raises(ConfigError, match=message):
        replace(population.overlays[0], **change)


def test_a_drawn_overlay_says_the_word_of_the_picture(population):
    for drawn in population.overlays:
        text, decoy = drawn.text_for(truth="dog", names=("cat", "dog", "cow"), sample_id="x")
        overlay = drawn.with_text(text)

        assert overlay.text == text
        assert replace(overlay, text=drawn.overlay.text) == drawn.overlay
        assert decoy in (None, "cat", "cow")


def test_the_id_of_an_overlay_decides_no_word(population):
    one = population.overlays[0]
    other: DrawnOverlay = replace(one, id="o999")
    texts = {x.text_for(truth="dog", names=("cat", "dog"), sample_id="x") for x in (one, other)}

    assert len(texts) == 1

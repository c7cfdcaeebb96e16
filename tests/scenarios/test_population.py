"""A population in its file: nothing is lost, and nothing slips in."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from natadv.errors import ConfigError, DataError
from natadv.scenarios.typographic.bounds import Bounds
from natadv.scenarios.typographic.iid import draw_iid
from natadv.scenarios.typographic.population import (
    DrawnOverlay,
    Population,
    overlay_id,
    population_path,
    read_population,
    worded,
    write_population,
)
from natadv.scenarios.typographic.spec import Overlay
from natadv.scenarios.typographic.strategies import overlays


@pytest.fixture(scope="module")
def population(wide) -> Population:
    bounds = Bounds.model_validate(wide)
    drawn = draw_iid(overlays(bounds), count=12, seed=1)
    named = (replace(one, id=overlay_id(i)) for i, one in enumerate(drawn))
    return Population("small", 1, bounds, tuple(named))


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


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(version=2), "version: Input should be 1"),
        (lambda c: c.pop("seed"), "seed: Field required"),
        (lambda c: c.update(note="x"), "note: Extra inputs"),
        (lambda c: c.update(name="../x"), "is named with small letters"),
        (lambda c: c.update(count=11), "count is 11, but it has 12 overlays"),
        (lambda c: c["overlays"].pop(), "count is 12, but it has 11 overlays"),
        (lambda c: c.update(overlays=[]), "has no overlays"),
        (lambda c: c["overlays"].reverse(), "overlays[0]: id must be 'o000', came 'o011'"),
        (lambda c: c["overlays"][1].update(id="o000"), "overlays[1]: id must be 'o001'"),
        (lambda c: c["overlays"][2]["text"].update(kind="lie"), "overlays[2].text.kind"),
        (lambda c: c["overlays"][2]["text"].update(pick=1.0), "overlays[2].text.pick"),
        (lambda c: c["overlays"][2]["text"].update(pick="0"), "overlays[2].text.pick"),
        (lambda c: c["overlays"][2].update(off_object=1), "overlays[2].off_object"),
        (lambda c: c["overlays"][3]["overlay"].pop("size"), "lacks ['size']"),
        (lambda c: c["overlays"][3]["overlay"].update(text="cat"), "unknown keys ['text']"),
        (
            lambda c: c["overlays"][3]["overlay"].update(size="1"),
            "overlays[3].overlay: overlay size",
        ),
        (lambda c: c["overlays"][3]["overlay"].update(fill=[1, 2]), "overlay fill"),
        (lambda c: c["overlays"][3]["overlay"].update(size=0.9), "size 0.9 is not within"),
        (lambda c: c["overlays"][3]["overlay"].update(opacity=0.1), "opacity 0.1 is not within"),
        (lambda c: c["overlays"][3]["overlay"].update(angle=90.0), "angle 90.0 is beyond"),
        (lambda c: c["bounds"].update(kinds=["decoy"]), "is none of the bounds: decoy"),
        (lambda c: c["bounds"].update(fonts=["gelasio"]), "is none of the bounds: gelasio"),
        (lambda c: c["bounds"].update(size=[0.5, 0.1]), "bounds.size"),
    ],
)
def test_a_file_that_was_tampered_with_is_told_by_its_place(path, change, message):
    edit(path, change)

    with pytest.raises(DataError) as told:
        read_population(path)
    assert str(told.value).startswith(f"{path}: ")
    assert message in str(told.value)
    assert "natadv overlays draw" in str(told.value)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b'{"version": NaN}'])
def test_what_is_no_population_is_told(path, content):
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


@pytest.mark.parametrize("name", ["", "a/b", "../a", "A", ".a"])
def test_names_that_lead_elsewhere_are_refused(name):
    with pytest.raises(ConfigError, match="is named with small letters"):
        population_path(name)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "lie"}, "kind of text must be one of decoy, other"),
        ({"pick": 1.0}, "pick must be from 0"),
        ({"pick": float("nan")}, "pick must be from 0"),
        ({"overlay": Overlay(text="cat")}, "has no text yet, came 'cat'"),
    ],
)
def test_a_drawn_overlay_says_nothing_strange(population, change, message):
    with pytest.raises(ConfigError, match=message):
        replace(population.overlays[0], **change)


def test_a_drawn_overlay_says_the_word_of_the_picture(population):
    for drawn in population.overlays:
        text, decoy = worded(drawn, truth="dog", names=("cat", "dog", "cow"), sample_id="x")
        overlay = drawn.saying(text)

        assert overlay.text == text
        assert replace(overlay, text=drawn.overlay.text) == drawn.overlay
        assert decoy in (None, "cat", "cow")


def test_the_id_of_an_overlay_decides_no_word(population):
    one = population.overlays[0]
    other: DrawnOverlay = replace(one, id="o999")
    said = {worded(x, truth="dog", names=("cat", "dog"), sample_id="x") for x in (one, other)}

    assert len(said) == 1

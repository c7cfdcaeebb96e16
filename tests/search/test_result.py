"""The result of a search and its attack: in words, as JSON and as files."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from natadv.errors import DataError
from natadv.scenarios.typographic.overlay import Overlay
from natadv.scenarios.typographic.overlay_text import KINDS
from natadv.scenarios.typographic.population import BLANK, DrawnOverlay
from natadv.search.result import (
    Attack,
    PredictionPair,
    SearchResult,
    ShrinkCounts,
    read_attack,
    result_from,
    result_json,
    write_attack,
)
from natadv.tasks import ASKED
from natadv.tasks.task import Prediction
from natadv.types import PLACES
from tests.scenarios.strategies import renderable

ATTACK = Attack(
    version=1,
    task="classification",
    dataset="mini",
    revision="r" * 64,
    subject="dog",
    pictures=tuple(f"s{i}" for i in range(16)),
    text="cat",
    decoy="cat",
    drawn=DrawnOverlay("new", "decoy", 0.25, True, Overlay(text=BLANK, opacity=0.5)),
    covered=0.031,
    place="top left",
    flipped=("s1", "s2", "s3", "s7", "s9"),
    hidden=("s2", "s4"),
    model="mini-clip",
    weights="w" * 64,
    run="1-abc",
)

NAMES = st.text(st.characters(codec="ascii", categories=("L", "N")), min_size=1, max_size=8)


@st.composite
def attacks(draw: st.DrawFn) -> Attack:
    pictures = draw(st.lists(NAMES, min_size=1, max_size=6, unique=True))
    some = st.lists(st.sampled_from(pictures), unique=True).map(tuple)
    drawn = DrawnOverlay(
        draw(NAMES),
        draw(st.sampled_from(list(KINDS))),
        draw(st.floats(0, 1, exclude_max=True)),
        draw(st.booleans()),
        replace(draw(renderable(bands=True)), text=BLANK),
    )
    return Attack(
        version=1,
        task=draw(st.sampled_from(sorted(ASKED))),
        dataset=draw(NAMES),
        revision=draw(NAMES),
        subject=draw(NAMES),
        pictures=tuple(pictures),
        text=draw(NAMES),
        decoy=draw(st.none() | NAMES),
        drawn=drawn,
        covered=draw(st.floats(0, 1)),
        place=draw(st.sampled_from(PLACES[0])),
        flipped=draw(some),
        hidden=draw(some),
        model=draw(NAMES),
        weights=draw(NAMES),
        run=draw(st.just("") | NAMES),
    )


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(attacks())
def test_an_attack_survives_json(attack):
    assert Attack.model_validate_json(json.dumps(attack.as_json())) == attack


def test_an_attack_survives_its_file_and_equal_ones_have_equal_bytes(tmp_path):
    for name in ("one", "two"):
        write_attack(tmp_path / name / "a.json", ATTACK)

    assert read_attack(tmp_path / "one/a.json") == ATTACK
    assert (tmp_path / "one/a.json").read_bytes() == (tmp_path / "two/a.json").read_bytes()
    assert [path.name for path in (tmp_path / "one").iterdir()] == ["a.json"]


def test_it_is_told_in_words():
    assert ATTACK.in_words == (
        "'cat', 3 letters, 3.1 % of the picture, top left, opacity 0.50: flips 5 of 16 pictures of "
        "dog (31 %), 1 of them without letters too"
    )
    assert ATTACK.share == 5 / 16


def test_of_those_that_the_box_flips_only_flipped_ones_are_told():
    for hidden, count in [((), 0), (("s4", "s5"), 0), (ATTACK.flipped, 5), (ATTACK.pictures, 5)]:
        told = ATTACK.model_copy(update={"hidden": hidden})

        assert told.hidden_in_words == f"{count} of them without letters too"
        assert told.in_words.endswith(f"(31 %), {told.hidden_in_words}")


def test_letters_are_what_is_neither_blank_nor_sign():
    assert "'no. 1', 3 letters" in ATTACK.model_copy(update={"text": "no. 1"}).in_words


MISSING = object()

BROKEN = [
    (("task",), "captioning", "task: unknown task 'captioning', did you mean 'classification'?"),
    (("version",), 2, "version: Input should be 1"),
    (("subject",), "", "subject: String should have at least 1 character"),
    (("pictures",), [], "pictures: Tuple should have at least 1 item"),
    (("pictures",), ["s1", "s1"], "pictures: expected each once"),
    (("flipped",), ["s1", "s1"], "flipped: expected each once"),
    (("flipped",), ["s99"], r"flipped: expected some of the pictures, got \['s99'\]"),
    (("hidden",), ["s1", 3], r"hidden\[1\]: Input should be a valid string"),
    (("covered",), 1.5, "covered: Input should be less than or equal to 1"),
    (("weights",), MISSING, "weights: Field required"),
    (("extra",), 1, "extra: Extra inputs are not permitted"),
    (("text",), "\u4f60", "text: overlay text '\u4f60' has characters that the fonts cannot draw"),
    (("text",), "  ", "text: overlay text must be a string with something to draw"),
    (("decoy",), 7, "decoy: Input should be a valid string"),
    (("drawn", "text", "pick"), 1.0, "drawn.text.pick: Input should be less than 1"),
    (
        ("drawn", "text", "kind"),
        "rhyme",
        "drawn.text.kind: unknown kind of text 'rhyme'; known: decoy, misspelt",
    ),
    (("drawn", "overlay", "opacity"), 2, "drawn: overlay opacity must be from 0.0 to 1.0, got 2"),
    (("drawn", "overlay", "tilt"), 2, r"drawn: overlay has unknown keys \['tilt'\] and lacks \[\]"),
    (
        ("drawn", "overlay", "size"),
        MISSING,
        r"drawn: overlay has unknown keys \[\] and lacks \['size'\]",
    ),
]


def test_what_is_broken_is_told_by_file_and_place(tmp_path):
    for place, value, message in BROKEN:
        raw = ATTACK.as_json()
        *into, last = place
        inside = raw
        for key in into:
            inside = inside[key]
        if value is MISSING:
            del inside[last]
        else:
            inside[last] = value
        path = tmp_path / "a.json"
        path.write_text(json.dumps(raw))

        with pytest.raises(DataError, match=f"a.json: {message}.*; expected a file that a search"):
            read_attack(path)


def test_what_is_no_attack_at_all_is_told_too(tmp_path):
    for content in [b"", b"{", b"[]", b"\xff\xfe", b'{"covered": NaN}']:
        path = tmp_path / "a.json"
        path.write_bytes(content)

        with pytest.raises(
            DataError, match=r"a\.json: .*; expected a file that a search has written"
        ):
            read_attack(path)


def test_a_file_that_is_not_there_is_told(tmp_path):
    with pytest.raises(DataError, match=r"no\.json: cannot be read: No such file"):
        read_attack(tmp_path / "no.json")
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        read_attack(tmp_path)


PAIR = PredictionPair(
    sample_id="s1",
    before=Prediction(text="dog", correct=True, values={"score": 0.9}),
    after=Prediction(text="cat", correct=False, values={"score": 0.4}, mask=b"\x89PNG"),
)
FOUND = SearchResult(
    subject="dog",
    discover=True,
    at_least=0.25,
    clean_samples=16,
    samples_tried=32,
    counts=ShrinkCounts(drawn=40, working=3, strongest=0.5, evaluations=60),
    attack=ATTACK.model_copy(update={"run": ""}),
    predictions=(PAIR,),
)
WEAK = FOUND.model_copy(update={"attack": None, "predictions": ()})
BLIND = WEAK.model_copy(update={"clean_samples": 0, "counts": None})
COUNTED = ["subject", "discover", "at_least", "pictures", "looked_at"]
SHRUNK = ["drawn", "working", "strongest", "evaluations"]


@pytest.mark.parametrize(
    ("result", "names"),
    [
        (FOUND, [*COUNTED, *SHRUNK, "attack", "shown"]),
        (WEAK, [*COUNTED, *SHRUNK, "attack"]),
        (BLIND, [*COUNTED, "attack"]),
    ],
)
def test_a_result_comes_back_whole_and_its_names_stay(result, names):
    raw = result_json(result)

    assert list(raw) == names
    assert result_from(json.loads(json.dumps(raw, allow_nan=False))) == result


def test_predictions_keep_their_names():
    (raw,) = result_json(FOUND)["shown"]

    assert raw == {
        "id": "s1",
        "before": {"said": "dog", "right": True, "values": {"score": 0.9}},
        "after": {"said": "cat", "right": False, "values": {"score": 0.4}, "mask": "iVBORw=="},
    }


def test_a_run_signs_the_attack_alone():
    assert FOUND.with_attack(run="r").attack == ATTACK.model_copy(update={"run": "r"})
    assert FOUND.with_attack(run="r").with_attack(run="") == FOUND
    assert WEAK.with_attack(run="r") is WEAK

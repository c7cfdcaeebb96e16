"""The result of a search as JSON: it comes back whole, under the names that users know."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from natadv.search.predictions import PredictionPair
from natadv.search.result import SearchResult, ShrinkCounts, result_from, result_json
from natadv.tasks.task import Prediction

from .test_attack import ATTACK

PAIR = PredictionPair(
    "s1",
    Prediction("dog", True, {"score": 0.9}),
    Prediction("cat", False, {"score": 0.4}, mask=b"\x89PNG"),
)
FOUND = SearchResult(
    subject="dog",
    discover=True,
    at_least=0.25,
    clean_samples=16,
    samples_tried=32,
    counts=ShrinkCounts(drawn=40, working=3, strongest=0.5, evaluations=60),
    attack=replace(ATTACK, run=""),
    predictions=(PAIR,),
)
WEAK = replace(FOUND, attack=None, predictions=())
BLIND = replace(WEAK, clean_samples=0, counts=None)
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
    assert FOUND.of_run("r").attack == replace(ATTACK, run="r")
    assert replace(FOUND.of_run("r"), attack=FOUND.attack) == FOUND
    assert WEAK.of_run("r") is WEAK

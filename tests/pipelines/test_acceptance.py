"""The curve is the filter's own rule at every threshold, and the same bytes each time."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from natadv.errors import DataError
from natadv.pipelines.acceptance import (
    THRESHOLDS,
    Acceptance,
    as_json,
    chart,
    counts,
    write_acceptance,
)
from natadv.scenarios.natural import Judged, fools_all, judged


def drawn(seed: int, members: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.dirichlet(np.full(4, 0.4), (members, 30)), rng.integers(0, 4, 30)


def acceptance(found: Judged, **fields: object) -> Acceptance:
    told = {f"model-{place}": "0" * 64 for place in range(len(found.wrong))}
    known = {"name": "hard", "pool": "all", "pool_revision": "f" * 64, "threshold": 0.15}
    return Acceptance(**{**known, "members": told, "judged": found, "set_aside": {}, **fields})


@given(st.integers(0, 50), st.integers(1, 3))
def test_every_point_is_what_the_filter_would_keep(seed, members):
    probabilities, truth = drawn(seed, members)

    found = counts(judged(probabilities, truth), THRESHOLDS)

    expected = [fools_all(probabilities, truth, threshold=t).sum() for t in THRESHOLDS]
    assert found == expected
    assert found == sorted(found)


@given(st.integers(0, 50), st.integers(2, 3))
def test_the_ensemble_never_keeps_more_than_a_member_alone(seed, members):
    told = as_json(acceptance(judged(*drawn(seed, members))))

    for member in told["members"].values():
        pairs = zip(member["kept"], told["curve"]["kept"], strict=True)
        assert all(alone >= together for alone, together in pairs)


def test_numbers_and_picture_are_the_same_bytes_each_time(tmp_path):
    found = acceptance(judged(*drawn(1, 2)), set_aside={"s1": "damaged"})

    path = write_acceptance(tmp_path / "deep" / "hard", found)
    first = path.read_bytes(), path.with_suffix(".json").read_bytes()
    write_acceptance(tmp_path / "deep" / "hard", found)

    assert (path.read_bytes(), path.with_suffix(".json").read_bytes()) == first
    assert json.loads(first[1])["set_aside"] == {"s1": "damaged"}
    assert sorted(p.name for p in path.parent.iterdir()) == [
        "hard.acceptance.json",
        "hard.acceptance.png",
    ]


def test_a_chart_of_many_members_can_be_drawn():
    assert chart(acceptance(judged(*drawn(1, 9)))).startswith(b"\x89PNG")


def test_a_place_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "x").write_text("a file in the way")

    with pytest.raises(DataError, match="cannot be written"):
        write_acceptance(tmp_path / "x" / "hard", acceptance(judged(*drawn(1, 1))))

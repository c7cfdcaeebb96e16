"""Evidence that was put together by hand, of models with the names of the zoo."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from natadv.evidence import Manifest, write_evidence
from natadv.types import Case, Outcomes
from tests.metrics.conftest import make_outcomes

Write = Callable[..., Path]


def outcomes(right: Sequence[bool], *, names: str = "s", twins: str | None = None) -> Outcomes:
    """A sample for each of `right`, whose masks and answers are good where it is."""
    truth = ["dog"] * len(right)
    said = ["dog" if hit else "cat" for hit in right]
    ids = [f"{names}{i}" for i in range(len(right))]
    of = None if twins is None else [f"{twins}{i}" for i in range(len(right))]
    return make_outcomes(truth, said, ids=ids, groups=ids if of is None else of, twins=of)


def share(right: int, n: int = 100) -> list[bool]:
    """The first `right` of `n` samples are right."""
    return [i < right for i in range(n)]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes the evidence of a case, by its address, into a folder."""

    def written(address: str, rows: Outcomes, *, root: str = "evidence", **changes: object) -> Path:
        case = Case(*address.split("/"))
        facts = {"lineage": case.model, "planned_n": rows.n, "data_revision": "r" * 64}
        facts |= {"weights": "w" * 64, "protocol": "1", **changes}
        folder = tmp_path / root
        write_evidence(folder, Manifest(case, **facts), {"attack": rows})
        return folder

    return written

"""One case and rows about it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from natadv.report.terminal import Row
from natadv.types import Case, Measurement
from tests.metrics.conftest import outcomes as outcomes

CASE = Case("classification", "clean", "mini", "mini-clip")


@pytest.fixture
def case() -> Case:
    return CASE


@pytest.fixture
def measured() -> Callable[..., Measurement]:
    def make(value: float = 0.9, **other: Any) -> Measurement:
        settled: dict[str, Any] = {
            "metric": "top1",
            "low": value - 0.01,
            "high": value + 0.01,
            "n": 660,
            "groups": 660,
            "excluded": 0,
        }
        return Measurement(value=value, **(settled | other))

    return make


@pytest.fixture
def row(measured: Callable[..., Measurement]) -> Callable[..., Row]:
    def make(verdict: Any = "PASS", *, value: float = 0.9, **other: Any) -> Row:
        settled: dict[str, Any] = {
            "case": CASE,
            "measurement": measured(value),
            "metric": "top1",
            "bound": ">= 0.850",
            "margin": value - 0.85,
        }
        return Row(verdict=verdict, **(settled | other))

    return make

"""Zero-shot classification holds its floors, clean and attacked."""

import pytest

pytestmark = pytest.mark.gate(task="classification")


def test_classification(case, gate):
    gate.check(case)

"""Why models answer as they do is measured for every model, and judged where a rule says so."""

import pytest

pytestmark = pytest.mark.gate(analysis=True)


def test_interpretability(case, gate):
    gate.check(case)

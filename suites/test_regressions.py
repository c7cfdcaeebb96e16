"""No case is worse than in the baseline (--baseline DIR); without one there is nothing to compare."""

import pytest

pytestmark = pytest.mark.gate(baseline=True)


def test_regressions(case, gate):
    gate.check_against_baseline(case)

"""No case is worse than in the baseline (--baseline DIR); without one nothing is compared."""

import pytest

pytestmark = pytest.mark.gate(baseline=True)


def test_regressions(case, gate):
    gate.check_against_baseline(case)

"""What is said of a verdict can be said of any numbers."""

from __future__ import annotations

import pytest

from natadv.gate.wording import samples_to_decide
from natadv.types import Measurement


@pytest.mark.parametrize("bound", [5e-324, 1e-300, 1e-200, 1e-160, 1e-9])
def test_a_bound_beside_the_value_asks_for_more_samples_than_there_are(kit, bound):
    rule = kit.rule(kit.CLEAN, "decoy_rate", side="ceiling", bound=bound)
    found = Measurement("decoy_rate", 0.0, 0.0, 0.02, 200, 200, 0)

    assert samples_to_decide(rule, found, level=0.025, strictest=0.001) is None

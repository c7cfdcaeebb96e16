"""Overlays by lot break few pictures, and the smallest attack that works is found and shown."""

import pytest

pytestmark = pytest.mark.gate(searched=True)


def test_typographic_search(case, gate):
    gate.show_attacks(case)
    gate.check(case)

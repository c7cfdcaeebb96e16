"""What a phrase refers to is found, clean and attacked."""

import pytest

pytestmark = pytest.mark.gate(task="segmentation")


def test_segmentation(case, gate):
    gate.check(case)

"""Questions about pictures are answered as people do, clean and attacked."""

import pytest

pytestmark = pytest.mark.gate(task="vqa")


def test_vqa(case, gate):
    gate.check(case)

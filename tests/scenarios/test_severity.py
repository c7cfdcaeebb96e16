from __future__ import annotations

import pytest

from natadv.errors import ConfigError
from natadv.scenarios.typographic.severity import PUBLISHED, SEVERITIES, letters_at


def test_letters_grow_with_severity_and_are_as_published_in_the_middle():
    sizes = [letters_at(severity) for severity in sorted(SEVERITIES)]

    assert sizes == sorted(set(sizes))
    assert letters_at(PUBLISHED) == 1.0


def test_an_unknown_severity_is_refused():
    with pytest.raises(ConfigError, match=r"one of 1, 2, 3, 4, 5 \(3 is as published\), came 6"):
        letters_at(6)

"""Bounds that the tests draw within."""

from __future__ import annotations

from typing import Any

import pytest

from natadv.scenarios.typographic.fonts import FONTS
from natadv.scenarios.typographic.overlay_text import KINDS


@pytest.fixture(scope="session")
def wide() -> dict[str, Any]:
    """Everything, as a section of params.yaml has it."""
    return {
        "size": [0.05, 0.4],
        "x": [0.0, 1.0],
        "y": [0.0, 1.0],
        "opacity": [0.2, 1.0],
        "contrast": [0.1, 1.0],
        "angle": 30.0,
        "panel": 0.4,
        "stroke": 0.5,
        "stroke_width": [0.04, 0.1],
        "padding": [0.1, 0.6],
        "fonts": sorted(FONTS),
        "kinds": list(KINDS),
        "off_object": 0.25,
    }

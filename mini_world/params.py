"""The mini world's parameters, from `params.yaml`, and where the mini world is made."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from natadv.config import PARAMS, section_of
from natadv.places import package_roots

_CLONE = Path(__file__).resolve().parents[1]

ROOT = _CLONE if (_CLONE / PARAMS).is_file() else Path()
"""Where the mini world is made: the clone, or else the working directory. What is not there is read
from the installed packages."""


@cache
def params(stage: str) -> dict[str, Any]:
    """The parameters of one stage: those of the root, whose file may be about other things,
    or else those of a package. Raises ConfigError."""
    own, *_ = packages = package_roots()
    for place in (ROOT, *packages):
        if section := section_of(place / PARAMS, stage, required=False):
            return section
    return section_of(own / PARAMS, stage, required=True)

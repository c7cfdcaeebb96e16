"""The mini world's parameters, read from the repository's `params.yaml`."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import yaml

from natadv.errors import ConfigError

ROOT = Path(__file__).resolve().parents[1]
"""The repository: the mini world is made from a checkout, never from an installed package."""


@cache
def _document() -> dict[str, Any]:
    path = ROOT / "params.yaml"
    if not path.is_file():
        raise ConfigError(f"{path} is missing; the mini world is made from a checkout only")
    document: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return document


def params(stage: str) -> dict[str, Any]:
    """The parameters of one stage."""
    document = _document()
    if stage not in document:
        known = ", ".join(sorted(document))
        raise ConfigError(f"params.yaml has no section {stage!r}; it has {known}")
    section: dict[str, Any] = document[stage]
    return section

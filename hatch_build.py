"""Puts the files of a run into the wheel, where `natadv/places.py` looks for them.

In a clone they lie at the top, and an editable install finds them there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class ShippedFiles(BuildHookInterface[Any]):
    """`files` of pyproject.toml become `natadv/shipped/...`."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":
            return
        for name in self.config["files"]:
            build_data["force_include"][str(Path(self.root, name))] = f"natadv/shipped/{name}"

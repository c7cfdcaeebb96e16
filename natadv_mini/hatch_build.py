"""Puts the mini world of the repository into the sdist and the wheel of natadv-mini.

In a clone it lies beside this folder, in an sdist within it. An editable install needs none of it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class MiniWorld(BuildHookInterface[Any]):
    """`files` of pyproject.toml become `natadv_mini/...`; the packages stand beside it."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":
            return
        root, included = Path(self.root), build_data["force_include"]
        holder = root if (root / "PKG-INFO").is_file() else root.parent
        prefix = ""
        if self.target_name == "wheel":
            prefix = "natadv_mini/"
            included[str(root / "__init__.py")] = "natadv_mini/__init__.py"
        for path in (path for name in self.config["files"] for path in _files(holder / name)):
            included[str(path)] = f"{prefix}{path.relative_to(holder).as_posix()}"
        included[str(holder / "mini_world")] = "mini_world"


def _files(path: Path) -> list[Path]:
    """The file, or all in the folder but curves of trainings: their numbers lie beside them."""
    found = sorted(path.rglob("*")) if path.is_dir() else [path]
    return [file for file in found if not file.is_dir() and file.name != "curve.png"]

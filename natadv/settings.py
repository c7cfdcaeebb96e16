"""Settings of one piece of work: a section of `params.yaml`, and over it `--set name=value`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from natadv.errors import ConfigError, unknown_name
from natadv.yaml_text import load_shared_yaml, parse_shared_yaml, shown

PARAMS = "params.yaml"


def section_of(path: Path, name: str, *, required: bool) -> dict[str, Any]:
    """The settings of a section of the file; none where it is missing, unless it is `required`.

    Raises:
        ConfigError: There is no such section, or the file does not hold sections of settings.
    """
    sections = _sections(path) if required or path.exists() else {}
    if name not in sections:
        if required:
            raise unknown_name(f"section of {path}", name, map(str, sections))
        return {}
    found = sections[name]
    if not isinstance(found, dict):
        kind = type(found).__name__
        raise ConfigError(f"{path}: section {name!r} must hold settings, got {kind}")
    return {str(key): value for key, value in found.items()}


def parse_override(override: str) -> tuple[str, Any]:
    """Name and value of `name=value`, the value as JSON or as YAML has it. Raises ConfigError."""
    name, equals, text = override.partition("=")
    if not equals or not name.strip():
        raise ConfigError(f"--set takes name=value, got {override!r}")
    try:
        return name.strip(), json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        return name.strip(), parse_shared_yaml(text, where="value")
    except ConfigError as error:
        raise ConfigError(f"--set {name}: {shown(text)} is no value: {error}") from error


def _sections(path: Path) -> Mapping[str, Any]:
    # Sections of this file share settings by alias.
    found = load_shared_yaml(path)
    if not isinstance(found, dict):
        raise ConfigError(f"{path}: expected sections, got {type(found).__name__}")
    return found

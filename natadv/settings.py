"""Settings of one piece of work: a section of `params.yaml`, and over it `--set name=value`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from natadv.errors import ConfigError, unknown_name

PARAMS = "params.yaml"

# A date that no calendar has is no YAMLError.
_NOT_YAML = (yaml.YAMLError, ValueError)


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
        raise ConfigError(f"{path}: section {name!r} must hold settings, got {found!r}")
    return {str(key): value for key, value in found.items()}


def parse_override(override: str) -> tuple[str, Any]:
    """Name and value of `name=value`, the value as JSON or as YAML has it. Raises ConfigError."""
    name, equals, text = override.partition("=")
    if not equals or not name.strip():
        raise ConfigError(f"--set takes name=value, got {override!r}")
    try:
        return name.strip(), json.loads(text)
    except ValueError:
        pass
    try:
        return name.strip(), yaml.safe_load(text)
    except _NOT_YAML as error:
        raise ConfigError(f"--set {name}: {text!r} is no value: {error}") from error


def _sections(path: Path) -> Mapping[str, Any]:
    try:
        # Not `parse_yaml`: sections of this file share settings by alias.
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as UTF-8 text: {error}") from error
    except _NOT_YAML as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from error
    if not isinstance(found, dict):
        raise ConfigError(f"{path}: expected sections, got {type(found).__name__}")
    return found

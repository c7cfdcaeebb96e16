"""YAML files that people write, validated so that each mistake is named by file, line and key."""

from __future__ import annotations

import difflib
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError

from natadv.errors import ConfigError
from natadv.yaml_text import Lines, Loc, dotted, load_yaml, shown

__all__ = ["Lines", "Strict", "dotted", "line_of", "load_config"]

Model = TypeVar("Model", bound=BaseModel)

_OF_A_KEY = "[key]"
"""How Pydantic marks that the key itself is wrong, not what it holds."""


class Strict(BaseModel):
    """Base of every schema: no unknown key, no coercion (so lists, not tuples), no NaN."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


def load_config(path: Path, schema: type[Model]) -> tuple[Model, Lines]:
    """The validated content of a YAML file, and the line of each of its keys and items."""
    content, lines = load_yaml(path)
    try:
        return schema.model_validate(content), lines
    except ValidationError as error:
        raise ConfigError(_explain(error, schema, lines, where=str(path))) from error


def line_of(loc: Loc, lines: Lines) -> int:
    """The line of `loc`, or of the nearest thing around it that the file holds."""
    while loc and loc not in lines:
        loc = loc[:-1]
    return lines.get(loc, 1)


def _explain(error: ValidationError, schema: type[BaseModel], lines: Lines, *, where: str) -> str:
    found = sorted(
        (line_of(e["loc"], lines), _place(e["loc"]) or "the file", _reason(dict(e), schema))
        for e in error.errors(include_url=False)
    )
    return "\n".join(f"{where}:{line}: {key}: {reason}" for line, key, reason in found)


def _place(loc: Loc) -> str:
    return dotted(part for part in loc if part != _OF_A_KEY)


def _reason(error: dict[str, Any], schema: type[BaseModel]) -> str:
    if error["type"] == "extra_forbidden":
        known = _keys_at(schema, error["loc"][:-1])
        near = difflib.get_close_matches(str(error["loc"][-1]), known, n=1, cutoff=0.5)
        hint = f", did you mean {near[0]!r}?" if near else ""
        return f"unknown key{hint} Known: {', '.join(known)}"
    if error["type"] == "missing":
        return "required, but not given"
    if error["type"] == "value_error":
        return str(error["ctx"]["error"])
    message = str(error["msg"])
    return f"{message[:1].lower()}{message[1:]}, got {shown(error['input'])}"


def _keys_at(schema: Any, loc: Loc) -> list[str]:
    """Field names of the model that sits at `loc`, found through lists, dicts and unions."""
    if isinstance(schema, type) and issubclass(schema, BaseModel):
        if not loc:
            return sorted(schema.model_fields)
        field = schema.model_fields.get(str(loc[0]))
        return _keys_at(field.annotation, loc[1:]) if field else []
    origin, args = get_origin(schema), get_args(schema)
    if origin in (Union, UnionType):
        return next((keys for arg in args if (keys := _keys_at(arg, loc))), [])
    if not args or not loc:
        return []
    return _keys_at(args[-1] if origin is dict else args[0], loc[1:])

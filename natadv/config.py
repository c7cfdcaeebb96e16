"""YAML files that people write, validated so that each mistake is named by file, line and key."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import UnionType
from typing import Any, TypeAlias, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from natadv.errors import ConfigError

Loc: TypeAlias = tuple[int | str, ...]
Lines: TypeAlias = Mapping[Loc, int]
Model = TypeVar("Model", bound=BaseModel)

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Strict(BaseModel):
    """Base of every schema: no unknown key, no coercion (so lists, not tuples), no NaN."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


def load_config(path: Path, schema: type[Model]) -> tuple[Model, Lines]:
    """The validated content of a YAML file, and the line of each of its keys and items."""
    content, lines = parse_yaml(_text_of(path), where=str(path))
    try:
        return schema.model_validate(content), lines
    except ValidationError as error:
        raise ConfigError(_explain(error, schema, lines, where=str(path))) from error


def parse_yaml(text: str, *, where: str) -> tuple[Any, Lines]:
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            raise ConfigError(f"{where}: expected a YAML mapping, got an empty file")
        lines = _lines_of(node, where)
        return loader.construct_document(node), lines
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise ConfigError(f"{where}:{line}: not valid YAML: {error.problem}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{where}: not valid YAML: {error}") from error
    finally:
        loader.dispose()


def line_of(loc: Loc, lines: Lines) -> int:
    """The line of `loc`, or of the nearest thing around it that the file holds."""
    while loc and loc not in lines:
        loc = loc[:-1]
    return lines.get(loc, 1)


def dotted(loc: Iterable[int | str]) -> str:
    text = ""
    for part in loc:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as UTF-8 text: {error}") from error


def _lines_of(root: yaml.Node, where: str) -> dict[Loc, int]:
    lines: dict[Loc, int] = {}
    seen: set[int] = set()
    children: list[tuple[int | str, yaml.Node, int]]
    todo: list[tuple[Loc, yaml.Node, int]] = [((), root, root.start_mark.line + 1)]
    while todo:
        loc, node, line = todo.pop()
        if id(node) in seen:
            # Also what keeps a self-referring or exponential document from being walked.
            raise ConfigError(f"{where}:{line}: {dotted(loc)} is a YAML alias; write it out")
        seen.add(id(node))
        lines[loc] = line
        if isinstance(node, yaml.SequenceNode):
            children = _items(node)
        elif isinstance(node, yaml.MappingNode):
            children = _entries(node, loc, where)
        else:
            continue
        # Reversed, so that of two mentions the first is met first.
        todo += [((*loc, key), child, at) for key, child, at in reversed(children)]
    return lines


def _items(node: yaml.SequenceNode) -> list[tuple[int | str, yaml.Node, int]]:
    return [(i, child, child.start_mark.line + 1) for i, child in enumerate(node.value)]


def _entries(
    node: yaml.MappingNode, loc: Loc, where: str
) -> list[tuple[int | str, yaml.Node, int]]:
    first: dict[str, int] = {}
    entries: list[tuple[int | str, yaml.Node, int]] = []
    for key, child in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode):
            raise ConfigError(f"{where}:{line}: expected a plain word as key in {dotted(loc)!r}")
        name = str(key.value)
        if name in first:
            raise ConfigError(
                f"{where}:{line}: duplicate key {dotted((*loc, name))!r}, "
                f"first given on line {first[name]}; keep one"
            )
        first[name] = line
        entries.append((name, child, line))
    return entries


def _explain(error: ValidationError, schema: type[BaseModel], lines: Lines, *, where: str) -> str:
    found = sorted(
        (line_of(e["loc"], lines), dotted(e["loc"]) or "the file", _reason(dict(e), schema))
        for e in error.errors(include_url=False)
    )
    return "\n".join(f"{where}:{line}: {key}: {reason}" for line, key, reason in found)


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
    return f"{message[:1].lower()}{message[1:]}, got {error['input']!r}"


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

"""YAML files that people write: each mistake is one line that names file, line and key."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import UnionType
from typing import Any, NamedTuple, TypeAlias, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from yaml.reader import Reader

from natadv.errors import ConfigError, unknown_name
from natadv.places import find

Loc: TypeAlias = tuple[int | str, ...]
Lines: TypeAlias = Mapping[Loc, int]
Model = TypeVar("Model", bound=BaseModel)

PARAMS = Path("params.yaml")
DEEPEST = 32
"""Levels of nesting: no file needs ten, and a thousand would exhaust Python's stack."""
MOST_MISTAKES = 20
"""Lines about one file: hundreds usually have one cause."""
MOST_VALUES = 100_000
"""Values in a file once its aliases are written out: ten lines can stand for billions."""

_MERGE = "tag:yaml.org,2002:merge"
_MOST_SHOWN = 100
_OF_A_KEY = "[key]"
"""How Pydantic marks that the key itself is wrong, not its value."""
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Strict(BaseModel):
    """Base of every schema: no unknown key, no coercion (so lists, not tuples), no NaN."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


def name_in(kind: str, table: Collection[str]) -> Callable[[str], str]:
    """A validator for schemas: the value is one of the names in `table`."""

    def known(name: str) -> str:
        """The name. Raises ValueError, which lists similar names."""
        if name not in table:
            raise ValueError(str(unknown_name(kind, name, table)))
        return name

    return known


def load_config(path: Path, schema: type[Model]) -> tuple[Model, Lines]:
    """The validated content of a YAML file, and the line of each of its keys and items.

    Raises ConfigError with one line per mistake.
    """
    content, lines = load_yaml(path)
    try:
        return schema.model_validate(content), lines
    except ValidationError as error:
        # Keys that one place lacks have one cause, and so one line.
        keys: dict[tuple[int, str], list[str]] = {}
        for mistake in error.errors(include_url=False):
            key = dotted(part for part in mistake["loc"] if part != _OF_A_KEY) or "the file"
            at = line_of(mistake["loc"], lines), _reason(dict(mistake), schema)
            keys.setdefault(at, []).append(key)
        rows = [(line, ", ".join(sorted(of)), why) for (line, why), of in keys.items()]
        raise mistakes_in(path, [f"{path}:{a}: {b}: {c}" for a, b, c in sorted(rows)]) from error


def mistakes_in(path: Path, rows: Sequence[str]) -> ConfigError:
    """The error for a file, with a line for each of its first `MOST_MISTAKES` mistakes."""
    more = [f"{path}: and {len(rows) - MOST_MISTAKES} more mistakes"]
    return ConfigError("\n".join([*rows[:MOST_MISTAKES], *more[: len(rows) > MOST_MISTAKES]]))


def line_of(loc: Loc, lines: Lines) -> int:
    """The line of `loc`, or of the nearest enclosing value that the file holds."""
    while loc and loc not in lines:
        loc = loc[:-1]
    return lines.get(loc, 1)


def _reason(error: dict[str, Any], schema: type[BaseModel]) -> str:
    if error["type"] == "extra_forbidden":
        known = _keys_at(schema, error["loc"][:-1])
        near = difflib.get_close_matches(str(error["loc"][-1]), known, n=1, cutoff=0.5)
        hint = f", did you mean {near[0]!r}? Known" if near else "; known"
        return f"unknown key{hint}: {', '.join(known)}"
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


def section_of(path: Path, name: str, *, required: bool) -> dict[str, Any]:
    """The settings in a section of `params.yaml`; empty if a section is absent and not `required`.

    Raises:
        ConfigError: The section is required and absent, or the file does not hold sections.
    """
    if not required and not path.exists():
        return {}
    # Sections of this file share settings by alias.
    sections = parse_shared_yaml(_text_of(path), where=str(path))
    if not isinstance(sections, dict):
        raise ConfigError(f"{path}: expected sections, got {type(sections).__name__}")
    if name not in sections:
        if required:
            raise unknown_name(f"section of {path}", name, map(str, sections))
        return {}
    section = sections[name]
    if not isinstance(section, dict):
        kind = type(section).__name__
        raise ConfigError(f"{path}: section {name!r} must hold settings, got {kind}")
    return {str(key): value for key, value in section.items()}


def parse_override(override: str) -> tuple[str, Any]:
    """Name and value of `name=value`, the value in JSON or YAML. Raises ConfigError."""
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
        raise ConfigError(f"--set {name}: {shown(text)} is not a value: {error}") from error


def settings_of(
    schema: type[Model],
    what: str,
    *,
    root: Path,
    usual: str,
    section: str | None,
    overrides: Sequence[str],
    given: Mapping[str, Any] | None = None,
) -> Model:
    """Settings from `params.yaml` and from `--set`, which counts more.

    Args:
        schema: Their type, with the defaults.
        what: What they are of, in words.
        root: Where `params.yaml` is looked for first; it need not exist.
        usual: The section that is read if the file has it and no other is named.
        section: The section that the user named, if any; it must exist.
        overrides: `name=value` pairs; the value is JSON or YAML.
        given: Settings by other options, which count more than the section's.

    Raises:
        ConfigError: The section or a setting is unknown, or a value is missing or invalid.
    """
    name = section or usual
    stored = section_of(find(PARAMS, root), name, required=section is not None)
    overriding = dict(map(parse_override, overrides))
    try:
        return schema.model_validate({**stored, **(given or {}), **overriding})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        setting = str(first["loc"][0]) if first["loc"] else ""
        where = "--set" if setting in overriding else f"{PARAMS}, section {name!r}"
        if first["type"] == "extra_forbidden":
            unknown = unknown_name(f"setting of {what}", setting, schema.model_fields)
            raise ConfigError(f"{where}: {unknown}") from error
        if first["type"] == "missing":
            raise ConfigError(f"{what} needs {setting}: add --set {setting}=VALUE") from error
        why = _reason(dict(first), schema)
        raise ConfigError(f"{where}: {setting or 'the settings'}: {why}") from error


class _Place(NamedTuple):
    loc: Loc
    node: yaml.Node
    line: int


def load_yaml(path: Path) -> tuple[Any, Lines]:
    """The content of a file, as `parse_yaml` returns it."""
    return parse_yaml(_text_of(path), where=str(path))


def parse_yaml(text: str, *, where: str) -> tuple[Any, Lines]:
    """The content, and the line of each of its keys and items.

    Aliases and merge keys are refused because a reader must find each value where it applies.
    Raises ConfigError, whose message begins with `where`.
    """
    content, lines = _read(text, where, shared=False)
    if not lines:
        raise ConfigError(f"{where}: expected a YAML mapping, got an empty file")
    return content, lines


def parse_shared_yaml(text: str, *, where: str) -> Any:
    """The content, which may use aliases and merge keys; None if it is empty.

    Raises ConfigError, whose message begins with `where`.
    """
    return _read(text, where, shared=True)[0]


def first_mistake(error: ValidationError) -> str:
    """The first thing that is wrong with a stored value, after its place in it."""
    first = error.errors(include_url=False, include_input=False)[0]
    unknown = first["type"] == "unexpected_keyword_argument"
    message = "unknown key" if unknown else first["msg"].removeprefix("Value error, ")
    return f"{dotted(first['loc']) or 'the file'}: {message[:1].lower()}{message[1:]}"


def dotted(loc: Iterable[int | str]) -> str:
    """A place in a file, such as `tiers.mini.cases[0]`."""
    text = ""
    for part in loc:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            plain = part.isprintable() and len(part) <= _MOST_SHOWN
            text += ("." if text else "") + (part if plain else shown(part))
    return text


def shown(value: object) -> str:
    """`repr`, short enough for one line."""
    try:
        text = repr(value)
    except ValueError:
        # Python refuses to print an integer of thousands of digits.
        return f"a {type(value).__name__} that is too long to show"
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}..."


def _text_of(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ConfigError(
            f"{path}: cannot be read as UTF-8 text: line {line}: {error.reason}; save it as UTF-8"
        ) from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from error


def _read(text: str, where: str, *, shared: bool) -> tuple[Any, Lines]:
    """The content of the only document, whose values may be `shared` by aliases and merge keys, and
    the line of each place in it."""
    lines: dict[Loc, int] = {}
    nodes: set[int] = set()
    with _loading(text, where) as loader:
        root = loader.get_node() if loader.check_node() else None
        if loader.check_node():
            line = _line(loader.get_node())
            raise ConfigError(f"{where}:{line}: a second document begins here; keep one")
        if root is None:
            return None, lines
        for place in _places(root, where):
            at = f"{where}:{place.line}"
            if shared and len(lines) == MOST_VALUES:
                why = f"its aliases stand for more than {MOST_VALUES} values; use fewer"
                raise ConfigError(f"{at}: {why}")
            if not shared and id(place.node) in nodes:
                raise ConfigError(f"{at}: {dotted(place.loc)} is a YAML alias; write it out")
            for key in [] if shared else _keys(place.node):
                if key.tag == _MERGE:
                    why = "'<<' is a YAML merge key; write it out"
                    raise ConfigError(f"{where}:{_line(key)}: {why}")
            nodes.add(id(place.node))
            lines[place.loc] = place.line
            _construct_scalars(loader, place, where)
        return loader.construct_document(root), lines


@contextmanager
def _loading(text: str, where: str) -> Iterator[Any]:
    if odd := Reader.NON_PRINTABLE.search(text):
        line = text.count("\n", 0, odd.start()) + 1
        raise ConfigError(f"{where}:{line}: not valid YAML: it holds {odd.group()!r}; remove it")
    loader = _Loader(text)
    try:
        yield loader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise ConfigError(f"{where}:{line}: not valid YAML: {error.problem}") from error
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{where}: not valid YAML: {reason}") from error
    except RecursionError as error:
        # libyaml has its own limit and reports its line; the loader in Python has neither.
        line = loader.get_mark().line + 1 if isinstance(loader, Reader) else 1
        raise _too_deep(where, line) from error
    finally:
        loader.dispose()


def _too_deep(where: str, line: int) -> ConfigError:
    return ConfigError(f"{where}:{line}: nested more than {DEEPEST} levels deep; write it flatter")


def _places(root: yaml.Node, where: str) -> Iterator[_Place]:
    """Every place of the document in order; an alias is expanded wherever it occurs."""
    todo = [_Place((), root, _line(root))]
    while todo:
        place = todo.pop()
        if len(place.loc) > DEEPEST:
            raise _too_deep(where, place.line)
        yield place
        children: list[_Place] = []
        if isinstance(place.node, yaml.SequenceNode):
            items = enumerate(place.node.value)
            children = [_Place((*place.loc, i), node, _line(node)) for i, node in items]
        elif isinstance(place.node, yaml.MappingNode):
            children = list(_entries(place.node, place.loc, where))
        todo += reversed(children)


def _entries(node: yaml.MappingNode, loc: Loc, where: str) -> Iterator[_Place]:
    first: dict[str, int] = {}
    for key, child in node.value:
        line = _line(key)
        if not isinstance(key, yaml.ScalarNode):
            raise ConfigError(f"{where}:{line}: expected a plain word as key in {dotted(loc)!r}")
        name = str(key.value)
        if name in first:
            raise ConfigError(
                f"{where}:{line}: duplicate key {dotted((*loc, name))!r}, "
                f"first given on line {first[name]}; keep one"
            )
        first[name] = line
        yield _Place((*loc, name), child, line)


def _construct_scalars(loader: Any, place: _Place, where: str) -> None:
    """Construct the scalar at `place`, or its keys, to name the line of one that is malformed.

    The loader caches what it has constructed, so this costs nothing.
    """
    own = [place.node] if isinstance(place.node, yaml.ScalarNode) else []
    for node in (*own, *(key for key in _keys(place.node) if key.tag != _MERGE)):
        try:
            loader.construct_object(node)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            # PyYAML does not catch what int(), date() and the like raise.
            kind = node.tag.rpartition(":")[2]
            name = dotted(place.loc) or "the file"
            raise ConfigError(
                f"{where}:{_line(node)}: {name}: {shown(node.value)} cannot be read as {kind}; "
                "correct it, or put it in quotes if it is text"
            ) from error


def _keys(node: yaml.Node) -> list[yaml.Node]:
    return [key for key, _ in node.value] if isinstance(node, yaml.MappingNode) else []


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1

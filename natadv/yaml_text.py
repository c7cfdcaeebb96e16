"""YAML text as plain values; whatever cannot be read is one error that names the line."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import yaml
from yaml.reader import Reader

from natadv.errors import ConfigError

Loc: TypeAlias = tuple[int | str, ...]
Lines: TypeAlias = Mapping[Loc, int]

DEEPEST = 32
"""Levels of nesting: no file needs ten, and a thousand would exhaust Python's stack."""
MOST_VALUES = 100_000
"""Values in a file once its aliases are written out: ten lines can stand for billions."""

_MERGE = "tag:yaml.org,2002:merge"
_MOST_SHOWN = 100
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Place(NamedTuple):
    loc: Loc
    node: yaml.Node
    line: int


def load_yaml(path: Path) -> tuple[Any, Lines]:
    """What `parse_yaml` finds in a file."""
    return parse_yaml(_text_of(path), where=str(path))


def load_shared_yaml(path: Path) -> Any:
    """What `parse_shared_yaml` finds in a file."""
    return parse_shared_yaml(_text_of(path), where=str(path))


def parse_yaml(text: str, *, where: str) -> tuple[Any, Lines]:
    """The content, and the line of each of its keys and items.

    Aliases and merge keys are refused: a reader must find each value where it counts.
    """
    lines: dict[Loc, int] = {}
    seen: set[int] = set()

    def visit(place: _Place) -> None:
        if id(place.node) in seen:
            name = dotted(place.loc)
            raise ConfigError(f"{where}:{place.line}: {name} is a YAML alias; write it out")
        seen.add(id(place.node))
        lines[place.loc] = place.line
        for key in _keys(place.node):
            if key.tag == _MERGE:
                raise ConfigError(f"{where}:{_line(key)}: '<<' is a YAML merge key; write it out")

    content = _read(text, where, visit)
    if not lines:
        raise ConfigError(f"{where}: expected a YAML mapping, got an empty file")
    return content, lines


def parse_shared_yaml(text: str, *, where: str) -> Any:
    """The content, whose parts may share values by aliases and merge keys; None if it is empty."""
    visited = 0

    def visit(place: _Place) -> None:
        nonlocal visited
        visited += 1
        if visited > MOST_VALUES:
            raise ConfigError(
                f"{where}:{place.line}: its aliases stand for more than {MOST_VALUES} values; "
                "use fewer"
            )

    return _read(text, where, visit)


def dotted(loc: Iterable[int | str]) -> str:
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
        # Python prints no integer of thousands of digits.
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


def _read(text: str, where: str, visit: Callable[[_Place], None]) -> Any:
    """The content of the only document, after `visit` has let each place of it pass."""
    with _loading(text, where) as loader:
        root = loader.get_node() if loader.check_node() else None
        if loader.check_node():
            line = _line(loader.get_node())
            raise ConfigError(f"{where}:{line}: a second document begins here; keep one")
        if root is None:
            return None
        for place in _places(root, where):
            visit(place)
            _construct_scalars(loader, place, where)
        return loader.construct_document(root)


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
        # libyaml has a limit of its own, and tells its line; the loader in Python has neither.
        line = loader.get_mark().line + 1 if isinstance(loader, Reader) else 1
        raise _too_deep(where, line) from error
    finally:
        loader.dispose()


def _too_deep(where: str, line: int) -> ConfigError:
    return ConfigError(f"{where}:{line}: nested more than {DEEPEST} levels deep; write it flatter")


def _places(root: yaml.Node, where: str) -> Iterator[_Place]:
    """Every place of the document in order, what an alias stands for at each of its mentions."""
    todo = [_Place((), root, _line(root))]
    while todo:
        place = todo.pop()
        if len(place.loc) > DEEPEST:
            raise _too_deep(where, place.line)
        yield place
        children = []
        if isinstance(place.node, yaml.SequenceNode):
            children = [((*place.loc, i), n, _line(n)) for i, n in enumerate(place.node.value)]
        elif isinstance(place.node, yaml.MappingNode):
            children = list(_entries(place.node, place.loc, where))
        todo += [_Place(*child) for child in reversed(children)]


def _entries(node: yaml.MappingNode, loc: Loc, where: str) -> Iterator[tuple[Loc, yaml.Node, int]]:
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
        yield (*loc, name), child, line


def _construct_scalars(loader: Any, place: _Place, where: str) -> None:
    """Construct the scalar at `place`, or its keys, so that one that cannot be has its line told.

    The loader remembers what it has constructed, so this costs nothing.
    """
    own = [place.node] if isinstance(place.node, yaml.ScalarNode) else []
    for node in (*own, *(key for key in _keys(place.node) if key.tag != _MERGE)):
        try:
            loader.construct_object(node)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            # PyYAML lets through whatever int(), date() and the like raise.
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

"""Elements of one long list or object in a JSON file, one at a time: annotations have hundreds of
MB."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TypeVar

import ijson

from natadv.data.archives import ZIP_DAMAGE, open_zip
from natadv.errors import DataError

T = TypeVar("T", int, str)

# An annotation has 5 levels; the parser keeps the path to each value, which grows with the depth.
_MOST_LEVELS = 64


def iter_list(path: Path, key: str = "") -> Iterator[dict[str, Any]]:
    """The objects of the list in the file; of the list at `key`, if the file holds an object.

    `path` may be a zip with one JSON file in it, as annotations are published. Only the current
    element is in memory. Raises DataError, at the latest at the end, unless the file is JSON with
    such a list.
    """
    for element in iter_elements(path, key):
        if not isinstance(element, dict):
            raise DataError(f"{path}: expected a list of objects, got {element!r:.60}")
        yield element


def iter_elements(path: Path, key: str = "") -> Iterator[Any]:
    """As `iter_list`, with elements of any kind."""
    with _events(path, f"a list at {key!r}" if key else "a list") as events:
        watched = _watched(events, key, "start_array")
        yield from ijson.items(ijson.parse(watched), f"{key}.item" if key else "item")


def iter_members(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Key and value of each member of the object in the file, as `iter_list` reads a list."""
    with _events(path, "an object of objects") as events:
        for key, value in ijson.kvitems(ijson.parse(_watched(events, "", "start_map")), ""):
            if not isinstance(value, dict):
                raise DataError(f"{path}: expected an object at {key!r:.60}, got {value!r:.60}")
            yield key, value


@contextmanager
def _events(path: Path, what: str) -> Iterator[Iterable[tuple[str, Any]]]:
    """The events of a parser. Raises DataError if the file is not JSON with `what`."""
    try:
        with _opened(path) as file:
            yield ijson.basic_parse(file, use_float=True)
    except (ijson.JSONError, *ZIP_DAMAGE) as error:
        # On one line, without the position that the parser draws below its message.
        message = error.args[0] if error.args else ""
        text = message.decode("utf-8", "replace") if isinstance(message, bytes) else str(error)
        reason = text.partition("\n")[0].strip()
        raise DataError(f"{path}: expected JSON with {what}: {reason}; get it again") from error


def _watched(
    events: Iterable[tuple[str, Any]], key: str, opening: str
) -> Iterator[tuple[str, Any]]:
    """The events of the parser. Raises ValueError on endless nesting, or if the value at `key` does
    not begin with the event `opening`."""
    depth, last, present = 0, "", False
    for event in events:
        kind, value = event
        if kind in ("start_map", "start_array"):
            present |= kind == opening and (depth, last) == (bool(key), key)
            depth += 1
            if depth > _MOST_LEVELS:
                raise ValueError(f"nested more than {_MOST_LEVELS} deep")
        elif kind in ("end_map", "end_array"):
            depth -= 1
        elif kind == "map_key" and depth == 1:
            last = value
        yield event
    if not present:
        wanted = "a list" if opening == "start_array" else "an object"
        raise ValueError(f"no list at {key!r} in it" if key else f"it is not {wanted}")


def field_of(raw: Mapping[str, Any], name: str, kind: type[T], where: str) -> T:
    """The field of an object. Raises DataError unless it is there and of this type."""
    value = raw.get(name)
    if not isinstance(value, kind) or isinstance(value, bool):
        expected = "a whole number" if kind is int else "a text"
        raise DataError(f"{where}: {name} must be {expected}, got {value!r:.60}")
    return value


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """The file, or the only JSON file in the zip, as a stream."""
    if not path.is_file():
        raise DataError(f"{path}: expected a JSON file, or a zip with one in it")
    if path.suffix.lower() != ".zip":
        with path.open("rb") as file:
            yield file
        return
    with open_zip(path) as (archive, members):
        inside = [name for name in members if name.endswith(".json")]
        if len(inside) != 1:
            raise DataError(f"{path}: expected one JSON file in it, got {inside or 'none'}")
        with archive.open(members[inside[0]]) as member:
            yield member

"""Elements of one long list in a JSON file, one at a time: annotation files have hundreds of MB."""

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
    try:
        with _opened(path) as file:
            events = _watched(ijson.basic_parse(file, use_float=True), key)
            prefix = f"{key}.item" if key else "item"
            for element in ijson.items(ijson.parse(events), prefix):
                if not isinstance(element, dict):
                    raise DataError(f"{path}: expected a list of objects, got {element!r:.60}")
                yield element
    except (ijson.JSONError, *ZIP_DAMAGE) as error:
        what = f"a list at {key!r}" if key else "a list"
        # On one line, without the position that the parser draws below its message.
        message = error.args[0] if error.args else ""
        text = message.decode("utf-8", "replace") if isinstance(message, bytes) else str(error)
        reason = text.partition("\n")[0].strip()
        raise DataError(f"{path}: expected JSON with {what}: {reason}; get it again") from error


def _watched(events: Iterable[tuple[str, Any]], key: str) -> Iterator[tuple[str, Any]]:
    """The events of the parser. Raises ValueError on endless nesting, or if the list is missing."""
    depth, last, present = 0, "", False
    for event in events:
        kind, value = event
        if kind in ("start_map", "start_array"):
            present |= kind == "start_array" and (depth, last) == (bool(key), key)
            depth += 1
            if depth > _MOST_LEVELS:
                raise ValueError(f"nested more than {_MOST_LEVELS} deep")
        elif kind in ("end_map", "end_array"):
            depth -= 1
        elif kind == "map_key" and depth == 1:
            last = value
        yield event
    if not present:
        raise ValueError(f"no list at {key!r} in it" if key else "it is not a list")


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

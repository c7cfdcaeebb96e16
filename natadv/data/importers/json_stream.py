"""Elements of one long list in a JSON file, one at a time: annotation files are hundreds of MB."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import ijson

from natadv.data.archives.containers import ZIP_DAMAGE, ZipFiles
from natadv.errors import DataError

# Of an annotation, 5; the parser keeps the whole way to each value, which is long in a deep one.
_MOST_DEEP = 64


def iter_list(path: Path, key: str = "") -> Iterator[dict[str, Any]]:
    """Objects of the list that the file is, or of the one at `key` of the object that it is.

    `path` may be a zip with one JSON file in it, as annotations are published. Nothing but the
    element at hand is in memory; at the end the whole file has been seen to be JSON.
    """
    try:
        with _opened(path) as file:
            events = _watched(ijson.basic_parse(file, use_float=True), key)
            prefix = f"{key}.item" if key else "item"
            for element in ijson.items(ijson.parse(events), prefix):
                if not isinstance(element, dict):
                    raise DataError(f"{path}: expected a list of objects, came {element!r:.60}")
                yield element
    except (ijson.JSONError, *ZIP_DAMAGE) as error:
        what = f"a list at {key!r}" if key else "a list"
        told = _told(error)
        raise DataError(f"{path}: expected JSON with {what}: {told}; get it again") from error


def _watched(events: Iterable[tuple[str, Any]], key: str) -> Iterator[tuple[str, Any]]:
    """The events of the parser; refuses a text that is nested without end, or has no such list."""
    depth, last, found = 0, "", False
    for event in events:
        kind, value = event
        if kind in ("start_map", "start_array"):
            found |= kind == "start_array" and (depth, last) == (bool(key), key)
            depth += 1
            if depth > _MOST_DEEP:
                raise ValueError(f"nested more than {_MOST_DEEP} deep")
        elif kind in ("end_map", "end_array"):
            depth -= 1
        elif kind == "map_key" and depth == 1:
            last = value
        yield event
    if not found:
        raise ValueError(f"no list at {key!r} in it" if key else "it is no list")


def _told(error: Exception) -> str:
    """On one line, and without the place that the parser draws below it."""
    what = error.args[0] if error.args else ""
    text = what.decode("utf-8", "replace") if isinstance(what, bytes) else str(error)
    return text.partition("\n")[0].strip()


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """The file, or the only JSON file in the zip, as a stream."""
    if not path.is_file():
        raise DataError(f"{path}: expected a JSON file, or a zip with one in it")
    if path.suffix.lower() != ".zip":
        with path.open("rb") as file:
            yield file
        return
    files = ZipFiles(path)
    try:
        inside = [name for name in files.paths if name.endswith(".json")]
        if len(inside) != 1:
            raise DataError(f"{path}: expected one JSON file in it, came {inside or 'none'}")
        with files.opened(inside[0]) as member:
            yield member
    finally:
        files.close()

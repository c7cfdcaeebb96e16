"""Elements of one long list in a JSON file, one at a time: annotation files are hundreds of MB."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from natadv.data.archives import open_files
from natadv.errors import DataError

_CHUNK = 2**20
_DECODER = json.JSONDecoder()
_SPACE = " \t\r\n"


def iter_list(path: Path, key: str = "") -> Iterator[dict[str, Any]]:
    """Objects of the list that the file is, or of the one at `key` of the object that it is.

    `path` may be a zip with one JSON file in it, as annotations are published.
    """
    text = io.TextIOWrapper(io.BytesIO(json_bytes(path)), encoding="utf-8")
    try:
        reader = _Reader(text)
        if key:
            reader.enter(key)
        for element in reader.elements():
            if not isinstance(element, dict):
                raise DataError(f"{path}: expected a list of objects, came {element!r:.60}")
            yield element
    except (ValueError, EOFError, RecursionError) as error:
        what = f"a list at {key!r}" if key else "a list"
        raise DataError(f"{path}: expected JSON with {what}: {error}; get it again") from error


def json_bytes(path: Path) -> bytes:
    """Of the file, or of the only JSON file in the zip."""
    if not path.is_file():
        raise DataError(f"{path}: expected a JSON file, or a zip with one in it")
    if path.suffix.lower() != ".zip":
        return path.read_bytes()
    files = open_files(path)
    try:
        inside = [name for name in files.paths if name.endswith(".json")]
        if len(inside) != 1:
            raise DataError(f"{path}: expected one JSON file in it, came {inside or 'none'}")
        return files.read(inside[0])
    finally:
        files.close()


class _Reader:
    """A place in a text, of which a window is in memory."""

    def __init__(self, text: TextIO) -> None:
        self._text, self._window, self._at = text, "", 0

    def enter(self, key: str) -> None:
        """Stand before the value of `key` of the object that the text is."""
        self._expect("{")
        while True:
            found = self._value()
            self._expect(":")
            if found == key:
                return
            self._value()
            if self._next() == "}":
                raise ValueError(f"no {key!r} in it")
            self._expect(",")

    def elements(self) -> Iterator[Any]:
        self._expect("[")
        if self._next() == "]":
            return
        while True:
            yield self._value()
            if self._next() == "]":
                return
            self._expect(",")

    def _value(self) -> Any:
        self._next()
        while True:
            try:
                value, end = _DECODER.raw_decode(self._window, self._at)
            except json.JSONDecodeError:
                # Perhaps cut by the end of the window only.
                if not self._more():
                    raise
                continue
            # A number may go on after the window.
            if end < len(self._window) or not self._more():
                self._at = end
                return value

    def _next(self) -> str:
        """The next character that is no space; it stays where it is."""
        while True:
            while self._at < len(self._window) and self._window[self._at] in _SPACE:
                self._at += 1
            if self._at < len(self._window):
                return self._window[self._at]
            if not self._more():
                raise EOFError("the text ends in the middle")

    def _expect(self, character: str) -> None:
        came = self._next()
        if came != character:
            raise ValueError(f"expected {character!r}, came {came!r}")
        self._at += 1

    def _more(self) -> bool:
        chunk = self._text.read(_CHUNK)
        if chunk:
            self._window, self._at = self._window[self._at :] + chunk, 0
        return bool(chunk)

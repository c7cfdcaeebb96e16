"""The one MATLAB file of ImageNet's devkit, read without SciPy: a struct array of plain fields.

Written after the published description of the format (MAT-File Level 5, MathWorks).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from natadv.errors import DataError

Value = int | float | str | None

_HEADER_BYTES = 128
_MATRIX, _COMPRESSED = 14, 15
_STRUCT, _CHAR = 2, 4
_NUMBERS = {1: "b", 2: "B", 3: "h", 4: "H", 5: "i", 6: "I", 7: "f", 9: "d", 12: "q", 13: "Q"}
_TEXTS = {1: "latin-1", 2: "latin-1", 4: "utf-16-le", 16: "utf-8", 17: "utf-16-le"}
_MOST_BYTES = 64 * 2**20


class _Element(NamedTuple):
    kind: int
    data: bytes


def read_structs(data: bytes, name: str, *, where: str) -> list[dict[str, Value]]:
    """The struct array `name`: of each struct its fields, an array by its first number."""
    try:
        for element in _elements(data[_HEADER_BYTES:]):
            parts = list(_elements(element.data)) if element.kind == _MATRIX else []
            if len(parts) > 5 and parts[0].data[0] == _STRUCT and parts[2].data == name.encode():
                return _structs(parts)
    except (struct.error, zlib.error, LookupError, ValueError) as error:
        raise DataError(f"{where}: damaged MATLAB file: {error!r}") from error
    raise DataError(f"{where}: not a MATLAB file (level 5) with structs {name!r}")


def _elements(data: bytes) -> Iterator[_Element]:
    at = 0
    while at + 8 <= len(data):
        kind, size = struct.unpack_from("<II", data, at)
        if kind >> 16:
            # A small element: kind, size and up to 4 bytes in one place.
            yield _Element(kind & 0xFFFF, data[at + 4 : at + 4 + (kind >> 16)])
            at += 8
            continue
        body = data[at + 8 : at + 8 + size]
        if len(body) != size:
            raise ValueError(f"{len(body)} bytes, {size} were announced")
        if kind == _COMPRESSED:
            yield from _elements(zlib.decompressobj().decompress(body, _MOST_BYTES))
            at += 8 + size
        else:
            yield _Element(kind, body)
            at += 8 + size + -size % 8


def _structs(parts: list[_Element]) -> list[dict[str, Value]]:
    """Of flags, dimensions, name, length of a field's name, names, and then every field."""
    length = struct.unpack("<i", parts[3].data)[0]
    names = [
        parts[4].data[at : at + length].split(b"\0")[0].decode()
        for at in range(0, len(parts[4].data), length)
    ]
    values = [_value(part) for part in parts[5:]]
    return [
        dict(zip(names, values[at : at + len(names)], strict=True))
        for at in range(0, len(values), len(names))
    ]


def _value(element: _Element) -> Value:
    parts = list(_elements(element.data))
    if len(parts) < 4 or not parts[3].data:
        return None
    kind, data = parts[3]
    if parts[0].data[0] == _CHAR:
        return data.decode(_TEXTS[kind])
    found: int | float = struct.unpack_from(f"<{_NUMBERS[kind]}", data)[0]
    return found

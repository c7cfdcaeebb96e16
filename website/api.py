"""The Python interface as Markdown, a page for each room, read from the sources."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import griffe

from website.blocks import ROOT

LIBRARY = ROOT / "natadv"
INTERNAL = ("cli", "plugin", "pytest_plugin")
"""Rooms whose functions are called by pytest and by the command line only."""
_CODE = re.compile(r"(`+[^`]*`+)")


@cache
def module(name: str) -> griffe.Module:
    """A module of the library as its source declares it, such as `gate.rules`. A package is what
    its `__init__.py` declares."""
    path = LIBRARY.joinpath(*name.split("."))
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return griffe.visit(f"natadv.{name}", filepath=file, code=file.read_text(encoding="utf-8"))


def rooms() -> list[str]:
    """The packages and modules of the library that others may import."""
    return [name for name in _submodules(LIBRARY) if name not in INTERNAL]


def _submodules(folder: Path) -> list[str]:
    files = [path for path in folder.glob("*.py") if not path.name.startswith("_")]
    packages = [path.parent for path in folder.glob("*/__init__.py")]
    return sorted(path.stem for path in (*files, *packages))


def attribute_docs(room: str, name: str) -> dict[str, str]:
    """What the docstrings of the fields of a class say, those of its bases in the same module
    included."""
    found = module(room).members[name]
    assert isinstance(found, griffe.Class)
    told: dict[str, str] = {}
    for base in map(str, found.bases):
        if isinstance(module(room).members.get(base), griffe.Class):
            told |= attribute_docs(room, base)
    return told | {field: text for field, one in found.members.items() if (text := prose(one))}


def prose(item: griffe.Object | griffe.Alias) -> str:
    """The docstring as Markdown; empty if there is none."""
    if item.docstring is None:
        return ""
    parts = []
    for section in item.docstring.parse("google", warnings=False):
        if section.kind is griffe.DocstringSectionKind.text:
            parts.append(escaped(section.value))
        elif section.kind is griffe.DocstringSectionKind.parameters:
            parts.append(
                "\n".join(f"- `{one.name}`: {escaped(one.description)}" for one in section.value)
            )
        else:
            parts.append(escaped(item.docstring.value))
            break
    return "\n\n".join(parts)


def escaped(text: str) -> str:
    """Words of a docstring without what Markdown would take for markup, outside of code."""
    parts = _CODE.split(text)
    parts[::2] = [re.sub(r"([*<])", r"\\\1", re.sub(r"^ {4,}", "", part)) for part in parts[::2]]
    return "".join(parts)


def room_page(name: str) -> str:
    """All public names of a room, module by module."""
    # A search finds what people wrote first.
    head = ["---", "search:", "  boost: 0.05", "---", "", f"# natadv.{name}", ""]
    return "\n".join([*head, *_module(name, top=True)])


def summary(name: str) -> str:
    """The first sentence of a module's docstring."""
    first = prose(module(name)).split("\n\n")[0].replace("\n", " ")
    return re.split(r"(?<=[.:]) (?=[A-Z])", first)[0].rstrip(":")


def _module(name: str, *, top: bool = False) -> Iterator[str]:
    found = module(name)
    if not top:
        yield from (f"## `natadv.{name}`", "")
    yield from (prose(found), "")
    for one in found.members.values():
        if not _shown(one):
            continue
        if isinstance(one, griffe.Class):
            yield from _class(one)
        elif isinstance(one, griffe.Function):
            yield from (f"### `{one.name}`", "", _code(_signature(one)), "", prose(one), "")
        elif isinstance(one, griffe.Attribute) and prose(one):
            yield from (f"### `{one.name}`", "", _code(_field(one)), "", prose(one), "")
    folder = LIBRARY.joinpath(*name.split("."))
    for submodule in _submodules(folder):
        yield from _module(f"{name}.{submodule}")


def _shown(member: griffe.Object | griffe.Alias) -> bool:
    return not member.name.startswith("_") and not member.is_alias


def _class(found: griffe.Class) -> Iterator[str]:
    bases = ", ".join(map(str, found.bases))
    members = [one for one in found.members.values() if _shown(one)]
    fields = [one for one in members if isinstance(one, griffe.Attribute)]
    declared = [f"    {_field(one)}" for one in fields if "property" not in one.labels]
    head = f"class {found.name}{bases and f'({bases})'}{':' if declared else ''}"
    yield from (
        f"### `{found.name}`",
        "",
        _code("\n".join([head, *declared])),
        "",
        prose(found),
        "",
    )
    told = [f"- `{one.name}`: {' '.join(prose(one).split())}" for one in fields if prose(one)]
    yield from (*told, "") if told else ()
    for one in members:
        if isinstance(one, griffe.Function):
            name = f"{found.name}.{one.name}"
            yield from (f"#### `{name}`", "", _code(_signature(one)), "", prose(one), "")


def _field(found: griffe.Attribute) -> str:
    annotation = f": {found.annotation}" if found.annotation else ""
    value = f" = {found.value}" if found.value else ""
    line = f"{found.name}{annotation}{value}"
    # A table is better read in the source.
    return line if len(line) <= 100 and "\n" not in line else f"{found.name}{annotation} = ..."


def _signature(found: griffe.Function) -> str:
    line = str(found.signature(return_type=True))
    if len(line) <= 90:
        return line
    opening, closing = line.index("("), line.rindex(")")
    inner = _split(line[opening + 1 : closing])
    return "\n".join([line[: opening + 1], *(f"    {one}," for one in inner), line[closing:]])


def _split(text: str) -> list[str]:
    """The parameters between commas that stand in no bracket."""
    parts, depth, start = [], 0, 0
    for i, char in enumerate(text):
        depth += (char in "([{") - (char in ")]}")
        if char == "," and depth == 0:
            parts.append(text[start:i].strip())
            start = i + 1
    return [*parts, text[start:].strip()]


def _code(text: str) -> str:
    return f"```python\n{text}\n```"

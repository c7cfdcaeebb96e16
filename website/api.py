"""The Python interface as Markdown, a page for each room, read from the sources without importing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import griffe

from website.blocks import ROOT

INTERNAL = ("cli", "plugin", "pytest_plugin")
"""Rooms whose functions are called by pytest and by the command line only."""
_CODE = re.compile(r"(`+[^`]*`+)")


@cache
def library() -> griffe.Module:
    """The package as its sources declare it."""
    found = griffe.load("natadv", search_paths=[ROOT], allow_inspection=False)
    assert isinstance(found, griffe.Module)
    return found


def rooms() -> dict[str, griffe.Module]:
    """Name -> package or module of the library that others may import."""
    return {
        name: member
        for name, member in sorted(library().members.items())
        if isinstance(member, griffe.Module) and name not in INTERNAL
    }


def attribute_docs(path: str) -> dict[str, str]:
    """What the docstrings of the fields of a class say, such as of `gate.rules.Rule`."""
    found = library()[path]
    return {name: prose(found.members[name]) for name in found.members}


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
    lines = ["---", "search:", "  boost: 0.2", "---", "", f"# natadv.{name}", ""]
    return "\n".join([*lines, *_module(rooms()[name], top=True)])


def summary(module: griffe.Module) -> str:
    """The first sentence of its docstring."""
    first = prose(module).split("\n\n")[0].replace("\n", " ")
    return re.split(r"(?<=[.:]) (?=[A-Z])", first)[0].rstrip(":")


def _module(module: griffe.Module, *, top: bool = False) -> Iterator[str]:
    if not top:
        yield from (f"## `{module.path}`", "")
    yield from (prose(module), "")
    for name, one in _own(module).items():
        if not _shown(name, one):
            continue
        if isinstance(one, griffe.Class):
            yield from _class(one)
        elif isinstance(one, griffe.Function):
            yield from (f"### `{one.name}`", "", _code(_signature(one)), "", prose(one), "")
        elif isinstance(one, griffe.Attribute) and prose(one):
            yield from (f"### `{one.name}`", "", _code(_field(one)), "", prose(one), "")
    for name, one in module.members.items():
        if isinstance(one, griffe.Module) and _shown(name, one):
            yield from _module(one)


def _own(module: griffe.Module) -> dict[str, griffe.Object | griffe.Alias]:
    """What the file of a module declares. In a package, a function that has the name of a submodule
    is not among the members."""
    path = module.filepath
    assert isinstance(path, Path)
    return griffe.visit(module.path, filepath=path, code=path.read_text("utf-8")).members


def _shown(name: str, member: griffe.Object | griffe.Alias) -> bool:
    return not name.startswith("_") and not member.is_alias


def _class(found: griffe.Class) -> Iterator[str]:
    bases = ", ".join(map(str, found.bases))
    members = [one for name, one in found.members.items() if _shown(name, one)]
    fields = [one for one in members if isinstance(one, griffe.Attribute)]
    declared = [f"    {_field(one)}" for one in fields if "property" not in one.labels]
    head = f"class {found.name}{bases and f'({bases})'}{':' if declared else ''}"
    yield from (f"### `{found.name}`", "", _code("\n".join([head, *declared])), "", prose(found), "")
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
    line = f"{found.name}{found.signature(return_type=True)}".removeprefix(found.name)
    line = line if line.startswith(found.name) else f"{found.name}{line}"
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

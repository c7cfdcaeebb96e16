"""Breaks what people read into lines: words between words, commands so that they can be copied."""

from __future__ import annotations

import re
import textwrap

WIDTH = 100
"""Of all that is written for people, in characters."""


def wrapped(
    text: str, *, width: int | None = None, indent: str = "", hanging: str | None = None
) -> list[str]:
    """The text in lines, broken between words only, so that addresses and paths can be copied.

    Args:
        width: By default `WIDTH`.
        indent: Begins every line.
        hanging: Begins all but the first instead; default: four spaces more than `indent`, if that
            is empty.
    """
    below = hanging if hanging is not None else indent or "    "
    return textwrap.wrap(
        text,
        width or WIDTH,
        initial_indent=indent,
        subsequent_indent=below,
        break_long_words=False,
        break_on_hyphens=False,
    ) or [""]


_WORD = re.compile(r"""(?:'[^']*'|"[^"]*"|\S)+""")


def copyable(command: str, *, width: int | None = None, indent: str = "") -> list[str]:
    """A shell command in lines of at most `width` characters (by default `WIDTH`) that can be
    copied as they are."""
    width = width or WIDTH
    if len(indent + command) <= width:
        return [indent + command]
    first, *words = _WORD.findall(command)
    lines = [indent + first]
    for word in words:
        # Room for the mark that the line goes on.
        if len(f"{lines[-1]} {word}") > width - 2:
            lines[-1] += " \\"
            lines.append(f"{indent}    {word}")
        else:
            lines[-1] += f" {word}"
    return lines


def script_lines(script: str, *, width: int | None = None, indent: str = "") -> list[str]:
    """A shell script in lines of at most `width` characters (by default `WIDTH`) that still do the
    same."""
    found = []
    for line in script.splitlines():
        inner = f"{indent}{line[: len(line) - len(line.lstrip())]}"
        if line.lstrip().startswith("#"):
            found += wrapped(line.strip(), width=width, indent=inner, hanging=f"{inner}# ")
        else:
            found += copyable(line.strip(), width=width, indent=inner)
    return found

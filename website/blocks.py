"""The code blocks of a page: what language they are in, and which of them a test may run."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from markdown_it import MarkdownIt

from natadv.errors import DataError

ROOT = Path(__file__).resolve().parents[1]
REASONS = ("GPU", "network", "hours", "data", "GitHub", "account")
"""Why a block is not run: what it needs that a test does not have."""

_NOT_RUN = re.compile(r"<!-- not run: (.*?) -->", re.DOTALL)
_EXIT = re.compile(r"<!-- exit (\d+) -->")
_MARK = re.compile(r"<!-- (?:not run|exit)\b")
_TITLE = re.compile(r'title="([^"]+)"')
_SETTING = re.compile(r"\w+=")
_PARSER = MarkdownIt("commonmark").enable("table")


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A fenced block of code."""

    page: Path
    line: int
    """Of its fence, from 1."""
    language: str
    """Empty if the fence names none, or if it is code that is only indented."""
    title: str
    """The file that it is the content of; empty if it is of none."""
    text: str
    not_run: str
    """Why its commands are not run; empty if they are."""
    exit_code: int
    """What its last command has to exit with."""

    @property
    def where(self) -> str:
        """`page:line`, as editors read it."""
        return f"{shown(self.page)}:{self.line}"

    @property
    def runs(self) -> bool:
        """Whether its commands are run, or its file is written, by the tests."""
        return not self.not_run and (self.language == "bash" or bool(self.title))


def shown(page: Path) -> str:
    """Its path from the root of the repository, if it lies below that."""
    return str(page.relative_to(ROOT) if ROOT in page.parents else page)


def pages() -> list[Path]:
    """The pages that people write, in the order of their names: the README first."""
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks_of(page: Path) -> list[Block]:
    """All code blocks of a page, from top to bottom. Raises DataError if a mark before one of them
    cannot be read."""
    found: list[Block] = []
    comment = ""
    for token in _PARSER.parse(page.read_text(encoding="utf-8")):
        line = token.map[0] + 1 if token.map else 0
        if token.type == "html_block":
            comment = token.content.strip()
        elif token.type in ("fence", "code_block"):
            language, _, attributes = token.info.strip().partition(" ")
            title = _TITLE.search(attributes)
            why, code = _marks(comment, f"{shown(page)}:{line}")
            found.append(
                Block(
                    page=page,
                    line=line,
                    language=language,
                    title=title[1] if title else "",
                    text=token.content,
                    not_run=why,
                    exit_code=code,
                )
            )
            comment = ""
        elif token.type not in ("list_item_open", "bullet_list_open", "ordered_list_open"):
            comment = ""
    return found


def headings_of(text: str) -> list[str]:
    """The headings of a page, as they are written."""
    tokens = _PARSER.parse(text)
    return [
        inline.content
        for token, inline in pairwise(tokens)
        if token.type == "heading_open" and inline.type == "inline"
    ]


def paragraphs_of(text: str) -> list[str]:
    """The paragraphs of a page, as they are written."""
    tokens = _PARSER.parse(text)
    return [
        inline.content
        for token, inline in pairwise(tokens)
        if token.type == "paragraph_open" and token.level == 0
    ]


def parts_of(text: str) -> Counter[str]:
    """How often a page has each kind of block, by the name of its HTML element."""
    counted = Counter(token.tag for token in _PARSER.parse(text) if token.nesting == 1)
    counted["pre"] = sum(token.type in ("fence", "code_block") for token in _PARSER.parse(text))
    return counted


def _marks(comment: str, where: str) -> tuple[str, int]:
    """Why the next block is not run, and its exit code, from the comment before it."""
    why, code = _NOT_RUN.search(comment), _EXIT.search(comment)
    if _MARK.search(comment) and not (why or code):
        raise DataError(f"{where}: cannot read the mark {comment!r}; write <!-- not run: WHY -->")
    if why and not why[1].startswith(REASONS):
        raise DataError(
            f"{where}: expected a reason that begins with {', '.join(REASONS[:-1])} or "
            f"{REASONS[-1]}, got {why[1]!r}"
        )
    return (why[1] if why else "", int(code[1]) if code else 0)


@dataclass(frozen=True, slots=True)
class Call:
    """One command with its words."""

    words: tuple[str, ...]
    outputs: tuple[str, ...] = ()
    """Files that the shell writes its output to."""


_ENDS = ("|", "||", "&&", ";", "&", "(", ")")


def calls_of(text: str) -> Iterator[Call]:
    """The commands of a shell script without control structures, in order. Raises ValueError if a
    quote is not closed on its line."""
    for line in text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words: list[str] = []
        outputs: list[str] = []
        before = ""
        for token in (*lexer, ";"):
            if before in (">", ">>", "<"):
                outputs.append(token)
            elif token in _ENDS and words:
                yield Call(tuple(words), tuple(outputs))
                words, outputs = [], []
            elif token not in (*_ENDS, ">", ">>", "<") and (words or not _SETTING.match(token)):
                words.append(token)
            before = token

"""Spelling of the pages: known mistakes, and American forms among British ones."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path

from natadv.errors import DataError
from website.blocks import ROOT
from website.pages import prose_of, written_pages

WORDS = Path(__file__).with_name("words.txt")
"""Words that are right although they look like a mistake, one a line."""


def mistakes(given: Iterable[Path] | None = None) -> list[str]:
    """Words outside of code that are misspelt, as `page:line: word ==> suggestion`; by default on
    all written pages."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for page in given or written_pages().values():
            copy = folder / (page.relative_to(ROOT) if ROOT in page.parents else page.name)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_text(prose_of(page), encoding="utf-8")
        british = folder / "british.txt"
        british.write_text(_british(), encoding="utf-8")
        command = [
            *(sys.executable, "-m", "codespell_lib", "--builtin", "clear,rare,informal"),
            *("--dictionary", "-", "--dictionary", str(british), "--ignore-words", str(WORDS)),
            *("--skip", str(british), str(folder)),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.stderr or done.returncode not in (0, 65):
        raise DataError(f"codespell: exit {done.returncode}: {done.stderr.strip()}")
    return [line.removeprefix(f"{folder}/") for line in done.stdout.splitlines()]


def _british() -> str:
    """codespell's table of British words, turned round: American word -> British one."""
    table = files("codespell_lib") / "data" / "dictionary_en-GB_to_en-US.txt"
    pairs = [line.partition("->") for line in table.read_text("utf-8").splitlines()]
    # An American form may be a British word, too: a `program` is one on both sides.
    return "".join(
        f"{american}->{british}\n" for british, _, american in pairs if "," not in american
    )

"""Normalises answers by the rules of the official VQA evaluation, and by those of the paper.

The rules decide every published number, so the oddities of both are kept.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_ARTICLES = frozenset({"a", "an", "the"})
_NUMBERS = {
    "none": "0",
    "zero": "0",
    "one": "1",
    "two": "2",
    "three": "3",
    "four": "4",
    "five": "5",
    "six": "6",
    "seven": "7",
    "eight": "8",
    "nine": "9",
    "ten": "10",
}

_TABLE = Path(__file__).with_name("vqa_contractions.tsv").read_text(encoding="utf-8")
CONTRACTIONS: dict[str, str] = dict(
    line.split("\t") for line in _TABLE.splitlines() if not line.startswith("#")
)
"""Word without an apostrophe -> the word as the official evaluation writes it."""

_COMMA_IN_NUMBER = re.compile(r"\d,\d")
# The original means to keep a period after a digit too, but misspells its look-behind.
_PERIOD = re.compile(r"\.(?!\d)")
# The value of `re.UNICODE`, which the original passes where the count belongs.
_MOST_PERIODS = 32

_SYMBOL = re.compile(r"[^\w\s]")
_ARTICLE = re.compile(r"\b(?:a|an|the)\b")


def on_one_line(text: str) -> str:
    """Without line breaks, tabs and outer spaces."""
    return text.replace("\n", " ").replace("\t", " ").strip()


def official(text: str) -> str:
    """The form in which the official evaluation compares answers if people disagree."""
    return plain_words(without_punctuation(text))


def without_punctuation(text: str) -> str:
    """Without marks, but with apostrophes, colons and the period of a decimal number.

    A mark that has a space beside it anywhere in the text is deleted, others become spaces; in a
    text with a comma inside a number, all marks are deleted.
    """
    in_number = _COMMA_IN_NUMBER.search(text) is not None
    found = text
    for mark in _PUNCTUATION:
        deleted = in_number or f"{mark} " in text or f" {mark}" in text
        found = found.replace(mark, "" if deleted else " ")
    return _PERIOD.sub("", found, count=_MOST_PERIODS)


def plain_words(text: str) -> str:
    """Lower case, numbers up to ten in digits, no articles, contractions with their apostrophe."""
    words = [_NUMBERS.get(word, word) for word in text.lower().split()]
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


def light(text: str) -> str:
    """The form in which the paper compares answers: lower case, no symbols, no articles."""
    return " ".join(_ARTICLE.sub(" ", _SYMBOL.sub("", text.lower())).split())


def same(one: str, other: str) -> bool:
    """Whether two answers are equal by the official rules."""
    return _same(on_one_line(one), on_one_line(other), official)


def same_lightly(one: str, other: str) -> bool:
    """Whether two answers are equal by the rules of the paper."""
    return _same(on_one_line(one), on_one_line(other), light)


def _same(one: str, other: str, form: Callable[[str], str]) -> bool:
    left = form(one)
    # "A" and an empty answer both normalise to nothing, and are not equal.
    return left == form(other) and bool(left or one.lower() == other.lower())

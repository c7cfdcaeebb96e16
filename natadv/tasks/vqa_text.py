"""Answers made comparable: by the rules of the official VQA evaluation, and by the paper's own.

What counts as equal decides every published number, so the oddities of both stay as they are.
"""

from __future__ import annotations

import re

from natadv.tasks.vqa_contractions import CONTRACTIONS

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

_COMMA_IN_NUMBER = re.compile(r"\d,\d")
# The original means to keep a period after a digit too, but misspells its look-behind.
_PERIOD = re.compile(r"\.(?!\d)")
# The value of `re.UNICODE`, which the original passes where the count belongs.
_MOST_PERIODS = 32

_SYMBOL = re.compile(r"[^\w\s]")
_ARTICLE = re.compile(r"\b(?:a|an|the)\b")


def on_one_line(text: str) -> str:
    return text.replace("\n", " ").replace("\t", " ").strip()


def official(text: str) -> str:
    """As the official evaluation compares answers of people who do not all agree."""
    return plain_words(without_punctuation(text))


def without_punctuation(text: str) -> str:
    """Apostrophes and colons stay, and so does the period of a decimal number.

    A mark with a space beside it is deleted wherever it stands, else it becomes a space; where a
    number is written with a comma, all marks are deleted.
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
    """As the paper's script compares answers: lower case, no symbols, no articles."""
    return " ".join(_ARTICLE.sub(" ", _SYMBOL.sub("", text.lower())).split())


def same(one: str, other: str) -> bool:
    """Whether two answers are one by the official rules."""
    one, other = on_one_line(one), on_one_line(other)
    left = official(one)
    # Nothing is left of "A", nor of no answer at all; yet who keeps silent does not say "A".
    return left == official(other) and bool(left or one.lower() == other.lower())

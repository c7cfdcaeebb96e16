"""The head noun of a referring expression, by word lists: the last word of its first noun group."""

from __future__ import annotations

import re

_WORD = re.compile(r"[^\W\d_]+(?:[-'][^\W\d_]+)*")
_BEFORE = frozenset(
    (
        "a", "an", "the", "this", "that", "these", "those", "two", "three", "four", "five",
        "several", "some", "many", "all", "both",
    )
)  # fmt: skip
# A noun group ends before each of these words.
_BEHIND = frozenset(
    (
        "of", "on", "in", "with", "at", "to", "near", "by", "under", "above", "below",
        "behind", "beside", "between", "over", "from", "for", "inside", "next", "against",
        "along", "across", "around", "through", "without", "and", "or", "that", "which",
        "who", "whose", "is", "are", "was", "were", "has", "have", "having", "wearing",
        "holding", "standing", "sitting", "lying", "running", "jumping", "flying",
        "playing", "taking", "sleeping", "walking", "riding", "eating", "hanging",
        "looking", "facing", "carrying", "parked", "made", "covered", "worn",
    )
)  # fmt: skip


def noun_of(phrase: str) -> str:
    """`the two red cats wearing a hat` -> `cats`; empty if the phrase has no word."""
    words: list[str] = _WORD.findall(phrase)
    while len(words) > 1 and words[0].casefold() in _BEFORE:
        words = words[1:]
    for place, word in enumerate(words):
        if place and word.casefold() in _BEHIND:
            return words[place - 1]
    return words[-1] if words else ""


def singular(noun: str) -> str:
    """A key that is equal for singular and plural of a noun; not necessarily a correct singular."""
    folded = noun.casefold().strip()
    if len(folded) > 4 and folded.endswith("ies"):
        return folded[:-3] + "y"
    if len(folded) > 4 and folded.endswith(("ses", "xes", "ches", "shes")):
        return folded[:-2]
    if len(folded) > 3 and folded.endswith("s") and not folded.endswith("ss"):
        return folded[:-1]
    return folded

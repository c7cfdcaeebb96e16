"""What a vision-language model is told to answer, and the only form in which it may."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, ValidationError

from natadv.config import Strict
from natadv.errors import DataError
from natadv.scenarios.annotate.asked import MOST_WORDS, Asked, each_once, tidy

SYSTEM = (
    "You write test questions for visual question answering, as in VQA v2. Every question must be "
    "decided by what the picture shows, by nothing else, and everybody who sees the picture must "
    f"give the same answer. Answers have 1 to {MOST_WORDS} words, in lower case, numbers as "
    "digits; a yes/no question is answered by 'yes' or 'no' alone. Do not ask about text in the "
    "picture. Ask questions of different kinds: at least one answered by yes or no, one by a "
    "number and one by another word, as far as their count allows."
)


class _Pair(Strict):
    question: str
    answer: str


class _Reply(Strict):
    questions: Annotated[tuple[_Pair, ...], Field(strict=False)]


def request(*, count: int, shows: str | None) -> str:
    """The user's text beside the picture; `shows` is the label, if there is one."""
    hint = f" It shows: {shows}." if shows else ""
    return f"Write exactly {count} questions about this picture, with their answers.{hint}"


def schema() -> dict[str, Any]:
    """The strict JSON schema of a reply: every key required, no other allowed."""
    pair = {
        "type": "object",
        "properties": {"question": {"type": "string"}, "answer": {"type": "string"}},
        "required": ["question", "answer"],
        "additionalProperties": False,
    }
    return {
        "type": "object",
        "properties": {"questions": {"type": "array", "items": pair}},
        "required": ["questions"],
        "additionalProperties": False,
    }


def reply_of(text: str, *, count: int) -> tuple[Asked, ...]:
    """The questions of a reply. Endpoints that ignore the schema are held to it all the same.

    Raises:
        DataError: It is not JSON of that schema, not `count` questions, or one is of no use.
    """
    try:
        reply = _Reply.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"])) or "the reply"
        raise DataError(f"{place}: {first['msg']}, came {text[:80]!r}") from error
    if len(reply.questions) != count:
        raise DataError(f"expected {count} questions, came {len(reply.questions)}")
    pairs = enumerate(reply.questions)
    found = [tidy(pair.question, pair.answer, where=f"questions.{i}") for i, pair in pairs]
    return each_once(found, where="the reply")

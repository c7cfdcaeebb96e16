"""What an endpoint was paid for, over all runs: every reply counts, also one of no use."""

from __future__ import annotations

import json
import os
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, TypeGuard, final

from natadv.errors import ConfigError, DataError

_MILLION = 1_000_000


class Tokens(NamedTuple):
    """Of a reply, or of many."""

    prompt: int
    completion: int


_NONE = Tokens(0, 0)


def tokens_of(prompt: object, completion: object) -> Tokens | None:
    """What an endpoint says that a reply took; None if it is not two whole numbers from 0."""
    if _is_count(prompt) and _is_count(completion):
        return Tokens(prompt, completion)
    return None


def _is_count(value: object) -> TypeGuard[int]:
    # A bool is an int, but no count.
    return type(value) is int and value >= 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """In any currency, per million tokens."""

    prompt: float = 0.0
    completion: float = 0.0
    budget: float | None = None
    """What all may cost together."""

    def cost(self, tokens: Tokens) -> float:
        return (tokens.prompt * self.prompt + tokens.completion * self.completion) / _MILLION


@final
@dataclass(slots=True)
class Ledger:
    """A file of one line per reply, so that a killed run forgets none."""

    path: Path
    prices: Prices
    replies: int = 0
    untold: int = 0
    """Replies of this run, beside those, whose tokens the endpoint did not tell."""
    tokens: Tokens = field(default=_NONE)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def __post_init__(self) -> None:
        if not self.path.exists():
            return
        content = self.path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if whole != content:
            # A kill has torn the last line.
            os.truncate(self.path, len(whole))
        for number, text in enumerate(whole.decode("utf-8", "replace").splitlines(), start=1):
            self._count(self._parsed(text, number))

    def add(self, tokens: Tokens) -> None:
        with self._lock:
            self._count(tokens)
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                with self.path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(tokens._asdict()) + "\n")
            except OSError as error:
                raise DataError(
                    f"{self.path}: cannot be written: {error.strerror}; free space, and run again"
                ) from error

    def add_untold(self) -> None:
        """A reply that cannot be counted. Raises ConfigError if there is a budget to keep."""
        with self._lock:
            self.untold += 1
        if self.prices.budget is not None:
            raise ConfigError(
                "the endpoint does not tell how many tokens a reply took (usage.prompt_tokens and "
                "usage.completion_tokens), so --budget cannot be kept; what was answered before is "
                "kept: go on without --budget, if the endpoint has a limit of its own"
            )

    def check_budget(self) -> None:
        """Raises ConfigError once it is spent."""
        budget = self.prices.budget
        if budget is not None and self.prices.cost(self.tokens) >= budget:
            raise ConfigError(
                f"the budget of {budget:g} is spent ({self.told()}); what was answered is kept: "
                "raise --budget to go on"
            )

    def told(self) -> str:
        """One line for people."""
        prompt, completion = self.tokens
        text = f"{self.replies} replies, {prompt} tokens in, {completion} tokens out"
        if self.untold:
            text += f", not counted {self.untold} replies whose tokens were not told"
        priced = self.prices.prompt > 0 or self.prices.completion > 0
        return f"{text}, cost {self.prices.cost(self.tokens):.4f}" if priced else text

    def _count(self, tokens: Tokens) -> None:
        self.replies += 1
        self.tokens = Tokens(*(a + b for a, b in zip(self.tokens, tokens, strict=True)))

    def _parsed(self, text: str, number: int) -> Tokens:
        try:
            row = json.loads(text)
            tokens = tokens_of(row["prompt"], row["completion"])
        except (ValueError, KeyError, TypeError):
            tokens = None
        if tokens is None:
            raise DataError(
                f"{self.path}:{number}: expected the tokens of a reply, came {text[:40]!r}; delete "
                "that line"
            )
        return tokens

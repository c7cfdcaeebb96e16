"""Limits on the use of an endpoint: requests per minute, and a ledger of paid tokens."""

from __future__ import annotations

import json
import os
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, final

from pydantic import Field, ValidationError

from natadv.config import Strict
from natadv.errors import ConfigError, DataError

_MILLION = 1_000_000
_Count = Annotated[int, Field(ge=0)]


class Tokens(Strict):
    """The tokens of one reply or of many; also one line of the ledger."""

    prompt: _Count
    completion: _Count


@final
@dataclass(slots=True)
class CostLedger:
    """The tokens that all runs have paid for: one line per reply, usable or not.

    Raises DataError if a line of the file is invalid.
    """

    path: Path
    price_in: float = 0.0
    """Per million tokens of requests, in any currency."""
    price_out: float = 0.0
    """Per million tokens of replies."""
    budget: float | None = None
    """The total that all runs together may cost."""
    replies: int = 0
    uncounted: int = 0
    """Further replies of this run, whose tokens the endpoint did not report."""
    tokens: Tokens = field(default=Tokens(prompt=0, completion=0))
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def __post_init__(self) -> None:
        if not self.path.exists():
            return
        content = self.path.read_bytes()
        complete = content[: content.rfind(b"\n") + 1]
        if complete != content:
            # A kill cut the last line off.
            os.truncate(self.path, len(complete))
        for number, text in enumerate(complete.decode("utf-8", "replace").splitlines(), start=1):
            try:
                self._count(Tokens.model_validate_json(text))
            except ValidationError as error:
                raise DataError(
                    f"{self.path}:{number}: expected the tokens of a reply, got {text[:40]!r}; "
                    "delete that line"
                ) from error

    @property
    def cost(self) -> float:
        """In the currency of the prices."""
        tokens = self.tokens
        return (tokens.prompt * self.price_in + tokens.completion * self.price_out) / _MILLION

    def add(self, tokens: Tokens) -> None:
        """Count a reply. Raises DataError if the file cannot be written."""
        with self._lock:
            self._count(tokens)
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                with self.path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(tokens.model_dump()) + "\n")
            except OSError as error:
                raise DataError(
                    f"{self.path}: cannot be written: {error.strerror}; free space, and run again"
                ) from error

    def add_uncounted(self) -> None:
        """Count a reply without known tokens. Raises ConfigError if there is a budget to keep."""
        with self._lock:
            self.uncounted += 1
        if self.budget is not None:
            raise ConfigError(
                "the endpoint does not report how many tokens a reply took "
                "(usage.prompt_tokens and usage.completion_tokens), so --budget cannot be kept; "
                "earlier answers are kept: continue without --budget if the endpoint has its own"
            )

    def check_budget(self) -> None:
        """Raises ConfigError if the budget is spent."""
        if self.budget is not None and self.cost >= self.budget:
            raise ConfigError(
                f"the budget of {self.budget:g} is spent ({self.summary()}); earlier answers are "
                "kept: raise --budget to continue"
            )

    def summary(self) -> str:
        """One line with the replies, their tokens and, if there are prices, their cost."""
        tokens = self.tokens
        text = f"{self.replies} replies, {tokens.prompt} tokens in, {tokens.completion} tokens out"
        if self.uncounted:
            text += f", not counted {self.uncounted} replies whose tokens were not reported"
        priced = self.price_in > 0 or self.price_out > 0
        return f"{text}, cost {self.cost:.4f}" if priced else text

    def _count(self, tokens: Tokens) -> None:
        self.replies += 1
        self.tokens = Tokens(
            prompt=self.tokens.prompt + tokens.prompt,
            completion=self.tokens.completion + tokens.completion,
        )


@final
class RateLimiter:
    """Spaces the requests of all threads evenly; `per_minute` None sets no limit."""

    def __init__(self, per_minute: float | None) -> None:
        self._every_s = 60 / per_minute if per_minute else 0.0
        self._lock = threading.Lock()
        self._next = self._paused_until = time.monotonic()

    def wait(self) -> None:
        """Sleep until the next request may be made."""
        with self._lock:
            now = time.monotonic()
            turn = max(now, self._next)
            self._next = turn + self._every_s
        if turn > now:
            time.sleep(turn - now)

    def pause(self, seconds: float) -> None:
        """Let no thread make a request for that long."""
        with self._lock:
            self._paused_until = max(self._paused_until, time.monotonic() + seconds)
            self._next = max(self._next, self._paused_until)

    def pause_s(self) -> float:
        """The remaining seconds of the pause."""
        return max(0.0, self._paused_until - time.monotonic())

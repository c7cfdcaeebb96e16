"""One run's own journal: what was tried, what failed, what happened; never a cached truth."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from natadv.engine.store import Store, write_atomically

MAX_ATTEMPTS = 2
"""Workers that one unit may take down before it is given up."""

MAX_DEADLY_UNITS = 2
"""Units of one model that may be given up so, before its other units are given up untried: a model
that kills whoever loads it would use up the workers that other models need."""


class Run:
    """Errors and attempts belong to a run: yesterday's out-of-memory must not be cached."""

    def __init__(self, store: Store, run_id: str) -> None:
        self.id = run_id
        self.folder = store.root / "runs" / run_id

    @property
    def events_path(self) -> Path:
        return self.folder / "events.jsonl"

    def prepare(self) -> None:
        for name in ("attempts", "errors", "deadly"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)

    def attempts(self, key: str) -> int:
        """How many processes began this unit and never ended it."""
        try:
            return (self.folder / "attempts" / key).stat().st_size
        except FileNotFoundError:
            return 0

    def begin(self, key: str) -> None:
        with (self.folder / "attempts" / key).open("ab") as file:
            file.write(b"x")
            file.flush()
            os.fsync(file.fileno())

    def end(self, key: str) -> None:
        (self.folder / "attempts" / key).unlink(missing_ok=True)

    def give_up(self, key: str, *, weights: str, reason: str) -> None:
        """Record a unit that no worker survives."""
        deadly = self.folder / "deadly" / weights
        deadly.mkdir(exist_ok=True)
        (deadly / key).touch()
        self.fail(key, reason)

    def is_deadly(self, weights: str) -> bool:
        """True if the model took down so many workers that it is not tried again."""
        deadly = self.folder / "deadly" / weights
        return deadly.is_dir() and len(list(deadly.iterdir())) >= MAX_DEADLY_UNITS

    def error(self, key: str) -> str | None:
        try:
            return (self.folder / "errors" / key).read_text()
        except FileNotFoundError:
            return None

    def fail(self, key: str, reason: str) -> None:
        write_atomically(self.folder / "errors" / key, reason)

    def tell(self, kind: str, **facts: Any) -> None:
        """Append one event; short appends of many processes do not mix."""
        line = json.dumps({"t": time.time(), "pid": os.getpid(), "kind": kind, **facts})
        descriptor = os.open(self.events_path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(descriptor, (line + "\n").encode())
        finally:
            os.close(descriptor)

    def events(self) -> list[dict[str, Any]]:
        try:
            lines = self.events_path.read_text().splitlines()
        except FileNotFoundError:
            return []
        return [json.loads(line) for line in lines if line.endswith("}")]

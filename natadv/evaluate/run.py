"""One run's own journal: what was tried, what failed, what happened; never a cached truth."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from natadv.evaluate.store import Store, write_atomically, writing

MAX_ATTEMPTS = 2
"""Workers that one unit may take down before it is given up."""

MAX_DEADLY_UNITS = 2
"""Units of one model that may be given up so, before its other units are given up untried: a model
that kills whoever loads it would use up the workers that other models need."""


class Run:
    """Errors and attempts belong to a run: yesterday's out-of-memory must not be cached.

    Whatever writes raises StoreError if the disk is full or read-only.
    """

    def __init__(self, store: Store, run_id: str) -> None:
        self.id = run_id
        self.folder = store.root / "runs" / run_id

    @property
    def events_path(self) -> Path:
        return self.folder / "events.jsonl"

    def prepare(self) -> None:
        with writing(self.folder):
            for name in ("attempts", "errors", "deadly"):
                (self.folder / name).mkdir(parents=True, exist_ok=True)

    def attempts(self, key: str) -> int:
        """How many processes began this unit and never ended it."""
        try:
            return (self.folder / "attempts" / key).stat().st_size
        except FileNotFoundError:
            return 0

    def begin(self, key: str) -> None:
        path = self.folder / "attempts" / key
        with writing(path), path.open("ab") as file:
            file.write(b"x")
            file.flush()
            os.fsync(file.fileno())

    def end(self, key: str) -> None:
        path = self.folder / "attempts" / key
        with writing(path):
            path.unlink(missing_ok=True)

    def mark_deadly(self, key: str, *, weights: str) -> None:
        """Record a unit that no worker survives, against its model."""
        deadly = self.folder / "deadly" / weights
        with writing(deadly):
            deadly.mkdir(exist_ok=True)
            (deadly / key).touch()

    def is_deadly(self, weights: str) -> bool:
        """True if the model took down so many workers that it is not tried again."""
        deadly = self.folder / "deadly" / weights
        return deadly.is_dir() and len(list(deadly.iterdir())) >= MAX_DEADLY_UNITS

    def error(self, key: str) -> str | None:
        try:
            return (self.folder / "errors" / key).read_text(encoding="utf-8")
        except FileNotFoundError:
            return None

    def fail(self, key: str, reason: str) -> None:
        write_atomically(self.folder / "errors" / key, reason)

    def tell(self, kind: str, **facts: Any) -> None:
        """Append one event; short appends of many processes do not mix."""
        line = json.dumps({"t": time.time(), "pid": os.getpid(), "kind": kind, **facts})
        # Unbuffered: one write per line.
        with writing(self.events_path), self.events_path.open("ab", buffering=0) as file:
            file.write((line + "\n").encode())

    def events(self) -> list[dict[str, Any]]:
        try:
            lines = self.events_path.read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return []
        found = map(_event, lines)
        return [event for event in found if event is not None]


def _event(line: str) -> dict[str, Any] | None:
    """None for what a dying process or a full disk left of a line."""
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None

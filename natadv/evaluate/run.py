"""The journal of one run: attempts, errors and events. Later runs never read it."""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from natadv.evaluate.store import Store, write_atomically, writing
from natadv.evaluate.units import Unit

MAX_ATTEMPTS = 2
"""Workers that one unit may crash before the run gives it up."""

MAX_DEADLY_UNITS = 2
"""Units of one model that may be given up so before its other units are given up untried: a model
that crashes every worker would use up the workers that other models need."""


MOST_JOURNALS = 20
"""Earlier runs whose journals are asked how long units take."""

_NO_GPU = "no_gpu"
"""The file that says why no GPU is left."""


def new_run_id() -> str:
    """A name that no other run of the store has."""
    return f"{os.getpid()}-{uuid.uuid4().hex[:8]}"


class Run:
    """Errors and attempts belong to a run, as an error may not happen again in the next.

    All methods that write raise StoreError if the disk is full or read-only.
    """

    def __init__(self, store: Store, run_id: str) -> None:
        self.id = run_id
        self.store = store
        self.folder = store.root / "runs" / run_id

    @property
    def events_path(self) -> Path:
        """The journal: one JSON object per line."""
        return self.folder / "events.jsonl"

    def prepare(self) -> None:
        """Create the folders of the run."""
        with writing(self.folder):
            for name in ("attempts", "errors", "hopeless", "deadly", "fitting", "smaller"):
                (self.folder / name).mkdir(parents=True, exist_ok=True)

    def deaths(self, key: str) -> tuple[str, ...]:
        """The GPU (or `cpu`) of each process that began this unit and died before it ended it."""
        try:
            return tuple((self.folder / "attempts" / key).read_text().splitlines())
        except FileNotFoundError:
            return ()

    def begin(self, key: str, *, gpu: str) -> None:
        """Record, durably, that this process begins the unit on this GPU (or `cpu`)."""
        path = self.folder / "attempts" / key
        with writing(path), path.open("ab") as file:
            file.write(f"{gpu}\n".encode())
            file.flush()
            os.fsync(file.fileno())

    def end(self, key: str) -> None:
        """Record that the unit ended, with a result or an error."""
        path = self.folder / "attempts" / key
        with writing(path):
            path.unlink(missing_ok=True)

    def mark_deadly(self, key: str, *, weights: str) -> None:
        """Record that the unit crashes workers, against its model."""
        deadly = self.folder / "deadly" / weights
        with writing(deadly):
            deadly.mkdir(exist_ok=True)
            (deadly / key).touch()

    def is_deadly(self, weights: str) -> bool:
        """Whether the model crashed so many workers that the run does not try it again."""
        deadly = self.folder / "deadly" / weights
        return deadly.is_dir() and len(list(deadly.iterdir())) >= MAX_DEADLY_UNITS

    def fitting_batch(self, unit: Unit, *, gpu: str) -> int:
        """Pictures per forward pass: what the unit asks for, or the smaller number that was found
        to fit its model on this GPU in this run. The next run tries again what was asked for, as
        another program may have taken the memory."""
        asked = unit.numerics.batch_size
        try:
            return min(asked, int(self._fitting(unit, gpu).read_text()))
        except FileNotFoundError:
            return asked

    def record_fitting_batch(self, unit: Unit, pictures: int, *, gpu: str) -> None:
        """Let all processes of this run use batches of this many pictures on this GPU."""
        write_atomically(self._fitting(unit, gpu), str(pictures))

    def _fitting(self, unit: Unit, gpu: str) -> Path:
        return self.folder / "fitting" / f"{unit.weights}-{file_name_of(gpu)}"

    def smaller_batch(self, key: str) -> int | None:
        """Pictures per forward pass with which the unit was computed in this run, if they were
        fewer than it asks for."""
        try:
            return int((self.folder / "smaller" / key).read_text())
        except FileNotFoundError:
            return None

    def record_smaller_batch(self, unit: Unit, pictures: int) -> None:
        """Make the result with batches of this many pictures the unit's result in this run."""
        write_atomically(self.folder / "smaller" / unit.key, str(pictures))

    def result_key(self, unit: Unit) -> str:
        """The key of the unit's result in this run, which names the batch that it was computed
        with."""
        pictures = self.smaller_batch(unit.key)
        return unit.key if pictures is None else unit.in_batches_of(pictures).key

    def error(self, key: str) -> str | None:
        """Why the unit, or loading the model of these weights, failed in this run; None if it did
        not."""
        # Where no GPU is left, the GPUs are to blame, and not units or models.
        for path in ("errors/" + key, _NO_GPU, "hopeless/" + key):
            with suppress(FileNotFoundError):
                return (self.folder / path).read_text(encoding="utf-8")
        return None

    def fail(self, key: str, reason: str) -> None:
        """Give up the unit, or the model of these weights, for the rest of this run."""
        write_atomically(self.folder / "errors" / key, reason)

    def give_up(self, key: str, reason: str) -> None:
        """Give up the unit because it or its model seems to kill workers."""
        write_atomically(self.folder / "hopeless" / key, reason)

    def end_without_gpu(self, reason: str) -> None:
        """Give up all units that have no result and no error: no GPU can compute them."""
        write_atomically(self.folder / _NO_GPU, reason)

    def tell(self, kind: str, **facts: Any) -> None:
        """Append one event. Processes may do so at the same time: short appends do not mix."""
        line = json.dumps({"t": time.time(), "pid": os.getpid(), "kind": kind, **facts})
        # Unbuffered: one write per line.
        with writing(self.events_path), self.events_path.open("ab", buffering=0) as file:
            file.write((line + "\n").encode())

    def events(self) -> list[dict[str, Any]]:
        """All events so far, of all processes."""
        try:
            lines = self.events_path.read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return []
        return [event for event in map(_event, lines) if event is not None]

    def earlier_seconds(self, titles: Collection[str], *, device: str) -> dict[str, float]:
        """Title of a unit -> how long a process was busy with it when it was last computed on such
        a device, loading its model included; only what the last runs of the store computed."""
        found: dict[str, float] = {}
        for name in self._others_newest_first():
            if found.keys() >= set(titles):
                break
            events = Run(self.store, name).events()
            if any(e.get("kind") == "plan" and e.get("device") == device for e in events):
                found = _seconds(events) | found
        return {title: found[title] for title in titles if title in found}

    def _others_newest_first(self) -> list[str]:
        began: dict[str, float] = {}
        for path in self.folder.parent.glob("*/events.jsonl"):
            # Somebody may tidy the store meanwhile.
            with suppress(OSError):
                began[path.parent.name] = path.stat().st_mtime
        began.pop(self.id, None)
        return sorted(began, key=lambda name: -began[name])[:MOST_JOURNALS]


def _seconds(events: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    began: dict[tuple[Any, Any], float] = {}
    took: dict[str, float] = {}
    for event in events:
        process = (event.get("pid"), event.get("unit"))
        if event.get("kind") == "start":
            began[process] = event.get("t", 0.0)
        elif event.get("kind") == "done" and process in began:
            took[event["unit"]] = max(0.0, event.get("t", 0.0) - began[process])
    return took


def file_name_of(gpu: str) -> str:
    """The id of a GPU as part of a file name: that of a MIG slice may hold slashes."""
    return gpu.replace("/", "_")


def _event(line: str) -> dict[str, Any] | None:
    """None for a line that a dying process or a full disk cut off."""
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None

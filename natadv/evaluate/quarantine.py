"""Takes GPUs that lose workers out of a run.

A worker that dies leaves its GPU in the record of its attempt; whoever takes the unit next books
the loss. A unit that was lost on several GPUs is itself at fault, and counts against none of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from natadv.evaluate.devices import CPU
from natadv.evaluate.run import MAX_DEADLY_UNITS, Run, file_name_of
from natadv.evaluate.store import write_atomically, writing
from natadv.evaluate.units import Unit

MAX_LOST_UNITS = 3
"""A GPU is quarantined once this many units lost a worker on it and on no other GPU."""

_COMPUTED = ""
"""Replaces the model in the record of a loss if the unit was computed after all."""


class Quarantine:
    """The record of one run, which all of its processes share. Methods raise StoreError."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self._gpus = run.folder / "gpus"
        self._closed = run.folder / "quarantine"

    def watch(self, gpus: Iterable[str]) -> None:
        """Begin the record of the GPUs that the run uses."""
        for gpu in gpus:
            with writing(self._folder(gpu)):
                self._folder(gpu).mkdir(parents=True, exist_ok=True)

    def reasons(self) -> dict[str, str]:
        """GPU -> why no worker uses it any more."""
        texts = [path.read_text(encoding="utf-8") for path in _records(self._closed)]
        return dict(text.split("\n", 1) for text in texts)

    def holds(self, gpu: str) -> bool:
        """Whether the GPU is in quarantine."""
        return (self._closed / file_name_of(gpu)).exists()

    def close(self, gpu: str, reason: str) -> None:
        """Quarantine the GPU; if it was the last one, end the run for that reason."""
        if not self.holds(gpu):
            write_atomically(self._closed / file_name_of(gpu), f"{gpu}\n{reason}")
            self.run.tell("quarantined", gpu=gpu, reason=reason)
        if not self._others(gpu):
            reasons = "; ".join(f"GPU {name} {why}" for name, why in self.reasons().items())
            self.run.end_without_gpu(f"no GPU is left: {reasons}")

    def book(self, unit: Unit) -> int:
        """Book the deaths of a unit whose lock this process holds. Returns how many of them may be
        its own fault: not those on a GPU that is in quarantine."""
        deaths = self.run.deaths(unit.key)
        for gpu in {*deaths} - {CPU}:
            self.watch([gpu])
            if not (record := self._folder(gpu) / unit.key).exists():
                write_atomically(record, unit.weights)
                self._judge(gpu)
        return sum(not self.holds(gpu) for gpu in deaths)

    def absolve(self, unit: Unit) -> None:
        """Record that a unit was computed, so that earlier deaths were not its fault. The
        last attempt is that of this process."""
        for gpu in {*self.run.deaths(unit.key)[:-1]} - {CPU}:
            write_atomically(self._folder(gpu) / unit.key, _COMPUTED)
            self._judge(gpu)

    def avoids(self, unit: Unit, *, gpu: str) -> bool:
        """Whether another GPU should try the unit first: it or its model lost workers here."""
        lost = self._lost(gpu)
        if not lost or not self._others(gpu):
            return False
        return unit.key in lost or [*lost.values()].count(unit.weights) >= MAX_DEADLY_UNITS

    def _judge(self, gpu: str) -> None:
        lost = self._lost(gpu)
        computed = [key for key, weights in lost.items() if weights == _COMPUTED]
        suspects = Counter(weights for weights in lost.values() if weights != _COMPUTED)
        # A model that crashes everywhere must not cost a GPU, let alone the only one.
        most = MAX_DEADLY_UNITS if self._others(gpu) else 1
        count = len(computed) + sum(min(n, most) for n in suspects.values())
        if count >= MAX_LOST_UNITS:
            self.close(gpu, f"lost its worker in {len(lost)} units that no other GPU lost")

    def _lost(self, gpu: str) -> dict[str, str]:
        """Units that lost a worker on this GPU and on no other -> their model, if it is unknown
        whether they can be computed."""
        own = self._folder(gpu)
        others = [folder for folder in _records(self._gpus) if folder != own]
        return {
            path.name: path.read_text()
            for path in _records(own)
            if not any((folder / path.name).exists() for folder in others)
        }

    def _others(self, gpu: str) -> bool:
        """Whether another GPU of the run may be used."""
        names = {path.name for path in _records(self._gpus)} - {file_name_of(gpu)}
        return any(not (self._closed / name).exists() for name in names)

    def _folder(self, gpu: str) -> Path:
        return self._gpus / file_name_of(gpu)


def _records(folder: Path) -> list[Path]:
    """The paths in the folder, which may not exist, without those that are being written."""
    return sorted(path for path in folder.glob("*") if path.name[0] != ".")

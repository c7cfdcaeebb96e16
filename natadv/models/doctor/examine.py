"""`natadv doctor`: is this model fed as it was trained, and how far can its numbers be trusted?"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from natadv.errors import NatadvError
from natadv.models.doctor import answering as answer_checks
from natadv.models.doctor import segmenting as segment_checks
from natadv.models.doctor import zero_shot as zero_shot_checks
from natadv.models.doctor.findings import Check, Finding, Patient
from natadv.models.loading import content_files, fingerprint, load
from natadv.types import ModelSpec, Task

CHECKS: Mapping[Task, Mapping[str, Check]] = {
    "classification": zero_shot_checks.CHECKS,
    "segmentation": segment_checks.CHECKS,
    "vqa": answer_checks.CHECKS,
}


@dataclass(frozen=True, slots=True)
class Line:
    """One check and what came of it."""

    check: str
    finding: Finding

    def __str__(self) -> str:
        word = "ok  " if self.finding.ok else "FAIL"
        return f"{word}  {self.check:<15} {self.finding.text}"


def examine(
    spec: ModelSpec, *, device: str, dtype: str, known: Path | None = None
) -> Iterator[Line]:
    """Line after line, as the checks end; a model that cannot be loaded is not examined further."""
    patients: list[Patient] = []
    yield Line("files", _told(partial(_files, spec)))
    yield Line("loading", _told(partial(_loaded, spec, device, dtype, known, patients)))
    for patient in patients:
        yield from _checked(patient)


def _checked(patient: Patient) -> Iterator[Line]:
    for task in patient.spec.tasks:
        for name, check in CHECKS[task].items():
            yield Line(name, _told(partial(check, patient)))


def _files(spec: ModelSpec) -> Finding:
    weights, files = fingerprint(spec), content_files(spec)
    locked = ", as models.lock says" if spec.locked else ""
    size_mb = sum(path.stat().st_size for path in files) / 1e6
    return Finding(True, f"{len(files)} files, {size_mb:.1f} MB, hash {weights[:12]}{locked}")


def _loaded(
    spec: ModelSpec, device: str, dtype: str, known: Path | None, patients: list[Patient]
) -> Finding:
    began = time.perf_counter()
    model = load(spec, device=device, dtype=dtype, threads=1)
    patients.append(Patient(spec, model, dtype, known))
    wall_s = time.perf_counter() - began
    return Finding(True, f"{spec.loader}, {dtype} on {device}, {wall_s:.1f} s")


def _told(examination: Callable[[], Finding]) -> Finding:
    try:
        return examination()
    except NatadvError as error:
        return Finding(False, str(error))
    # A border: a model that is not well may raise anything.
    except Exception as error:
        return Finding(False, f"{type(error).__name__}: {error}")

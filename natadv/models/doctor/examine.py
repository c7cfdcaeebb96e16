"""`natadv doctor`: is this model fed as it was trained, and how far can its numbers be trusted?"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from natadv.errors import NatadvError
from natadv.models.doctor.checks import CHECKS, Finding, Patient
from natadv.models.loading import content_files, fingerprint, load
from natadv.types import ModelSpec


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One check and its finding."""

    check: str
    finding: Finding

    def __str__(self) -> str:
        word = "ok  " if self.finding.ok else "FAIL"
        return f"{word}  {self.check:<15} {self.finding.text}"


def examine(
    spec: ModelSpec, *, device: str, dtype: str, known: Path | None = None
) -> Iterator[CheckResult]:
    """The results as the checks end; a model that cannot be loaded is not examined further.

    `known` is a folder of pictures that the model must recognise, each named after its class.
    """
    patients: list[Patient] = []

    def loading() -> Finding:
        began = time.perf_counter()
        model = load(spec, device=device, dtype=dtype, threads=1)
        patients.append(Patient(spec, model, dtype, known))
        wall_s = time.perf_counter() - began
        return Finding(True, f"{spec.loader}, {dtype} on {device}, {wall_s:.1f} s")

    yield _result("files", partial(_files, spec))
    yield _result("loading", loading)
    for patient in patients:
        for task in spec.tasks:
            for name, check in CHECKS[task].items():
                yield _result(name, partial(check, patient))


def _files(spec: ModelSpec) -> Finding:
    weights, files = fingerprint(spec), content_files(spec)
    locked = ", as models.lock says" if spec.locked else ""
    size_mb = sum(path.stat().st_size for path in files) / 1e6
    return Finding(True, f"{len(files)} files, {size_mb:.1f} MB, hash {weights[:12]}{locked}")


def _result(name: str, check: Callable[[], Finding]) -> CheckResult:
    try:
        return CheckResult(name, check())
    except NatadvError as error:
        return CheckResult(name, Finding(False, str(error)))
    # A border: a faulty model may raise anything.
    except Exception as error:
        return CheckResult(name, Finding(False, f"{type(error).__name__}: {error}"))

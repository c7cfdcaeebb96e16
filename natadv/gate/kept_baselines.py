"""Baselines by name: found in `baselines/`, and read; each has a record of the runs that it came
from."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from natadv.config import Strict
from natadv.errors import ConfigError, listed
from natadv.evidence import StoredCase, read_selection
from natadv.gate.cases import stored_cases
from natadv.types import Case

BASELINES = "baselines"
RECORD = "baseline.json"


class Blessing(Strict):
    """One run that was kept: who kept it, when, and what its verdict was."""

    by: str
    at: str
    """Date and time in UTC, as ISO 8601."""
    verdict: Literal["pass", "partial"]
    tier: str
    extent: str
    """The cases that the verdict was about, in words."""
    commit: str
    run: str
    """The id of the run."""
    contract: str
    """Hash of the contract that the run kept."""
    cases: list[str]
    """Addresses of the cases that it added to the baseline."""


class _Record(Strict):
    version: Literal[1]
    blessings: list[Blessing]
    sha256: str
    """Of all other keys, so that an edit is noticed."""


def baseline_folder(given: str, *, here: Path, root: Path) -> Path:
    """The folder of a baseline that a user named: one in `root`/baselines, or any from `here`.

    Raises ConfigError if both are there.
    """
    named, folder = root / BASELINES / given, here / given
    if Path(given).name != given or not named.is_dir():
        return folder
    if folder.is_dir() and folder.resolve() != named.resolve():
        raise ConfigError(
            f"{given!r} is a baseline and a folder; say {BASELINES}/{given} or ./{given}"
        )
    return named


def baseline_for(
    evidence: Path, given: str, *, here: Path, root: Path
) -> Mapping[Case, StoredCase]:
    """All cases of the baseline that a user named for the run whose evidence lies, or will lie, in
    that folder; `here` and `root` as in `baseline_folder`.

    Raises ConfigError, as `read_baseline`, and if the run would be compared with itself.
    """
    folder = baseline_folder(given, here=here, root=root)
    # Path.resolve raises RuntimeError for a link to itself.
    if os.path.realpath(evidence) == os.path.realpath(folder):
        raise ConfigError(
            f"--baseline {folder} is where this run's own evidence lies, so it would be compared "
            "with itself; keep the earlier run by natadv bless, or give another --evidence DIR"
        )
    return read_baseline(folder)


def read_baseline(folder: Path) -> Mapping[Case, StoredCase]:
    """All cases of a baseline, or of the evidence of an earlier run.

    Raises ConfigError if one was changed or removed: a candidate must not be spared a comparison.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder of evidence{_known(folder)}")
    stored, broken = stored_cases(folder)
    if broken:
        raise ConfigError("the baseline cannot be read: " + "; ".join(broken.values()))
    if lost := sorted(set(_promised(folder)) - set(map(str, stored))):
        raise ConfigError(f"{folder}: lacks {listed(lost)}, which it says it holds; get it back")
    if not stored:
        advice = "keep a run by natadv bless, or give the folder of an --evidence DIR"
        raise ConfigError(f"{folder}: holds no case to compare with; {advice}")
    return stored


def _known(folder: Path) -> str:
    """What may help whoever named a baseline that is not here."""
    if folder.with_name(f"{folder.name}.dvc").exists():
        return f"; run dvc pull {folder}.dvc"
    kept = folder if folder.parent.name == BASELINES else folder.parent / BASELINES / folder.name
    names = sorted(p.name for p in kept.parent.glob("[!.]*") if (p / RECORD).is_file())
    if names:
        return f", and {BASELINES}/ has {listed(names)}"
    return "; run the suites with --evidence DIR first, or natadv bless"


def _promised(folder: Path) -> Collection[str]:
    """The addresses that the folder must hold by its own account."""
    run = None if (folder / RECORD).exists() else read_selection(folder)
    # Evidence that was assembled by hand promises nothing, and is no baseline that anybody kept.
    if (folder / RECORD).exists() or (run is None and folder.parent.name == BASELINES):
        return [case for blessing in read_record(folder) for case in blessing.cases]
    return [case.address for case in run.cases] if run else ()


def read_record(folder: Path) -> list[Blessing]:
    """The runs that a baseline was made from. Raises ConfigError if the file was changed."""
    path = folder / RECORD
    try:
        raw = json.loads(path.read_bytes())
        record = _Record.model_validate(raw)
    except (OSError, ValueError, ValidationError, RecursionError) as error:
        why = str(error).splitlines()[0]
        raise ConfigError(f"{path}: is no record of a baseline ({why}); get it back") from error
    if record.sha256 != _hash(record.blessings):
        raise ConfigError(f"{path}: was changed after it was written; get it back")
    return record.blessings


def _hash(blessings: Collection[Blessing]) -> str:
    rows = [blessing.model_dump() for blessing in blessings]
    return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()


def write_record(folder: Path, blessings: Sequence[Blessing]) -> None:
    """Write the runs that a baseline was made from, as `read_record` reads them."""
    record = _Record(version=1, blessings=list(blessings), sha256=_hash(blessings))
    (folder / RECORD).write_text(json.dumps(record.model_dump(), indent=1) + "\n")

"""The files that tell of an attack: one that `natadv replay` reads, and its contact sheet."""

from __future__ import annotations

import re
from pathlib import Path

from natadv.evaluate.datasets import Dataset
from natadv.evaluate.units import digest
from natadv.models.resolve import slug
from natadv.search.attack import write_attack
from natadv.search.contact_sheet import attack_sheet, attacked_samples
from natadv.search.result import SearchResult
from natadv.storage.atomic import write_whole

_LONGEST_PART = 64
"""Characters; file names have 255 bytes for all their parts."""


def file_part(subject: str) -> str:
    """A class as a part of a file name: no two classes share one, whatever they are called."""
    if re.fullmatch(r"[A-Za-z0-9]+( [A-Za-z0-9]+)*", subject) and len(subject) <= _LONGEST_PART:
        return subject.replace(" ", "-")
    return f"{slug(subject)[:_LONGEST_PART]}-{digest(subject)[:8]}"


def file_stem(prefix: str, result: SearchResult) -> str:
    """Differs for every search beside one case."""
    return f"{prefix}__{file_part(result.subject)}{'__discovered' if result.discover else ''}"


def sheet_of(result: SearchResult, dataset: Dataset) -> bytes:
    """The contact sheet of a result that has an attack, as PNG."""
    assert result.attack is not None
    samples = attacked_samples(result.attack, result.predictions, dataset)
    return attack_sheet(result.attack, samples)


def save_attack(file: Path, result: SearchResult, dataset: Dataset) -> Path:
    """Writes the attack of a result that has one, and its sheet beside it; the sheet's path."""
    assert result.attack is not None
    write_attack(file, result.attack)
    sheet = file.with_suffix(".png")
    write_whole(sheet, sheet_of(result, dataset))
    return sheet

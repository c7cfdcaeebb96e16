"""What every method of defence takes, and what it returns."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from natadv.defences.halves import Half
from natadv.defences.network import Network
from natadv.defences.settings import DefenceSettings

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class MethodInputs:
    """What a method may look at: the judged half is not among it."""

    network: Network
    choice: Half
    settings: DefenceSettings
    templates: tuple[str, ...]
    """Prompts of the dataset's classes."""
    scratch: Path
    """A folder for what a training resumes from; it is deleted at the end."""
    identity: Mapping[str, Any]
    """Everything that decides the result: a training resumes from its own checkpoint only."""
    stream: TextIO = field(default_factory=lambda: sys.stderr)
    """Receives progress."""


@dataclass(frozen=True, slots=True)
class Defence:
    """What a method changes in the checkpoint; the rest is copied."""

    summary: str
    """What was done, in one line."""
    tensors: Mapping[str, torch.Tensor]
    """By the names of the stored weights."""
    facts: Mapping[str, Any]
    """What was chosen, for the report."""
    files: Mapping[str, bytes] = field(default_factory=dict)
    """Files that are added or replaced."""
    caveat: str = ""
    """What users outside of natadv must know, as a sentence; empty for an ordinary folder."""

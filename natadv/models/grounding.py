"""The two models behind `natadv annotate masks`: named, checked, and identified by a hash."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from natadv.errors import ModelError
from natadv.models.files import checkpoint, expanded
from natadv.models.files.layouts import GroundingRole, check_grounding
from natadv.models.hub import local as hub
from natadv.models.loading import placement_of, verified_hashes

if TYPE_CHECKING:
    from natadv.models.adapters.grounded_sam import BoxFinder, MaskDrawer

# As in grounded_sam_demo.py of Grounded-Segment-Anything.
BOXES = "IDEA-Research/grounding-dino-tiny"
MASKS = "facebook/sam-vit-huge"
BOX_THRESHOLD = 0.3
TEXT_THRESHOLD = 0.25


@dataclass(frozen=True, slots=True)
class Tool:
    """A checkpoint that exists and was checked, but is not loaded yet."""

    name: str
    folder: Path
    sha256: str
    """Over every file that affects its output."""


def tool(name: str, role: GroundingRole, *, root: Path) -> Tool:
    """The checkpoint in a folder, or of a hub id that was fetched. Raises ModelError if it is
    missing, damaged, of another role, or not the one in models.lock."""
    folder = expanded(name)
    locked: Mapping[str, str] = {}
    if not folder.is_dir():
        if not hub.is_id(name):
            raise ModelError(f"no folder {name!r}; give one, or the owner/name of a hub repository")
        folder, locked = hub.snapshot(name, root=root), hub.locked_files(name, root=root)
    check_grounding(folder, role)
    lines = verified_hashes(
        checkpoint.content_files(folder), locked=locked, command=f"natadv models fetch {name}"
    )
    return Tool(name if locked else folder.name, folder, hashlib.sha256(lines).hexdigest())


def load(boxes: Tool, masks: Tool, *, device: str, threads: int) -> tuple[BoxFinder, MaskDrawer]:
    """Both in float32; `threads` limits the CPU threads of the whole process. Raises ModelError if
    one of them cannot be loaded."""
    import torch

    from natadv.models.adapters.grounded_sam import BoxFinder, MaskDrawer

    # Their output is stored and reviewed, so kernels may add up in any order.
    torch.set_num_threads(threads)
    placement = placement_of(device, "float32")
    finder = BoxFinder(boxes.folder, placement=placement)
    return finder, MaskDrawer(masks.folder, placement=placement)

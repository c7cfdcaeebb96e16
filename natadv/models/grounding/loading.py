"""The two models that ground a phrase: named, checked, and told apart from others by a hash."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from natadv.errors import ModelError
from natadv.models.files import checkpoint, grounding_folder
from natadv.models.files.grounding_folder import Role
from natadv.models.files.paths import expanded
from natadv.models.hub import local as hub
from natadv.storage.hashes import sha256_of

if TYPE_CHECKING:
    from natadv.models.grounding.boxes import BoxFinder
    from natadv.models.grounding.masks import MaskDrawer

# As in grounded_sam_demo.py of Grounded-Segment-Anything.
BOXES = "IDEA-Research/grounding-dino-tiny"
MASKS = "facebook/sam-vit-huge"
BOX_THRESHOLD = 0.3
TEXT_THRESHOLD = 0.25


@dataclass(frozen=True, slots=True)
class Tool:
    """A checkpoint that was found, and not yet loaded."""

    name: str
    folder: Path
    sha256: str
    """Over every file that decides what it gives."""


def tool(name: str, role: Role, *, root: Path) -> Tool:
    """A folder, or a hub id that was fetched.

    Raises:
        ModelError: It is not here, not whole, not of that role, or not what models.lock names.
    """
    folder = expanded(name)
    locked: dict[str, str] = {}
    if not folder.is_dir():
        if not hub.is_id(name):
            raise ModelError(f"no folder {name!r}; give one, or the owner/name of a hub repository")
        folder, locked = hub.snapshot(name, root=root), dict(hub.locked_files(name, root=root))
    grounding_folder.check_role(folder, role)
    digest = hashlib.sha256()
    for path in checkpoint.content_files(folder):
        found = sha256_of(path)
        if locked and locked.get(path.name) != found:
            raise ModelError(
                f"{path}: sha256 is {found[:12]}, {hub.LOCK} says "
                f"{locked.get(path.name, 'nothing')[:12]}; run natadv models fetch {name} again"
            )
        digest.update(f"{path.name} {found}\n".encode())
    return Tool(name if locked else folder.name, folder, digest.hexdigest())


def load(boxes: Tool, masks: Tool, *, device: str, threads: int) -> tuple[BoxFinder, MaskDrawer]:
    """Both in float32; `threads` bounds the CPU threads of this whole process.

    Raises:
        ModelError: One of them cannot be loaded.
    """
    import torch

    from natadv.models.grounding.boxes import BoxFinder
    from natadv.models.grounding.masks import MaskDrawer
    from natadv.models.loading import placement_of

    # What they give is stored and reviewed, so kernels that add up in any order may be used.
    torch.set_num_threads(threads)
    placement = placement_of(device, "float32")
    return BoxFinder(boxes.folder, placement=placement), MaskDrawer(
        masks.folder, placement=placement
    )

"""A file that holds a picture tower alone, in open_clip's names: as Robust CLIP was published."""

from __future__ import annotations

import json
import math
from pathlib import Path

from natadv.errors import ModelError
from natadv.models.files import tensor_files

LOADER = "open-clip-visual"
ENDINGS = (".pt", ".pth")

AXES = {"class_embedding": 1, "positional_embedding": 2, "conv1.weight": 4, "proj": 2}
"""What every ViT of open_clip has, and how many axes."""

BLOCKS = "transformer.resblocks."


def fits(path: Path) -> bool:
    """Whether it is a file of torch.save, or a safetensors file with a picture tower."""
    if not path.is_file():
        return False
    if path.suffix == ".safetensors":
        return AXES.keys() <= tensor_files.shapes(path).keys()
    return path.suffix in ENDINGS


def check(path: Path) -> None:
    """Raise ModelError unless the file holds the picture tower of a ViT, and nothing else."""
    section(path)


def section(path: Path) -> dict[str, int]:
    """Its shape, in the words of the `vision_config` of transformers."""
    found = tensor_files.shapes(path)
    if missing := [name for name, axes in AXES.items() if len(found.get(name, ())) != axes]:
        raise ModelError(
            f"{path}: expected the picture tower of an open_clip ViT, but {', '.join(missing)} is "
            f"not in it ({tensor_files.listed(found)} is); save model.visual.state_dict(), or give "
            "a whole model as a folder"
        )
    width, _, patch, _ = found["conv1.weight"]
    blocks = {name.split(".")[2] for name in found if name.startswith(BLOCKS)}
    # The first place is that of the class token.
    side = math.isqrt(max(found["positional_embedding"][0] - 1, 0))
    return {
        "hidden_size": width,
        "num_hidden_layers": len(blocks),
        "patch_size": patch,
        "image_size": side * patch,
    }


def signature(path: Path) -> str:
    """Equal for towers of one shape."""
    return json.dumps({"open_clip_visual": section(path)}, sort_keys=True)


def content_files(path: Path) -> tuple[Path, ...]:
    """The file; the base tells of its own."""
    return (path,)

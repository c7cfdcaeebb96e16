"""How many pictures at once fit a device: tried once per model and device, and remembered."""

from __future__ import annotations

import gc
import re
from pathlib import Path

from natadv.engine.embeddings import space
from natadv.engine.store import write_atomically
from natadv.engine.units import Unit


def is_out_of_memory(error: BaseException) -> bool:
    """Of a GPU, or of the host."""
    import torch

    # Torch has no class for the second: its allocator for the CPU raises a bare RuntimeError.
    told = "not enough memory" in str(error) or "can't allocate memory" in str(error)
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or told


def free_memory() -> None:
    """Give back what the failed batch left behind."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def fitted_batch(root: Path, unit: Unit) -> int:
    """Pictures per forward pass: what was asked for, or less if that was found not to fit."""
    asked = unit.numerics.batch_size
    try:
        return min(asked, int(_record(root, unit).read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError):
        return asked


def record_batch(root: Path, unit: Unit, batch_size: int) -> None:
    write_atomically(_record(root, unit), str(batch_size))


def _record(root: Path, unit: Unit) -> Path:
    name = f"{space(unit.weights, unit.numerics)}-{_device_name(unit)}"
    return root / "batch_sizes" / name


def _device_name(unit: Unit) -> str:
    if unit.numerics.device != "cuda":
        return unit.numerics.device
    import torch

    return re.sub(r"\W+", "-", torch.cuda.get_device_name())

"""How many pictures at once fit a device: tried once per model and device, and remembered."""

from __future__ import annotations

import gc
import re
from pathlib import Path

from natadv.evaluate.embeddings import space
from natadv.evaluate.store import write_atomically
from natadv.evaluate.units import Unit
from natadv.storage.sealed import sealed, unsealed


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
    asked, path = unit.numerics.batch_size, _record(root, unit)
    try:
        known = unsealed(path.read_bytes(), name=path.name)
    except FileNotFoundError:
        return asked
    return asked if known is None else min(asked, int(known))


def record_batch(root: Path, unit: Unit, batch_size: int) -> None:
    path = _record(root, unit)
    write_atomically(path, sealed(str(batch_size), name=path.name))


def _record(root: Path, unit: Unit) -> Path:
    name = f"{space(unit.weights, unit.numerics)}-{_device_name(unit)}"
    return root / "batch_sizes" / name


def _device_name(unit: Unit) -> str:
    if unit.numerics.device != "cuda":
        return unit.numerics.device
    import torch

    return re.sub(r"\W+", "-", torch.cuda.get_device_name())

"""The GPUs that a process may use, found without importing torch."""

from __future__ import annotations

import os
import subprocess
from itertools import takewhile
from pathlib import Path

from natadv.errors import ConfigError
from natadv.evaluate.run import file_name_of
from natadv.evaluate.store import writing
from natadv.storage.locks import LockFile

CPU = "cpu"
CUDA = "cuda"
DEV = Path("/dev")


def visible_gpus() -> tuple[str, ...]:
    """Ids of the GPUs that the environment allows (opaque: numbers, UUIDs or MIG names)."""
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if listed is not None:
        # CUDA ignores all ids after an invalid one.
        parts = (part.strip() for part in listed.split(","))
        return tuple(takewhile(lambda part: part not in ("", "-1"), parts))
    query = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return ()
    return tuple(answer.stdout.split())


def device_kind(asked: str) -> str:
    """`cpu` or `cuda`; `auto` means `cuda` if there is a GPU.

    Raises ConfigError if `auto` would leave a GPU of this machine unused.
    """
    if asked != "auto":
        return asked
    if visible_gpus():
        return CUDA
    # A caller who hides all GPUs by the environment means it.
    if "CUDA_VISIBLE_DEVICES" not in os.environ and (nodes := sorted(DEV.glob("nvidia[0-9]*"))):
        raise ConfigError(
            f"this machine has a GPU ({nodes[0]}), but nvidia-smi does not list it; repair the "
            "driver, or choose --device cuda or --device cpu"
        )
    return CPU


def own_gpu(device: str) -> str:
    """Id of the GPU that this process computes on, to which it was pinned; `cpu` for none."""
    return (visible_gpus() or ("0",))[0] if device == CUDA else CPU


def pinned_environment(index: int, gpus: tuple[str, ...], *, workers: int) -> dict[str, str]:
    """The environment that worker `index` needs before it imports anything."""
    pinned = {
        "TOKENIZERS_PARALLELISM": "false",
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // workers)),
    }
    if gpus:
        pinned["CUDA_VISIBLE_DEVICES"] = gpus[index % len(gpus)]
    return pinned


def lease_slot(folder: Path, *, gpu: str, slots: int) -> int | None:
    """An open descriptor that holds one slot of the GPU, or None if live processes hold all.

    A slot is the right to keep one model loaded. Keep the descriptor open: the kernel frees the
    slot when the process ends.

    Raises:
        StoreError: The folder cannot be written.
    """
    for number in range(slots):
        path = folder / f"gpu-{file_name_of(gpu)}-{number}.slot"
        with writing(path):
            lock = LockFile(path)
        if lock.take():
            return lock.detach()
        lock.close()
    return None

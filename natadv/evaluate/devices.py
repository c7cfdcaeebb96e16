"""The GPUs that a process may use, found without importing torch."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from importlib.util import find_spec
from itertools import takewhile
from pathlib import Path

from natadv.errors import ConfigError
from natadv.evaluate.run import file_name_of
from natadv.evaluate.store import writing
from natadv.storage.locks import LockFile

CPU = "cpu"
CUDA = "cuda"
DEV = Path("/dev")

BATCH_SIZES = {CPU: 16, CUDA: 64}
"""Pictures per forward pass, by default. On a CPU more are hardly faster, and the last batch, which
is filled up, and a core that waits for the others cost more."""

_IS_FOR_GPUS = re.compile(r"^(cuda|hip)\b[^=\n]*= *['\"]", re.MULTILINE)
"""Matches torch/version.py unless it says None for both."""


def visible_gpus() -> tuple[str, ...]:
    """Ids of the GPUs that the environment allows (opaque: numbers, UUIDs or MIG names)."""
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if listed is not None:
        # CUDA ignores all ids after an invalid one.
        parts = (part.strip() for part in listed.split(","))
        return tuple(takewhile(lambda part: part not in ("", "-1"), parts))
    return tuple(index for (index,) in _listed("index"))


def _listed(*columns: str) -> list[list[str]]:
    """These columns of the list of nvidia-smi, for each GPU of the machine; empty if it has none,
    or no driver."""
    query = ["nvidia-smi", f"--query-gpu={','.join(columns)}", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    rows = ([cell.strip() for cell in line.split(",")] for line in answer.stdout.splitlines())
    return [row for row in rows if len(row) == len(columns)]


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


def batch_size_for(device: str, asked: int | None) -> int:
    """What was asked, or the default of the device."""
    return asked or BATCH_SIZES[device.partition(":")[0]]


def usable_device(asked: str) -> str:
    """`cpu`, `cuda` or `cuda:N` for a command that computes in one process.

    Raises ConfigError for another word, or if this process cannot use that GPU.
    """
    device = device_kind(asked)
    kind, _, number = device.partition(":")
    if not re.fullmatch(r"cpu|cuda(:\d+)?", device):
        raise ConfigError(f"--device: expected auto, cpu, cuda or cuda:N, got {asked!r}")
    check_gpus(kind)
    if number and 0 < (count := len(visible_gpus())) <= int(number):
        raise ConfigError(f"--device: expected cuda:0 to cuda:{count - 1}, got {asked!r}")
    return device


def check_gpus(device: str, *, gpus_per_model: int = 1) -> None:
    """Raise ConfigError if a run on `cuda` would find no GPU, too few, or not those that it was
    given.

    This loads nothing; what only CUDA itself can find out is asked in a process of its own, if
    nvidia-smi lists no GPU.
    """
    if device != CUDA:
        return
    spec = find_spec("torch")
    folders = (spec.submodule_search_locations if spec else None) or ()
    builds = [path.read_text() for f in folders if (path := Path(f) / "version.py").is_file()]
    if builds and not any(_IS_FOR_GPUS.search(build) for build in builds):
        raise ConfigError(
            f"this run is for GPUs, and torch {version('torch')} can use none; install a build for "
            "CUDA, or choose --device cpu"
        )
    if 0 < len(visible := visible_gpus()) < gpus_per_model:
        raise ConfigError(
            f"--gpus-per-model {gpus_per_model}, and there are {len(visible)} GPUs "
            f"({', '.join(visible)}); take a smaller number, or --dtype int8"
        )
    known = _listed("index", "uuid")
    if (given := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        _check_listed(given, visible, known)
    if not known and not _torch_finds_a_gpu():
        raise ConfigError(
            "this run is for GPUs, and neither nvidia-smi nor torch finds one; repair the driver, "
            "or choose --device cpu"
        )


def _check_listed(given: str, visible: Sequence[str], known: Sequence[Sequence[str]]) -> None:
    """Raises ConfigError if CUDA_VISIBLE_DEVICES hides all GPUs, or names one that is not there."""
    asked = f"this run is for GPUs, and CUDA_VISIBLE_DEVICES={given!r}"
    if not visible:
        raise ConfigError(f"{asked} hides them all; unset it, or choose --device cpu")
    # This query of nvidia-smi does not list the slices of a GPU.
    whole = [gpu for gpu in visible if not gpu.startswith("MIG-")]
    unknown = [gpu for gpu in whole if not any(_names(gpu, *row) for row in known)]
    if known and unknown:
        there = ", ".join(f"{index} ({uuid})" for index, uuid in known)
        raise ConfigError(f"{asked} names {unknown[0]!r}, and nvidia-smi lists {there}; correct it")


def _torch_finds_a_gpu() -> bool:
    """What torch says, also of GPUs that nvidia-smi does not know (ROCm, Jetson, WSL)."""
    question = "import torch; raise SystemExit(not torch.cuda.is_available())"
    try:
        asked = subprocess.run([sys.executable, "-c", question], capture_output=True, timeout=300)
    except (OSError, subprocess.SubprocessError):
        return False
    return asked.returncode == 0


def described(gpu: str) -> dict[str, str]:
    """The name of a GPU, or of several with commas, and the version of the driver, as far as
    nvidia-smi reports them."""
    rows = _listed("index", "uuid", "name", "driver_version")
    found: dict[str, str] = {}
    names: list[str] = []
    for index, uuid, name, driver in rows:
        # All GPUs of a machine have one driver.
        found["driver"] = driver
        names += [name for one in gpu.split(",") if _names(one, index, uuid)]
    return found | {"gpu": " + ".join(names)} if names else found


def _names(gpu: str, index: str, uuid: str) -> bool:
    """Whether CUDA takes `gpu` for this GPU: by its number, or by the beginning of its UUID."""
    return gpu == index or (gpu.startswith("GPU-") and uuid.startswith(gpu))


def own_gpu(device: str, *, gpus_per_model: int = 1) -> str:
    """Id of the GPU that this process computes on, to which it was pinned, or ids of several with
    commas; `cpu` for none."""
    return ",".join((visible_gpus() or ("0",))[:gpus_per_model]) if device == CUDA else CPU


def teams(gpus: Sequence[str], *, gpus_per_model: int) -> tuple[str, ...]:
    """For each model that has room, the ids of the GPUs that hold it together, joined by commas."""
    whole = range(0, len(gpus) - gpus_per_model + 1, gpus_per_model)
    return tuple(",".join(gpus[start : start + gpus_per_model]) for start in whole)


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

"""From a named model to a loaded one: verified, safe, and the same on every machine."""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from natadv.errors import ChangedError, ConfigError, GpuError, ModelError, unknown_name
from natadv.models import plugged
from natadv.models.files.checkpoint import DEFENCE
from natadv.models.files.layouts import layout_of
from natadv.storage.hashes import sha256_of, stamp_of
from natadv.tasks import TASKS
from natadv.types import Model, ModelSpec

if TYPE_CHECKING:
    from natadv.models.adapters.encoder import Placement

LOADERS: dict[str, str] = {
    "transformers-clip": "1",
    "open-clip": "1",
    "open-clip-visual": "1",
    "transformers-siglip": "1",
    "transformers-siglip2": "1",
    "clipseg": "1",
    "paligemma": "1",
    "blip-2": "1",
    plugged.LOADER: "1",
}
"""The version of each adapter, raised by hand when it feeds the same files in another way."""


INT8 = "int8"
SPREADABLE = ("paligemma", "blip-2")
"""Loaders of models that may be larger than one GPU. All others fit, and read weights of layers
that an 8-bit layer stores in another way."""

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
"""Options of glibc's mallopt."""

KEPT_BYTES = 2**30
"""Blocks up to this size, and so much free memory at the end of the heap, stay with the process."""


def adapter(loader: str) -> Callable[[ModelSpec, Placement], Model]:
    """The `build` of one of LOADERS, imported late: each needs torch and packages of its own."""
    match loader:
        case "transformers-clip" | "open-clip-visual":
            from natadv.models.adapters import clip

            return clip.build if loader == "transformers-clip" else clip.build_with_tower
        case "open-clip":
            from natadv.models.adapters import open_clip

            return open_clip.build
        case "transformers-siglip" | "transformers-siglip2":
            from natadv.models.adapters import siglip

            return siglip.build if loader == "transformers-siglip" else siglip.build_naflex
        case "clipseg":
            from natadv.models.adapters import clipseg

            return clipseg.build
        case "paligemma":
            from natadv.models.adapters import paligemma

            return paligemma.build
        case "blip-2":
            from natadv.models.adapters import blip2

            return blip2.build
    return plugged.build


def fingerprint(spec: ModelSpec) -> str:
    """sha256 over everything that affects an answer: weights, configs, tokenizer, adapter, and the
    exemplars that the user chose.

    Raises ModelError if models.lock names another file, ChangedError if one is being written.
    """
    # Exemplars of the zoo are code, and thus part of the key of each result.
    shots = "" if spec.exemplars is None else f" {json.dumps(spec.exemplars)}"
    head = f"{spec.loader} {_version(spec)} {spec.feeding} {spec.factory}{shots}\n"
    lines = verified_hashes(content_files(spec), locked=spec.locked, command="natadv models fetch")
    return hashlib.sha256(head.encode() + lines).hexdigest()


def verified_hashes(files: Iterable[Path], *, locked: Mapping[str, str], command: str) -> bytes:
    """A line of name and sha256 per file. Raises ModelError if `locked` is not empty and has
    another sha256; `command` fetches the files."""
    lines = []
    for path in files:
        actual = sha256_of(path)
        if locked and locked.get(path.name) != actual:
            raise ModelError(
                f"{path}: sha256 is {actual[:12]}, models.lock says "
                f"{locked.get(path.name, 'nothing')[:12]}; the file was changed or damaged: "
                f"run {command} again"
            )
        lines.append(f"{path.name} {actual}\n")
    return "".join(lines).encode()


def content_files(spec: ModelSpec) -> tuple[Path, ...]:
    """Every file that affects an answer."""
    if spec.loader == plugged.LOADER:
        return plugged.content_files(spec)
    folders = (spec.folder, spec.tower_of) if spec.tower_of else (spec.folder,)
    return tuple(file for path in folders for file in layout_of(path).content_files(path))


def load_hashed(spec: ModelSpec, *, weights: str, device: str, dtype: str, threads: int) -> Model:
    """`load`, of exactly the files whose fingerprint is `weights`.

    Raises ChangedError if they have another fingerprint, or were written while they were loaded.
    """
    files = content_files(spec)
    before = [stamp_of(path) for path in files]
    if (actual := fingerprint(spec)) != weights:
        raise ChangedError(
            f"{spec.folder}: its files changed after the run began (hash {weights[:12]}, now "
            f"{actual[:12]}); run again when nothing writes to them, or judge a copy"
        )
    model = load(spec, device=device, dtype=dtype, threads=threads)
    for path, stamp in zip(files, before, strict=True):
        if stamp_of(path) != stamp:
            raise ChangedError(
                f"{path}: was written while the model was loaded; run again when nothing writes "
                "to it, or judge a copy"
            )
    return model


def load(spec: ModelSpec, *, device: str, dtype: str, threads: int) -> Model:
    """The model in inference mode; `threads` limits the CPU threads of the whole process.

    Raises:
        ModelError: It cannot be loaded, or lacks a method that one of its tasks requires.
        ConfigError: The device or the dtype is not available.
    """
    _version(spec)
    if spec.loader != plugged.LOADER:
        layout_of(spec.folder).check(spec.folder)
    if (dtype == INT8 or spec.gpus > 1) and spec.loader not in SPREADABLE:
        raise ModelError(
            f"{spec.name}: --dtype int8 and --gpus-per-model are for models of the loaders "
            f"{', '.join(SPREADABLE)}, not of {spec.loader}; judge it in another run"
        )
    placement = replace(placement_of(device, dtype), gpus=spec.gpus)
    _set_up_torch(device, threads)
    model = adapter(spec.loader)(spec, placement)
    if spec.loader != plugged.LOADER:
        _apply_defence(spec, model)
    for task in spec.tasks:
        if not isinstance(model, TASKS[task].models):
            roles = " or a ".join(role.__name__ for role in TASKS[task].models)
            raise ModelError(
                f"{spec.name}: {task} needs a {roles}, and "
                f"{type(model).__name__} lacks some of its methods (see natadv/types.py)"
            )
    return model


def _apply_defence(spec: ModelSpec, model: Model) -> None:
    """Raises ModelError if there is a defence beside the weights, and the model cannot have it."""
    if not (spec.folder / DEFENCE).is_file():
        return
    from natadv.models.adapters.encoder import DualEncoder
    from natadv.models.adapters.latent_removal import removal_in, remove_latents

    removal = removal_in(spec.folder)
    if removal is None or not isinstance(model, DualEncoder):
        raise ModelError(
            f"{spec.name}: {spec.folder / DEFENCE} is a defence of a picture tower with a text "
            "tower, which this model does not have; copy the whole folder again"
        )
    remove_latents(model, removal)


def _version(spec: ModelSpec) -> str:
    if spec.loader not in LOADERS:
        raise ModelError(f"{spec.name}: no loader {spec.loader!r}; known: {', '.join(LOADERS)}")
    return LOADERS[spec.loader]


def placement_of(device: str, dtype: str) -> Placement:
    """The device and the dtype of torch. Raises ConfigError if one is not available."""
    import torch

    from natadv.models.adapters.encoder import Placement

    dtypes = {
        "float32": torch.float32,
        "bfloat16": torch.bfloat16,
        "float16": torch.float16,
        # bitsandbytes multiplies 8 bits by activations of half precision.
        INT8: torch.float16,
    }
    if dtype not in dtypes:
        raise unknown_name("dtype", dtype, dtypes)
    try:
        place = torch.device(device)
    except RuntimeError as error:
        raise ConfigError(f"unknown device {device!r}; use 'cpu', 'cuda' or 'cuda:N'") from error
    if place.type == "cuda" and not torch.cuda.is_available():
        raise GpuError(f"device {device!r} was asked for, but {_why_no_gpu()}")
    if dtype == INT8 and place.type != "cuda":
        raise ConfigError(f"--dtype {INT8} needs a GPU, got --device {device}")
    return Placement(place, dtypes[dtype], in_8_bits=dtype == INT8)


def _why_no_gpu() -> str:
    import torch

    other = "or choose --device cpu"
    if torch.version.cuda is None and torch.version.hip is None:
        return f"torch {torch.__version__} can use no GPU; install a build for CUDA, {other}"
    if (listed := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return (
            f"CUDA_VISIBLE_DEVICES={listed!r} names no GPU that torch can use; name one that "
            f"nvidia-smi -L lists, {other}"
        )
    return (
        f"torch {torch.__version__} sees no GPU; see whether nvidia-smi lists one, and whether its "
        f"driver is new enough for CUDA {torch.version.cuda}, {other}"
    )


def _set_up_torch(device: str, threads: int) -> None:
    import torch

    torch.set_num_threads(threads)
    _keep_freed_memory()
    if device.startswith("cuda"):
        # cuBLAS is deterministic only with a workspace of fixed size.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        # By default, float32 convolutions keep 10 bits of the mantissa.
        torch.backends.cudnn.allow_tf32 = False
    # As use_deterministic_algorithms(True), which would import the compiler for 1.4 s.
    torch.set_deterministic_debug_mode("error")
    # That also clears new memory, which costs bandwidth, and no layer here reads such memory.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def _keep_freed_memory() -> None:
    """Let glibc keep the large blocks that a batch frees for the next one, and in one heap for all
    threads. Else it returns them to the kernel, which clears each page anew: 10 to 15 % of the time
    of a forward pass on the CPU. Other allocators are left as they are."""
    with suppress(AttributeError):
        set_option = ctypes.CDLL(None).mallopt
        for option in (M_MMAP_THRESHOLD, M_TRIM_THRESHOLD):
            set_option(option, KEPT_BYTES)
        set_option(M_ARENA_MAX, 1)

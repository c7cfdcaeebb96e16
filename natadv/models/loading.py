"""From a named model to one that embeds: verified, safe, and the same on every machine."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from natadv.errors import ConfigError, ModelError, unknown_name
from natadv.models import checkpoint
from natadv.types import ModelSpec, ZeroShotClassifier

if TYPE_CHECKING:
    from natadv.models.encoder import Placement

_Stamp = tuple[str, int, int]
_hashes: dict[_Stamp, str] = {}
"""sha256 of a file by path, size and modification time: weights are hashed once per process."""


@dataclass(frozen=True, slots=True)
class Loader:
    """How one kind of checkpoint becomes a model."""

    build: Callable[[ModelSpec, Placement], ZeroShotClassifier]
    version: str
    """Raised by hand when the adapter feeds the same files in another way."""


def _clip(spec: ModelSpec, placement: Placement) -> ZeroShotClassifier:
    from natadv.models import transformers_clip

    return transformers_clip.build(spec, placement)


def _siglip(spec: ModelSpec, placement: Placement) -> ZeroShotClassifier:
    from natadv.models import transformers_siglip

    return transformers_siglip.build(spec, placement)


LOADERS: dict[str, Loader] = {
    "transformers-clip": Loader(_clip, "1"),
    "transformers-siglip": Loader(_siglip, "1"),
}


def fingerprint(spec: ModelSpec) -> str:
    """sha256 over everything that decides an embedding: weights, configs, tokenizer, adapter."""
    digest = hashlib.sha256(f"{spec.loader} {_loader(spec).version}\n".encode())
    for path in checkpoint.content_files(spec.folder):
        digest.update(f"{path.name} {_sha256(path)}\n".encode())
    return digest.hexdigest()


def load(spec: ModelSpec, *, device: str, dtype: str, threads: int) -> ZeroShotClassifier:
    """The model in inference mode; `threads` bounds the CPU threads of this whole process."""
    loader = _loader(spec)
    checkpoint.check(spec.folder)
    placement = _placement(device, dtype)
    _settle(device, threads)
    return loader.build(spec, placement)


def _loader(spec: ModelSpec) -> Loader:
    if spec.loader not in LOADERS:
        raise ModelError(f"{spec.name}: no loader {spec.loader!r}; known: {', '.join(LOADERS)}")
    return LOADERS[spec.loader]


def _placement(device: str, dtype: str) -> Placement:
    import torch

    from natadv.models.encoder import Placement

    dtypes = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if dtype not in dtypes:
        raise unknown_name("dtype", dtype, dtypes)
    try:
        place = torch.device(device)
    except RuntimeError as error:
        raise ConfigError(f"unknown device {device!r}; use 'cpu', 'cuda' or 'cuda:N'") from error
    if place.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device {device!r} was asked for, but torch sees no GPU; use 'cpu'")
    return Placement(place, dtypes[dtype])


def _settle(device: str, threads: int) -> None:
    import torch

    torch.set_num_threads(threads)
    if device.startswith("cuda"):
        # cuBLAS is deterministic only with a workspace of fixed size.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        # By default float32 convolutions keep 10 bits of the mantissa.
        torch.backends.cudnn.allow_tf32 = False
    torch.use_deterministic_algorithms(True)
    # That switch also clears new memory, which costs bandwidth and which no layer here reads.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def _sha256(path: Path) -> str:
    status = path.stat()
    stamp = (str(path), status.st_size, status.st_mtime_ns)
    if stamp not in _hashes:
        with path.open("rb") as file:
            _hashes[stamp] = hashlib.file_digest(file, "sha256").hexdigest()
    return _hashes[stamp]

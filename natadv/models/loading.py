"""From a named model to one that embeds: verified, safe, and the same on every machine."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from natadv.errors import ChangedError, ConfigError, ModelError, unknown_name
from natadv.models import plugged
from natadv.models.files.layouts import layout_of
from natadv.storage.hashes import sha256_of, stamp_of
from natadv.types import CAPABILITY, Model, ModelSpec

if TYPE_CHECKING:
    from natadv.models.adapters.encoder import Placement


@dataclass(frozen=True, slots=True)
class Loader:
    """How one kind of checkpoint becomes a model."""

    build: Callable[[ModelSpec, Placement], Model]
    version: str
    """Raised by hand when the adapter feeds the same files in another way."""


def _clip(spec: ModelSpec, placement: Placement) -> Model:
    from natadv.models.adapters import transformers_clip

    return transformers_clip.build(spec, placement)


def _open_clip(spec: ModelSpec, placement: Placement) -> Model:
    from natadv.models.adapters import open_clip as open_clip_model

    return open_clip_model.build(spec, placement)


def _open_clip_visual(spec: ModelSpec, placement: Placement) -> Model:
    from natadv.models.adapters import open_clip_tower as open_clip_visual

    return open_clip_visual.build(spec, placement)


def _siglip(spec: ModelSpec, placement: Placement) -> Model:
    from natadv.models.adapters import transformers_siglip

    return transformers_siglip.build(spec, placement)


def _siglip2(spec: ModelSpec, placement: Placement) -> Model:
    from natadv.models.adapters import transformers_siglip2

    return transformers_siglip2.build(spec, placement)


def _clipseg(spec: ModelSpec, placement: Placement) -> Model:
    from natadv.models.adapters import clipseg

    return clipseg.build(spec, placement)


def _paligemma(spec: ModelSpec, placement: Placement) -> Model:
    from natadv.models.adapters import paligemma

    return paligemma.build(spec, placement)


def _blip2(spec: ModelSpec, placement: Placement) -> Model:
    from natadv.models.adapters import blip2

    return blip2.build(spec, placement)


def _plugged(spec: ModelSpec, placement: Placement) -> Model:
    device, dtype = str(placement.device), str(placement.dtype).removeprefix("torch.")
    return plugged.build(spec, device=device, dtype=dtype)


LOADERS: dict[str, Loader] = {
    "transformers-clip": Loader(_clip, "1"),
    "open-clip": Loader(_open_clip, "1"),
    "open-clip-visual": Loader(_open_clip_visual, "1"),
    "transformers-siglip": Loader(_siglip, "1"),
    "transformers-siglip2": Loader(_siglip2, "1"),
    "clipseg": Loader(_clipseg, "1"),
    "paligemma": Loader(_paligemma, "1"),
    "blip-2": Loader(_blip2, "1"),
    plugged.LOADER: Loader(_plugged, "1"),
}


def fingerprint(spec: ModelSpec) -> str:
    """sha256 over everything that decides an answer: weights, configs, tokenizer, adapter.

    Raises:
        ModelError: A file is not the one that models.lock names.
        ChangedError: A file is being written.
    """
    head = f"{spec.loader} {_loader(spec).version} {spec.feeding} {spec.factory}\n"
    digest = hashlib.sha256(head.encode())
    for path in content_files(spec):
        found = sha256_of(path)
        if spec.locked and spec.locked.get(path.name) != found:
            raise ModelError(
                f"{path}: sha256 is {found[:12]}, models.lock says "
                f"{spec.locked.get(path.name, 'nothing')[:12]}; the file was changed or damaged: "
                "run natadv models fetch again"
            )
        digest.update(f"{path.name} {found}\n".encode())
    return digest.hexdigest()


def content_files(spec: ModelSpec) -> tuple[Path, ...]:
    """Every file that decides an answer."""
    if spec.loader == plugged.LOADER:
        return plugged.content_files(spec)
    places = (spec.folder, spec.tower_of) if spec.tower_of else (spec.folder,)
    return tuple(file for place in places for file in layout_of(place).content_files(place))


def load_hashed(spec: ModelSpec, *, weights: str, device: str, dtype: str, threads: int) -> Model:
    """`load`, of the very files whose fingerprint is `weights`.

    Raises:
        ModelError: As `load` does.
        ChangedError: The files are others than those, or were written while they were loaded.
    """
    files = content_files(spec)
    before = [stamp_of(path) for path in files]
    if (found := fingerprint(spec)) != weights:
        raise ChangedError(
            f"{spec.folder}: its files changed after the run began (hash {weights[:12]}, now "
            f"{found[:12]}); run again when nothing writes to them, or judge a copy"
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
    """The model in inference mode; `threads` bounds the CPU threads of this whole process.

    Raises:
        ModelError: It cannot be loaded, or cannot do what its tasks need.
    """
    loader = _loader(spec)
    if spec.loader != plugged.LOADER:
        layout_of(spec.folder).check(spec.folder)
    placement = placement_of(device, dtype)
    _settle(device, threads)
    model = loader.build(spec, placement)
    for task in spec.tasks:
        if not isinstance(model, CAPABILITY[task]):
            raise ModelError(
                f"{spec.name}: {task} needs a {CAPABILITY[task].__name__}, and "
                f"{type(model).__name__} lacks some of its methods (see natadv/types.py)"
            )
    return model


def _loader(spec: ModelSpec) -> Loader:
    if spec.loader not in LOADERS:
        raise ModelError(f"{spec.name}: no loader {spec.loader!r}; known: {', '.join(LOADERS)}")
    return LOADERS[spec.loader]


def placement_of(device: str, dtype: str) -> Placement:
    """Raises ConfigError for a device or a dtype that cannot be had."""
    import torch

    from natadv.models.adapters.encoder import Placement

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

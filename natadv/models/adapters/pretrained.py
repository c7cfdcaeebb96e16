"""The only calls of `from_pretrained`: local safetensors, no foreign code, no invented weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open
from tokenizers import Tokenizer
from transformers import (
    AutoImageProcessor,
    AutoTokenizer,
    BitsAndBytesConfig,
    GenerationConfig,
)
from transformers.utils import logging

from natadv.errors import ModelError, listed
from natadv.models.adapters.encoder import (
    Placement,
    TowerReader,
    as_model_error,
    square_pixels,
)
from natadv.models.adapters.towers import (
    DenseTower,
    ReadLayer,
    no_embeddings,
    open_square,
    square_tower,
)
from natadv.models.files import checkpoint, tensor_files
from natadv.types import ModelSpec

if TYPE_CHECKING:
    from PIL.Image import Image

PROBE = "a photo of two small cats"
"""Lower case without punctuation, in which tokenizer classes differ on purpose."""

MAX_TIED = 2
"""How many parameters of a model may share one stored number: a weight can be tied to another."""

FAULTS: dict[str, str] = {
    "missing_keys": "missing",
    "unexpected_keys": "not known to this architecture",
    "mismatched_keys": "of another shape",
    "error_msgs": "not loadable",
}


def weights(
    architecture: Any,
    folder: Path,
    *,
    placement: Placement,
    attention: str | Mapping[str, str] = "sdpa",
) -> Any:
    """A model of class `architecture` with exactly the weights of `folder`.

    A weight that is tied to another one need not be stored. `attention` may differ by section of
    the config.

    Raises ModelError if weights and config do not belong together, or the files are damaged.
    """
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    _refuse_larger(architecture, folder)
    with as_model_error(folder, "load its weights"):
        model, info = architecture.from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            dtype=placement.dtype,
            attn_implementation=attention,
            output_loading_info=True,
            # Otherwise generation_config.json is read, unchecked, and affects answers.
            generation_config=GenerationConfig(),
            # Otherwise loading ends at the first wrong shape, with an error that names no key.
            ignore_mismatched_sizes=True,
            **_spreading(placement),
        )
    _refuse_faults(info, folder)
    model.eval().requires_grad_(False)
    if _spreading(placement):
        _check_spread(model, folder, placement)
    else:
        model.to(placement.device)
    # Loaded weights are mapped from the file, and would change with it.
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.device.type == "cpu":
            tensor.data = tensor.data.clone()
    return model


def _refuse_faults(info: Mapping[str, Any], folder: Path) -> None:
    """Raises ModelError if keys or shapes of the weights are not those of the config."""
    faults = []
    for key, fault in FAULTS.items():
        if names := [str(k[0] if isinstance(k, tuple) else k) for k in info.get(key) or ()]:
            faults.append(f"{listed(sorted(names))} {fault}")
    if faults:
        raise ModelError(
            f"{folder}: weights and {checkpoint.CONFIG} do not belong together: "
            f"{'; '.join(faults)}; copy both from the same checkpoint"
        )


def _spreading(placement: Placement) -> dict[str, Any]:
    """The arguments with which transformers itself puts the weights on GPUs; empty if they are
    moved there as they are."""
    if placement.gpus == 1 and not placement.in_8_bits:
        return {}
    found: dict[str, Any] = {"device_map": "auto" if placement.gpus > 1 else {"": 0}}
    if placement.in_8_bits:
        config = BitsAndBytesConfig(load_in_8bit=True)
        found["quantization_config"] = config
    return found


def _check_spread(model: Any, folder: Path, placement: Placement) -> None:
    if elsewhere := {str(part) for part in model.hf_device_map.values()} & {"cpu", "disk"}:
        raise ModelError(
            f"{folder}: does not fit into the memory of {placement.gpus} GPUs: accelerate would "
            f"keep a part on {' and '.join(sorted(elsewhere))}; take more --gpus-per-model, or "
            "--dtype int8"
        )


def _refuse_larger(architecture: Any, folder: Path) -> None:
    """Count before anything is built: a config can ask for more memory than any machine has."""
    files = [path for path in checkpoint.weight_files(folder) if path.suffix == ".safetensors"]
    stored = sum(math.prod(shape) for path in files for shape in tensor_files.shapes(path).values())
    with as_model_error(folder, f"read its {checkpoint.CONFIG}"):
        config = architecture.config_class.from_pretrained(folder, local_files_only=True)
        with torch.device("meta"):
            configured = sum(part.numel() for part in architecture(config).parameters())
    if configured > MAX_TIED * stored:
        raise ModelError(
            f"{folder}: weights and {checkpoint.CONFIG} do not belong together: the config asks "
            f"for a model of {configured} numbers, the weights hold {stored}; copy both from the "
            "same checkpoint"
        )


def image_processor(folder: Path, *, wanted: Sequence[str] | None = None, **changed: Any) -> Any:
    """The preprocessing of `folder` on the PIL backend, whose pixels no GPU or version changes.

    `wanted` are the keys that its config must have, by default those of its `model_type`;
    `changed` replaces some of its settings.

    Raises ModelError if a key is missing, or there is no PIL backend.
    """
    checkpoint.image_processing(folder, wanted=wanted)
    with as_model_error(folder, "load its preprocessing config"):
        processor = AutoImageProcessor.from_pretrained(
            folder, backend="pil", local_files_only=True, trust_remote_code=False, **changed
        )
    if processor.backend != "pil":
        raise ModelError(
            f"{folder}: {type(processor).__name__} has no PIL backend, so it is not supported"
        )
    return processor


def squares(spec: ModelSpec, *, side: int) -> Callable[[Sequence[Image]], dict[str, torch.Tensor]]:
    """`square_pixels` with the preprocessing of the folder of `spec`."""
    return partial(square_pixels, spec.name, image_processor(spec.folder), side=side)


def resized(
    spec: ModelSpec, tower: Callable[[int], DenseTower], *, placement: Placement
) -> Callable[[int], TowerReader]:
    """The function that feeds `tower(side_px)` with whole pictures as squares of that side; all
    other preprocessing is that of the folder of `spec`."""

    def _at(side_px: int) -> TowerReader:
        processor = image_processor(
            spec.folder, size={"height": side_px, "width": side_px}, do_center_crop=False
        )
        return TowerReader(
            name=spec.name,
            placement=placement,
            preprocess=partial(square_pixels, spec.name, processor, side=side_px),
            dense=tower(side_px),
        )

    return _at


def lone_tower(
    spec: ModelSpec,
    vision: Any,
    config: Any,
    *,
    leading: int,
    placement: Placement,
    layer: ReadLayer | None = None,
) -> TowerReader:
    """The picture tower `vision` of a model that has no text tower; `config` is the model's
    `vision_config`, `leading` the number of tokens before those of the patches, `layer` as that of
    `open_square`."""
    tower = partial(square_tower, vision, config, leading=leading, embeddings=no_embeddings)
    open_tower = open_square(
        vision,
        leading=leading,
        first=vision.embeddings,
        finish=vision.post_layernorm,
        layer=layer,
    )
    return TowerReader(
        name=spec.name,
        placement=placement,
        preprocess=squares(spec, side=config.image_size),
        dense=tower(),
        resized=resized(spec, lambda px: tower(side_px=px), placement=placement),
        open_tower=open_tower,
    )


def tokenizer(folder: Path, *, vocabulary: int) -> Any:
    """The tokenizer of `folder`, for a text tower with `vocabulary` embeddings.

    Raises ModelError if an id has no embedding, there is no padding token, or the tokenizer class
    splits texts otherwise than tokenizer.json.
    """
    with as_model_error(folder, "load its tokenizer"):
        loaded = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, use_fast=True
        )
    _check_same_split(folder, loaded)
    highest = max(loaded.get_vocab().values(), default=-1)
    if not 0 <= highest < vocabulary:
        raise ModelError(
            f"{folder}: the tokenizer has ids up to {highest}, the text tower knows {vocabulary}; "
            "copy the tokenizer files from the checkpoint that this one was made from"
        )
    if loaded.pad_token_id is None:
        raise ModelError(
            f"{folder}: the tokenizer has no padding token; set pad_token in its config"
        )
    return loaded


def _check_same_split(folder: Path, loaded: Any) -> None:
    """A tokenizer class may replace the pipeline of tokenizer.json."""
    path = folder / checkpoint.TOKENIZER_VOCABULARIES[0]
    if not path.is_file():
        return
    with as_model_error(folder, "load its tokenizer"):
        as_stored = Tokenizer.from_file(str(path))
        # Padding and truncation may be stored too, but each call sets its own.
        as_stored.no_padding()
        as_stored.no_truncation()
        stored = as_stored.encode(PROBE, add_special_tokens=False).ids
        ids = loaded(PROBE, add_special_tokens=False)["input_ids"]
    if ids != stored:
        raise ModelError(
            f"{path} splits {PROBE!r} into {stored}, {type(loaded).__name__} into {ids}: set "
            f"tokenizer_class in {checkpoint.TOKENIZER_CONFIG} as it was in training "
            "('TokenizersBackend' uses tokenizer.json unchanged)"
        )


def padded_tokens(tokenizer: Any, texts: list[str], *, context: int) -> Any:
    """Tokens cut off at the context or padded to it on the right, wherever the tokenizer pads."""
    return tokenizer(
        texts,
        padding="max_length",
        padding_side="right",
        max_length=context,
        truncation=True,
        return_tensors="pt",
    )


def scalar(folder: Path, key: str) -> float:
    """A weight of one number as it is stored, not rounded to a narrower dtype. Raises ModelError if
    it is missing or not finite."""
    for path in checkpoint.weight_files(folder):
        if path.suffix != ".safetensors":
            continue
        with safe_open(path, framework="pt") as file:
            if key in file.keys():  # noqa: SIM118 - safe_open is no mapping
                value = float(file.get_tensor(key).double().reshape(-1)[0])
                if not math.isfinite(value):
                    raise ModelError(f"{path}: {key} is {value!r}; the weights are damaged")
                return value
    raise ModelError(f"{folder}: no {key} among the weights; copy the whole checkpoint")

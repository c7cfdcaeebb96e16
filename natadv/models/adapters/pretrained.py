"""The only calls of `from_pretrained`: local safetensors, no foreign code, nothing made up."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from tokenizers import Tokenizer
from transformers import AutoImageProcessor, AutoTokenizer, GenerationConfig
from transformers.utils import logging

from natadv.errors import ModelError
from natadv.models.adapters.border import told_in_one_line
from natadv.models.adapters.encoder import Placement
from natadv.models.files import checkpoint, tensor_files

LISTED = 3
"""Keys that an error message names before it only counts."""

PROBE = "a photo of two small cats"
"""Lower case without punctuation: classes differ in those on purpose."""

MOST_TIED = 2
"""How often a stored number may count in a model: a weight can be tied to another one."""

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
    """A model of class `architecture` that holds every weight of `folder` and no other.

    A weight that is tied to another one need not be stored. `attention` may differ by section of
    the config.
    """
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    _refuse_larger(architecture, folder)
    with told_in_one_line(folder, "load its weights"):
        model, info = architecture.from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            dtype=placement.dtype,
            attn_implementation=attention,
            output_loading_info=True,
            # Else generation_config.json is read, and decides answers that no check has seen.
            generation_config=GenerationConfig(),  # type: ignore[no-untyped-call]
            # Else the first other shape ends it, and the message names no key.
            ignore_mismatched_sizes=True,
        )
    if faults := [_listed(info[key], word) for key, word in FAULTS.items() if info.get(key)]:
        raise ModelError(
            f"{folder}: weights and {checkpoint.CONFIG} do not belong together: "
            f"{'; '.join(faults)}; copy both from the same checkpoint"
        )
    return _owned(model.eval().requires_grad_(False).to(placement.device))


def _owned(model: Any) -> Any:
    """The model with its weights in memory of its own: as they are loaded they lie in the mapped
    file, and would follow whoever overwrites it."""
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.device.type == "cpu":
            tensor.data = tensor.data.clone()
    return model


def _refuse_larger(architecture: Any, folder: Path) -> None:
    """Count before anything is built: the sizes of a config can ask for more than any memory."""
    files = [path for path in checkpoint.weight_files(folder) if path.suffix == ".safetensors"]
    stored = sum(math.prod(shape) for path in files for shape in tensor_files.shapes(path).values())
    with told_in_one_line(folder, f"read its {checkpoint.CONFIG}"):
        config = architecture.config_class.from_pretrained(folder, local_files_only=True)
        with torch.device("meta"):
            asked = sum(part.numel() for part in architecture(config).parameters())
    if asked > MOST_TIED * stored:
        raise ModelError(
            f"{folder}: weights and {checkpoint.CONFIG} do not belong together: the config asks "
            f"for a model of {asked} numbers, the weights hold {stored}; copy both from the same "
            "checkpoint"
        )


def image_processor(folder: Path, *, wanted: Sequence[str] | None = None) -> Any:
    """The preprocessing of `folder` on the PIL backend, whose pixels no GPU or version changes.

    `wanted` are the keys that its config must give, by default those of its `model_type`.
    """
    checkpoint.image_processing(folder, wanted=wanted)
    with told_in_one_line(folder, "load its preprocessing config"):
        found = AutoImageProcessor.from_pretrained(  # type: ignore[no-untyped-call]
            folder, backend="pil", local_files_only=True, trust_remote_code=False
        )
    if found.backend != "pil":
        raise ModelError(
            f"{folder}: {type(found).__name__} has no PIL backend, so it is not supported"
        )
    return found


def tokenizer(folder: Path, *, vocabulary: int) -> Any:
    """The tokenizer of `folder`, whose ids all have a row among `vocabulary` embeddings."""
    with told_in_one_line(folder, "load its tokenizer"):
        found = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, use_fast=True
        )
    _check_same_split(folder, found)
    highest = max(found.get_vocab().values(), default=-1)
    if not 0 <= highest < vocabulary:
        raise ModelError(
            f"{folder}: the tokenizer has ids up to {highest}, the text tower knows {vocabulary}; "
            "copy the tokenizer files from the checkpoint that this one was made from"
        )
    if found.pad_token_id is None:
        raise ModelError(
            f"{folder}: the tokenizer has no padding token; set pad_token in its config"
        )
    return found


def _check_same_split(folder: Path, loaded: Any) -> None:
    """A tokenizer class rebuilds its own pipeline over the words of tokenizer.json, unasked."""
    path = folder / checkpoint.TOKENIZER_VOCABULARIES[0]
    if not path.is_file():
        return
    with told_in_one_line(folder, "load its tokenizer"):
        as_stored = Tokenizer.from_file(str(path))
        # Padding and truncation may be stored too; they are asked for at each call.
        as_stored.no_padding()
        as_stored.no_truncation()
        stored = as_stored.encode(PROBE, add_special_tokens=False).ids
        ids = loaded(PROBE, add_special_tokens=False)["input_ids"]
    if ids != stored:
        raise ModelError(
            f"{path} splits {PROBE!r} into {stored}, {type(loaded).__name__} into {ids}: set "
            f"tokenizer_class in {checkpoint.TOKENIZER_CONFIG} as it was in training "
            "('TokenizersBackend' takes tokenizer.json as it stands)"
        )


def scalar(folder: Path, key: str) -> float:
    """A weight of one number as it is stored, not as a narrower dtype would round it."""
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


def _listed(keys: Any, word: str) -> str:
    names = sorted(str(key[0] if isinstance(key, tuple) else key) for key in keys)
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return f"{', '.join(names[:LISTED])}{more} {word}"

"""What a folder of transformers holds, read without torch, so that a bad one is refused early."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from natadv.errors import ModelError
from natadv.models.files import tensor_files
from natadv.models.files.model_types import MODEL_TYPES, Kind, signature_of

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
WEIGHTS_INDEX = "model.safetensors.index.json"
DEFENCE = "defence.safetensors"
"""Beside the weights of a model that natadv computes otherwise than its weights say."""

PREPROCESSING = ("processor_config.json", "preprocessor_config.json")
"""In the order in which transformers prefers them; the first counts only if it nests an image
processor."""

TOKENIZER_CONFIG = "tokenizer_config.json"
TOKENIZER_VOCABULARIES = ("tokenizer.json", "vocab.json", "spiece.model", "tokenizer.model")
TOKENIZER_EXTRAS = ("merges.txt", "special_tokens_map.json", "added_tokens.json")

PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt")

COUNTS = (
    "num_hidden_layers",
    "num_layers",
    "num_decoder_layers",
    "encoder_layers",
    "decoder_layers",
    "depths",
    "num_feature_levels",
    "num_point_embeddings",
    "num_multimask_outputs",
    "iou_head_depth",
)
"""Keys of any section that give numbers of modules, each with tensors of its own."""

LABELS = "num_labels"
MOST_LABELS = 100_000
"""More than any classifier has, and the models here have none; each label gets a name in memory."""

SIDES = ("size", "crop_size", "pad_size", "max_num_patches")
MOST_SIDE = 4096
"""Pixels; the largest towers take pictures of 1024."""

MOST_NESTED = 50
"""Allowed levels of a JSON file; configs have a few."""


def check(folder: Path) -> None:
    """Raise ModelError unless `folder` holds a whole checkpoint that can be loaded safely."""
    check_files(folder, preprocessing=MODEL_TYPES[model_type(folder)].preprocessing)


def check_files(folder: Path, *, preprocessing: Sequence[str], reads_text: bool = True) -> None:
    """The same for any `model_type`; `preprocessing` are the keys that it must set."""
    files = [path for path in weight_files(folder) if path.suffix == ".safetensors"]
    tensors = sum(len(tensor_files.shapes(path)) for path in files)
    # With larger numbers of modules, building the model might never end.
    _refuse_larger(
        read_json(folder / CONFIG),
        {**dict.fromkeys(COUNTS, tensors), LABELS: MOST_LABELS},
        folder / CONFIG,
        remedy=f"the weights hold {tensors} tensors; copy both from the same checkpoint",
    )
    image_processing(folder, wanted=preprocessing)
    if reads_text:
        _check_tokenizer(folder)
    for name in (CONFIG, *PREPROCESSING, TOKENIZER_CONFIG):
        if (folder / name).is_file() and "auto_map" in read_json(folder / name):
            raise ModelError(
                f"{folder / name}: 'auto_map' would run code from the checkpoint, which is "
                "not allowed; remove the key if transformers knows the model without it"
            )
    if (folder / "adapter_config.json").is_file():
        raise ModelError(
            f"{folder}: adapter_config.json would change the weights on loading; "
            "merge the adapter into the model and save that"
        )


def model_type(folder: Path) -> str:
    """One of the keys of MODEL_TYPES."""
    if not (folder / CONFIG).is_file():
        raise ModelError(
            f"no {CONFIG} in {folder}: expected a folder written by transformers' save_pretrained "
            f"({CONFIG}, {WEIGHTS}, {PREPROCESSING[1]}, tokenizer files)"
        )
    stated = read_json(folder / CONFIG).get("model_type")
    if not isinstance(stated, str) or stated not in MODEL_TYPES:
        raise ModelError(
            f"{folder / CONFIG}: expected 'model_type' to be one of "
            f"{', '.join(map(repr, MODEL_TYPES))}, got {stated!r:.80}; "
            "save the whole model, not one tower or a classifier, or plug it in by module:factory"
        )
    return stated


def signature(folder: Path) -> str:
    """Equal for checkpoints of one architecture, which may differ in weights and vocabulary."""
    path, stated = folder / CONFIG, model_type(folder)
    config = read_json(path)
    # Old CLIP files have a section under two names, and transformers prefers the second.
    sections = {
        name: _object(config, name, path) | _object(config, f"{name}_dict", path)
        for name in MODEL_TYPES[stated].architecture
    }
    return signature_of(stated, sections)


def kind(folder: Path) -> Kind:
    """The loader, tasks, family and signature of the checkpoint."""
    row = MODEL_TYPES[model_type(folder)]
    return Kind(row.loader, row.tasks, row.family, signature(folder))


def weight_files(folder: Path) -> tuple[Path, ...]:
    """The files that hold the weights, the index of a sharded checkpoint included."""
    if (folder / WEIGHTS).is_file():
        return (folder / WEIGHTS,)
    index = folder / WEIGHTS_INDEX
    if index.is_file():
        return (index, *_shards(index))
    pickles = sorted(path.name for pattern in PICKLES for path in folder.glob(pattern))
    if pickles:
        raise ModelError(
            f"{folder} has weights only as {', '.join(pickles)}: a pickle can run code when it is "
            f"opened, so it is refused; where you trust it, load it and save it as {WEIGHTS} "
            "(save_pretrained does)"
        )
    raise ModelError(f"{folder} has {CONFIG} but no {WEIGHTS}; copy or download the weights too")


def image_processing(folder: Path, *, wanted: Sequence[str] | None = None) -> dict[str, Any]:
    """The preprocessing that travels with the weights; no wanted key is left to a default.

    `wanted` are the keys that must be there; by default those of its `model_type`.
    """
    wanted = MODEL_TYPES[model_type(folder)].preprocessing if wanted is None else wanted
    for name in PREPROCESSING:
        if not (folder / name).is_file():
            continue
        processing = read_json(folder / name)
        if name == PREPROCESSING[0]:
            processing = _object(processing, "image_processor", folder / name)
            if not processing:
                continue
        missing = [key for key in wanted if processing.get(key) is None]
        if missing:
            raise ModelError(
                f"{folder / name}: {', '.join(missing)} missing, and a default would feed the "
                "model other pictures than it was trained on; copy the original file"
            )
        sides = {key: processing.get(key) for key in SIDES}
        limits = dict.fromkeys(SIDES, MOST_SIDE)
        _refuse_larger(sides, limits, folder / name, remedy="copy the original file")
        return dict(processing)
    raise ModelError(
        f"no {PREPROCESSING[1]} in {folder}: without it the model would be fed pictures that it "
        "was not trained on; copy it from the checkpoint that this one was made from"
    )


def content_files(folder: Path) -> tuple[Path, ...]:
    """Every file that decides an embedding, sorted by name."""
    texts = (TOKENIZER_CONFIG, *TOKENIZER_VOCABULARIES, *TOKENIZER_EXTRAS)
    names = (CONFIG, *PREPROCESSING, *texts, DEFENCE)
    others = (folder / name for name in names)
    return tuple(sorted({*weight_files(folder), *(p for p in others if p.is_file())}))


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises ModelError unless it is one of few levels."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: expected JSON, got {error}; copy the file again") from error
    except RecursionError as error:
        raise _nested(path) from error
    if not isinstance(content, dict):
        raise ModelError(f"{path}: expected a JSON object, got {type(content).__name__}")
    for keys, _ in _values(content):
        if len(keys) > MOST_NESTED:
            raise _nested(path)
    return content


def _values(content: dict[str, Any]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every value at any depth, with the keys that lead to it; without recursion, which deeply
    nested content would break."""
    todo: list[tuple[tuple[str, ...], Any]] = [((), content)]
    while todo:
        keys, value = todo.pop()
        yield keys, value
        if len(keys) > MOST_NESTED:
            continue
        if isinstance(value, dict):
            todo += [((*keys, key), inner) for key, inner in value.items()]
        elif isinstance(value, list):
            todo += [((*keys, str(at)), inner) for at, inner in enumerate(value)]


def _nested(path: Path) -> ModelError:
    return ModelError(
        f"{path}: expected JSON of at most {MOST_NESTED} levels, got more brackets in brackets; "
        "copy the file again"
    )


def _refuse_larger(
    content: dict[str, Any], limits: Mapping[str, int], path: Path, *, remedy: str
) -> None:
    """Raises ModelError on a number above the limit of one of the keys that lead to it."""
    for keys, value in _values(content):
        most = next((limits[key] for key in keys if key in limits), None)
        if most is not None and isinstance(value, int) and value > most:
            raise ModelError(
                f"{path}: expected {'.'.join(keys)} to be at most {most}, got {value!r:.24}; "
                f"{remedy}"
            )


def _object(parent: dict[str, Any], key: str, path: Path) -> dict[str, Any]:
    """The object under `key`; empty if there is none."""
    part = parent.get(key) or {}
    if not isinstance(part, dict):
        raise ModelError(f"{path}: expected {key!r} to be an object, got {part!r:.80}")
    return part


def _shards(index: Path) -> tuple[Path, ...]:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ModelError(f"{index}: expected a 'weight_map' that names the shards; copy it again")
    names = sorted({str(name) for name in weight_map.values()})
    if outside := [n for n in names if Path(n).name != n or not n.endswith(".safetensors")]:
        raise ModelError(f"{index}: expected safetensors files beside it, got {outside[0]!r}")
    if missing := [name for name in names if not (index.parent / name).is_file()]:
        raise ModelError(
            f"{index.parent}: {len(missing)} of {len(names)} weight files missing "
            f"({missing[0]} is the first); finish the download"
        )
    return tuple(index.parent / name for name in names)


def _check_tokenizer(folder: Path) -> None:
    vocabulary = any((folder / name).is_file() for name in TOKENIZER_VOCABULARIES)
    missing = [] if vocabulary else [TOKENIZER_VOCABULARIES[0]]
    if not (folder / TOKENIZER_CONFIG).is_file():
        missing.append(TOKENIZER_CONFIG)
    if missing:
        raise ModelError(
            f"no {' and no '.join(missing)} in {folder}: the text would be split in other words "
            "than in training; copy the tokenizer files of the original checkpoint"
        )

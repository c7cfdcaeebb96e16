"""Which files of a repository make a model: weights that are safe to open, and what feeds them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from natadv.errors import ModelError
from natadv.models.files import open_clip_folder as open_clip
from natadv.models.files.checkpoint import (
    CONFIG,
    PREPROCESSING,
    TOKENIZER_EXTRAS,
    TOKENIZER_VOCABULARIES,
    WEIGHTS,
    WEIGHTS_INDEX,
)

# With these come preprocessor_config.json, tokenizer_config.json and the like.
_CONFIGS = re.compile(r"config\.json|[a-z_]+_config\.json")
_SHARD = re.compile(r"model-\d{5}-of-\d{5}\.safetensors")


def needed(names: Sequence[str], *, loader: str | None, where: str) -> tuple[str, ...]:
    """Those of `names` that are needed, the small ones first.

    `loader` is the key of the adapter table, or None if it must be told from the names.

    Raises:
        ModelError: They do not make a model.
    """
    choose = _of_open_clip if is_open_clip(names, loader=loader) else _of_transformers
    found = choose(names)
    if CONFIG not in found and open_clip.CONFIG not in found:
        raise ModelError(f"{where} is no model that can be loaded: it has no {CONFIG}")
    if not any(name.endswith((".safetensors", ".bin")) for name in found):
        raise ModelError(
            f"{where} has no {WEIGHTS}{_instead(names)}; name a branch or commit that has it "
            "(--revision), or convert the weights and give the folder as the model"
        )
    return found


def has_weights(names: Sequence[str], *, loader: str | None) -> bool:
    """Whether there are weights that a run would open."""
    if is_open_clip(names, loader=loader):
        # The pickle too, with weights_only=True: some of these repositories have nothing else.
        return any(name in names for name in open_clip.WEIGHTS)
    return WEIGHTS in names or WEIGHTS_INDEX in names


def is_open_clip(names: Sequence[str], *, loader: str | None) -> bool:
    if loader is not None:
        return loader == open_clip.LOADER
    return open_clip.CONFIG in names and not any(name in names for name in PREPROCESSING)


def _of_open_clip(names: Sequence[str]) -> tuple[str, ...]:
    weights = [name for name in open_clip.WEIGHTS if name in names]
    return tuple(name for name in (open_clip.CONFIG, *weights[:1]) if name in names)


def _of_transformers(names: Sequence[str]) -> tuple[str, ...]:
    own = {*TOKENIZER_VOCABULARIES, *TOKENIZER_EXTRAS}
    small = sorted(name for name in names if name in own or _is_config(name))
    if WEIGHTS in names:
        return (*small, WEIGHTS)
    shards = sorted(name for name in names if _SHARD.fullmatch(name))
    return (*small, WEIGHTS_INDEX, *shards) if WEIGHTS_INDEX in names else tuple(small)


def _is_config(name: str) -> bool:
    return _CONFIGS.fullmatch(name) is not None and name != open_clip.CONFIG


def _instead(names: Sequence[str]) -> str:
    pickles = [name for name in names if name.endswith((".bin", ".pt", ".pth", ".ckpt"))]
    if not pickles:
        return ""
    return f", only {pickles[0]}, a pickle, which can run code when it is opened"

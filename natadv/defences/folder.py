"""Writes a defended checkpoint: the folder of the original with some tensors and files replaced."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from natadv.errors import ConfigError, ModelError, listed
from natadv.models.files.layouts import layout_of
from natadv.models.files.tensor_files import shapes
from natadv.storage.atomic import flush, replace_folder, writing
from natadv.types import ModelSpec

if TYPE_CHECKING:
    import torch

STALE = ("vocab.json", "merges.txt", "special_tokens_map.json", "added_tokens.json")
"""Files of a tokenizer that a new tokenizer.json replaces."""
TOKENIZER = "tokenizer.json"


def refuse_existing(out: Path, *, force: bool) -> None:
    """Raises ConfigError if there is something that may not be replaced."""
    if out.exists() and not out.is_dir():
        raise ConfigError(f"--out {out} is a file; name a folder")
    if out.exists() and any(out.iterdir()) and not force:
        raise ConfigError(f"{out} exists; name another --out, or replace it with --force")


@contextmanager
def unfinished(out: Path) -> Iterator[Path]:
    """A folder beside `out` that takes its name when the block ends without an error. Whatever
    happens before, there is no half folder at `out`."""
    fresh, old = (out.with_name(f".{out.name}.{kind}") for kind in ("new", "old"))
    with writing(out, remedy="free space, or name another --out"):
        # What a killed run left between two renames.
        if old.exists() and not out.exists():
            old.rename(out)
        for leftover in (fresh, old):
            shutil.rmtree(leftover, ignore_errors=True)
        fresh.mkdir(parents=True)
        yield fresh
        for path in fresh.iterdir():
            flush(path)
        replace_folder(fresh, out, old=old)


def write_checkpoint(
    fresh: Path,
    spec: ModelSpec,
    *,
    tensors: Mapping[str, torch.Tensor],
    files: Mapping[str, bytes],
) -> None:
    """Copy the checkpoint of `spec` into `fresh`, with these tensors and files in place of its own.
    Raises ModelError if the checkpoint holds no tensor of one of the names."""
    left = dict(tensors)
    for source in layout_of(spec.folder).content_files(spec.folder):
        if source.suffix == ".safetensors":
            _copy_weights(source, fresh / source.name, left)
        elif source.name not in files and not (TOKENIZER in files and source.name in STALE):
            shutil.copyfile(source, fresh / source.name)
    if left:
        raise ModelError(
            f"{spec.folder}: holds no weights called {listed(sorted(left))}; only safetensors are "
            "defended: load it, and save it with save_pretrained"
        )
    for name, content in files.items():
        (fresh / name).write_bytes(content)


def _copy_weights(source: Path, path: Path, left: dict[str, torch.Tensor]) -> None:
    """The tensors that are replaced are taken out of `left`, and keep the dtype of the stored."""
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    own = left.keys() & shapes(source).keys()
    if not own:
        shutil.copyfile(source, path)
        return
    stored = load_file(source)
    with safe_open(source, framework="pt") as file:
        metadata = dict(file.metadata() or {}) | {"format": "pt"}
    for name in own:
        changed = left.pop(name)
        stored[name] = changed.detach().cpu().to(stored[name].dtype).contiguous()
    save_file(stored, path, metadata=metadata)

"""mini-clip fed with planted mistakes of the kind that the paper's scripts made.

`--model mini_world.mistakes:weak_prompts` measures one; `natadv figures --fed` then shows how much
of a ranking it explains.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from mini_world.params import ROOT
from natadv.models.loading import load
from natadv.models.plugged import Plug
from natadv.models.resolve import resolve_one
from natadv.places import find
from natadv.types import FloatArray, Model, Scoring

if TYPE_CHECKING:
    from PIL.Image import Image

NAME = "mini-clip"
FOLDER = find(Path("fixtures/models") / NAME, ROOT)
USUAL, WEAK = "a photo of a ", "a bad photo of the "


def as_trained() -> Plug:
    """The same weights under another name: a robust model that neither gained nor lost."""
    return Plug(load=_as_trained, files=_files())


def weak_prompts() -> Plug:
    """Asked in words that its training never used, as by the paper's weak class names."""
    return Plug(load=lambda *how: WeaklyAsked(_as_trained(*how)), files=_files())


def wrong_activation() -> Plug:
    """Computed with QuickGELU, though it was trained with GELU: the paper's mistake the other way
    round."""
    return Plug(load=_with_quick_gelu, files=_files())


def _files() -> list[Path]:
    return sorted(path for path in FOLDER.iterdir() if path.suffix != ".md")


def _as_trained(device: str, dtype: str) -> Model:
    spec = resolve_one(NAME, root=ROOT, wanted="to feed")
    return load(spec, device=device, dtype=dtype, threads=1)


def _with_quick_gelu(device: str, dtype: str) -> Model:
    spec = resolve_one(NAME, root=ROOT, wanted="to feed")
    with tempfile.TemporaryDirectory() as where:
        folder = Path(where) / NAME
        shutil.copytree(FOLDER, folder)
        config = folder / "config.json"
        config.write_text(config.read_text().replace('"gelu"', '"quick_gelu"'))
        # Without an activation the loader has nothing to compare the config with.
        mistaken = replace(spec, folder=folder, activation=None, locked={})
        return load(mistaken, device=device, dtype=dtype, threads=1)


@final
class WeaklyAsked:
    """A zero-shot classifier whose prompts are worded in another way."""

    def __init__(self, model: Any) -> None:
        self._model = model

    @property
    def scoring(self) -> Scoring:
        """That of the model."""
        scoring: Scoring = self._model.scoring
        return scoring

    def prepare(self, images: Sequence[Image]) -> Any:
        """As the model does."""
        return self._model.prepare(images)

    def embed_images(self, prepared: Any) -> FloatArray:
        """As the model does."""
        rows: FloatArray = self._model.embed_images(prepared)
        return rows

    def embed_texts(self, texts: Sequence[str]) -> FloatArray:
        """Embeddings of the weaker prompts."""
        rows: FloatArray = self._model.embed_texts([text.replace(USUAL, WEAK) for text in texts])
        return rows

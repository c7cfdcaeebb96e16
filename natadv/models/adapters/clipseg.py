"""CLIPSeg checkpoints in the layout of transformers: a phrase in, a mask out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

import numpy as np
import torch
from transformers import CLIPSegForImageSegmentation

from natadv.errors import ModelError
from natadv.models.adapters import pretrained
from natadv.models.adapters.border import told_in_one_line
from natadv.models.adapters.encoder import Pixels, Placement, Tokens, any_picture, square_pixels
from natadv.models.adapters.transformers_clip import check_activation, tokeniser
from natadv.types import FloatArray, ModelSpec

if TYPE_CHECKING:
    from PIL.Image import Image


def build(spec: ModelSpec, placement: Placement) -> PhraseSegmenter:
    model = pretrained.weights(CLIPSegForImageSegmentation, spec.folder, placement=placement)
    check_activation(spec, model.config)
    processor = pretrained.image_processor(spec.folder)
    patch = model.config.vision_config.patch_size
    parts = Parts(
        prepare=square_pixels(
            spec.name, processor, side=_side(spec.name, processor.size, patch=patch)
        ),
        # As in the released code the phrase is given as it stands, without a template.
        tokenise=tokeniser(spec, model.config.text_config),
        point=lambda pixels, tokens: model(**pixels, **tokens).logits,
    )
    return PhraseSegmenter(spec.name, parts, placement=placement)


@dataclass(frozen=True, slots=True)
class Parts:
    """What the adapter brings together for the segmenter."""

    prepare: Callable[[Sequence[Image]], Pixels]
    tokenise: Callable[[Sequence[str]], Tokens]
    point: Callable[[Pixels, Tokens], torch.Tensor]
    """Pictures and phrases, on the device, to logits of shape (b, h, w)."""


@final
class PhraseSegmenter:
    """Finds what a phrase refers to with the one checkpoint it was built from."""

    threshold = 0.3
    """At which its authors report IoU on PhraseCut (Lueddecke & Ecker 2022)."""

    def __init__(self, name: str, parts: Parts, *, placement: Placement) -> None:
        self.name = name
        self._parts = parts
        self._placement = placement
        # So that a misfit shows before any data is read.
        with told_in_one_line(name, "find a phrase in a picture"):
            self._resolution = self._masks([any_picture()], ["a photo of a cat."]).shape[1:]

    def segment(self, images: Sequence[Image], phrases: Sequence[str]) -> FloatArray:
        if len(images) != len(phrases):
            raise ModelError(
                f"{self.name}: expected one phrase per picture, got {len(images)} pictures and "
                f"{len(phrases)} phrases"
            )
        for index, phrase in enumerate(phrases):
            if not phrase.strip():
                raise ModelError(
                    f"{self.name}: phrase {index} of {len(phrases)} is {phrase!r}, which refers to "
                    "nothing; correct it or leave the picture out"
                )
        if not images:
            return np.zeros((0, *self._resolution), np.float32)
        return self._masks(images, phrases)

    def _masks(self, images: Sequence[Image], phrases: Sequence[str]) -> FloatArray:
        pixels = self._placement.of_pixels(self._parts.prepare(images))
        tokens = {k: t.to(self._placement.device) for k, t in self._parts.tokenise(phrases).items()}
        with torch.inference_mode():
            logits = self._parts.point(pixels, tokens).float()
        # Before the sigmoid, which makes an infinite logit look like any other.
        if not logits.isfinite().all():
            raise ModelError(
                f"{self.name}: masks are not finite in {self._placement.dtype}; its weights are "
                "damaged, or need --dtype float32"
            )
        masks: FloatArray = logits.sigmoid().cpu().numpy()
        return masks


def _side(name: str, size: Any, *, patch: int) -> int:
    """The side of the squares that pictures are squashed to; the tower takes any it can cut up."""
    height, width = size.get("height"), size.get("width")
    if height is None or height != width or height % patch:
        raise ModelError(
            f"{name}: the decoder takes squares of whole patches of {patch} pixels, its "
            f"preprocessing makes pictures of size {dict(size)}; copy the original preprocessing "
            "config"
        )
    return int(height)

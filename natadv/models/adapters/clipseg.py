"""CLIPSeg checkpoints in the layout of transformers: phrase in, mask out."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, final

import numpy as np
import torch
from transformers import CLIPSegForImageSegmentation

from natadv.errors import ModelError
from natadv.explain.relevance import grad_cam, marked_logit
from natadv.models.adapters import pretrained
from natadv.models.adapters.clip import check_hidden_act, tokeniser
from natadv.models.adapters.encoder import (
    Pixels,
    Placement,
    Tokens,
    any_picture,
    as_model_error,
    finite_maps,
    square_pixels,
)
from natadv.types import FloatArray, ModelSpec

if TYPE_CHECKING:
    from PIL.Image import Image


class OpenDecoder(NamedTuple):
    """The decoder on its way through some pictures."""

    places: torch.Tensor
    """The deepest layer of the tower that it reads, of shape (b, h, w, d), without class token."""
    logits: torch.Tensor
    """Of shape (b, h, w), with a gradient that leads to the places."""


@final
@dataclass(kw_only=True, eq=False, repr=False)
class PhraseSegmenter:
    """Segments what a phrase refers to. Raises ModelError if it cannot segment one picture; the
    constructor tries it, so that a mismatch shows before any data is read."""

    threshold = 0.3
    """The threshold at which its authors report IoU on PhraseCut (Lueddecke & Ecker 2022)."""

    name: str
    placement: Placement
    preprocess: Callable[[Sequence[Image]], Pixels]
    tokenise: Callable[[Sequence[str]], Tokens]
    logits: Callable[[Pixels, Tokens], torch.Tensor]
    """From pictures and phrases on the device to logits of shape (b, h, w)."""
    open_decoder: Callable[[Pixels, Tokens], OpenDecoder]
    """As `logits`, with a gradient."""

    def __post_init__(self) -> None:
        with as_model_error(self.name, "find a phrase in a picture"):
            self._resolution = self._masks([any_picture()], ["a photo of a cat."]).shape[1:]

    def segment(self, images: Sequence[Image], phrases: Sequence[str]) -> FloatArray:
        """Probabilities of shape (b, h, w) at the model's resolution, one phrase per picture.
        Raises ModelError if a phrase is empty, the counts differ, or a mask is not finite."""
        self._check(images, phrases)
        if not images:
            return np.zeros((0, *self._resolution), np.float32)
        return self._masks(images, phrases)

    def region_relevance(self, images: Sequence[Image], phrases: Sequence[str]) -> FloatArray:
        """Grad-CAM of the deepest layer that the decoder reads, for the mean logit of the pixels
        that are marked at the threshold; of shape (b, h, w) on the grid of the tower. Raises
        ModelError as `segment` does."""
        self._check(images, phrases)
        if not images:
            return self.region_relevance([any_picture()], ["a photo of a cat."])[:0]
        pixels = self.placement.of_pixels(self.preprocess(images))
        opened = self.open_decoder(pixels, self.placement.of_tokens(self.tokenise(phrases)))
        scores = marked_logit(opened.logits, self.threshold)
        return finite_maps(grad_cam(opened.places, scores), name=self.name)

    def _check(self, images: Sequence[Image], phrases: Sequence[str]) -> None:
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

    def _masks(self, images: Sequence[Image], phrases: Sequence[str]) -> FloatArray:
        pixels = self.placement.of_pixels(self.preprocess(images))
        tokens = self.placement.of_tokens(self.tokenise(phrases))
        with torch.inference_mode():
            logits = self.logits(pixels, tokens).float()
        # Before the sigmoid, which hides infinite logits.
        if not logits.isfinite().all():
            raise ModelError(
                f"{self.name}: masks are not finite in {self.placement.dtype}; its weights are "
                "damaged, or need --dtype float32"
            )
        masks: FloatArray = logits.sigmoid().cpu().numpy()
        return masks


def build(spec: ModelSpec, placement: Placement) -> PhraseSegmenter:
    """The model in the folder of `spec`. Raises ModelError."""
    model = pretrained.weights(CLIPSegForImageSegmentation, spec.folder, placement=placement)
    check_hidden_act(spec, model.config)
    processor = pretrained.image_processor(spec.folder)
    # Pictures are squashed to squares, of any size that the tower can cut into whole patches.
    patch = model.config.vision_config.patch_size
    height, width = processor.size.get("height"), processor.size.get("width")
    if height is None or height != width or height % patch:
        raise ModelError(
            f"{spec.name}: the decoder takes squares of whole patches of {patch} pixels, its "
            f"preprocessing makes pictures of size {dict(processor.size)}; copy the original "
            "preprocessing config"
        )
    return PhraseSegmenter(
        name=spec.name,
        placement=placement,
        preprocess=partial(square_pixels, spec.name, processor, side=int(height)),
        # As in the released code, the phrase is given without a template.
        tokenise=tokeniser(spec, model.config.text_config),
        logits=lambda pixels, tokens: model(**pixels, **tokens).logits,
        open_decoder=partial(_open_decoder, model),
    )


def _open_decoder(
    model: CLIPSegForImageSegmentation, pixels: Pixels, tokens: Tokens
) -> OpenDecoder:
    opened = []

    def _begin(_: object, given: tuple[Any, ...]) -> tuple[Any, ...]:
        # Weights are frozen, so gradients begin here.
        (*shallower, deepest), *others = given
        side = math.isqrt(deepest.shape[1] - 1)
        places = deepest[:, 1:].unflatten(1, (side, side)).detach().requires_grad_()
        opened.append(places)
        deepest = torch.cat([deepest[:, :1], places.flatten(1, 2)], dim=1)
        return ([*shallower, deepest], *others)

    hook = model.decoder.register_forward_pre_hook(_begin)
    try:
        logits = model(**pixels, **tokens).logits
    finally:
        hook.remove()
    return OpenDecoder(opened[0], logits)

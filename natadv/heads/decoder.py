"""The decoder of CLIPSeg on the layers of any tower: phrase in, one logit per pixel out."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import assert_never, final

import torch
from torch import nn
from torch.nn import functional

from natadv.errors import ModelError
from natadv.explain.relevance import grad_cam, marked_logit
from natadv.heads.head_file import DecoderConfig, refined_kernels
from natadv.heads.transformer import Attention, FeedForward
from natadv.types import FloatArray


@final
class DecoderBlock(nn.Module):
    """A post-norm transformer block."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        width = config.reduce_width
        self.self_attn = Attention(width, heads=config.heads)
        self.layer_norm1 = nn.LayerNorm(width)
        self.mlp = FeedForward(width, inner=config.feed_forward)
        self.layer_norm2 = nn.LayerNorm(width)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Of the same shape (b, t, reduce_width)."""
        tokens = self.layer_norm1(tokens + self.self_attn(tokens, tokens))
        mixed: torch.Tensor = self.layer_norm2(tokens + self.mlp(tokens))
        return mixed


@final
class Decoder(nn.Module):
    """Decodes from the deepest of the tower layers to the shallowest.

    Parameters are named as in transformers' `CLIPSegDecoder`, except that its
    `transposed_convolution` is called `upsample`.
    """

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        width = config.reduce_width
        self.film_mul = nn.Linear(config.condition_width, width)
        self.film_add = nn.Linear(config.condition_width, width)
        self.reduces = nn.ModuleList(nn.Linear(w, width) for w in reversed(config.widths))
        self.layers = nn.ModuleList(DecoderBlock(config) for _ in config.layers)
        self.upsample = upsampling(config)

    @property
    def tower_layers(self) -> tuple[int, ...]:
        """The layers of the picture tower that it reads."""
        return self.config.layers

    @property
    def input_px(self) -> int | None:
        """The side in pixels of the squares that the tower reads for it; None for the tower's."""
        return self.config.input_px

    @property
    def threshold(self) -> float:
        """The probability above which a pixel belongs to the phrase."""
        return self.config.threshold

    def segment(self, features: Sequence[FloatArray], conditions: FloatArray) -> FloatArray:
        """Probabilities of shape (b, h * patch, w * patch), from the inputs of `forward`."""
        with torch.inference_mode():
            logits = self(*self._inputs(features, conditions))
            probabilities: FloatArray = logits.sigmoid().float().cpu().numpy()
        return probabilities

    def relevance(self, features: Sequence[FloatArray], conditions: FloatArray) -> FloatArray:
        """Grad-CAM of the deepest layer for the mean logit of the pixels that it marks, of shape
        (b, h, w) on the grid of that layer; zero everywhere if it marks none."""
        layers, condition = self._inputs(features, conditions)
        layers[-1].requires_grad_()
        scores = marked_logit(self(layers, condition), self.threshold)
        maps: FloatArray = grad_cam(layers[-1], scores).cpu().numpy()
        return maps

    def _inputs(
        self, features: Sequence[FloatArray], conditions: FloatArray
    ) -> tuple[list[torch.Tensor], torch.Tensor]:
        device = next(self.parameters()).device
        layers = [torch.from_numpy(layer).to(device) for layer in features]
        return layers, torch.from_numpy(conditions).to(device)

    def forward(
        self,
        features: Sequence[torch.Tensor],
        condition: torch.Tensor,
        *,
        class_tokens: Sequence[torch.Tensor] = (),
    ) -> torch.Tensor:
        """Logits of shape (b, h * patch, w * patch), before the sigmoid.

        Args:
            features: One tensor of shape (b, h, w, width) per layer of the config, in its order.
            condition: Phrase embeddings of shape (b, condition_width).
            class_tokens: One tensor of shape (b, width) per layer if the config uses class tokens;
                otherwise empty.

        Raises:
            ModelError: The shapes do not match the config, or each other.
        """
        _check(self.config, features, condition=condition, class_tokens=class_tokens)
        side = self.config.grid
        height, width = (side, side) if side is not None else features[0].shape[1:3]
        levels = self._levels(features, class_tokens)
        scale, shift = self.film_mul(condition)[:, None], self.film_add(condition)[:, None]
        tokens = self.layers[0](scale * levels[0] + shift)
        for level, layer in zip(levels[1:], self.layers[1:], strict=True):
            tokens = layer(level + tokens)
        # A class token precedes the places, and has no pixels.
        places = tokens[:, -height * width :].transpose(1, 2).unflatten(-1, (height, width))
        logits: torch.Tensor = self.upsample(places).squeeze(1)
        return logits

    def _levels(
        self, features: Sequence[torch.Tensor], class_tokens: Sequence[torch.Tensor]
    ) -> list[torch.Tensor]:
        """The deepest layer first, of shape (b, tokens, reduce_width)."""
        levels = []
        side = self.config.grid
        for index, reduce in enumerate(self.reduces, start=1):
            places = reduce(features[-index])
            if side is not None:
                # Resized after the reduction, which is cheaper: the two operations commute.
                maps = places.permute(0, 3, 1, 2)
                maps = functional.interpolate(
                    maps, (side, side), mode="bilinear", align_corners=False
                )
                places = maps.permute(0, 2, 3, 1)
            first = [reduce(class_tokens[-index])[:, None]] if class_tokens else []
            levels.append(torch.cat([*first, places.flatten(1, 2)], dim=1))
        return levels


def upsampling(config: DecoderConfig) -> nn.Module:
    """The end of a decoder: from (b, reduce_width, h, w) to (b, 1, h * patch, w * patch)."""
    width, half, patch = config.reduce_width, config.reduce_width // 2, config.patch
    match config.upsample:
        case "transposed":
            return nn.ConvTranspose2d(width, 1, patch, stride=patch)
        case "refined":
            first, second = refined_kernels(patch)
            return nn.Sequential(
                nn.Conv2d(width, width, 3, padding=1),
                nn.ReLU(),
                nn.ConvTranspose2d(width, half, first, stride=first),
                nn.ReLU(),
                nn.ConvTranspose2d(half, 1, second, stride=second),
            )
        case "bilinear":
            return nn.Sequential(
                nn.Conv2d(width, width, 3, padding=1),
                nn.ReLU(),
                nn.Conv2d(width, 1, 1),
                nn.Upsample(scale_factor=patch, mode="bilinear", align_corners=False),
            )
    assert_never(config.upsample)


def _check(
    config: DecoderConfig,
    features: Sequence[torch.Tensor],
    *,
    condition: torch.Tensor,
    class_tokens: Sequence[torch.Tensor],
) -> None:
    batch, layers = condition.shape[0], len(config.layers)
    expected = f"{layers} layers of shape (b, h, w, d), d of {config.widths} and one b"
    fits = len(features) == layers and all(
        places.ndim == 4 and (places.shape[0], places.shape[-1]) == (batch, width)
        for places, width in zip(features, config.widths, strict=False)
    )
    if not fits:
        raise ModelError(f"the decoder takes {expected} = {batch}, got {_shapes(features)}")
    if condition.shape != (batch, config.condition_width):
        raise ModelError(
            f"the decoder takes phrases embedded in {config.condition_width} dimensions, got "
            f"{_shapes([condition])}"
        )
    if config.grid is None and any(a.shape[1:3] != b.shape[1:3] for a, b in pairwise(features)):
        raise ModelError(
            f"the layers have several grids, {_shapes(features)}; set `grid` in the decoder's "
            "config, and train it again"
        )
    tokens = [(batch, width) for width in config.widths] if config.class_token else []
    if [tuple(token.shape) for token in class_tokens] != tokens:
        raise ModelError(
            f"the decoder takes {f'class tokens of shape {tokens}' if tokens else 'no class token'}"
            f", got {_shapes(class_tokens)}; see class_token in its config"
        )


def _shapes(tensors: Sequence[torch.Tensor]) -> str:
    return ", ".join(str(tuple(tensor.shape)) for tensor in tensors) or "none"

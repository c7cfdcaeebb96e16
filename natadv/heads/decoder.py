"""The decoder of CLIPSeg on the layers of any tower: a phrase in, the logit of each pixel out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import final

import torch
from torch import nn
from torch.nn import functional

from natadv.errors import ModelError
from natadv.heads.config import DecoderConfig, Upsampling, refined_kernels
from natadv.heads.transformer import Attention, FeedForward
from natadv.types import FloatArray


@final
class Block(nn.Module):
    """A transformer block that normalises what it has added up."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        width = config.reduce_width
        self.self_attn = Attention(width, heads=config.heads)
        self.layer_norm1 = nn.LayerNorm(width)
        self.mlp = FeedForward(width, inner=config.feed_forward)
        self.layer_norm2 = nn.LayerNorm(width)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        tokens = self.layer_norm1(tokens + self.self_attn(tokens, tokens))
        mixed: torch.Tensor = self.layer_norm2(tokens + self.mlp(tokens))
        return mixed


@final
class Decoder(nn.Module):
    """Goes from the deepest layer of the tower to the least deep one.

    Its tensors have the names of transformers' `CLIPSegDecoder`; `transposed_convolution` is
    `upsample` here.
    """

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        width = config.reduce_width
        self.film_mul = nn.Linear(config.condition_width, width)
        self.film_add = nn.Linear(config.condition_width, width)
        self.reduces = nn.ModuleList(nn.Linear(w, width) for w in reversed(config.widths))
        self.layers = nn.ModuleList(Block(config) for _ in config.layers)
        self.upsample = UPSAMPLING[config.upsample](config)

    @property
    def tower_layers(self) -> tuple[int, ...]:
        """The layers of the picture tower that it reads."""
        return self.config.layers

    @property
    def threshold(self) -> float:
        """The probability above which a pixel belongs to the phrase."""
        return self.config.threshold

    def segment(self, features: Sequence[FloatArray], conditions: FloatArray) -> FloatArray:
        """Probabilities of shape (b, h * patch, w * patch), from what `forward` takes."""
        device = next(self.parameters()).device
        layers = [torch.from_numpy(layer).to(device) for layer in features]
        with torch.inference_mode():
            logits = self(layers, torch.from_numpy(conditions).to(device))
            probabilities: FloatArray = logits.sigmoid().float().cpu().numpy()
        return probabilities

    def forward(
        self,
        features: Sequence[torch.Tensor],
        condition: torch.Tensor,
        *,
        class_tokens: Sequence[torch.Tensor] = (),
    ) -> torch.Tensor:
        """Logits of shape (b, h * patch, w * patch), not yet through the sigmoid.

        Args:
            features: For each layer of the config, in its order, of shape (b, h, w, width).
            condition: What the phrases are embedded in, of shape (b, condition_width).
            class_tokens: For each layer of shape (b, width), if the config has them; else none.

        Raises:
            ModelError: They are not those of the config, or do not belong together.
        """
        _check(self.config, features, condition=condition, class_tokens=class_tokens)
        height, width = _grid(self.config, features)
        levels = self._levels(features, class_tokens)
        scale, shift = self.film_mul(condition)[:, None], self.film_add(condition)[:, None]
        tokens = self.layers[0](scale * levels[0] + shift)
        for level, layer in zip(levels[1:], self.layers[1:], strict=True):
            tokens = layer(level + tokens)
        # A class token stands before the places, and has no place of its own.
        places = tokens[:, -height * width :].transpose(1, 2).unflatten(-1, (height, width))
        logits: torch.Tensor = self.upsample(places).squeeze(1)
        return logits

    def _levels(
        self, features: Sequence[torch.Tensor], class_tokens: Sequence[torch.Tensor]
    ) -> list[torch.Tensor]:
        """The deepest layer first, of shape (b, tokens, reduce_width)."""
        levels = []
        for index, reduce in enumerate(self.reduces, start=1):
            places = _resized(reduce(features[-index]), side=self.config.grid).flatten(1, 2)
            before = [reduce(class_tokens[-index])[:, None]] if class_tokens else []
            levels.append(torch.cat([*before, places], dim=1))
        return levels


def _transposed(config: DecoderConfig) -> nn.Module:
    return nn.ConvTranspose2d(config.reduce_width, 1, config.patch, stride=config.patch)


def _refined(config: DecoderConfig) -> nn.Module:
    width, half = config.reduce_width, config.reduce_width // 2
    first, second = refined_kernels(config.patch)
    return nn.Sequential(
        nn.Conv2d(width, width, 3, padding=1),
        nn.ReLU(),
        nn.ConvTranspose2d(width, half, first, stride=first),
        nn.ReLU(),
        nn.ConvTranspose2d(half, 1, second, stride=second),
    )


def _bilinear(config: DecoderConfig) -> nn.Module:
    width = config.reduce_width
    return nn.Sequential(
        nn.Conv2d(width, width, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(width, 1, 1),
        nn.Upsample(scale_factor=config.patch, mode="bilinear", align_corners=False),
    )


UPSAMPLING: dict[Upsampling, Callable[[DecoderConfig], nn.Module]] = {
    "transposed": _transposed,
    "refined": _refined,
    "bilinear": _bilinear,
}
"""From places of shape (b, reduce_width, h, w) to (b, 1, h * patch, w * patch)."""


def _resized(places: torch.Tensor, *, side: int | None) -> torch.Tensor:
    """On a square grid of `side`, of shape (b, side, side, d)."""
    if side is None:
        return places
    maps = places.permute(0, 3, 1, 2)
    # After the reduction: each mixes along other axes, so their order only costs time.
    found = functional.interpolate(maps, (side, side), mode="bilinear", align_corners=False)
    return found.permute(0, 2, 3, 1)


def _grid(config: DecoderConfig, features: Sequence[torch.Tensor]) -> tuple[int, int]:
    if config.grid is not None:
        return config.grid, config.grid
    return features[0].shape[1], features[0].shape[2]


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
            f"the layers lie on several grids, {_shapes(features)}; set `grid` in the decoder's "
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

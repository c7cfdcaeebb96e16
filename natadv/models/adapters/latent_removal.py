"""A defence that no weights can express: latents of a sparse autoencoder, taken out of a state.

It lies beside the weights, and a checkpoint that has it is never loaded without it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch.nn import functional

from natadv.errors import ModelError
from natadv.explain.autoencoder import largest
from natadv.explain.layers import LayerwisePass, TowerLayer
from natadv.models.adapters.encoder import DualEncoder, any_picture
from natadv.models.files.checkpoint import DEFENCE

Places = Literal["class", "patches", "all"]
LAYER_PREFIXES = ("vision_model.encoder.layers", "visual.transformer.resblocks")
"""How transformers and open_clip call the layers of a picture tower."""

FORMAT = "1"
_TENSORS = {"encoder": 2, "encoder_bias": 1, "decoder": 2, "bias": 1, "threshold": 0, "chosen": 1}
"""Name -> number of axes."""


@dataclass(frozen=True, slots=True)
class LatentRemoval:
    """Takes the contribution of some latents out of a state."""

    layer: int
    """The state after this layer, counted from 1."""
    places: Places
    """Tokens whose state it changes."""
    encoder: torch.Tensor
    """Of shape (latents, d): of all latents if `k` is set, else of those that are removed."""
    encoder_bias: torch.Tensor
    decoder: torch.Tensor
    """Directions of the latents that are removed, of shape (removed, d)."""
    bias: torch.Tensor
    """Of shape (d): what is taken off a state before it is encoded."""
    threshold: torch.Tensor
    """A latent is active above this."""
    chosen: torch.Tensor
    """The rows of the encoder that are removed, in the order of the decoder."""
    k: int | None = None
    """Only so many latents of a token are active, the largest ones; None for all."""

    def __call__(self, state: torch.Tensor, *, leading: int) -> torch.Tensor:
        """The state without them; `leading` tokens come before those of the patches."""
        here = self._tokens(leading)
        active = self.active(state, leading=leading)
        changed = state.clone()
        changed[:, here] = (state[:, here].float() - active @ self.decoder).to(state.dtype)
        return changed

    def active(self, state: torch.Tensor, *, leading: int) -> torch.Tensor:
        """The latents that are removed, of shape (b, tokens, removed); 0 where not active."""
        x = state[:, self._tokens(leading)].float()
        found = functional.relu(functional.linear(x - self.bias, self.encoder, self.encoder_bias))
        if self.k is not None:
            found = largest(found, self.k)
        return torch.where(found > self.threshold, found, 0.0)[..., self.chosen]

    def _tokens(self, leading: int) -> slice:
        return {
            "class": slice(0, leading),
            "patches": slice(leading, None),
            "all": slice(None),
        }[self.places]

    def to(self, device: torch.device) -> LatentRemoval:
        """The same on that device."""
        return replace(self, **{name: getattr(self, name).to(device) for name in _TENSORS})

    def content(self) -> bytes:
        """The file that `removal_in` reads."""
        tensors = {name: getattr(self, name).detach().cpu().contiguous() for name in _TENSORS}
        metadata = {
            "format": FORMAT,
            "layer": str(self.layer),
            "places": self.places,
            "k": "" if self.k is None else str(self.k),
        }
        return save(tensors, metadata=metadata)


def removal_in(folder: Path) -> LatentRemoval | None:
    """The defence beside the weights of a checkpoint, if there is one. Raises ModelError if it is
    damaged or of another version."""
    path = folder / DEFENCE
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            stated = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except (OSError, SafetensorError) as error:
        raise ModelError(
            f"{path}: the defence cannot be read ({error}); copy the whole folder again"
        ) from error
    axes = {name: tensor.ndim for name, tensor in tensors.items()}
    places, layer, k = (stated.get(name, "") for name in ("places", "layer", "k"))
    known = stated.get("format") == FORMAT and places in get_args(Places) and layer.isdigit()
    if axes != _TENSORS or not known or not (k.isdigit() or not k) or not _fits(tensors, k):
        raise ModelError(
            f"{path}: expected a defence that natadv defend --method sae has written, got tensors "
            f"{sorted(axes)} and {stated!r:.100}; copy the whole folder again"
        )
    return LatentRemoval(
        layer=int(layer),
        places=places,
        k=int(k) if k else None,
        **tensors,
    )


def _fits(tensors: Mapping[str, torch.Tensor], k: str) -> bool:
    """Whether tensors with the right axes can belong together: a defence that is damaged must not
    turn into one that does nothing."""
    latents, width = tensors["encoder"].shape
    chosen = tensors["chosen"]
    shapes = {
        "encoder_bias": (latents,),
        "decoder": (len(chosen), width),
        "bias": (width,),
    }
    return (
        all(tensors[name].shape == shape for name, shape in shapes.items())
        and all(bool(tensor.isfinite().all()) for tensor in tensors.values())
        and chosen.dtype == torch.int64
        and len(chosen) > 0
        and bool(((chosen >= 0) & (chosen < latents)).all())
        and (not k or 0 < int(k) <= latents)
    )


def remove_latents(encoder: DualEncoder, removal: LatentRemoval) -> None:
    """From now on the encoder computes everything without these latents, opened layer by layer or
    not. Raises ModelError if its tower has no such layer."""
    if encoder.network is None or encoder.open_tower is None:
        raise ModelError(
            f"{encoder.name}: has a {DEFENCE}, and its adapter cannot open the layers it is about; "
            "copy the whole folder again"
        )
    removal = removal.to(encoder.placement.device)
    own = dict(encoder.network.named_modules())
    names = [f"{prefix}.{removal.layer - 1}" for prefix in LAYER_PREFIXES]
    layer = next((own[name] for name in names if name in own), None)
    pixels = encoder.placement.of_pixels(encoder.preprocess([any_picture()]))
    opened = encoder.open_tower(pixels)
    if layer is None or removal.bias.shape[-1] != opened.first.shape[-1]:
        raise ModelError(
            f"{encoder.name}: its {DEFENCE} is about layer {removal.layer} of a tower of width "
            f"{removal.bias.shape[-1]}, which this is not; copy the whole folder again"
        )
    leading = opened.leading

    def _hook(_module: object, _inputs: object, found: Any) -> Any:
        if isinstance(found, tuple):
            return (removal(found[0], leading=leading), *found[1:])
        return removal(found, leading=leading)

    layer.register_forward_hook(_hook)
    encoder.open_tower = _opened_without(encoder.open_tower, removal)


def _opened_without(
    open_tower: Callable[[Any], LayerwisePass], removal: LatentRemoval
) -> Callable[[Any], LayerwisePass]:
    def _open(pixels: Any) -> LayerwisePass:
        opened = open_tower(pixels)
        at = removal.layer - 1
        plain = opened.layers[at]

        def _join(state: torch.Tensor, outputs: torch.Tensor) -> torch.Tensor:
            return removal(plain.join(state, outputs), leading=opened.leading)

        changed = TowerLayer(plain.heads, plain.attend, _join)
        return replace(opened, layers=(*opened.layers[:at], changed, *opened.layers[at + 1 :]))

    return _open

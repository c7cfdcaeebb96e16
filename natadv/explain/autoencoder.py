"""Sparse autoencoders: activations of a tower as sums of few directions.

A folder of one is complete, safe to open, and loaded only with the tower of its training.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, Self, final, runtime_checkable

import torch
from pydantic import Field, ValidationError, model_validator
from safetensors import SafetensorError
from safetensors.torch import load as tensors_from_bytes
from safetensors.torch import save as tensors_to_bytes
from torch import nn
from torch.nn import functional

from natadv.config import Strict, first_mistake
from natadv.errors import ConfigError, ModelError, listed
from natadv.explain.layers import LayerwisePass
from natadv.storage.trained_folder import (
    CONFIG,
    TRAINING,
    WEIGHTS,
    as_json,
    other_tower,
    read_verified,
    write_files,
)
from natadv.types import AutoencoderKind, Prepared, ReadTokens

Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
_Size = Annotated[int, Field(ge=1, le=10_000_000)]


@runtime_checkable
class Openable(Protocol):
    """A model whose picture tower can be opened layer by layer."""

    def prepare(self, images: Sequence[Any]) -> Prepared:
        """As that of `ZeroShotClassifier`."""
        ...

    def layerwise(self, prepared: Any) -> LayerwisePass:
        """The pictures in front of the first layer. Raises ModelError if the adapter cannot open
        the tower."""
        ...


class AutoencoderConfig(Strict):
    """The sizes of an autoencoder, and what it was trained to read."""

    kind: AutoencoderKind
    layer: Annotated[int, Field(ge=0, le=1000)]
    """It reads the state after this layer, counted from 1; of an embedding, the tower's depth."""
    tokens: ReadTokens
    width: _Size
    """Dimensions of an activation."""
    latents: _Size
    k: _Size | None = None
    """Latents of an activation that are active: of each one (topk), or on average in training."""
    groups: tuple[_Size, ...] = ()
    """Latents of the nested groups of a matryoshka, the first group first."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if (self.k is None) != (self.kind == "relu"):
            raise ValueError(f"expected k for all kinds but relu, got {self.k} for {self.kind}")
        if self.k is not None and self.k > self.latents:
            raise ValueError(f"k is {self.k}, of {self.latents} latents")
        if sum(self.groups) != (self.latents if self.kind == "matryoshka" else 0):
            raise ValueError(
                f"expected groups that add up to {self.latents} latents for a matryoshka, and none "
                f"for other kinds, got {self.groups} for {self.kind}"
            )
        return self


class _AutoencoderFile(Strict):
    """The `config.json`."""

    format: Literal[1]
    tower: Sha256
    """Fingerprint of the model whose tower it was trained on."""
    config: AutoencoderConfig
    files: dict[str, Sha256]
    """sha256 of the file beside it."""


@final
class SparseAutoencoder(nn.Module):
    """Latents = sigma(W_enc (x - b) + b_enc), and back: W_dec latents + b (paper, section 3.3).

    As in published code the encoder has a bias, which the paper's formula leaves out.
    """

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = nn.Parameter(torch.zeros(config.latents, config.width))
        self.encoder_bias = nn.Parameter(torch.zeros(config.latents))
        self.decoder = nn.Parameter(torch.zeros(config.latents, config.width))
        """A direction of unit length for each latent."""
        self.bias = nn.Parameter(torch.zeros(config.width))
        self.threshold: torch.Tensor
        """Of batch-topk and matryoshka outside of training, where a batch must not decide about its
        members: what an active latent exceeds. -1 until it is measured."""
        self.register_buffer("threshold", torch.tensor(-1.0))

    def positive(self, x: torch.Tensor) -> torch.Tensor:
        """All positive latents, of shape (..., latents), before any is left out."""
        return functional.relu(functional.linear(x - self.bias, self.encoder, self.encoder_bias))

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """Latents of shape (..., latents), not negative, from activations of shape (..., width)."""
        found = self.positive(x)
        if self.config.kind == "relu":
            return found
        if self.config.kind == "topk":
            return largest(found, self.config.k or 0)
        return torch.where(found > self.threshold, found, 0.0)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Activations of shape (..., width)."""
        return latents @ self.decoder + self.bias

    def without(self, x: torch.Tensor, latents: Sequence[int]) -> torch.Tensor:
        """The activations less the contribution of these latents; what the autoencoder cannot
        explain stays. Raises ConfigError if there is no such latent."""
        if wrong := [latent for latent in latents if not 0 <= latent < self.config.latents]:
            raise ConfigError(
                f"no latent {wrong[0]}: the autoencoder has 0 to {self.config.latents - 1}"
            )
        chosen = torch.tensor(sorted(set(latents)), dtype=torch.long, device=self.decoder.device)
        active = self.encode(x.float())[..., chosen]
        return (x.float() - active @ self.decoder[chosen]).to(x.dtype)


def largest(values: torch.Tensor, k: int) -> torch.Tensor:
    """The `k` largest values of each last axis in their places, and zero elsewhere."""
    kept = values.topk(k, dim=-1, sorted=False)
    return torch.zeros_like(values).scatter(-1, kept.indices, kept.values)


def activations(opened: LayerwisePass, *, layer: int, tokens: ReadTokens) -> torch.Tensor:
    """What an autoencoder reads, of shape (b, n, width). Raises ModelError if the tower has no such
    layer or token."""
    if tokens == "embedding":
        embeddings = opened.embed(opened.state(len(opened.layers)))
        if embeddings.ndim != 2:
            raise ModelError(
                "the tower does not embed a picture as one vector; read --tokens class, patches or "
                "all"
            )
        return embeddings[:, None]
    return opened.state(_checked(layer, opened))[:, _places(opened, tokens)]


def embeddings_with(
    change: Callable[[torch.Tensor], torch.Tensor],
    opened: LayerwisePass,
    *,
    layer: int,
    tokens: ReadTokens,
) -> torch.Tensor:
    """Embeddings of shape (b, d), not normalised, of a pass in which `change` replaces what an
    autoencoder reads. Raises ModelError as `activations`."""
    if tokens == "embedding":
        return change(activations(opened, layer=layer, tokens=tokens))[:, 0]
    places = _places(opened, tokens)
    state = opened.state(_checked(layer, opened))
    changed = change(state[:, places])
    state = torch.cat([state[:, : places.start], changed, state[:, places.stop :]], dim=1)
    for each in opened.layers[layer:]:
        state = each(state)
    return opened.embed(state)


def _checked(layer: int, opened: LayerwisePass) -> int:
    if not 0 <= layer <= len(opened.layers):
        raise ModelError(
            f"no layer {layer}: the tower has {len(opened.layers)}, counted from 1 at its input"
        )
    return layer


def _places(opened: LayerwisePass, tokens: ReadTokens) -> slice:
    if tokens == "class":
        if not opened.leading:
            raise ModelError(
                "the tower has no class token; read --tokens patches, all or embedding"
            )
        return slice(0, 1)
    return opened.patches if tokens == "patches" else slice(0, opened.patches.stop)


def save_autoencoder(
    folder: Path, autoencoder: SparseAutoencoder, *, tower: str, facts: Mapping[str, Any]
) -> None:
    """Write an autoencoder that was trained on the tower of the model whose fingerprint is `tower`.

    `facts` describe the training for people. Raises ModelError if a weight is not finite, or the
    folder cannot be written.
    """
    tensors = {
        name: tensor.detach().to("cpu", torch.float32).contiguous()
        for name, tensor in autoencoder.state_dict().items()
    }
    if broken := [name for name, tensor in tensors.items() if not tensor.isfinite().all()]:
        raise ModelError(
            f"the autoencoder is not saved: {listed(sorted(broken))} not finite; train again, with "
            "a lower rate"
        )
    weights = tensors_to_bytes(tensors, metadata={"format": "pt"})
    described = _AutoencoderFile(
        format=1,
        tower=tower,
        config=autoencoder.config,
        files={WEIGHTS: hashlib.sha256(weights).hexdigest()},
    )
    contents = {
        WEIGHTS: weights,
        TRAINING: as_json(dict(facts)),
        # Last: without it, the folder does not count as an autoencoder.
        CONFIG: as_json(described.model_dump(mode="json")),
    }
    write_files(folder, contents, what="autoencoder")


def load_autoencoder(folder: Path, *, tower: str, model: str = "NAME") -> SparseAutoencoder:
    """The autoencoder for inference, on the CPU; errors call the tower's model `model`. Raises
    ModelError if it was trained on another tower than `tower`, or its files are damaged."""
    described = _read_config(folder)
    if described.tower != tower:
        raise ModelError(
            other_tower(folder, described.tower, tower, model=model, what="autoencoder")
            + f"natadv train sae --model {model} --data NAME --out DIR"
        )
    content = read_verified(folder / WEIGHTS, described.files[WEIGHTS], what="autoencoder")
    # On no device: this takes no memory for the weights.
    with torch.device("meta"):
        autoencoder = SparseAutoencoder(described.config)
    try:
        tensors = tensors_from_bytes(content)
    except SafetensorError as error:
        raise ModelError(
            f"{folder / WEIGHTS}: not a whole safetensors file ({error}); copy the folder again"
        ) from error
    expected = autoencoder.state_dict()
    odd = sorted(
        name
        for name in expected.keys() | tensors.keys()
        if name not in tensors
        or name not in expected
        or tensors[name].shape != expected[name].shape
        or tensors[name].dtype != torch.float32
        or not tensors[name].isfinite().all()
    )
    if odd:
        raise ModelError(
            f"{folder / WEIGHTS}: {listed(odd)} not as {CONFIG} says (missing, unknown, of another "
            "shape, not float32 or not finite); copy the whole folder again"
        )
    autoencoder.load_state_dict(tensors, assign=True)
    return autoencoder.eval().requires_grad_(False)


def _read_config(folder: Path) -> _AutoencoderFile:
    path = folder / CONFIG
    if not path.is_file():
        raise ModelError(
            f"no {CONFIG} in {folder}: expected a folder that natadv train sae has written"
        )
    try:
        described = _AutoencoderFile.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error}") from error
    except ValidationError as error:
        raise ModelError(
            f"{path}: not the config of a sparse autoencoder: {first_mistake(error)}; copy the "
            "whole folder again, or train it again"
        ) from error
    if set(described.files) != {WEIGHTS}:
        raise ModelError(f"{path}: names no {WEIGHTS}; copy the whole folder again")
    return described

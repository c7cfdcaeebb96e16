"""A loaded model whose weights a defence may change, and their names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple, final

import numpy as np
import torch

from natadv.errors import ModelError
from natadv.models.adapters.encoder import DualEncoder, Pixels
from natadv.models.loading import fingerprint, load_hashed
from natadv.tasks.classification import class_weights, prompts
from natadv.types import DoubleArray, FloatArray, ModelSpec

if TYPE_CHECKING:
    from PIL.Image import Image


class WeightNames(NamedTuple):
    """How a family calls the weights that defences change; `{}` is a layer, counted from 0."""

    layer: str
    """Prefix of everything in a layer of the picture tower."""
    projection: str
    """The output projection of its attention, without `.weight` and `.bias`."""
    tokens: str
    """The embeddings of the tokens of texts."""


NAMES = (
    WeightNames(
        "vision_model.encoder.layers.{}.",
        "vision_model.encoder.layers.{}.self_attn.out_proj",
        "text_model.embeddings.token_embedding.weight",
    ),
    WeightNames(
        "visual.transformer.resblocks.{}.",
        "visual.transformer.resblocks.{}.attn.out_proj",
        "token_embedding.weight",
    ),
)
"""Of transformers (CLIP, SigLIP), and of open_clip."""


@final
@dataclass(frozen=True, slots=True)
class Network:
    """A dual encoder with open layers, in float32."""

    spec: ModelSpec
    weights: str
    """Its fingerprint."""
    encoder: DualEncoder
    module: torch.nn.Module
    names: WeightNames
    batch: int

    def parameter(self, name: str) -> torch.nn.Parameter:
        """Raises ModelError if the network has none of this name."""
        try:
            return self.module.get_parameter(name)
        except AttributeError as error:
            raise ModelError(
                f"{self.spec.name}: has no weights {name!r}; its layers are built otherwise, so "
                "that this defence does not fit it"
            ) from error

    def tower_layers(self) -> dict[str, torch.nn.Parameter]:
        """The weights of all layers of the picture tower; not its input, nor the projection."""
        prefix = self.names.layer.partition("{}")[0]
        found = {n: p for n, p in self.module.named_parameters() if n.startswith(prefix)}
        if not found:
            raise ModelError(f"{self.spec.name}: has no layers called {prefix}...")
        return found

    def prepared(self, pictures: Iterable[Image]) -> Iterator[Pixels]:
        """The pictures in preprocessed batches on the device."""
        rest = iter(pictures)
        while part := list(islice(rest, self.batch)):
            pixels = self.encoder.prepare(part)
            assert pixels is not None
            yield self.encoder.placement.of_pixels(pixels)

    def embed(self, pictures: Iterable[Image]) -> FloatArray:
        """Unit rows of shape (n, d)."""
        rows = [self.encoder.embed_images(pixels) for pixels in self.prepared(pictures)]
        return np.concatenate([self.encoder.embed_images(None), *rows])

    def class_weights(self, names: Sequence[str], templates: Sequence[str]) -> DoubleArray:
        """Unit rows of shape (c, d), as zero-shot classification has them."""
        return class_weights(
            self.encoder.embed_texts(prompts(names, templates)),
            classes=len(names),
            templates=len(templates),
        )


def open_network(spec: ModelSpec, *, device: str, threads: int, batch: int) -> Network:
    """Load a model for a defence. Raises ModelError if its weights cannot be changed and kept."""
    if spec.factory or spec.tower_of is not None or spec.feeding != "as-trained":
        raise ModelError(
            f"{spec.name}: a defence is written as a checkpoint folder; give a whole checkpoint of "
            "CLIP, SigLIP or open_clip, fed as it was trained"
        )
    weights = fingerprint(spec)
    model = load_hashed(spec, weights=weights, device=device, dtype="float32", threads=threads)
    if not isinstance(model, DualEncoder) or model.network is None or model.open_tower is None:
        raise ModelError(
            f"{spec.name}: defences fit transformers with a picture and a text tower (CLIP, "
            "SigLIP, a ViT of open_clip); use another model"
        )
    stored = dict(model.network.named_parameters())
    for names in NAMES:
        if f"{names.projection.format(0)}.weight" in stored and names.tokens in stored:
            return Network(spec, weights, model, model.network, names, batch)
    raise ModelError(f"{spec.name}: its layers are built otherwise, so that no defence fits it")

"""Two towers as one zero-shot classifier: shared by the adapters of CLIP and SigLIP."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, final

import numpy as np
import torch
from torch.nn import functional

from natadv.errors import ModelError, NatadvError
from natadv.explain.head_masking import masked_embeddings
from natadv.explain.layers import LayerwisePass, OpenFeatures, OpenTower
from natadv.explain.relevance import attention_relevance, grad_cam
from natadv.models.adapters.towers import DenseTower
from natadv.types import (
    Concurrency,
    FloatArray,
    ForwardFeatures,
    LayerSpan,
    MaskedTokens,
    ModelSpec,
)

if TYPE_CHECKING:
    from PIL.Image import Image

TEXT_BATCH = 256
"""Bounds the memory that a long list of prompts takes."""

Tokens = Mapping[str, torch.Tensor]
Pixels = Mapping[str, torch.Tensor]


@dataclass(frozen=True, slots=True)
class Placement:
    """The device that a model runs on, and its dtype."""

    device: torch.device
    """Where inputs go; the first GPU of a model that is spread over several."""
    dtype: torch.dtype
    """Of activations; weights have it too, unless they have 8 bits."""
    gpus: int = 1
    """GPUs that the layers are spread over."""
    in_8_bits: bool = False
    """Whether the weights of linear layers are rounded to 8 bits."""

    @property
    def concurrency(self) -> Concurrency:
        """What several threads may ask of a tower at once: all, as its layers keep nothing, but a
        GPU computes one batch after another."""
        return "all" if self.device.type == "cpu" else "prepare"

    def of_pixels(self, pixels: Pixels) -> dict[str, torch.Tensor]:
        """Every tensor on the device, floating-point ones in the dtype."""
        return {
            key: t.to(self.device, self.dtype if t.is_floating_point() else t.dtype)
            for key, t in pixels.items()
        }

    def of_tokens(self, tokens: Tokens) -> dict[str, torch.Tensor]:
        """Every tensor on the device."""
        return {key: t.to(self.device) for key, t in tokens.items()}


@dataclass(frozen=True, slots=True)
class LogitScoring:
    """logit = scale * cosine + bias, then the activation."""

    scale: float
    bias: float
    activation: Literal["softmax", "sigmoid"]


@final
@dataclass(kw_only=True, eq=False, repr=False)
class TowerReader:
    """Reads the layers of a picture tower that is fed in one way."""

    name: str
    placement: Placement
    preprocess: Callable[[Sequence[Image]], Pixels]
    dense: DenseTower
    resized: Callable[[int], TowerReader] | None = None
    """The tower for squares of another side in pixels, if the adapter can feed them."""
    open_tower: OpenTower | None = None
    """The tower layer by layer, if it is a transformer that the adapter can open."""

    @property
    def concurrency(self) -> Concurrency:
        """What several threads may call at once."""
        return self.placement.concurrency

    @property
    def depth(self) -> int:
        """Layers whose features can be read."""
        return self.dense.depth

    def prepare(self, images: Sequence[Image]) -> Pixels | None:
        """Preprocessed pictures on the CPU; None for no pictures."""
        return self.preprocess(images) if images else None

    def forward_features(self, prepared: Pixels | None, layers: Sequence[int]) -> ForwardFeatures:
        """Embeddings and the features of `layers` from one pass; layers count from 1. Raises
        ModelError if there is no such layer, or its output is not finite."""
        if wrong := [layer for layer in layers if not 1 <= layer <= self.depth]:
            raise ModelError(
                f"{self.name}: no layer {wrong[0]!r}; it has layers 1 (next to the input) to "
                f"{self.depth}"
            )
        # Without pictures, one shapes the output.
        pixels = self.preprocess([any_picture()]) if prepared is None else prepared
        with torch.inference_mode():
            output = self.dense.forward_features(self.placement.of_pixels(pixels))
            features = tuple(output.states[n - 1].float().cpu().numpy() for n in layers)
        for layer, places in zip(layers, features, strict=True):
            if not np.isfinite(places).all():
                raise ModelError(
                    f"{self.name}: features of layer {layer} are not finite; its weights are "
                    "damaged, or need --dtype float32"
                )
        if output.embeddings is None:
            embeddings = np.zeros((len(output.states[0]), 0), np.float32)
        else:
            embeddings = finite_rows(output.embeddings, self.placement, name=self.name)
        if prepared is None:
            return ForwardFeatures(embeddings[:0], tuple(places[:0] for places in features))
        return ForwardFeatures(embeddings, features)

    def layerwise(self, prepared: Pixels) -> LayerwisePass:
        """The pictures in front of the first layer; gradients are on. Raises ModelError if the
        adapter cannot open the tower."""
        return opened_layers(self.open_tower, self.placement.of_pixels(prepared), name=self.name)

    def at_resolution(self, side_px: int) -> TowerReader:
        """The tower for whole pictures as squares of `side_px` pixels. Raises ModelError if it
        reads pictures of its own size only."""
        if self.resized is None:
            raise ModelError(
                f"{self.name}: its adapter feeds pictures of the trained size only; train a head "
                "with --set input_px=null"
            )
        with as_model_error(self.name, f"prepare for pictures of {side_px} pixels"):
            return self.resized(side_px)


@final
@dataclass(kw_only=True, eq=False, repr=False)
class DualEncoder:
    """Embeds pictures and texts with the towers of one checkpoint.

    Raises ModelError if they cannot embed one picture and one text into a shared space; the
    constructor tries it, so that a mismatch shows before any data is read.
    """

    name: str
    placement: Placement
    preprocess: Callable[[Sequence[Image]], Pixels]
    embed_pixels: Callable[[Pixels], torch.Tensor]
    """From preprocessed pictures on the device to embeddings of shape (b, d), of any length."""
    tokenise: Callable[[Sequence[str]], Tokens]
    embed_tokens: Callable[[Tokens], torch.Tensor]
    """From tokens on the device to embeddings of shape (c, d), of any length."""
    scoring: LogitScoring
    dense: DenseTower | None = None
    """The layers of the picture tower, if the adapter can read them."""
    resized: Callable[[int], TowerReader] | None = None
    """The picture tower for squares of another side in pixels, if the adapter can feed them."""
    open_tower: OpenTower | None = None
    """The picture tower layer by layer, if it is a transformer that the adapter can open."""
    open_features: OpenFeatures | None = None
    """The picture tower in front of its pooling, if it is a residual network."""
    network: torch.nn.Module | None = None
    """Computes all of this. Its parameters have the names of the stored weights, and a defence that
    changes them changes the encoder."""
    _dim: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        with as_model_error(self.name, "preprocess a picture"):
            prepared = self.prepare([any_picture()])
        with as_model_error(self.name, "embed a picture"):
            self._dim = self.embed_images(prepared).shape[1]
        with as_model_error(self.name, "embed a text"):
            text_dim = self.embed_texts(["a photo of a cat."]).shape[1]
        if text_dim != self._dim:
            raise ModelError(
                f"{self.name}: pictures have {self._dim} dimensions, texts {text_dim}; "
                "its towers do not share one space"
            )

    def prepare(self, images: Sequence[Image]) -> Pixels | None:
        """Preprocessed pictures on the CPU; None for no pictures."""
        return self.preprocess(images) if images else None

    def embed_images(self, prepared: Pixels | None) -> FloatArray:
        """Unit rows of shape (b, d). Raises ModelError if one is not finite."""
        if prepared is None:
            return np.zeros((0, self._dim), np.float32)
        with torch.inference_mode():
            embeddings = self.embed_pixels(self.placement.of_pixels(prepared))
        return self._rows(embeddings)

    def embed_texts(self, texts: Sequence[str]) -> FloatArray:
        """Unit rows of shape (c, d). Raises ModelError if one is not finite."""
        return self._texts(texts, unit_rows)

    def embed_texts_raw(self, texts: Sequence[str]) -> FloatArray:
        """Rows of shape (c, d) with the length that the text tower gives them. Raises ModelError if
        one is not finite, or zero."""
        return self._texts(texts, raw_rows)

    def _texts(
        self, texts: Sequence[str], rows: Callable[[torch.Tensor], FloatArray]
    ) -> FloatArray:
        batches = [np.zeros((0, self._dim), np.float32)] if not texts else []
        for start in range(0, len(texts), TEXT_BATCH):
            tokens = self.tokenise(texts[start : start + TEXT_BATCH])
            with torch.inference_mode():
                embeddings = self.embed_tokens(self.placement.of_tokens(tokens))
            batches.append(checked(rows(embeddings), self.placement, name=self.name))
        return np.concatenate(batches)

    @property
    def concurrency(self) -> Concurrency:
        """What several threads may call at once."""
        return self.placement.concurrency

    @property
    def depth(self) -> int:
        """Layers whose features can be read."""
        return self.dense.depth if self.dense else 0

    def forward_features(self, prepared: Pixels | None, layers: Sequence[int]) -> ForwardFeatures:
        """As that of `TowerReader`; also raises ModelError if the adapter cannot read layers."""
        return self._tower.forward_features(prepared, layers)

    def at_resolution(self, side_px: int) -> TowerReader:
        """As that of `TowerReader`; also raises ModelError if the adapter cannot read layers."""
        return self._tower.at_resolution(side_px)

    @property
    def _tower(self) -> TowerReader:
        if self.dense is None:
            raise ModelError(
                f"{self.name}: its adapter gives no features of places; use another model"
            )
        return TowerReader(
            name=self.name,
            placement=self.placement,
            preprocess=self.preprocess,
            dense=self.dense,
            resized=self.resized,
            open_tower=self.open_tower,
        )

    def layerwise(self, prepared: Pixels) -> LayerwisePass:
        """The pictures in front of the first layer of the picture tower; gradients are on. Raises
        ModelError if the adapter cannot open it."""
        return opened_layers(self.open_tower, self.placement.of_pixels(prepared), name=self.name)

    def relevance(
        self, prepared: Pixels | None, targets: FloatArray, *, layers: LayerSpan = "last"
    ) -> FloatArray:
        """Attention relevance, of shape (b, h, w); of a residual network Grad-CAM of its last
        stage, whatever the layers. Raises ModelError if the adapter cannot open the layers of its
        picture tower, or a value is not finite."""
        if prepared is None:
            # Without pictures, one shapes the output.
            one = self.preprocess([any_picture()])
            return self.relevance(one, np.zeros((1, self._dim), np.float32), layers=layers)[:0]
        rows = torch.from_numpy(targets).to(self.placement.device)

        def _similarity(embeddings: torch.Tensor) -> torch.Tensor:
            # One scale for all, as a large one would overflow gradients in float16.
            return (functional.normalize(embeddings.float(), dim=-1) * rows).sum(dim=-1)

        if self.open_features is not None:
            last = self.open_features(self.placement.of_pixels(prepared))
            places = last.places.requires_grad_()
            maps = grad_cam(places, _similarity(last.finish(places)))
        else:
            maps = attention_relevance(self.layerwise(prepared), _similarity, layers=layers)
        return finite_maps(maps, name=self.name)

    def masked_embeddings(
        self, prepared: Pixels | None, *, tokens: MaskedTokens = "all"
    ) -> Iterator[FloatArray]:
        """For each layer, unit rows of shape (heads, b, d) without each of its heads in turn.
        Raises ModelError if the adapter cannot open the layers of its picture tower, the tower has
        no class token whose heads could be masked alone, or a row is not finite."""
        with torch.inference_mode():
            opened = self.layerwise(
                self.preprocess([any_picture()]) if prepared is None else prepared
            )
        layers = masked_embeddings(opened, tokens=tokens)
        while True:
            # Not around the yield: the mode would hold for the caller, too.
            with torch.inference_mode():
                rows = next(layers, None)
            if rows is None:
                return
            yield self._rows(rows if prepared is not None else rows[:, :0])

    def _rows(self, embeddings: torch.Tensor) -> FloatArray:
        return finite_rows(embeddings, self.placement, name=self.name)


def finite_rows(embeddings: torch.Tensor, placement: Placement, *, name: str) -> FloatArray:
    """`unit_rows` of the model `name`. Raises ModelError if one is not finite."""
    return checked(unit_rows(embeddings), placement, name=name)


def finite_maps(maps: torch.Tensor, *, name: str) -> FloatArray:
    """Relevance maps of the model `name`, on the host. Raises ModelError if one is not finite."""
    found: FloatArray = maps.float().cpu().numpy()
    if not np.isfinite(found).all():
        raise ModelError(
            f"{name}: its relevance maps are not finite; its weights are damaged, or need "
            "--dtype float32"
        )
    return found


def opened_layers(open_tower: OpenTower | None, pixels: Pixels, *, name: str) -> LayerwisePass:
    """Pixels on the device in front of the first layer. Raises ModelError without `open_tower`."""
    if open_tower is None:
        raise ModelError(
            f"{name}: its adapter cannot open the layers of its picture tower; use another model"
        )
    return open_tower(pixels)


def checked(rows: FloatArray, placement: Placement, *, name: str) -> FloatArray:
    """The embeddings of the model `name`. Raises ModelError if one is not finite."""
    if not np.isfinite(rows).all():
        raise ModelError(
            f"{name}: embeddings are not finite (NaN, infinite or all zero) in "
            f"{placement.dtype}; its weights are damaged, or need --dtype float32"
        )
    return rows


@contextmanager
def as_model_error(where: object, action: str) -> Iterator[None]:
    """Turn any exception of foreign code into a ModelError: `where` cannot `action`."""
    try:
        yield
    except NatadvError:
        raise
    # Tokenizers, safetensors and strict configs raise bare Exceptions of their own, and a damaged
    # config that was accepted can break layers in any way.
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise ModelError(
            f"{where}: cannot {action}: {reason} ({type(error).__name__}); "
            "copy or download the folder again"
        ) from error


def check_activation(spec: ModelSpec, computed: Mapping[str, str], *, remedy: str) -> None:
    """Compare the MLP activation of each tower with that of the training.

    No weight shape reveals a wrong one, which costs accuracy silently.

    Raises ModelError if they differ; `remedy` says what to do.
    """
    wrong = {tower: kind for tower, kind in computed.items() if kind != spec.activation}
    if spec.activation is not None and wrong:
        faults = " and ".join(
            f"its {tower} tower computes {kind!r}" for tower, kind in wrong.items()
        )
        raise ModelError(
            f"{spec.name}: {faults}, but the weights were trained with {spec.activation!r} and "
            f"would give other embeddings; {remedy}"
        )


def scale_of(logarithm: float, *, where: object) -> float:
    """The scale that is stored as a logarithm. Raises ModelError if it overflows."""
    try:
        return math.exp(logarithm)
    except OverflowError as error:
        raise ModelError(
            f"{where}: logit_scale is e to the power of {logarithm:.4g}, more than any number; the "
            "weights are damaged"
        ) from error


def any_picture() -> Image:
    """A small picture that is neither square nor grey, to try a model with."""
    from PIL import Image

    return Image.new("RGB", (40, 56), (90, 140, 200))


def square_pixels(
    name: str, processor: Any, images: Sequence[Image], *, side: int
) -> dict[str, torch.Tensor]:
    """The pixels that a processor of transformers makes of pictures.

    Raises ModelError if they are not squares of `side` pixels.
    """
    pixels: torch.Tensor = processor(images=list(images), return_tensors="pt")["pixel_values"]
    expected = (len(images), 3, side, side)
    if tuple(pixels.shape) != expected:
        raise ModelError(
            f"{name}: the model takes pictures of shape {expected}, its preprocessing "
            f"makes {tuple(pixels.shape)}; copy the original preprocessing config"
        )
    return {"pixel_values": pixels}


def unit_rows(embeddings: torch.Tensor) -> FloatArray:
    """Rows of length one, float32, on the CPU; a row of zeros becomes NaN."""
    rows = embeddings.float()
    unit: FloatArray = (rows / rows.norm(dim=-1, keepdim=True)).cpu().numpy()
    return unit


def raw_rows(embeddings: torch.Tensor) -> FloatArray:
    """Rows as they are, float32, on the CPU; a row of zeros becomes NaN."""
    rows = embeddings.float()
    rows = torch.where((rows == 0).all(dim=-1, keepdim=True), torch.nan, rows)
    plain: FloatArray = rows.cpu().numpy()
    return plain

"""The frozen image tower that a head is trained on, and the sizes of its features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from PIL import Image

from natadv.errors import ConfigError, ModelError
from natadv.heads.head_file import default_layers
from natadv.models.loading import fingerprint, load_hashed
from natadv.training.head_settings import HeadSettings, SegmentationSettings
from natadv.types import DenseFeatures, Model, ModelSpec, Resizable, TextEncoder

FALLBACK_PATCH = 16

_PROBE_PX = 64


class FeatureGrid(NamedTuple):
    """The shape of one layer's features of a picture: positions and dimensions."""

    height: int
    width: int
    dim: int


@dataclass(frozen=True, slots=True)
class Tower:
    """A loaded model, and the layers whose features a head takes."""

    spec: ModelSpec
    fingerprint: str
    model: Model
    dense: DenseFeatures
    layers: tuple[int, ...]
    grids: tuple[FeatureGrid, ...]
    """One for each of the layers."""
    input_px: int | None
    """Side of the tower's input, if it is square."""
    resized_px: int | None
    """The same, if it is not that of the tower's training."""
    device: str

    @property
    def patch(self) -> int:
        """Side in pixels of one position of the finest layer."""
        places = max(grid.width for grid in self.grids)
        if self.input_px is None or self.input_px % places:
            return FALLBACK_PATCH
        return self.input_px // places

    @property
    def texts(self) -> TextEncoder:
        """The model as a text encoder. Raises ModelError if it embeds no texts."""
        if not isinstance(self.model, TextEncoder):
            raise ModelError(
                f"{self.spec.name}: this training takes the model's own embeddings of phrases or "
                "words, and this model embeds no texts; use another model, or, for vqa, "
                "--set word_vectors=drawn"
            )
        return self.model


def load_tower(spec: ModelSpec, settings: HeadSettings, *, device: str, threads: int) -> Tower:
    """Load the model, and measure its features on one blank picture.

    Raises ConfigError if it lacks a layer that the settings name, ModelError if it has no dense
    features.
    """
    weights = fingerprint(spec)
    model = load_hashed(spec, weights=weights, device=device, dtype="float32", threads=threads)
    if not isinstance(model, DenseFeatures) or model.depth < 1:
        raise ModelError(
            f"{spec.name}: a head is trained on dense features of an image tower, which this "
            "model's adapter does not offer; use another model (natadv models)"
        )
    asked_px = None
    if isinstance(settings, SegmentationSettings):
        setting, layers = "layers", settings.layers or default_layers(model.depth)
        asked_px = settings.input_px
    else:
        setting, layers = "layer", (settings.layer or model.depth,)
    if max(layers) > model.depth:
        raise ConfigError(
            f"{setting}: {spec.name} has {model.depth} layers, {max(layers)} was asked for; set "
            f"{setting} to at most {model.depth}"
        )
    dense: DenseFeatures = model
    resized_px = None
    shape = _shape_of(dense, layers)
    if asked_px is not None:
        resized_px = _whole_patches(asked_px, shape, name=spec.name)
        if not isinstance(model, Resizable):
            raise ConfigError(
                f"input_px: {spec.name} reads pictures of its own size only; "
                "--set input_px=null trains at that"
            )
        dense = model.at_resolution(resized_px)
        shape = _shape_of(dense, layers)
    return Tower(
        spec=spec,
        fingerprint=weights,
        model=model,
        dense=dense,
        layers=tuple(layers),
        grids=shape.grids,
        input_px=shape.input_px,
        resized_px=resized_px,
        device=device,
    )


class _Shape(NamedTuple):
    """The sizes of a tower's input and of its layers, measured on one picture."""

    input_px: int | None
    grids: tuple[FeatureGrid, ...]


def _shape_of(dense: DenseFeatures, layers: Sequence[int]) -> _Shape:
    prepared = dense.prepare([Image.new("RGB", (_PROBE_PX, _PROBE_PX), (90, 140, 200))])
    features = dense.forward_features(prepared, layers).features
    # The pixels are called otherwise by open_clip.
    named = prepared if isinstance(prepared, Mapping) else {}
    pixels = named.get("pixel_values", named.get("image"))
    shape = tuple(pixels.shape) if pixels is not None else ()
    square = len(shape) == 4 and shape[-1] == shape[-2]
    grids = tuple(FeatureGrid(*places.shape[1:]) for places in features)
    return _Shape(shape[-1] if square else None, grids)


def _whole_patches(asked_px: int, shape: _Shape, *, name: str) -> int:
    """The multiple of the coarsest patch that is nearest to `asked_px`."""
    places = min(grid.width for grid in shape.grids)
    if shape.input_px is None or shape.input_px % places:
        raise ConfigError(
            f"input_px: {name} does not read squares of one size; --set input_px=null feeds it as "
            "it was trained"
        )
    patch = shape.input_px // places
    return max(1, round(asked_px / patch)) * patch

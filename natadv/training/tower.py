"""The frozen image tower that a head is trained on, and the sizes of its features."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from PIL import Image

from natadv.errors import ConfigError, ModelError
from natadv.heads.head_file import default_layers
from natadv.models.loading import fingerprint, load_hashed
from natadv.training.head_settings import HeadSettings, SegmentationSettings
from natadv.types import DenseFeatures, Model, ModelSpec, ZeroShotClassifier

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
    device: str

    @property
    def patch(self) -> int:
        """Side in pixels of one position of the finest layer."""
        places = max(grid.width for grid in self.grids)
        if self.input_px is None or self.input_px % places:
            return FALLBACK_PATCH
        return self.input_px // places

    @property
    def texts(self) -> ZeroShotClassifier:
        """The model as a text encoder. Raises ModelError if it embeds no texts."""
        if not isinstance(self.model, ZeroShotClassifier):
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
    if isinstance(settings, SegmentationSettings):
        setting, layers = "layers", settings.layers or default_layers(model.depth)
    else:
        setting, layers = "layer", (settings.layer or model.depth,)
    if max(layers) > model.depth:
        raise ConfigError(
            f"{setting}: {spec.name} has {model.depth} layers, {max(layers)} was asked for; set "
            f"{setting} to at most {model.depth}"
        )
    prepared = model.prepare([Image.new("RGB", (_PROBE_PX, _PROBE_PX), (90, 140, 200))])
    features = model.forward_features(prepared, layers).features
    pixels = prepared.get("pixel_values") if isinstance(prepared, Mapping) else None
    shape = tuple(pixels.shape) if pixels is not None else ()
    return Tower(
        spec=spec,
        fingerprint=weights,
        model=model,
        dense=model,
        layers=tuple(layers),
        grids=tuple(FeatureGrid(*places.shape[1:]) for places in features),
        input_px=shape[-1] if len(shape) == 4 and shape[-1] == shape[-2] else None,
        device=device,
    )

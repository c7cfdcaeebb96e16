"""The frozen tower that a head is trained on, and what it gives of each place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from natadv.errors import ConfigError, ModelError
from natadv.heads.head_file import default_layers
from natadv.models.loading import fingerprint, load_hashed
from natadv.models.resolve import resolve
from natadv.training.settings import SegmentationSettings, Settings
from natadv.types import DenseFeatures, Model, ModelSpec, Prepared, ZeroShotClassifier

FALLBACK_PATCH = 16

_PROBE_PX = 64


class Grid(NamedTuple):
    """What one layer gives of a picture: places and dimensions."""

    height: int
    width: int
    dim: int


@dataclass(frozen=True, slots=True)
class Tower:
    """A loaded model, and the layers of it that a head looks at."""

    spec: ModelSpec
    fingerprint: str
    model: Model
    dense: DenseFeatures
    layers: tuple[int, ...]
    grids: tuple[Grid, ...]
    """For each of the layers."""
    seen_px: int | None
    """Side of the pictures that the tower takes, where it takes squares."""
    device: str

    @property
    def patch(self) -> int:
        """Pixels beside each other that the tower sees in one place of its finest layer."""
        places = max(grid.width for grid in self.grids)
        if self.seen_px is None or self.seen_px % places:
            return FALLBACK_PATCH
        return self.seen_px // places

    @property
    def texts(self) -> ZeroShotClassifier:
        """The model as one that reads phrases. Raises ModelError."""
        if not isinstance(self.model, ZeroShotClassifier):
            raise ModelError(
                f"{self.spec.name}: this training takes the model's own embeddings of phrases or "
                "words, and this model embeds no texts; use another model, or, for vqa, "
                "--set word_vectors=drawn"
            )
        return self.model


def find_tower(name: str, *, root: Path) -> ModelSpec:
    """The one model that `name` means. Raises ConfigError if it means several."""
    specs = resolve(name, root=root)
    if len(specs) != 1:
        raise ConfigError(
            f"--model {name} means {len(specs)} models ({', '.join(s.name for s in specs)}); a "
            "head is trained on one tower: name one"
        )
    return specs[0]


def load_tower(spec: ModelSpec, settings: Settings, *, device: str, threads: int) -> Tower:
    """Load the model, and look once.

    Raises:
        ModelError: It cannot tell what it knows of each place, or has no such layer.
    """
    weights = fingerprint(spec)
    model = load_hashed(spec, weights=weights, device=device, dtype="float32", threads=threads)
    if not isinstance(model, DenseFeatures) or model.depth < 1:
        raise ModelError(
            f"{spec.name}: a head is trained on what a picture tower knows of each place, and this "
            "model's adapter does not tell; use another model (natadv models)"
        )
    layers = _layers(spec.name, settings, depth=model.depth)
    prepared = model.prepare([Image.new("RGB", (_PROBE_PX, _PROBE_PX), (90, 140, 200))])
    features = model.forward_features(prepared, layers).features
    return Tower(
        spec=spec,
        fingerprint=weights,
        model=model,
        dense=model,
        layers=layers,
        grids=tuple(Grid(*places.shape[1:]) for places in features),
        seen_px=_side(prepared),
        device=device,
    )


def _layers(name: str, settings: Settings, *, depth: int) -> tuple[int, ...]:
    if isinstance(settings, SegmentationSettings):
        setting, layers = "layers", settings.layers or default_layers(depth)
    else:
        setting, layers = "layer", (settings.layer or depth,)
    if max(layers) > depth:
        raise ConfigError(
            f"{setting}: {name} has {depth} layers, {max(layers)} was asked for; set {setting} to "
            f"at most {depth}"
        )
    return tuple(layers)


def _side(prepared: Prepared) -> int | None:
    """Only what is known to be pixels, of shape (b, 3, side, side)."""
    pixels = prepared.get("pixel_values") if isinstance(prepared, Mapping) else None
    if pixels is None or pixels.ndim != 4 or pixels.shape[-1] != pixels.shape[-2]:
        return None
    return int(pixels.shape[-1])

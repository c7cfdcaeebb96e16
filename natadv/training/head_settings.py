"""The settings of a training: published defaults, then `params.yaml`, then `--set`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from string import Formatter
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from natadv.config import Strict, settings_of
from natadv.heads.head_file import Upsampling

TrainedTask = Literal["segmentation", "vqa"]

TEMPLATES = (
    "a photo of a {}.",
    "a photograph of a {}.",
    "an image of a {}.",
    "{}.",
    "a cropped photo of a {}.",
    "a good photo of a {}.",
    "a photo of one {}.",
    "a bad photo of a {}.",
    "a photo of the {}.",
)
"""The sentences in which CLIPSeg embeds a phrase (Lueddecke & Ecker 2022)."""


def as_number(value: object) -> object:
    """The number that a text stands for; anything else as it is."""
    # YAML 1.1 reads `1e-3` as text.
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


Positive = Annotated[float, BeforeValidator(as_number), Field(gt=0)]
NotNegative = Annotated[float, BeforeValidator(as_number), Field(ge=0)]
Share = Annotated[float, BeforeValidator(as_number), Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1)]
Counts = Annotated[tuple[Count, ...], Field(strict=False)]
# YAML has lists only; their items are still validated strictly.
Texts = Annotated[tuple[str, ...], Field(strict=False, min_length=1)]


class TrainingSettings(Strict):
    """Settings that all trainings share."""

    seed: int = 1
    batch: Count = 64
    held_back: Share = 0.02
    """Share of the groups that are never trained on; the validation metric is computed on them."""
    validate_every: Count = 500
    """Steps."""
    validation_rows: Count = 1000
    """Each validation uses at most this many held-back rows."""
    checkpoint_every: Count = 500
    """Steps; a killed training loses at most this many."""
    amp: bool = True
    """Half precision on a GPU; a CPU always computes in float32."""


class SegmentationSettings(TrainingSettings):
    """The decoder; the defaults are those of CLIPSeg on PhraseCut, but for `input_px`."""

    steps: Count = 20_000
    rate: Positive = 1e-3
    """Learning rate of the first step; it falls along a cosine to `last_rate`, which the step after
    the last one would have."""
    last_rate: Positive = 1e-4
    weight_decay: Annotated[float, BeforeValidator(as_number), Field(ge=0)] = 0.01
    templates: Texts = TEMPLATES
    """Each step embeds the phrase of each row in one of them, drawn at random."""
    layers: Counts | None = None
    """Layers of the tower, counted from 1 at the input; by default those of CLIPSeg, scaled to the
    tower's depth."""
    input_px: Count | None = None
    """Side in pixels of the squares that the tower reads, with interpolated position embeddings;
    for a patch that does not divide it, the nearest multiple. By default the tower's own."""
    patch: Count | None = None
    """Side in pixels of the output for one position; by default the patch size of the tower."""
    upsample: Upsampling = "transposed"
    reduce_width: Count = 64
    heads: Count = 4
    feed_forward: Count = 2048
    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.3
    """A pixel counts as foreground if its probability is above this, in every evaluation."""

    @field_validator("templates")
    @classmethod
    def _check_placeholders(cls, templates: tuple[str, ...]) -> tuple[str, ...]:
        for template in templates:
            try:
                fields = [name for _, name, _, _ in Formatter().parse(template) if name is not None]
            except ValueError:
                fields = []
            if fields != [""]:
                raise ValueError(f"expected texts with one '{{}}', got {template!r}")
        return templates

    @model_validator(mode="after")
    def _check_rates(self) -> Self:
        if self.last_rate > self.rate:
            raise ValueError(f"last_rate {self.last_rate:g} is above rate {self.rate:g}")
        return self


class VqaSettings(TrainingSettings):
    """MCAN; the defaults are those of its small size on VQA v2."""

    epochs: Count = 13
    rows_per_epoch: Count | None = None
    """Length of the epochs that `warm_up` and `decay_after` count; by default all training rows."""
    rate: Positive = 1e-4
    matrix_rate: Positive | None = None
    """Learning rate of Muon (Jordan et al. 2024) for the matrices between layers; its ratio to
    `rate` stays constant. By default Adam trains them like all other weights, as published."""
    word_vectors: Literal["drawn", "tower"] = "drawn"
    """Initial word vectors: random, or the model's own text embeddings. The published MCAN started
    from GloVe vectors."""
    warm_up: Annotated[int, Field(ge=0)] = 3
    """Epochs over which the rate rises in equal steps: 3 epochs rise by quarters."""
    decay_after: Counts = (10, 12)
    """The rate is multiplied by `decay` after each of these epochs, in ascending order."""
    decay: Positive = 0.2
    betas: Annotated[tuple[Share, Share], Field(strict=False)] = (0.9, 0.98)
    eps: Positive = 1e-9
    more_than: Annotated[int, Field(ge=0)] = 8
    """An answer is learned if more questions than this have it; VQA v2 has 3129 such answers."""
    layer: Count | None = None
    """Layer of the tower, counted from 1 at the input; by default its last."""
    embedding: Count = 300
    hidden: Count = 512
    heads: Count = 8
    feed_forward: Count = 2048
    blocks: Count = 6
    summary: Count = 512
    fused: Count = 1024
    dropout: Share = 0.1

    @field_validator("decay_after")
    @classmethod
    def _check_order(cls, epochs: tuple[int, ...]) -> tuple[int, ...]:
        if list(epochs) != sorted(set(epochs)):
            raise ValueError(f"expected epochs that rise, got {list(epochs)}")
        return epochs


HeadSettings = SegmentationSettings | VqaSettings

SETTINGS: dict[TrainedTask, type[SegmentationSettings] | type[VqaSettings]] = {
    "segmentation": SegmentationSettings,
    "vqa": VqaSettings,
}


def settings_for(
    task: TrainedTask, *, root: Path, section: str | None, overrides: Sequence[str]
) -> HeadSettings:
    """The settings of the training of a head: of section `train-TASK`, if no other is named. Raises
    ConfigError."""
    schema: type[HeadSettings] = SETTINGS[task]
    return settings_of(
        schema, task, root=root, usual=f"train-{task}", section=section, overrides=overrides
    )

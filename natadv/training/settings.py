"""What can be set of a training: published values, over them `params.yaml`, over it `--set`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Formatter
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, ValidationError, field_validator, model_validator

from natadv.config import Strict
from natadv.errors import ConfigError, unknown_name
from natadv.heads.head_file import Upsampling
from natadv.settings import PARAMS, parse_override, section_of

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
"""In which CLIPSeg reads a phrase (Lueddecke & Ecker 2022)."""


def _number(value: object) -> object:
    # YAML 1.1 takes `1e-3` for a text.
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


Positive = Annotated[float, BeforeValidator(_number), Field(gt=0)]
Share = Annotated[float, BeforeValidator(_number), Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1)]
Counts = Annotated[tuple[Count, ...], Field(strict=False)]
# YAML has lists only; what is in them stays strict.
Texts = Annotated[tuple[str, ...], Field(strict=False, min_length=1)]


class _Common(Strict):
    """What both trainings have."""

    seed: int = 1
    batch: Count = 64
    held_back: Share = 0.02
    """Share of the groups that no step learns from, and that the validation curve is of."""
    validate_every: Count = 500
    """Steps."""
    validation_rows: Count = 1000
    """At most so many of the held-back rows are looked at each time."""
    checkpoint_every: Count = 500
    """Steps, after which a killed training loses nothing."""
    amp: bool = True
    """Half precision on a GPU; on a CPU all is float32."""


class SegmentationSettings(_Common):
    """The decoder; what has a default is as CLIPSeg was trained on PhraseCut."""

    steps: Count = 20_000
    rate: Positive = 1e-3
    """It falls along a cosine to `last_rate`, which the step after the last one would have."""
    last_rate: Positive = 1e-4
    weight_decay: Annotated[float, BeforeValidator(_number), Field(ge=0)] = 0.01
    templates: Texts = TEMPLATES
    """Of which each row of each step is read in one, drawn by lot."""
    layers: Counts | None = None
    """Of the tower, counted from 1 at the input; by default as in CLIPSeg, scaled to its depth."""
    patch: Count | None = None
    """Pixels that are painted for a place; by default as many as the tower sees there."""
    upsample: Upsampling = "transposed"
    reduce_width: Count = 64
    heads: Count = 4
    feed_forward: Count = 2048
    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.3
    """The probability above which a pixel counts as found, wherever the head is measured."""

    @field_validator("templates")
    @classmethod
    def _one_place_each(cls, templates: tuple[str, ...]) -> tuple[str, ...]:
        for template in templates:
            if not _has_one_place(template):
                raise ValueError(f"expected texts with one '{{}}', got {template!r}")
        return templates

    @model_validator(mode="after")
    def _falls(self) -> Self:
        if self.last_rate > self.rate:
            raise ValueError(f"last_rate {self.last_rate:g} is above rate {self.rate:g}")
        return self


class VqaSettings(_Common):
    """MCAN; what has a default is of its small size, as it was trained on VQA v2."""

    epochs: Count = 13
    rows_per_epoch: Count | None = None
    """What `warm_up` and `decay_after` count in; by default all rows that are trained on."""
    rate: Positive = 1e-4
    matrix_rate: Positive | None = None
    """Of Muon (Jordan et al. 2024) on the matrices between layers, as far above or below `rate` all
    along; by default they learn by Adam like the rest, as published."""
    word_vectors: Literal["drawn", "tower"] = "drawn"
    """What words begin as: drawn by lot, or the model's own text embeddings. MCAN began with the
    published vectors of GloVe."""
    warm_up: Annotated[int, Field(ge=0)] = 3
    """Epochs at the beginning, in which the rate rises step by step: of 3 in quarters."""
    decay_after: Counts = (10, 12)
    """Epochs that have passed when the rate is multiplied by `decay`, rising."""
    decay: Positive = 0.2
    betas: Annotated[tuple[Share, Share], Field(strict=False)] = (0.9, 0.98)
    eps: Positive = 1e-9
    more_than: Annotated[int, Field(ge=0)] = 8
    """Answers are learned that more questions than that have; 3129 in VQA v2."""
    layer: Count | None = None
    """Of the tower, counted from 1 at the input; by default its last."""
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
    def _rises(cls, epochs: tuple[int, ...]) -> tuple[int, ...]:
        if list(epochs) != sorted(set(epochs)):
            raise ValueError(f"expected epochs that rise, got {list(epochs)}")
        return epochs


Settings = SegmentationSettings | VqaSettings

SETTINGS: dict[TrainedTask, type[SegmentationSettings] | type[VqaSettings]] = {
    "segmentation": SegmentationSettings,
    "vqa": VqaSettings,
}


def settings_for(
    task: TrainedTask, *, root: Path, section: str | None, overrides: Sequence[str]
) -> Settings:
    """The settings of a training.

    Args:
        root: Where `params.yaml` lies, if there is one.
        section: Of that file; by default `train-TASK`, where it has it.
        overrides: `name=value` each, the value as JSON or as YAML has it.

    Raises:
        ConfigError: There is no such section or setting, or a value cannot be.
    """
    name = section or f"train-{task}"
    given = section_of(root / PARAMS, name, required=section is not None)
    said = dict(map(parse_override, overrides))
    try:
        return SETTINGS[task].model_validate({**given, **said})
    except ValidationError as error:
        raise _explained(error, task, said, f"{PARAMS}, section {name!r}") from error


def _explained(
    error: ValidationError, task: TrainedTask, said: Mapping[str, Any], where: str
) -> ConfigError:
    first = error.errors(include_url=False)[0]
    name = str(first["loc"][0]) if first["loc"] else ""
    place = "--set" if name in said else where
    if first["type"] == "extra_forbidden":
        unknown = unknown_name(f"setting of {task}", name, SETTINGS[task].model_fields)
        return ConfigError(f"{place}: {unknown}")
    if first["type"] == "value_error":
        reason = str(first["ctx"]["error"])
    else:
        reason = f"{first['msg'][:1].lower()}{first['msg'][1:]}, got {first['input']!r}"
    return ConfigError(f"{place}: {name or 'the settings'}: {reason}")


def _has_one_place(template: str) -> bool:
    try:
        fields = [field for _, field, _, _ in Formatter().parse(template) if field is not None]
    except ValueError:
        return False
    return fields == [""]

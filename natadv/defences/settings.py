"""The settings of a defence: defaults, then `params.yaml`, then `--set`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from natadv.config import Strict, name_in, settings_of
from natadv.scenarios.typographic.recipes import RECIPES
from natadv.training.head_settings import Count, NotNegative, Positive, Share

NUMBERS = (1, 2, 4, 8, 16, 32, 64, 128)

MethodName = Literal["heads", "prefix", "sae", "words"]

RECIPE = Annotated[str, BeforeValidator(name_in("overlay recipe", RECIPES))]
DRAWN = ("defense-prefix", "imagenet-100-typo", "post-it", "self-generated-bands")
"""One recipe of each published attack."""


class DefenceSettings(Strict):
    """Settings that all methods share."""

    seed: int = 1
    """Of the two halves and of all that is drawn."""
    recipes: Annotated[tuple[RECIPE, ...], Field(strict=False, min_length=1)] = DRAWN
    """Each attack draws one of them."""
    letters: Annotated[tuple[Positive, Positive], Field(strict=False)] = (1.0, 1.0)
    """Least and most by which letters are larger than published; a model that sees less than 224
    pixels reads larger ones only."""
    choice_pictures: Count = 2000
    """The defence is chosen on at most this many pictures."""
    judged_pictures: Count = 2000
    """It is judged on at most this many others."""
    batch: Count = 64
    """Pictures per forward pass."""
    reading_template: Annotated[str, Field(pattern=r"^[^{}]*\{\}[^{}]*$")] = "the word {}."
    """The prompt that asks what is written."""

    @model_validator(mode="after")
    def _check_letters(self) -> Self:
        least, most = self.letters
        if least > most:
            raise ValueError(f"letters: expected [least, most], got [{least:g}, {most:g}]")
        return self


class HeadSettings(DefenceSettings):
    """Ablation of attention heads."""

    clean_budget: Share = 0.01
    """Clean accuracy that may be lost on the choice half."""
    ablation: Literal["mean", "zero"] = "mean"
    """`mean`: a head says what it says on average of the clean pictures, whatever it sees; `zero`:
    it says nothing."""
    most_heads: Count = 16
    shortlist: Count = 12
    """After the first round, only as many heads are tried: those that were best alone."""
    least_gain: Share = 0.002
    """A head is ablated if the attacked pictures' mean probability of the truth rises by this."""


class WordSettings(DefenceSettings):
    """A short fine-tune with words in view."""

    steps: Count = 600
    rate: Positive = 5e-4
    """Highest learning rate, reached after `warm_up` steps; it falls along a cosine."""
    warm_up: Count = 20
    clean_weight: NotNegative = 1.0
    """Of staying where the model was on clean pictures, against 1 for attacked ones."""
    class_words: Share = 0.7
    """Share of the words that are names of classes; the others name none, or mean nothing."""
    checkpoint_every: Count = 100
    """Steps; a training that was killed loses at most this many."""


class PrefixSettings(DefenceSettings):
    """A learned token in front of every text."""

    steps: Count = 300
    rate: Positive = 2e-3
    batch: Count = 128
    classes_per_step: Annotated[int, Field(ge=2)] = 64
    """Names that a step tells apart: those of its pictures and words come first."""
    attacks: Count = 4
    """Words that each picture is shown with in turn; the pictures are embedded once."""
    identity_weight: NotNegative = 1.0
    """Of keeping the classification of clean pictures, against 1 for attacked ones."""


class SaeSettings(DefenceSettings):
    """Ablation of latents of a sparse autoencoder."""

    autoencoder: Annotated[str, Field(min_length=1)]
    """Its folder (natadv train sae), relative to the working directory."""
    clean_budget: Share = 0.01
    """Clean accuracy that may be lost on the choice half."""
    numbers: Annotated[tuple[Count, ...], Field(strict=False, min_length=1)] = NUMBERS
    """How many latents are tried: always those that words raise most."""


SETTINGS: dict[MethodName, type[DefenceSettings]] = {
    "heads": HeadSettings,
    "prefix": PrefixSettings,
    "sae": SaeSettings,
    "words": WordSettings,
}


def settings_for(
    method: MethodName, *, root: Path, section: str | None, overrides: Sequence[str], seed: int
) -> DefenceSettings:
    """The settings of a defence: of section `defend-METHOD`, if no other is named. Raises
    ConfigError."""
    return settings_of(
        SETTINGS[method],
        method,
        root=root,
        usual=f"defend-{method}",
        section=section,
        overrides=overrides,
        given={"seed": seed},
    )

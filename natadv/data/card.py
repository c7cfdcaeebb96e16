"""The card of a packed dataset: its contents, its origin, and the hashes of its files."""

from __future__ import annotations

import hashlib
import json
import string
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from natadv.config import Strict, load_config
from natadv.errors import ConfigError, DataError
from natadv.places import children
from natadv.scenarios import ScenarioName
from natadv.tasks import TaskName
from natadv.types import Averaging

CARD_FILE = "card.yaml"
DATASETS_FOLDER = Path("fixtures/datasets")
UNSTATED = "not stated; ask whoever made the pictures"
"""The licence of pictures that were imported without a stated one."""

_STORED_IF_SET = ("drawn", "twin_revision", "candidates", "averaging")
"""Fields that are stored, and part of the revision, only where they differ from their default, so
that cards that were written before them keep their bytes and revisions."""

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
"""Plain ASCII without a slash, because it is a part of addresses, paths and command lines."""
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
NonEmpty = Annotated[str, Field(min_length=1)]
# YAML has only lists, so a tuple is not strict; its elements are.
Texts = Annotated[tuple[NonEmpty, ...], Field(strict=False)]


class ShardFile(Strict):
    """One Parquet file of a dataset."""

    file: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*\.parquet$")]
    rows: Annotated[int, Field(ge=1)]
    bytes: Annotated[int, Field(ge=1)]
    sha256: Sha256


class _Described(Strict):
    """The fields that a person states; all others are counted."""

    name: Name
    tasks: Annotated[tuple[TaskName, ...], Field(min_length=1, strict=False)]
    scenario: ScenarioName
    classes: Texts
    """In label order; each name once, because two equal classes would share every prediction."""
    templates: Texts
    """Python format strings with one `{}`; the first is the single template."""
    licence: NonEmpty
    source: NonEmpty
    description: NonEmpty
    twin_of: Name | None = None
    """The dataset that holds the twin of each sample: a clean one, or in the scenario `reading` the
    typographic one."""
    drawn: bool = False
    """Whether the rows hold no pictures: overlays are drawn on the clean twins when shown."""
    twin_revision: Sha256 | None = None
    """The revision of the clean dataset, if pictures are drawn on its own."""
    candidates: bool = False
    """Whether each sample brings the texts that the model chooses among, instead of all classes."""
    averaging: Averaging = "unit"
    """How the prompts of a class are averaged; it matters with several templates only."""

    @field_validator("classes", "tasks", "templates")
    @classmethod
    def _each_once(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        twice = sorted(value for value, count in Counter(values).items() if count > 1)
        if twice:
            raise ValueError(f"expected each value once, got twice: {twice}")
        return values

    @field_validator("templates")
    @classmethod
    def _one_place_each(cls, templates: tuple[str, ...]) -> tuple[str, ...]:
        for template in templates:
            try:
                parts = string.Formatter().parse(template)
                places = [place for _, place, _, _ in parts if place is not None]
            except ValueError:
                places = []
            if places != [""]:
                raise ValueError(f"expected a format string with one '{{}}', got {template!r}")
        return templates

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if "classification" in self.tasks and not (len(self.classes) > 1 and self.templates):
            raise ValueError("task 'classification' needs at least two classes and one template")
        if self.candidates and "classification" not in self.tasks:
            raise ValueError("candidates are for task 'classification' only")
        if self.twin_of == self.name:
            raise ValueError("twin_of names the dataset itself")
        if self.drawn and (self.twin_of is None or self.twin_revision is None):
            raise ValueError("drawn needs twin_of and twin_revision: pictures to draw on")
        if not self.drawn and self.twin_revision is not None:
            raise ValueError("twin_revision is only for datasets that are drawn")
        return self


class CardDraft(_Described):
    """A card before its samples are written."""


class Card(_Described):
    """The card in `card.yaml` beside the shards."""

    rows: Annotated[int, Field(ge=1)]
    revision: Sha256
    """Hash of all that can change a number: classes, templates, tasks, the shards' hashes."""
    parts: dict[str, int]
    """Rows per marked part; empty if the samples are not marked."""
    overlays: bool
    """Whether every sample stores the overlay that was drawn, so that its controls can be drawn."""
    shards: Annotated[tuple[ShardFile, ...], Field(min_length=1, strict=False)]

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        in_shards = sum(shard.rows for shard in self.shards)
        if in_shards != self.rows:
            raise ValueError(f"rows is {self.rows}, the shards hold {in_shards}")
        if self.drawn and not self.overlays:
            raise ValueError("drawn needs an overlay of every sample, but overlays is false")
        if self.parts and sum(self.parts.values()) != self.rows:
            raise ValueError(f"rows is {self.rows}, the parts hold {sum(self.parts.values())}")
        counted = {"parts": self.parts, "overlays": self.overlays, "shards": self.shards}
        expected = revision(self, counted)
        if self.revision != expected:
            raise ValueError(
                f"revision is {self.revision[:12]}, the contents of the card give {expected[:12]}; "
                "import the dataset again, or get its card back"
            )
        return self


_NO_NAME = "expected up to 64 of a-z, 0-9, '.', '_' and '-', the first a letter or digit, got "


def draft_card(**described: Any) -> CardDraft:
    """A draft from fields that a user typed. Raises ConfigError, which names every mistake."""
    try:
        return CardDraft.model_validate(described)
    except ValidationError as error:
        mistakes = "; ".join(
            f"{'.'.join(map(str, mistake['loc'])) or 'card'}: "
            + (
                f"{_NO_NAME}{mistake['input']!r}"
                if mistake["loc"][:1] == ("name",)
                else mistake["msg"].removeprefix("Value error, ")
            )
            for mistake in error.errors(include_url=False)
        )
        raise ConfigError(f"a dataset cannot be made from these values: {mistakes}") from error


def revision(described: CardDraft | Card, counted: Mapping[str, Any]) -> str:
    """Hash of everything that can change a number; the licence and other texts are left out.

    `counted` holds `parts`, `overlays` and `shards`.
    """
    facts = {
        "name": described.name,
        "tasks": described.tasks,
        "scenario": described.scenario,
        "classes": described.classes,
        "templates": described.templates,
        "twin_of": described.twin_of,
        "parts": counted["parts"],
        "overlays": counted["overlays"],
        "shards": [(shard.rows, shard.sha256) for shard in counted["shards"]],
        **_stored_if_set(described),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _stored_if_set(described: _Described) -> dict[str, Any]:
    fields = _Described.model_fields
    values = {name: getattr(described, name) for name in _STORED_IF_SET}
    return {name: value for name, value in values.items() if value != fields[name].default}


def refuse_candidates(card: Card, *, remedy: str) -> None:
    """Raises DataError if the samples of the dataset choose among candidates of their own."""
    if card.candidates:
        raise DataError(
            f"{card.name} asks each sample to choose among candidates of its own, not among all "
            f"classes; {remedy}"
        )


def refuse_drawn(card: Card, *, remedy: str) -> None:
    """Raises DataError if the dataset does not hold its pictures itself."""
    if card.drawn:
        raise DataError(
            f"{card.name} holds no pictures: they are drawn on those of {card.twin_of} when they "
            f"are shown; {remedy}"
        )


def load_card(folder: Path) -> Card:
    """The card in a dataset's folder. Raises DataError if it is missing or invalid."""
    path = folder / CARD_FILE
    if not path.is_file():
        raise DataError(f"{path}: expected a card here; run dvc pull, or import the dataset")
    try:
        card, _ = load_config(path, Card)
    except ConfigError as error:
        raise DataError(str(error)) from error
    if card.name != folder.absolute().name:
        raise DataError(f"{path}: name is {card.name!r}, the folder is {folder.absolute().name!r}")
    return card


def dump_card(card: Card) -> str:
    """The text of `card.yaml`."""
    raw = card.model_dump(mode="json", exclude={*_STORED_IF_SET} - {*_stored_if_set(card)})
    return yaml.safe_dump(raw, sort_keys=False, allow_unicode=True, width=100)


def find_datasets(root: Path) -> dict[str, Path]:
    """Name -> folder of each dataset under `root` or in a package; cards are not opened."""
    found = children(DATASETS_FOLDER, root).items()
    # A hidden folder holds a dataset that is still being written.
    return {
        name: folder
        for name, folder in sorted(found)
        if not name.startswith(".") and (folder / CARD_FILE).is_file()
    }


def dataset_folder(name: str, root: Path) -> Path:
    """The folder of the dataset `name`. Raises ConfigError, which says how to get one that can be
    had, and else names similar datasets."""
    known = find_datasets(root)
    if name not in known:
        from natadv.data.status import no_dataset

        raise no_dataset(name, root, known=known)
    return known[name]

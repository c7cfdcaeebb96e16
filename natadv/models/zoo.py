"""The named models: one row each of `zoo.tsv`, with the facts that no checkpoint states."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import BeforeValidator, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from natadv.errors import ModelError
from natadv.models.files.model_types import signature_of
from natadv.tasks import TaskName

Dtype = Literal["float32", "bfloat16", "float16"]

Row = TypeVar("Row")


def _signature(text: str) -> str | None:
    sections = json.loads(text) if text else {}
    return signature_of(sections.pop("model_type"), sections) if sections else None


@dataclass(frozen=True, slots=True, kw_only=True)
class ZooRow:
    """A named model."""

    name: str
    family: str
    loader: str
    """One of LOADERS in `loading.py`."""
    tasks: Annotated[tuple[TaskName, ...], BeforeValidator(lambda text: text.split(","))]
    """Written with commas."""
    licence: str
    architecture: str
    image_px: int
    """The side of a square picture; NaFlex cuts a picture of any proportions into 256 patches."""
    parameters_m: Annotated[int | float, BeforeValidator(json.loads)]
    """Millions, as published: rounded."""
    hub: str
    """Its repository on the Hugging Face hub."""
    location: str
    """Or its folder, relative to the root of the repository."""
    gated: bool
    """Whether its licence must be accepted on its page before it can be downloaded."""
    gpu_dtype: Dtype
    """The dtype on a GPU. Flan-T5 overflows in float16."""
    activation: Annotated[str | None, BeforeValidator(lambda text: text or None)]
    """That of its training, where a config can be wrong about it: the ViT-L/14 of Robust CLIP were
    tuned from OpenAI's weights, the ViT-B from LAION's."""
    signature: Annotated[str | None, BeforeValidator(_signature)]
    """That of its architecture, where it can be known before its files are there. It is written as
    in its config.json, without the defaults of transformers. CLIPSeg has none: decoders of
    other widths have the same towers."""
    in_paper: bool
    known: str
    """A folder of pictures that it recognises, each named after its class; relative to root."""


def read_table(path: Path, kind: type[Row]) -> tuple[Row, ...]:
    """The rows of a TSV file whose columns are the fields of `kind`, in its order. Raises
    ModelError that names the line if a cell is missing or not valid."""
    schema, rows = TypeAdapter(kind), []
    with path.open(encoding="utf-8", newline="") as file:
        table = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        for line, cells in enumerate(table, start=2):
            try:
                rows.append(schema.validate_python(cells))
            except ValidationError as error:
                fault = error.errors(include_url=False)[0]
                column = ".".join(map(str, fault["loc"]))
                raise ModelError(
                    f"{path}:{line}: {column}: {fault['msg'][:1].lower()}{fault['msg'][1:]}, got "
                    f"{fault['input']!r:.80}"
                ) from error
    return tuple(rows)


ZOO: dict[str, ZooRow] = {
    row.name: row for row in read_table(Path(__file__).with_name("zoo.tsv"), ZooRow)
}
"""In order of preference: a folder descends from the first of the rows of its architecture."""

PAPER = "paper"
"""The name of the 22 models of the paper."""


def families() -> tuple[str, ...]:
    """Each family once, in the order of the table."""
    return tuple(dict.fromkeys(row.family for row in ZOO.values()))


def rows_named(name: str) -> tuple[ZooRow, ...]:
    """The rows of a name, a hub id, `paper`, or a family, which means its models of the paper if
    it has some; empty for any other text."""
    if name == PAPER:
        return tuple(row for row in ZOO.values() if row.in_paper)
    if name in ZOO:
        return (ZOO[name],)
    rows = tuple(row for row in ZOO.values() if name in (row.family, row.hub) and name)
    return tuple(row for row in rows if row.in_paper) or rows

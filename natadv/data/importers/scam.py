"""SCAM: photographs with a handwritten wrong word, and their twins without it or with it typed.

By the published protocol (`main_vlm_openclip.py` of Bliss-e-V/SCAM) a model chooses between the
object and the word of each photograph, also where the word was removed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from natadv.data.dataset_plan import DatasetPlan, Item, items_of
from natadv.data.images import PictureError, decode_image
from natadv.data.importers import ImportRequest
from natadv.data.importers.parquet import check_columns, iter_rows, parquet_files
from natadv.data.importers.sources import (
    draft_of,
    identify,
    refuse_collisions,
    refuse_duplicates,
)
from natadv.errors import DataError
from natadv.types import Sample

CLEAN_NAME = "scam-clean"
_TEXTS = ["id", "object_label", "attack_word"]
# Where the hub puts the files that it converts by itself.
_CONVERTED = "default/train"
_COLUMNS = ["image", *_TEXTS, "postit_area_pct"]
# By the name of the format. "SCAM" comes last, because the other two end in it.
_VARIANTS = {
    "scam-synth": ("SynthSCAM", "The same photographs, their word typed anew"),
    CLEAN_NAME: ("NoSCAM", "The same photographs, their word removed"),
    "scam": ("SCAM", "Photographs with a handwritten wrong word"),
}


class _ScamRow(NamedTuple):
    variant: str
    key: str
    """The same for a picture and its twins."""
    label: str
    word: str


def plan(request: ImportRequest) -> DatasetPlan:
    """Plan one variant of the photographs, that of the format's name.

    Classes are all objects and all words of all variants, so that twins share them; the candidates
    of a sample are its object and its word.
    """
    variant, what = _VARIANTS[request.format.name]
    files = parquet_files(request.path) or parquet_files(request.path / _CONVERTED)
    if not files:
        raise DataError(
            f"{request.path}: expected the Parquet files of BLISS-e-V/SCAM; its main branch has "
            "images.zip only, so fetch the revision refs/convert/parquet"
        )
    source = identify(request)
    check_columns(files, _COLUMNS, image="image")
    rows = [
        _row(raw, f"{request.path}: row {number}")
        for number, raw in enumerate(iter_rows(files, _TEXTS, 0))
    ]
    classes = sorted({name for row in rows for name in (row.label, row.word)})
    refuse_collisions(classes, request.path)
    numbers = [number for number, row in enumerate(rows) if row.variant == variant]
    _check_twins(rows, variant, request.path)
    draft = draft_of(
        request,
        source,
        what,
        rows=len(numbers),
        scenario="clean" if variant == "NoSCAM" else "typographic",
        classes=classes,
        twin_of=None if variant == "NoSCAM" else CLEAN_NAME,
        candidates=True,
    )
    index = {name: label for label, name in enumerate(classes)}

    def items(start: int) -> Iterator[Item]:
        """As DatasetPlan defines it."""
        wanted = set(numbers[start:])
        first = min(wanted, default=len(rows))
        numbered = enumerate(iter_rows(files, _COLUMNS, first), start=first)
        return items_of(
            ((raw, rows[number]) for number, raw in numbered if number in wanted),
            lambda pair: _sample(*pair, index),
        )

    return DatasetPlan(draft, items, len(numbers), "pictures", source.fingerprint)


def _row(raw: Mapping[str, Any], where: str) -> _ScamRow:
    identity, label, word = (str(raw[name] or "").strip() for name in _TEXTS)
    variants = [name for name, _ in _VARIANTS.values()]
    variant = next((name for name in variants if identity.startswith(name)), None)
    if variant is None:
        raise DataError(f"{where}: id {identity!r} begins with none of {', '.join(variants)}")
    if not label or not word or label == word:
        raise DataError(f"{where}: object_label {label!r} and attack_word {word!r} must differ")
    return _ScamRow(variant, identity.removeprefix(variant).strip("_- "), label, word)


def _check_twins(rows: list[_ScamRow], variant: str, source: Path) -> None:
    chosen = [row for row in rows if row.variant == variant]
    if not chosen:
        raise DataError(f"{source}: no rows of {variant}")
    refuse_duplicates(
        (f"{row.variant}_{row.key}" for row in rows if row.variant in (variant, "NoSCAM")), source
    )
    clean = {row.key: row.label for row in rows if row.variant == "NoSCAM"}
    lonely = sorted(row.key for row in chosen if clean.get(row.key) != row.label)
    if lonely:
        raise DataError(
            f"{source}: {len(lonely)} of {len(chosen)} rows of {variant} have no NoSCAM twin of "
            f"the same object, first {lonely[0]!r}"
        )


def _sample(raw: Mapping[str, Any], row: _ScamRow, index: Mapping[str, int]) -> Sample:
    identity, data = f"{row.variant}_{row.key}", (raw["image"] or {}).get("bytes")
    if not data:
        raise PictureError(f"SCAM: {identity!r} holds no bytes of a picture")
    decode_image(data, where=f"SCAM: {identity!r}")
    # The area is missing where there is no note.
    area_pct = raw["postit_area_pct"] or 0
    if not isinstance(area_pct, int | float) or not math.isfinite(area_pct):
        raise DataError(
            f"SCAM: {identity!r}: postit_area_pct must be a number, got {area_pct!r:.60}"
        )
    attacked = row.variant != "NoSCAM"
    return Sample(
        id=identity,
        group=row.key,
        image=data,
        label=index[row.label],
        decoy=row.word if attacked else None,
        twin=f"NoSCAM_{row.key}" if attacked else None,
        facts=json.dumps({"postit_area_pct": float(area_pct)}),
        candidates=(row.label, row.word),
    )

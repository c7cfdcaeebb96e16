"""SCAM: photographs with a handwritten wrong word, and their twins without it or typed anew."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from natadv.data.card import draft_card
from natadv.data.images import PictureError, decode_image
from natadv.data.importers.format import Request
from natadv.data.importers.pictures import refuse_collisions, refuse_twins
from natadv.data.importers.sources import described, known, together
from natadv.data.importers.tables import check_columns, check_pictures, iter_rows, parquet_files
from natadv.data.plan import Item, Plan, items_of
from natadv.data.templates import template_set
from natadv.errors import DataError
from natadv.types import Sample

Variant = Literal["SCAM", "NoSCAM", "SynthSCAM"]

CLEAN_NAME = "scam-clean"
_TEXTS = ["id", "object_label", "attack_word"]
_COLUMNS = ["image", *_TEXTS, "postit_area_pct"]
# The longest first: one name ends in another.
_VARIANTS: tuple[Variant, ...] = ("SynthSCAM", "NoSCAM", "SCAM")


class _Row(NamedTuple):
    variant: Variant
    key: str
    """The same for a picture and its twins."""
    label: str
    word: str


def plan_attacked(request: Request) -> Plan:
    return _plan(request, "SCAM", "Photographs with a handwritten wrong word")


def plan_clean(request: Request) -> Plan:
    return _plan(request, "NoSCAM", "The same photographs, their word removed")


def plan_synthetic(request: Request) -> Plan:
    return _plan(request, "SynthSCAM", "The same photographs, their word typed anew")


def _plan(request: Request, variant: Variant, what: str) -> Plan:
    """Classes are all objects and all words of all variants, so that twins share them."""
    files = parquet_files(request.path)
    if not files:
        raise DataError(f"{request.path}: expected the Parquet files of BLISS-e-V/SCAM")
    source = together(request, known(request, request.path, sha256=request.sha256))
    check_columns(files, _COLUMNS)
    check_pictures(files, "image")
    rows = [_row(raw, f"{request.path}: row {i}") for i, raw in enumerate(_read(files, _TEXTS))]
    classes = tuple(sorted({name for row in rows for name in (row.label, row.word)}))
    refuse_collisions(classes, request.path)
    ours = [number for number, row in enumerate(rows) if row.variant == variant]
    _check_twins(rows, variant, request.path)
    draft = draft_card(
        name=request.name,
        tasks=("classification",),
        scenario="clean" if variant == "NoSCAM" else "typographic",
        classes=classes,
        templates=template_set(request.templates),
        licence=request.terms,
        source=source.told,
        description=described(request, what, len(ours)),
        twin_of=None if variant == "NoSCAM" else CLEAN_NAME,
    )
    index = {name: label for label, name in enumerate(classes)}
    return Plan(
        draft=draft,
        items=lambda start: _items(files, rows, ours[start:], index, variant),
        total=len(ours),
        unit="pictures",
        fingerprint=source.fingerprint,
    )


def _row(raw: Mapping[str, Any], where: str) -> _Row:
    identity, label, word = (str(raw[name] or "").strip() for name in _TEXTS)
    variant = next((name for name in _VARIANTS if identity.startswith(name)), None)
    if variant is None:
        raise DataError(
            f"{where}: id {identity!r} does not begin with one of {', '.join(_VARIANTS)}"
        )
    if not label or not word or label == word:
        raise DataError(f"{where}: object_label {label!r} and attack_word {word!r} must differ")
    return _Row(variant, identity.removeprefix(variant).strip("_- "), label, word)


def _check_twins(rows: list[_Row], variant: Variant, source: Path) -> None:
    ours = [row.key for row in rows if row.variant == variant]
    if not ours:
        raise DataError(f"{source}: no rows of {variant}")
    refuse_twins((f"{variant}_{key}" for key in ours), source)
    clean = {row.key: row.label for row in rows if row.variant == "NoSCAM"}
    if variant != "NoSCAM":
        refuse_twins((f"NoSCAM_{row.key}" for row in rows if row.variant == "NoSCAM"), source)
    lonely = sorted(
        row.key for row in rows if row.variant == variant and clean.get(row.key) != row.label
    )
    if lonely:
        raise DataError(
            f"{source}: {len(lonely)} of {len(ours)} rows of {variant} have no NoSCAM twin of the "
            f"same object, first {lonely[0]!r}"
        )


def _items(
    files: list[Path],
    rows: list[_Row],
    ours: list[int],
    index: Mapping[str, int],
    variant: Variant,
) -> Iterator[Item]:
    if not ours:
        return iter(())
    wanted, first = set(ours), ours[0]
    numbered = enumerate(_read(files, _COLUMNS, start=first), start=first)
    return items_of(
        ((raw, rows[number]) for number, raw in numbered if number in wanted),
        lambda pair: _sample(*pair, index, variant),
    )


def _sample(
    raw: Mapping[str, Any], row: _Row, index: Mapping[str, int], variant: Variant
) -> Sample:
    identity, data = f"{variant}_{row.key}", (raw["image"] or {}).get("bytes")
    if not data:
        raise PictureError(f"SCAM: {identity!r} holds no bytes of a picture")
    decode_image(data, where=f"SCAM: {identity!r}")
    attacked = variant != "NoSCAM"
    return Sample(
        id=identity,
        group=row.key,
        image=data,
        label=index[row.label],
        decoy=row.word if attacked else None,
        twin=f"NoSCAM_{row.key}" if attacked else None,
        facts=json.dumps({"postit_area_pct": _area(raw["postit_area_pct"], identity)}),
    )


def _area(raw: Any, identity: str) -> float:
    """Percent; 0 where there is no note."""
    area = raw or 0
    if not isinstance(area, int | float) or not math.isfinite(area):
        raise DataError(f"SCAM: {identity!r}: postit_area_pct must be a number, came {raw!r:.60}")
    return float(area)


def _read(files: list[Path], columns: list[str], *, start: int = 0) -> Iterator[dict[str, Any]]:
    return iter_rows(files, columns, start)

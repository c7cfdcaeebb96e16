"""The zoo as a table for people and as JSON for programs, with published measurements."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from natadv.config import parse_yaml
from natadv.errors import NatadvError
from natadv.models.files.checkpoint import CONFIG, image_processing
from natadv.models.files.layouts import layout_of
from natadv.models.hub import local as hub
from natadv.models.hub.local import LockedRepository
from natadv.models.loading import SPREADABLE, fingerprint
from natadv.models.resolve import heads_of_row
from natadv.models.zoo import PAPER, ZOO, ZooRow, read_table
from natadv.places import find
from natadv.storage.progress import amount
from natadv.types import WAY, Feeding, ModelSpec

_LINE = f"{{:<{max(map(len, ZOO)) + 2}}} {{:<6}} {{:<6}} {{:<13}} {{}}"
_HEAD = _LINE.format("  name", "image", "params", "here", "on the hub, or in the repository")


_SIZES = f"{{:<{max(map(len, ZOO)) + 2}}} {{:<6}} {{:<19}} {{:<8}} {{}}"
_SIZES_HEAD = _SIZES.format("  name", "params", "weights on a GPU", "in int8", "files on the disk")
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A number that others measured, to compare with: never a bound by itself."""

    model: str
    dataset: str
    metric: str
    value: Annotated[float, Field(ge=0, le=1)]
    protocol: Feeding
    """How the model was fed: only numbers of one protocol compare."""
    source: str
    prompts: Annotated[int, Field(ge=0)] = 0
    """Templates that each class name was put into; 0 where the source does not say."""
    read_in: Literal["primary", "secondary"] = "primary"
    """Whether the number was read in the source itself, or in another text that quotes it."""


@cache
def published() -> tuple[Published, ...]:
    """All published numbers of models of the zoo."""
    return read_table(Path(__file__).with_name("published.tsv"), Published)


def table(rows: Sequence[ZooRow], *, root: Path) -> str:
    """At most 100 columns; models that share family, tasks and licence are listed together."""
    locks = hub.read_lock(root)
    lines = [_HEAD]
    for head, group in groupby(rows, key=lambda row: _group(row, root)):
        lines += ["", head, *(_model(row, locks, root) for row in group)]
    gated = sum(row.gated for row in rows)
    counts = (
        f"{len(rows)} models, {sum(row.in_paper for row in rows)} of them in the paper (*), "
        f"{sum(is_here(row, locks, root=root) for row in rows)} here"
        + (f", {gated} gated" if gated else "")
    )
    fetch = f"natadv models fetch NAME   (a name, a family, {PAPER}, a glob, owner/name)"
    legend = f"{counts}; `at` is the commit in {hub.LOCK}\nfetch with: {fetch}"
    return "\n".join([*lines, "", legend])


def sizes(rows: Sequence[ZooRow], *, root: Path) -> str:
    """Memory and disk that each model needs, in at most 100 columns. Files that are not here have
    at most four bytes per parameter."""
    locks = hub.read_lock(root)
    lines, total = [_SIZES_HEAD], 0.0
    for row in rows:
        numbers = row.parameters_m * 1e6
        here = _file_bytes(row, locks, root)
        files = 4 * numbers if here is None else here
        total += files
        lines.append(
            _SIZES.format(
                f"{'*' if row.in_paper else ' '} {row.name}",
                _parameters(row),
                f"{amount(int(numbers * BYTES[row.gpu_dtype]))} in {row.gpu_dtype}",
                amount(int(numbers)) if row.loader in SPREADABLE else "-",
                f"{'up to ' if here is None else ''}{amount(int(files))}",
            )
        )
    legend = (
        f"{len(rows)} models, files up to {amount(int(total))}; parameters as published, rounded\n"
        "int8: at least, as only linear layers have 8 bits\n"
        "a batch of pictures needs memory beside the weights: a run halves it until it fits"
    )
    return "\n".join([*lines, "", legend])


def _file_bytes(row: ZooRow, locks: Mapping[str, LockedRepository], root: Path) -> int | None:
    """The size of the files that a run would read; None if they are not here."""
    if not is_here(row, locks, root=root):
        return None
    if row.location:
        folder = find(Path(row.location), root)
        return sum(path.stat().st_size for path in layout_of(folder).content_files(folder))
    return hub.size_of(row.hub, locks[row.hub])


def as_json(rows: Sequence[ZooRow], *, root: Path) -> str:
    """Each row of the zoo, with its published numbers and whether its files are here."""
    locks = hub.read_lock(root)
    records: list[dict[str, Any]] = []
    for row in rows:
        locked = locks.get(row.hub)
        records.append(
            {
                **asdict(row),
                "here": is_here(row, locks, root=root),
                "revision": locked.revision if locked else None,
                "published": [asdict(number) for number in published() if number.model == row.name],
            }
        )
    return json.dumps(records, indent=2, allow_nan=False)


def is_here(row: ZooRow, locks: Mapping[str, LockedRepository], *, root: Path) -> bool:
    """Whether a run would find its files."""
    if row.location:
        return find(Path(row.location), root).is_dir()
    return hub.presence(row.hub, locks.get(row.hub)) == "whole"


def _group(row: ZooRow, root: Path) -> str:
    by_head = "".join(f", {task} by a head" for task in heads_of_row(row.name, root=root))
    gated = ", gated: accept it on the model's page" if row.gated else ""
    return f"{row.family}: {' and '.join(row.tasks)}{by_head}; licence {row.licence}{gated}"


def _parameters(row: ZooRow) -> str:
    millions = row.parameters_m
    if millions >= 1000:
        return f"{millions / 1000:.1f} B"
    return f"{millions:.0f} M" if millions >= 10 else f"{millions:.1f} M"


def _model(row: ZooRow, locks: Mapping[str, LockedRepository], root: Path) -> str:
    return _LINE.format(
        f"{'*' if row.in_paper else ' '} {row.name}",
        f"{row.image_px} px",
        _parameters(row),
        _place(row, locks, root),
        row.hub or row.location,
    )


def _place(row: ZooRow, locks: Mapping[str, LockedRepository], root: Path) -> str:
    if row.location:
        return "in repository" if is_here(row, locks, root=root) else "missing"
    locked = locks.get(row.hub)
    presence = hub.presence(row.hub, locked)
    if presence == "absent":
        return "locked" if locked else "no"
    return f"at {locked.revision[:10]}" if locked and presence == "whole" else "incomplete"


NOT_KNOWN = "not known"


def facts_of(spec: ModelSpec) -> dict[str, str]:
    """What a model is, as far as its files and the zoo tell without loading it."""
    able = [*spec.tasks, *(f"{task} by a head" for task in spec.heads if task not in spec.tasks)]
    descends = f", of the architecture of {spec.lineage}" if spec.lineage != spec.name else ""
    return {
        "model": f"{spec.name}{descends}",
        "files": str(spec.folder),
        "family": spec.family,
        "loader": spec.loader,
        "tasks": ", ".join(able),
        "pictures": _pictures(spec),
        "weights": _weights(spec),
        "licence": _licence(spec),
    }


def _weights(spec: ModelSpec) -> str:
    try:
        return f"hash {fingerprint(spec)[:12]}"
    # `natadv doctor` explains what is wrong with them.
    except NatadvError:
        return NOT_KNOWN


def _pictures(spec: ModelSpec) -> str:
    """The size of the pictures that its tower reads."""
    if spec.factory:
        return f"{NOT_KNOWN}: its factory feeds it"
    if (spec.folder / CONFIG).is_file() and spec.loader not in ("open-clip", "open-clip-visual"):
        stated = image_processing(spec.folder)
        if "max_num_patches" in stated:
            return f"up to {stated['max_num_patches']} patches of {stated['patch_size']} px"
        cropped = stated.get("do_center_crop") and stated.get("crop_size")
        size = cropped or stated["size"]
    else:
        (shape,) = json.loads(layout_of(spec.folder).kind(spec.folder).signature).values()
        size = shape.get("vision_cfg", shape)["image_size"]
    if not isinstance(size, dict):
        return f"{size} px"
    sides = [size[key] for key in ("height", "width") if key in size] or [*size.values()]
    return f"{' x '.join(map(str, dict.fromkeys(sides)))} px"


def _licence(spec: ModelSpec) -> str:
    """That of the zoo, or the one that a model card beside the weights states."""
    if (row := ZOO.get(spec.name.partition(WAY)[0])) is not None:
        return row.licence
    card = spec.folder / "README.md"
    if spec.factory or not card.is_file():
        return NOT_KNOWN
    before, _, rest = card.read_text(encoding="utf-8", errors="replace").partition("---\n")
    try:
        # Without its head, a card states nothing that a program could read.
        stated = {} if before else parse_yaml(rest.partition("\n---")[0], where=str(card))[0]
    except NatadvError:
        return NOT_KNOWN
    licence = stated.get("license") if isinstance(stated, dict) else None
    return f"{licence}, as its model card says" if isinstance(licence, str) else NOT_KNOWN

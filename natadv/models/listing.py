"""The zoo as a table for people and as JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import Any

from natadv.models.head_folders import heads_of_row
from natadv.models.hub import local as hub
from natadv.models.hub.local import Locked
from natadv.models.published import published_for
from natadv.models.zoo import PAPER, ZOO, ZooRow

_NAME = max(len(name) for name in ZOO) + 2
_WIDTHS = (_NAME, 6, 6, 13)
_HEAD = ("  name", "image", "params", "here", "on the hub, or in the repository")


def table(rows: Sequence[ZooRow], *, root: Path) -> str:
    """At most 100 columns; models that share family, tasks and licence stand together."""
    locks = hub.read_lock(root)
    lines = [_line(*_HEAD)]
    for head, group in groupby(rows, key=lambda row: _group(row, root)):
        lines += ["", head, *(_model(row, locks, root) for row in group)]
    return "\n".join([*lines, "", *_legend(rows, locks, root)])


def as_json(rows: Sequence[ZooRow], *, root: Path) -> str:
    """All that is known of each model, what was published of it included."""
    locks = hub.read_lock(root)
    return json.dumps([_record(row, locks, root) for row in rows], indent=2, allow_nan=False)


def is_here(row: ZooRow, locks: Mapping[str, Locked], *, root: Path) -> bool:
    """Whether a run would find its files."""
    if row.location:
        return (root / row.location).is_dir()
    return hub.presence(row.hub, locks.get(row.hub)) == "whole"


def _group(row: ZooRow, root: Path) -> str:
    by_head = "".join(f", {task} by a head" for task in heads_of_row(row.name, root=root))
    gated = ", gated: accept it on the model's page" if row.gated else ""
    return f"{row.family}: {' and '.join(row.tasks)}{by_head}; licence {row.licence}{gated}"


def _model(row: ZooRow, locks: Mapping[str, Locked], root: Path) -> str:
    return _line(
        f"{'*' if row.in_paper else ' '} {row.name}",
        f"{row.image_px} px",
        _parameters(row.parameters_m),
        _place(row, locks, root),
        row.hub or row.location,
    )


def _line(*cells: str) -> str:
    padded = (f"{cell:<{width}}" for cell, width in zip(cells, _WIDTHS, strict=False))
    return f"{' '.join(padded)} {cells[-1]}"


def _parameters(millions: float) -> str:
    if millions >= 1000:
        return f"{millions / 1000:.1f} B"
    return f"{millions:.0f} M" if millions >= 10 else f"{millions:.1f} M"


def _place(row: ZooRow, locks: Mapping[str, Locked], root: Path) -> str:
    if row.location:
        return "in repository" if is_here(row, locks, root=root) else "missing"
    locked = locks.get(row.hub)
    match hub.presence(row.hub, locked):
        case "whole":
            assert locked is not None
            return f"at {locked.revision[:10]}"
        case "incomplete":
            return "incomplete"
        case "absent":
            return "locked" if locked else "no"


def _legend(rows: Sequence[ZooRow], locks: Mapping[str, Locked], root: Path) -> Iterator[str]:
    here = sum(is_here(row, locks, root=root) for row in rows)
    of_paper = sum(row.in_paper for row in rows)
    gated = sum(row.gated for row in rows)
    yield (
        f"{len(rows)} models, {of_paper} of them in the paper (*), {here} here"
        + (f", {gated} gated" if gated else "")
        + f"; `at` is the commit in {hub.LOCK}"
    )
    yield f"fetch with: natadv models fetch NAME   (a name, a family, {PAPER}, a glob, owner/name)"


def _record(row: ZooRow, locks: Mapping[str, Locked], root: Path) -> dict[str, Any]:
    locked = locks.get(row.hub)
    return {
        **asdict(row),
        "here": is_here(row, locks, root=root),
        "revision": locked.revision if locked else None,
        "published": [asdict(number) for number in published_for(row.name)],
    }

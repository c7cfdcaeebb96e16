"""JSON Lines: one object a line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice

from natadv.data.dataset_plan import DatasetPlan
from natadv.data.importers import ImportRequest
from natadv.data.importers.row_dataset import plan_rows
from natadv.data.importers.rows import FIELDS, Located, RowSource, column_names
from natadv.errors import DataError


def plan(request: ImportRequest) -> DatasetPlan:
    """Plan a sample per line; paths lead from the folder of the file, or from `--images`."""
    path = request.path
    if path.is_dir():
        raise DataError(f"{path}: expected a file with one JSON object a line, got a folder")
    named = column_names(request)
    names = {name: name for name in FIELDS} | named

    def read(start: int) -> Iterator[Located]:
        """The lines that are not blank, from the `start`-th one on."""
        with path.open("rb") as file:
            lines = ((number, line) for number, line in enumerate(file, start=1) if line.strip())
            for number, line in islice(lines, start, None):
                yield _located(f"{path}:{number}", line, names)

    return plan_rows(request, RowSource(read, lambda: read(0), named))


def _located(where: str, line: bytes, names: dict[str, str]) -> Located:
    try:
        raw = json.loads(line.decode("utf-8-sig").strip())
    except json.JSONDecodeError as error:
        return Located(where, {}, f"not JSON at column {error.colno}: {error.msg}")
    except (ValueError, RecursionError) as error:
        return Located(where, {}, f"not JSON: {error}")
    if not isinstance(raw, dict):
        return Located(where, {}, f"expected one JSON object a line, got {raw!r:.60}")
    return Located(where, {name: raw[key] for name, key in names.items() if key and key in raw})

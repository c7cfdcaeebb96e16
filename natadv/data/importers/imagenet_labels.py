"""The truth of ImageNet's validation pictures, which its flat tar does not hold."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from natadv.data.archives import iter_entries
from natadv.data.importers.matlab import read_structs
from natadv.errors import DataError

WNID = re.compile(r"n\d{8}")
_NUMBER = re.compile(r"ILSVRC2012_val_(\d{8})")
_TRUTH, _META = "ILSVRC2012_validation_ground_truth.txt", "meta.mat"

Truth = Callable[[str], str]
"""From the name of a picture to its WordNet id; DataError if it is not known."""


def read_truth(path: Path) -> Truth:
    """Of the devkit, of Kaggle's `LOC_val_solution.csv`, or of a list of ids in picture order."""
    if path.name.endswith((".tar.gz", ".tgz", ".tar")) or path.is_dir():
        return _by_number(_of_devkit(path), path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: labels cannot be read: {error}") from error
    if path.suffix.lower() == ".csv":
        return _by_name(_of_kaggle(text, path), path)
    return _by_number(_of_list(text, path), path)


def _of_devkit(path: Path) -> list[str]:
    """The truth names ILSVRC's own ids; only meta.mat says which WordNet ids these are."""
    wanted = {
        entry.name: entry.read() for entry in iter_entries(path) if entry.name in (_TRUTH, _META)
    }
    missing = sorted({_TRUTH, _META} - wanted.keys())
    if missing:
        raise DataError(f"{path}: no {' and no '.join(missing)} in it; is this the devkit (t12)?")
    where = f"{path}: {_META}"
    wnids = {
        row.get("ILSVRC2012_ID"): str(row.get("WNID"))
        for row in read_structs(wanted[_META], "synsets", where=where)
    }
    try:
        return [wnids[int(line)] for line in wanted[_TRUTH].split()]
    except (KeyError, ValueError) as error:
        raise DataError(f"{path}: {_TRUTH}: id {error} is not in {_META}") from error


def _of_kaggle(text: str, path: Path) -> dict[str, str]:
    """Rows of `ILSVRC2012_val_00048981,n03995372 85 1 499 272 ...`."""
    rows = csv.DictReader(io.StringIO(text), strict=True)
    try:
        if not {"ImageId", "PredictionString"} <= set(rows.fieldnames or ()):
            raise DataError(
                f"{path}: expected columns ImageId and PredictionString as Kaggle has them"
            )
        return {row["ImageId"]: _predicted(row, f"{path}: line {rows.line_num}") for row in rows}
    except csv.Error as error:
        raise DataError(
            f"{path}: after line {rows.line_num}: no CSV: {error}; get it again"
        ) from error


def _predicted(row: Mapping[str, str | None], where: str) -> str:
    wnid = (row["PredictionString"] or "").split(" ")[0]
    if not WNID.fullmatch(wnid):
        raise DataError(
            f"{where}: expected a WordNet id and boxes for {row['ImageId']!r}, came "
            f"{row['PredictionString']!r:.60}; the file is cut or changed: get it again"
        )
    return wnid


def _of_list(text: str, path: Path) -> list[str]:
    wnids = text.split()
    odd = [line for line in wnids if not WNID.fullmatch(line)]
    if odd or not wnids:
        raise DataError(
            f"{path}: expected one WordNet id a line, in the order of the pictures, came "
            f"{odd[0] if odd else ''!r}"
        )
    return wnids


def _by_number(wnids: list[str], path: Path) -> Truth:
    def truth(name: str) -> str:
        found = _NUMBER.match(name)
        number = int(found[1]) if found else 0
        if not 1 <= number <= len(wnids):
            raise DataError(f"{path}: has {len(wnids)} labels, none for {name!r}")
        return wnids[number - 1]

    return truth


def _by_name(wnids: Mapping[str, str], path: Path) -> Truth:
    def truth(name: str) -> str:
        found = wnids.get(Path(name).stem)
        if found is None:
            raise DataError(f"{path}: has {len(wnids)} labels, none for {name!r}")
        return found

    return truth

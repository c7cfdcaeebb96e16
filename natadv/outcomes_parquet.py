"""Outcomes as a Parquet file and back: small, quick to read, and open to any other tool.

The columns are those of text, then a double for each value of the task, and a struct `overlay` with
the attributes of drawn overlays.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from natadv.columns import NOTHING, Distinct, Texts
from natadv.config import shown
from natadv.errors import StoreError
from natadv.types import TEXT_COLUMNS, Attribute, DoubleArray, Outcomes

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

OVERLAY = "overlay"
NULLABLE = ("twin", "decoy")
_FEW = ("part", "decoy", "truth", "prediction")
"""Columns of few distinct texts, which are read as their codes."""
_MOST_ROWS_PER_BYTE, _MOST_EXPANSION = 20, 1000
"""No honest file holds more rows than this per byte, as each has an id of its own, or is this many
times as large in memory."""
_OPTIONS: Mapping[str, Any] = {
    "version": "2.6",
    "data_page_version": "1.0",
    "compression": "zstd",
    "compression_level": 3,
    "row_group_size": 1 << 20,
    "store_schema": False,
    "write_statistics": False,
}
"""Fixed, so that equal outcomes are equal bytes."""


def encode(outcomes: Outcomes) -> bytes:
    """The file; equal outcomes give equal bytes with one version of pyarrow.

    Raises StoreError if a value is not finite, or a column cannot be stored.
    """
    # Imported here because most commands neither read nor write evidence.
    import pyarrow as pa
    import pyarrow.parquet as pq

    texts = {name: getattr(outcomes, name) for name in TEXT_COLUMNS}
    values = {name: _doubles(outcomes.values[name]) for name in sorted(outcomes.values)}
    overlay = {name: _coded(outcomes.attributes[name]) for name in sorted(outcomes.attributes)}
    if taken := sorted({*values} & {*TEXT_COLUMNS, OVERLAY}):
        raise StoreError(f"a value cannot be named {taken[0]!r}, as another column is")
    _check_finite(outcomes, {**values, **overlay})
    try:
        arrays = {name: _arrow(column) for name, column in (texts | values).items()}
        if overlay:
            fields = [_arrow(column) for column in overlay.values()]
            arrays[OVERLAY] = pa.StructArray.from_arrays(fields, names=list(overlay))
        schema = pa.schema(
            pa.field(name, array.type, nullable=name in NULLABLE) for name, array in arrays.items()
        )
        body = io.BytesIO()
        nested = {f"{OVERLAY}.{name}": column for name, column in overlay.items()}
        pq.write_table(
            pa.table(arrays, schema=schema), body, **_encodings(texts | values | nested), **_OPTIONS
        )
    except (pa.ArrowException, UnicodeError) as error:
        raise StoreError(f"outcomes that cannot be stored: {_line(error)}") from error
    return body.getvalue()


def _doubles(column: Any) -> DoubleArray:
    return np.asarray(column, dtype=np.float64)


def _coded(column: Attribute) -> Texts | DoubleArray:
    if isinstance(column, Texts) or any(isinstance(value, str) for value in column):
        return Texts.of(column)  # type: ignore[arg-type]
    return _doubles(column)


def _check_finite(outcomes: Outcomes, columns: Mapping[str, Texts | DoubleArray]) -> None:
    for name, column in columns.items():
        if isinstance(column, np.ndarray) and not (finite := np.isfinite(column)).all():
            at = int(finite.argmin())
            raise StoreError(
                f"expected finite values for sample {outcomes.id[at]!r}, got {name!r}: {column[at]}"
            )


def _arrow(column: Texts | DoubleArray) -> pa.Array:
    import pyarrow as pa

    return pa.array(list(column), pa.string()) if isinstance(column, Texts) else pa.array(column)


def _encodings(columns: Mapping[str, Texts | DoubleArray]) -> dict[str, Any]:
    """Codes of distinct values where these are few; other doubles byte by byte."""
    few = []
    for name, column in columns.items():
        different = column.different if isinstance(column, Texts) else len(np.unique(column))
        if 2 * different <= len(column):
            few.append(name)
    split = {
        name: "BYTE_STREAM_SPLIT"
        for name, column in columns.items()
        if isinstance(column, np.ndarray) and name not in few
    }
    return {"use_dictionary": few or False, "column_encoding": split or None}


def decode(body: bytes, *, path: Path, planned_n: int, errors: Mapping[str, str]) -> Outcomes:
    """The outcomes in `body`, which was read from `path`.

    Raises StoreError that names `path` if they are not what `encode` writes, or more than
    `planned_n`; nothing is unpacked before their number is known.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        footer = pq.read_metadata(pa.BufferReader(body))
        flaws = [*_size_flaws(footer, planned_n, len(body)), *_type_flaws(footer)]
        if not flaws:
            whole = {"metadata": footer, "read_dictionary": list(_FEW)}
            table = pq.ParquetFile(pa.BufferReader(body), **whole).read(use_threads=False)
            texts = _text_columns(table)
            rest = [name for name in table.column_names if name not in (*TEXT_COLUMNS, OVERLAY)]
            values = {name: _numbers(table[name]) for name in rest}
            overlay = _overlay(table[OVERLAY]) if OVERLAY in table.column_names else {}
            flaws += [f"a second row of {shown(name)}" for name in texts["id"].repeated()]
    except (pa.ArrowException, OSError, MemoryError, OverflowError, ValueError) as error:
        raise StoreError(
            f"{path}: not the Parquet of outcomes: {_line(error)}; measure again"
        ) from error
    if flaws:
        raise StoreError(f"{path}: {flaws[0]}; measure again")
    return Outcomes(**texts, values=values, errors=dict(errors), attributes=overlay)


def _line(told: object) -> str:
    # Some messages of Arrow go on with a trace of its code.
    return (str(told).splitlines() or [type(told).__name__])[0][:200]


def _size_flaws(footer: pq.FileMetaData, planned_n: int, size: int) -> Iterator[str]:
    rows = footer.num_rows
    unpacked = sum(footer.row_group(i).total_byte_size for i in range(footer.num_row_groups))
    if not 0 <= rows <= planned_n:
        yield f"holds {rows:,} rows, and its manifest plans {planned_n:,}"
    elif not (rows <= _MOST_ROWS_PER_BYTE * size and unpacked <= _MOST_EXPANSION * size):
        yield f"holds {rows:,} rows of {unpacked:,} bytes in a file of {size:,}"


def _type_flaws(footer: pq.FileMetaData) -> Iterator[str]:
    """What is wrong with the columns of a file."""
    import pyarrow as pa

    schema = footer.schema.to_arrow_schema()
    names = schema.names
    if absent := [name for name in TEXT_COLUMNS if name not in names]:
        yield f"column {absent[0]!r} is missing"
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        yield f"two columns have the name {shown(twice)}"
    for column in schema:
        kind = column.type
        if column.name in TEXT_COLUMNS:
            fits = kind == pa.string()
        elif column.name == OVERLAY:
            inner = list(kind) if pa.types.is_struct(kind) else []
            fits = bool(inner) and len({field.name for field in inner}) == len(inner)
            fits = fits and all(field.type in (pa.string(), pa.float64()) for field in inner)
        else:
            fits = kind == pa.float64()
        if not fits:
            wanted = "text" if column.name in TEXT_COLUMNS else "numbers"
            wanted = f"texts and {wanted}" if column.name == OVERLAY else wanted
            yield f"column {shown(column.name)}: expected {wanted}, got {_line(kind)}"


def _text_columns(table: pa.Table) -> dict[str, Texts]:
    texts: dict[str, Texts] = {}
    for name in TEXT_COLUMNS:
        # A clean sample is its own source picture, and that of an attacked one is its twin: what
        # is equal is coded once.
        same = (other for other in texts if table[name].equals(table[other]))
        other = next(same, None) if name not in _FEW else None
        texts[name] = texts[other] if other else _texts(table[name], nullable=name in NULLABLE)
    return texts


def _texts(column: pa.ChunkedArray, *, nullable: bool = False) -> Texts:
    """Raises ValueError if a text is missing or is not UTF-8."""
    import pyarrow as pa

    array = column.combine_chunks()
    if array.null_count and not nullable:
        raise ValueError("a text is missing")
    if not pa.types.is_dictionary(array.type):
        array = array.dictionary_encode()
    elif len(array.dictionary.unique()) < len(array.dictionary):
        raise ValueError("two codes for one text")
    array.validate(full=True)
    return Texts(array.indices.fill_null(NOTHING).to_numpy(), Distinct(array.dictionary))


def _numbers(column: pa.ChunkedArray) -> DoubleArray:
    """Raises ValueError if a number is missing or not finite."""
    numbers: DoubleArray = column.to_numpy()
    if column.null_count or not np.isfinite(numbers).all():
        raise ValueError("a number is missing or not finite")
    return numbers


def _overlay(column: pa.ChunkedArray) -> dict[str, Texts | DoubleArray]:
    import pyarrow as pa

    if column.null_count:
        raise ValueError("the attributes of an overlay are missing")
    table = pa.Table.from_struct_array(column)
    return {
        name: _texts(table[name]) if table[name].type == pa.string() else _numbers(table[name])
        for name in table.column_names
    }

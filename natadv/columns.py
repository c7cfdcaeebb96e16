"""Columns of text as codes, so that rows are matched, compared and counted without a loop."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import repeat
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pyarrow as pa

Codes = NDArray[np.int32]
Mask = NDArray[np.bool_]

NOTHING, ABSENT = -1, -2
"""Codes of a row without a text, and of a text that another column does not know."""


class Distinct:
    """The distinct texts of a column, in no order.

    They may be given as an array of Arrow, which becomes strings only where somebody asks for them.
    """

    def __init__(self, given: list[str] | pa.StringArray) -> None:
        self._given = given
        self._last: tuple[Distinct, Codes] | None = None

    @cached_property
    def texts(self) -> list[str]:
        """Each text once, at its code."""
        return list(self._given if isinstance(self._given, list) else self._given.to_pylist())

    @cached_property
    def codes(self) -> dict[str, int]:
        """Text -> its code."""
        return {text: code for code, text in enumerate(self.texts)}

    def coded_as(self, other: Distinct) -> Codes:
        """The code of each text in `other`, ABSENT if that has no such text; last that of NOTHING.

        The answer is kept until another one is asked for: several metrics match the same columns.
        """
        if self._last is None or self._last[0] is not other:
            found = self._found_in(other)
            self._last = other, np.append(found, NOTHING).astype(np.int32)
        return self._last[1]

    def _found_in(self, other: Distinct) -> Codes:
        if isinstance(self._given, list) or isinstance(other._given, list):
            found = map(other.codes.get, self.texts, repeat(ABSENT))
            return np.fromiter(found, dtype=np.int32, count=len(self.texts))
        # Imported here because only who reads evidence has arrays of Arrow.
        import pyarrow.compute as pc

        codes: Codes = pc.index_in(self._given, value_set=other._given).fill_null(ABSENT).to_numpy()
        return codes


class Texts(Sequence[Any]):
    """A text, or None, for each row. Equal to any sequence of the same texts."""

    def __init__(self, codes: Codes, distinct: Distinct) -> None:
        self.codes = codes
        """Shape (n,): the code of each row's text in `distinct`, or NOTHING."""
        self.distinct = distinct

    @classmethod
    def of(cls, column: Iterable[str | None]) -> Texts:
        """The same texts; the column itself if it is coded already."""
        if isinstance(column, Texts):
            return column
        known: dict[str, int] = {}
        found = [NOTHING if x is None else known.setdefault(x, len(known)) for x in column]
        return cls(np.array(found, dtype=np.int32), Distinct(list(known)))

    def __len__(self) -> int:
        return len(self.codes)

    def __iter__(self) -> Iterator[Any]:
        if not len(self):
            return iter(())
        # The code of nothing is the index of the last one.
        return map([*self.distinct.texts, None].__getitem__, self.codes.tolist())

    def __getitem__(self, at: Any) -> Any:
        if isinstance(at, slice):
            return tuple(self.take(at))
        code = self.codes[at]
        return None if code == NOTHING else self.distinct.texts[code]

    def __contains__(self, text: object) -> bool:
        return isinstance(text, str | None) and bool(self.equals(text).any())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and tuple(self) == tuple(other)

    def __repr__(self) -> str:
        return f"Texts({list(self)!r})"

    def take(self, rows: Any) -> Texts:
        """The rows at these indices, in a slice, or where a mask holds."""
        return Texts(self.codes[rows], self.distinct)

    @property
    def present(self) -> Mask:
        """Whether each row has a text."""
        found: Mask = self.codes != NOTHING
        return found

    def equals(self, text: str | None) -> Mask:
        """Whether each row has this text."""
        code = NOTHING if text is None else self.distinct.codes.get(text, ABSENT)
        found: Mask = self.codes == code
        return found

    def differs(self, other: Texts) -> Mask:
        """Whether each row has another text than the same row of `other`."""
        found: Mask = self.codes != other.coded_as(self)
        return found

    def coded_as(self, other: Texts) -> Codes:
        """The code of each row in `other`, ABSENT if that has no such code."""
        if self.distinct is other.distinct:
            return self.codes
        return self.distinct.coded_as(other.distinct)[self.codes]

    def rows_of(self, wanted: Texts) -> NDArray[np.int64]:
        """For each of the `wanted`, a row of this column with the same text; -1 without one."""
        codes = wanted.coded_as(self)
        largest = max(self.codes.max(initial=0), codes.max(initial=0))
        # The last two are those of the codes NOTHING and ABSENT, which are negative.
        rows = np.full(largest + 3, NOTHING)
        rows[self.codes[self.present]] = np.flatnonzero(self.present)
        return rows[codes]

    @property
    def counts(self) -> NDArray[np.int64]:
        """How many rows each code has; 0 for codes that none has."""
        return np.bincount(self.codes[self.present])

    @property
    def different(self) -> int:
        """The number of different texts."""
        return int(np.count_nonzero(self.counts))

    def repeated(self) -> list[str]:
        """The texts of several rows, sorted."""
        return sorted(self.distinct.texts[code] for code in np.flatnonzero(self.counts > 1))

    def ranked(self) -> tuple[list[str], NDArray[np.int64]]:
        """The different texts, sorted, and the index of each row's text among them."""
        texts = self.distinct.texts
        order = sorted(np.flatnonzero(self.counts).tolist(), key=texts.__getitem__)
        ranks = np.full(len(texts) + 1, -1)
        ranks[order] = np.arange(len(order))
        return [texts[code] for code in order], ranks[self.codes]

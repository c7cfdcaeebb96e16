from __future__ import annotations

import pickle
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from natadv.columns import ABSENT, NOTHING, Distinct, Texts

COLUMN = st.lists(st.sampled_from(["a", "b", "é", "", "a\0", "\U0001f600", None]), max_size=8)


def from_arrow(texts):
    """As columns are that were read from a file."""
    array = pa.array(texts, pa.string()).dictionary_encode()
    codes = array.indices.fill_null(NOTHING).to_numpy()
    return Texts(codes, Distinct(array.dictionary))


MAKERS = (Texts.of, from_arrow)


@given(COLUMN, COLUMN)
def test_columns_do_what_lists_do(left, right):
    for make in MAKERS:
        a, b = make(left), from_arrow(right)
        n = len(left)

        assert list(a) == left
        assert a == tuple(left)
        assert (a == b) == (left == right)
        assert len(a) == n
        assert [a[i] for i in range(-n, n)] == left * 2
        assert a[1:3] == tuple(left[1:3])
        assert [x in a for x in ("a", "z", None, 3)] == [x in left for x in ("a", "z", None, 3)]
        assert a.present.tolist() == [x is not None for x in left]
        assert a.equals("a").tolist() == [x == "a" for x in left]
        assert a.take(a.present) == [x for x in left if x is not None]
        assert list(a.take(np.arange(n)[::-1])) == left[::-1]
        assert Texts.of(a) is a
        assert pickle.loads(pickle.dumps(a)) == left


@given(COLUMN, COLUMN)
def test_columns_are_matched_by_their_texts_whatever_their_codes(left, right):
    for make, other in ((m, o) for m in MAKERS for o in MAKERS):
        a, b = make(left), other(right)
        rows = a.rows_of(b)
        n = min(len(a), len(b))

        for text, row in zip(right, rows.tolist(), strict=True):
            known = text is not None and text in left
            assert (row != NOTHING) == known
            assert not known or left[row] == text
        assert a.take(slice(n)).differs(b.take(slice(n))).tolist() == [
            x != y for x, y in zip(left, right, strict=False)
        ]
        codes = a.coded_as(b).tolist()
        assert [c == NOTHING for c in codes] == [x is None for x in left]
        assert [c == ABSENT for c in codes] == [x is not None and x not in right for x in left]


@given(COLUMN.map(lambda texts: [text for text in texts if text is not None]), COLUMN)
def test_distinct_texts_are_counted_and_sorted_among_the_rows_that_are_left(texts, others):
    for make in MAKERS:
        # What is dropped keeps its code, and must not count.
        column = make([*texts, *others]).take(slice(len(texts)))
        names, at = column.ranked()

        assert names == sorted(set(texts))
        assert [names[i] for i in at] == texts
        assert column.different == len(set(texts))
        assert column.repeated() == sorted(t for t, times in Counter(texts).items() if times > 1)


def test_a_column_is_no_key():
    with pytest.raises(TypeError, match="unhashable"):
        hash(Texts.of(["a"]))

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natadv.evaluate.prefetch import prefetch


@given(st.lists(st.integers() | st.none()), st.integers(1, 4))
def test_items_come_whole_and_in_order(items, depth):
    assert list(prefetch(iter(items), depth=depth)) == items


def test_the_next_item_is_made_while_this_one_is_used():
    made = threading.Event()

    def items():
        yield 1
        made.set()
        yield 2

    found = prefetch(items())

    assert next(found) == 1
    assert made.wait(timeout=10)
    assert list(found) == [2]


def test_no_more_than_the_depth_is_made_ahead():
    made = []
    found = prefetch((made.append(i) or i for i in range(100)), depth=2)

    for used in range(10):
        next(found)
        assert len(made) <= used + 3
    found.close()
    assert len(made) <= 13


def test_what_making_an_item_raises_is_raised_in_its_place():
    def items():
        yield 1
        raise KeyError("planted")

    found = prefetch(items())

    assert next(found) == 1
    with pytest.raises(KeyError, match="planted"):
        next(found)


def test_leaving_early_leaves_no_thread_behind():
    before = threading.active_count()
    found = prefetch(iter(range(100)))
    next(found)
    found.close()

    assert threading.active_count() == before

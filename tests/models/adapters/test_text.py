from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natadv.models.adapters.text import canonical


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A Photo of a Cat.", "a photo of a cat"),
        ("a photo of a guinea_pig", "a photo of a guinea pig"),
        ("jack-o'-lantern!", "jackolantern"),
        ("  a \t photo\nof  {} ", "a photo of"),
        ("hen, chicken", "hen, chicken"),
        ("", ""),
    ],
)
def test_canonical_is_spelt_as_in_training(text, expected):
    assert canonical(text) == expected


@given(st.text())
def test_canonical_is_settled_after_one_pass(text):
    once = canonical(text)

    assert canonical(once) == once
    assert not set(once) & set(string.punctuation.replace(",", ""))
    assert "  " not in once

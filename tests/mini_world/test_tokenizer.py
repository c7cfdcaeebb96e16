"""The mini tokenizer takes any text, and writes the end where the text towers look for it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mini_world.tokenizer import CONTEXT, PAD_ID, make_tokenizer
from mini_world.vocabulary import CLASSES

TOKENIZER = make_tokenizer()


@given(st.text(max_size=200))
def test_any_text_encodes_to_known_ids(text):
    ids = TOKENIZER(text, truncation=True, max_length=CONTEXT)["input_ids"]

    assert len(ids) <= CONTEXT
    assert ids[0] == TOKENIZER.bos_token_id
    assert ids[-1] == TOKENIZER.eos_token_id
    assert TOKENIZER.unk_token_id not in ids
    assert max(ids) < len(TOKENIZER)


@given(st.text(alphabet=st.characters(codec="ascii"), max_size=20))
def test_letters_come_back_in_lower_case(text):
    ids = TOKENIZER(text)["input_ids"]

    assert TOKENIZER.decode(ids, skip_special_tokens=True).strip() == text.lower().strip()


@pytest.mark.parametrize("name", CLASSES)
def test_every_class_is_one_token_of_the_prompt(name):
    assert len(TOKENIZER(f"a photo of a {name}.")["input_ids"]) == 8


def test_the_end_is_not_the_id_that_transformers_mistrusts():
    assert TOKENIZER.eos_token_id not in (2, PAD_ID)
    assert TOKENIZER.pad_token_id == PAD_ID


def test_training_it_again_gives_the_same_tokens():
    assert make_tokenizer().get_vocab() == TOKENIZER.get_vocab()

from __future__ import annotations

import string
from itertools import pairwise, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natadv.tasks import vqa_text
from natadv.tasks.vqa_text import CONTRACTIONS

MARKS = [";", "/", "[", "]", '"', "{", "}", "(", ")", "=", "+", "\\", "_", "-", ">", "<", "@", "`"]
MARKS += [",", "?", "!"]
NUMBERS = [
    ("none", "0"),
    ("zero", "0"),
    ("one", "1"),
    ("two", "2"),
    ("three", "3"),
    ("four", "4"),
    ("five", "5"),
    ("six", "6"),
    ("seven", "7"),
    ("eight", "8"),
    ("nine", "9"),
    ("ten", "10"),
]
NEVER = {"Id've", "I'dve", "Im", "Ive"}

# Short texts over few characters, so that rules meet.
LETTERS = st.sampled_from([*MARKS, *"aAntx25.:' ", "  ", "the ", "dont "])
TEXTS = st.lists(LETTERS, max_size=14).map("".join)
WORDS = st.lists(
    st.sampled_from(["A", "an", "the", "cat", "Two", "ten", "isnt", "y'allll", "none.", "3"]),
    max_size=6,
).map(" ".join)


def letter_by_letter(text):
    """The rules of punctuation, one character at a time."""
    number = any(
        text[i].isdecimal() and text[i + 1] == "," and text[i + 2].isdecimal()
        for i in range(len(text) - 2)
    )
    spaced = [
        mark
        for mark in MARKS
        if any(pair in (mark + " ", " " + mark) for pair in map("".join, pairwise(text)))
    ]
    found = ""
    for c in text:
        if c not in MARKS:
            found += c
        elif c not in spaced and not number:
            found += " "
    kept, dropped = "", 0
    for i, c in enumerate(found):
        before_digit = i + 1 < len(found) and found[i + 1].isdecimal()
        if c == "." and not before_digit and dropped < 32:
            dropped += 1
        else:
            kept += c
    return kept


def word_by_word(text):
    found = []
    for word in text.lower().split():
        for name, digits in NUMBERS:
            if word == name:
                word = digits
        if word in ("a", "an", "the"):
            continue
        for short, full in CONTRACTIONS.items():
            if word == short:
                word = full
                break
        found.append(word)
    return " ".join(found)


def paper_by_hand(text):
    kept = "".join(c for c in text.lower() if c.isalnum() or c == "_" or c.isspace())
    return " ".join(word for word in kept.split() if word not in ("a", "an", "the"))


@given(TEXTS)
def test_punctuation_goes_as_letter_by_letter(text):
    assert vqa_text.without_punctuation(text) == letter_by_letter(text)


@given(TEXTS | WORDS)
def test_official_rules_equal_loops(text):
    assert vqa_text.official(text) == word_by_word(letter_by_letter(text))


@given(st.text(string.printable))
def test_light_rules_equal_a_loop(text):
    assert vqa_text.light(text) == paper_by_hand(text)


@given(TEXTS | WORDS | st.text())
def test_a_second_time_changes_nothing(text):
    once, light = vqa_text.official(text), vqa_text.light(text)

    assert vqa_text.official(once) == once
    assert vqa_text.light(light) == light


@pytest.mark.parametrize("mark", MARKS)
def test_a_mark_becomes_a_space_unless_one_is_beside_it_somewhere(mark):
    assert vqa_text.without_punctuation(f"x{mark}y") == "x y"
    assert vqa_text.without_punctuation(f"x{mark} y") == "x y"
    assert vqa_text.without_punctuation(f"x {mark}y") == "x y"
    assert vqa_text.without_punctuation(f"x{mark}y{mark} z") == "xy z"


@pytest.mark.parametrize("mark", MARKS)
def test_a_comma_in_a_number_deletes_every_mark(mark):
    assert vqa_text.without_punctuation(f"1,000 x{mark}y") == "1000 xy"
    assert vqa_text.without_punctuation(f"1,z x{mark}y") != "1z xy"


@pytest.mark.parametrize("kept", ["'", ":", "%", "$", "#", "*", "&", "é", "~", "|"])
def test_other_characters_are_no_punctuation(kept):
    assert vqa_text.official(f"x{kept}y") == f"x{kept}y"


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("5.", "5"),
        ("5. x", "5 x"),
        ("5.5", "5.5"),
        (".5", ".5"),
        ("x.5", "x.5"),
        ("U.S.A.", "USA"),
        ("5.a", "5a"),
        ("." * 40, "." * 8),
        ("..5", ".5"),
    ],
)
def test_a_period_stays_only_before_a_digit_and_only_32_go(text, left):
    assert vqa_text.without_punctuation(text) == left


@pytest.mark.parametrize(("word", "digits"), NUMBERS)
def test_every_number_word_becomes_digits(word, digits):
    for form in (word, word.upper(), word.capitalize(), f" {word}.", f"the {word}"):
        assert vqa_text.official(form) == digits
    assert vqa_text.official(f"{word}s") == f"{word}s"


@pytest.mark.parametrize("word", ["eleven", "twenty", "once", "no", "0", "10"])
def test_other_number_words_stay(word):
    assert vqa_text.official(word) == word


@pytest.mark.parametrize("article", ["a", "an", "the", "A", "THE"])
def test_every_article_goes(article):
    assert vqa_text.official(f"{article} cat on {article} mat") == "cat on mat"
    assert vqa_text.official(article) == ""
    assert vqa_text.light(f"{article} cat-{article}!") == f"cat{article.lower()}"
    assert vqa_text.official(f"{article}x") == f"{article.lower()}x"


@pytest.mark.parametrize("short", sorted(set(CONTRACTIONS) - NEVER))
def test_every_contraction_is_written_out(short):
    full = CONTRACTIONS[short]

    assert vqa_text.official(short) == full
    assert vqa_text.official(f"A {short.upper()}, yes") == f"{full} yes"
    assert vqa_text.official(f"x{short}") == f"x{short}"


@pytest.mark.parametrize("short", sorted(NEVER))
def test_a_contraction_with_a_capital_never_applies(short):
    assert vqa_text.official(short) == short.lower()


def test_the_table_moves_apostrophes_and_nothing_else():
    assert len(CONTRACTIONS) == 120
    for short, full in CONTRACTIONS.items():
        assert short.replace("'", "") == full.replace("'", "")
    assert {s for s in CONTRACTIONS if s != s.lower()} == NEVER
    assert {s for s, full in CONTRACTIONS.items() if s == full} == {"let's", "she's"}


@pytest.mark.parametrize(
    ("short", "full"),
    [
        ("dont", "don't"),
        ("isnt", "isn't"),
        ("somebody'd", "somebodyd"),
        ("ow's'at", "'ow's'at"),
        ("twas", "'twas"),
        ("weve", "we've"),
        ("y'alld've", "y'all'd've"),
        ("oclock", "o'clock"),
        # In the table by neither way of writing them.
        ("shes", "shes"),
        ("lets", "lets"),
        ("its", "its"),
        ("ill", "ill"),
    ],
)
def test_known_contractions(short, full):
    assert vqa_text.official(short) == full


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("Yes, it is!", "yes it is"),
        ("red/white", "red white"),
        ("red / white", "red white"),
        ("T-shirt", "t shirt"),
        ("10,000-20", "1000020"),
        ("3:15 p.m.", "3:15 pm"),
        ("The two dogs", "2 dogs"),
        ("it's", "it's"),
        ("Köln, Straße", "köln straße"),
        ("猫。", "猫。"),
        ("кот?", "кот"),
        ("", ""),
        ("?", ""),
    ],
)
def test_official_examples(text, left):
    assert vqa_text.official(text) == left


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("The red-white car!", "redwhite car"),
        ("it's a cat", "its cat"),
        ("5.5", "55"),
        ("two", "two"),
        ("A", ""),
        ("猫。", "猫"),
        ("an  apple\tthe\nend", "apple end"),
    ],
)
def test_light_examples(text, left):
    assert vqa_text.light(text) == left


@pytest.mark.parametrize(("text", "line"), [(" a\tb\nc \n", "a b c"), ("Yes.", "Yes."), ("\n", "")])
def test_on_one_line(text, line):
    assert vqa_text.on_one_line(text) == line


ALIKE = ["two dogs", "2 dogs", "The Two Dogs.", "\ttwo dogs\n", "2-dogs"]


@pytest.mark.parametrize(("one", "other"), list(product(ALIKE, ALIKE)))
def test_answers_that_differ_in_form_alone_are_the_same(one, other):
    assert vqa_text.same(one, other)


@pytest.mark.parametrize(
    ("one", "other"), [("dog", "dogs"), ("", "dog"), ("A", ""), ("the", "a"), ("", "?")]
)
def test_other_answers_are_not_the_same(one, other):
    assert not vqa_text.same(one, other)
    assert not vqa_text.same(other, one)


@pytest.mark.parametrize(("one", "other"), [("A", "a"), ("The", "the "), ("?", "?")])
def test_what_the_rules_leave_nothing_of_is_the_same_as_itself(one, other):
    assert vqa_text.same(one, other)

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from natadv.errors import DataError
from natadv.evidence import Evidence
from natadv.metrics import measure
from natadv.tasks import vqa
from natadv.tasks.task import Prediction
from natadv.types import Sample

# Words that no rule touches: the text rules have tests of their own.
PLAIN = st.sampled_from(["cat", "dog", "red"])
TEN = st.lists(PLAIN, min_size=10, max_size=10)
# Words that the rules turn into each other.
FORMS = st.sampled_from(["cat", "Cat", "a cat.", "two", "2", "Two ", "isnt", "isn't", "", "?"])
SOME = st.lists(FORMS, min_size=4, max_size=12)
NORMAL = {
    "cat": "cat",
    "Cat": "cat",
    "a cat.": "cat",
    "two": "2",
    "2": "2",
    "Two ": "2",
    "isnt": "isn't",
    "isn't": "isn't",
    "": "",
    "?": "",
}
LIGHT = {
    "cat": "cat",
    "Cat": "cat",
    "a cat.": "cat",
    "two": "two",
    "2": "2",
    "Two ": "two",
    "isnt": "isnt",
    "isn't": "isnt",
    "": "",
    "?": "",
}


def leave_one_out(answer, given):
    """Over each person, and each other person."""
    stripped = [text.strip() for text in given]
    if any(text != stripped[0] for text in stripped):
        people, said = [NORMAL[text] for text in given], NORMAL[answer]
    else:
        people, said = stripped, answer.strip()
    scores = []
    for i in range(len(people)):
        agree = 0
        for j in range(len(people)):
            if j != i and people[j] == said:
                agree += 1
        scores.append(min(Fraction(1), Fraction(agree, 3)))
    return float(sum(scores) / len(scores))


def sample(name="q", given=("cat",) * 10, **columns):
    columns = {"question": "what is it", "answer_type": "other", "group": f"g{name}"} | columns
    return Sample(name, columns.pop("group"), b"", answers=tuple(given), **columns)


@given(FORMS, SOME)
def test_accuracy_equals_leaving_each_person_out(answer, given):
    assert vqa.accuracy(answer, given) == pytest.approx(leave_one_out(answer, given), abs=1e-12)


@pytest.mark.parametrize(
    ("agree", "official", "simple"),
    [(0, 0, 0), (1, 0.3, 1 / 3), (2, 0.6, 2 / 3), (3, 0.9, 1), (4, 1, 1), (9, 1, 1), (10, 1, 1)],
)
def test_accuracy_of_ten_people(agree, official, simple):
    given = ["cat"] * agree + ["dog"] * (10 - agree)

    assert vqa.accuracy("cat", given) == official
    assert vqa.simple_accuracy("cat", given) == pytest.approx(simple)
    assert vqa.exact_match("cat", given) == (agree > 0)


@pytest.mark.parametrize(("people", "agree"), [(4, 3), (5, 1), (20, 3), (100, 2)])
def test_accuracy_of_another_number_of_people(people, agree):
    given = ["cat"] * agree + ["dog"] * (people - agree)
    expected = agree * min(1, (agree - 1) / 3) + (people - agree) * min(1, agree / 3)

    assert vqa.accuracy("cat", given) == pytest.approx(expected / people)


@given(FORMS, SOME, st.randoms(use_true_random=False))
def test_order_of_the_people_does_not_matter(answer, given, random):
    shuffled = list(given)
    random.shuffle(shuffled)

    assert vqa.accuracy(answer, shuffled) == vqa.accuracy(answer, given)
    assert vqa.simple_accuracy(answer, shuffled) == vqa.simple_accuracy(answer, given)


@given(PLAIN, TEN)
def test_scores_stay_in_bounds_and_nobody_is_left_out_in_the_simple_one(answer, given):
    official, simple = vqa.accuracy(answer, given), vqa.simple_accuracy(answer, given)

    assert 0 <= official <= simple <= 1
    assert vqa.exact_match(answer, given) == (official > 0) == (answer in given)


@given(PLAIN, TEN)
def test_one_more_who_agrees_never_lowers_the_score(answer, given):
    more = [answer, *given[1:]]

    assert vqa.accuracy(answer, more) >= vqa.accuracy(answer, given)
    assert vqa.simple_accuracy(answer, more) >= vqa.simple_accuracy(answer, given)


@given(FORMS, SOME)
def test_simple_accuracy_counts_who_agrees(answer, given):
    agree = 0
    for text in given:
        if LIGHT[text] == LIGHT[answer]:
            agree += 1

    assert vqa.simple_accuracy(answer, given) == pytest.approx(min(agree / 3, 1))
    assert vqa.exact_match(answer, given) == (agree > 0)


@pytest.mark.parametrize("answer", ["yes", "Yes.", "YES", "the Yes"])
def test_where_all_agree_answers_are_compared_as_they_stand(answer):
    assert vqa.accuracy(answer, ["Yes"] * 10) == 0
    assert vqa.accuracy(" Yes\n", ["Yes"] * 10) == 1
    assert vqa.accuracy(answer, ["Yes"] * 9 + ["no"]) == 1
    assert vqa.simple_accuracy(answer, ["Yes"] * 10) == 1


def test_answers_that_differ_in_form_alone_do_not_all_agree():
    assert vqa.accuracy("YES!", ["yes"] * 9 + ["Yes"]) == 1
    # Line ends are no difference.
    assert vqa.accuracy("YES!", ["yes"] * 9 + ["yes\n"]) == 0


def test_outcomes_are_one_row_per_sample():
    samples = [
        sample("a", ["cat"] * 3 + ["dog"] * 7, decoy="Dog", twin="ta", part="seen"),
        sample("b", ["2"] * 10, answer_type="number"),
        sample("c", ["no", "yes"] * 5, answer_type="yes/no", decoy="yes"),
    ]

    found = vqa.outcomes(samples, ["a dog", "two", "no"], errors={"d": "cannot be decoded"})

    assert found.id == ("a", "b", "c")
    assert found.group == ("ga", "gb", "gc")
    assert found.part == ("seen", "", "")
    assert found.twin == ("ta", None, None)
    assert found.decoy == ("Dog", None, "yes")
    assert found.truth == ("dog", "2", "no")
    assert found.prediction == ("a dog", "two", "no")
    assert found.errors == {"d": "cannot be decoded"}
    assert tuple(found.values) == vqa.VQA.values
    expected = {
        "accuracy": [1, 0, 1],
        "simple": [1, 0, 1],
        "exact": [1, 0, 1],
        "said_decoy": [1, 0, 0],
        "yes_no": [0, 0, 1],
        "number": [0, 1, 0],
        "other": [1, 0, 0],
    }
    assert {name: column.tolist() for name, column in found.values.items()} == expected
    assert all(column.dtype == np.float64 for column in found.values.values())


@pytest.mark.parametrize("given", [["b", "a", "b", "a"], ["b", "a", "a", "b", "c"], ["b"] * 10])
def test_truth_is_what_most_said_and_on_a_tie_what_was_said_first(given):
    assert vqa.outcomes([sample(given=given)], ["x"]).truth == ("b",)


@given(st.permutations(range(5)))
def test_rows_are_the_same_in_any_order(order):
    said = ["cat", "dog", "Two", "!", "red"]
    samples = [sample(f"s{i}", [said[i]] * (i + 2) + ["x"] * 4, decoy=said[i]) for i in range(5)]
    straight = vqa.outcomes(samples, said)

    found = vqa.outcomes([samples[i] for i in order], [said[i] for i in order])

    for name, column in found.values.items():
        assert column.tolist() == straight.values[name][list(order)].tolist()


@pytest.mark.parametrize(
    ("answer", "decoy", "said"),
    [
        ("The Dog.", "dog", True),
        ("two", "2", True),
        ("dogs", "dog", False),
        ("dog", None, False),
        ("", "a", False),
        ("", "", True),
    ],
)
def test_said_decoy_compares_by_the_official_rules(answer, decoy, said):
    found = vqa.outcomes([sample(decoy=decoy)], [answer])

    assert found.values["said_decoy"].tolist() == [said]


def test_sample_without_a_type_is_scored_but_of_no_type():
    found = vqa.outcomes([sample(answer_type="")], ["cat"])

    assert found.values["accuracy"].tolist() == [1]
    assert [found.values[name].tolist() for name in vqa.TYPES.values()] == [[0], [0], [0]]


def test_non_latin_answers_are_scored():
    found = vqa.outcomes([sample(given=["Кот"] * 9 + ["собака"])], ["кот?"])

    assert found.values["accuracy"].tolist() == [1]


def test_no_samples_give_no_rows():
    found = vqa.outcomes([], [], errors={"a": "why"})

    assert found.n == 0
    assert [len(column) for column in found.values.values()] == [0] * len(vqa.VQA.values)


def test_missing_answers_are_refused_by_name():
    with pytest.raises(DataError, match="sample 'b': expected what people answered, got nothing"):
        vqa.outcomes([sample("a"), sample("b", ())], ["x", "y"])


# By hand, by the official rules: punctuation, then capitals, numbers, articles, contractions.
ONE_ANSWER = [
    ("yes", "yes", True),
    ("Yes.", "yes", True),
    ("the yes", "Yes", True),
    ("two", "2", True),
    ("A black cat!", "black cat", True),
    ("isnt", "isn't", True),
    ("black-cat", "black cat", True),
    ("1,000", "1000", True),
    ("no", "yes", False),
    ("yes it is", "yes", False),
    ("cats", "cat", False),
    ("", "a", False),
    ("?", "yes", False),
]


@pytest.mark.parametrize(("said", "truth", "match"), ONE_ANSWER)
def test_one_answer_is_scored_by_exact_match_after_the_official_normalisation(said, truth, match):
    # Left out of one person, nobody agrees: the official accuracy would be 0 whatever is said.
    assert vqa.accuracy(said, [truth]) == float(match)


def test_where_a_question_has_few_answers_any_of_them_counts_in_full():
    for people in (1, 2, 3):
        given = ["dog"] * (people - 1) + ["Cat"]
        assert vqa.accuracy("a cat.", given) == vqa.simple_accuracy("a cat.", given) == 1
        assert vqa.accuracy("rat", given) == vqa.simple_accuracy("rat", given) == 0
        assert vqa.exact_match("cat", given)
        assert not vqa.exact_match("rat", given)
    # From four people on they are left out one by one, and who all agree are not normalised.
    assert vqa.accuracy("cat", ["Cat"] * 4) == 0
    assert vqa.accuracy("cat", ["dog"] * 3 + ["Cat"]) == pytest.approx((3 / 3) / 4)


@pytest.mark.parametrize("truth", ["a", "The", "?", "...", "\N{PILE OF POO}", "it's a \N{CAT}"])
def test_a_model_that_says_nothing_is_never_right(truth):
    for said in ("", " ", "-", "an", ".", "()"):
        for score in (vqa.accuracy, vqa.simple_accuracy, vqa.exact_match):
            assert not score(said, [truth]), (score, said)
    assert vqa.simple_accuracy(f" {truth}\n", [truth]) == 1


def test_outcomes_of_questions_with_one_answer_suit_every_metric():
    samples = [sample(f"s{i}", [truth]) for i, (_, truth, _) in enumerate(ONE_ANSWER)]
    rows = vqa.outcomes(samples, [said for said, _, _ in ONE_ANSWER])
    matches = [match for _, _, match in ONE_ANSWER]

    assert rows.values["accuracy"].tolist() == matches
    assert rows.truth == tuple(truth for _, truth, _ in ONE_ANSWER)
    found = measure("vqa_accuracy", Evidence(rows))
    assert found.value == pytest.approx(sum(matches) / len(matches))
    assert measure("vqa_accuracy_other", Evidence(rows)).value == found.value
    # By the rules of the paper: neither `two` is 2 nor `black-cat` two words.
    assert measure("exact_match", Evidence(rows)).value == pytest.approx(6 / 13)
    assert measure("vqa_accuracy_simple", Evidence(rows)).value == pytest.approx(6 / 13)


def test_the_caption_of_a_failure_names_the_rule():
    for people, caption in ((["cat"], "exact match"), (["cat"] * 10, "accuracy 0.00")):
        values = {"accuracy": 0.0}
        said = Prediction(text="dog", correct=False, values=values)
        captions = vqa.VQA.sheet.failure(sample(given=people), "cat", said)
        assert captions[-1].text == caption


@pytest.mark.parametrize("kind", ["Other", "yes_no", "count"])
def test_unknown_type_is_refused(kind):
    with pytest.raises(DataError, match=f"sample 'q': expected an answer type.*got '{kind}'"):
        vqa.outcomes([sample(answer_type=kind)], ["cat"])


@pytest.mark.parametrize("answers", [[], ["x", "y"]])
def test_every_sample_needs_its_answer(answers):
    with pytest.raises(DataError, match=f"one answer per sample, got {len(answers)} for 1"):
        vqa.outcomes([sample()], answers)

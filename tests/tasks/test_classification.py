from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from natadv.errors import DataError, ModelError
from natadv.rng import rng_for
from natadv.tasks import TASKS, classification
from natadv.types import Sample

CLASSES = ("cat", "Dog", "hen")


@dataclass(frozen=True)
class FakeScoring:
    scale: float = 10.0
    bias: float = 0.0
    activation: str = "softmax"


SOFTMAX = FakeScoring()
SIGMOID = FakeScoring(bias=-3.0, activation="sigmoid")
SCORINGS = pytest.mark.parametrize("scoring", [SOFTMAX, SIGMOID], ids=["softmax", "sigmoid"])

LOGITS = st.integers(2, 6).flatmap(
    lambda c: arrays.arrays(
        np.float64,
        st.tuples(st.integers(1, 8), st.just(c)),
        # Few values, so that ties are common.
        elements=st.integers(-6, 6).map(lambda x: x / 2),
    )
)


def embeddings(*shape, key="e"):
    return rng_for("classification", key, shape).normal(size=shape).astype(np.float32)


def sample(name, label, decoy=None):
    return Sample(
        f"s{name}", f"g{name}", b"", label=label, decoy=decoy, twin=f"t{name}", part="seen"
    )


def predicted(values, truths, scoring=SOFTMAX):
    return classification.predict(
        np.asarray(values, np.float64), np.asarray(truths, np.int64), scoring=scoring
    )


def drawn_truths(values, seed=0):
    return rng_for("truths", seed).integers(0, values.shape[1], len(values))


def test_prompts_go_class_by_class_and_stay_literal():
    found = classification.prompts(["ox", "{x}"], ["a photo of a {}.", "{{}} art"])

    assert found == ["a photo of a ox.", "{ox} art", "a photo of a {x}.", "{{x}} art"]


@pytest.mark.parametrize("template", ["a photo", "{} and {}", "{name}", "{0}"])
def test_template_has_one_place_for_the_name(template):
    with pytest.raises(DataError, match=r"expected one {} for the class name in template"):
        classification.prompts(CLASSES, [template])


def test_at_least_one_template_is_needed():
    with pytest.raises(DataError, match="at least one prompt template"):
        classification.prompts(CLASSES, [])


@pytest.mark.parametrize("templates", [1, 3])
def test_class_weights_equal_a_double_loop(templates):
    rows = embeddings(4 * templates, 5)
    expected = []
    for c in range(4):
        mean = [0.0] * 5
        for t in range(templates):
            row = [float(x) for x in rows[c * templates + t]]
            length = math.sqrt(sum(x * x for x in row))
            mean = [m + x / length / templates for m, x in zip(mean, row, strict=True)]
        length = math.sqrt(sum(m * m for m in mean))
        expected.append([m / length for m in mean])

    found = classification.class_weights(rows, classes=4, templates=templates)
    assert found == pytest.approx(np.array(expected), abs=1e-12)


def test_long_prompt_vector_does_not_outweigh_the_others():
    rows = np.array([[100, 0], [0, 1]], np.float32)

    found = classification.class_weights(rows, classes=1, templates=2)
    assert found == pytest.approx(np.array([[0.5**0.5, 0.5**0.5]]))


@pytest.mark.parametrize(("rows", "templates"), [(5, 2), (4, 3), (0, 1)])
def test_embeddings_must_match_the_prompts(rows, templates):
    with pytest.raises(DataError, match=f"2 classes x {templates} templates, got an array of"):
        classification.class_weights(embeddings(rows, 3), classes=2, templates=templates)


@pytest.mark.parametrize("row", [[np.nan, 1], [np.inf, 0], [0, 0]])
def test_text_without_direction_is_an_error(row):
    rows = np.array([row, [1, 0]], np.float32)

    with pytest.raises(ModelError, match="not finite, or all zero"):
        classification.class_weights(rows, classes=2, templates=1)


def test_long_prompt_outweighs_the_others_where_the_raw_embeddings_are_averaged():
    rows = np.array([[3, 0], [0, 4], [-1, 0], [0, 1]], np.float32)

    found = classification.class_weights(rows, classes=2, templates=2, averaging="raw")
    # (3, 0) and (0, 4) have the mean (1.5, 2), of length 2.5; (-1, 0) and (0, 1) are equally long.
    assert found == pytest.approx(np.array([[0.6, 0.8], [-(0.5**0.5), 0.5**0.5]]))


def test_opposite_prompts_have_no_mean_direction():
    rows = np.array([[1, 0], [-1, 0]], np.float32)

    with pytest.raises(ModelError, match="not finite, or all zero"):
        classification.class_weights(rows, classes=1, templates=2)


@SCORINGS
def test_logits_equal_a_double_loop(scoring):
    images = embeddings(6, 5)
    weights = classification.class_weights(embeddings(4, 5, key="w"), classes=4, templates=1)

    found = classification.logits(images, weights=weights, scoring=scoring)
    for i, image in enumerate(images.astype(np.float64)):
        length = math.sqrt(sum(x * x for x in image))
        for c in range(4):
            cosine = sum(x * w for x, w in zip(image, weights[c], strict=True)) / length
            assert found[i, c] == pytest.approx(scoring.scale * cosine + scoring.bias, abs=1e-12)


def test_logits_of_a_row_are_the_same_bytes_in_any_batch():
    images, texts = embeddings(37, 128), embeddings(11, 128, key="w")
    weights = classification.class_weights(texts, classes=11, templates=1)
    together = classification.logits(images, weights=weights, scoring=SOFTMAX)

    for i in range(len(images)):
        alone = classification.logits(images[i : i + 1], weights=weights, scoring=SOFTMAX)
        assert alone.tobytes() == together[i : i + 1].tobytes()


@pytest.mark.parametrize("classes", [2, 3, 17])
def test_equal_prompts_tie_exactly_wherever_they_stand(classes):
    texts = embeddings(classes, 128, key="w")
    texts[-1] = texts[0]
    weights = classification.class_weights(texts, classes=classes, templates=1)

    found = classification.logits(embeddings(9, 128), weights=weights, scoring=SOFTMAX)
    assert (found[:, 0] == found[:, -1]).all()


def test_pictures_and_texts_share_a_space():
    weights = classification.class_weights(embeddings(3, 5), classes=3, templates=1)

    with pytest.raises(ModelError, match=r"of 5 dimensions .*shape \(2, 4\)"):
        classification.logits(embeddings(2, 4), weights=weights, scoring=SOFTMAX)


def test_picture_that_is_not_finite_is_an_error():
    images = embeddings(2, 5)
    images[1, 3] = np.nan
    weights = classification.class_weights(embeddings(3, 5), classes=3, templates=1)

    with pytest.raises(ModelError, match="not finite"):
        classification.logits(images, weights=weights, scoring=SOFTMAX)


@SCORINGS
def test_probabilities_equal_their_formula(scoring):
    values = embeddings(5, 4).astype(np.float64) * 5

    found = classification.probabilities(values, scoring=scoring)
    for i, row in enumerate(values):
        for c, value in enumerate(row):
            if scoring.activation == "softmax":
                expected = math.exp(value) / sum(math.exp(x) for x in row)
            else:
                expected = 1 / (1 + math.exp(-value))
            assert found[i, c] == pytest.approx(expected, rel=1e-12)


@SCORINGS
@pytest.mark.parametrize("size", [0.0, 800.0, 1e6])
def test_probabilities_do_not_overflow(scoring, size):
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        found = classification.probabilities(np.array([[-size, size, 0.0]]), scoring=scoring)

    assert ((found >= 0) & (found <= 1)).all()


@given(LOGITS)
def test_prediction_equals_a_loop(values):
    truths = drawn_truths(values)

    found = predicted(values, truths)
    for i, (row, truth) in enumerate(zip(values, truths, strict=True)):
        others = [x for c, x in enumerate(row) if c != truth]
        assert found.rank[i] == sum(x >= row[truth] for x in others)
        assert found.margin[i] == row[truth] - max(others)
        assert found.correct[i] == all(x < row[truth] for x in others)
        assert row[found.index[i]] == max(row)
        assert (found.index[i] == truth) == found.correct[i] == (found.rank[i] == 0)


@given(LOGITS)
def test_rank_and_scores_stay_in_bounds(values):
    found = predicted(values, drawn_truths(values))

    assert ((found.rank >= 0) & (found.rank < values.shape[1])).all()
    assert (found.score >= found.true_score).all()
    assert ((found.score > 0) & (found.score <= 1) & (found.true_score > 0)).all()


@given(LOGITS, st.sampled_from([0.125, 0.5, 2.0, 64.0]), st.sampled_from([-16.0, 0.0, 8.0]))
def test_scale_and_bias_never_change_the_answer(values, scale, bias):
    truths = drawn_truths(values)

    before, after = predicted(values, truths), predicted(values * scale + bias, truths)
    assert (before.index == after.index).all()
    assert (before.rank == after.rank).all()


@given(LOGITS, st.randoms(use_true_random=False))
def test_order_of_the_classes_does_not_matter(values, random):
    order = list(range(values.shape[1]))
    random.shuffle(order)
    truths = drawn_truths(values)
    moved = np.array([order.index(truth) for truth in truths])

    before, after = predicted(values, truths), predicted(values[:, order], moved)
    assert (before.correct == after.correct).all()
    assert (before.rank == after.rank).all()
    assert (before.margin == after.margin).all()
    assert before.true_score == pytest.approx(after.true_score)
    assert before.score == pytest.approx(after.score)


def test_tie_counts_against_the_model():
    found = predicted([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [2.0, 2.0, 2.0]], [0, 1, 1])

    assert found.index.tolist() == [1, 0, 0]
    assert found.rank.tolist() == [1, 1, 2]
    assert not found.correct.any()


def test_logits_are_left_alone():
    values = np.array([[1.0, 2.0]])
    predicted(values, [0])

    assert values.tolist() == [[1.0, 2.0]]


def test_one_class_is_no_choice():
    with pytest.raises(DataError, match="at least 2 classes to choose from, got 1"):
        predicted([[1.0]], [0])


@SCORINGS
@settings(max_examples=25)
@given(seed=st.integers(0, 1000), count=st.integers(1, 5))
def test_outcomes_rest_on_the_embeddings_as_written_by_hand(scoring, seed, count):
    images = embeddings(count, 6, key=seed)
    weights = classification.class_weights(embeddings(6, 6, key=-seed), classes=3, templates=2)
    samples = [sample(i, i % 3, decoy="DOG" if i % 2 else None) for i in range(count)]

    table = classification.logits(images, weights=weights, scoring=scoring)
    found = classification.outcomes(samples, table, classes=CLASSES, scoring=scoring)
    for i, image in enumerate(images.astype(np.float64)):
        logits = [
            scoring.scale * float(w @ (image / np.linalg.norm(image))) + scoring.bias
            for w in weights
        ]
        best = int(np.argmax(logits))
        others = [x for c, x in enumerate(logits) if c != i % 3]
        assert found.prediction[i] == CLASSES[best]
        assert found.values["correct"][i] == (best == i % 3)
        assert found.values["said_decoy"][i] == (i % 2 == 1 and best == 1)
        assert found.values["rank"][i] == sum(x > logits[i % 3] for x in others)
        assert found.values["margin"][i] == pytest.approx(logits[i % 3] - max(others), abs=1e-9)


def outcomes_of(samples, images=None, **changes):
    images = embeddings(len(samples), 4) if images is None else images
    rows = np.eye(4, dtype=np.float32)[:3]
    weights = classification.class_weights(rows, classes=3, templates=1)
    table = classification.logits(images, weights=weights, scoring=SOFTMAX)
    given_ = {"classes": CLASSES, "scoring": SOFTMAX}
    return classification.outcomes(samples, table, **given_ | changes)


def test_outcomes_keep_every_column_of_the_samples():
    found = outcomes_of([sample(1, 0, "hen"), sample(2, 1)], errors={"s3": "truncated"})

    assert found.n == 2
    assert (found.id, found.group, found.part) == (("s1", "s2"), ("g1", "g2"), ("seen", "seen"))
    assert (found.twin, found.decoy) == (("t1", "t2"), ("hen", None))
    assert found.truth == ("cat", "Dog")
    assert found.errors == {"s3": "truncated"}
    assert tuple(found.values) == TASKS["classification"].values
    assert all(
        column.dtype == np.float64 and column.shape == (2,) for column in found.values.values()
    )


def test_no_samples_give_no_rows():
    found = outcomes_of([], np.zeros((0, 4), np.float32), errors={"s1": "truncated"})

    assert found.n == 0
    assert all(column.shape == (0,) for column in found.values.values())
    assert found.errors == {"s1": "truncated"}


@pytest.mark.parametrize("label", [None, -1, 3])
def test_sample_without_a_class_of_the_card_is_an_error(label):
    with pytest.raises(DataError, match=rf"sample 's2': expected a label from 0 to 2, got {label}"):
        outcomes_of([sample(1, 0), sample(2, label)])


def test_lost_embedding_is_an_error():
    with pytest.raises(
        DataError, match=r"logits of 2 samples for 3 classes, got an array of shape \(1, 3\)"
    ):
        outcomes_of([sample(1, 0), sample(2, 1)], embeddings(1, 4))


def test_logits_over_other_classes_than_the_cards_are_an_error():
    with pytest.raises(DataError, match=r"for 2 classes, got an array of shape \(1, 3\)"):
        outcomes_of([sample(1, 0)], classes=CLASSES[:2])


def test_decoy_is_recognised_in_any_case_and_only_as_a_whole():
    found = classification.said_decoy(
        ["Hen", "hen", "hen", "straße"], ["HEN", "hens", None, "STRASSE"]
    )

    assert found.tolist() == [1, 0, 0, 1]


# --- samples that bring candidates of their own ---

TEXTS = ("cat", "Dog", "hen", "sofa", "taxi")


def among(samples, images, *, texts=TEXTS, scoring=SOFTMAX):
    rows = embeddings(len(TEXTS), images.shape[1], key="texts")
    weights = classification.class_weights(rows, classes=len(TEXTS), templates=1)
    named = dict(zip(TEXTS, weights, strict=True))
    asked = np.stack([named[text] for text in texts])
    table = classification.logits(images, weights=asked, scoring=scoring)
    return classification.outcomes_among_candidates(
        samples, table, names=texts, classes=CLASSES, scoring=scoring
    )


@SCORINGS
@settings(max_examples=25)
@given(
    chosen=st.lists(
        st.tuples(st.integers(0, 2), st.sets(st.sampled_from(TEXTS), min_size=1)).map(
            lambda pair: (pair[0], tuple(sorted({CLASSES[pair[0]], *pair[1]})))
        ),
        min_size=1,
        max_size=6,
    ).filter(lambda rows: all(len(texts) > 1 for _, texts in rows)),
    seed=st.integers(0, 99),
)
def test_a_sample_chooses_among_its_own_candidates_as_written_by_hand(scoring, chosen, seed):
    images = embeddings(len(chosen), 7, key=seed)
    samples = [
        replace(sample(i, label, decoy="SOFA"), candidates=texts)
        for i, (label, texts) in enumerate(chosen)
    ]
    vectors = embeddings(len(TEXTS), 7, key="texts").astype(np.float64)

    found = among(samples, images, scoring=scoring)

    for i, (label, texts) in enumerate(chosen):
        image = images[i] / np.linalg.norm(images[i].astype(np.float64))
        cosines = [image @ v / np.linalg.norm(v) for v in vectors[[TEXTS.index(t) for t in texts]]]
        logits = np.array([scoring.scale * c + scoring.bias for c in cosines])
        powers = np.exp(logits)
        scores = powers / (powers.sum() if scoring is SOFTMAX else 1 + powers)
        best, true = int(logits.argmax()), texts.index(CLASSES[label])
        others = np.delete(logits, true)
        assert (found.truth[i], found.prediction[i]) == (CLASSES[label], texts[best])
        told = {name: column[i] for name, column in found.values.items()}
        assert told == pytest.approx(
            {
                "correct": float(best == true),
                "said_decoy": float(texts[best] == "sofa"),
                "rank": float((others > logits[true]).sum()),
                "score": scores[best],
                "true_score": scores[true],
                "margin": logits[true] - others.max(),
                "choices": len(texts),
            }
        )


def test_scam_by_hand():
    """Object and word, each in two prompts whose embeddings are averaged before they are scaled."""
    raw = {
        "mug": [[2.0, 0.0], [0.0, 1.0]],  # mean (1, 0.5)
        "taxi": [[1.0, 0.0], [0.0, 2.0]],  # mean (0.5, 1)
    }
    rows = np.array([row for pair in raw.values() for row in pair], np.float32)
    weights = classification.class_weights(rows, classes=2, templates=2, averaging="raw")
    one = Sample("s", "g", b"", label=0, decoy="taxi", candidates=("mug", "taxi"))

    def chosen(image, averaged):
        scoring = FakeScoring(scale=100.0)
        found = classification.outcomes_among_candidates(
            [one],
            classification.logits(np.array([image], np.float32), weights=averaged, scoring=scoring),
            names=tuple(raw),
            classes=("mug", "taxi"),
            scoring=scoring,
        )
        return found.prediction[0], found.values["margin"][0], found.values["said_decoy"][0]

    length = math.sqrt(1.25)
    # (0.6, 0.8) . ((1, 0.5) - (0.5, 1)) / length, times 100
    assert chosen((3, 4), weights) == ("taxi", pytest.approx(100 * (0.3 - 0.4) / length), 1)
    assert chosen((4, 3), weights) == ("mug", pytest.approx(100 * (0.4 - 0.3) / length), 0)
    # With every prompt at length one both texts are the same direction: a tie counts as wrong.
    same = classification.class_weights(rows, classes=2, templates=2)
    assert chosen((4, 3), same) == ("taxi", pytest.approx(0), 1)


def test_all_classes_as_candidates_give_the_very_numbers_of_a_plain_dataset():
    images = embeddings(9, 128)
    weights = classification.class_weights(embeddings(3, 128, key="w"), classes=3, templates=1)
    samples = [sample(i, i % 3, decoy="hen") for i in range(9)]
    fixed = {"classes": CLASSES, "scoring": SOFTMAX}

    table = classification.logits(images, weights=weights, scoring=SOFTMAX)
    plain = classification.outcomes(samples, table, **fixed)
    found = classification.outcomes_among_candidates(
        [replace(s, candidates=CLASSES) for s in samples], table, names=CLASSES, **fixed
    )

    assert (found.prediction, found.truth) == (plain.prediction, plain.truth)
    for name, column in plain.values.items():
        assert found.values[name].tobytes() == column.tobytes(), name


def test_a_row_with_few_candidates_is_the_same_beside_one_with_many():
    few = replace(sample(1, 0), candidates=("cat", "taxi"))
    many = replace(sample(2, 1), candidates=TEXTS)
    images = embeddings(2, 33)

    alone, beside = among([few], images[:1]), among([few, many], images)

    assert beside.values["choices"].tolist() == [2, 5]
    for name, column in alone.values.items():
        assert beside.values[name][:1].tobytes() == column.tobytes(), name


def test_candidates_without_the_truth_are_an_error():
    odd = replace(sample(7, 2), candidates=("cat", "taxi"))

    with pytest.raises(DataError, match="sample 's7': its class 'hen' is not among its candidates"):
        among([odd], embeddings(1, 4))


def test_no_samples_with_candidates_give_no_rows():
    found = among([], np.zeros((0, 4), np.float32))

    assert found.n == 0
    assert all(column.shape == (0,) for column in found.values.values())


def test_lost_embedding_of_a_sample_with_candidates_is_an_error():
    with pytest.raises(
        DataError, match=r"logits of 2 samples for 5 classes, got an array of shape \(1, 5\)"
    ):
        among([replace(sample(i, 0), candidates=("cat", "hen")) for i in (1, 2)], embeddings(1, 4))

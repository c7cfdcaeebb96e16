"""Metrics of relevance maps: where they lie, against the size of that place, and whether the model
depends on what they mark.

Samples without a text box, or without a mask of the object, do not count for metrics about it.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np

from natadv.errors import MetricError
from natadv.evidence import Evidence
from natadv.metrics.measure import Metric
from natadv.metrics.paired import with_clean
from natadv.metrics.terms import Terms, difference, first, flags, fractions, ratio, shares, times
from natadv.types import DoubleArray, Outcomes


def beside_text(outcomes: Outcomes) -> DoubleArray:
    """The share of the prediction's relevance that lies outside of the text box, checked against
    the share inside; 1 without a box."""
    values = fractions(outcomes, "beside_text")
    inside, box = fractions(outcomes, "prediction_in_box"), fractions(outcomes, "box")
    wrong = ~(abs(values - (1 - inside)) <= 1e-9) | ((inside > 0) & ~(box > 0))
    if (at := first(wrong)) is not None:
        raise MetricError(
            f"sample {outcomes.id[at]!r}: {values[at]} of its relevance lies beside a text box "
            f"that covers {box[at]} and holds {inside[at]}; measure the case again"
        )
    return values


def insertion(outcomes: Outcomes) -> DoubleArray:
    """The area under the insertion curve of each sample."""
    return fractions(outcomes, "insertion")


def text_box_relevance(evidence: Evidence) -> Terms:
    """Rows of the relevance of the predicted class in the text box and of the box's share of what
    the model sees, for `times`."""
    own = evidence.attack
    return _against_area(own, 1 - beside_text(own), region="box", what="text box")


def object_relevance(evidence: Evidence) -> Terms:
    """Rows of the relevance of the true class in the object's mask and of the mask's share of what
    the model sees, for `times`."""
    own = evidence.attack
    return _against_area(own, fractions(own, "in_mask"), region="mask", what="mask of the object")


def pointing_game(evidence: Evidence) -> Terms:
    """Whether the place with most relevance for the true class lies mostly in the object's mask."""
    own = evidence.attack
    here = _covered(own, region="mask", what="mask of the object")
    hits = flags(own, "pointing")[here]
    return shares(hits, own.group.take(here), excluded=len(own.errors))


def object_relevance_drop(evidence: Evidence) -> Terms:
    """What an attack takes from the object: the share of the relevance in its mask, clean minus
    attacked, over the same pictures."""
    own = evidence.attack
    here = _covered(own, region="mask", what="mask of the object")
    pairs = with_clean(evidence, own, score=partial(fractions, name="in_mask"))
    terms, kept = pairs.drop(), here[pairs.rows]
    return replace(terms, rows=terms.rows[kept], group=terms.group.take(kept))


def area_under_curve(evidence: Evidence, *, name: str) -> Terms:
    """Rows of the area under a curve, for the mean over samples."""
    own = evidence.attack
    return shares(fractions(own, name), own.group, excluded=len(own.errors))


def _against_area(own: Outcomes, inside: DoubleArray, *, region: str, what: str) -> Terms:
    here = _covered(own, region=region, what=what)
    rows = np.stack([inside, fractions(own, region)], axis=1)[here]
    return Terms(rows, own.group.take(here), len(own.errors))


def _covered(own: Outcomes, *, region: str, what: str) -> np.ndarray:
    """The rows whose region covers a part of what the model sees. Raises MetricError if there are
    none."""
    here = fractions(own, region) > 0
    if own.n and not here.any():
        raise MetricError(f"no sample has a {what} that the model sees, so that nothing lies in it")
    return np.asarray(here)


ROWS: dict[str, Metric] = {
    "text_box_relevance": Metric(
        says="relevance of the predicted class in the text box, as a multiple of the box's share "
        "of the picture",
        terms=text_box_relevance,
        total=times,
        kind="multiple",
        higher_is_better=False,
        columns=("beside_text",),
    ),
    "object_relevance": Metric(
        says="relevance of the true class in the object's mask, as a multiple of the mask's share "
        "of the picture",
        terms=object_relevance,
        total=times,
        kind="multiple",
        higher_is_better=True,
        columns=("beside_text",),
    ),
    "object_relevance_drop": Metric(
        says="clean minus attacked share of the true class's relevance in the object's mask, over "
        "pairs",
        terms=object_relevance_drop,
        total=difference,
        kind="difference",
        higher_is_better=False,
        columns=("beside_text",),
        needs=("clean",),
    ),
    "pointing_game": Metric(
        says="share of samples whose most relevant place for the true class is mostly in the "
        "object's mask",
        terms=pointing_game,
        total=ratio,
        kind="bounded",
        higher_is_better=True,
        columns=("beside_text",),
    ),
    "insertion_auc": Metric(
        says="mean probability of the predicted class while the most relevant places are shown in "
        "a blurred picture",
        terms=partial(area_under_curve, name="insertion"),
        total=ratio,
        kind="bounded",
        higher_is_better=True,
        columns=("insertion",),
    ),
    "deletion_auc": Metric(
        says="mean probability of the predicted class while the most relevant places are blurred",
        terms=partial(area_under_curve, name="deletion"),
        total=ratio,
        kind="bounded",
        higher_is_better=False,
        columns=("deletion",),
    ),
}

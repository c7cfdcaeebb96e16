"""What a defence does to the judged half: the same pictures before and after, compared in pairs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from natadv.config import Strict
from natadv.defences.halves import Half
from natadv.defences.network import Network
from natadv.evidence import Evidence, select
from natadv.metrics import estimate
from natadv.metrics.intervals import Interval, Uncertain, bounded_ratio
from natadv.metrics.measure import FRACTIONS, drop_of
from natadv.metrics.paired import Pairs, pair, with_clean
from natadv.metrics.terms import Terms, difference
from natadv.storage.progress import Progress
from natadv.tasks.classification import logits, outcomes
from natadv.types import DoubleArray, FloatArray, Outcomes, Sample

if TYPE_CHECKING:
    from PIL.Image import Image

CONFIDENCE = 0.95
"""Of all intervals here."""

_CHANGE_OF_DROP = Interval(-2.0, 2.0)


@dataclass(frozen=True, slots=True)
class HalfAnswers:
    """What one model says about pictures of the judged half."""

    clean: Outcomes
    attacked: Outcomes
    """About what the pictures show, with words on them."""
    reading: Outcomes
    """About what is written on the same pictures."""

    @property
    def evidence(self) -> Evidence:
        """Of the attack, with the clean twins."""
        return Evidence(self.attacked, clean=self.clean)

    def of_part(self, part: str) -> HalfAnswers:
        """About the samples of `part` alone."""
        clean, attacked, reading = (
            select(rows, rows.part.equals(part))
            for rows in (self.clean, self.attacked, self.reading)
        )
        return HalfAnswers(clean, attacked, reading)


class Value(Strict):
    """A number with its interval at 95 % confidence."""

    value: float
    low: float
    high: float


class BeforeAfter(Strict):
    """A number before and after, and what changed over the same pictures."""

    before: Value
    after: Value
    change: Value
    """After minus before."""


class PartReport(Strict):
    """The judged half, or one part of it."""

    pictures: int
    clean: BeforeAfter
    """Accuracy on the pictures as they are."""
    attacked: BeforeAfter
    """Accuracy on the same pictures with a wrong word on them."""
    drop: BeforeAfter
    """Clean minus attacked accuracy: what the words take."""
    said_word: BeforeAfter
    """Share of attacked pictures that are taken for what is written on them."""
    reading: BeforeAfter
    """Accuracy at naming the word on attacked pictures, if asked for it."""


def answers_of(
    network: Network, half: Half, *, templates: tuple[str, ...], progress: Progress | None = None
) -> HalfAnswers:
    """Show the model every picture of the half, without and with a word on it; `progress` counts
    both."""
    attacked: list[Sample] = []

    def pictures() -> Iterator[Image]:
        for sample, picture in half.attacked():
            attacked.append(replace(sample, image=b""))
            yield picture

    def counted(images: Iterable[Image]) -> Iterator[Image]:
        for image in images:
            yield image
            if progress is not None:
                progress.reach(progress.done + 1)

    clean, shown = network.embed(counted(half.clean())), network.embed(counted(pictures()))
    weights = network.class_weights(half.classes, templates)
    words = network.class_weights(half.words, (half.settings.reading_template,))
    asked = [replace(s, label=half.words.index(str(s.decoy)), decoy=None) for s in attacked]
    return HalfAnswers(
        _outcomes(network, half.samples, clean, weights, classes=half.classes),
        _outcomes(network, attacked, shown, weights, classes=half.classes),
        _outcomes(network, asked, shown, words, classes=half.words),
    )


def _outcomes(
    network: Network,
    samples: Sequence[Sample],
    rows: FloatArray,
    weights: DoubleArray,
    *,
    classes: Sequence[str],
) -> Outcomes:
    scoring = network.encoder.scoring
    scores = logits(rows, weights=weights, scoring=scoring)
    return outcomes(samples, scores, classes=classes, scoring=scoring)


def compared(before: HalfAnswers, after: HalfAnswers) -> PartReport:
    """Raises MetricError if the two are not about the same pictures."""
    pairs = [with_clean(each.evidence, each.attacked) for each in (before, after)]
    return PartReport(
        pictures=before.attacked.n,
        clean=_of_shares("top1", Evidence(before.clean), Evidence(after.clean)),
        attacked=_of_shares("top1", before.evidence, after.evidence),
        drop=BeforeAfter(
            before=_value(drop_of(pairs[0].drop())),
            after=_value(drop_of(pairs[1].drop())),
            change=_value(_change_of_drop(pairs[0], pairs[1])),
        ),
        said_word=_of_shares("decoy_rate", before.evidence, after.evidence),
        reading=_of_shares("top1", Evidence(before.reading), Evidence(after.reading)),
    )


def _of_shares(metric: str, before: Evidence, after: Evidence) -> BeforeAfter:
    """Of a mean over the samples of the attack."""
    first, second = (estimate(metric, evidence) for evidence in (before, after))
    # What each sample adds to the mean, and for both in the same order.
    hits = [each.terms.rows[:, 0].astype(np.float64) for each in (first, second)]
    terms = Terms(np.stack([*reversed(hits), np.ones(len(hits[0]))], axis=1), first.terms.group)
    _check_pairs(before.attack, after.attack)
    return BeforeAfter(
        before=_value(first.found), after=_value(second.found), change=_value(drop_of(terms))
    )


def _check_pairs(before: Outcomes, after: Outcomes) -> None:
    """Raises MetricError unless every row has its counterpart, at the same place."""
    pair(before, after, names=after.id, planned=after.n)
    assert list(before.id) == list(after.id)


def _change_of_drop(before: Pairs, after: Pairs) -> Uncertain:
    rows = [each.before - each.after for each in (after, before)]
    terms = Terms(np.stack([*rows, np.ones(len(rows[0]))], axis=1), before.group)
    return bounded_ratio(
        terms, difference, ends=_CHANGE_OF_DROP, fraction=FRACTIONS.get(difference)
    )


def _value(found: Uncertain) -> Value:
    low, high = found.interval((1 - CONFIDENCE) / 2)
    return Value(value=float(found.value), low=float(low), high=float(high))

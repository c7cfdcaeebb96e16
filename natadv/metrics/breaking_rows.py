"""The metrics of how little of a picture has to be covered until it is answered wrong."""

from __future__ import annotations

from functools import partial

from natadv.metrics import breaking
from natadv.metrics.measure import Metric

ROWS: dict[str, Metric] = {
    "breaking_point": Metric(
        says="share of a picture that an overlay covers to flip it, the median over pictures",
        terms=breaking.points,
        total=partial(breaking.quantile, share=0.5),
        kind="bounded",
        higher_is_better=True,
        columns=(),
        needs=("clean",),
    ),
    "breaking_point_q10": Metric(
        says="share of a picture that an overlay covers to flip it, for the weakest tenth",
        terms=breaking.points,
        total=partial(breaking.quantile, share=0.1),
        kind="bounded",
        higher_is_better=True,
        columns=(),
        needs=("clean",),
    ),
}

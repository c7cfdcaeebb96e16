"""How much of a pool a filter keeps, over its threshold: as numbers, and as a picture."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from natadv.plots import COLOURS, GREY, blank, heading, png
from natadv.scenarios.natural import Judged, kept
from natadv.storage.atomic import write_whole

THRESHOLDS: tuple[float, ...] = tuple(step / 100 for step in range(1, 101))
EVERY = "every member"


@dataclass(frozen=True, slots=True)
class Acceptance:
    """What an ensemble made of a pool."""

    name: str
    pool: str
    pool_revision: str
    threshold: float
    members: Mapping[str, str]
    """Name -> fingerprint, in the order of `judged`."""
    judged: Judged
    set_aside: Mapping[str, str]
    """Id of a picture that could not be judged -> why."""

    @property
    def pictures(self) -> int:
        return int(self.judged.wrong.shape[1])

    def alone(self, place: int) -> Judged:
        """What the member at that place made of it."""
        return Judged(self.judged.p_true[[place]], self.judged.wrong[[place]])


def counts(found: Judged, thresholds: Sequence[float]) -> list[int]:
    """How many pictures each threshold keeps."""
    return [int(kept(found, threshold=t).sum()) for t in thresholds]


def as_json(acceptance: Acceptance) -> dict[str, Any]:
    members = {
        name: {"weights": weights, "kept": counts(acceptance.alone(place), THRESHOLDS)}
        for place, (name, weights) in enumerate(acceptance.members.items())
    }
    return {
        "dataset": acceptance.name,
        "pool": acceptance.pool,
        "pool_revision": acceptance.pool_revision,
        "threshold": acceptance.threshold,
        "pictures": acceptance.pictures,
        "kept": counts(acceptance.judged, [acceptance.threshold])[0],
        "set_aside": dict(acceptance.set_aside),
        "curve": {
            "thresholds": list(THRESHOLDS),
            "kept": counts(acceptance.judged, THRESHOLDS),
        },
        "members": members,
    }


def write_acceptance(dataset: Path, acceptance: Acceptance) -> Path:
    """`NAME.acceptance.json` and `NAME.acceptance.png` beside the dataset; the path of the PNG.

    Not inside of it: a folder of Parquet files and a picture would open as a folder of pictures.
    """
    numbers = json.dumps(as_json(acceptance), indent=1, allow_nan=False)
    write_whole(dataset.with_name(f"{dataset.name}.acceptance.json"), f"{numbers}\n".encode())
    path = dataset.with_name(f"{dataset.name}.acceptance.png")
    write_whole(path, chart(acceptance))
    return path


def chart(acceptance: Acceptance) -> bytes:
    """The accepted share against the threshold, for the ensemble and for each member, as a PNG."""
    n, threshold = acceptance.pictures, acceptance.threshold
    chosen = counts(acceptance.judged, [threshold])[0]
    figure, (axis,) = blank(f"{acceptance.name}: filtered from {acceptance.pool}")
    heading(axis, f"{chosen} of {n} pictures ({chosen / n:.1%}) kept at threshold {threshold:g}")
    for place, name in enumerate(acceptance.members):
        shares = [count / n for count in counts(acceptance.alone(place), THRESHOLDS)]
        colour = COLOURS[1 + place % (len(COLOURS) - 1)]
        axis.plot(THRESHOLDS, shares, color=colour, linewidth=1.2, label=name)
    shares = [count / n for count in counts(acceptance.judged, THRESHOLDS)]
    axis.plot(THRESHOLDS, shares, color=COLOURS[0], linewidth=2.4, label=EVERY)
    axis.axvline(threshold, color=GREY, linewidth=1, linestyle="--")
    axis.set_xlabel("threshold on p(true class)", loc="right")
    axis.set_ylabel("accepted share of the pool")
    axis.set_xlim(0, 1)
    axis.set_ylim(bottom=0)
    axis.legend(loc="best", frameon=False, fontsize=9)
    return png(figure)

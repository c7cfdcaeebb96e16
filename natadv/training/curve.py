"""How a training went: the loss and the validation metric by the step."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Point:
    """After so many steps."""

    step: int
    loss: float
    """Mean of the steps since the point before."""
    validation: float | None = None


@dataclass(slots=True)
class Curve:
    """The points so far, and the losses since the last one."""

    points: list[Point]
    summed: float = 0.0
    counted: int = 0

    def add(self, loss: float) -> None:
        self.summed += loss
        self.counted += 1

    def mark(self, step: int, validation: float | None) -> Point:
        point = Point(step, self.summed / self.counted, validation)
        self.points.append(point)
        self.summed, self.counted = 0.0, 0
        return point

    @property
    def last_validation(self) -> float | None:
        measured = [p.validation for p in self.points if p.validation is not None]
        return measured[-1] if measured else None

    def stored(self) -> dict[str, Any]:
        """As plain values; `curve_of` brings it back."""
        return asdict(self)


def curve_of(stored: dict[str, Any]) -> Curve:
    points = [Point(**point) for point in stored["points"]]
    return Curve(points, stored["summed"], stored["counted"])


def as_json(curve: Curve, *, metric: str) -> dict[str, Any]:
    """As `curve.json` has it: one entry per point, the validation under the metric's name."""
    points = [{"step": p.step, "loss": p.loss, metric: p.validation} for p in curve.points]
    return {"metric": metric, "points": points}

"""One evaluator per task. A new task is a file here and a row of `EVALUATORS`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from natadv.evaluate.evaluators.classification import ZeroShotEvaluator
from natadv.evaluate.evaluators.segmentation import finding
from natadv.evaluate.evaluators.vqa import answering
from natadv.evaluate.loaded_model import LoadedModel, Seen
from natadv.evaluate.pictures import Picture
from natadv.evaluate.shard import EvaluationShard
from natadv.evaluate.units import Unit
from natadv.types import Outcomes, Task


class Evaluator(Protocol):
    """One task, asked of one shard."""

    @property
    def layers(self) -> tuple[int, ...]:
        """Layers of the picture tower that it looks at."""
        ...

    def missing(self) -> Mapping[str, Picture]:
        """The pictures, by key, that it has to see going through the tower."""
        ...

    def see(self, seen: Seen) -> None:
        """Take what it needs of a batch, also of pictures that it did not miss."""
        ...

    def outcomes(self) -> tuple[Outcomes, Mapping[str, bytes]]:
        """A row per sample that can be answered; and masks as PNG by sample id, for people."""
        ...


EVALUATORS: dict[Task, Callable[[Unit, EvaluationShard, LoadedModel], Evaluator]] = {
    "classification": ZeroShotEvaluator,
    "segmentation": finding,
    "vqa": answering,
}

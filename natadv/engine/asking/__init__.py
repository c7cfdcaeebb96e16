"""How each task is asked of the rows of a shard. Adding a task is a file, and a row of `ASKERS`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from natadv.engine.asking.classification import Naming
from natadv.engine.asking.segmentation import finding
from natadv.engine.asking.vqa import answering
from natadv.engine.bench import Bench, Seen
from natadv.engine.pictures import Picture
from natadv.engine.shard import Shard
from natadv.engine.units import Unit
from natadv.types import Outcomes, Task


class Asker(Protocol):
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


ASKERS: dict[Task, Callable[[Unit, Shard, Bench], Asker]] = {
    "classification": Naming,
    "segmentation": finding,
    "vqa": answering,
}

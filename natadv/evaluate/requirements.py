"""What the cases of a grid need and this machine lacks: models, datasets and heads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from natadv.evaluate.grid import Grid
from natadv.models.hub.local import acceptance
from natadv.models.resolve import HEADS, heads_of_row
from natadv.models.zoo import ZOO
from natadv.tasks import TASKS
from natadv.types import WAY, Case

if TYPE_CHECKING:
    from natadv.data.status import Status

TRAINING_SETS = {"segmentation": "phrasecut-train", "vqa": "vqa-v2-train"}
"""Task -> the dataset on which the published heads were trained."""


@dataclass(frozen=True, slots=True)
class Missing:
    """One thing that cases need."""

    kind: str
    """`model`, `dataset` or `head`."""
    name: str
    """Of a head: `model/task`."""
    commands: tuple[str, ...] = ()
    """Shell lines that get it, in order; remarks begin with `#`. Models, and the heads for a task,
    are got together."""
    task: str = ""
    """Of a head."""


def missing(grid: Grid, cases: Iterable[Case]) -> list[Missing]:
    """What these cases lack: models first, then datasets, also those that they are made of and that
    missing heads are trained on, then heads, each once."""
    wanted = tuple(cases)
    heads = list(_heads(grid, wanted))
    training = {TRAINING_SETS[head.task]: None for head in heads}
    return [*_models(grid, wanted), *_datasets(grid, wanted, training), *heads]


def script(lacking: Iterable[Missing]) -> list[str]:
    """The commands for all of them, which can be pasted into a shell."""
    rows = list(lacking)
    models = [row.name for row in rows if row.kind == "model"]
    lines = [line for row in rows if row.kind == "model" for line in row.commands]
    if models:
        lines.append(f"natadv models fetch {' '.join(models)}")
    for row in rows:
        if row.kind == "dataset":
            lines += [f"# dataset {row.name}", *row.commands]
    heads: dict[str, list[str]] = {}
    for row in rows:
        if row.kind == "head":
            heads.setdefault(row.task, []).append(row.name.removesuffix(f"/{row.task}"))
    for task, of_models in heads.items():
        data, out = TRAINING_SETS[task], HEADS / "$model" / task
        lines += [
            f"# heads for {task}",
            f"for model in {' '.join(of_models)}; do",
            f"  natadv train {task} --model $model --data {data} --out {out}",
            "done",
        ]
    return lines


def _models(grid: Grid, cases: Iterable[Case]) -> Iterator[Missing]:
    names = dict.fromkeys(c.model.partition(WAY)[0] for c in cases if c.model in grid.absent)
    for name in names:
        row = ZOO.get(name)
        remarks = (f"# {acceptance(row)}",) if row is not None and row.gated else ()
        yield Missing("model", name, remarks)


def _datasets(grid: Grid, cases: Iterable[Case], training: Iterable[str]) -> Iterator[Missing]:
    names = dict.fromkeys(case.dataset for case in cases)
    twins = {d.card.twin_of for name, d in grid.datasets.items() if name in names}
    needed = (*names, *sorted(filter(None, twins)), *training)
    lacking = [name for name in needed if name not in grid.datasets]
    if not lacking:
        return
    # Imported here because most runs lack nothing.
    from natadv.data.status import statuses

    known = {status.name: status for status in statuses(grid.root)}
    wanted = (one for name in lacking for one in _with_sources(name, known))
    for name in dict.fromkeys(wanted):
        if name not in grid.datasets:
            command = known[name].command if name in known else f"dvc pull fixtures/datasets/{name}"
            yield Missing("dataset", name, tuple(command.splitlines()))


def _with_sources(name: str, known: Mapping[str, Status]) -> Iterator[str]:
    """What `name` is made of, in the order in which it can be made, and `name` itself."""
    for source in known[name].sources if name in known else ():
        yield from _with_sources(source, known)
    yield name


def _heads(grid: Grid, cases: Iterable[Case]) -> Iterator[Missing]:
    for model, task in dict.fromkeys((case.model, case.task) for case in cases):
        if model in grid.specs:
            # No head that could be trained serves a model with exemplars.
            if grid.specs[model].exemplars is not None:
                continue
            tasks, heads = grid.specs[model].tasks, grid.specs[model].heads
        elif (row := ZOO.get(model.partition(WAY)[0])) is not None:
            tasks, heads = row.tasks, heads_of_row(row.name, root=grid.root)
        else:
            continue
        able = {TASKS[known].models for known in tasks}
        if TASKS[task].models in able or task in heads or task not in TRAINING_SETS:
            continue
        name = model.partition(WAY)[0]
        # A head of a checkpoint that somebody gave lies elsewhere; its case says where.
        if name in ZOO:
            yield Missing("head", f"{name}/{task}", task=task)

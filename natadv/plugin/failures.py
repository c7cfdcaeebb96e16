"""The samples that a model got wrong, worst first, as tiles of a contact sheet."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from natadv.data.reader import decode_image, read_by_id
from natadv.errors import DataError
from natadv.evaluate.datasets import Dataset
from natadv.evaluate.pictures import shown as picture_of
from natadv.evaluate.pictures import sized, text_region
from natadv.evaluate.plan import kept_masks
from natadv.evaluate.shard import clean_twins
from natadv.evidence import CaseEvidence
from natadv.gate.comparison import predictions
from natadv.pipelines.explained_samples import prediction_at, ranked
from natadv.report.sheet import MOST_TILES, Panel, Tile
from natadv.scenarios import SCENARIOS
from natadv.tasks import TASKS
from natadv.tasks.masks import mask_of, truth_mask
from natadv.tasks.task import CORRECT, QUIET, Caption, Task
from natadv.types import Case, Outcomes

if TYPE_CHECKING:
    from natadv.plugin.session import GateSession


def failing_tiles(session: GateSession, case: Case) -> list[Tile]:
    """Up to twelve samples that failed: first those that the baseline got right, of as many
    pictures as there are, and the worst of each."""
    rows = measured_rows(session, case)
    if rows is None:
        return []
    task, before = TASKS[case.task], said_before(session, case)
    worst = _worst(task, rows, new=before)
    masks = stored_masks(session, case) if worst else {}
    return _tiles(case, rows, session.grid.datasets, shown=worst, before=before, masks=masks)


def measured_rows(session: GateSession, case: Case) -> Outcomes | None:
    """The outcomes of a case whose pictures are here; None if there are none."""
    evidence = session.evidence.get(case)
    known = case.dataset in session.grid.datasets
    return evidence.evidence.attack if evidence and known and evidence.evidence.attack.n else None


def stored_masks(session: GateSession, case: Case) -> Mapping[str, bytes]:
    """As `kept_masks`; empty for a task without regions, for which no result is read."""
    if TASKS[case.task].sheet.regions is None:
        return {}
    return kept_masks(session.units(case), store=session.store, run=session.run)


def marked_text(session: GateSession, case: Case) -> tuple[int, int] | None:
    """Of the failed samples whose mask was stored, on how many the model marked at least half of
    the text that lies beside the object, and how many these samples are; None for a task without
    regions, or pictures without overlays."""
    task, rows = TASKS[case.task], measured_rows(session, case)
    if rows is None or task.sheet.regions is None:
        return None
    masks = stored_masks(session, case)
    failed = {name for name, bad in zip(rows.id, task.failed(rows), strict=True) if bad}
    dataset = session.grid.datasets[case.dataset]
    samples = read_by_id(dataset.folder, dataset.card, failed & masks.keys())
    twins = clean_twins(samples, session.grid.datasets.get(dataset.card.twin_of or ""))
    marked = []
    for sample in samples:
        text = text_region(sample)
        if text is None:
            continue
        beside = text & ~truth_mask(sized(sample, twins) if dataset.card.drawn else sample)
        if beside.any():
            found = mask_of(masks[sample.id], where=f"sample {sample.id!r}: the predicted mask")
            marked.append(bool(found[beside].mean() >= 0.5))
    return (sum(marked), len(marked)) if marked else None


def newly_failing_tiles(
    case: Case, found: CaseEvidence, datasets: Mapping[str, Dataset], *, before: Mapping[str, str]
) -> list[Tile]:
    """Up to twelve of the samples in `before`, which holds what was said of each when it did not
    fail, of as many pictures as there are, and the worst of each.

    Raises DataError if the dataset is not here as it was measured.
    """
    dataset = datasets.get(case.dataset)
    revision = dataset.card.revision if dataset else "absent"
    if revision != found.data_revision:
        raise DataError(
            f"{case.dataset}: the pictures that were measured are of revision "
            f"{found.data_revision[:12]}, here it is {revision[:12]}; run dvc pull"
        )
    rows = found.evidence.attack
    worst = _worst(TASKS[case.task], rows, new=before)
    shown = [i for i in worst if rows.id[i] in before]
    return _tiles(case, rows, datasets, shown=shown, before=before, masks={})


def _tiles(
    case: Case,
    rows: Outcomes,
    datasets: Mapping[str, Dataset],
    *,
    shown: Sequence[int],
    before: Mapping[str, str],
    masks: Mapping[str, bytes],
) -> list[Tile]:
    """The rows at these places, clean beside attacked."""
    task, dataset = TASKS[case.task], datasets[case.dataset]
    ids = {rows.id[i] for i in shown}
    samples = {s.id: s for s in read_by_id(dataset.folder, dataset.card, ids)}
    # The twin of a reading sample is the same picture, which nobody has to see twice.
    twin_of = dataset.card.twin_of if SCENARIOS[case.scenario].attacks else None
    twins = clean_twins(samples.values(), datasets.get(twin_of or ""))
    if dataset.card.drawn:
        samples = {name: sized(sample, twins) for name, sample in samples.items()}
    tiles = []
    for i in shown:
        sample = samples[rows.id[i]]
        prediction = prediction_at(task, rows, i, masks.get(sample.id))
        attacked = picture_of(sample, twins, drawn=dataset.card.drawn).open()
        panels = [Panel(attacked, task.sheet.outlines(sample, prediction))]
        if twin := twins.get(sample.twin or ""):
            panels.insert(0, Panel(decode_image(twin.image, where=twin.id)))
        captions = list(task.sheet.failure(sample, rows.truth[i], prediction))
        if sample.id in before:
            captions.append(Caption(f"before: {before[sample.id]}", CORRECT))
        if sample.decoy is not None:
            captions.append(Caption(f"word: {sample.decoy}"))
        tiles.append(Tile(tuple(panels), (*captions, Caption(sample.id, QUIET))))
    return tiles


def said_before(session: GateSession, case: Case) -> dict[str, str]:
    """What the baseline said of the samples that it alone got right; empty without one."""
    compared, other = session.comparison(case), session.counterparts.get(case)
    if compared is None or compared.comparison is None or other is None:
        return {}
    return predictions(case, other.evidence.attack, compared.comparison.new_flips)


def _worst(task: Task, rows: Outcomes, *, new: Container[str]) -> list[int]:
    """The rows that the sheet shows, in order."""
    failed = np.flatnonzero(task.failed(rows)).tolist()
    quality = rows.values[task.sheet.failures_by]
    in_order = ranked(
        rows, failed, first=lambda i: (rows.id[i] not in new,), by=lambda i: float(quality[i])
    )
    return in_order[:MOST_TILES]

"""The samples that a model got wrong, worst first, as tiles of a contact sheet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Mapping, Sequence
from typing import TYPE_CHECKING

from natadv.data.reader import decode_image, read_by_id
from natadv.errors import DataError
from natadv.evaluate.datasets import Dataset
from natadv.evaluate.pictures import shown as picture_of
from natadv.evaluate.pictures import sized
from natadv.evaluate.plan import kept_masks
from natadv.evaluate.shard import clean_twins
from natadv.evidence import CaseEvidence
from natadv.gate.comparison import predictions
from natadv.report.sheet import MOST_TILES, Panel, Tile
from natadv.scenarios import SCENARIOS
from natadv.tasks import TASKS
from natadv.tasks.task import (
    CORRECT,
    PREDICTED_REGION,
    QUIET,
    TRUE_REGION,
    Caption,
    Outline,
    Prediction,
    TaskSheet,
)
from natadv.types import Case, Outcomes, Sample

if TYPE_CHECKING:
    from natadv.plugin.session import GateSession


def failing_tiles(session: GateSession, case: Case) -> list[Tile]:
    """Up to twelve samples that failed: first those that the baseline got right, of as many
    pictures as there are, and the worst of each."""
    evidence = session.evidence.get(case)
    known = case.dataset in session.grid.datasets
    if evidence is None or not known or not evidence.evidence.attack.n:
        return []
    sheet, rows, before = TASKS[case.task].sheet, evidence.evidence.attack, _before(session, case)
    worst = _worst(sheet, rows, new=before)
    # Only for tasks that predict masks: decoding reads every result.
    masks = (
        kept_masks(session.units(case), store=session.store, run=session.run)
        if sheet.regions and worst
        else {}
    )
    return _tiles(case, rows, session.grid.datasets, shown=worst, before=before, masks=masks)


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
    worst = _worst(TASKS[case.task].sheet, rows, new=before)
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
    sheet, dataset = TASKS[case.task].sheet, datasets[case.dataset]
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
        prediction = Prediction(
            text=rows.prediction[i],
            correct=False,
            values={name: float(column[i]) for name, column in rows.values.items()},
            mask=masks.get(sample.id),
        )
        attacked = picture_of(sample, twins, drawn=dataset.card.drawn).open()
        panels = [Panel(attacked, _outlines(sheet, sample, prediction))]
        if twin := twins.get(sample.twin or ""):
            panels.insert(0, Panel(decode_image(twin.image, where=twin.id)))
        captions = list(sheet.failure(sample, rows.truth[i], prediction))
        if sample.id in before:
            captions.append(Caption(f"before: {before[sample.id]}", CORRECT))
        if sample.decoy is not None:
            captions.append(Caption(f"word: {sample.decoy}"))
        tiles.append(Tile(tuple(panels), (*captions, Caption(sample.id, QUIET))))
    return tiles


def _before(session: GateSession, case: Case) -> dict[str, str]:
    """What the baseline said of the samples that it alone got right; empty without one."""
    compared, other = session.comparison(case), session.counterparts.get(case)
    if compared is None or compared.comparison is None or other is None:
        return {}
    return predictions(case, other.evidence.attack, compared.comparison.new_flips)


def _worst(sheet: TaskSheet, rows: Outcomes, *, new: Container[str]) -> list[int]:
    """The rows that the sheet shows, in order."""
    value, bound = sheet.failed_below
    failed = [i for i in range(rows.n) if rows.values[value][i] < bound]
    quality = rows.values[sheet.failures_by]
    seen: Counter[str] = Counter()
    ranks = {}
    for i in sorted(failed, key=lambda i: (float(quality[i]), rows.id[i])):
        # How many worse ones show the same picture.
        ranks[i] = (rows.id[i] not in new, seen[rows.group[i]])
        seen[rows.group[i]] += 1
    # Sorting is stable: within a rank the worst stays first.
    return sorted(ranks, key=ranks.__getitem__)[:MOST_TILES]


def _outlines(sheet: TaskSheet, sample: Sample, prediction: Prediction) -> tuple[Outline, ...]:
    """The true region's line is wider, so that it stays visible where both follow one edge."""
    if sheet.regions is None:
        return ()
    regions = sheet.regions(sample, prediction)
    true = Outline(regions.true, TRUE_REGION, width_px=3)
    if regions.predicted is None:
        return (true,)
    return true, Outline(regions.predicted, PREDICTED_REGION, width_px=2)

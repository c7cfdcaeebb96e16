"""The pictures that a case got wrong, worst first, ready for a contact sheet."""

from __future__ import annotations

from natadv.data.reader import decode_image, read_by_id
from natadv.engine.datasets import Dataset
from natadv.plugin.session import GateSession
from natadv.report.sheet import MOST_TILES, Tile
from natadv.types import Case, Outcomes, Sample


def failing_tiles(session: GateSession, case: Case) -> list[Tile]:
    """Up to twelve samples with the most negative margins."""
    evidence = session.evidence.get(case)
    dataset = session.grid.datasets.get(case.dataset)
    if evidence is None or dataset is None or not evidence.evidence.attack.n:
        return []
    rows = evidence.evidence.attack
    worst = _worst(rows)
    samples = _samples(dataset, {rows.id[i] for i in worst})
    clean = _clean_samples(session, dataset, samples)
    return [_tile(rows, i, samples[rows.id[i]], clean) for i in worst]


def _worst(rows: Outcomes) -> list[int]:
    wrong = [i for i in range(rows.n) if rows.values["correct"][i] < 1]
    return sorted(wrong, key=lambda i: (rows.values["margin"][i], rows.id[i]))[:MOST_TILES]


def _samples(dataset: Dataset, ids: set[str]) -> dict[str, Sample]:
    return {s.id: s for s in read_by_id(dataset.folder, dataset.card, ids)}


def _clean_samples(
    session: GateSession, dataset: Dataset, samples: dict[str, Sample]
) -> dict[str, Sample]:
    twin_of = session.grid.datasets.get(dataset.card.twin_of or "")
    wanted = {s.twin for s in samples.values() if s.twin}
    return _samples(twin_of, wanted) if twin_of is not None and wanted else {}


def _tile(rows: Outcomes, i: int, sample: Sample, clean: dict[str, Sample]) -> Tile:
    twin = clean.get(sample.twin or "")
    return Tile(
        id=sample.id,
        clean=decode_image(twin.image, where=twin.id) if twin else None,
        attacked=decode_image(sample.image, where=sample.id),
        truth=rows.truth[i],
        prediction=rows.prediction[i],
        score=float(rows.values["score"][i]),
        decoy=rows.decoy[i],
    )

"""Says why a case failed: its failures by cause, and where the model looked for wrong answers.

All of it comes after the verdict, which nothing here can change.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import allure

from natadv.bundle.entries import failure_causes
from natadv.errors import InfraError, counted
from natadv.factories import one_line
from natadv.plugin.artifacts import maps_of
from natadv.report.gate_json import causes_in_words
from natadv.storage.atomic import replace_file
from natadv.tasks import TASKS
from natadv.types import Case

if TYPE_CHECKING:
    from natadv.evaluate.loaded_model import LoadedModel
    from natadv.evaluate.units import Unit
    from natadv.plugin.session import GateSession

CAUSES, MARKED = "failures by cause", "marked text"
MAPS, NO_MAPS = "relevance maps", "relevance maps: not shown"

EXPLAINING = "explaining"
"""Event of a run: a process begins to explain a case, which its death must not prevent again."""


def attach(session: GateSession, case: Case, *, folder: Path) -> None:
    """Attach what explains a case that is not green, and write its maps into `folder`. Whatever
    goes wrong becomes a line of the report."""
    with _reported_as(CAUSES):
        for line in cause_lines(session, case):
            allure.attach(line, CAUSES, allure.attachment_type.TEXT)
    with _reported_as(MARKED):
        for line in _marked_text_lines(session, case):
            allure.attach(line, MARKED, allure.attachment_type.TEXT)
    if not session.explain or not TASKS[case.task].explained:
        return
    with _reported_as(NO_MAPS):
        png = _triptychs(session, case)
        if png is not None:
            allure.attach(png, MAPS, allure.attachment_type.PNG)
            replace_file(maps_of(folder, case), png, remedy="give another --sheets DIR")


@contextmanager
def _reported_as(name: str) -> Iterator[None]:
    """Turn any exception into an attachment of this name."""
    try:
        yield
    except KeyboardInterrupt:
        raise
    # A model may run any code, and no verdict depends on what it says here: neither on sys.exit()
    # nor on the exceptions by which pytest skips a test or ends a run.
    except BaseException as error:
        allure.attach(one_line(error), name, allure.attachment_type.TEXT)


def cause_lines(session: GateSession, case: Case) -> list[str]:
    """The failures of a case by cause; empty if it has none, or they are not counted."""
    found = session.evidence.get(case)
    causes = None if found is None else failure_causes(found)
    return [] if causes is None else [f"{case}: {causes_in_words(causes)}"]


def _marked_text_lines(session: GateSession, case: Case) -> list[str]:
    """On how many of the worst samples a segmenter marked the text: no others have a stored
    mask, and outcomes do not say it."""
    if TASKS[case.task].sheet.regions is None:
        return []
    # Imported here because green cases need neither Parquet nor pictures.
    from natadv.plugin.failures import marked_text

    found = marked_text(session, case)
    if found is None:
        return []
    return [f"marked the text on {found[0]} of the {counted(found[1], 'sample')} with a kept mask"]


def _triptychs(session: GateSession, case: Case) -> bytes | None:
    """Maps of the most confident new mistakes; None if the case has no mistakes."""
    # Imported here because green cases need neither Parquet nor pictures.
    from natadv.pipelines.explained_samples import (
        Explainer,
        explained_samples,
        most_confident,
        triptych,
    )
    from natadv.plugin.failures import measured_rows, said_before, stored_masks
    from natadv.report.triptych import triptych_sheet

    rows = measured_rows(session, case)
    if rows is None:
        return None
    before = said_before(session, case)
    evidence, most = session.evidence[case].evidence, session.explain
    places = most_confident(case.task, rows, clean=evidence.clean, new=before, most=most)
    if not places:
        return None
    loaded, unit = _loaded(session, case)
    dataset = session.grid.datasets[case.dataset]
    clean = session.grid.datasets.get(dataset.card.twin_of or "")
    found = explained_samples(
        Explainer(unit, dataset, clean, loaded),
        rows,
        places,
        masks=stored_masks(session, case),
        before=before,
    )
    return triptych_sheet([triptych(one, case.task) for one in found], title=case.address)


def _loaded(session: GateSession, case: Case) -> tuple[LoadedModel, Unit]:
    """The model that answered, and a unit of the case."""
    runner, units = session.runner, session.units(case).attack
    if runner is None or not units:
        raise InfraError(f"{case}: nothing was measured in this process")
    _begin(session, case)
    if not runner.hold_slot(slots=session.gpu_slots):
        raise InfraError(
            f"{case}: other processes hold {counted(session.gpu_slots, 'slot')} of GPU "
            f"{runner.gpu}; run with fewer workers (-n) or more --gpu-slots"
        )
    return runner.loaded(units[0]), units[0]


def _begin(session: GateSession, case: Case) -> None:
    """Record that the case is being explained. Raises InfraError if that was begun before: its test
    is repeated only where the process that ran it died."""
    run, began = session.run, {"kind": EXPLAINING, "case": case.address}
    if any(began.items() <= event.items() for event in run.events()):
        raise InfraError(f"{case}: a process died while it explained the case, so none does again")
    run.tell(EXPLAINING, case=case.address)

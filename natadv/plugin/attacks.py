"""Reports the searches of the cases: in Allure, in the terminal, and as files."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import allure

from natadv.errors import DataError
from natadv.plugin.session import GateSession
from natadv.types import Case

if TYPE_CHECKING:
    from natadv.search.result import SearchResult


class CaseSearch(NamedTuple):
    """A search beside a case, signed by this run."""

    case: Case
    result: SearchResult

    @property
    def title(self) -> str:
        """The class, and how the search started."""
        return self.result.subject + (", by climbing" if self.result.discover else "")


def searches(session: GateSession, cases: Iterable[Case]) -> Iterator[CaseSearch]:
    """The finished searches beside `cases`, in order."""
    for case in cases:
        for result in session.searches(case):
            yield CaseSearch(case, result.with_attack(run=session.run.id))


def attach(session: GateSession, case: Case) -> None:
    """Attach each attack to the Allure report in words, as a picture, and as a file to replay."""
    for search in searches(session, [case]):
        result, title = search.result, f"smallest attack on {search.title}"
        allure.attach(result.in_words, title, allure.attachment_type.TEXT)
        if result.attack is not None:
            # Imported here because most runs have no searches, and need no fonts to be judged.
            from natadv.search.contact_sheet import sheet_of

            text = json.dumps(result.attack.as_json(), indent=1)
            allure.attach(text, f"{title}, to replay", allure.attachment_type.JSON)
            sheet = sheet_of(result, session.grid.datasets[result.attack.dataset])
            allure.attach(sheet, title, allure.attachment_type.PNG)


def empty_attacks(folder: Path) -> None:
    """Remove the attack files of an earlier run, and no other files. Raises DataError."""
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder}: is not a folder; remove it, or give another --attacks DIR")
    for kind in ("json", "png"):
        for path in folder.glob(f"*__typographic__*.{kind}"):
            try:
                path.unlink(missing_ok=True)  # another gate may be at it too
            except OSError as error:
                why = error.strerror or error
                raise DataError(
                    f"{path}: an earlier run left it, and it cannot be removed: {why}; remove it, "
                    "or give another --attacks DIR"
                ) from error


def write_attacks(session: GateSession, folder: Path, *, root: Path) -> list[str]:
    """Write a file and a sheet for each attack. Returns the lines for the terminal, with paths
    relative to `root`."""
    lines, commands = [], []
    for case, result in searches(session, session.selected):
        lines.append(f"{case}: {result.in_words}")
        if result.attack is not None:
            from natadv.search.contact_sheet import file_stem, save_attack

            path = folder / f"{file_stem(case.file_stem, result)}.json"
            save_attack(path, result, session.grid.datasets[result.attack.dataset])
            shown = path.relative_to(root) if root in path.parents else path
            commands.append(f"natadv replay {shown} --model {case.model}")
    return ["smallest attacks", *lines, *commands[:1]] if lines else []

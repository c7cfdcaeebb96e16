"""The small attacks that were searched for beside the cases, for Allure, people, and as files."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import allure

from natadv.engine.hunts import file_part, told
from natadv.errors import DataError
from natadv.plugin.session import GateSession
from natadv.storage.atomic import write_whole
from natadv.types import Case

if TYPE_CHECKING:
    from natadv.scenarios.typographic.attack import Attack


class Search(NamedTuple):
    """One search that has ended."""

    case: Case
    subject: str
    """The class whose pictures were attacked, and how, if not from the population."""
    name: str
    """Of the files that are about it."""
    line: str
    """What it found, in words."""
    attack: Attack | None
    shown: Sequence[Mapping[str, Any]] = ()
    """What the model said of the pictures of the attack."""


def searches(session: GateSession, cases: Iterable[Case]) -> Iterator[Search]:
    """Of those beside `cases`, in order."""
    for case in cases:
        for caught in session.caught(case):
            # Here, for most runs have no searches, and need no fonts to be judged.
            from natadv.scenarios.typographic.attack import attack_from

            kind = "__discovered" if caught["discover"] else ""
            subject = caught["subject"] + (", by climbing" if kind else "")
            name = f"{case.address.replace('/', '__')}__{file_part(caught['subject'])}{kind}"
            attack = None if caught["attack"] is None else attack_from(caught["attack"])
            found = None if attack is None else replace(attack, run=session.run.id)
            yield Search(case, subject, name, told(caught), found, caught.get("shown", ()))


def attach(session: GateSession, case: Case) -> None:
    """Tell Allure in words, as a picture, and as the file that can be replayed."""
    for search in searches(session, [case]):
        title = f"smallest attack on {search.subject}"
        allure.attach(search.line, title, allure.attachment_type.TEXT)
        if search.attack is not None:
            from natadv.scenarios.typographic.attack import attack_json

            text = json.dumps(attack_json(search.attack), indent=1)
            allure.attach(text, f"{title}, to replay", allure.attachment_type.JSON)
            sheet = _sheet(session, search.attack, search.shown)
            allure.attach(sheet, title, allure.attachment_type.PNG)


def _sheet(session: GateSession, attack: Attack, shown: Sequence[Mapping[str, Any]]) -> bytes:
    from natadv.engine.pictured import attack_sheet
    from natadv.engine.shown import shown_from

    dataset = session.grid.datasets[attack.dataset]
    return attack_sheet(attack, shown_from(shown, attack, dataset))


def empty_attacks(folder: Path) -> None:
    """Remove what an earlier run left, and nothing else. Raises DataError."""
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder}: is no folder; remove it, or give another --attacks DIR")
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
    """Write a file and a sheet for each attack that was found; in lines what there is to tell
    people, who are in `root`."""
    lines, commands = [], []
    for search in searches(session, session.selected):
        lines.append(f"{search.case}: {search.line}")
        if search.attack is not None:
            from natadv.scenarios.typographic.attack import write_attack

            path = folder / f"{search.name}.json"
            write_attack(path, search.attack)
            write_whole(path.with_suffix(".png"), _sheet(session, search.attack, search.shown))
            shown = path.relative_to(root) if root in path.parents else path
            commands.append(f"natadv replay {shown} --model {search.case.model}")
    return ["smallest attacks", *lines, *commands[:1]] if lines else []

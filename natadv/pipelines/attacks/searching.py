"""The search that a gate would run, for whoever wants one attack on one class now."""

from __future__ import annotations

import glob
import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Event, Thread
from typing import Any, TextIO

from natadv.engine.fill import Fill
from natadv.engine.hunting import hunt_of
from natadv.engine.hunts import caught, file_part, hunt_units, told
from natadv.engine.pictured import attack_sheet
from natadv.engine.run import Run
from natadv.engine.shown import shown_from
from natadv.engine.store import Store
from natadv.engine.trial import MOST_LOOKED_AT
from natadv.engine.units import Unit
from natadv.engine.workbench import Workbench, drain_with_slot
from natadv.errors import InfraError, unknown_name
from natadv.files import write_whole
from natadv.gate.rules import SearchProfile
from natadv.pipelines.attacks.asking import Asked, asked, opened_run, workbench
from natadv.pipelines.drawing import ground_named
from natadv.pipelines.members import Arithmetic, one_model
from natadv.progress import Progress
from natadv.scenarios.typographic.attack import Attack, attack_from, write_attack
from natadv.types import Task

_EVERY_S = 0.2


@dataclass(frozen=True, slots=True)
class SearchPlan:
    """On which model, from which population, on pictures of which class."""

    model: str
    profile: SearchProfile
    """With one subject: a class by its name."""
    data: str
    out: Path
    store: Path
    task: Task = "classification"
    root: Path = Path()
    arithmetic: Arithmetic = field(default_factory=Arithmetic)
    stream: TextIO = field(default_factory=lambda: sys.stderr)

    @property
    def subject(self) -> str:
        return self.profile.subjects[0]


@dataclass(frozen=True, slots=True)
class Searched:
    """What came of a search."""

    caught: Mapping[str, Any]
    """As the store holds it."""
    attack: Attack | None
    file: Path | None
    sheet: Path | None

    @property
    def in_words(self) -> str:
        """The attack, or why there is none."""
        why = told(self.caught)
        if self.attack is not None or not self.caught["pictures"]:
            return why
        return f"{why}; take a smaller --at-least, or another population"


def search(plan: SearchPlan) -> Searched:
    """Search, or find in the store what was searched already, and write the attack and its sheet.

    A search that was killed begins again; one that ended is not done twice, so that a kill before
    its files are written loses nothing.

    Raises:
        NatadvError: Names mean nothing, the model cannot do the task, or its code fails.
    """
    who, unit = _unit(plan)
    store = Store(plan.store)
    run = opened_run(store)
    bench = workbench(who, store, run)
    came = _caught(unit, store=store, run=run, bench=bench, stream=plan.stream)
    if came["attack"] is None:
        return Searched(came, None, None, None)
    attack = replace(attack_from(came["attack"]), run=run.id)
    file = plan.out / _file_name(attack, discovered=came["discover"])
    write_attack(file, attack)
    sheet = file.with_suffix(".png")
    write_whole(sheet, attack_sheet(attack, shown_from(came["shown"], attack, who.dataset)))
    return Searched(came, attack, file, sheet)


def _unit(plan: SearchPlan) -> tuple[Asked, Unit]:
    """Checked as far as it can be before a model is loaded."""
    dataset = ground_named(plan.data, plan.root)
    classes = dataset.card.classes
    if plan.subject not in classes:
        raise unknown_name(f"class of {dataset.name}", plan.subject, classes)
    spec = one_model(plan.model, root=plan.root, wanted="to attack")
    who = asked(plan.task, spec, dataset, arithmetic=plan.arithmetic, store=plan.store)
    profile = replace(plan.profile, subjects=(glob.escape(plan.subject),))
    # The last one climbs, if that is asked for.
    unit = hunt_units(who.unit, profile, dataset, root=plan.root)[-1]
    hunt_of(json.loads(unit.hunt))
    return who, unit


def _caught(
    unit: Unit, *, store: Store, run: Run, bench: Workbench, stream: TextIO
) -> Mapping[str, Any]:
    fill = Fill(store, run, bench.compute)
    if store.has(unit.key):
        print("searched already: what came of it lies in the store", file=stream)
    else:
        with _watched(unit, bench, stream):
            drain_with_slot(fill, [unit], device=unit.numerics.device, slots=1)
    found = caught([unit], store)
    if not found:
        reason = run.error(unit.key) or "; ".join(fill.problems)
        raise InfraError(f"{unit.title}: {reason or 'it was not computed; start it again'}")
    return found[0]


@contextmanager
def _watched(unit: Unit, bench: Workbench, stream: TextIO) -> Iterator[None]:
    """Says what is done, and how far it is, from a thread: a search is one piece of work."""
    asked = json.loads(unit.hunt)
    overlays = asked["draws"] + asked["evaluations"]
    # Of each its box alone may be looked at too, and what is found once more.
    most = (2 * (overlays + 1) + MOST_LOOKED_AT) * unit.stop
    print(
        f"{unit.title}: {asked['draws']} overlays on {unit.stop} pictures, then up to "
        f"{asked['evaluations']} smaller ones; at most {most} pictures go through the model, what "
        "it has seen before costs nothing",
        file=stream,
    )
    progress = Progress(asked["subject"], most, unit="pictures", stream=stream)
    over = Event()

    def follow() -> None:
        while not over.wait(_EVERY_S):
            if bench.encoded:  # the model is loaded
                progress.reach(min(bench.encoded, most - 1))

    thread = Thread(target=follow, name="natadv-search", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        progress.say(f"{asked['subject']}: {bench.encoded} pictures went through the model")


def _file_name(attack: Attack, *, discovered: bool) -> str:
    parts = (attack.task, attack.dataset, attack.model, file_part(attack.subject))
    return "__".join(parts) + ("__discovered" if discovered else "") + ".json"

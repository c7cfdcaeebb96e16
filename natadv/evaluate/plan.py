"""From a case to its units, and from the results of the units to the evidence of the case."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from natadv.errors import ModelError, NatadvError, StoreError
from natadv.evaluate.datasets import Dataset, undrawable
from natadv.evaluate.grid import Grid
from natadv.evaluate.outcomes_json import outcomes_of
from natadv.evaluate.run import Run
from natadv.evaluate.store import Store
from natadv.evaluate.units import Numerics, Unit, prompts_digest, shards
from natadv.evidence import CaseEvidence, Evidence
from natadv.gate.cases import CasePlan
from natadv.heads import head_file
from natadv.models.hub.local import LOCK
from natadv.models.loading import fingerprint
from natadv.models.plugged import check_classes
from natadv.models.resolve import HEAD_TASKS, HEADS, heads_beside
from natadv.models.zoo import ZOO
from natadv.scenarios import SCENARIOS
from natadv.storage.hashes import sha256_of
from natadv.storage.trained_folder import CONFIG
from natadv.tasks import TASKS, analysed
from natadv.types import WAY, Case, ModelSpec, Outcomes, Variant


@dataclass(frozen=True, slots=True)
class CaseUnits:
    """The units of a case, by the role of their rows."""

    attack: tuple[Unit, ...] = ()
    clean: tuple[Unit, ...] = ()
    occlusion: tuple[Unit, ...] = ()
    matched: tuple[Unit, ...] = ()
    searches: tuple[Unit, ...] = ()
    """Searches for small attacks: the case is incomplete without them; they decide no verdict."""
    problem: str = ""
    """Why the case cannot be measured; empty if it can."""

    def all(self) -> tuple[Unit, ...]:
        """All units, the longest first, so that none of them is left at the end."""
        return self.searches + self.clean + self.attack + self.occlusion + self.matched

    def roles(self) -> dict[str, tuple[Unit, ...]]:
        """Role -> the units whose rows play it."""
        return {
            "attack": self.attack,
            "clean": self.clean,
            "occlusion": self.occlusion,
            "matched": self.matched,
        }


def units_of(case: Case, grid: Grid, *, numerics: Numerics) -> CaseUnits:
    """The units of `case` without its searches. A missing dataset or an unreadable model becomes
    the problem of this case, so that other cases go on."""
    if case.model in grid.absent:
        return CaseUnits(problem=grid.absent[case.model])
    dataset = grid.datasets.get(case.dataset)
    if dataset is None:
        return CaseUnits(problem=_missing(case.dataset))
    card = dataset.card
    if analysed(case.task) not in card.tasks or case.scenario != card.scenario:
        return CaseUnits(
            problem=f"the tier asks for {case.task}/{case.scenario}, the card of {dataset.name!r} "
            f"says {'+'.join(card.tasks)}/{card.scenario}; change the tier"
        )
    spec = grid.specs[case.model]
    try:
        weights = fingerprint(spec)
        head = head_of(case, spec, weights=weights)
        if analysed(case.task) == "classification":
            check_classes(spec, card.classes)
    except NatadvError as error:
        return CaseUnits(problem=str(error))
    clean = grid.datasets.get(str(card.twin_of))
    if card.twin_of is not None and clean is None:
        return CaseUnits(problem=_missing(card.twin_of))
    if problem := undrawable(dataset, clean):
        return CaseUnits(problem=problem)
    numerics = numerics.of(spec)
    by_role: dict[str, Any] = {}
    for shown in shown_rows(case, grid):
        units = dataset_units(
            case,
            grid.datasets[shown.dataset],
            variant=shown.variant,
            weights=weights,
            rows=shown.rows,
            numerics=numerics,
        )
        by_role[shown.role] = tuple(replace(unit, head=head) for unit in units)
    return CaseUnits(**by_role)


class ShownRows(NamedTuple):
    """The first `rows` of a dataset, which play a role in a case."""

    role: str
    """A field of CaseUnits."""
    dataset: str
    variant: Variant
    rows: int


def shown_rows(case: Case, grid: Grid) -> list[ShownRows]:
    """The rows that a case shows to its model; its dataset and that of its twins must be here."""
    card = grid.datasets[case.dataset].card
    rows = grid.rows(case.dataset)
    shown = [ShownRows("attack", case.dataset, "attack", rows)]
    if card.twin_of is not None:
        # Drawn rows may use any picture of the clean dataset, also under a limit.
        all_rows = grid.datasets[card.twin_of].card.rows
        clean_rows = all_rows if card.drawn else grid.rows(card.twin_of)
        shown.append(ShownRows("clean", card.twin_of, "attack", clean_rows))
        attacks = SCENARIOS[case.scenario].attacks
        if attacks and card.overlays and TASKS[case.task].controls:
            shown += [
                ShownRows("occlusion", case.dataset, "occlusion", rows),
                ShownRows("matched", case.dataset, "matched", rows),
            ]
    return shown


def head_of(case: Case, spec: ModelSpec, *, weights: str) -> str:
    """Fingerprint of the head for `case`; empty if the model does the task by itself.

    Raises:
        ModelError: The model cannot do the task and has no head for it, or one of another tower.
    """
    if TASKS[case.task].analyses in spec.tasks:
        return ""
    # A task that asks the same of a model as one that the model can do is one that it can do.
    if TASKS[case.task].models in {TASKS[task].models for task in spec.tasks}:
        return ""
    if TASKS[case.task].analyses:
        raise ModelError(
            f"{spec.name} cannot do {case.task}, which analyses {analysed(case.task)}: the model "
            f"can do {', '.join(spec.tasks)} alone; name another model"
        )
    if spec.exemplars is not None:
        plain = spec.name.partition(WAY)[0]
        raise ModelError(
            f"{spec.name} cannot do {case.task}: exemplars are for questions alone; ask {plain}"
        )
    able = ", ".join(sorted({*spec.tasks, *spec.heads})) or "nothing"
    if case.task not in HEAD_TASKS:
        raise ModelError(
            f"{spec.name} cannot do {case.task}: it can do {able}, and no head does {case.task}; "
            "leave it out with --task, or name another model"
        )
    train = _training(case.task, spec)
    if case.task not in spec.heads:
        raise ModelError(
            f"{spec.name} cannot do {case.task}: it can do {able} and has no head for it; train "
            f"one ({train}), or leave it out with --task"
        )
    folder = spec.heads[case.task]
    described = head_file.read_head_file(folder)
    if described.task != case.task or described.tower != weights:
        raise ModelError(
            f"{folder}: this head is for {described.task} on the model with hash "
            f"{described.tower[:12]}, {spec.name} has {weights[:12]}; train one for it ({train}), "
            "or leave it out with --task"
        )
    locked = spec.locked_heads.get(case.task)
    if locked and (actual := sha256_of(folder / CONFIG)) != locked:
        raise ModelError(
            f"{folder}: sha256 of its {CONFIG} is {actual[:12]}, {LOCK} says "
            f"{locked[:12]}; fetch the head again (natadv heads fetch), or remove its repository "
            f"from {LOCK}"
        )
    return head_file.fingerprint(folder)


def _training(task: str, spec: ModelSpec) -> str:
    """The command that trains a head where the next run finds it."""
    model, out = str(spec.folder), str(heads_beside(spec.folder) / task)
    if spec.name in ZOO:
        model, out = spec.name, str(HEADS / spec.name / task)
    elif spec.factory:
        model, out = spec.factory, "DIR"
    return f"natadv train {task} --model {model} --data NAME --out {out}"


def _missing(name: str) -> str:
    folder = f"fixtures/datasets/{name}"
    return f"dataset {name!r} is not at {folder}; natadv data status says how to get it"


def dataset_units(
    case: Case,
    dataset: Dataset,
    *,
    variant: Variant,
    weights: str,
    rows: int,
    numerics: Numerics,
) -> tuple[Unit, ...]:
    """Units for the first `rows` of `dataset`, with the task and the model of `case`."""
    card = dataset.card
    prompts = prompts_digest(card.classes, card.templates)
    return tuple(
        Unit(
            task=case.task,
            dataset=dataset.name,
            revision=card.revision,
            prompts=prompts,
            variant=variant,
            start=start,
            stop=stop,
            model=case.model,
            weights=weights,
            protocol=TASKS[case.task].protocol,
            numerics=numerics,
        )
        for start, stop in shards(rows)
    )


def unique_units(plans: Iterable[CaseUnits]) -> list[Unit]:
    """Each unit once, in the order of the first case that needs it."""
    units = {u.key: u for plan in plans for u in plan.all()}
    return list(units.values())


def case_plan(case: Case, units: CaseUnits, *, grid: Grid, rows: int) -> CasePlan:
    """What `case` needs in order to pass: `rows` samples of one revision, by the same weights."""
    dataset = grid.datasets.get(case.dataset)
    first = units.attack[0] if units.attack else None
    return CasePlan(
        case=case,
        lineage=grid.lineages[case.model],
        planned_n=rows,
        data_revision=dataset.card.revision if dataset else "",
        weights=first.answers_with if first else "",
        protocol=first.protocol if first else "",
    )


def case_evidence(
    case: Case, units: CaseUnits, *, store: Store, run: Run, notes: Iterable[str] = ()
) -> CaseEvidence:
    """The evidence of `case` in the store; its problems name what is missing, with `notes` that
    may explain it."""
    problems: list[str] = [units.problem] if units.problem else []
    tables: dict[str, Outcomes | None] = {}
    measured: list[Mapping[str, Any]] = []
    hardware: dict[str, Mapping[str, str]] = {}
    problems += _results(units.searches, store=store, run=run)[1]
    for role, of_role in units.roles().items():
        results, missing = _results(of_role, store=store, run=run)
        problems += missing
        hardware |= {str(found): found for r in results if (found := r.get("hardware"))}
        try:
            tables[role] = outcomes_of(results) if of_role and not missing else None
        except StoreError as error:
            tables[role] = None
            problems.append(str(error))
        measured += results if role == "attack" else []
    attack = tables.pop("attack")
    problems += notes if problems else ()
    return CaseEvidence(
        case=case,
        evidence=Evidence(attack=attack or outcomes_of([]), **tables),
        data_revision=_agreed(measured, "revision"),
        weights=_agreed(measured, "weights"),
        tower=_agreed(measured, "tower"),
        protocol=_agreed(measured, "protocol"),
        smaller_batches=_smaller_batches((*units.attack, *units.occlusion, *units.matched), run),
        hardware=tuple(found for _, found in sorted(hardware.items())),
        problems=tuple(dict.fromkeys(problems)),
    )


def kept_masks(units: CaseUnits, *, store: Store, run: Run) -> dict[str, bytes]:
    """Sample id -> PNG of the predicted mask, of the picture's size, 255 inside.

    Only for the worst samples of each unit that has a result.
    """
    results = (store.get(run.result_key(unit)) for unit in units.attack)
    return {
        name: base64.b64decode(png)
        for result in results
        if result is not None
        for name, png in result.get("masks", {}).items()
    }


def _smaller_batches(units: Iterable[Unit], run: Run) -> tuple[int, ...]:
    sizes = (run.smaller_batch(unit.key) for unit in units)
    return tuple(sorted({size for size in sizes if size is not None}))


def _agreed(results: Iterable[Mapping[str, Any]], name: str) -> str:
    """The value that all results share; several are joined by `and`, which fits no plan."""
    return " and ".join(sorted({result[name] for result in results}))


def _results(
    units: Iterable[Unit], *, store: Store, run: Run
) -> tuple[list[Mapping[str, Any]], list[str]]:
    results: list[Mapping[str, Any]] = []
    problems: list[str] = []
    for unit in units:
        key = run.result_key(unit)
        try:
            result = store.get(key)
        except StoreError as error:
            problems.append(str(error))
            continue
        if result is not None:
            results.append(result)
        elif store.is_damaged(key):
            problems.append(
                f"{store.path(key)}: was altered after it was written; run again to compute it anew"
            )
        else:
            # Many units may share one reason, which is reported once.
            problems.append(run.error(unit.key) or "some of its units were not measured")
    return results, problems

"""One pytest process's view of a gate run: its grid, its units, its verdicts."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from natadv.bundle.entries import baseline_reason, contract_name, overall_of
from natadv.errors import ConfigError, DataError, GateFailure, InfraError, listed
from natadv.evaluate.code import numerics_here
from natadv.evaluate.devices import batch_size_for, device_kind, own_gpu
from natadv.evaluate.grid import Grid, make_grid
from natadv.evaluate.plan import CaseUnits, case_evidence, case_plan, unique_units, units_of
from natadv.evaluate.run import Run, new_run_id
from natadv.evaluate.store import Store
from natadv.evaluate.units import Numerics, Unit
from natadv.evaluate.worker import Worker, is_settled
from natadv.evidence import CaseEvidence, Selection, SequenceRecord, StoredCase
from natadv.gate.assess import Assessment, RunConditions, assess
from natadv.gate.baseline import (
    BaselineJudgement,
    BaselineVerdict,
    absences,
    counterparts,
    judge_against_baseline,
)
from natadv.gate.cases import CasePlan, mismatches, unreadable
from natadv.gate.contract import contract_digest
from natadv.gate.early_verdicts import can_decide, levels_of
from natadv.gate.judge import GateVerdict, judge_all, worst
from natadv.gate.kept_baselines import baseline_for
from natadv.gate.rules import Rule, RuleIndex, Waiver, rules_for
from natadv.gate.thresholds_file import load_thresholds
from natadv.gate.waivers import today_utc
from natadv.places import STORE
from natadv.plugin import options
from natadv.plugin.gate_files import root_of
from natadv.report.gate_json import RunVerdict
from natadv.search.profile import with_searches
from natadv.types import Case, Verdict

if TYPE_CHECKING:
    from natadv.evaluate.model_runner import ModelRunner
    from natadv.evaluate.sequence import CaseSequence, State
    from natadv.search.result import SearchResult


@dataclass(frozen=True)
class GateSession:
    """What this process measures and how, and the results of the selected cases."""

    grid: Grid
    contract: str
    """Hash of the thresholds file that the grid was made from."""
    contract_file: str
    """Path of that file from the root of the repository, or its name if it lies elsewhere."""
    store: Store
    run: Run
    numerics: Numerics
    today: date = field(default_factory=today_utc)
    """The day of the run (UTC), by which waivers are judged."""
    asserting: bool = True
    sequential: bool = False
    """Whether cases are evaluated in a random order, and only until they are decided."""
    gpu_slots: int = 1
    unit_timeout_s: float = 0.0
    rotation: int = 0
    """Number of the worker, which decides the unit that it begins with."""
    parent: int = 0
    """Process id of the controller that a worker serves; 0 outside of workers."""
    baseline: Mapping[Case, StoredCase] | None = None
    selected: tuple[Case, ...] = ()
    """The cases that were collected and not deselected."""
    worker_problems: tuple[str, ...] = ()
    """What kept a process from measuring; it is reported only where results are missing."""
    explain: int = 0
    """Failing samples of each case that get relevance maps."""
    runner: ModelRunner | None = None
    """What computed the units in this process, with the model that it loaded last."""
    _units: dict[Case, CaseUnits] = field(default_factory=dict)
    _sequences: dict[Case, CaseSequence | None] = field(default_factory=dict)

    def select(self, cases: Iterable[Case], *, worker_problems: Iterable[str] = ()) -> GateSession:
        """The session of these cases, with nothing judged yet."""
        selected = tuple(dict.fromkeys(cases))
        # When a sequence ends depends on the number of rules that are judged beside it.
        return replace(
            self, selected=selected, worker_problems=tuple(worker_problems), _sequences={}
        )

    def units(self, case: Case) -> CaseUnits:
        """The units that `case` rests on, and of the searches beside it."""
        sequence = self.sequence(case)
        return self._all_units(case) if sequence is None else sequence.units

    def _all_units(self, case: Case) -> CaseUnits:
        if case not in self._units:
            rows = units_of(case, self.grid, numerics=self.numerics)
            self._units[case] = with_searches(rows, case, self.grid)
        return self._units[case]

    def sequence(self, case: Case) -> CaseSequence | None:
        """The blocks of `case`, and after which of them it was decided; None if the case is
        evaluated as a whole, because it cannot be decided early."""
        if not self.sequential or case not in self.selected:
            return None
        if case not in self._sequences:
            self._sequences[case] = self._new_sequence(case)
        sequence = self._sequences[case]
        if sequence is not None and sequence.stop is None:
            sequence.advance(
                settled=partial(is_settled, store=self.store, run=self.run),
                look=partial(self._look, case),
            )
        return sequence

    def _new_sequence(self, case: Case) -> CaseSequence | None:
        # Imported here because it reads Parquet.
        from natadv.evaluate.sequence import case_sequence

        units, rules = self._all_units(case), self._rules(case)
        if units.problem or not rules or not all(map(can_decide, rules)):
            return None
        datasets, rows = self.grid.datasets, self.grid.rows(case.dataset)
        dataset = datasets[case.dataset]
        if dataset.card.drawn:
            # Pictures and overlays are crossed: no samples of it are independent of the others.
            return None
        clean = datasets.get(str(dataset.card.twin_of))
        try:
            return case_sequence(units, dataset, clean, rows=rows)
        except DataError:
            # Its units report why it cannot be read.
            return None

    def _rules(self, case: Case) -> tuple[Rule, ...]:
        return rules_for(case, self.grid.lineages[case.model], self._rule_index)

    @cached_property
    def _rule_index(self) -> RuleIndex:
        return RuleIndex(self.grid.thresholds.rules)

    def _look(self, case: Case, units: CaseUnits, record: SequenceRecord) -> State:
        """`decided` if nothing more has to be known about `case`: all rules are decided, or it
        cannot be measured."""
        found = self._found(case, units, record)
        if found.problems:
            return "decided"
        assessed = self._assessed(case, found)
        if any(a.measurement is not None and a.decision is None for a in assessed):
            return "open"
        return "unclear" if any(a.reasons for a in assessed) else "decided"

    def _assessed(self, case: Case, found: CaseEvidence) -> list[Assessment]:
        plan, rules = self.plan(case), self._rules(case)
        reasons = mismatches(plan, found)
        return list(assess(plan, rules, found, reasons=reasons, conditions=self._conditions))

    @cached_property
    def _conditions(self) -> RunConditions:
        confidence = self.grid.thresholds.confidence
        # Cases are looked at again and again, and the rules of all of them take a while to count.
        rules = sum(len(self._rules(case)) for case in self.selected)
        levels = levels_of(confidence, rules=rules)
        return RunConditions(confidence, self.grid.tier.max_excluded, levels)

    def compute(self) -> GateSession:
        """Compute until every unit of the selected cases has a result or an error. Returns the
        session that knows what went wrong in this process."""
        # Imported here because judging and collecting need neither Parquet nor pictures.
        from natadv.evaluate.model_runner import ModelRunner, drain_with_gpu_slot
        from natadv.search.compute_search import compute_with

        # As the tier lists them, whatever the order of the tests.
        cases = [case for case in self.grid.cases if case in self.selected]
        units, needed = self._wanted(cases)
        self.run.prepare()
        gpu = own_gpu(self.numerics.device, gpus_per_model=self.numerics.gpus_per_model)
        runner = ModelRunner(self.store, self.grid.datasets, self.grid.specs, run=self.run, gpu=gpu)
        worker = Worker(
            self.store,
            self.run,
            compute_with(runner),
            needed=needed,
            unit_timeout_s=self.unit_timeout_s,
            rotation=self.rotation,
            parent=self.parent,
            gpu=gpu,
        )
        runner.slot = drain_with_gpu_slot(
            worker, units, device=self.numerics.device, slots=self.gpu_slots
        )
        found = self.select(self.selected, worker_problems=worker.problems)
        return replace(found, runner=runner if self.explain else None)

    def _wanted(self, cases: Iterable[Case]) -> tuple[list[Unit], Callable[[Unit], bool]]:
        """The units of these cases, and whether one of them is still needed."""
        from natadv.evaluate.sequence import in_turn

        sequences = {case: found for case in cases if (found := self.sequence(case))}
        whole = [self.units(case) for case in cases if case not in sequences]
        whole += [CaseUnits(searches=sequence.searches) for sequence in sequences.values()]
        always = {unit.key for units in whole for unit in units.all()}
        owners: dict[str, list[Case]] = {}
        for case, sequence in sequences.items():
            for unit in in_turn([sequence]):
                owners.setdefault(unit.key, []).append(case)

        def needed(unit: Unit) -> bool:
            """Whether a case still waits for it."""
            owning = map(self.sequence, owners.get(unit.key, ()))
            return unit.key in always or any(s is not None and s.needs(unit) for s in owning)

        blocks = CaseUnits(attack=tuple(in_turn(list(sequences.values()))))
        return unique_units([*whole, blocks]), needed

    def plan(self, case: Case) -> CasePlan:
        """What the evidence of `case` must consist of."""
        rows = self.grid.planned_rows if self.asserting else self.grid.rows
        return case_plan(case, self._all_units(case), grid=self.grid, rows=rows(case.dataset))

    @cached_property
    def evidence(self) -> dict[Case, CaseEvidence]:
        """What the store holds for the selected cases; read once, after they were computed."""
        return {case: self.evidence_of(case) for case in self.selected}

    def evidence_of(self, case: Case) -> CaseEvidence:
        """What the store holds for any case, e.g. the twins of a selected one."""
        sequence = self.sequence(case)
        if sequence is None:
            units = self.units(case)
            if case not in self.selected:
                # Nobody asked for the twins and controls of twins.
                units = CaseUnits(attack=units.attack, problem=units.problem)
            return self._found(case, units, None)
        found = self._found(case, sequence.units, sequence.record)
        decided = tuple(filter(None, (a.decided for a in self._assessed(case, found))))
        return replace(found, sequence=replace(sequence.record, decisions=decided))

    def _found(self, case: Case, units: CaseUnits, record: SequenceRecord | None) -> CaseEvidence:
        notes = self.worker_problems
        found = case_evidence(case, units, store=self.store, run=self.run, notes=notes)
        return replace(found, sequence=record)

    def searches(self, case: Case) -> list[SearchResult]:
        """The results of the searches beside `case` that have ended."""
        units = self.units(case).searches
        if not units:
            return []
        # Imported here because it loads the fonts, and most runs have no searches.
        from natadv.search.result import stored_results

        return stored_results(units, store=self.store, run=self.run)

    @property
    def root(self) -> Path:
        """The folder that this run reads and writes under."""
        return self.grid.root

    @property
    def selection(self) -> Selection:
        """What was judged, for a later judgement of the same evidence."""
        tier, lineages = self.grid.tier, self.grid.lineages
        whole = set(self.selected) == set(tier.grid_of(lineages))
        return Selection(tier.name, tuple(lineages), tuple(sorted(self.selected)), whole)

    @property
    def limited(self) -> tuple[str, ...]:
        """That fewer samples were asked for than the tier has, if so: rows alone do not tell."""
        rows, planned = self.grid.rows, self.grid.planned_rows
        cut = sorted({c.dataset for c in self.selected if rows(c.dataset) < planned(c.dataset)})
        limit = self.grid.limit
        return (f"INCOMPLETE: --limit {limit} left samples of {listed(cut)} out",) if cut else ()

    @property
    def whole_tier(self) -> bool:
        """True if the selected cases are exactly those of the tier."""
        return set(self.selected) == set(self.grid.tier.grid)

    @cached_property
    def verdict(self) -> GateVerdict:
        """The rules, applied to the selected cases."""
        return judge_all(
            [self.plan(case) for case in self.selected],
            self.evidence,
            thresholds=self.grid.thresholds,
            tier=self.grid.tier.name,
            models=tuple(self.grid.lineages),
            selected=self.selected,
            baseline=None if self.baseline is None else self.counterparts,
            today=self.today,
        )

    @cached_property
    def against_baseline(self) -> BaselineVerdict | None:
        """The selected cases compared with the baseline; None if no baseline was given."""
        if self.baseline is None:
            return None
        return judge_against_baseline(
            self.selected,
            candidate=self.evidence,
            baseline=self.counterparts,
            absent=absences(self._lineages, self.baseline),
            max_excluded=self.grid.tier.max_excluded,
            confidence=self.grid.thresholds.confidence,
        )

    def comparable(self, cases: Iterable[Case]) -> list[Case]:
        """Those of the cases that the baseline has too; none without a baseline."""
        if self.baseline is None:
            return []
        lineages = {case: self.grid.lineages[case.model] for case in cases}
        absent = absences(lineages, self.baseline)
        return [case for case in lineages if case not in absent]

    @cached_property
    def counterparts(self) -> dict[Case, CaseEvidence]:
        """Selected case -> what the baseline has to compare it with; empty without a baseline."""
        return counterparts(self._lineages, self.baseline or {})

    @property
    def _lineages(self) -> dict[Case, str]:
        return {case: self.grid.lineages[case.model] for case in self.selected}

    def shortfalls(self, case: Case) -> tuple[str, ...]:
        """Why `case` was not measured as planned, whatever the rules say."""
        evidence = self.evidence[case]
        return (
            *mismatches(self.plan(case), evidence),
            *unreadable(evidence, self.grid.tier.max_excluded),
        )

    def comparison(self, case: Case) -> BaselineJudgement | None:
        """`case` against the baseline: FAIL if it is worse, INCOMPLETE if it could not be compared.
        None if no baseline was given."""
        judgements = self.against_baseline.cases if self.against_baseline else ()
        return next((j for j in judgements if j.case == case), None)

    def waiver(self, case: Case) -> Waiver | None:
        """What excuses `case`; a loss against the baseline is never waived."""
        compared = self.comparison(case)
        if not self.asserting or (compared is not None and compared.verdict != "PASS"):
            return None
        return self.verdict.of(case).waiver

    def case_verdict(self, case: Case) -> Verdict | None:
        """The worse one of what its rules and the baseline say, where rules are asserted; None if
        neither has to say anything."""
        of_rules, compared = self.verdict.of(case).verdict, self.comparison(case)
        of_baseline = None if compared is None or compared.state == "NEW" else compared.verdict
        said = [verdict for verdict in (of_rules, of_baseline) if verdict is not None]
        return worst(said) if said else None

    def is_green(self, case: Case) -> bool:
        """True if `case` was measured as planned and, where rules are asserted, holds those that it
        has or is waived, and is no worse than the baseline."""
        if not self.asserting:
            return not self.shortfalls(case)
        return self.case_verdict(case) in ("PASS", None) or self.waiver(case) is not None

    def is_no_worse(self, case: Case) -> bool:
        """True if `case` could be compared with the baseline, and did not get worse."""
        compared = self.comparison(case)
        return compared is not None and compared.verdict == "PASS"

    def raise_if_worse(self, case: Case) -> None:
        """Whatever its rules say.

        Raises:
            InfraError: The case could not be compared with the baseline.
            GateFailure: The baseline was better.
        """
        compared = self.comparison(case)
        if compared is None or compared.verdict == "INCOMPLETE":
            raise InfraError(compared.reason if compared else f"{case}: there is no baseline")
        if compared.verdict != "PASS":
            raise GateFailure(baseline_reason(compared))

    def raise_unless_green(self, case: Case) -> None:
        """The one place where a verdict becomes an exception.

        Raises:
            InfraError: The case was not measured as planned.
            GateFailure: A rule does not hold, too few samples can tell, or the baseline was better.
        """
        if self.is_green(case):
            return
        if not self.asserting:
            raise InfraError("\n".join(f"{case}: {why}" for why in self.shortfalls(case)))
        lines, compared = self.verdict.of(case).lines, self.comparison(case)
        if compared is not None and compared.verdict != "PASS":
            lines = (baseline_reason(compared), *lines)
        text = "\n".join(lines)
        raise InfraError(text) if self.case_verdict(case) == "INCOMPLETE" else GateFailure(text)

    def overall(self) -> RunVerdict:
        """pass, waived, fail, inconclusive or incomplete; measured where nothing was asserted."""
        if not self.asserting:
            return "measured" if all(map(self.is_green, self.selected)) else "incomplete"
        return overall_of(self.verdict, self.against_baseline)


HOW = ("dtype", "batch_size", "threads", "gpus_per_model")
"""Options that are part of what is measured."""


def _how(option: Callable[[str], Any], *, device: str) -> dict[str, Any]:
    how = {name: option(f"natadv_{name}") for name in HOW}
    return how | {"batch_size": batch_size_for(device, how["batch_size"])}


def measuring_session(grid: Grid, *, device: str) -> GateSession:
    """The session of `pytest --no-assert` with its default options, for a command that is not run
    by pytest: both compute the same rows under the same keys."""
    store = Store(grid.root / STORE)
    store.prepare()
    how = _how(options.default_of, device=device)
    return GateSession(
        grid=grid,
        contract="",
        contract_file="",
        store=store,
        run=Run(store, new_run_id()),
        numerics=numerics_here(store.root, device=device, **how),
        asserting=False,
    )


def make_session(config: pytest.Config, *, computing: bool) -> GateSession:
    """The session that the options describe; one that computes nothing needs no keys of units.

    Raises:
        ConfigError: An option, a name or the thresholds file is wrong.
    """
    option = config.getoption
    contract = options.contract_of(config)
    # Now, and not when the verdict is written: by then it may be another file.
    digest = contract_digest(contract)
    asserting = not option("natadv_no_assert")
    worker = getattr(config, "workerinput", {})
    today = date.fromisoformat(worker["natadv_today"]) if worker else today_utc()
    thresholds = load_thresholds(contract, asserting=asserting, today=today)
    if contract_digest(contract) != digest:
        raise ConfigError(f"{contract}: it or a file that it includes was just written; run again")
    store = Store(options.path_option(config, "store"))
    number = str(worker.get("workerid", "gw0")).removeprefix("gw")
    sequential = option("natadv_sequential")
    if sequential and not asserting:
        raise ConfigError(
            "--sequential ends a case when its rules are decided, --no-assert applies none; leave "
            "one of them out"
        )
    device = device_kind(option("natadv_device"))
    how = _how(option, device=device)
    return GateSession(
        grid=make_grid(options.request(config), thresholds),
        contract=digest,
        contract_file=contract_name(contract, root_of(config)),
        store=store,
        run=Run(store, worker.get("natadv_run") or new_run_id()),
        numerics=numerics_here(store.root, device=device, **how)
        if computing
        else Numerics(device, **how),
        today=today,
        asserting=asserting,
        sequential=sequential,
        gpu_slots=option("natadv_gpu_slots"),
        # In one process a unit that hangs would end the whole run: leave that to the user.
        unit_timeout_s=option("natadv_unit_timeout") if worker else 0.0,
        rotation=int(number) if number.isdigit() else 0,
        parent=os.getppid() if worker else 0,
        baseline=_baseline(config, asserting=asserting, sequential=sequential),
        explain=option("natadv_explain"),
    )


def _baseline(
    config: pytest.Config, *, asserting: bool, sequential: bool
) -> Mapping[Case, StoredCase] | None:
    """What --baseline names; None if it was not given. Raises ConfigError."""
    given = config.getoption("natadv_baseline")
    if given == "none":
        return None
    if not asserting:
        raise ConfigError(
            "--baseline asks for a judgement, --no-assert for none; leave one of them out"
        )
    if sequential:
        raise ConfigError(
            "--baseline compares all samples, --sequential leaves some out; leave one of them out"
        )
    evidence = options.path_option(config, "evidence")
    here, root = config.invocation_params.dir, root_of(config)
    return baseline_for(evidence, given, here=here, root=root)

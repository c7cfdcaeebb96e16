"""One pytest process's view of a gate run: its grid, its units, its verdicts."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

import pytest

from natadv.errors import ConfigError, GateFailure, InfraError
from natadv.evaluate.code import numerics_here
from natadv.evaluate.devices import device_kind
from natadv.evaluate.grid import Grid, make_grid
from natadv.evaluate.plan import CaseUnits, case_evidence, case_plan, unique_units, units_of
from natadv.evaluate.run import Run
from natadv.evaluate.store import Store
from natadv.evaluate.units import Numerics
from natadv.evaluate.worker import Worker
from natadv.evidence import CaseEvidence, Selection, StoredCase
from natadv.gate.baseline import (
    BaselineJudgement,
    BaselineVerdict,
    judge_against_baseline,
    refuse_same,
)
from natadv.gate.cases import CasePlan, mismatches, stored_cases, stored_evidence, unreadable
from natadv.gate.contract import contract_digest
from natadv.gate.judge import GateVerdict, judge_all
from natadv.gate.rules import load_thresholds
from natadv.plugin import options
from natadv.search.profile import with_searches
from natadv.types import Case

if TYPE_CHECKING:
    from natadv.search.result import SearchResult


@dataclass(frozen=True)
class GateSession:
    """What the hooks delegate to."""

    grid: Grid
    contract: str
    """Hash of the thresholds file that the grid was made from."""
    store: Store
    run: Run
    numerics: Numerics
    asserting: bool = True
    gpu_slots: int = 1
    unit_timeout_s: float = 0.0
    rotation: int = 0
    parent: int = 0
    """The controller that a worker serves; 0 outside of workers."""
    baseline: Mapping[Case, StoredCase] | None = None
    selected: tuple[Case, ...] = ()
    """The cases that were collected and not deselected."""
    notes: tuple[str, ...] = ()
    """What kept a process from measuring; it matters only where something is missing."""
    _units: dict[Case, CaseUnits] = field(default_factory=dict)

    def of(self, selected: Iterable[Case], *, notes: Iterable[str] = ()) -> GateSession:
        """The session of these cases, with nothing judged yet."""
        return replace(self, selected=tuple(dict.fromkeys(selected)), notes=tuple(notes))

    def units(self, case: Case) -> CaseUnits:
        if case not in self._units:
            rows = units_of(case, self.grid, numerics=self.numerics)
            self._units[case] = with_searches(rows, case, self.grid)
        return self._units[case]

    def compute_units(self) -> tuple[str, ...]:
        """Return when every unit of the selected cases has a result or an error; what went wrong
        with this process."""
        # Only here: judging and collecting need no Parquet and no pictures.
        from natadv.evaluate.model_runner import ModelRunner, drain_with_gpu_slot
        from natadv.search.worker import compute_with

        # As the tier lists them, whatever the order of the tests.
        first = [case for case in self.grid.cases if case in self.selected]
        units = unique_units(self.units(case) for case in first)
        self.run.prepare()
        runner = ModelRunner(self.store, self.grid.datasets, self.grid.specs, run=self.run)
        worker = Worker(
            self.store,
            self.run,
            compute_with(runner),
            unit_timeout_s=self.unit_timeout_s,
            rotation=self.rotation,
            parent=self.parent,
        )
        drain_with_gpu_slot(worker, units, device=self.numerics.device, slots=self.gpu_slots)
        return tuple(worker.problems)

    def plan(self, case: Case) -> CasePlan:
        rows = self.grid.planned_rows if self.asserting else self.grid.rows
        return case_plan(case, self.units(case), grid=self.grid, rows=rows(case.dataset))

    @cached_property
    def evidence(self) -> dict[Case, CaseEvidence]:
        """What the store holds for the selected cases; read once, when they are computed."""
        return {case: self.evidence_of(case) for case in self.selected}

    def evidence_of(self, case: Case) -> CaseEvidence:
        """What the store holds for any case, e.g. the clean twins of a selected one."""
        units = self.units(case)
        return case_evidence(case, units, store=self.store, run=self.run, notes=self.notes)

    def searches(self, case: Case) -> list[SearchResult]:
        """Of the searches beside `case` that have ended."""
        units = self.units(case).searches
        if not units:
            return []
        # Imported here because it loads the fonts, which most runs do not need to be judged.
        from natadv.search.result import stored_results

        return stored_results(units, self.store)

    @property
    def selection(self) -> Selection:
        """What was judged, for whoever judges it again."""
        models = tuple(self.grid.specs)
        whole = set(self.selected) == set(self.grid.tier.grid_of(models))
        return Selection(self.grid.tier.name, models, tuple(sorted(self.selected)), whole)

    @property
    def whole_tier(self) -> bool:
        """True if the selected cases are those of the tier, no more and no less."""
        return set(self.selected) == set(self.grid.tier.grid)

    @cached_property
    def verdict(self) -> GateVerdict:
        return judge_all(
            [self.plan(case) for case in self.selected],
            self.evidence,
            thresholds=self.grid.thresholds,
            tier=self.grid.tier.name,
            models=tuple(self.grid.specs),
            selected=self.selected,
        )

    @cached_property
    def against_baseline(self) -> BaselineVerdict | None:
        if self.baseline is None:
            return None
        before = {case: self._in_baseline(case) for case in self.selected}
        return judge_against_baseline(
            self.selected,
            candidate=self.evidence,
            baseline={case: found for case, found in before.items() if found is not None},
            max_excluded=self.grid.tier.max_excluded,
        )

    def _in_baseline(self, case: Case) -> CaseEvidence | None:
        """The baseline's evidence of the same model, or of the row that it descends from."""
        stored = self.baseline or {}
        for model in (case.model, self.grid.specs[case.model].lineage):
            own = replace(case, model=model)
            if own in stored:
                return replace(stored_evidence(own, stored), case=case)
        return None

    def shortfalls(self, case: Case) -> tuple[str, ...]:
        """Why `case` was not measured as planned, whatever the rules say."""
        found = self.evidence[case]
        return (
            *mismatches(self.plan(case), found),
            *unreadable(found, self.grid.tier.max_excluded),
        )

    def regression(self, case: Case) -> BaselineJudgement | None:
        """That `case` is worse than the baseline (FAIL), or could not be compared (INCOMPLETE)."""
        judged = self.against_baseline.cases if self.against_baseline else ()
        return next((j for j in judged if j.case == case and j.verdict != "PASS"), None)

    def is_green(self, case: Case) -> bool:
        if not self.asserting:
            return not self.shortfalls(case)
        return self.verdict.of(case).verdict == "PASS" and self.regression(case) is None

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
        found, worse = self.verdict.of(case), self.regression(case)
        lines = (*([told(worse)] if worse else []), *found.lines)
        # What the rules say goes before the baseline.
        verdict = worse.verdict if worse and found.verdict == "PASS" else found.verdict
        text = "\n".join(lines)
        raise InfraError(text) if verdict == "INCOMPLETE" else GateFailure(text)

    def overall(self) -> str:
        """pass, fail, inconclusive or incomplete; measured where nothing was asserted."""
        if not self.asserting:
            missing = any(self.shortfalls(case) for case in self.selected)
            return "incomplete" if missing else "measured"
        before = self.against_baseline
        if self.verdict.green and before is not None and not before.green:
            return before.overall
        return self.verdict.overall


def told(worse: BaselineJudgement) -> str:
    """The judgement as a report says it."""
    return f"REGRESSION {worse.reason}" if worse.verdict == "FAIL" else worse.reason


def make_session(config: pytest.Config, *, computing: bool) -> GateSession:
    """The session that the options describe; one that computes nothing needs no keys of units.

    Raises:
        ConfigError: An option, a name or the thresholds file is wrong.
    """
    option = config.getoption
    contract = options.path_option(config, "thresholds", "thresholds.yaml")
    # Now, and not when the verdict is written: by then it may be another file.
    digest = contract_digest(contract)
    thresholds = load_thresholds(contract, asserting=not option("natadv_no_assert"))
    store = Store(options.path_option(config, "store", ".natadv/store"))
    worker = getattr(config, "workerinput", {})
    number = str(worker.get("workerid", "gw0")).removeprefix("gw")
    how = {name: option(f"natadv_{name}") for name in ("dtype", "batch_size", "threads")}
    device = device_kind(option("natadv_device"))
    return GateSession(
        grid=make_grid(options.request(config), thresholds),
        contract=digest,
        store=store,
        run=Run(store, worker.get("natadv_run") or f"{os.getpid()}-{uuid.uuid4().hex[:8]}"),
        numerics=numerics_here(store.root, device=device, **how)
        if computing
        else Numerics(device, **how),
        asserting=not option("natadv_no_assert"),
        gpu_slots=option("natadv_gpu_slots"),
        # In one process a hung unit would take the whole run down: leave it to the user.
        unit_timeout_s=option("natadv_unit_timeout") if worker else 0.0,
        rotation=int(number) if number.isdigit() else 0,
        parent=os.getppid() if worker else 0,
        baseline=_baseline(config),
    )


def _baseline(config: pytest.Config) -> Mapping[Case, StoredCase] | None:
    given = config.getoption("natadv_baseline")
    if given == "none":
        return None
    folder = config.invocation_params.dir / given
    refuse_same(options.path_option(config, "evidence", options.EVIDENCE), folder)
    stored, broken = stored_cases(folder)
    if broken:
        raise ConfigError("the baseline cannot be read: " + "; ".join(broken.values()))
    if not stored:
        raise ConfigError(
            f"{folder}: holds no case to compare with; give the folder that an earlier run wrote "
            "with --evidence DIR"
        )
    return stored

"""The process that answers for the run: nothing is green unless every gate reported and holds."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Generator, Iterable, Mapping, Sequence
from functools import cached_property, partial
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from natadv import __version__
from natadv.bundle.entries import extent_for, waiver_use_entries
from natadv.errors import NatadvError, counted, listed
from natadv.evaluate.devices import CUDA
from natadv.evaluate.quarantine import Quarantine
from natadv.evaluate.store import prove_writable, write_atomically
from natadv.evidence import empty_evidence
from natadv.gate.waivers import WaiverUse
from natadv.git import commit_of
from natadv.plugin import options
from natadv.plugin.artifacts import (
    case_entry,
    empty_sheets,
    hardware_of,
    numerics_json,
    sheet_of,
    write_all_evidence,
)
from natadv.plugin.attacks import empty_attacks, write_attacks
from natadv.plugin.gate_files import is_narrowed
from natadv.plugin.gates import report_rows
from natadv.plugin.session import GateSession
from natadv.plugin.terminal_summary import Summary
from natadv.report import gate_json, results
from natadv.report.gate_json import (
    ContractEntry,
    GateJson,
    RunEntry,
    RunVerdict,
    SelectionEntry,
    remove_verdict,
)
from natadv.report.run_progress import RunProgress
from natadv.report.terminal import Row, reasons
from natadv.types import GREEN, Case

JUDGED = (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.NO_TESTS_COLLECTED)
"""Exit codes of a run that ended; no other run writes a verdict."""


AGAINST_BASELINE = "baseline:"
"""Begins the parameter of a test that only compares its case with the baseline."""


class Controller:
    """The pytest plugin that collects what the workers report, judges again from the store, and
    decides the exit code."""

    def __init__(self, config: pytest.Config, session: GateSession, *, gpus: int) -> None:
        self.config = config
        self.session = session
        self.expected: dict[str, Case] = {}
        """Collected test -> the case that it judges."""
        self.reported: dict[str, str] = {}
        """Test -> its outcome."""
        self.crashed: set[str] = set()
        self.complaints: list[str] = []
        """Why the run is not green, beside what the rules say."""
        self.worker_problems: list[str] = []
        self.began = time.time()
        self.collections = 0
        """How many processes have collected their tests, and hence computed all units."""
        self.progress: RunProgress | None = None
        self.attack_lines: list[str] = []
        self.quarantine = Quarantine(session.run)
        self.gpus = gpus
        """GPUs that the environment allows, before a run in one process is pinned to one."""
        self.allure = options.set_allure_folder(config)
        self.evidence = options.path_option(config, "evidence")
        self.gate_json = options.path_option(config, "gate_json")
        self.attacks = options.path_option(config, "attacks")
        self.sheets = options.path_option(config, "sheets")

    def prepare(self) -> None:
        """Make the store and remove the last run's files, so that nothing stale can be read.

        Raises:
            ConfigError: A file or folder to be replaced was not written by a run of the gate.
            StoreError: The files of this run could not be written.
        """
        remove_verdict(self.gate_json)
        self.session.store.prepare()
        self.session.run.prepare()
        prove_writable(self.gate_json.parent, "--gate-json FILE")
        prove_writable(self.evidence, "--evidence DIR")
        empty_evidence(self.evidence)
        empty_attacks(self.attacks)
        empty_sheets(self.sheets)
        if self.allure is not None:
            results.empty_results(self.allure)

    def watch(self, gpus: Iterable[str]) -> None:
        """Let the workers know which GPUs there are besides their own."""
        if self.session.numerics.device == CUDA:
            self.quarantine.watch(gpus)

    def pytest_report_header(self) -> list[str]:
        """Name what will run: the tier, its cases, models, device, workers and store."""
        grid, numerics = self.session.grid, self.session.numerics
        models, workers = listed(list(grid.lineages)), self._workers
        lines = [
            f"natadv: tier {grid.tier.name}, {counted(len(grid.cases), 'case')} of {models}",
            f"natadv: {counted(workers, 'worker')}, {numerics.device}, dtype {numerics.dtype}; "
            f"results are kept in {self.session.store.root}",
        ]
        used, most = workers * numerics.gpus_per_model, self.gpus // numerics.gpus_per_model
        if numerics.device == CUDA and workers < most:
            lines.append(f"natadv: uses {used} of {self.gpus} GPUs; -n {most} uses all")
        return lines

    @property
    def _workers(self) -> int:
        return len(self.config.getoption("tx", None) or [None])

    def _uncaptured(self) -> int | None:
        """Where the progress of tests in this process can be written; None where workers run them,
        or where the output has no file. Called while pytest captures nothing."""
        if self.config.getoption("tx", None):
            return None
        try:
            duplicate = os.dup(sys.stdout.fileno())
        except (OSError, ValueError):
            return None
        self.config.add_cleanup(partial(os.close, duplicate))
        return duplicate

    def pytest_sessionstart(self) -> None:
        """Begin to say what goes on."""
        terminal = self.config.pluginmanager.get_plugin("terminalreporter")
        if terminal is not None:
            self.progress = RunProgress(
                self.session.run.events,
                self.config.get_terminal_writer(),
                rewriting=terminal.isatty,
                workers=self._workers,
                at_most=self.session.sequential,
                quiet=self.config.option.verbose < 0,
                uncaptured=self._uncaptured(),
            )
            self.progress.start()

    def pytest_configure_node(self, node: Any) -> None:
        """Let a worker take part in this run."""
        node.workerinput["natadv_run"] = self.session.run.id
        node.workerinput["natadv_today"] = str(self.session.today)

    def pytest_xdist_node_collection_finished(self, ids: Sequence[str]) -> None:
        """Register the tests that a worker, or this process, will run."""
        self.collections += 1
        for node in ids:
            address = node.partition("[")[2].removesuffix("]")
            case = self.session.grid.case(address.removeprefix(AGAINST_BASELINE))
            if case is not None:
                self.expected[node] = case
        if self.progress is not None and self.collections >= self._workers:
            self.progress.end_units(len(self.expected))

    def pytest_handlecrashitem(self, crashitem: str, report: pytest.TestReport, sched: Any) -> None:
        """Let another worker repeat a test whose worker was killed, e.g. for lack of memory: a gate
        only reads what is stored. A test that kills two workers is not repeated again."""
        if crashitem not in self.crashed:
            self.crashed.add(crashitem)
            sched.mark_test_pending(crashitem)
            report.outcome = "rerun"  # type: ignore[assignment]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Record the outcome of a test, but not `???`, by which xdist reports a dead worker."""
        if report.when == "call" or (report.when in ("setup", "teardown") and not report.passed):
            self.reported[report.nodeid] = report.outcome
            if self.progress is not None:
                self.progress.note_report(len(self.reported), len(self.expected))

    def pytest_testnodedown(self, node: Any, error: object) -> None:
        """Record what kept a worker from measuring; one that was killed leaves no output."""
        output = getattr(node, "workeroutput", None)
        if output is not None:
            self.add_worker_problems(output.get("natadv_problems", []))
        elif error:
            reason = " ".join(str(error).strip().splitlines()[:1])
            self.session.run.tell("worker_lost", worker=node.gateway.id, reason=reason)

    def add_worker_problems(self, problems: Iterable[str]) -> None:
        """Record what kept a process from measuring, each problem once."""
        self.worker_problems += [p for p in problems if p not in self.worker_problems]

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Judge the run from the store, write its results and set the exit code."""
        if self.progress is not None:
            self.progress.end_units(len(self.expected))
            self.progress.say_if_long("judging all cases together, and writing what was found")
        if session.exitstatus in JUDGED:
            self._end(session)
        if self.progress is not None:
            self.progress.stop()

    def _end(self, session: pytest.Session) -> None:
        # A worker's report is not enough.
        self.session = self.session.select(
            self.expected.values(), worker_problems=self.worker_problems
        )
        try:
            green = self._judge_again()
            self._write_results()
        except (NatadvError, OSError) as error:
            self.complaints.append(f"INCOMPLETE: {error}")
            green = False
        if not green or session.exitstatus != pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def _judge_again(self) -> bool:
        """True if every collected gate reported, and the store says the same as the reports."""
        session = self.session
        if not session.selected:
            self.complaints.append("INCOMPLETE: no gate was selected, so nothing was measured")
            return False
        if not is_narrowed(self.config):
            absent = [case for case in session.grid.cases if case not in session.selected]
            self.complaints += [f"INCOMPLETE: {case}: no suite asks for it" for case in absent]
        for node, case in self.expected.items():
            compares = f"[{AGAINST_BASELINE}" in node
            green = session.is_no_worse(case) if compares else session.is_green(case)
            outcome = self.reported.get(node)
            if outcome is None:
                reason = "the gate never reported; its worker may have died"
                self.complaints.append(f"INCOMPLETE: {case}: {reason}")
                if self.allure is not None:
                    results.write_missing(self.allure, case, node=node, reason=reason)
            elif outcome == "skipped":
                self.complaints.append(f"INCOMPLETE: {node} was skipped")
            elif (outcome == "passed") != green:
                self.complaints.append(
                    f"INCOMPLETE: {case}: its test {outcome}, but the store says "
                    f"{'green' if green else 'not green'}; run again"
                )
        # The run itself may lack something, though each of its cases holds.
        holds = self.verdict() in (*GREEN, "measured")
        return holds and not self.complaints and all(map(session.is_green, session.selected))

    def _write_results(self) -> None:
        problems = [*self.complaints, *self.session.limited]
        write_all_evidence(self.session, self.evidence, problems=problems)
        self.attack_lines = write_attacks(self.session, self.attacks, root=self.session.root)
        commit = commit_of(self.session.root)
        content = self._gate_json(commit).model_dump(mode="json")
        write_atomically(self.gate_json, json.dumps(content, indent=1, allow_nan=False) + "\n")
        if self.allure is not None:
            numerics = self.session.numerics
            environment = {
                "natadv": __version__,
                "python": sys.version.split()[0],
                "verdict": f"{self.verdict().upper()}: {self.extent()}",
                "tier": self.session.grid.tier.name,
                "device": f"{numerics.device} {numerics.dtype}",
                "commit": commit,
                **numerics.packages,
                **_hardware_lines(hardware_of(self.session)),
            }
            results.write_environment(self.allure, environment)
            results.write_categories(self.allure)
            results.write_executor(self.allure)

    def _gate_json(self, commit: str) -> GateJson:
        """The verdict for machines. Equal runs differ in `run` only."""
        session, request = self.session, options.request(self.config)
        hardware = hardware_of(session)
        given = self.config.getoption("natadv_baseline")
        return GateJson(
            version=gate_json.VERSION,
            verdict=self.verdict(),
            tier=session.grid.tier.name,
            contract=ContractEntry(file=session.contract_file, sha256=session.contract),
            selection=SelectionEntry(
                models=list(session.grid.lineages),
                tasks=list(request.tasks),
                scenarios=list(request.scenarios),
                datasets=list(request.datasets),
                limit=request.limit,
                keyword=self.config.option.keyword,
                extent=self.extent(),
            ),
            asserted=session.asserting,
            whole_tier=session.whole_tier,
            confidence=session.grid.thresholds.confidence,
            baseline=None if session.baseline is None else given,
            reasons=self.reasons(),
            problems=self.problems(),
            starters=self.starters() or None,
            waivers=waiver_use_entries(self.waiver_uses(), session.contract_file),
            cases=[
                case_entry(session, case, self.rows, sheet=self.sheet(case))
                for case in sorted(session.selected)
            ],
            numerics=numerics_json(session.numerics) | ({"hardware": hardware} if hardware else {}),
            commit=commit,
            run=self._run_facts(),
        )

    def sheet(self, case: Case) -> str | None:
        """The contact sheet of a case, from the folder of gate.json; None if there is none."""
        path = sheet_of(self.sheets, case)
        folder = self.gate_json.parent
        return Path(os.path.relpath(path, folder)).as_posix() if path.is_file() else None

    def starters(self) -> str:
        """That floors are starters, if any are: a verdict is worth no more than its floors."""
        session = self.session
        return session.verdict.starters if session.asserting and session.selected else ""

    def waiver_uses(self) -> tuple[WaiverUse, ...]:
        """What became of the waivers that cover its cases."""
        session = self.session
        return session.verdict.waivers if session.asserting and session.selected else ()

    def _run_facts(self) -> RunEntry:
        events = self.session.run.events()
        return RunEntry(
            id=self.session.run.id,
            date=self.session.today.isoformat(),
            began=self.began,
            wall_s=time.time() - self.began,
            units_computed=sum(e["kind"] == "done" for e in events),
            results_damaged=sum(e["kind"] == "damaged" for e in events),
            images_encoded=sum(e.get("encoded", 0) for e in events),
            workers_lost=sum(e["kind"] == "worker_lost" for e in events),
            quarantined_gpus=dict(self.quarantine.reasons()),
            smaller_batches={e["model"]: e["batch_size"] for e in events if e["kind"] == "halved"},
        )

    def verdict(self) -> RunVerdict:
        """The verdict on the whole run."""
        if self.complaints or not self.session.selected:
            return "incomplete"
        return self.session.overall()

    def reasons(self) -> list[str]:
        """Why the run is not green, a line for each reason."""
        return [*self.problems(), *reasons(self.rows)]

    def problems(self) -> list[str]:
        """Those of them that are about the run itself, not about a case."""
        session = self.session
        of_run = session.verdict.problems if session.asserting and session.selected else ()
        return [*self.complaints, *of_run]

    @cached_property
    def rows(self) -> list[Row]:
        """What the report shows; known when the run is over."""
        return report_rows(self.session)

    @pytest.hookimpl(specname="pytest_terminal_summary", wrapper=True, tryfirst=True)
    def pytest_hide_told_failures(self, terminalreporter: Any) -> Generator[None]:
        """Keep pytest from showing failures that the summary of this run shows with all they say:
        it would show each of them twice more. It still counts them."""
        told = set(chain.from_iterable(row.reason.splitlines() for row in self.rows))
        failed = terminalreporter.stats.pop("failed", [])
        others = [r for r in failed if not told >= set(str(r.longrepr).splitlines() or [""])]
        if others:
            terminalreporter.stats["failed"] = others
        try:
            return (yield)
        finally:
            if failed:
                terminalreporter.stats["failed"] = failed

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Write what does not hold and why, the verdict, and what to do next."""
        Summary(self, terminalreporter).write(self._run_facts())

    def extent(self) -> str:
        """Which cases the verdict is about."""
        session = self.session
        if not session.selected:
            return "0 cases"
        measured = counted(len(session.selected), "case")
        judged = session.verdict.extent_as(self.verdict()) if session.asserting else measured
        return extent_for(judged, tuple(session.grid.lineages), session.grid.tier)


def _hardware_lines(hardware: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Rows of Allure's environment: GPUs of several kinds may have computed one run."""
    names = dict.fromkeys(name for gpu in hardware for name in gpu)
    return {name: " and ".join(sorted({g[name] for g in hardware if name in g})) for name in names}

"""The process that answers for the run: nothing is green unless every gate reported and holds."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import pytest

from natadv import __version__
from natadv.errors import NatadvError
from natadv.evaluate.store import prove_writable, write_atomically
from natadv.evidence import empty_evidence
from natadv.plugin import options
from natadv.plugin.artifacts import gate_json, git_commit, remove_verdict, write_all_evidence
from natadv.plugin.attacks import empty_attacks, write_attacks
from natadv.plugin.rows import rows_of
from natadv.plugin.session import GateSession
from natadv.report import results
from natadv.report.rows import Row
from natadv.report.terminal import overview, reasons, table
from natadv.report.unit_progress import UnitProgress
from natadv.types import Case

GREEN, RED = 0, 1
JUDGED = (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.NO_TESTS_COLLECTED)


class Controller:
    """Collects what the workers report, judges again from the store, and decides the exit code."""

    def __init__(self, config: pytest.Config, session: GateSession) -> None:
        self.config = config
        self.session = session
        self.expected: dict[str, Case] = {}
        self.reported: dict[str, str] = {}
        self.crashed: set[str] = set()
        self.complaints: list[str] = []
        self.notes: list[str] = []
        self.began = time.time()
        self.workers_ready = 0
        self.progress: UnitProgress | None = None
        self.allure = options.settle_allure(config)
        self.contract = options.path_option(config, "thresholds", options.THRESHOLDS)
        self.evidence = options.path_option(config, "evidence", options.EVIDENCE)
        self.gate_json = options.path_option(config, "gate_json", options.GATE_JSON)
        self.attacks = options.path_option(config, "attacks", ".natadv/attacks")
        self.found: list[str] = []

    def prepare(self) -> None:
        """Make the store and remove what the last run left, so that nothing stale can be read.

        Raises:
            ConfigError: What would be replaced is no run's.
            StoreError: What this run leaves could not be written.
        """
        remove_verdict(self.gate_json)
        self.session.store.prepare()
        self.session.run.prepare()
        for folder, option in (
            (self.gate_json.parent, "--gate-json FILE"),
            (self.evidence, "--evidence DIR"),
        ):
            prove_writable(folder, option)
        empty_evidence(self.evidence)
        empty_attacks(self.attacks)
        if self.allure is not None:
            results.empty_results(self.allure)

    def pytest_sessionstart(self) -> None:
        terminal = self.config.pluginmanager.get_plugin("terminalreporter")
        if terminal is None:
            return

        def rewrite(text: str) -> None:
            terminal.rewrite(text, erase=True)

        def write_line(text: str) -> None:
            terminal.ensure_newline()
            terminal.write_line(text)

        self.progress = UnitProgress(
            self.session.run.events,
            rewrite=rewrite if terminal.isatty else None,
            write_line=write_line,
        )
        self.progress.start()

    def collected(self, nodes: Sequence[str]) -> None:
        """Take note of the gates that a worker, or this process, will run."""
        self.workers_ready += 1
        for node in nodes:
            address = node.partition("[")[2].removesuffix("]")
            case = self.session.grid.case(address)
            if case is not None:
                self.expected[node] = case
        workers = self.config.getoption("tx", None) or [None]
        if self.workers_ready >= len(workers):
            self._stop_progress()

    def _stop_progress(self) -> None:
        if self.progress is not None:
            self.progress.stop()

    def pytest_handlecrashitem(self, crashitem: str, report: pytest.TestReport, sched: Any) -> None:
        """Let another worker judge a gate once more whose worker was killed, as for want of memory:
        a gate only reads what is stored. One that kills two is given up."""
        if crashitem not in self.crashed:
            self.crashed.add(crashitem)
            sched.mark_test_pending(crashitem)
            report.outcome = "rerun"  # type: ignore[assignment]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        # xdist reports a test whose worker died too, as `???`: that is no word of the gate's own.
        if report.when == "call" or (report.when in ("setup", "teardown") and not report.passed):
            self.reported[report.nodeid] = report.outcome

    def worker_ended(self, name: str, output: Mapping[str, Any] | None, error: object) -> None:
        """Keep what the worker could not do; a lost worker leaves no output."""
        if output is not None:
            self.note(output.get("natadv_notes", []))
        elif error:
            first = str(error).strip().splitlines()[:1]
            self.session.run.tell("worker_lost", worker=name, reason=" ".join(first))

    def note(self, notes: Iterable[str]) -> None:
        self.notes += [note for note in notes if note not in self.notes]

    def finish(self, exit_status: int) -> int:
        """The exit code of the session."""
        self._stop_progress()
        if exit_status not in JUDGED:
            return exit_status
        # Judged anew, from what lies in the store: a worker's word is not enough.
        self.session = self.session.of(self.expected.values(), notes=self.notes)
        try:
            green = self._judge_again()
            self._write()
        except (NatadvError, OSError) as error:
            self.complaints.append(f"INCOMPLETE: {error}")
            green = False
        return GREEN if green and exit_status == pytest.ExitCode.OK else RED

    def _judge_again(self) -> bool:
        """True if every collected gate reported, and the store says the same as the reports."""
        session = self.session
        if not session.selected:
            self.complaints.append("INCOMPLETE: no gate was selected, so nothing was measured")
            return False
        if not options.is_narrowed(self.config):
            absent = [case for case in session.grid.cases if case not in session.selected]
            self.complaints += [f"INCOMPLETE: {case}: no suite asks for it" for case in absent]
        for node, case in self.expected.items():
            outcome, green = self.reported.get(node), session.is_green(case)
            if outcome is None:
                self._complain_of_silence(node, case)
            elif outcome == "skipped":
                self.complaints.append(f"INCOMPLETE: {node} was skipped")
            elif (outcome == "passed") != green:
                self.complaints.append(
                    f"INCOMPLETE: {case}: its test {outcome}, but the store says "
                    f"{'green' if green else 'not green'}; run again"
                )
        return not self.complaints and all(map(session.is_green, session.selected))

    def _complain_of_silence(self, node: str, case: Case) -> None:
        reason = "the gate never reported; its worker may have died"
        self.complaints.append(f"INCOMPLETE: {case}: {reason}")
        if self.allure is not None:
            results.write_missing(self.allure, case, node=node, reason=reason)

    def _write(self) -> None:
        write_all_evidence(self.session, self.evidence)
        self.found = write_attacks(self.session, self.attacks, root=self.config.rootpath)
        commit = git_commit(self.config.rootpath)
        value = gate_json(
            self.session,
            self.rows,
            verdict=self.verdict(),
            contract=self.contract,
            selection=self._selection(),
            reasons=self.reasons(),
            commit=commit,
            run=self._run_facts(),
        )
        write_atomically(self.gate_json, json.dumps(value, indent=1, allow_nan=False) + "\n")
        if self.allure is not None:
            results.write_environment(self.allure, self._environment(commit))
            results.write_categories(self.allure)
            results.write_executor(self.allure)

    def _selection(self) -> dict[str, Any]:
        """What was asked for on the command line, and how much of the tier that is."""
        asked = options.request(self.config)
        return {
            "models": list(self.session.grid.specs),
            "tasks": list(asked.tasks),
            "scenarios": list(asked.scenarios),
            "datasets": list(asked.datasets),
            "limit": asked.limit,
            "keyword": self.config.option.keyword,
            "extent": self._extent(),
        }

    def _run_facts(self) -> dict[str, Any]:
        events = self.session.run.events()
        return {
            "id": self.session.run.id,
            "began": self.began,
            "wall_s": time.time() - self.began,
            "units_computed": sum(e["kind"] == "done" for e in events),
            "results_damaged": sum(e["kind"] == "damaged" for e in events),
            "images_encoded": sum(e.get("encoded", 0) for e in events),
            "workers_lost": sum(e["kind"] == "worker_lost" for e in events),
            "smaller_batches": {
                e["model"]: e["batch_size"] for e in events if e["kind"] == "halved"
            },
        }

    def _environment(self, commit: str) -> dict[str, str]:
        numerics = self.session.numerics
        return {
            "natadv": __version__,
            "python": sys.version.split()[0],
            "verdict": f"{self.verdict().upper()}: {self._extent()}",
            "tier": self.session.grid.tier.name,
            "device": f"{numerics.device} {numerics.dtype}",
            "commit": commit,
            **numerics.packages,
        }

    def verdict(self) -> str:
        """pass, partial, fail, inconclusive, incomplete or measured."""
        if self.complaints or not self.session.selected:
            return "incomplete"
        return self.session.overall()

    def reasons(self) -> list[str]:
        session = self.session
        of_run = session.verdict.problems if session.asserting and session.selected else ()
        return [*self.complaints, *of_run, *reasons(self.rows)]

    @cached_property
    def rows(self) -> list[Row]:
        """What the report shows; ask for it when the run is over."""
        return rows_of(self.session)

    def header(self) -> list[str]:
        grid, numerics = self.session.grid, self.session.numerics
        return [
            f"natadv: tier {grid.tier.name}, {len(grid.cases)} cases, "
            f"models {', '.join(grid.specs)}, {numerics.device} {numerics.dtype}",
            f"natadv: store {self.session.store.root}",
        ]

    def summarise(self, terminal: Any) -> None:
        """The table, failures first, why it is not green, and one line that says it all."""
        session = self.session
        rows = self.rows
        terminal.section("natadv")
        judged = table(rows, confidence=session.grid.thresholds.confidence)
        for block in filter(None, (judged, overview(rows))):
            for line in (*block, ""):
                terminal.write_line(line)
        for line in (*self.found, "") if self.found else ():
            terminal.write_line(line)
        for line in self.reasons():
            terminal.write_line(line, red=True)
        verdict = self.verdict()
        green = verdict in ("pass", "partial", "measured")
        facts = self._run_facts()
        if facts["results_damaged"]:
            terminal.write_line(
                f"{facts['results_damaged']} stored results were no longer as they were written, "
                "and were computed again"
            )
        if missing := self._missing_reports():
            terminal.write_line(missing)
        for model, size in facts["smaller_batches"].items():
            terminal.write_line(f"out of memory: {model} went on with {size} pictures at a time")
        terminal.write_line(
            f"{verdict.upper()}: {self._extent()}, "
            f"{facts['units_computed']} units computed; {self._where()}",
            green=green,
            red=not green,
            bold=True,
        )

    def _extent(self) -> str:
        session = self.session
        if not session.selected:
            return "0 cases"
        judged = session.verdict.extent if session.asserting else f"{len(session.selected)} cases"
        models = tuple(session.grid.specs)
        return judged if models == session.grid.tier.models else f"{judged} for {', '.join(models)}"

    def _missing_reports(self) -> str:
        """What to say if somebody emptied the folder of results while the run lasted."""
        if self.allure is None:
            return ""
        there, asked = len(list(self.allure.glob("*-result.json"))), len(self.expected)
        if there >= asked:
            return ""
        return f"{self.allure}: holds {there} of {asked} results, as it was emptied during the run"

    def _where(self) -> str:
        root = self.config.rootpath
        written = (self.gate_json, self.evidence, self.allure)
        places = [path for path in written if path is not None and path.exists()]
        return ", ".join(str(p.relative_to(root) if root in p.parents else p) for p in places)

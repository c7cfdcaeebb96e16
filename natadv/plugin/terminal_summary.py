"""What the terminal shows of a run that is over: failures and why, the verdict, what to do next."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from natadv.errors import counted
from natadv.places import EVIDENCE, GATE_JSON
from natadv.plugin import options
from natadv.plugin.explanations import cause_lines
from natadv.plugin.gates import baseline_lines, scoring_lines, sequence_lines
from natadv.plugin.opt_in import PLUGIN
from natadv.report.gate_json import RunEntry
from natadv.report.terminal import first_failure, overview, table
from natadv.tasks import TASKS
from natadv.types import GREEN
from natadv.wrapping import WIDTH, copyable, wrapped

if TYPE_CHECKING:
    from natadv.plugin.controller import Controller
    from natadv.types import Case

COLOURS = {
    "PASS": "green",
    "MEASURED": "green",
    "PARTIAL": "green",
    "FAIL": "red",
    "INCONCLUSIVE": "yellow",
    "INCOMPLETE": "purple",
    "WAIVED": "cyan",
}
"""State of a row, or verdict on the run -> its colour, as pytest calls it."""


class Summary:
    """Writes by pytest's reporter, which knows whether a terminal shows colours.

    With `-q` the failures and the verdict; with `-v` also the rows that pass.
    """

    def __init__(self, run: Controller, reporter: Any) -> None:
        self._run, self._reporter = run, reporter
        columns = run.config.get_terminal_writer().fullwidth
        self._width = min(WIDTH, columns) if reporter.isatty else WIDTH
        self._quiet = run.config.option.verbose < 0

    def write(self, facts: RunEntry) -> None:
        """Write all of it, the verdict and what to do next at the end."""
        run = self._run
        self._reporter.section("natadv")
        if not self._quiet:
            self._write_measurements()
        rows = table(
            run.rows,
            confidence=run.session.grid.thresholds.confidence,
            width=self._width,
            passed=run.config.option.verbose > 0,
            notes={case: self._causes(case) for case in run.session.selected},
        )
        for text, state in rows:
            self._reporter.write_line(text, **_markup(state))
        if rows:
            self._reporter.write_line("")
        for line in run.problems():
            self._write(line, state="INCOMPLETE")
        if not self._quiet:
            self._write_all(self._notes(facts))
        for gpu, reason in facts.quarantined_gpus.items():
            self._write(
                f"QUARANTINED: GPU {gpu} {reason}; no worker used it any more in this run: see "
                "dmesg and nvidia-smi -q before the next",
                state="FAIL",
            )
        verdict = run.verdict().upper()
        self._write(f"{verdict}: {self._extent(facts)}", state=verdict, bold=True)
        if not self._quiet:
            self._write_all(self._next())

    def _causes(self, case: Case) -> list[str]:
        """Its failures by cause, below its address."""
        return [line.removeprefix(f"{case}: ") for line in cause_lines(self._run.session, case)]

    def _write_measurements(self) -> None:
        run = self._run
        overviews = [*overview(run.rows, width=self._width), *scoring_lines(run.session)]
        for block in (overviews, baseline_lines(run.session), sequence_lines(run.session)):
            self._write_all([*block, ""] if block else ())
        self._write_all([*run.attack_lines, ""] if run.attack_lines else ())

    def _write_all(self, lines: Sequence[str] | Iterator[str]) -> None:
        for line in lines:
            self._write(line)

    def _write(self, text: str, *, state: str = "", bold: bool = False) -> None:
        lines = [text]
        if len(text) > self._width:
            pieces = copyable if text.startswith("natadv ") else wrapped
            lines = pieces(text, width=self._width)
        for line in lines:
            self._reporter.write_line(line, bold=bold, **_markup(state))

    def _notes(self, facts: RunEntry) -> Iterator[str]:
        """What somebody should know of a run that ended."""
        run = self._run
        if facts.results_damaged:
            yield (
                f"{facts.results_damaged} stored results were no longer as they were written, "
                "and were computed again"
            )
        if run.allure is not None:
            results_n, expected_n = len(list(run.allure.glob("*-result.json"))), len(run.expected)
            if results_n < expected_n:
                found = f"{results_n} of {expected_n} results"
                yield f"{run.allure}: holds {found}, as it was emptied during the run"
        for model, size in facts.smaller_batches.items():
            yield (
                f"out of memory: {model} went on with {size} pictures at a time, in this run; the "
                f"next one tries more again, unless it has --batch-size {size}"
            )
        yield from (use.line for use in run.waiver_uses() if use.state != "applied")
        if starters := run.starters():
            yield starters

    def _extent(self, facts: RunEntry) -> str:
        """What the verdict is about, and the files that were written."""
        run = self._run
        written = (run.gate_json, run.evidence, run.allure)
        # A run that was interrupted has emptied its folders.
        paths = [p for p in written if p and p.exists() and (p.is_file() or any(p.iterdir()))]
        if any(run.sheet(case) for case in run.session.selected):
            paths.append(run.sheets)
        units = f"{counted(facts.units_computed, 'unit')} computed"
        asserting = run.verdict() in GREEN and run.session.asserting
        caveats = run.session.verdict.caveats if asserting else ""
        shown = ", ".join(map(self._shown, paths))
        return f"{run.extent()}, {units}{caveats}{shown and f'; {shown}'}"

    def _shown(self, path: Path) -> str:
        """From where pytest was called, if that is the root or below it."""
        here, root = self._run.config.invocation_params.dir, self._run.session.root
        inside = root in path.parents and (root == here or root in here.parents)
        return os.path.relpath(path, here) if inside else str(path)

    def _next(self) -> Iterator[str]:
        """Commands, each with what it is for."""
        steps = list(self._steps())
        yield from ["next:"] if steps else ()
        for command, what in steps:
            line = f"  {command}  # {what}"
            if len(line) <= self._width:
                yield line
            else:
                yield f"  # {what}"
                yield from copyable(command, width=self._width, indent="  ")

    def _steps(self) -> Iterator[tuple[str, str]]:
        run, verdict = self._run, self._run.verdict()
        if verdict == "incomplete":
            yield f"natadv plan --tier {run.session.grid.tier.name}", "what is missing here"
            again = shlex.join(map(str, run.config.invocation_params.args))
            command = "natadv gate" if self._by_command else f"pytest {again}"
            yield command, "go on: what is stored is not computed again"
            return
        if verdict == "measured":
            evidence = self._option("--evidence", run.evidence, EVIDENCE)
            yield f"natadv calibrate --write{evidence}", "rules from what was measured"
        elif verdict in GREEN:
            if verdict == "partial":
                whole = "natadv gate" if self._by_command else "pytest suites/"
                yield whole, "judge the whole tier"
            part = " --partial" if verdict == "partial" else ""
            evidence = self._option("", run.evidence, EVIDENCE)
            gate = self._option("--gate-json", run.gate_json, GATE_JSON)
            yield f"natadv bless{evidence}{gate}{part}", "keep this run as a baseline"
        else:
            yield from self._why()
        if run.allure is not None:
            results = self._option("--results", run.allure, options.ALLURE)
            yield f"natadv report{results}", "see all of it as a page"

    @property
    def _by_command(self) -> bool:
        """Whether pytest was called by natadv gate, which may have found suites elsewhere: no
        repository's own call names the plugin."""
        return PLUGIN in self._run.config.invocation_params.args

    def _why(self) -> Iterator[tuple[str, str]]:
        """Commands that show why the run is not green."""
        run = self._run
        lost = [row for row in run.rows if row.baseline is not None and row.verdict == "FAIL"]
        if lost:
            baseline = run.config.getoption("natadv_baseline")
            yield (
                f"natadv compare {baseline} {self._shown(run.evidence)}",
                "which samples are newly failing",
            )
        case = first_failure(run.rows)
        if case is not None and self._explainable(case):
            yield f"natadv explain --case {case}", "where the model looks"
        if run.verdict() == "inconclusive":
            yield "natadv whatif --thresholds FILE", "what other bounds would say"

    def _explainable(self, case: Case) -> bool:
        """Whether the command finds the model by its name, and its answers have maps."""
        named = self._run.session.grid.lineages[case.model] == case.model
        return named and bool(TASKS[case.task].explained)

    def _option(self, flag: str, path: Path, default: Path) -> str:
        """The option by which a command finds a file that is not at its usual place."""
        if path == self._run.config.invocation_params.dir / default:
            return ""
        return f" {flag} {shlex.quote(self._shown(path))}".replace("  ", " ")


def _markup(state: str) -> dict[str, bool]:
    return {COLOURS[state]: True} if state in COLOURS else {}

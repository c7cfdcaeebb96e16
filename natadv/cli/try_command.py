"""`natadv try`: a first look at a model, where nothing is set up and no rule is known."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from natadv.cli import shared_options as opt
from natadv.errors import ConfigError, MetricError, counted, listed
from natadv.exit_codes import DONE, NOT_GREEN
from natadv.report.terminal import NOTHING, aligned
from natadv.scenarios import SCENARIOS
from natadv.tasks import TASKS
from natadv.wrapping import wrapped

if TYPE_CHECKING:
    from natadv.evaluate.grid import Grid
    from natadv.evidence import CaseEvidence, Evidence
    from natadv.plugin.session import GateSession
    from natadv.types import Case, ModelSpec

TIER = "mini"

_Tasks = Annotated[list[str] | None, opt.text("NAME...", "only these tasks and analyses")]
_Device = Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="auto: a GPU if seen")]

app = opt.command_group()


@app.command("try", cls=opt.Command, epilog=opt.example("natadv try ./my-checkpoint --limit 100"))
def try_model(
    model: Annotated[str, opt.argument("MODEL", "as pytest --model takes it")],
    task: _Tasks = None,
    limit: opt.Limit = None,
    device: _Device = "auto",
    evidence: Annotated[Path, opt.path("gets what is measured")] = opt.EVIDENCE,
) -> int:
    """Find out what a model is, examine it as natadv doctor does, and measure it on the mini world,
    clean and attacked. Nothing is judged, and the working directory needs no files.

    What was computed is kept in .natadv/store: a run that was interrupted goes on.

    Exit codes: 0 measured, 1 the model is broken or could not be measured, 4 the input is wrong.
    """
    from natadv.evaluate.devices import (
        check_gpus,
        device_kind,
        pinned_environment,
        teams,
        visible_gpus,
    )
    from natadv.models.resolve import resolve_one
    from natadv.plugin.session import measuring_session

    root = Path.cwd()
    spec = resolve_one(model, root=root, wanted="to try")
    kind = device_kind(device)
    check_gpus(kind)
    grid = _mini_grid(model, root=root, tasks=opt.names_of(task), limit=limit)
    # As for the workers of the gate, and before torch is imported.
    gpus = teams(visible_gpus(), gpus_per_model=1) if kind == "cuda" else ()
    os.environ.update(pinned_environment(0, gpus, workers=1))
    session = measuring_session(grid, device=kind)
    if not _examined(spec, session):
        return NOT_GREEN
    _prepare(session, evidence)
    session, uncovered = _measured(session)
    return _print_result(session, uncovered, model=model, evidence=evidence)


def _mini_grid(model: str, *, root: Path, tasks: Sequence[str], limit: int | None) -> Grid:
    """The mini tier of natadv itself for one model, without its searches: they look for attacks,
    and measure no case.

    Raises ConfigError if a name is unknown, or the mini world is not installed.
    """
    from natadv.evaluate.grid import Request, make_grid
    from natadv.gate.thresholds_file import load_thresholds
    from natadv.places import package_roots

    contract = load_thresholds(package_roots()[0] / opt.CONTRACT, asserting=False)
    request = Request(root=root, models=(model,), tasks=tuple(tasks), tier=TIER, limit=limit)
    grid = make_grid(request, contract)
    if not any(case.dataset in grid.datasets for case in grid.cases):
        raise ConfigError(
            "expected the datasets of the mini world, found none of them here or in an installed "
            "package; run pip install 'natadv[mini]'"
        )
    return replace(grid, tier=replace(grid.tier, searches={}))


def _prepare(session: GateSession, evidence: Path) -> None:
    """Remove what an earlier run has written: its verdict is not about this evidence."""
    from natadv.evaluate.store import prove_writable
    from natadv.evidence import empty_evidence
    from natadv.report.gate_json import remove_verdict

    prove_writable(evidence, "--evidence DIR")
    empty_evidence(evidence)
    # What no run of the gate wrote is nobody's verdict, and stays.
    with suppress(ConfigError):
        remove_verdict(session.grid.root / opt.GATE_JSON)


def _examined(spec: ModelSpec, session: GateSession) -> bool:
    """Print what the model is and what the doctor finds; whether the doctor finds nothing wrong."""
    from natadv.cli.models_commands import known_pictures, print_findings
    from natadv.models.doctor import examine
    from natadv.models.listing import facts_of

    for name, fact in facts_of(spec).items():
        print(f"{name:<8}  {fact}")
    print()
    numerics = session.numerics.of(spec)
    found = examine(
        spec,
        device=numerics.device,
        dtype=numerics.dtype,
        known=known_pictures(spec, root=session.grid.root),
    )
    if print_findings(found):
        print("the model is broken or fed wrongly, so nothing was measured; mend it and try again")
        return False
    return True


def _measured(session: GateSession) -> tuple[GateSession, dict[Case, str]]:
    """The session after all that the model can do was computed; and the cases that it cannot do,
    each with the reason."""
    uncovered = {case: why for case in session.grid.cases if (why := session.units(case).problem)}
    covered = [case for case in session.grid.cases if case not in uncovered]
    session = session.select(covered)
    if covered:
        session = _computed(session)
    # Whether a model can be explained shows only when it is asked to; no contract requires it.
    for case in covered:
        if TASKS[case.task].analyses and (lacking := session.shortfalls(case)):
            uncovered[case] = "; ".join(lacking)
    kept = [case for case in covered if case not in uncovered]
    return session.select(kept, worker_problems=session.worker_problems), uncovered


def _computed(session: GateSession) -> GateSession:
    from natadv.report.run_progress import RunProgress
    from natadv.storage.progress import clear_lines

    # Two that say what goes on would write into each other's lines.
    clear_lines()
    cases = counted(len(session.selected), "case")
    print(f"natadv: measuring {cases} of the mini world", file=sys.stderr, flush=True)
    progress = RunProgress(session.run.events, _Screen(), rewriting=sys.stderr.isatty())
    progress.start()
    try:
        return session.compute()
    finally:
        progress.end_units(len(session.selected))
        progress.stop()


class _Screen:
    """Where progress is written, as pytest's writer has it."""

    width_of_current_line = 0

    @property
    def fullwidth(self) -> int:
        """Columns of the terminal."""
        return shutil.get_terminal_size().columns

    def write_raw(self, text: str, *, flush: bool) -> None:
        """Write it as it is."""
        print(text, end="", file=sys.stderr, flush=flush)

    def line(self, text: str = "") -> None:
        """Add a line that stays."""
        print(text, file=sys.stderr)

    def flush(self) -> None:
        """Show what was written."""
        sys.stderr.flush()


def _print_result(
    session: GateSession, uncovered: Mapping[Case, str], *, model: str, evidence: Path
) -> int:
    """Print the numbers and what is missing, and keep the evidence. Returns the exit code."""
    from natadv.plugin.artifacts import write_all_evidence

    failed = {case: why for case in session.selected if (why := session.shortfalls(case))}
    print(*_numbers(session), *_coverage(session, uncovered), sep="\n")
    for case, why in failed.items():
        print(*wrapped(f"INCOMPLETE: {case}: {'; '.join(why)}"), sep="\n")
    if not session.selected:
        print("nothing was measured: the model can do none of these cases")
        return NOT_GREEN
    if session.limited:
        print(f"--limit {session.grid.limit}: on these few samples no rule can be based")
    write_all_evidence(session, evidence, problems=session.limited)
    print(f"the outcomes of every sample are in {evidence}")
    if not failed:
        print("", *_next(session, model), sep="\n")
    return NOT_GREEN if failed else DONE


def _numbers(session: GateSession) -> Iterator[str]:
    """For each task a line per case: the headline with its interval, the same number of the clean
    twins, and what the attack takes from it."""
    from natadv.metrics import headline_of

    tables: dict[tuple[str, str], list[Case]] = {}
    for case in session.selected:
        tables.setdefault((case.task, headline_of(case)), []).append(case)
    confidence = session.grid.thresholds.confidence
    for (task, headline), cases in tables.items():
        head = (f"{task}: {headline}", "n", f"{confidence:.0%} interval", "clean", "drop")
        rows = [_row(session.evidence[case], headline, confidence=confidence) for case in cases]
        yield from (*aligned([head, *rows], right=(1,)), "")


def _row(found: CaseEvidence, headline: str, *, confidence: float) -> tuple[str, ...]:
    """The cells of a case, with a dash for what is not defined."""
    case, evidence = found.case, found.evidence
    cells = [f"  {case.scenario}/{case.dataset}", str(evidence.attack.n)]
    cells.append(_cell(headline, evidence, confidence=confidence))
    task, twins = TASKS[case.task], evidence.own_twins()
    if not SCENARIOS[case.scenario].attacks or task.analyses or twins is None:
        return (*cells, NOTHING, NOTHING)
    clean = _cell(headline, replace(evidence, attack=twins), confidence=None)
    return (*cells, clean, _cell(task.drop, evidence, confidence=confidence))


def _cell(metric: str, evidence: Evidence, *, confidence: float | None) -> str:
    """The value, with its interval unless `confidence` is None."""
    from natadv.metrics import measure

    try:
        found = measure(metric, evidence, confidence=confidence or 0.95)
    except MetricError:
        return NOTHING
    interval = f" [{found.low:.3f}, {found.high:.3f}]" if confidence else ""
    return f"{found.value:.3f}{interval}"


def _coverage(session: GateSession, uncovered: Mapping[Case, str]) -> Iterator[str]:
    """How much of the tier was measured, and why the rest was not, each reason once."""
    able = dict.fromkeys(case.task for case in session.selected)
    tasks = f": {', '.join(able)}" if able else ""
    whole = counted(len(session.grid.cases), "case")
    yield f"covered: {len(session.selected)} of {whole} of the mini world{tasks}"
    reasons: dict[str, list[str]] = {}
    for case, why in uncovered.items():
        reasons.setdefault(why, []).append(case.cell)
    for why, cells in reasons.items():
        yield from wrapped(f"not covered: {counted(len(cells), 'case')}: {listed(cells, most=2)}")
        yield from wrapped(f"    {why}")


def _next(session: GateSession, model: str) -> Iterator[str]:
    """The commands that make a gate of this first look. What was measured of all samples needs not
    be measured again before rules are made of it."""
    named, measured = shlex.quote(model), dict.fromkeys(case.task for case in session.selected)
    left_out = {case.task for case in session.grid.cases} - set(measured)
    tasks = f" --task {','.join(measured)}" if left_out else ""
    yield "next, in the repository of the model:"
    yield f"    natadv init --model {named}"
    if session.limited:
        yield f"    pytest suites/ --no-assert --model {named}{tasks}"
    yield "    natadv calibrate --write"
    if not session.limited:
        yield f"    pytest suites/ --model {named}"

"""`natadv selfcheck`: the gate audits itself before a release is staked on it."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from natadv.cli import shared_options as opt
from natadv.errors import ConfigError, counted
from natadv.exit_codes import DONE, NOT_GREEN
from natadv.report.terminal import NOTHING, aligned
from natadv.storage.atomic import replace_file
from natadv.storage.progress import Progress
from natadv.wrapping import WIDTH

if TYPE_CHECKING:
    from natadv.gate.sabotage import Attempt, Sabotage
    from natadv.gate.selfcheck import Audit, SimulatedRate
    from natadv.gate.trials import Study, TrialKind

app = opt.command_group()


@app.command(cls=opt.Command, epilog=opt.example("natadv selfcheck --evidence .natadv/evidence"))
def selfcheck(
    evidence: Annotated[Path, opt.path("evidence of a run")] = opt.EVIDENCE,
    thresholds: opt.Thresholds = opt.CONTRACT,
    runs: Annotated[int, opt.count("simulated runs", at_least=30)] = 150,
    seed: opt.Seed = 0,
    processes: Annotated[int, opt.count("that simulate at once")] = opt.CPUS,
    out: Annotated[Path | None, opt.output("gets all figures", "--json", metavar="FILE")] = None,
) -> int:
    """Check the gate itself on measured evidence: how often its verdicts are wrong by chance, which
    losses it detects, and whether any known sabotage ends green.

    Exit codes: 0 all rates are as stated and all sabotages are caught, 1 not so, 4 there is no
    evidence or a file is wrong.
    """
    from natadv.gate.selfcheck import simulate, steps
    from natadv.gate.thresholds_file import load_thresholds
    from natadv.gate.trials import study_of

    study = study_of(evidence, load_thresholds(thresholds), seed=seed)
    attempts, untried = _sabotaged(evidence)
    progress = Progress("selfcheck", steps(study, runs), unit="simulations", stream=sys.stderr)
    audit = simulate(study, runs=runs, processes=processes, done=progress.reach)
    cases, rules = counted(len(study.cases), "case"), counted(len(study.bounds), "rule")
    print(f"selfcheck of {evidence}\n{cases}, {rules}, {runs} simulated runs, seed {seed}")
    print(*_tables(study, audit), *_of_sabotages(attempts, untried), sep="\n")
    failures = [*_beyond(study, audit), *_escaped(attempts)]
    print("", *failures, _summary(audit, attempts, untried, failures), sep="\n")
    if out is not None:
        content = {"runs": runs, "seed": seed, "failures": failures}
        content |= _as_json(audit, attempts)
        text = json.dumps(content, indent=1, allow_nan=False) + "\n"
        replace_file(out, text.encode(), remedy="give another --json")
    return NOT_GREEN if failures else DONE


def _sabotaged(evidence: Path) -> tuple[list[Attempt], list[Sabotage]]:
    """Each sabotage, tried on a copy of the evidence; and those that cannot be tried on it."""
    from natadv.gate.cases import whole_cases
    from natadv.gate.sabotage import impossible, try_all
    from natadv.gate.small_copy import copy_of

    with tempfile.TemporaryDirectory(prefix="natadv-selfcheck-") as folder:
        template = copy_of(whole_cases(evidence), Path(folder) / "template")
        if template is None:
            raise ConfigError(
                f"{evidence}: no case is good enough for a floor that a sabotage could break; "
                "measure a model that works"
            )
        untouched = template.compare()
        if not untouched.green:
            raise ConfigError(
                f"{evidence}: expected an untouched copy to be green, got {untouched.verdict}: "
                f"{untouched.reason}"
            )
        return list(try_all(template, Path(folder))), impossible(template)


def _as_json(audit: Audit, attempts: Sequence[Attempt]) -> dict[str, Any]:
    rates = [
        {**asdict(rate), "kind": rate.kind and rate.kind._asdict(), "value": rate.value}
        for rate in audit.rates
    ]
    tried = [{**asdict(attempt), "caught": attempt.caught} for attempt in attempts]
    return {"rates": rates, "sabotages": tried}


def _tables(study: Study, audit: Audit) -> Iterator[str]:
    yield "\n1. Chance alone, in percent: pictures are drawn again, bounds lie at the truth\n"
    yield from _of_rules(study, audit)
    yield from (f"not simulated: {line}" for line in study.left_out)
    yield "\n2. Chance alone, in percent: regressions of a model that is exactly as good"
    yield "   where it answers a tenth of the pictures, or all of them, independently\n"
    yield from _of_regressions(study, audit)
    yield "\n3. Planted losses: percent that are found, by points of the mean score"
    yield "   against the same run without the loss; blocked by the rules of the contract\n"
    yield from _of_losses(study, audit)


def _of_rules(study: Study, audit: Audit) -> Iterator[str]:
    kinds = sorted({bound.kind for bound in study.bounds})
    lines: list[tuple[str, ...]] = []
    lines.append(("metric", "pictures", "rows", "rules", "false PASS", "false FAIL", "sim. error"))
    for kind in kinds:
        rates = [audit.of(table, kind) for table in ("false PASS", "false FAIL")]
        lines.append((*_described(study, kind), *map(_percent, rates), _error(rates)))
    whole = audit.of("false FAIL", None)
    size = str(len(study.bounds))
    lines.append(("any in a whole run", "", "", size, NOTHING, _percent(whole), _error([whole])))
    lines.append(("stated: at most", "", "", "", *[_stated(whole)] * 2, ""))
    yield from aligned(lines, right=range(1, 7))


def _of_regressions(study: Study, audit: Audit) -> Iterator[str]:
    from natadv.gate.trials import CHURN, regression_table

    heads = [f"{share:.0%} change" for share in CHURN]
    lines = [("task", "pictures", "rows", "cases", *heads, "sim. error")]
    for kind in (*study.tasks, None):
        rates = [audit.of(regression_table(share), kind) for share in CHURN]
        figures = (*map(_percent, rates), _error(rates))
        if kind is not None:
            lines.append((*_described(study, kind), *figures))
            continue
        lines.append(("any in a whole run", "", "", str(len(study.cases)), *figures))
        lines.append(("stated: at most", "", "", "", *map(_stated, rates), ""))
    yield from aligned(lines, right=range(1, 7))


def _of_losses(study: Study, audit: Audit) -> Iterator[str]:
    from natadv.gate.selfcheck import DETECTED
    from natadv.gate.trials import LOSSES

    points = [f"{100 * loss:.0f}" for loss in LOSSES]
    lines = [
        ("", "", "", "", "found", *[""] * len(points), "blocked", *[""] * len(points)),
        ("task", "pictures", "rows", "cases", *points, f"{DETECTED:.0%} from", "0", *points),
    ]
    for kind in study.tasks:
        found = [_percent(audit.of(f"found {loss:g}", kind), digits=0) for loss in LOSSES]
        blocked = [_percent(audit.of(f"blocked {loss:g}", kind), digits=0) for loss in (0, *LOSSES)]
        least = audit.smallest_found(kind)
        smallest = NOTHING if least is None else f"{100 * least:.0f}"
        lines.append((*_described(study, kind), *found, smallest, *blocked))
    yield from aligned(lines, right=range(1, len(lines[0])))


def _of_sabotages(attempts: Sequence[Attempt], untried: Sequence[Sabotage]) -> Iterator[str]:
    yield "\n4. Sabotage of a copy that is green"
    cells = [(_word(attempt), attempt.what, attempt.ending.verdict) for attempt in attempts]
    of = ""
    for attempt, line in zip(attempts, aligned(cells, right=()), strict=True):
        if attempt.of != of:
            of = attempt.of
            yield f"\n{of}"
        yield line
        if reason := attempt.believed or attempt.ending.reason:
            yield _cut(f"{'':11}{reason}")
    for sabotage in untried:
        yield f"not tried: {sabotage.what}; the evidence has no case ({sabotage.needs}) for it"


def _word(attempt: Attempt) -> str:
    if attempt.caught:
        return "caught"
    return "by design" if attempt.believed else "GREEN"


def _cut(line: str) -> str:
    return line if len(line) <= WIDTH else f"{line[: WIDTH - 3]}..."


def _described(study: Study, kind: TrialKind) -> tuple[str, ...]:
    """Cells: its name, pictures, rows, and how many cases or rules it has."""
    sizes = study.sizes(kind)
    pictures, rows = (_range(size[i] for size in sizes) for i in range(2))
    return kind.of, pictures, rows, str(len(sizes))


def _range(numbers: Iterable[int]) -> str:
    found = sorted(numbers)
    return str(found[0]) if found[0] == found[-1] else f"{found[0]}-{found[-1]}"


def _percent(rate: SimulatedRate | None, *, digits: int = 1) -> str:
    return NOTHING if rate is None else f"{100 * rate.value:.{digits}f}"


def _stated(rate: SimulatedRate | None) -> str:
    return NOTHING if rate is None or rate.stated is None else f"{100 * rate.stated:.1f}"


def _error(rates: Iterable[SimulatedRate | None]) -> str:
    errors = [rate.error for rate in rates if rate is not None]
    return f"+/- {100 * max(errors):.1f}" if errors else NOTHING


def _beyond(study: Study, audit: Audit) -> Iterator[str]:
    for rate in audit.beyond:
        of = "whole runs"
        if rate.kind is not None:
            name, pictures, *_ = _described(study, rate.kind)
            of = f"{name} on {pictures} pictures"
        found = f"{100 * rate.value:.1f} % ({rate.hits} of {rate.judged})"
        yield f"BEYOND   {rate.table} of {of}: {found}, stated {_stated(rate)} %"


def _escaped(attempts: Sequence[Attempt]) -> Iterator[str]:
    for attempt in attempts:
        if not attempt.caught and not attempt.believed:
            yield f"GREEN    {attempt.of}: {attempt.what}"


def _summary(
    audit: Audit,
    attempts: Sequence[Attempt],
    untried: Sequence[Sabotage],
    failures: Sequence[str],
) -> str:
    rates = sum(rate.stated is not None for rate in audit.rates)
    believed = sum(bool(attempt.believed) for attempt in attempts)
    caught = sum(attempt.caught for attempt in attempts if not attempt.believed)
    within = rates - len(audit.beyond)
    left = f", {len(untried)} not tried" if untried else ""
    return (
        f"{'FAIL' if failures else 'PASS'}: {within} of {rates} rates are within what is stated, "
        f"{caught} of {len(attempts) - believed} sabotages caught, {believed} believed by design"
        f"{left}"
    )

"""`natadv plan` and `natadv merge`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from natadv.cli import shared_options as opt
from natadv.errors import ConfigError, counted
from natadv.exit_codes import DONE, NOT_GREEN
from natadv.report.terminal import aligned, column_blocks
from natadv.tasks import TASKS, analysed
from natadv.wrapping import script_lines

if TYPE_CHECKING:
    from natadv.evaluate.grid import Grid
    from natadv.types import Case

app = opt.command_group()

_Names = Annotated[list[str] | None, opt.text("NAME...", "as pytest takes it")]


@app.command(cls=opt.Command, epilog=opt.example("natadv plan --model siglip2 --tier pr"))
def plan(
    model: _Names = None,
    task: _Names = None,
    scenario: _Names = None,
    dataset: _Names = None,
    tier: Annotated[str | None, opt.text("NAME", "list of cases; default: the models' own")] = None,
    limit: opt.Limit = None,
    thresholds: opt.Thresholds = opt.CONTRACT,
    matrix: Annotated[bool, opt.flag("--matrix", "print the jobs of a CI matrix instead")] = False,
    root: opt.Root = Path(),
) -> int:
    """Show which cases `pytest suites/` would measure with the same options, in how many units, and
    which models, datasets and heads are missing. Nothing is loaded or computed.

    With --matrix, print one line of JSON for GitHub Actions: a job for each model and task with its
    analyses, which may lack things here, as they are on the machine that measures.

    Exit codes: 0 everything is here, 1 something is missing.
    """
    from natadv.evaluate.grid import Request, make_grid
    from natadv.evaluate.requirements import missing, script
    from natadv.gate.thresholds_file import load_thresholds

    models, tasks, scenarios, datasets = (
        opt.names_of(values) for values in (model, task, scenario, dataset)
    )
    request = Request(
        root=root.absolute(),
        base=Path.cwd(),
        models=models,
        tasks=tasks,
        scenarios=scenarios,
        datasets=datasets,
        tier=tier,
        limit=limit,
    )
    grid = make_grid(request, load_thresholds(thresholds, asserting=False))
    if matrix:
        print(json.dumps(_matrix(grid)))
        return DONE
    print(*_planned(grid), sep="\n")
    lacking = missing(grid, grid.cases)
    if lacking:
        counts = Counter(row.kind for row in lacking)
        listed = ", ".join(counted(n, kind) for kind, n in counts.items())
        print(f"\nmissing: {listed}; these commands get them:\n")
        print(*script_lines("\n".join(script(lacking))), sep="\n")
    return NOT_GREEN if lacking else DONE


def _matrix(grid: Grid) -> dict[str, Any]:
    """The jobs: no case is measured by two of them. An analysis is measured beside the task that it
    analyses: alone it may have no rule, and a run that judges nothing is not green."""
    jobs: dict[tuple[str, str], dict[str, None]] = {}
    for case in grid.cases:
        jobs.setdefault((case.model, analysed(case.task)), {})[case.task] = None
    return {
        "include": [
            {"tier": grid.tier.name, "model": model, "task": ",".join(tasks)}
            for (model, _), tasks in jobs.items()
        ]
    }


def _planned(grid: Grid) -> Iterator[str]:
    """A table of each task: the units of its cases, by model and dataset."""
    from natadv.evaluate.units import SHARD_ROWS

    models, measured = counted(len(grid.lineages), "model"), counted(len(grid.cases), "case")
    yield f"tier {grid.tier.name}: {models}, {measured}"
    ordered = sorted(grid.cases, key=lambda case: list(TASKS).index(case.task))
    units = {case: _units(grid, case) for case in ordered}
    for task, group in groupby(ordered, key=lambda case: case.task):
        cases = list(group)
        columns = list(dict.fromkeys((case.scenario, case.dataset) for case in cases))
        rows = [("", *(s for s, _ in columns)), (task, *(d for _, d in columns))]
        for model in dict.fromkeys(case.model for case in cases):
            of_model = {(c.scenario, c.dataset): c for c in cases if c.model == model}
            cells = [_cell(units, of_model.get(column)) for column in columns]
            rows.append((model, *cells))
        for block in column_blocks(rows):
            yield from ("", *aligned(block, right=range(1, len(block[0]))))
    # Cases share units, such as those of their clean twins.
    each = {unit for of_case in units.values() for unit in of_case or ()}
    rows_in_all = counted(sum(unit.stop - unit.start for unit in each), "row")
    yield f"\n{counted(len(each), 'unit')} of up to {SHARD_ROWS} rows, {rows_in_all} in all"
    if None in units.values():
        yield "?: not known before the dataset and its clean twin are here"


class _PlannedUnit(NamedTuple):
    model: str
    task: str
    dataset: str
    variant: str
    start: int
    """The first row."""
    stop: int
    """The row after the last."""


def _cell(units: Mapping[Case, list[_PlannedUnit] | None], case: Case | None) -> str:
    if case is None:
        return "-"
    of_case = units[case]
    return "?" if of_case is None else str(len(of_case))


def _units(grid: Grid, case: Case) -> list[_PlannedUnit] | None:
    """The units of the case, without its searches; None if a dataset is not here."""
    from natadv.evaluate.plan import shown_rows
    from natadv.evaluate.units import shards

    dataset = grid.datasets.get(case.dataset)
    if dataset is None or (dataset.card.twin_of or case.dataset) not in grid.datasets:
        return None
    return [
        _PlannedUnit(case.model, case.task, shown.dataset, shown.variant, start, stop)
        for shown in shown_rows(case, grid)
        for start, stop in shards(shown.rows)
    ]


@app.command(
    cls=opt.Command,
    epilog=opt.example("natadv merge shards --model siglip2-b16-224 --out evidence"),
)
def merge(
    roots: Annotated[list[Path], opt.argument("DIR", "evidence of runs, at any depth")],
    out: Annotated[Path, opt.output("gets the evidence of all of them")],
    model: Annotated[list[str] | None, opt.text("NAME...", "all models of the whole")] = None,
    matrix: Annotated[
        str | None, opt.text("JSON", "of natadv plan --matrix, which names all of them")
    ] = None,
    as_selected: Annotated[
        bool, opt.flag("--as-selected", "judge what these runs selected, not the whole tier")
    ] = False,
) -> int:
    """Put the evidence of several runs of one tier together, such as the jobs of a CI matrix, for
    `python -m natadv.gate --evidence OUT` to judge. A case that no run measured is INCOMPLETE.

    Exit codes: 0 written, 4 the runs do not belong together, or cannot be read.
    """
    from natadv.gate.merge import merge as merged_of

    models = opt.names_of(model)
    tier, named = _whole_of(matrix) if matrix else (None, ())
    merged = merged_of(roots, out, tier=tier, models=(*models, *named), as_selected=as_selected)
    runs, cases = counted(merged.folders, "run"), counted(len(merged.measured), "case")
    print(f"{out}: {cases} of {runs} of tier {merged.selection.tier}")
    return DONE


def _whole_of(matrix: str) -> tuple[str, tuple[str, ...]]:
    """The tier and the models of a line that `_matrix` made. Raises ConfigError."""
    try:
        jobs = json.loads(matrix)["include"]
        (tier,) = {str(job["tier"]) for job in jobs}
        return tier, tuple(dict.fromkeys(str(job["model"]) for job in jobs))
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"--matrix: expected the line that natadv plan --matrix prints, got {matrix[:60]!r}"
        ) from error

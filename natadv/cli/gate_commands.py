"""`natadv plan`, `natadv contract ...` and `natadv report`."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from natadv.cli import shared_options as opt
from natadv.errors import ConfigError
from natadv.report.html import write_report
from natadv.tasks import TASKS

if TYPE_CHECKING:
    from natadv.evaluate.grid import Grid
    from natadv.types import Case

ALIKE, WEAKER, WRONG_FILE = 0, 1, 4

app = opt.command_group()
contract = opt.command_group("Compare two versions of thresholds.yaml.")
app.add_typer(contract, name="contract")


_Names = Annotated[list[str] | None, opt.text("NAME...", "as pytest takes it")]


@app.command(cls=opt.Command, epilog="Example: natadv plan --model siglip2 --tier pr")
def plan(
    model: _Names = None,
    task: _Names = None,
    scenario: _Names = None,
    dataset: _Names = None,
    tier: Annotated[str | None, opt.text("NAME", "list of cases; default: the models' own")] = None,
    limit: opt.Limit = None,
    thresholds: Annotated[Path, opt.path("tiers and rules", metavar="FILE")] = Path(
        "thresholds.yaml"
    ),
    root: opt.Root = Path(),
) -> int:
    """Show which cases `pytest suites/` would measure with the same options, in how many units, and
    which models, datasets and heads are missing. Nothing is loaded or computed.

    Exit codes: 0 everything is here, 1 something is missing.
    """
    from natadv.evaluate.grid import Request, make_grid
    from natadv.evaluate.requirements import missing, script
    from natadv.gate.thresholds_file import load_thresholds

    models, tasks, scenarios, datasets = (
        tuple(name for given in values or () for name in opt.split_names(given))
        for values in (model, task, scenario, dataset)
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
    print(*_planned(grid), sep="\n")
    lacking = missing(grid, grid.cases)
    if lacking:
        counts = Counter(row.kind for row in lacking)
        listed = ", ".join(f"{n} {kind}{'s' * (n > 1)}" for kind, n in counts.items())
        print(f"\nmissing: {listed}; these commands get them:\n", *script(lacking), sep="\n")
    return 1 if lacking else 0


def _planned(grid: Grid) -> Iterator[str]:
    """A table of each task: the units of its cases, by model and dataset."""
    from natadv.evaluate.units import SHARD_ROWS

    yield f"tier {grid.tier.name}: {len(grid.lineages)} models, {len(grid.cases)} cases"
    ordered = sorted(grid.cases, key=lambda case: list(TASKS).index(case.task))
    for task, group in groupby(ordered, key=lambda case: case.task):
        cases = list(group)
        columns = list(dict.fromkeys((case.scenario, case.dataset) for case in cases))
        rows = [["", *(s for s, _ in columns)], [task, *(d for _, d in columns)]]
        for model in dict.fromkeys(case.model for case in cases):
            of_model = {(c.scenario, c.dataset): c for c in cases if c.model == model}
            cells = [_cell(grid, of_model.get(column)) for column in columns]
            rows.append([model, *cells])
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        yield ""
        for first, *others in rows:
            cells = [cell.rjust(w) for cell, w in zip(others, widths[1:], strict=True)]
            yield "  ".join([first.ljust(widths[0]), *cells]).rstrip()
    # Cases share units, such as those of their clean twins.
    units = {unit: unit[-1] - unit[-2] for case in ordered for unit in _units(grid, case) or ()}
    yield f"\n{len(units):,} units of up to {SHARD_ROWS} rows, {sum(units.values()):,} rows in all"
    if any(_units(grid, case) is None for case in ordered):
        yield "?: not known before the dataset and its clean twin are here"


def _cell(grid: Grid, case: Case | None) -> str:
    units = _units(grid, case) if case else None
    return "-" if case is None else "?" if units is None else str(len(units))


def _units(grid: Grid, case: Case) -> list[tuple[str, str, str, str, int, int]] | None:
    """The units of the case, without its searches; None if a dataset is not here."""
    from natadv.evaluate.plan import shown_rows
    from natadv.evaluate.units import shards

    dataset = grid.datasets.get(case.dataset)
    if dataset is None or (dataset.card.twin_of or case.dataset) not in grid.datasets:
        return None
    return [
        (case.model, case.task, shown.dataset, shown.variant, start, stop)
        for shown in shown_rows(case, grid)
        for start, stop in shards(shown.rows)
    ]


@contract.command(
    cls=opt.Command,
    short_help="whether the new one lets pass what the old one did not",
    epilog="Example: natadv contract diff <(git show main:thresholds.yaml)",
)
def diff(
    old: Annotated[Path, opt.argument("OLD")],
    new: Annotated[Path, opt.argument("NEW")] = Path("thresholds.yaml"),
) -> int:
    """Compare what two contracts ask of every case of every tier, even if they are written
    differently.

    Exit codes: 0 nothing is weaker, 1 something is, 4 a file is wrong.
    """
    from natadv.gate.contract import EFFECTS, differences
    from natadv.gate.thresholds_file import load_thresholds

    try:
        changes = differences(load_thresholds(old), load_thresholds(new))
    except ConfigError as error:
        print(f"natadv: {error}", file=sys.stderr)
        return WRONG_FILE
    if not changes:
        print("both contracts ask the same")
        return ALIKE
    for change in changes:
        print(change)
    counts = Counter(change.effect for change in changes)
    listed = ", ".join(f"{counts[effect]} {effect.lower()}" for effect in EFFECTS)
    print(f"{listed}: {'the gate lets more pass' if counts['WEAKER'] else 'nothing is weaker'}")
    return WEAKER if counts["WEAKER"] else ALIKE


@app.command(cls=opt.Command)
def report(
    results: Annotated[Path, opt.path("of the gate's last run")] = Path("allure-results"),
    out: Annotated[Path, opt.path("the page", metavar="FILE")] = Path("allure-report")
    / "index.html",
) -> None:
    """Write the last run's Allure results as one self-contained HTML page."""
    page = write_report(results, out, tools=Path(".natadv/tools").absolute())
    print(f"{page} ({page.stat().st_size / 1e6:.1f} MB)")

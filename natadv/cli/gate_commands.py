"""`natadv plan`, `natadv contract ...` and `natadv report`."""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

from natadv.cli import shared_options as opt
from natadv.config import section_of
from natadv.errors import ConfigError, counted
from natadv.report.html import write_report
from natadv.report.terminal import aligned
from natadv.tasks import TASKS

if TYPE_CHECKING:
    from natadv.evaluate.grid import Grid
    from natadv.gate.rules import Thresholds
    from natadv.types import Case

ALIKE, WEAKER, WRONG_FILE = 0, 1, 4

app = opt.command_group()
contract = opt.command_group(
    "Compare two versions of the contract, or write starter floors for it."
)
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
        listed = ", ".join(counted(n, kind) for kind, n in counts.items())
        print(f"\nmissing: {listed}; these commands get them:\n", *script(lacking), sep="\n")
    return 1 if lacking else 0


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
        yield from ("", *aligned(rows, right=range(1, len(rows[0]))))
    # Cases share units, such as those of their clean twins.
    each = {unit for of_case in units.values() for unit in of_case or ()}
    rows_in_all = counted(sum(stop - start for *_, start, stop in each), "row")
    yield f"\n{counted(len(each), 'unit')} of up to {SHARD_ROWS} rows, {rows_in_all} in all"
    if None in units.values():
        yield "?: not known before the dataset and its clean twin are here"


_PlannedUnits = list[tuple[str, str, str, str, int, int]]
"""Of model, task, dataset, variant, first row and the row after the last."""


def _cell(units: Mapping[Case, _PlannedUnits | None], case: Case | None) -> str:
    if case is None:
        return "-"
    of_case = units[case]
    return "?" if of_case is None else str(len(of_case))


def _units(grid: Grid, case: Case) -> _PlannedUnits | None:
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


_CONTRACT = "thresholds.yaml, or a git revision of it with the files that it includes"


def _contract_of(given: Path) -> Thresholds:
    """The contract in a file or, if there is no such file, of a git revision (`main`, `HEAD~3`).

    Raises ConfigError.
    """
    from natadv.gate.thresholds_file import load_thresholds

    # Keeps git from reading a revision as an option.
    found = ["git", "rev-parse", "--verify", "--quiet", "--end-of-options", f"{given}^{{commit}}"]
    if given.exists():
        return load_thresholds(given)
    if subprocess.run(found, capture_output=True, check=False).returncode:
        raise ConfigError(f"{given}: neither a file nor a revision of this git repository")
    with tempfile.TemporaryDirectory() as folder:
        archive = ["git", "archive", "--format=tar", f"{given}", ":(top,glob)**/*.yaml"]
        top = subprocess.run(
            ["git", "rev-parse", "--show-toplevel"], capture_output=True, text=True, check=True
        ).stdout.strip()
        packed = subprocess.run(archive, capture_output=True, check=True, cwd=top).stdout
        with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
            tar.extractall(folder, filter="data")
        try:
            return load_thresholds(Path(folder) / "thresholds.yaml")
        except ConfigError as error:
            raise ConfigError(str(error).replace(f"{folder}/", f"{given}:")) from error


@contract.command(
    cls=opt.Command,
    short_help="whether the new one lets more pass than the old one",
    epilog="Example: natadv contract diff main",
)
def diff(
    old: Annotated[Path, opt.argument("OLD", _CONTRACT)],
    new: Annotated[Path, opt.argument("NEW", _CONTRACT)] = Path("thresholds.yaml"),
) -> int:
    """Compare what two contracts ask of every case of every tier, even if they are written
    differently.

    Exit codes: 0 nothing is weaker, 1 something is, 4 a file is wrong.
    """
    from natadv.gate.contract import EFFECTS, differences

    try:
        changes = differences(_contract_of(old), _contract_of(new))
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


@contract.command(
    cls=opt.Command,
    short_help="floors for models that nobody has measured here yet",
    epilog="Example: natadv contract starters release pr paper --out thresholds/starters.yaml",
)
def starters(
    tiers: Annotated[list[str], opt.argument("TIER", "whose cases get a rule")],
    out: Annotated[Path, opt.path("gets the rules", metavar="FILE")],
    thresholds: Annotated[Path, opt.path("tiers and rules", metavar="FILE")] = Path(
        "thresholds.yaml"
    ),
    params: Annotated[Path, opt.path("rows of made datasets", metavar="FILE")] = Path(
        "params.yaml"
    ),
) -> int:
    """Write a starter floor for every case of some tiers: below the published number of the same
    model, fed in the same way, on the same pictures, or else just above chance.

    A measured rule (`python -m natadv.gate.calibrate`) replaces the starter on the same number.
    """
    from natadv.data.importers import FORMATS
    from natadv.gate.calibrate import above_chance, from_published, to_yaml
    from natadv.gate.rules import Rule
    from natadv.gate.thresholds_file import load_thresholds
    from natadv.models.listing import published
    from natadv.storage.atomic import replace_file
    from natadv.types import PAPER_SUFFIX

    tried = load_thresholds(thresholds, asserting=False)
    made = _made_datasets(params)
    numbers = {
        (n.model + PAPER_SUFFIX * (n.protocol == "paper"), n.dataset, n.metric): n
        for n in published()
    }
    rules: list[Rule] = []
    for case in dict.fromkeys(case for name in tiers for case in tried.tier(name).covered):
        origin = made.get(case.dataset, _Origin(case.dataset, case.dataset))
        task = TASKS[case.task]
        rows = origin.rows or (FORMATS[case.dataset].rows if case.dataset in FORMATS else 0)
        known = numbers.get((case.model, origin.same_pictures, task.headline))
        if known is not None and rows:
            source = f"{known.source}, {known.protocol}"
            rule = from_published(case.address, task.headline, known.value, n=rows, source=source)
        else:
            choices = _CHOICES.get(origin.first) if case.task == "classification" else None
            chance = 1 / choices if choices else 0.0
            rule = above_chance(case.address, task.headline, chance, n=rows or _FEW_ROWS)
        rules.append(rule)
    written = _STARTERS_HEAD + to_yaml(rules)
    replace_file(out, written.encode(), remedy="give another --out")
    by_number = sum(rule.starter == "published" for rule in rules)
    print(f"{out}: {len(rules)} starters, {by_number} of them from published numbers")
    return 0


_CHOICES = {"imagenet": 1000, "imagenet-a": 200, "rta-100": 100, "langadv": 10}
"""Classes to choose from, by dataset."""
_FEW_ROWS = 100
"""The rows that a starter assumes for a dataset whose size is unknown until it is made."""
_STARTERS_HEAD = """\
# Floors for models that nobody has measured here yet, written by `natadv contract starters`. Bounds
# of published numbers lie two half-widths of their interval below them, at least 0.02. All others
# are just above chance: they only find a model that does not work. A measured rule on the same
# number, as natadv.gate.calibrate prints it, replaces a starter.
"""


class _Origin(NamedTuple):
    """Where the pictures of a dataset come from."""

    first: str
    """The dataset at the beginning of the chain."""
    same_pictures: str
    """The dataset whose published numbers apply; empty if something was written on the pictures."""
    rows: int = 0
    """0 if only the published size is known."""


def _made_datasets(params: Path) -> dict[str, _Origin]:
    """The subsets and typographic sets that params.yaml describes."""
    found: dict[str, _Origin] = {}
    for section in ("subset", "typo"):
        for name, values in section_of(params, section, required=False).items():
            source, rows = str(values["source"]), int(values["rows"])
            first = found[source].first if source in found else source
            found[name] = _Origin(first, source if section == "subset" else "", rows)
    return found


@app.command(cls=opt.Command)
def report(
    results: Annotated[Path, opt.path("of the gate's last run")] = Path("allure-results"),
    out: Annotated[Path, opt.path("the page", metavar="FILE")] = Path("allure-report")
    / "index.html",
) -> None:
    """Write the last run's Allure results as one self-contained HTML page."""
    page = write_report(results, out, tools=Path(".natadv/tools").absolute())
    print(f"{page} ({page.stat().st_size / 1e6:.1f} MB)")

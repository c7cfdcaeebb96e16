"""thresholds.yaml and the files that it includes, read into a contract.

Anything in them that could make the gate judge less than was meant is an error.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import NamedTuple

from natadv import places
from natadv.config import Lines, Loc, line_of, load_config, mistakes_in, shown
from natadv.errors import ConfigError, listed, unknown_name
from natadv.factories import is_reference, slug
from natadv.gate.rules import (
    GLOB,
    CaseSet,
    Number,
    Rule,
    RuleIndex,
    SearchProfile,
    Thresholds,
    Tier,
    TierGrid,
    Waiver,
    place,
)
from natadv.gate.thresholds_schema import IncludedFile, ThresholdsFile, TierRow, case_name
from natadv.places import PACKAGED
from natadv.tasks import ANALYSES
from natadv.types import Case

COPIES = "natadv-thresholds"
"""Folder beside a contract with copies of such files, which are read instead: a contract that was
exported, or packed with evidence, stays what it was."""
MEASURE_FIRST = "measure first: pytest suites/ --no-assert, then natadv calibrate --write"

MOST_DAYS = 90
"""A waiver ends at most this many days after the day of the run: longer ones are never looked at
again."""


class ContractFile(NamedTuple):
    """A file that a contract consists of."""

    path: Path
    name: str
    """Its path from the folder of the contract; of a package, as `natadv:release.yaml`."""

    @property
    def copied_as(self) -> str:
        """Its path from the folder of a copy of the contract."""
        packaged = self.name.startswith(PACKAGED)
        return f"{COPIES}/{self.name.removeprefix(PACKAGED)}" if packaged else self.name


class _Source(NamedTuple):
    """A file of the contract and its content."""

    path: Path
    name: str
    """Empty for thresholds.yaml itself."""
    file: IncludedFile
    lines: Lines


def load_thresholds(path: Path, *, asserting: bool = True, today: date | None = None) -> Thresholds:
    """The contract in `path` and the files that it includes.

    With `asserting=False` a case needs no rule, as before the first calibration of a tier. Waivers
    that end too long after `today` are mistakes, if it is given. Raises ConfigError with file, line
    and key for each mistake.
    """
    if not path.exists():
        raise ConfigError(
            f"{path}: cannot be read: No such file or directory; run in the folder that holds the "
            "contract, or name it by --thresholds FILE"
        )
    main, lines = load_config(path, ThresholdsFile)
    sources = [_Source(path, "", main, lines)]
    for included in _included(path, main.include, lines):
        file, lines_of_file = load_config(included.path, IncludedFile)
        sources.append(_Source(*included, file, lines_of_file))
    tiers = _tiers_of(sources)
    rules = tuple(
        row.rule(line=line_of(("rules", i), source.lines), file=source.name)
        for source in sources
        for i, row in enumerate(source.file.rules)
    )
    waivers = tuple(
        Waiver(**row.model_dump(), line=line_of(("waivers", i), source.lines), file=source.name)
        for source in sources
        for i, row in enumerate(source.file.waivers)
    )
    if not tiers:
        raise ConfigError(f"{path}:{line_of(('tiers',), lines)}: tiers: expected at least 1 item")
    if asserting and not rules:
        at = f"{path}:{line_of(('rules',), lines)}"
        raise ConfigError(f"{at}: rules: expected at least 1 item; {MEASURE_FIRST}")
    if main.default_tier not in tiers:
        at = f"{path}:{line_of(('default_tier',), lines)}"
        raise ConfigError(f"{at}: the file: {unknown_name('tier', main.default_tier, tiers)}")
    cases = CaseSet(case for tier in tiers.values() for case in tier.covered)
    # Nobody can take a rule out of a package, whose files are for all of its tiers.
    rules = tuple(r for r in rules if not r.file.startswith(PACKAGED) or r.covers_any(cases))
    thresholds = Thresholds(main.default_tier, main.confidence, tiers, rules, waivers)
    mistakes = sorted(
        [*_mistakes(thresholds, sources, asserting), *_of_waivers(thresholds, sources, today)]
    )
    if mistakes:
        raise mistakes_in(path, [f"{file}:{line}: {reason}" for file, line, reason in mistakes])
    return thresholds


def contract_files(path: Path) -> tuple[ContractFile, ...]:
    """thresholds.yaml and the files that it includes. Raises ConfigError."""
    main, lines = load_config(path, ThresholdsFile)
    return (ContractFile(path, path.name), *_included(path, main.include, lines))


def _included(path: Path, patterns: Collection[str], lines: Lines) -> tuple[ContractFile, ...]:
    """The files that the patterns name, each once. Raises ConfigError if a pattern names none."""
    found: dict[Path, ContractFile] = {}
    if not path.is_file() and not all(pattern.startswith(PACKAGED) for pattern in patterns):
        line = line_of(("include",), lines)
        advice = "they cannot be found beside a pipe; give a file, or a git revision"
        raise ConfigError(f"{path}:{line}: it includes other files: {advice}")
    for i, pattern in enumerate(patterns):
        packaged = pattern.startswith(PACKAGED)
        folders, prefix = (_folders_of_package(path), PACKAGED) if packaged else ([path.parent], "")
        named = (_named_in(folder, pattern.removeprefix(prefix)) for folder in folders)
        files = next(filter(None, named), {})
        if not files:
            at = f"{path}:{line_of(('include', i), lines)}: include[{i}]"
            wanted = f"expected a file below {path.parent}/, or a glob of some"
            if packaged:
                known = sorted({name for folder in folders for name in _named_in(folder, "*.yaml")})
                wanted = f"expected {PACKAGED} and one of {listed(known, most=9) or 'no files'}"
            raise ConfigError(f"{at}: {wanted}, got {shown(pattern)}, which names none")
        for name, file in files.items():
            found.setdefault(file, ContractFile(file, prefix + name))
    found.pop(path, None)
    return tuple(found.values())


def _folders_of_package(path: Path) -> list[Path]:
    """Where files of the package are looked for by the contract in `path`, in turn."""
    return [path.parent / COPIES, *(root / "thresholds" for root in places.package_roots())]


def _named_in(folder: Path, pattern: str) -> dict[str, Path]:
    """Name -> file of what a pattern names in a folder, and not outside of it."""
    parts = Path(pattern).parts
    if not parts or Path(pattern).is_absolute() or ".." in parts:
        return {}
    files = (file for file in sorted(folder.glob(pattern)) if file.is_file())
    named = {file.relative_to(folder): file for file in files}
    # What is hidden is a backup, or being written: a glob must not make it a rule.
    seen = {name: all(p[0] != "." or p in parts for p in name.parts) for name in named}
    return {name.as_posix(): file for name, file in named.items() if seen[name]}


def _tiers_of(sources: Iterable[_Source]) -> dict[str, Tier]:
    """The tiers of all files, by name. Raises ConfigError if two have the same name."""
    tiers: dict[str, Tier] = {}
    for source in sources:
        for name, row in source.file.tiers.items():
            if name in tiers:
                at = f"{source.path}:{line_of(('tiers', name), source.lines)}"
                raise ConfigError(f"{at}: a second tier {name!r}; rename one")
            tiers[name] = _tier(name, row)
    return tiers


def _tier(name: str, row: TierRow) -> Tier:
    searches = {}
    for dataset, search in row.searches.items():
        population, subjects = search.population or dataset, tuple(search.subjects)
        changed = {"population": population, "subjects": subjects}
        searches[dataset] = SearchProfile(**search.model_dump() | changed)
    named = [model for grid in row.rows for model in grid.known]
    grids = tuple(
        TierGrid(
            models=tuple(map(case_name, grid.models)),
            cases=tuple(grid.cases),
            on_request=tuple(map(case_name, grid.on_request)),
        )
        for grid in row.rows
    )
    references = {slug(model): model for model in named if is_reference(model)}
    return Tier(name, grids, row.max_excluded, row.limit, searches, references)


def _mistakes(
    thresholds: Thresholds, sources: list[_Source], asserting: bool
) -> Iterator[tuple[str, int, str]]:
    """File, line and reason of what is wrong between the parts of the contract."""
    rules, tiers = thresholds.rules, thresholds.tiers
    paths = {source.name: str(source.path) for source in sources}
    first: dict[tuple[str, Number, bool], Rule] = {}
    for rule in rules:
        key = (rule.case, rule.number, rule.starter is None)
        if key in first:
            other = first[key]
            both = f"{rule.requires}, and {other.requires} in {place(other.file, other.line)}"
            reason = f"{rule.case}: a second rule on {rule.subject}: {both}; keep one"
            yield paths[rule.file], rule.line, reason
        first.setdefault(key, rule)
    covered = {name: tier.covered for name, tier in tiers.items()}
    cases = CaseSet(case for of_tier in covered.values() for case in of_tier)
    unruled = set(without_rule(thresholds)) if asserting else set()
    for rule in rules:
        if not rule.covers_any(cases):
            reason = f"{rule.case}: this rule covers no case of any tier"
            model = rule.case.rpartition("/")[2]
            if not GLOB & set(model) and model not in {case.model for case in cases.cases}:
                reason += f": none has the model {model!r}"
            yield paths[rule.file], rule.line, reason
    for source in sources if unruled else ():
        for name, row in source.file.tiers.items():
            for case in covered[name]:
                if case in unruled:
                    line = line_of(_loc(name, row, case), source.lines)
                    yield (
                        str(source.path),
                        line,
                        f"{case}: no rule covers this case of tier {name!r}; {MEASURE_FIRST}",
                    )


def without_rule(thresholds: Thresholds) -> list[Case]:
    """The cases of all tiers that need a rule and have none."""
    index = RuleIndex(thresholds.rules)
    cases = dict.fromkeys(case for tier in thresholds.tiers.values() for case in tier.covered)
    return [c for c in cases if c.task not in ANALYSES and not index.covering(c, c.model)]


def _of_waivers(
    thresholds: Thresholds, sources: list[_Source], today: date | None
) -> Iterator[tuple[str, int, str]]:
    """File, line and reason of each waiver that covers nothing, too long, or a second time."""
    paths = {source.name: str(source.path) for source in sources}
    cases = {case for tier in thresholds.tiers.values() for case in tier.covered}
    first: dict[tuple[str, str | None], Waiver] = {}
    for waiver in thresholds.waivers:
        at = paths[waiver.file], waiver.line
        if not any(map(waiver.covers, cases)):
            yield *at, f"{waiver.case}: this waiver covers no case of any tier"
        other = first.setdefault((waiver.case, waiver.metric), waiver)
        if other is not waiver:
            see = place(other.file, other.line)
            yield *at, f"{waiver.subject}: a second waiver, see {see}; keep one"
        if today is not None and waiver.expires - today > timedelta(days=MOST_DAYS):
            wanted = f"expected a day within {MOST_DAYS} days from {today}"
            yield *at, f"{waiver.subject}: expires: {wanted}, got {waiver.expires}"


def _loc(tier: str, row: TierRow, case: Case) -> Loc:
    """The line that asks for the case."""
    cell = case.cell
    for i, grid in enumerate(row.rows):
        known = map(case_name, grid.known)
        if cell in grid.cases and case.model in known:
            at: Loc = ("cases", grid.cases.index(cell))
            return ("tiers", tier, *at) if row.grids is None else ("tiers", tier, "grids", i, *at)
    raise AssertionError(f"{case} is of tier {tier}")

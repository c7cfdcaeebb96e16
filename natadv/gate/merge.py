"""Puts the evidence of several runs of one tier together, such as the jobs of a CI matrix."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

from natadv.errors import ConfigError
from natadv.evidence import (
    FILES,
    MANIFEST,
    REMEDY,
    RUN,
    Manifest,
    Selection,
    empty_evidence,
    folder_of,
    read_evidence,
    read_selection,
    write_selection,
)
from natadv.storage.atomic import writing
from natadv.storage.hashes import sha256_of
from natadv.types import Case


@dataclass(frozen=True, slots=True)
class Merged:
    """What the merged folder holds."""

    selection: Selection
    folders: int
    """How many runs were put together."""
    measured: tuple[Case, ...]
    """All cases with evidence, also those that were not selected: clean twins."""


def merge(
    roots: Sequence[Path],
    out: Path,
    *,
    tier: str | None = None,
    models: Sequence[str] = (),
    as_selected: bool = False,
) -> Merged:
    """Copy the evidence of all runs under `roots` into the folder `out`.

    A case that several runs measured must have the same rows in all of them.

    Args:
        roots: Evidence folders, or folders that hold some at any depth.
        out: Evidence of an earlier merge in it is replaced.
        tier: That the whole was planned for; that of the runs by default.
        models: That the whole was planned for; those of the runs by default. A run that left
            nothing behind is missed only if its model is named here.
        as_selected: Judge what these runs selected, and not every case of the tier.

    Raises:
        ConfigError: There is no run, or the runs do not belong together.
        StoreError: Evidence cannot be read, or `out` cannot be written.
    """
    runs = dict(run for root in roots for run in _runs_under(root))
    selection = _common(runs, tier=tier, models=models, as_selected=as_selected)
    found: dict[Case, Path] = {}
    for folder, own in runs.items():
        for path in sorted(p for p in folder.iterdir() if p.is_dir()):
            case = _checked(path, found, runs)
            # A run that kept the case as the twin of another one has less of it.
            if case not in found or case in own.cases:
                found[case] = path
    if os.path.realpath(out) in set(map(os.path.realpath, runs)):
        raise ConfigError(f"{out}: is one of the folders to merge; give another --out DIR")
    empty_evidence(out)
    with writing(out, remedy=REMEDY):
        for case, path in found.items():
            shutil.copytree(path, folder_of(out, case))
    # Last, as in a run: a merge that was interrupted does not count as whole.
    write_selection(out, selection)
    return Merged(selection, len(runs), tuple(sorted(found)))


def _runs_under(root: Path) -> Iterator[tuple[Path, Selection]]:
    """The folders of evidence at or below `root`, and what each run was asked to judge."""
    folders = sorted(path.parent for path in root.rglob(RUN) if path.is_file())
    if not folders:
        raise ConfigError(
            f"{root}: holds no {RUN}, so it is not the evidence of a run that ended; name the "
            "--evidence folders of the runs"
        )
    for folder in folders:
        selection = read_selection(folder)
        assert selection is not None, folder
        yield folder, selection


def _common(
    runs: dict[Path, Selection], *, tier: str | None, models: Sequence[str], as_selected: bool
) -> Selection:
    """One selection for all runs. Raises ConfigError if they were runs of several tiers."""
    tiers = {selection.tier: folder for folder, selection in runs.items()}
    if len(tiers) > 1:
        (one, folder), (other, elsewhere) = list(tiers.items())[:2]
        raise ConfigError(
            f"{folder} is a run of tier {one}, {elsewhere} one of tier {other}; merge the runs of "
            "one tier"
        )
    if tier is not None and tier not in tiers:
        of = next(iter(tiers))
        raise ConfigError(f"the runs are of tier {of}, planned was {tier}; merge those of the plan")
    selected = dict.fromkeys(case for s in runs.values() for case in s.cases)
    named = dict.fromkeys(model for s in runs.values() for model in s.models)
    if models and (others := sorted(set(named) - set(models))):
        raise ConfigError(
            f"the runs measured {', '.join(others)}, which no --model names; name all models of "
            "the whole"
        )
    problems = [f"{folder}: {why}" for folder, s in runs.items() for why in s.problems]
    return Selection(
        next(iter(tiers)),
        tuple(models) or tuple(named),
        tuple(selected),
        whole=not as_selected,
        problems=tuple(problems),
    )


def _checked(path: Path, found: dict[Case, Path], runs: dict[Path, Selection]) -> Case:
    """The case in the folder. Raises ConfigError if another run measured it otherwise."""
    manifest = read_evidence(path).manifest
    case = manifest.case
    if case not in found:
        return case
    one = found[case]
    as_twin = any(case not in runs[run].cases for run in (one.parent, path.parent))
    if why := _difference(one, path, manifest, as_twin=as_twin):
        raise ConfigError(
            f"{case}: {one.parent} and {path.parent} have other {why}; merge runs of the "
            "same models, data and code, or let each case be measured by one of them"
        )
    return case


def _difference(one: Path, other: Path, manifest: Manifest, *, as_twin: bool) -> str:
    """What differs between two measurements of a case; empty if nothing that is judged does.
    `as_twin` compares what a run keeps of the twins of its cases: no twins and controls of them."""
    ours, theirs = read_evidence(one).manifest, manifest
    digests = [_digests(one), _digests(other)]
    if as_twin:
        ours, theirs = (replace(m, twin_of=None) for m in (ours, theirs))
        digests = [{name: of[name] for name in of if name == FILES["attack"]} for of in digests]
    # The machines may differ, if the rows do not.
    ours, theirs = (replace(m, facts={}) for m in (ours, theirs))
    if ours != theirs:
        columns = [column.name for column in fields(Manifest)]
        different = [name for name in columns if getattr(ours, name) != getattr(theirs, name)]
        return " and ".join(name.replace("_", " ") for name in different)
    return "" if digests[0] == digests[1] else "outcome rows"


def _digests(folder: Path) -> dict[str, str]:
    return {path.name: sha256_of(path) for path in folder.iterdir() if path.name != MANIFEST}

"""`natadv contract ...`, `natadv calibrate` and `natadv whatif`."""

from __future__ import annotations

import argparse
import difflib
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from natadv import arguments, git
from natadv.cli import shared_options as opt
from natadv.config import section_of
from natadv.errors import ConfigError, counted, listed
from natadv.exit_codes import DONE, NOT_GREEN

if TYPE_CHECKING:
    from natadv.gate.calibrate import Placed
    from natadv.gate.ratchet import Ratchet
    from natadv.gate.rules import Rule, Thresholds
    from natadv.gate.starters import Origin

app = opt.command_group()
contract = opt.command_group(
    "Compare two versions of the contract, take one out of git, or write starter floors for it."
)
app.add_typer(contract, name="contract")

_CONTRACT = "thresholds.yaml, or a git revision of it with the files that it includes"


def _contract_of(given: Path, *, today: date | None = None) -> Thresholds:
    """The contract in a file or, if there is no such file, of a git revision (`main`, `HEAD~3`).

    Raises ConfigError; if `today` is given, also for waivers that end too long after it.
    """
    from natadv.gate.thresholds_file import load_thresholds

    if given.exists():
        return load_thresholds(given, today=today)
    with tempfile.TemporaryDirectory() as folder:
        git.extract(str(given), Path(folder), patterns=["**/*.yaml"], folders=[])
        try:
            return load_thresholds(Path(folder) / opt.CONTRACT, today=today)
        except ConfigError as error:
            raise ConfigError(str(error).replace(f"{folder}/", f"{given}:")) from error


@contract.command(
    cls=opt.Command,
    short_help="the contract and the baselines of a git revision, as files",
    epilog=opt.example("natadv contract export origin/main --out .natadv/trusted"),
)
def export(
    revision: Annotated[str, opt.argument("REVISION", "such as origin/main")],
    out: Annotated[Path, opt.output("gets thresholds.yaml; must not exist")],
) -> int:
    """Write thresholds.yaml, the files that it includes (waivers too) and baselines/ as a git
    revision has them, so that a change cannot loosen what it is judged by.

    Exit codes: 0 written, 4 the revision has no contract that can be read.
    """
    from natadv.gate.kept_baselines import BASELINES
    from natadv.gate.thresholds_file import contract_files, load_thresholds

    if out.exists():
        raise ConfigError(f"{out} exists; remove it, or give another --out DIR")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        try:
            git.extract(revision, folder, patterns=["**/*.yaml"], folders=[BASELINES])
            load_thresholds(folder / opt.CONTRACT)
        except ConfigError as error:
            raise ConfigError(str(error).replace(f"{folder}/", f"{revision}:")) from error
        for file in contract_files(folder / opt.CONTRACT):
            copied = out / file.copied_as
            copied.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file.path, copied)
        if (baselines := folder / BASELINES).is_dir():
            shutil.copytree(baselines, out / BASELINES)
    print(f"{out}: the contract of {revision}")
    return DONE


@contract.command(
    cls=opt.Command,
    short_help="whether the new one lets more pass than the old one",
    epilog=opt.example("natadv contract diff main"),
)
def diff(
    old: Annotated[Path, opt.argument("OLD", _CONTRACT)],
    new: Annotated[Path, opt.argument("NEW", _CONTRACT)] = opt.CONTRACT,
) -> int:
    """Compare what two contracts ask of every case of every tier, even if they are written
    differently.

    Exit codes: 0 nothing is weaker, 1 something is, 4 a file is wrong.
    """
    from natadv.gate.contract import EFFECTS, differences

    changes = differences(_contract_of(old), _contract_of(new))
    if not changes:
        print("both contracts ask the same")
        return DONE
    for change in changes:
        opt.tell(str(change))
    counts = Counter(change.effect for change in changes)
    listed = ", ".join(f"{counts[effect]} {effect.lower()}" for effect in EFFECTS)
    print(f"{listed}: {'the gate lets more pass' if counts['WEAKER'] else 'nothing is weaker'}")
    return NOT_GREEN if counts["WEAKER"] else DONE


@contract.command(
    cls=opt.Command,
    short_help="floors for models that nobody has measured here yet",
    epilog=opt.example("natadv contract starters release --out thresholds/starters.yaml"),
)
def starters(
    tiers: Annotated[list[str], opt.argument("TIER", "whose cases get a rule")],
    out: Annotated[Path, opt.output("gets the rules", metavar="FILE")],
    thresholds: opt.Thresholds = opt.CONTRACT,
    params: Annotated[Path, opt.path("rows of made datasets", metavar="FILE")] = Path(
        "params.yaml"
    ),
) -> int:
    """Write a starter floor for every case of some tiers: below the published number of the same
    model, fed in the same way, on the same pictures, or else just above chance.

    A measured rule (`natadv calibrate`) replaces the starter on the same number.
    """
    from natadv.gate.calibrate import to_yaml
    from natadv.gate.starters import HEAD, PublishedNumber, starter_rules
    from natadv.gate.thresholds_file import load_thresholds
    from natadv.models.listing import published
    from natadv.storage.atomic import replace_file
    from natadv.types import PAPER_SUFFIX

    tried = load_thresholds(thresholds, asserting=False)
    numbers = {
        (n.model + PAPER_SUFFIX * (n.protocol == "paper"), n.dataset, n.metric): PublishedNumber(
            n.value, f"{n.source}, {n.protocol}"
        )
        for n in published()
    }
    cases = dict.fromkeys(case for name in tiers for case in tried.tier(name).covered)
    rules = list(starter_rules(cases, origins=_origins(params), numbers=numbers))
    replace_file(out, (HEAD + to_yaml(rules)).encode(), remedy="give another --out")
    by_number = sum(rule.starter == "published" for rule in rules)
    print(f"{out}: {len(rules)} starters, {by_number} of them from published numbers")
    return DONE


def _origins(params: Path) -> dict[str, Origin]:
    """Of the published datasets, and of the subsets and typographic sets that params.yaml makes."""
    from natadv.data.importers import FORMATS
    from natadv.gate.starters import Origin

    found = {name: Origin(name, name, form.rows) for name, form in FORMATS.items()}
    for section in ("subset", "typo"):
        for name, values in section_of(params, section, required=False).items():
            source, rows = str(values["source"]), int(values["rows"])
            first = found[source].first if source in found else source
            found[name] = Origin(first, source if section == "subset" else "", rows)
    return found


def _day(given: str) -> date:
    """A day, or a usage error."""
    try:
        return arguments.day(given)
    except argparse.ArgumentTypeError as error:
        raise typer.BadParameter(str(error)) from error


_Date = Annotated[
    date | None, typer.Option("--date", parser=_day, metavar="DATE", help="default: today, UTC")
]
_Evidence = Annotated[Path, opt.path("of the gate's last run")]


@app.command(
    cls=opt.Command,
    short_help="raise measured rules to what the last run has reached",
    epilog=opt.example("natadv calibrate --write"),
)
def calibrate(
    evidence: _Evidence = opt.EVIDENCE,
    thresholds: Annotated[Path, opt.path("tiers and rules", metavar="FILE")] = opt.CONTRACT,
    part: Annotated[
        str | None, opt.text("PART", "also rules on this part of the clean datasets")
    ] = None,
    write: Annotated[
        bool, opt.flag("--write", "add rules for cases without a measured one, and their tiers")
    ] = False,
    out: Annotated[
        Path | None, opt.output("a new file for these rules instead", metavar="FILE")
    ] = None,
    day: _Date = None,
    allow_lower: Annotated[
        bool, opt.flag("--allow-lower", "let rules become weaker; needs --reason")
    ] = False,
    reason: Annotated[
        str | None, opt.text("TEXT", "why they may; it becomes part of their source")
    ] = None,
    dry_run: Annotated[
        bool, opt.flag("--dry-run", "show what would change in the files, and write none")
    ] = False,
) -> int:
    """Write what a run has measured into the rules that were measured before: a stricter bound with
    its measurement as the source, in the file that has the rule. A rule whose source does not begin
    with "measured" was chosen by somebody, and stays; it is named if it could be stricter.

    With --write, cases that have no measured rule get one in thresholds.yaml, which is made if it
    is not there. A model that no tier has gets a tier of its name with the cases that the run
    selected. The evidence must be that of a whole run, of all samples.

    Exit codes: 0 done, 1 a case has no rule yet, 4 the evidence is flawed, or a file is wrong.
    """
    from natadv.gate.calibrate import placed, proposals, weaker_than_published
    from natadv.gate.ratchet import ratchet
    from natadv.gate.waivers import today_utc

    if write and out is not None:
        raise typer.BadParameter("--write and --out FILE are two places for the same rules")
    _check_reason(reason, allow_lower=allow_lower)
    known = _known(thresholds, may_be_new=write)
    found = proposals(evidence, str(day or today_utc()), part)
    moved = ratchet(found.rules, known, lower_because=reason)
    files = _edited(moved, thresholds)
    if moved.new and (write or out):
        moved = _of_whole_run(moved, known, evidence, thresholds=thresholds, write=write)
    new = placed(moved.new, known)
    if write:
        files |= _extended(files, new, thresholds)
    elif out is not None:
        files |= _separate(moved, known, out)
    remarks = [*found.without, *weaker_than_published(moved.new, known)]
    if write:
        moved = replace(moved, new=new.rules)
        remarks += _of_no_tier(new.outside)
    _tell(moved, thresholds if write else out, remarks=remarks, dry_run=dry_run)
    _write(files, dry_run=dry_run, shown=dry_run or write)
    return _whether_all_have_rules(known, new) if write else DONE


def _check_reason(reason: str | None, *, allow_lower: bool) -> None:
    if allow_lower != (reason is not None):
        raise typer.BadParameter("--allow-lower and --reason TEXT need each other")
    if reason is not None and not (any(map(str.isalnum, reason)) and reason.isprintable()):
        raise typer.BadParameter(f"--reason: expected words in one line, got {reason!r}")


def _of_no_tier(outside: Sequence[Rule]) -> Iterator[str]:
    cases = [*dict.fromkeys(rule.case for rule in outside)]
    if cases:
        rules = counted(len(outside), "rule")
        named = listed(cases, most=1)
        yield f"{rules} not written, as no tier of the model has the case: {named}"


def _known(thresholds: Path, *, may_be_new: bool) -> Thresholds:
    """The contract; an empty one if the file is still to be made. Raises ConfigError."""
    from natadv.gate.rules import Thresholds
    from natadv.gate.thresholds_file import load_thresholds

    if may_be_new and not thresholds.exists():
        return Thresholds(default_tier="", confidence=0.95, tiers={}, rules=())
    return load_thresholds(thresholds, asserting=False)


def _of_whole_run(
    moved: Ratchet, known: Thresholds, evidence: Path, *, thresholds: Path, write: bool
) -> Ratchet:
    """Raises NatadvError if the evidence is no ground for new rules. What is written into the
    contract itself must come from one run, and be about the cases that it selected; a file of its
    own may also hold rules for their twins, and for evidence that was assembled by hand."""
    from natadv.data.card import find_datasets
    from natadv.evidence import read_selection
    from natadv.gate.calibrate import cases_of_whole_run

    if not write and read_selection(evidence) is None:
        return moved
    cards = find_datasets(thresholds.parent)
    cases = {case.address for case in cases_of_whole_run(evidence, known, cards=cards)}
    new = tuple(rule for rule in moved.new if not write or rule.case in cases)
    return replace(moved, new=new)


def _separate(moved: Ratchet, known: Thresholds, out: Path) -> dict[Path, str]:
    """A new file for the rules of a calibration, if there are any. Raises ConfigError."""
    from natadv.gate.calibrate import tiers_of_others, to_yaml

    if out.exists():
        raise ConfigError(f"{out}: is there already; give another --out, or remove it")
    return {out: to_yaml(moved.new, tiers=tiers_of_others(moved.new, known))} if moved.new else {}


_NEW_CONTRACT = """\
# What must run (tiers) and what must hold (rules), written by natadv calibrate --write.
version: 1
default_tier: {tier}
"""


def _extended(files: Mapping[Path, str], new: Placed, thresholds: Path) -> dict[Path, str]:
    """The contract with new rules and their tiers, if there are any. Raises ConfigError."""
    from natadv.gate.ratchet import extended

    if not new.rules:
        return {}
    text = files.get(thresholds) or _text(thresholds)
    text = text or _NEW_CONTRACT.format(tier=next(iter(new.tiers)))
    added = extended(text, new.rules, tiers=new.tiers, where=str(thresholds))
    return {thresholds: added}


def _whether_all_have_rules(known: Thresholds, new: Placed) -> int:
    """`NOT_GREEN` if a case of the contract has no rule after the new ones were added, which pytest
    refuses; else `DONE`."""
    from natadv.gate.rules import Tier
    from natadv.gate.thresholds_file import without_rule

    added = {name: Tier(name, (grid,)) for name, grid in new.tiers.items()}
    after = replace(known, tiers={**known.tiers, **added}, rules=(*known.rules, *new.rules))
    if lacking := without_rule(after):
        print(
            f"{counted(len(lacking), 'case')} without a rule, so that pytest refuses the contract: "
            f"{listed([*map(str, lacking)])}; measure them, or take them out of their tiers",
            file=sys.stderr,
        )
    return NOT_GREEN if lacking else DONE


def _tell(moved: Ratchet, out: Path | None, *, remarks: Sequence[str], dry_run: bool) -> None:
    """Print each rule that moves, stays although its measurement is lower, or has room."""
    for remark in remarks:
        print(remark, file=sys.stderr)
    opt.tell(*map(str, moved.moves))
    for kept in moved.kept:
        opt.tell(f"{'kept':8} {kept.would}")
    for room in moved.slack:
        opt.tell(f"{'slack':8} {room.could}")
    of_new = f"in {out}" if out else "not written without --write or --out FILE"
    counts = {
        f"{counted(len(moved.moves), 'rule')} {'would move' if dry_run else 'moved'}": True,
        f"{moved.unchanged} unchanged": bool(moved.unchanged),
        f"{len(moved.kept)} kept stricter than their measurement": bool(moved.kept),
        f"{len(moved.slack)} of others could be stricter": bool(moved.slack),
        f"{len(moved.new)} new, {of_new}": bool(moved.new),
    }
    opt.tell(", ".join(text for text, holds in counts.items() if holds))
    if any(not kept.stricter for kept in moved.kept):
        print("to let rules become weaker: --allow-lower --reason TEXT")


def _edited(moved: Ratchet, thresholds: Path) -> dict[Path, str]:
    """The files of the contract that change, with their new text. Raises ConfigError."""
    from natadv.gate.ratchet import rewritten
    from natadv.places import PACKAGED

    files = {}
    for name in dict.fromkeys(move.before.file for move in moved.moves):
        if name.startswith(PACKAGED):
            raise ConfigError(f"{name}: is a file of natadv itself; include a copy of it instead")
        path = thresholds.parent / name if name else thresholds
        own = [move for move in moved.moves if move.before.file == name]
        files[path] = rewritten(_text(path), own, where=str(path))
    return files


def _text(path: Path) -> str:
    """Its text with the line ends that it has; empty if there is no such file."""
    return path.read_bytes().decode() if path.exists() else ""


def _write(files: Mapping[Path, str], *, dry_run: bool, shown: bool) -> None:
    """Write the files, unless they are only `shown` as they would differ."""
    from natadv.storage.atomic import replace_file

    for path, text in files.items():
        if shown:
            sides = (_text(path).splitlines(), text.splitlines())
            names = (str(path), f"{path} (calibrated)")
            print(*difflib.unified_diff(*sides, *names, n=1, lineterm=""), sep="\n")
        if not dry_run:
            replace_file(path, text.encode(), remedy="make it writable, or calibrate a copy")
            print(f"wrote {path}")


@app.command(
    cls=opt.Command,
    short_help="what another contract would change in the verdict of the last run",
    epilog=opt.example("natadv whatif --thresholds stricter.yaml"),
)
def whatif(
    thresholds: Annotated[Path, opt.path(f"the other one: {_CONTRACT}", metavar="NEW")],
    evidence: _Evidence = opt.EVIDENCE,
    against: Annotated[Path, opt.path(_CONTRACT, metavar="OLD")] = opt.CONTRACT,
    tier: Annotated[str | None, opt.text("NAME", "default: that of the run")] = None,
    day: _Date = None,
) -> int:
    """Judge stored evidence by two contracts, and print every verdict that differs. No model is
    loaded. Rules on losses are INCOMPLETE in both, as there is no baseline.

    Exit codes: 0 nothing gets worse, 1 something does, 4 a file is wrong.
    """
    from natadv.gate.stored import cards_for, stored_run
    from natadv.gate.waivers import today_utc
    from natadv.gate.whatif import changes, worsens

    today = day or today_utc()
    old, new = (_contract_of(given, today=today) for given in (against, thresholds))
    run = stored_run(evidence, cards=cards_for(against))
    before, after = (run.judged(one, tier=tier, today=today).verdict for one in (old, new))
    found = list(changes(before, after))
    opt.tell(*map(str, found))
    run_level = f"the run: {before.overall.upper()} -> {after.overall.upper()}"
    print(f"{counted(len(found), 'verdict')} would change; {run_level}")
    return NOT_GREEN if worsens(before, after) else DONE

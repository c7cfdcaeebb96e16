"""`natadv bless` and `natadv compare`."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from natadv import git
from natadv.cli import shared_options as opt
from natadv.errors import ConfigError, NatadvError, counted
from natadv.exit_codes import DONE, NOT_GREEN
from natadv.report.markdown import markdown_table
from natadv.report.terminal import GAP, NOTHING, aligned
from natadv.storage.atomic import replace_file
from natadv.wrapping import WIDTH

if TYPE_CHECKING:
    from natadv.gate.baseline import BaselineJudgement
    from natadv.gate.comparison import ChangedSample, ComparedRuns
    from natadv.types import Case

LONGEST_ID = 58
"""Characters of a sample's id in a list, so that it can be looked up."""

HEAD = ("", "case", "n", "lost", "gained", "difference [95 % interval]", "p")
SAMPLE_HEAD = ("sample", "truth", "said before", "says now")

app = opt.command_group()


@app.command(cls=opt.Command, epilog=opt.example("natadv bless --as release-1.4"))
def bless(
    run: Annotated[Path, opt.argument("RUN", "evidence of a green run")] = opt.EVIDENCE,
    name: Annotated[
        str | None, opt.text("NAME", "of the baseline; default: the tier's", "--as")
    ] = None,
    gate_json: Annotated[Path, opt.path("the verdict of that run", metavar="FILE")] = opt.GATE_JSON,
    partial: Annotated[
        bool, opt.flag("--partial", "also keep a run that judged a part of its tier")
    ] = False,
    replace: Annotated[
        bool, opt.flag("--replace", "give up the baseline that has that name")
    ] = False,
    root: Annotated[Path, opt.root("holds baselines/; default: here")] = Path(),
) -> None:
    """Keep a green run as a baseline: its rows in baselines/NAME, with who kept it, when, and its
    verdict. A baseline that is there gets the cases that it lacks.
    """
    from natadv.bundle.bless import bless as keep
    from natadv.evidence import read_selection
    from natadv.gate.kept_baselines import BASELINES, read_record

    if name is None:
        selection = read_selection(run)
        # Without a selection the run is refused anyway, with a better reason.
        name = selection.tier if selection else "baseline"
    if not re.fullmatch(r"[A-Za-z0-9][\w.@-]*", name):
        raise ConfigError(f"expected a name of letters, digits and . _ @ -, got --as {name!r}")
    kept = keep(
        run,
        gate_json=gate_json,
        folder=root / BASELINES / name,
        by=git.author(),
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        partial=partial,
        replacing=replace,
    )
    last = read_record(kept.folder)[-1]
    size = f"{counted(kept.rows, 'row')}, {kept.size_bytes / 1e6:.1f} MB"
    print(f"{kept.folder}: {counted(len(kept.cases), 'case')}, {size}")
    if not kept.added:
        print("it had all of them, so nothing was changed")
        return
    opt.tell(
        f"added {counted(len(kept.added), 'case')} of run {last.run}, {last.verdict.upper()}: "
        f"{last.extent}, kept by {last.by}"
    )
    opt.tell(f"commit it (git add {kept.folder}), or give it to DVC (dvc add {kept.folder})")


@app.command(cls=opt.Command, epilog=opt.example("natadv compare release-1.4 .natadv/evidence"))
def compare(
    before: Annotated[str, opt.argument("A", "a baseline's name, or a folder of evidence")],
    after: Annotated[str, opt.argument("B", "another one")],
    model: Annotated[
        list[str] | None, opt.text("OLD=NEW...", "compare model OLD of A with model NEW of B")
    ] = None,
    samples: Annotated[int, opt.count("newly failing samples shown of each case")] = 10,
    every: Annotated[bool, opt.flag("--all", "show all of them")] = False,
    max_excluded: Annotated[
        float,
        opt.number("of samples that may have failed", "SHARE", lambda v: 0 <= v < 1, "0 to 1"),
    ] = 0.0,
    markdown: Annotated[
        Path | None, opt.output("gets a report with pictures", metavar="FILE")
    ] = None,
    json_file: Annotated[
        Path | None, opt.output("gets all numbers and samples", "--json", metavar="FILE")
    ] = None,
    root: Annotated[Path, opt.root("holds baselines/ and fixtures/; default: here")] = Path(),
) -> int:
    """Compare two runs sample by sample: which samples of each case are newly failing, and whether
    more of them are than chance explains.

    Exit codes: 0 nothing got significantly worse, 1 a case did or could not be compared, 4 a folder
    or a name is wrong.
    """
    from natadv.gate.comparison import compare_runs
    from natadv.gate.kept_baselines import baseline_folder

    most = None if every else samples
    folders = [baseline_folder(given, here=Path(), root=root) for given in (before, after)]
    runs = compare_runs(*folders, models=_pairs(model or ()), max_excluded=max_excluded)
    print(*_report(runs, most=most), sep="\n")
    if json_file is not None:
        _write(json_file, json.dumps(runs.as_json(), indent=1, allow_nan=False) + "\n")
    if markdown is not None:
        title = f"{before} → {after}"
        _write_markdown(markdown, runs, title=title, most=most, root=root)
    return DONE if runs.overall in ("pass", "partial") else NOT_GREEN


def _pairs(given: Sequence[str]) -> dict[str, str]:
    """Model of A -> model of B. Raises ConfigError if one is named twice."""
    pairs: dict[str, str] = {}
    for text in given:
        old, equals, new = (part.strip() for part in text.partition("="))
        if not (equals and old and new) or old in pairs or new in pairs.values():
            raise ConfigError(f"--model takes OLD=NEW, each model once, got {text!r}")
        pairs[old] = new
    return pairs


def _report(runs: ComparedRuns, *, most: int | None) -> Iterator[str]:
    """Lines for the terminal, at most `WIDTH` wide: tables, reasons, samples, the verdict."""
    for title, judgements in _blocks(runs):
        rows = [HEAD, *map(_cells, judgements)]
        others = (max(len(row[i]) for row in rows) + len(GAP) for i in (0, 2, 3, 4, 5, 6))
        room = WIDTH - sum(others)
        cut = [(row[0], _shortened(row[1], room), *row[2:]) for row in rows]
        yield from (_shortened(title, WIDTH), *aligned(cut, right=(2, 3, 4, 5, 6)), "")
    for judged in _worse(runs):
        failing = runs.newly_failing(judged)
        yield from textwrap.wrap(f"{judged.case}: {_lost(judged, failing)}", WIDTH)
        shown = failing[:most]
        yield from aligned([SAMPLE_HEAD, *_short_texts(shown)], right=())
        if len(failing) > len(shown):
            yield f"and {len(failing) - len(shown)} more (--all)"
        yield ""
    for judged in runs.verdict.cases:
        if judged.state != "COMPARED":
            yield from textwrap.wrap(f"{judged.label} {judged.reason}", WIDTH)
    yield from textwrap.wrap(_last_line(runs), WIDTH)


def _blocks(runs: ComparedRuns) -> list[tuple[str, list[BaselineJudgement]]]:
    """Task and models -> their cases, the worst first, also among the blocks."""
    ordered = sorted(runs.verdict.cases, key=_severity)
    blocks: dict[str, list[BaselineJudgement]] = {}
    for judged in ordered:
        old = runs.before.get(judged.case)
        models = judged.case.model
        if old is not None and old.case.model != models:
            models = f"{old.case.model} -> {models}"
        blocks.setdefault(f"{judged.case.task}, {models}", []).append(judged)
    return list(blocks.items())


def _severity(judged: BaselineJudgement) -> tuple[int, float, float, str]:
    order = ("FAIL", "MISSING", "INCOMPLETE", "NEW", "PASS")
    p = 1.0 if judged.p_adjusted is None else judged.p_adjusted
    difference = judged.comparison.difference if judged.comparison else 0.0
    return order.index(judged.label), p, difference, judged.case.address


def _cells(judged: BaselineJudgement) -> tuple[str, ...]:
    case, found = judged.case, judged.comparison
    place = f"{case.scenario}/{case.dataset}"
    if found is None or judged.p_adjusted is None:
        return (judged.label, place, *[NOTHING] * 5)
    difference = f"{found.difference:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"
    counts = (str(found.n), str(len(found.new_flips)), str(len(found.fixed)))
    return (judged.label, place, *counts, difference, f"{judged.p_adjusted:.2g}")


def _worse(runs: ComparedRuns) -> list[BaselineJudgement]:
    """The cases that got worse, the worst first."""
    worse = [judged for judged in runs.verdict.cases if judged.verdict == "FAIL"]
    return sorted(worse, key=_severity)


def _lost(judged: BaselineJudgement, failing: Sequence[ChangedSample]) -> str:
    are = "is" if len(failing) == 1 else "are"
    return f"{counted(len(failing), 'sample')} {are} newly failing (p {judged.p_adjusted:.2g})"


def _short_texts(samples: Sequence[ChangedSample]) -> list[tuple[str, ...]]:
    """The samples as rows of a table that is at most `WIDTH` wide."""
    longest = min(LONGEST_ID, max((len(sample.id) for sample in samples), default=0))
    room = (WIDTH - longest - 3 * len(GAP)) // 3
    return [
        (
            _shortened(sample.id, longest),
            *(_shortened(" ".join(text.split()), room) or "(nothing)" for text in sample[1:]),
        )
        for sample in samples
    ]


def _shortened(text: str, room: int) -> str:
    """At most so many characters: the end of a name tells more than its middle."""
    if len(text) <= room:
        return text
    half = (room - 1) // 2
    return f"{text[: room - 1 - half]}…{text[-half:]}"


def _last_line(runs: ComparedRuns) -> str:
    cases = runs.verdict.cases
    counts = {
        "got worse": sum(case.verdict == "FAIL" for case in cases),
        "could not be compared": sum(case.verdict == "INCOMPLETE" for case in cases),
        "new": sum(case.state == "NEW" for case in cases),
    }
    compared = [case for case in cases if case.state == "COMPARED"]
    summary = ", ".join(f"{n} {what}" for what, n in counts.items() if n) or "none got worse"
    family = f"p is one-sided, by Holm over {counted(len(compared), 'case')}; FAIL from 0.025 down"
    rest = ""
    if runs.only_before:
        rest = f"; {counted(len(runs.only_before), 'case')} of A not in B"
    return f"{runs.overall.upper()}: of {counted(len(cases), 'case')} {summary}{rest} ({family})"


def _write(path: Path, text: str) -> None:
    replace_file(path, text.encode(), remedy="give another FILE")
    print(path)


def _write_markdown(
    path: Path, runs: ComparedRuns, *, title: str, most: int | None, root: Path
) -> None:
    """Write the report, and a contact sheet beside it for each case that got worse."""
    sheets = {judged.case: _sheet(runs, judged, root=root) for judged in _worse(runs)}
    names: dict[Case, str] = {}
    for case, sheet in sheets.items():
        if isinstance(sheet, bytes):
            name = names[case] = f"{path.stem}-{case.file_stem}.png"
            replace_file(path.with_name(name), sheet, remedy="give another FILE")
            print(path.with_name(name))
        else:
            opt.tell(f"{case}: no pictures: {sheet}")
    lines = [f"# {_escaped(title)}", "", f"**{_escaped(_last_line(runs))}**", ""]
    lines += _markdown_table(
        HEAD,
        [
            (row[0], judged.case.address, *row[2:])
            for judged in sorted(runs.verdict.cases, key=_severity)
            for row in (_cells(judged),)
        ],
    )
    reasons = [j for j in runs.verdict.cases if j.state != "COMPARED"]
    lines += [f"- {_escaped(f'{judged.label} {judged.reason}')}" for judged in reasons]
    for judged in _worse(runs):
        failing = runs.newly_failing(judged)
        lines += ["", f"## {_escaped(judged.case.address)}", ""]
        lines += [_escaped(_lost(judged, failing)), ""]
        if judged.case in names:
            lines += [f"![newly failing samples](<{names[judged.case]}>)", ""]
        else:
            lines += [f"No pictures: {_escaped(str(sheets[judged.case]))}", ""]
        shown = failing[:most]
        lines += _markdown_table(SAMPLE_HEAD, shown)
        if len(failing) > len(shown):
            lines += [f"and {len(failing) - len(shown)} more"]
    _write(path, "\n".join(lines) + "\n")


def _sheet(runs: ComparedRuns, judged: BaselineJudgement, *, root: Path) -> bytes | str:
    """The worst of the newly failing samples as PNG, or why they cannot be shown."""
    # Imported here because the table needs neither pictures nor Parquet.
    from natadv.evaluate.datasets import load_datasets
    from natadv.plugin.failures import newly_failing_tiles
    from natadv.report.sheet import contact_sheet

    case = judged.case
    said = {sample.id: sample.before for sample in runs.newly_failing(judged)}
    try:
        tiles = newly_failing_tiles(case, runs.after[case], load_datasets(root), before=said)
    except NatadvError as error:
        return str(error)
    shown = f"{len(tiles)} of {counted(len(said), 'newly failing sample')}"
    return contact_sheet(tiles, title=f"{case}: {shown}") if tiles else "no sample flipped"


def _markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [markdown_table(head, [[_escaped(text) for text in row] for row in rows]), ""]


def _escaped(text: str) -> str:
    """Text that a model or a file name may have made up, as Markdown that shows it as it is."""
    one_line = " ".join(text.split())
    return re.sub(r"[^\w\s.,:;/%()+→…-]", lambda found: f"&#{ord(found[0])};", one_line)

"""The report of a defence: for the terminal, as JSON and Markdown, and the README of its folder."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from natadv.config import Strict, first_mistake
from natadv.defences.measure import BeforeAfter, PartReport, Value
from natadv.defences.settings import MethodName
from natadv.errors import ReportError
from natadv.report.markdown import markdown_table
from natadv.report.terminal import aligned
from natadv.wrapping import wrapped

REPORT_JSON, REPORT_MD, README = "defence-report.json", "defence-report.md", "README.md"

ROWS: dict[str, str] = {
    "clean": "clean accuracy",
    "attacked": "attacked accuracy",
    "drop": "typographic drop",
    "said_word": "takes the word for the thing",
    "reading": "reading accuracy",
}
"""Field of a part -> how tables call it."""

_HEAD = ("", "before", "after", "change", "95 % interval")
_ACROSS = ("method", "clean", "attacked", "drop", "drop left", "reading", "wall s")


class DefenceReport(Strict):
    """All that a defence has measured on pictures and words that it was not chosen on."""

    format: int = 1
    method: MethodName
    summary: str
    """What was done to the model."""
    model: str
    weights_before: str
    weights_after: str
    """Fingerprints."""
    loader: str
    data: str
    data_revision: str
    settings: dict[str, Any]
    choice_pictures: int
    choice_words: tuple[str, ...]
    judged_words: tuple[str, ...]
    wall_s: float
    """Of choosing the defence, without measuring it."""
    judged: PartReport
    parts: dict[str, PartReport]
    """Parts of the judged half, where the dataset marks parts."""
    facts: dict[str, Any]
    """What the method has chosen."""
    caveat: str
    heads: tuple[str, ...]
    """Tasks for which the original has heads."""
    packages: dict[str, str]


def drop_left(part: PartReport) -> float:
    """The share of the typographic drop that is left; NaN if there was none."""
    before = part.drop.before.value
    return part.drop.after.value / before if before else float("nan")


def terminal(report: DefenceReport, *, out: Path) -> str:
    """At most 100 columns."""
    lines = [f"{report.method} on {report.model}: {report.summary}", ""]
    lines += _table(report)
    lines += ["", f"gate it: {gate_command(out)}"]
    for remark in remarks(report, out=out):
        lines += wrapped(remark)
    return "\n".join(lines)


def gate_command(out: Path) -> str:
    """Judges the folder by the rules of the repository, and no head."""
    return f"pytest suites/test_classification.py --model {out}"


def remarks(report: DefenceReport, *, out: Path) -> list[str]:
    """What a user of the folder must know."""
    found = [report.caveat] if report.caveat else []
    if report.heads:
        found.append(
            f"Heads of the original ({', '.join(report.heads)}) are refused: they read another "
            f"tower. Train new ones: natadv train TASK --model {out} --data NAME --out "
            f"{out}/heads/TASK"
        )
    return found


def _table(report: DefenceReport) -> list[str]:
    lines: list[str] = []
    for name, part in _parts(report):
        cells = [(f"{name}, {part.pictures} pictures", *_HEAD[1:])]
        cells += [(label, *_cells(getattr(part, field))) for field, label in ROWS.items()]
        lines += [*aligned(cells, right={1, 2, 3}), f"drop left: {drop_left(part):.0%}", ""]
    return lines[:-1]


def _parts(report: DefenceReport) -> Iterable[tuple[str, PartReport]]:
    return [("judged half", report.judged), *report.parts.items()]


def _cells(found: BeforeAfter) -> tuple[str, str, str, str]:
    change = found.change
    return (
        f"{found.before.value:.3f}",
        f"{found.after.value:.3f}",
        f"{change.value:+.3f}",
        f"[{change.low:+.3f}, {change.high:+.3f}]",
    )


def markdown(report: DefenceReport, *, out: Path) -> str:
    """The same, with the interval of every number."""
    blocks = [
        f"# {report.method}: {report.model}, defended",
        f"{report.summary}. Chosen on {report.choice_pictures} pictures of `{report.data}` with "
        f"{len(report.choice_words)} words, judged on other pictures with "
        f"{len(report.judged_words)} other words. Intervals are at 95 %, those of changes over "
        "pairs of one picture.",
    ]
    for name, part in _parts(report):
        blocks += [f"## {name}: {part.pictures} pictures, {drop_left(part):.0%} of the drop left"]
        rows: list[tuple[str, ...]] = []
        for field, label in ROWS.items():
            found: BeforeAfter = getattr(part, field)
            rows.append((label, *map(_with_interval, (found.before, found.after, found.change))))
        blocks.append(markdown_table(("", "before", "after", "change"), rows, numbers=True))
    blocks.append(f"Gate it: `{gate_command(out)}`")
    blocks += remarks(report, out=out)
    return "\n\n".join(blocks) + "\n"


def _with_interval(found: Value) -> str:
    return f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"


def across(reports: Sequence[DefenceReport]) -> str:
    """Defences side by side on one judged half, as a Markdown table. Raises ReportError if they
    were not measured on the same pictures of the same model."""
    if not reports:
        raise ReportError("expected a report, got none")
    first = reports[0]
    wanted = _about(first)
    for other in reports:
        for field, value in _about(other).items():
            if value != wanted[field]:
                raise ReportError(
                    f"the reports of {first.method} and {other.method} differ in {field}: they are "
                    "not about the same pictures of one model; defend again with the same --data, "
                    "--seed and --set"
                )
    before = first.judged
    rows: list[tuple[str, ...]] = []
    rows.append(
        (
            f"{first.model}, as it was",
            *(f"{getattr(before, f).before.value:.3f}" for f in ("clean", "attacked", "drop")),
            "100%",
            f"{before.reading.before.value:.3f}",
            "",
        )
    )
    for report in reports:
        part = report.judged
        rows.append(
            (
                report.method,
                *(_short(getattr(part, f)) for f in ("clean", "attacked", "drop")),
                f"{drop_left(part):.0%}",
                _short(part.reading),
                f"{report.wall_s:.0f}",
            )
        )
    return markdown_table(_ACROSS, rows, numbers=True)


def _about(report: DefenceReport) -> dict[str, Any]:
    """What two reports must share, so that they are about the same pictures of one model."""
    drawn = ("seed", "recipes", "letters", "judged_pictures", "reading_template")
    return {
        "model": report.model,
        "weights_before": report.weights_before,
        "data_revision": report.data_revision,
        "judged_words": report.judged_words,
        **{name: report.settings.get(name) for name in drawn},
    }


def _short(found: BeforeAfter) -> str:
    change = found.change
    return f"{found.after.value:.3f} ({change.low:+.3f} to {change.high:+.3f})"


def readme(report: DefenceReport, *, out: Path, licence: str) -> str:
    """The model card of the folder."""
    part = report.judged
    front = f"---\nlicense: {licence}\nlibrary_name: transformers\n---\n" if licence else ""
    use = (
        f"Load it as you load {report.model}: the defence is in the weights."
        if not report.caveat
        else report.caveat
    )
    return (
        f"{front}# {report.model}, defended against written words ({report.method})\n\n"
        f"{report.summary}. Made by `natadv defend` from {report.model} (weights "
        f"{report.weights_before[:12]}) on `{report.data}`.\n\n"
        f"{use}\n\n"
        f"On pictures and words that it was not chosen on: accuracy {part.clean.after.value:.3f} "
        f"(before {part.clean.before.value:.3f}), with a wrong word in view "
        f"{part.attacked.after.value:.3f} (before {part.attacked.before.value:.3f}); if asked what "
        f"is written, it names the word in {part.reading.after.value:.3f} (before "
        f"{part.reading.before.value:.3f}). All numbers are in {REPORT_MD}.\n"
    )


def read_report(folder: Path) -> DefenceReport:
    """The report in a defended folder. Raises ReportError if there is none."""
    path = folder / REPORT_JSON
    try:
        return DefenceReport.model_validate_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ReportError(
            f"{path}: cannot be read ({error.strerror}); give a folder that natadv defend has made"
        ) from error
    except ValidationError as error:
        raise ReportError(f"{path}: {first_mistake(error)}; defend again") from error


def files_of(report: DefenceReport, *, out: Path, licence: str) -> Mapping[str, str]:
    """Name -> text of every file of the report."""
    content = report.model_dump(mode="json")
    return {
        REPORT_JSON: f"{json.dumps(content, indent=1, allow_nan=False)}\n",
        REPORT_MD: markdown(report, out=out),
        README: readme(report, out=out, licence=licence),
    }

"""Markdown for GitHub: the summary of a job, and the comment on a pull request."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Iterator, Sequence
from urllib.parse import quote

from natadv.report.gate_json import CaseEntry, GateJson, MeasurementEntry, causes_in_words

MOST_SUMMARY = 1024 * 1024
"""Bytes that GitHub accepts of a job summary per step."""
MOST_COMMENT = 65_536
"""Characters that GitHub accepts in a comment."""
MARKER = "<!-- natadv gate: {tier} -->"
"""Begins a comment, invisibly, so that a bot finds the one of an earlier run and replaces it."""

MOST_UNFOLDED = 3
"""Cases that do not pass, up to which their pictures are shown at once."""
ZERO_WIDTH = "\u200b"
_ROOM = 200
"""Bytes kept free for the line that counts what was left out."""
_MARKUP = re.compile(r"([\\`*_\[\]#|~])")
_HEAD = ("verdict", "case", "metric", "value", "interval", "rule", "margin", "n", "line")


def summary(gate: GateJson, *, pictures_url: str | None = None) -> str:
    """For `$GITHUB_STEP_SUMMARY`: what is not green with its pictures, then every rule, then what
    no rule judges."""
    return _fitting(_blocks(gate, pictures_url), MOST_SUMMARY)


def comment(gate: GateJson, *, pictures_url: str | None = None) -> str:
    """For a pull request: the same, cut to the length of a comment, below a hidden marker."""
    marker = MARKER.format(tier=gate.tier)
    return _fitting([marker, *_blocks(gate, pictures_url)], MOST_COMMENT)


def _blocks(gate: GateJson, pictures_url: str | None) -> list[str]:
    return [
        *_head(gate),
        *_failures(gate, pictures_url),
        *_all_rules(gate),
        *_without_rules(gate),
    ]


def _fitting(blocks: Sequence[str], most: int) -> str:
    """As many whole blocks as fit into `most` bytes, and the number of those that do not."""
    used, kept = 0, list[str]()
    for block in blocks:
        # A character has at least one byte, so this is a bound on both.
        used += len(block.encode()) + 2
        if used > most - _ROOM:
            left = len(blocks) - len(kept)
            kept.append(f"{left} more blocks of this report did not fit; gate.json has all.")
            break
        kept.append(block)
    return "\n\n".join(kept) + "\n"


def _head(gate: GateJson) -> Iterator[str]:
    yield f"## natadv {_plain(gate.headline)}"
    facts = [f"tier `{gate.tier}`", f"contract `{gate.contract.file}` {gate.contract.sha256[:12]}"]
    facts += [f"commit {gate.commit[:12]}"] if gate.commit else []
    facts += [f"compared with `{_code(gate.baseline)}`"] if gate.baseline else []
    yield ", ".join(facts)
    if gate.starters:
        yield _plain(gate.starters)
    if gate.problems:
        yield "\n".join(f"- {_plain(why)}" for why in gate.problems)
    if gate.useless_waivers:
        yield "\n".join(f"- {_plain(line)}" for line in gate.useless_waivers)


def _failures(gate: GateJson, pictures_url: str | None) -> Iterator[str]:
    """A table of the rows that do not pass, then each of their cases with its reasons and
    pictures."""
    cases = [entry for entry in gate.worst_first() if any(entry.broken) or not entry.green]
    rows = [_row(entry, row) for entry in cases for row in entry.broken]
    yield from _tables(rows)
    unfolded = " open" if len(cases) <= MOST_UNFOLDED else ""
    for entry in cases:
        title = f"<summary>{entry.state} <code>{_escaped(entry.case)}</code></summary>"
        lines = [f"<details{unfolded}>{title}"]
        lines += ["", *(f"- {_plain(reason)}" for reason in entry.reasons)]
        waivers = dict.fromkeys(row.waiver for row in entry.broken if row.waiver)
        lines += (f"- {_plain(waiver.note)}" for waiver in waivers)
        lines += [f"- {causes_in_words(entry.causes)}"] if entry.causes else []
        if entry.sheet and pictures_url is not None:
            name = quote(entry.sheet.rpartition("/")[2])
            url = html.escape(f"{pictures_url.rstrip('/')}/{name}")
            alt = f"failing samples of {_escaped(entry.case)}"
            lines += ["", f'<a href="{url}"><img src="{url}" alt="{alt}" width="720"></a>']
        elif entry.sheet:
            lines += ["", f"failing samples: `{_code(entry.sheet)}`"]
        yield "\n".join((*lines, "", "</details>"))


def _all_rules(gate: GateJson) -> Iterator[str]:
    rows = [
        _row(entry, row)
        for entry in gate.worst_first()
        for row in entry.measurements
        if row.verdict is not None
    ]
    for table in _tables(rows):
        yield f"<details><summary>all rules</summary>\n\n{table}\n\n</details>"


def _without_rules(gate: GateJson) -> Iterator[str]:
    """The numbers of the cases that were measured, and that no rule judges."""
    rows = [
        _row(entry, row)
        for entry in gate.worst_first()
        if gate.asserted and entry.state == "MEASURED"
        for row in entry.measurements
    ]
    for table in _tables(rows):
        yield f"<details><summary>measured, without a rule</summary>\n\n{table}\n\n</details>"


def _tables(rows: Sequence[str], *, most: int = 100) -> Iterator[str]:
    """Tables of at most so many rows, as only whole ones are cut away."""
    head = f"| {' | '.join(_HEAD)} |\n|{'---|' * len(_HEAD)}"
    for start in range(0, len(rows), most):
        yield "\n".join((head, *rows[start : start + most]))


def markdown_table(
    head: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: bool = False
) -> str:
    """A table of cells that are Markdown already; with `numbers`, columns after the first are
    aligned on the right."""
    rule = ["---", *["---:" if numbers else "---"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *rows))


def _row(entry: CaseEntry, row: MeasurementEntry) -> str:
    known = row.value is not None and row.low is not None and row.high is not None
    at = row.contract_rule
    cells = (
        f"**{row.state}**" if row.state not in ("PASS", None) else row.state or "",
        f"`{_code(entry.case)}`",
        _plain(row.metric),
        f"{row.value:.3f}" if known else "",
        f"[{row.low:.3f}, {row.high:.3f}]" if known else "",
        (row.rule or "").replace("<", "&lt;").replace(">", "&gt;"),
        f"{row.margin:+.3f}" if row.margin is not None else "",
        "" if row.n is None else str(row.n),
        f"`{_code(at.file)}:{at.line}`" if at else "",
    )
    return f"| {' | '.join(cells)} |"


def _plain(text: str) -> str:
    """Any text as a line without markup, and without calling anybody by `@name` or `#1`."""
    line = _MARKUP.sub(r"\\\1", _escaped(" ".join(text.split())))
    # GitHub looks for both in what is rendered, where no escape is left.
    return re.sub(r"(@|\\#)(?=\w)", rf"\1{ZERO_WIDTH}", line)


def _escaped(text: str) -> str:
    return html.escape(text, quote=True)


def _code(text: str) -> str:
    """Any text inside of backticks, in a table too."""
    return " ".join(text.replace("`", "'").replace("|", "\\|").split())

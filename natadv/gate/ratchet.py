"""Moves measured rules in the files that have them: up, and down only for a reason. Adds new ones.

Everything else in a file stays as it is, byte for byte: comments, order, quotes and blank lines.
"""

from __future__ import annotations

import copy
import json
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import yaml

from natadv.config import parse_yaml
from natadv.errors import ConfigError
from natadv.evidence import case_of
from natadv.gate.calibrate import SHARE_OF_N, rule_rows, tier_rows
from natadv.gate.rules import Number, Rule, Thresholds, TierGrid, place
from natadv.gate.thresholds_schema import BOUNDS

MEASURED = "measured"
"""How the source of a rule begins that was measured; others say what somebody wants, and stay."""
_WIDE = 1_000_000
"""Characters of a line, so that none is wrapped."""


@dataclass(frozen=True, slots=True)
class Move:
    """A rule of the contract that gets another bound."""

    before: Rule
    after: Rule

    @property
    def stricter(self) -> bool:
        """Whether less passes than before."""
        return self.before.holds(self.after.bound)

    def __str__(self) -> str:
        rule, word = self.before, "stricter" if self.stricter else "weaker"
        change = f"{rule.side} {rule.bound:g} -> {self.after.bound:g}"
        return f"{word:8} {rule.case}: {rule.subject} {change} ({place(rule.file, rule.line)})"

    @property
    def would(self) -> str:
        """Why the rule stays as it is."""
        rule, bound = self.before, f"{self.after.bound:g}"
        if self.stricter:
            why = f"{bound} was measured on fewer samples than the {rule.min_n} that it asks for"
        else:
            why = f"the measurement only allows {bound}"
        return f"{rule} stays; {why}"

    @property
    def could(self) -> str:
        """That the rule has room."""
        rule, verb = self.before, "be raised" if self.before.side == "floor" else "be lowered"
        change = f"from {rule.bound:g} to {self.after.bound:g}"
        return f"{rule} could {verb} {change}; its source is {rule.source!r}"


@dataclass(frozen=True, slots=True)
class Ratchet:
    """What measurements do to a contract."""

    moves: tuple[Move, ...]
    kept: tuple[Move, ...]
    """What would be weaker than it is, and stays."""
    slack: tuple[Move, ...]
    """Rules that somebody chose, or that cover several cases, and that could be stricter."""
    new: tuple[Rule, ...]
    """Of cases that have no measured rule of their own on that number."""
    unchanged: int = 0


def ratchet(
    proposed: Sequence[Rule], known: Thresholds, *, lower_because: str | None = None
) -> Ratchet:
    """Compare proposed rules, each of a single case, with those of a contract.

    Args:
        lower_because: Why measured rules may become weaker; None: they may not.
    """
    own = {(r.case, r.number): r for r in known.rules if not (r.starter or r.is_glob)}
    moves, kept, new, unchanged = list[Move](), list[Move](), list[Rule](), 0
    for rule in proposed:
        present = own.get((rule.case, rule.number))
        if present is None:
            new.append(rule)
            continue
        if not present.source.startswith(MEASURED):
            continue
        move = Move(present, _moved(present, rule, lower_because))
        enough = rule.min_n >= int(SHARE_OF_N * present.min_n)
        if present.bound == rule.bound:
            unchanged += 1
        elif enough if move.stricter else lower_because is not None:
            moves.append(move)
        else:
            kept.append(move)
    return Ratchet(tuple(moves), tuple(kept), tuple(_slack(proposed, known)), tuple(new), unchanged)


def _moved(present: Rule, measured: Rule, lower_because: str | None) -> Rule:
    source, min_n = measured.source, max(present.min_n, measured.min_n)
    if not present.holds(measured.bound) and lower_because is not None:
        source += f"; {present.side} was {present.bound:g}: {lower_because}"
        min_n = measured.min_n
    return replace(present, bound=measured.bound, source=source, min_n=min_n)


def _slack(proposed: Sequence[Rule], known: Thresholds) -> Iterator[Move]:
    """Rules that all measured cases would still keep if they were stricter. Rules whose cases were
    not all measured are left out."""
    found: dict[Number, list[Rule]] = {}
    for rule in proposed:
        found.setdefault(rule.number, []).append(rule)
    asked = {case.address for tier in known.tiers.values() for case in tier.grid}
    for rule in known.rules:
        if rule.starter or not (rule.is_glob or not rule.source.startswith(MEASURED)):
            continue
        covered = [p for p in found.get(rule.number, []) if _covers(rule, p.case)]
        wanted = {address for address in asked if _covers(rule, address)}
        if not covered or wanted - {p.case for p in covered}:
            continue
        loosest = max(covered, key=lambda p: p.margin(0))
        if rule.holds(loosest.bound) and rule.bound != loosest.bound:
            yield Move(rule, replace(rule, bound=loosest.bound))


def _covers(rule: Rule, address: str) -> bool:
    case = case_of(address)
    return rule.covers(case, case.model)


def rewritten(text: str, moves: Iterable[Move], *, where: str) -> str:
    """The text of a contract's file with other bounds, numbers of samples and sources.

    Raises ConfigError, which begins with `where`, if a rule is written in a way that cannot be
    edited without touching others.
    """
    content, _ = parse_yaml(text, where=where)
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    edits: list[_Edit] = []
    for move in moves:
        index, node = _node_of(move.before, root, where)
        row = content["rules"][index]
        bound = next(key for key in BOUNDS if key in row)
        values = {bound: move.after.bound, "source": move.after.source}
        # A rule that asks for no number of samples is left without one.
        values |= {"min_n": move.after.min_n} if "min_n" in row else {}
        edits += [_edit(node, key, value) for key, value in values.items()]
        row.update(values)
    after = text
    for edit in sorted(edits, reverse=True):
        after = after[: edit.start] + edit.text + after[edit.stop :]
    if _plain(after, where) != content:
        raise ConfigError(f"{where}: its rules cannot be edited in place; edit them by hand")
    return after


class _Edit(NamedTuple):
    start: int
    stop: int
    text: str


def _plain(text: str, where: str) -> Any:
    """The content of edited text; None if it is not YAML any more."""
    try:
        return copy.deepcopy(parse_yaml(text, where=where)[0])
    except ConfigError:
        return None


def _node_of(rule: Rule, root: yaml.Node | None, where: str) -> tuple[int, yaml.MappingNode]:
    """The index of the rule among those of its file, and its node."""
    rows = dict(_children(root))["rules"].value if root is not None else []
    found = [(i, node) for i, node in enumerate(rows) if node.start_mark.line + 1 == rule.line]
    if len(found) != 1:
        raise ConfigError(
            f"{where}:{rule.line}: expected one rule that begins here, got {len(found)}; write "
            "each on a line of its own, and leave the file alone during calibration"
        )
    return found[0]


def _children(node: yaml.Node) -> Iterator[tuple[str, yaml.Node]]:
    return ((key.value, value) for key, value in node.value)


def _edit(row: yaml.MappingNode, key: str, value: object) -> _Edit:
    """Replaces a value of a rule, in the style of the old one."""
    node = dict(_children(row))[key]
    start, stop = node.start_mark.index, node.end_mark.index
    if not isinstance(value, str):
        return _Edit(start, stop, json.dumps(value))
    style = node.style if isinstance(node, yaml.ScalarNode) else None
    if row.flow_style:
        style = '"'
    quoted = style if style in ("'", '"') else None
    text = yaml.safe_dump(value, default_style=quoted, width=_WIDE, allow_unicode=True)
    text = text.removesuffix("...\n").rstrip("\n")
    # A folded text ends with its line.
    return _Edit(start, stop, text + "\n" * (style in ("|", ">")))


def extended(text: str, rules: Sequence[Rule], *, tiers: Mapping[str, TierGrid], where: str) -> str:
    """The text of a contract's file with more tiers and rules, behind those that it has.

    Raises ConfigError, which begins with `where`, if that would change anything else.
    """
    content = dict(parse_yaml(text, where=where)[0])
    after = text
    if tiers:
        content["tiers"] = {**(content.get("tiers") or {}), **tier_rows(tiers)}
        after = _with_more(after, "tiers", tier_rows(tiers))
    if rules:
        content["rules"] = [*(content.get("rules") or []), *rule_rows(rules)]
        after = _with_more(after, "rules", rule_rows(rules))
    if _plain(after, where) != content:
        raise ConfigError(
            f"{where}: nothing can be added to its tiers and rules; write each on lines of its own"
        )
    return after


def _with_more(text: str, key: str, entries: object) -> str:
    """The text with the entries behind those of a key, which is added at the end if absent."""
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    node = dict(_children(root)).get(key) if root is not None else None
    indent, head, end = 2, "", len(text)
    if node is None:
        head = f"\n{key}:\n"
    elif isinstance(node, yaml.CollectionNode) and node.value:
        indent = node.start_mark.column
        end = _end_of_lines(text, _last_leaf(node).end_mark.index, indent)
    else:
        # An empty list or nothing, in the line of the key.
        before = text[: node.start_mark.index].rstrip(" ")
        text = before + text[node.end_mark.index :]
        end = _end_of_lines(text, len(before), indent)
    if not text[:end].endswith("\n"):
        head = f"\n{head}"
    block = yaml.safe_dump(entries, sort_keys=False, width=_WIDE, allow_unicode=True)
    added = head + textwrap.indent(block, " " * indent)
    return text[:end] + added.replace("\n", "\r\n" if "\r\n" in text else "\n") + text[end:]


def _last_leaf(node: yaml.Node) -> yaml.Node:
    # The end of what stands in brackets is known.
    while isinstance(node, yaml.CollectionNode) and node.value and not node.flow_style:
        last = node.value[-1]
        node = last[1] if isinstance(last, tuple) else last
    return node


def _end_of_lines(text: str, end: int, indent: int) -> int:
    """Where the line of an entry that stops at `end` is over, with the comments below it that are
    indented as it is."""
    if text[end - 1] != "\n":
        end = text.find("\n", end) + 1 or len(text)
    while (line := text[end:].partition("\n")[0]).lstrip().startswith("#"):
        if len(line) - len(line.lstrip()) < max(indent, 1):
            break
        end = min(len(text), end + len(line) + 1)
    return end

"""`natadv contract diff`: what a change of thresholds.yaml does to the gate."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from natadv.arguments import path
from natadv.errors import ConfigError

if TYPE_CHECKING:
    from natadv.gate.contract import Difference

ALIKE, WEAKER, WRONG_FILE = 0, 1, 4


def add_contract_parser(commands: argparse._SubParsersAction[Any]) -> None:
    """Adds `contract`; the parsed namespace carries `handler`, which returns the exit code."""
    contract = commands.add_parser("contract", help="compare two versions of thresholds.yaml")
    actions = contract.add_subparsers(dest="action", required=True, metavar="ACTION")
    parser = actions.add_parser(
        "diff",
        help="whether the new one lets pass what the old one did not",
        description="Compares what two contracts ask of every case of every tier, however they "
        "are written. Exit codes: 0 nothing is weaker, 1 something is, 4 a file is wrong.",
        epilog="example: natadv contract diff <(git show main:thresholds.yaml)",
    )
    parser.add_argument("old", type=path, metavar="OLD")
    parser.add_argument(
        "new", type=path, nargs="?", default=Path("thresholds.yaml"), metavar="NEW",
        help="(%(default)s)",
    )  # fmt: skip
    parser.set_defaults(handler=_diff)


def _diff(options: argparse.Namespace) -> int:
    # Here, for `natadv --help` needs no metrics.
    from natadv.gate.contract import differences
    from natadv.gate.thresholds import load_thresholds

    try:
        found = differences(load_thresholds(options.old), load_thresholds(options.new))
    except ConfigError as error:
        print(f"natadv: {error}", file=sys.stderr)
        return WRONG_FILE
    for difference in found:
        print(difference)
    print(_summary(found))
    return WEAKER if any(one.effect == "WEAKER" for one in found) else ALIKE


def _summary(found: tuple[Difference, ...]) -> str:
    from natadv.gate.contract import EFFECTS

    if not found:
        return "both contracts ask the same"
    counts = Counter(one.effect for one in found)
    told = ", ".join(f"{counts[effect]} {effect.lower()}" for effect in EFFECTS)
    return f"{told}: {'the gate lets more pass' if counts['WEAKER'] else 'nothing is weaker'}"

"""`python -m natadv.gate`: judges stored evidence again, without a model, a GPU or pytest."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from natadv.arguments import day, path, text, wrong_words
from natadv.exit_codes import DONE, NOT_GREEN, exit_code_of
from natadv.gate.contract import contract_digest
from natadv.gate.kept_baselines import baseline_for
from natadv.gate.stored import cards_for, stored_run
from natadv.gate.thresholds_file import load_thresholds
from natadv.gate.waivers import today_utc
from natadv.places import CONTRACT, find
from natadv.storage.progress import underway
from natadv.wrapping import wrapped

BELOW = " " * 17
"""Begins what is left of a line that is too wide, and no other line."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Raise ConfigError, where argparse would end the process: with its usage and code 2."""
        raise wrong_words(message, self.prog)


def main(arguments: Sequence[str] | None = None) -> int:
    """Judge stored evidence and print the verdict. Returns its exit code, as `natadv.exit_codes`
    names it."""
    parser = _Parser("python -m natadv.gate", description=__doc__)
    add = parser.add_argument
    add("--evidence", type=path, required=True, help="folder of measured cases")
    add("--thresholds", type=path, default=find(CONTRACT, Path()))
    add("--tier", type=text, help="default: that of the run, else the file's default_tier")
    models = "judge these models, not those of the run"
    add("--model", type=text, action="append", default=[], help=models)
    add("--datasets", type=path, help="folder of cards; default: fixtures/datasets if it is there")
    add("--baseline", type=text, help="in baselines/, or a folder of evidence, to compare with")
    add("--date", type=day, help="judge waivers by this day, as 2026-12-31 (default: today, UTC)")
    words = sys.argv[1:] if arguments is None else arguments

    def run() -> int:
        """Judge, and show that it goes on."""
        given = parser.parse_args(words)
        with underway("judging", sys.stderr):
            return _run(given)

    return exit_code_of(run, words=words)


def _run(options: argparse.Namespace) -> int:
    today = options.date or today_utc()
    thresholds = load_thresholds(options.thresholds, today=today)
    digest = contract_digest(options.thresholds)
    cards = cards_for(options.thresholds, datasets=options.datasets)
    run = stored_run(options.evidence, cards=cards)
    before = None
    if options.baseline is not None:
        root = options.thresholds.parent
        before = baseline_for(options.evidence, options.baseline, here=Path(), root=root)
    judged = run.judged(
        thresholds, today=today, tier=options.tier, models=options.model, before=before
    )
    _tell(f"contract {options.thresholds}, sha256 {digest}, on {today}")
    for line in judged.verdict.report:
        _tell(line)
    if rest := run.beside(judged.plans):
        _tell(f"not judged, because it was not asked for: {', '.join(map(str, rest))}")
    for line in judged.compared.report if judged.compared else ():
        _tell(line)
    return DONE if judged.green else NOT_GREEN


def _tell(line: str) -> None:
    print(*wrapped(line, hanging=BELOW), sep="\n")


if __name__ == "__main__":
    raise SystemExit(main())

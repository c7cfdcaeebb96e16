"""The `natadv` command: each subcommand belongs to the room that it is about."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from natadv import __version__
from natadv.cli.annotate_commands import add_annotate_parser
from natadv.cli.contract_command import add_contract_parser
from natadv.cli.data_commands import add_data_parser
from natadv.cli.dataset_commands import add_filter_parser, add_typo_parser
from natadv.cli.doctor_command import add_doctor_parser
from natadv.cli.langadv_commands import add_langadv_parser
from natadv.cli.models_commands import add_models_parser
from natadv.cli.overlays_commands import add_overlays_parser
from natadv.cli.search_commands import add_freeze_parser, add_replay_parser, add_search_parser
from natadv.cli.train_command import add_train_parser
from natadv.errors import NatadvError
from natadv.report.html import write_report


def main(arguments: Sequence[str] | None = None) -> int:
    given = sys.argv[1:] if arguments is None else arguments
    parser = _parser()
    if empty := [word for word in given if not word.strip() or re.fullmatch(r"--[\w-]+=\s*", word)]:
        parser.error(f"expected a value, got nothing in {empty[0]!r}; is a variable unset?")
    options = parser.parse_args(given)
    try:
        return int(options.handler(options) or 0)
    except NatadvError as error:
        print(f"natadv: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # Whoever reads has had enough (`natadv models | head`); nothing is left to be flushed.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("natadv: interrupted", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "natadv",
        description="Robustness gate for vision-language models. The gate itself is run by pytest: "
        "pytest suites/ --help shows its options under 'robustness gate'.",
    )
    parser.add_argument("--version", action="version", version=f"natadv {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    add_data_parser(commands)
    add_models_parser(commands)
    add_doctor_parser(commands)
    add_train_parser(commands)
    add_typo_parser(commands)
    add_filter_parser(commands)
    add_annotate_parser(commands)
    add_langadv_parser(commands)
    add_overlays_parser(commands)
    add_search_parser(commands)
    add_replay_parser(commands)
    add_freeze_parser(commands)
    add_contract_parser(commands)
    _add_report_parser(commands)
    return parser


def _add_report_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    text = "one self-contained HTML page from the last run's Allure results"
    parser = commands.add_parser("report", help=text, description=text)
    parser.add_argument(
        "--results", type=Path, default=Path("allure-results"), metavar="DIR", help="(%(default)s)"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("allure-report") / "index.html",
        metavar="FILE",
        help="(%(default)s)",
    )
    parser.set_defaults(handler=_report)


def _report(options: argparse.Namespace) -> int:
    page = write_report(options.results, options.out, tools=Path(".natadv/tools").absolute())
    print(f"{page} ({page.stat().st_size / 1e6:.1f} MB)")
    return 0

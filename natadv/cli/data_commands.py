"""`natadv data ...`: pictures in, and what is there."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from natadv.data.card import UNSTATED, Card, find_datasets, load_card
from natadv.data.classes import CLASS_TABLES
from natadv.data.importers import FORMATS
from natadv.data.importers.format import Format, Option, Request, import_dataset
from natadv.data.templates import TEMPLATES
from natadv.errors import DataError

_OPTIONS: dict[Option, dict[str, Any]] = {
    "classes": {
        "choices": sorted(CLASS_TABLES),
        "help": "what the folder names are (imagenet: WordNet ids, all 1000 classes count; "
        "imagenet-a: the 200 of ImageNet-A); default: the folder names are the class names",
    },
    "templates": {"choices": sorted(TEMPLATES), "help": "prompts for the classes (single)"},
    "labels": {
        "type": Path,
        "metavar": "FILE",
        "help": "the truth of a flat archive: ILSVRC2012_devkit_t12.tar.gz, Kaggle's "
        "LOC_val_solution.csv, or a text file with one WordNet id a line",
    },
    "images": {"type": Path, "metavar": "PATH", "help": "folder, zip or tar of the pictures"},
    "annotations": {"type": Path, "metavar": "FILE", "help": "zip or JSON of the annotations"},
    "image_column": {"metavar": "COLUMN", "help": "column of the pictures (image)"},
    "label_column": {"metavar": "COLUMN", "help": "column of the class labels (label)"},
    "id_column": {"metavar": "COLUMN", "help": "column of the ids (the path of each picture)"},
    "split": {"help": "which one, if a folder has files of several (train, validation, test)"},
}


def add_data_parser(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Adds `data`; the parsed namespace carries `handler`, which returns the exit code."""
    data = subparsers.add_parser("data", help="import and list datasets")
    actions = data.add_subparsers(dest="action", required=True, metavar="ACTION")
    _add_list(actions)
    _add_status(actions)
    importers = actions.add_parser("import", help="pack pictures into a dataset").add_subparsers(
        dest="format", required=True, metavar="FORMAT"
    )
    for name, row in FORMATS.items():
        _add_importer(importers, name, row)


def _add_list(actions: argparse._SubParsersAction[Any]) -> None:
    parser = actions.add_parser("list", help="the datasets under fixtures/datasets")
    _add_root(parser)
    parser.set_defaults(handler=list_datasets)


def _add_status(actions: argparse._SubParsersAction[Any]) -> None:
    parser = actions.add_parser(
        "status", help="what is there, what the locks say, and how to get the rest"
    )
    parser.add_argument(
        "--verify", action="store_true", help="hash every file instead of comparing sizes"
    )
    _add_root(parser)
    parser.set_defaults(handler=show_status)


def _add_importer(importers: argparse._SubParsersAction[Any], name: str, row: Format) -> None:
    about = f"{row.help}. To get it:\n\n{row.access}" if row.access else row.help
    parser = importers.add_parser(
        name,
        help=row.help,
        description=about.replace("%", "%%"),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("path", type=Path, metavar="PATH", help="the file or folder to import")
    parser.add_argument(
        "--name",
        default=row.name or None,
        required=not row.name,
        help=f"name of the dataset to make{f' ({row.name})' if row.name else ''}",
    )
    for option in row.takes:
        flag = f"--{option.replace('_', '-')}"
        parser.add_argument(
            flag, default=argparse.SUPPRESS, required=option in row.needs, **_OPTIONS[option]
        )
    parser.add_argument(
        "--licence",
        default=row.licence if row.licence != UNSTATED else "",
        help="terms of the pictures, for the card",
    )
    parser.add_argument("--sha256", default="", metavar="HEX", help="what PATH must have")
    parser.add_argument("--force", action="store_true", help="replace a dataset of that name")
    _add_root(parser)
    parser.set_defaults(handler=import_files)


def _add_root(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--root", type=Path, default=Path(), help="holds fixtures/; default: the working directory"
    )


def import_files(args: argparse.Namespace) -> int:
    row = FORMATS[args.format]
    chosen = {option: getattr(args, option) for option in row.takes if option in args}
    request = Request(
        format=row,
        path=args.path,
        name=args.name,
        licence=args.licence,
        sha256=args.sha256,
        stream=sys.stderr,
        **chosen,
    )
    packed = import_dataset(request, root=args.root, force=args.force)
    folder = find_datasets(args.root)[packed.card.name]
    print(f"{folder}: {_summary(packed.card)}")
    if packed.set_aside:
        first = packed.set_aside[0]
        print(
            f"{len(packed.set_aside)} set aside, first {first.id}: {first.why}; all are listed in "
            f"{folder / 'set-aside.jsonl'}"
        )
    return 0


def list_datasets(args: argparse.Namespace) -> int:
    """Exit code 1 if a card is broken; the others are listed all the same."""
    found = find_datasets(args.root)
    if not found:
        print(f"no datasets under {args.root / 'fixtures/datasets'}")
    broken = 0
    for name, folder in found.items():
        try:
            print(f"{name:<24} {_summary(load_card(folder))}")
        except DataError as error:
            broken += 1
            print(f"{name:<24} broken: {error}", file=sys.stderr)
    return 1 if broken else 0


def show_status(args: argparse.Namespace) -> int:
    """Exit code 1 if something that is there is not what its lock or card says."""
    from natadv.data.status import status_lines, statuses

    found = statuses(args.root, verify=args.verify)
    for line in status_lines(found):
        print(line)
    return 1 if any(status.wrong for status in found) else 0


def _summary(card: Card) -> str:
    drawn = f" drawn on {card.twin_of}" if card.drawn else ""
    megabytes = sum(shard.bytes for shard in card.shards) / 1e6
    return (
        f"{card.rows} samples{drawn}, {len(card.classes)} classes, {card.scenario}, "
        f"{'+'.join(card.tasks)}, {megabytes:.1f} MB, revision {card.revision[:12]}"
    )

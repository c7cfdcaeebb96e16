"""`natadv data ...`: pictures in, and what is there."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from natadv.data.card import UNSTATED, Card, find_datasets, load_card
from natadv.data.classes import CLASS_TABLES
from natadv.data.templates import TEMPLATES
from natadv.errors import DataError

if TYPE_CHECKING:
    from natadv.data.importers.progress import Progress

_TERMINAL_EVERY_S = 0.2
_PIPE_EVERY_S = 10.0


def add_data_parser(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Adds `data`; the parsed namespace carries `handler`, which returns the exit code."""
    data = subparsers.add_parser("data", help="import and list datasets")
    actions = data.add_subparsers(dest="action", required=True, metavar="ACTION")
    _add_list(actions)
    importers = actions.add_parser("import", help="pack pictures into a dataset").add_subparsers(
        dest="format", required=True, metavar="FORMAT"
    )
    _add_imagefolder(importers)


def _add_list(actions: argparse._SubParsersAction[Any]) -> None:
    parser = actions.add_parser("list", help="the datasets under fixtures/datasets")
    _add_root(parser)
    parser.set_defaults(handler=list_datasets)


def _add_imagefolder(importers: argparse._SubParsersAction[Any]) -> None:
    parser = importers.add_parser("imagefolder", help="one folder of pictures per class")
    parser.add_argument("path", type=Path, metavar="PATH", help="holds <class>/<picture>")
    parser.add_argument("--name", required=True, help="name of the dataset to make")
    parser.add_argument(
        "--classes",
        choices=sorted(CLASS_TABLES),
        help="what the folder names are (imagenet: WordNet ids, all 1000 classes count; "
        "imagenet-a: the 200 of ImageNet-A); "
        "default: the folder names are the class names",
    )
    parser.add_argument("--templates", choices=sorted(TEMPLATES), default="single")
    parser.add_argument("--licence", default=UNSTATED, help="terms of the pictures, for the card")
    parser.add_argument("--force", action="store_true", help="replace a dataset of that name")
    _add_root(parser)
    parser.set_defaults(handler=import_folder)


def _add_root(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--root", type=Path, default=Path(), help="holds fixtures/; default: the working directory"
    )


def import_folder(args: argparse.Namespace) -> int:
    # Here, for `natadv --help` needs no Parquet.
    from natadv.data.importers.imagefolder import import_imagefolder

    card = import_imagefolder(
        args.path,
        name=args.name,
        root=args.root,
        classes=args.classes,
        templates=args.templates,
        licence=args.licence,
        progress=progress_printer(sys.stderr),
        force=args.force,
    )
    folder = find_datasets(args.root)[card.name]
    print(f"{folder}: {_summary(card)}")
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


def progress_printer(stream: TextIO) -> Callable[[Progress], None]:
    """One line that is rewritten on a terminal, a line now and then in a pipe; always the last."""
    terminal = stream.isatty()
    every_s = _TERMINAL_EVERY_S if terminal else _PIPE_EVERY_S
    last = time.monotonic()

    def show(progress: Progress) -> None:
        nonlocal last
        final = progress.done == progress.total
        if not final and time.monotonic() - last < every_s:
            return
        last = time.monotonic()
        start = "\r\x1b[K" if terminal else ""
        print(f"{start}{progress}", end="" if terminal and not final else "\n", file=stream)
        stream.flush()

    return show


def _summary(card: Card) -> str:
    megabytes = sum(shard.bytes for shard in card.shards) / 1e6
    return (
        f"{card.rows} samples, {len(card.classes)} classes, {card.scenario}, "
        f"{'+'.join(card.tasks)}, {megabytes:.1f} MB, revision {card.revision[:12]}"
    )

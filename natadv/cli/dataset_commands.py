"""`natadv typo` and `natadv filter`: datasets out of datasets."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from natadv.arguments import count
from natadv.scenarios.typographic.recipes import DECOY_CHOICES, RECIPES
from natadv.scenarios.typographic.severity import PUBLISHED, SEVERITIES
from natadv.types import TASKS


def add_typo_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `typo`; the parsed namespace carries `handler`, which returns the exit code."""
    text = "write a wrong word on every picture of a dataset"
    parser = commands.add_parser(
        "typo",
        help=text,
        description=f"{text.capitalize()}. A run that was killed goes on when it is started again "
        "in the same way, and ends with the same bytes.",
    )
    parser.add_argument("source", metavar="SOURCE", help="of natadv data list")
    parser.add_argument("--name", required=True, help="name of the dataset to make")
    parser.add_argument(
        "--recipe",
        required=True,
        type=_names,
        metavar="R[,R...]",
        help=f"{', '.join(RECIPES)}; of several, one is drawn for each picture",
    )
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="(%(default)s)")
    parser.add_argument(
        "--severity",
        type=int,
        choices=tuple(SEVERITIES),
        default=PUBLISHED,
        help=f"size of the letters; {PUBLISHED} is as published (%(default)s)",
    )
    parser.add_argument(
        "--decoy",
        choices=DECOY_CHOICES,
        default="random",
        help="any wrong word, or the one most like the right one (%(default)s)",
    )
    parser.add_argument("--reader", default="", metavar="MODEL", help="tells which are alike")
    parser.add_argument(
        "--task", choices=TASKS, help="whose wrong words are written (the source's first task)"
    )
    parser.add_argument(
        "--workers",
        type=count,
        default=os.cpu_count() or 1,
        metavar="N",
        help="pictures drawn at a time (%(default)s)",
    )
    _add_common(parser)
    parser.set_defaults(handler=_typo)


def add_filter_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `filter`."""
    text = "keep the pictures of a dataset that every model of an ensemble gets wrong"
    parser = commands.add_parser(
        "filter",
        help=text,
        description=f"{text.capitalize()}, and whose true class none of them gives as much as the "
        "threshold. Beside the dataset lies which share any other threshold would keep, as "
        "NAME.acceptance.json and .png. What was embedded is not embedded again.",
    )
    parser.add_argument("pool", metavar="POOL", help="of natadv data list")
    parser.add_argument("--name", required=True, help="name of the dataset to make")
    parser.add_argument(
        "--ensemble",
        required=True,
        type=_names,
        metavar="M1[,M2...]",
        help="as pytest --model takes them; not the models that the dataset is to judge",
    )
    parser.add_argument("--threshold", type=float, default=0.15, metavar="T", help="(%(default)s)")
    _add_common(parser)
    parser.set_defaults(handler=_filter)


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--limit", type=count, metavar="N", help="use the first N rows only")
    parser.add_argument("--device", default="auto", help="cpu, cuda or cuda:N (a GPU if seen)")
    parser.add_argument("--batch-size", type=count, default=64, metavar="N", help="(%(default)s)")
    parser.add_argument(
        "--threads", type=count, default=1, metavar="N", help="of a model on the CPU (%(default)s)"
    )
    parser.add_argument("--force", action="store_true", help="replace a dataset of that name")
    parser.add_argument(
        "--root", type=Path, default=Path(), help="holds fixtures/; default: the working directory"
    )


def _typo(options: argparse.Namespace) -> int:
    # Here, for `natadv --help` needs neither Parquet nor torch.
    from natadv.data.plan import summary_of
    from natadv.evaluate.devices import device_kind
    from natadv.pipelines.members import Arithmetic
    from natadv.pipelines.typographic_twins import TypoPlan, make_typographic

    made = make_typographic(
        TypoPlan(
            source=options.source,
            name=options.name,
            recipes=options.recipe,
            seed=options.seed,
            severity=options.severity,
            decoy=options.decoy,
            reader=options.reader,
            task=options.task,
            limit=options.limit,
            root=options.root,
            arithmetic=Arithmetic(device_kind(options.device), options.batch_size, options.threads),
            workers=options.workers,
            force=options.force,
        )
    )
    card = made.card
    print(f"{made.folder}: {card.rows} twins of {card.twin_of}, {summary_of(made.left_out)}")
    print(f"revision {card.revision}")
    return 0


def _filter(options: argparse.Namespace) -> int:
    from natadv.evaluate.devices import device_kind
    from natadv.pipelines.filtering import FilterPlan, filter_pool
    from natadv.pipelines.members import Arithmetic

    made = filter_pool(
        FilterPlan(
            pool=options.pool,
            name=options.name,
            ensemble=options.ensemble,
            threshold=options.threshold,
            limit=options.limit,
            root=options.root,
            arithmetic=Arithmetic(device_kind(options.device), options.batch_size, options.threads),
            force=options.force,
        )
    )
    print(f"{made.folder}: {made.card.rows} of {made.pool_rows} pictures fool every member")
    print(f"{made.curve}: what other thresholds would keep")
    print(f"revision {made.card.revision}")
    return 0


def _names(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))

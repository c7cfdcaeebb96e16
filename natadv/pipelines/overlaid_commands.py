"""`natadv overlays pack`: the dataset of a population of overlays."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_pack_parser(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `pack`; the parsed namespace carries `handler`, which returns the exit code."""
    text = "show pictures of a dataset under every overlay of a population"
    parser = actions.add_parser(
        "pack",
        help=text,
        description=f"{text.capitalize()}. The dataset holds the overlays alone: its pictures are "
        "drawn when they are shown. A run that was killed goes on when it is started again in the "
        "same way, and ends with the same bytes.",
    )
    parser.add_argument(
        "population",
        metavar="POPULATION",
        help="a name under fixtures/populations, or a file that natadv overlays draw has written",
    )
    parser.add_argument("--data", required=True, metavar="NAME", help="of natadv data list")
    parser.add_argument("--name", required=True, help="name of the dataset to make")
    parser.add_argument(
        "--pictures",
        required=True,
        type=int,
        metavar="M",
        help="how many of the dataset's, as many of each class as there are",
    )
    parser.add_argument(
        "--seed", type=int, default=1, metavar="S", help="of the choice of pictures (%(default)s)"
    )
    parser.add_argument("--force", action="store_true", help="replace a dataset of that name")
    parser.add_argument(
        "--root", type=Path, default=Path(), help="holds fixtures/; default: the working directory"
    )
    parser.set_defaults(handler=_pack)


def _pack(options: argparse.Namespace) -> int:
    # Here, for `natadv --help` needs no Parquet.
    from natadv.data.plan import summary_of
    from natadv.pipelines.overlaid import OverlaidPlan, pack_overlaid
    from natadv.scenarios.typographic.population import (
        population_path,
        read_population,
        worded,
    )

    named = options.population
    file = Path(named) if named.endswith(".json") else population_path(named, options.root)
    population = read_population(file)
    made = pack_overlaid(
        OverlaidPlan(
            population=population,
            worded=worded,
            data=options.data,
            name=options.name,
            pictures=options.pictures,
            seed=options.seed,
            root=options.root,
            force=options.force,
        )
    )
    print(
        f"{made.folder}: {made.card.rows} rows, {options.pictures} pictures of {options.data} "
        f"under {len(population.overlays)} overlays, {summary_of(made.left_out)}"
    )
    print(f"revision {made.card.revision}")
    return 0

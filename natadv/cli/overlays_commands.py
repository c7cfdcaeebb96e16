"""`natadv overlays draw|show|pack|rates ...`"""

from __future__ import annotations

import argparse
from pathlib import Path

OUT = Path(".natadv") / "overlays"
RATES = OUT / "rates"
EVIDENCE = Path(".natadv") / "evidence"


def add_overlays_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `overlays`; the parsed namespace carries `handler`, which returns the exit code."""
    text = "draw a population of typographic overlays, and look at it"
    parser = commands.add_parser("overlays", help=text, description=text)
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    _add_draw(actions)
    _add_show(actions)
    _add_pack(actions)
    _add_rates(actions)


def _add_draw(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    text = "draw overlays independently and freeze them to fixtures/populations/NAME.json"
    parser = actions.add_parser(
        "draw",
        help=text,
        description=f"{text.capitalize()}. The same settings give the same bytes on any machine; "
        "a smaller count gives the first of a larger one.",
    )
    parser.add_argument("--name", required=True, help="of the population")
    parser.add_argument("--count", required=True, type=int, metavar="N", help="of overlays")
    parser.add_argument("--seed", type=int, default=1, metavar="S", help="(%(default)s)")
    parser.add_argument(
        "--settings",
        default="overlays",
        metavar="SECTION",
        help="of params.yaml, with the bounds (%(default)s)",
    )
    parser.add_argument("--force", action="store_true", help="replace another one of that name")
    _add_root(parser)
    parser.set_defaults(handler=_draw)


def _add_show(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    text = "contact sheets of a population, each overlay on a picture of its own"
    parser = actions.add_parser("show", help=text, description=text)
    parser.add_argument("name", metavar="NAME", help="of the population")
    parser.add_argument("--data", required=True, metavar="DATASET", help="of natadv data list")
    parser.add_argument("--out", type=Path, metavar="DIR", help=f"({OUT}/NAME)")
    _add_root(parser)
    parser.set_defaults(handler=_show)


def _add_pack(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
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


def _add_rates(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    text = "split the rates of drawn datasets by size, place, kind and all else told of an overlay"
    parser = actions.add_parser(
        "rates",
        help=text,
        description=f"{text.capitalize()}: as a table, as rates.csv and as pictures, from the "
        "evidence that a run of the gate has left. No dataset and no model is needed. Where models "
        "are many, there are several pictures.",
    )
    parser.add_argument(
        "--evidence", type=Path, default=EVIDENCE, metavar="DIR", help="(%(default)s)"
    )
    parser.add_argument(
        "--dataset", metavar="NAME", help="one of those measured; default: every drawn one"
    )
    parser.add_argument("--out", type=Path, default=RATES, metavar="DIR", help="(%(default)s)")
    parser.set_defaults(handler=_rates)


def _add_root(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--root",
        type=Path,
        default=Path(),
        help="holds fixtures/ and params.yaml; default: the working directory",
    )


def _draw(options: argparse.Namespace) -> int:
    # Here, for `natadv --help` needs no Hypothesis.
    from natadv.pipelines.population import PopulationPlan, draw_population

    path = draw_population(
        PopulationPlan(
            name=options.name,
            count=options.count,
            seed=options.seed,
            section=options.settings,
            root=options.root,
            force=options.force,
        )
    )
    print(f"{path}: {options.count} overlays")
    return 0


def _show(options: argparse.Namespace) -> int:
    from natadv.pipelines.population import ShowPlan, show_population

    out = options.out or options.root / OUT / options.name
    pages = show_population(ShowPlan(options.name, options.data, out, options.root))
    print(f"{out / 'sheets'}: {pages} pages")
    return 0


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


def _rates(options: argparse.Namespace) -> int:
    # Here, for `natadv --help` needs no numbers.
    from natadv.pipelines.rates import drawn_cases
    from natadv.report.rates import as_csv, as_table
    from natadv.report.rates_charts import chart_files
    from natadv.storage.atomic import write_whole

    found = drawn_cases(options.evidence, options.dataset)
    cases = [one for together in found.values() for one in together]
    files = {"rates.csv": as_csv(cases).encode()}
    for together in found.values():
        files |= chart_files(together)
    for name, content in files.items():
        write_whole(options.out / name, content)
    for one in cases:
        print("\n".join(as_table(one)), end="\n\n")
    for name in files:
        print(options.out / name)
    return 0

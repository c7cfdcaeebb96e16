"""`natadv overlays draw|show|pack|rates ...`"""

from __future__ import annotations

import argparse
from pathlib import Path

from natadv.pipelines.overlaid_commands import add_pack_parser
from natadv.pipelines.rates_commands import add_rates_parser

OUT = Path(".natadv") / "overlays"


def add_overlays_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `overlays`; the parsed namespace carries `handler`, which returns the exit code."""
    text = "draw a population of typographic overlays, and look at it"
    parser = commands.add_parser("overlays", help=text, description=text)
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    _add_draw(actions)
    _add_show(actions)
    add_pack_parser(actions)
    add_rates_parser(actions)


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

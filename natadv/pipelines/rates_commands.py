"""`natadv overlays rates`: what the overlays of drawn datasets did, by what is told of them."""

from __future__ import annotations

import argparse
from pathlib import Path

OUT = Path(".natadv") / "overlays" / "rates"
EVIDENCE = Path(".natadv") / "evidence"


def add_rates_parser(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `rates`; the parsed namespace carries `handler`, which returns the exit code."""
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
    parser.add_argument("--out", type=Path, default=OUT, metavar="DIR", help="(%(default)s)")
    parser.set_defaults(handler=_rates)


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

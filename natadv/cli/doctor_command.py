"""`natadv doctor MODEL...`"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from natadv.models.resolve import resolve
from natadv.models.zoo import ZOO

if TYPE_CHECKING:
    from natadv.types import ModelSpec


def add_doctor_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    text = "check that a model is whole, safe, and fed as it was trained"
    parser = commands.add_parser("doctor", help=text, description=text)
    parser.add_argument("models", nargs="+", metavar="MODEL", help="as --model takes it")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (%(default)s)")
    parser.add_argument(
        "--dtype",
        default="float32",
        choices=("float32", "bfloat16", "float16"),
        help="(%(default)s)",
    )
    parser.add_argument(
        "--known",
        type=Path,
        metavar="FOLDER",
        help="pictures that the model must recognise, each called after what it shows (cat.png)",
    )
    parser.set_defaults(handler=_examine)


def _examine(options: argparse.Namespace) -> int:
    failed = 0
    for name in options.models:
        for spec in resolve(name, root=Path.cwd()):
            failed += _examine_one(spec, options)
    return 1 if failed else 0


def _examine_one(spec: ModelSpec, options: argparse.Namespace) -> int:
    from natadv.models.doctor.examine import examine

    print(f"{spec.name} ({spec.folder})")
    known = options.known or _known(spec)
    failed = checks = 0
    for line in examine(spec, device=options.device, dtype=options.dtype, known=known):
        print(line, flush=True)
        checks += 1
        failed += not line.finding.ok
    print(f"{checks} checks, {failed} failed\n" if failed else f"{checks} checks passed\n")
    return failed


def _known(spec: ModelSpec) -> Path | None:
    row = ZOO.get(spec.lineage)
    return Path.cwd() / row.known if row is not None and row.known else None

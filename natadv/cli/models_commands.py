"""`natadv models ...`: what is in the zoo, and how it comes onto this machine."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from natadv.errors import ConfigError, ModelError, unknown_name
from natadv.models.hub import local as hub
from natadv.models.hub.download_progress import amount
from natadv.models.listing import as_json, table
from natadv.models.zoo import PAPER, ZOO, ZooRow, families, rows_named
from natadv.types import PAPER_SUFFIX

if TYPE_CHECKING:
    from natadv.models.hub.fetch import Fetched, Place, Target

_MARK_OF_ROOT = "thresholds.yaml"


def add_models_parser(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Adds `models`; the parsed namespace carries `handler`, which returns the exit code."""
    text = "list the models that have a name, and fetch them"
    models = subparsers.add_parser("models", help=text, description=text)
    models.add_argument("--family", metavar="F", help=f"only this family, or {PAPER}")
    models.add_argument("--json", action="store_true", help="all that is known, for programs")
    models.add_argument("--root", type=Path, help=f"holds {hub.LOCK}; default: {_ROOT_DEFAULT}")
    models.set_defaults(handler=list_models)
    _add_fetch(models.add_subparsers(title="actions", metavar="ACTION"))


_ROOT_DEFAULT = f"the nearest folder above with {_MARK_OF_ROOT}, or else the working directory"


def _add_fetch(actions: argparse._SubParsersAction[Any]) -> None:
    parser = actions.add_parser(
        "fetch",
        help="download models from the Hugging Face hub",
        description="Download models from the Hugging Face hub into its usual cache, and write "
        f"commit and sha256 of every file into {hub.LOCK}: commit that file, and everyone measures "
        "the same weights. A download that was cut goes on where it stopped.",
    )
    parser.add_argument(
        "names",
        nargs="+",
        metavar="NAME",
        help=f"a model, a family, {PAPER}, a glob, or any owner/name of the hub",
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--update", action="store_true", help="move from the locked to the newest commit"
    )
    which.add_argument("--revision", metavar="REV", help="move to this commit, branch or tag")
    parser.add_argument(
        "--root", type=Path, default=argparse.SUPPRESS, help=f"as above; default: {_ROOT_DEFAULT}"
    )
    parser.set_defaults(handler=fetch_models)


def list_models(args: argparse.Namespace) -> int:
    rows = _rows_of_family(args.family) if args.family is not None else tuple(ZOO.values())
    root = args.root or repository_root(Path.cwd())
    print(as_json(rows, root=root) if args.json else table(rows, root=root))
    return 0


def fetch_models(args: argparse.Namespace) -> int:
    """Exit code 1 if one of them could not be fetched; the others are, all the same."""
    # Here, for `natadv --help` needs no network library.
    from natadv.models.hub.fetch import Place

    root = args.root or repository_root(Path.cwd())
    rows, others = named(args.names)
    targets = [*_targets(rows), *_others(others)]
    if args.revision is not None and len(targets) != 1:
        raise ConfigError(f"--revision is of one model, and {len(targets)} are named")
    for row in rows:
        if row.location:
            print(f"{row.name}: comes with the repository ({row.location})")
    place = Place(root=root, cache=hub.cache_folder())
    return fetch_all(targets, place=place, update=args.update, revision=args.revision)


def fetch_all(
    targets: Sequence[Target], *, place: Place, update: bool = False, revision: str | None = None
) -> int:
    """Fetch one after the other, tell each, and sum up."""
    from natadv.models.hub.fetch import fetch

    done: list[Fetched] = []
    failed: list[str] = []
    for target in targets:
        try:
            found = fetch(
                target, place=place, update=update, revision=revision, progress_to=sys.stderr
            )
        except ModelError as error:
            failed.append(target.name)
            print(f"natadv: {target.name}: {error}", file=sys.stderr, flush=True)
        else:
            done.append(found)
            print(told(found), flush=True)
    if targets:
        print(_summary(done, failed, place.root / hub.LOCK))
    return 1 if failed else 0


def named(names: Iterable[str]) -> tuple[tuple[ZooRow, ...], tuple[str, ...]]:
    """The rows of the zoo, and the hub ids beside it, that `names` mean, each once.

    Raises:
        UnknownNameError: One of them means nothing; near misses are listed.
    """
    rows: dict[str, ZooRow] = {}
    others: dict[str, None] = {}
    for name in (name.removesuffix(PAPER_SUFFIX) for name in names):
        found = rows_named(name) or _matching(name)
        rows.update({row.name: row for row in found})
        if found:
            continue
        if not hub.is_id(name):
            raise unknown_name("model", name, [*ZOO, *families(), PAPER])
        others[name] = None
    return tuple(rows.values()), tuple(others)


def repository_root(start: Path) -> Path:
    """The nearest folder from `start` upwards that holds thresholds.yaml, or else `start`."""
    found = (folder for folder in (start, *start.parents) if (folder / _MARK_OF_ROOT).is_file())
    return next(found, start)


def told(found: Fetched) -> str:
    """One line on what became of a target."""
    before, now = found.before, found.locked
    where = f" on {found.branch}" if found.branch else ""
    if before and before.revision != now.revision:
        what = f"moved from {before.revision[:12]} to {now.revision[:12]}{where}"
        changed = sorted(k for k, v in now.files.items() if before.files.get(k) != v)
        what += f" (changed: {', '.join(changed) or 'nothing that is needed'})"
    elif not found.came:
        what = f"is here at {now.revision[:12]}{where}, every byte checked"
    else:
        what = f"fetched at {now.revision[:12]}{where}"
    return f"{found.target.name}: {what}, {len(now.files)} files, {amount(found.size)}"


def _rows_of_family(name: str) -> tuple[ZooRow, ...]:
    known = (*families(), PAPER)
    if name not in known:
        raise unknown_name("family", name, known)
    return rows_named(name)


def _matching(name: str) -> tuple[ZooRow, ...]:
    return tuple(row for row in ZOO.values() if fnmatchcase(row.name, name))


def _targets(rows: Iterable[ZooRow]) -> tuple[Target, ...]:
    from natadv.models.hub.fetch import Target

    return tuple(Target(row.name, row.hub, row.loader) for row in rows if row.hub)


def _others(hub_ids: Iterable[str]) -> tuple[Target, ...]:
    from natadv.models.hub.fetch import Target

    return tuple(Target(hub_id, hub_id) for hub_id in hub_ids)


def _summary(done: Sequence[Fetched], failed: Sequence[str], lock: Path) -> str:
    total = len(done) + len(failed)
    text = f"{len(done)} of {total} here and locked in {lock}"
    return f"{text}; failed: {', '.join(failed)}" if failed else text

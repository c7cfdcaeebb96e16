"""`natadv langadv search|pack ...`"""

from __future__ import annotations

import argparse
from pathlib import Path

from natadv.arguments import count
from natadv.data.card import DATASETS_FOLDER, UNSTATED
from natadv.evaluate.devices import device_kind
from natadv.pipelines.langadv.request import ANIMALS, GROUP, plug_named
from natadv.pipelines.langadv.settings import SearchSettings
from natadv.scenarios.langadv.words import SPACES
from natadv.settings import PARAMS


def add_langadv_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `langadv`; the parsed namespace carries `handler`, which returns the exit code."""
    text = "search for prompts whose pictures fool classifiers, and pack what was found"
    parser = commands.add_parser("langadv", help=text, description=text)
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    _add_search(actions)
    _add_pack(actions)


def _add_search(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = actions.add_parser(
        "search",
        help="run the genetic algorithm",
        description="Breed prompts whose pictures every target gets wrong. A search that was "
        "killed goes on when it is started again in the same way, and ends with the same bytes. "
        "Several GPUs: --device cuda:0,cuda:1 gives each a process, which takes class after class.",
        epilog=f"Settings: {', '.join(sorted(SearchSettings.model_fields))}.",
    )
    parser.add_argument(
        "--generator",
        required=True,
        metavar="NAME",
        help="a text-to-image pipeline of diffusers: a folder, or an id on the hub such as "
        "Tongyi-MAI/Z-Image-Turbo; or one of your own: module:factory, where the module may lie in "
        f"the working directory, or an entry point of {GROUP}, such as mini in a clone",
    )
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="keeps everything")
    parser.add_argument(
        "--target",
        metavar="M1,M2",
        help="models to fool, as pytest --model takes them (the target of the generator)",
    )
    parser.add_argument(
        "--consistency", metavar="MODEL", help="tells whether pictures still show their class"
    )
    parser.add_argument(
        "--classes", metavar="A,B", help=f"(those of the generator, or else {ANIMALS})"
    )
    parser.add_argument(
        "--words",
        metavar="SPACE",
        help=f"{', '.join(SPACES)}, or a generator of your own (its own, or animals)",
    )
    parser.add_argument(
        "--settings", metavar="SECTION", help=f"of {PARAMS} in the working directory (langadv)"
    )
    parser.add_argument("--set", nargs="+", action="extend", default=[], metavar="NAME=VALUE")
    parser.add_argument("--device", default="auto", help="cpu, cuda, or several as cuda:0,cuda:1")
    parser.add_argument("--dtype", default="bfloat16", help="of the generator (%(default)s)")
    parser.add_argument("--batch-size", type=count, default=4, metavar="N", help="(%(default)s)")
    parser.add_argument("--steps", type=count, metavar="N", help="of the generator")
    parser.add_argument("--guidance", type=float, metavar="G", help="of the generator")
    parser.add_argument("--size", type=count, metavar="PX", help="side of a picture")
    parser.add_argument("--revision", metavar="REV", help="of the generator on the hub")
    parser.add_argument("--processes", type=count, metavar="N", help="(one per device)")
    parser.set_defaults(handler=_search)


def _add_pack(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    text = "pack the pictures of the accepted prompts"
    parser = actions.add_parser("pack", help=text, description=text)
    parser.add_argument("out", type=Path, metavar="DIR", help="of a search that has ended")
    parser.add_argument("--name", required=True, help="of the dataset")
    parser.add_argument("--per-class", type=count, default=100, metavar="N", help="(%(default)s)")
    parser.add_argument("--licence", help="of the pictures")
    parser.add_argument("--root", type=Path, default=Path(), help=argparse.SUPPRESS)
    parser.add_argument("--force", action="store_true", help="replace a dataset of that name")
    parser.set_defaults(handler=_pack)


def _search(options: argparse.Namespace) -> int:
    # Here, for `natadv --help` needs no torch.
    from natadv.pipelines.langadv.processes import run_on_all

    devices = [device_kind(device) for device in options.device.split(",")]
    count = options.processes or len(devices)
    history = run_on_all(options, [devices[i % len(devices)] for i in range(count)])
    print((options.out / "table.md").read_text(encoding="utf-8"), end="")
    accepted = sum(len(one["accepted"]) for one in history["histories"])
    print(f"{accepted} prompts accepted; {options.out / 'history.png'}")
    return 0


def _pack(options: argparse.Namespace) -> int:
    from natadv.pipelines.langadv.packing import pack
    from natadv.pipelines.langadv.run import plug_of, read_history

    plug = plug_named(plug_of(read_history(options.out)))
    card = pack(
        options.out,
        options.root / DATASETS_FOLDER / options.name,
        per_class=options.per_class,
        licence=options.licence or (plug.licence if plug else UNSTATED),
        plug=plug,
        force=options.force,
    )
    print(f"{options.root / DATASETS_FOLDER / card.name}: {card.rows} samples, {card.revision}")
    return 0

"""`natadv search`, `natadv replay` and `natadv freeze`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from natadv.arguments import count
from natadv.types import TASKS

if TYPE_CHECKING:
    from natadv.search.freeze import CounterexampleSet

STORE = Path(".natadv") / "store"
OUT = Path(".natadv") / "attacks"


def add_search_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `search`; the parsed namespace carries `handler`, which returns the exit code."""
    text = "the smallest typographic overlay that still flips a model on pictures of one class"
    parser = commands.add_parser(
        "search",
        help=text,
        description=f"Search for {text}. It starts from the overlays of a population, and makes "
        "one that works smaller. A search that has ended, here or in a run of the gate, is not "
        "done again.",
    )
    add = parser.add_argument
    add("--model", required=True, metavar="M", help="as pytest --model takes it")
    add("--population", required=True, metavar="NAME", help="of fixtures/populations")
    add("--data", required=True, metavar="DATASET", help="of natadv data list, with clean pictures")
    add("--subject", required=True, metavar="CLASS", help="whose pictures are attacked")
    add("--task", choices=TASKS, default="classification", help="(%(default)s)")
    add("--pictures", type=count, default=16, metavar="N", help="of the class (%(default)s)")
    add(
        "--at-least",
        type=_share,
        default=0.25,
        metavar="SHARE",
        help="of the pictures, that an attack has to flip by its letters (%(default)s)",
    )
    add(
        "--evaluations",
        type=_count_or_none,
        default=60,
        metavar="N",
        help="overlays that are tried at most while the attack is made smaller (%(default)s)",
    )
    add(
        "--discover",
        type=count,
        metavar="N",
        help="climb towards stronger overlays, N at most, within the bounds of the population "
        "instead of trying its overlays",
    )
    add("--seed", type=int, default=1, metavar="S", help="of --discover (%(default)s)")
    add("--out", type=Path, metavar="DIR", help=f"of attacks and their sheets ({OUT})")
    _add_where(parser)
    parser.set_defaults(handler=_search)


def add_replay_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `replay`."""
    text = "show an attack that was found on one model to any other"
    parser = commands.add_parser(
        "replay",
        help=text,
        description=f"{text.capitalize()}: the same overlay with the same text on the same "
        "pictures. This is no gate: whatever comes of it, it ends well.",
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="that natadv search has written")
    parser.add_argument("--model", required=True, metavar="M", help="as pytest --model takes it")
    parser.add_argument(
        "--out", type=Path, metavar="PNG", help=f"the contact sheet ({OUT}/FILE__on__MODEL.png)"
    )
    _add_where(parser)
    parser.set_defaults(handler=_replay)


def add_freeze_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `freeze`."""
    text = "keep an attack as a counter-example, in a dataset that the gate can judge"
    parser = commands.add_parser(
        "freeze",
        help=text,
        description=f"{text.capitalize()}. It is copied to fixtures/counterexamples, and all "
        "counter-examples on the same dataset are packed anew as DATASET-counterexamples.",
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "file", nargs="?", type=Path, metavar="FILE", help="that natadv search has written"
    )
    what.add_argument(
        "--pack", metavar="DATASET", help="freeze nothing, only pack what is frozen on DATASET"
    )
    parser.add_argument("--name", default="", help="(TASK-MODEL-SUBJECT-TEXT)")
    parser.add_argument("--force", action="store_true", help="replace another one of that name")
    _add_root(parser)
    parser.set_defaults(handler=_freeze)


def _add_where(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="(a GPU if seen)"
    )
    parser.add_argument(
        "--store", type=Path, metavar="DIR", help=f"what is never computed twice ({STORE})"
    )
    _add_root(parser)


def _add_root(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--root", type=Path, default=Path(), help="holds fixtures/; default: the working directory"
    )


def _search(options: argparse.Namespace) -> int:
    # Imported here because `natadv --help` needs neither Parquet nor torch nor Hypothesis.
    from natadv.evaluate.devices import device_kind
    from natadv.gate.rules import SearchProfile
    from natadv.pipelines.members import Arithmetic
    from natadv.search.standalone import SearchPlan, search

    profile = SearchProfile(
        population=options.population,
        subjects=(options.subject,),
        pictures=options.pictures,
        at_least=options.at_least,
        evaluations=options.evaluations,
        discover=options.discover or 0,
        seed=options.seed,
    )
    saved = search(
        SearchPlan(
            model=options.model,
            profile=profile,
            data=options.data,
            task=options.task,
            root=options.root,
            store=options.store or options.root / STORE,
            out=options.out or options.root / OUT,
            arithmetic=Arithmetic(device_kind(options.device)),
        )
    )
    print(saved.in_words)
    if saved.file is not None:
        print(f"{saved.file}, {saved.sheet}")
        print(f"natadv replay {saved.file} --model {options.model}")
    return 0


def _replay(options: argparse.Namespace) -> int:
    from natadv.evaluate.devices import device_kind
    from natadv.search.replay import ReplayPlan, replay

    replayed = replay(
        ReplayPlan(
            file=options.file,
            model=options.model,
            sheet=options.out,
            root=options.root,
            store=options.store or options.root / STORE,
            attacks=options.root / OUT,
            device=device_kind(options.device),
        )
    )
    for line in (replayed.in_words, *replayed.remarks):
        print(line)
    if replayed.sheet is not None:
        print(replayed.sheet)
    return 0


def _freeze(options: argparse.Namespace) -> int:
    import sys

    from natadv.search.attack import read_attack
    from natadv.search.freeze import FreezePlan, freeze, pack_counterexamples

    data = options.pack
    if data is None:
        plan = FreezePlan(options.file, options.name, root=options.root, force=options.force)
        kept = freeze(plan)
        print(kept)
        data = read_attack(kept).dataset
    packed = pack_counterexamples(data, root=options.root, stream=sys.stderr)
    for line in _summary(packed):
        print(line)
    if options.pack is None:
        print("\n".join(_next_steps(packed, data)))
    return 0


def _summary(packed: CounterexampleSet) -> tuple[str, ...]:
    left_out = f", {len(packed.left_out)} left out" if packed.left_out else ""
    count = len(packed.counterexamples)
    what = "counter-example" if count == 1 else "counter-examples"
    return (
        f"{packed.folder}: {packed.card.rows} rows of {count} {what}{left_out}",
        f"revision {packed.card.revision}",
    )


def _next_steps(packed: CounterexampleSet, data: str) -> list[str]:
    name = packed.card.name
    return [
        "",
        "To let the gate judge it, list it under the cases of a tier in thresholds.yaml:",
        *(f"      - {task}/typographic/{name}" for task in packed.card.tasks),
        "measure it, and take over the rules that follow from it:",
        f"  pytest suites/ --dataset {name} --no-assert",
        "  python -m natadv.gate.calibrate --evidence .natadv/evidence --date YYYY-MM-DD",
        f"and, once dvc.yaml has a stage {name} with the command natadv freeze --pack {data}:",
        f"  dvc commit {name}",
    ]


def _count_or_none(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"must be at least 0, got {text}")
    return value


def _share(text: str) -> float:
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"must be above 0 and at most 1, got {text}")
    return value

"""`natadv train segmentation|vqa ...`"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from natadv.arguments import count
from natadv.evaluate.devices import device_kind
from natadv.settings import PARAMS
from natadv.training.settings import SETTINGS, settings_for


def add_train_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `train`; the parsed namespace carries `handler`, which returns the exit code."""
    text = "train a head for segmentation or vqa on the frozen picture tower of a model"
    parser = commands.add_parser("train", help=text, description=text)
    tasks = parser.add_subparsers(dest="task", required=True, metavar="TASK")
    for task in SETTINGS:
        _add_task(tasks, task)


def _add_task(tasks: argparse._SubParsersAction[argparse.ArgumentParser], task: str) -> None:
    known = ", ".join(sorted(SETTINGS[task].model_fields))  # type: ignore[index]
    parser = tasks.add_parser(
        task,
        help=f"a head for {task}",
        description=f"Train a head for {task}. A training that was killed goes on when it is "
        "started again in the same way, and ends with the same weights.",
        epilog=f"Settings: {known}.",
    )
    parser.add_argument("--model", required=True, metavar="NAME", help="as pytest --model takes it")
    parser.add_argument("--data", required=True, metavar="NAME", help="of natadv data list")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="gets the head")
    parser.add_argument(
        "--settings",
        metavar="SECTION",
        help=f"of {PARAMS} in the working directory (train-{task}, if it is there)",
    )
    parser.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME=VALUE",
        help="settings that go before that section",
    )
    parser.add_argument("--limit", type=count, metavar="N", help="use the first N rows only")
    parser.add_argument("--device", default="auto", help="cpu, cuda or cuda:N (a GPU if seen)")
    parser.add_argument(
        "--threads", type=count, default=os.cpu_count() or 1, metavar="N", help="(%(default)s)"
    )
    parser.add_argument(
        "--fresh", action="store_true", help="begin again, and replace a head that is there"
    )
    parser.set_defaults(handler=_train, task=task)


def _train(options: argparse.Namespace) -> int:
    root = Path.cwd()
    settings = settings_for(
        options.task, root=root, section=options.settings, overrides=options.set
    )
    # Here, for `natadv --help` needs no torch.
    from natadv.training.run import Plan, told, train

    plan = Plan(
        task=options.task,
        model=options.model,
        data=options.data,
        out=options.out,
        settings=settings,
        root=root,
        limit=options.limit,
        device=device_kind(options.device),
        threads=options.threads,
        fresh=options.fresh,
    )
    print(told(train(plan), plan.out))
    return 0

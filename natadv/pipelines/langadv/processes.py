"""Several processes on one search, each with a device of its own."""

from __future__ import annotations

import argparse
import multiprocessing
import sys
from collections.abc import Sequence
from typing import Any

from natadv.errors import NatadvError
from natadv.pipelines.langadv.request import plan_of
from natadv.pipelines.langadv.run import begin, run


def run_on_all(options: argparse.Namespace, devices: Sequence[str]) -> dict[str, Any]:
    """The history. A helper that dies costs nothing: what it had begun is done by another."""
    plan = plan_of(options, devices[0])
    begin(plan)
    context = multiprocessing.get_context("spawn")
    helpers = [
        context.Process(target=_help, args=(options, device), daemon=True) for device in devices[1:]
    ]
    for helper in helpers:
        helper.start()
    history = run(plan, stream=sys.stderr)
    for helper in helpers:
        helper.join()
    return history


def _help(options: argparse.Namespace, device: str) -> None:
    try:
        run(plan_of(options, device), stream=sys.stderr)
    except NatadvError as error:
        print(f"natadv: process on {device}: {error}", file=sys.stderr)
        raise SystemExit(1) from error

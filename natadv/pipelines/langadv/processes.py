"""Several processes on one search, each with a device of its own."""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Sequence
from typing import Any

from natadv.errors import NatadvError
from natadv.pipelines.langadv.request import SearchRequest, plan_of
from natadv.pipelines.langadv.run import begin, run


def run_on_all(request: SearchRequest, devices: Sequence[str]) -> dict[str, Any]:
    """The history. A helper that dies costs nothing: what it had begun is done by another."""
    plan = plan_of(request, devices[0])
    begin(plan)
    context = multiprocessing.get_context("spawn")
    helpers = [
        context.Process(target=_help, args=(request, device), daemon=True) for device in devices[1:]
    ]
    for helper in helpers:
        helper.start()
    history = run(plan, stream=sys.stderr)
    for helper in helpers:
        helper.join()
    return history


def _help(request: SearchRequest, device: str) -> None:
    try:
        run(plan_of(request, device), stream=sys.stderr)
    except NatadvError as error:
        print(f"natadv: process on {device}: {error}", file=sys.stderr)
        raise SystemExit(1) from error

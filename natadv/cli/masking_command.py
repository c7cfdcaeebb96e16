"""`natadv heads mask`: what each attention head adds to a model's accuracy, without the gate."""

from __future__ import annotations

import json as encoder
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from natadv.cli import shared_options as opt
from natadv.report.terminal import aligned
from natadv.types import MaskedTokens

if TYPE_CHECKING:
    from natadv.metrics.heads import HeadChanges

_CONFIDENCE, _LEVEL = 0.95, 0.05
_TOKENS = "whose output of a head is zero; a tower that pools by attention has no class token"
_JSON = "gets all numbers as JSON"


def mask(
    model: opt.Model,
    dataset: Annotated[list[str], opt.text("NAME...", "datasets with classes")],
    tokens: Annotated[MaskedTokens, typer.Option(help=_TOKENS)] = "all",
    limit: opt.Limit = None,
    json: Annotated[Path | None, opt.output(_JSON, metavar="FILE")] = None,
    device: opt.Device = "auto",
    batch_size: opt.BatchSize = None,
    threads: opt.Threads = 1,
    store: opt.Store = None,
    root: opt.Root = Path(),
) -> None:
    """Mask each attention head of the picture tower in turn, and show how many points of accuracy
    that adds (+) or costs (-) on each dataset.

    Layers are counted from the input. The output of a head is set to zero before the heads are
    mixed. A run that was killed continues when it is started again. This is not a gate: the exit
    code is 0 for any accuracy.
    """
    from natadv.evaluate.masked_heads import MaskingPlan, masked_outcomes
    from natadv.metrics.heads import head_changes
    from natadv.models.resolve import resolve_one
    from natadv.storage.atomic import write_whole

    spec = resolve_one(model, root=root, wanted="whose heads to mask")
    folder = store or root / opt.STORE
    arithmetic = opt.arithmetic(device, batch_size=batch_size, threads=threads)
    plan = MaskingPlan(
        spec=spec,
        datasets=opt.names_of(dataset),
        numerics=arithmetic.numerics(spec, folder),
        store=folder,
        tokens=tokens,
        limit=limit,
        root=root,
    )
    found: dict[str, HeadChanges] = {}
    for name, outcomes in masked_outcomes(plan):
        found[name] = head_changes(outcomes, confidence=_CONFIDENCE)
        print(*_grid(name, found[name]), "", sep="\n")
    if json is not None:
        content = {"model": spec.name, "tokens": tokens, "confidence": _CONFIDENCE}
        datasets = {name: _plain(changes) for name, changes in found.items()}
        text = encoder.dumps(content | {"datasets": datasets}, indent=1, allow_nan=False)
        write_whole(json, f"{text}\n".encode())


def _grid(name: str, found: HeadChanges) -> Iterator[str]:
    """A line per layer and a column per head, then the critical heads in words."""
    layers, heads = found.change.shape
    accuracy = f"accuracy {100 * found.accuracy:.1f} % on {found.n} samples"
    yield f"{name}: {accuracy}; without a head, in points:"
    cells = [("", *(f"head {head + 1}" for head in range(heads)))]
    for layer in range(layers):
        marks = ("*" if critical else " " for critical in found.critical[layer])
        changes = (f"{100 * change:+.1f}" for change in found.change[layer])
        cells.append((f"layer {layer + 1}", *map("".join, zip(changes, marks, strict=True))))
    yield from aligned(cells, right=range(1, heads + 1))
    # The largest first.
    order = sorted(
        zip(*np.nonzero(found.critical), strict=True), key=lambda at: -abs(found.change[at])
    )
    for layer, head in order:
        at = layer, head
        low, high = 100 * found.low[at], 100 * found.high[at]
        yield (
            f"* layer {layer + 1} head {head + 1}: {100 * found.change[at]:+.1f} points "
            f"({100 * _CONFIDENCE:g} % interval {low:+.1f} to {high:+.1f})"
        )
    count, changing = len(order), int((found.p_adjusted <= _LEVEL).sum())
    yield (
        f"{count or 'no'} critical head{'' if count == 1 else 's'} (more than 15 points); "
        f"{changing} of {found.change.size} heads change accuracy more than chance (Holm, 5 %)"
    )


def _plain(found: HeadChanges) -> Mapping[str, Any]:
    return {
        "accuracy": found.accuracy,
        "n": found.n,
        "groups": found.groups,
        "change": found.change.tolist(),
        "low": found.low.tolist(),
        "high": found.high.tolist(),
        "p_adjusted": found.p_adjusted.tolist(),
        "critical": (np.argwhere(found.critical) + 1).tolist(),
    }

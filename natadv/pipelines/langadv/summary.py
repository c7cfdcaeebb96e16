"""What a search found, as a table and as a picture."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from operator import itemgetter
from typing import Any

import numpy as np

from natadv.plots import COLOURS, GREY, blank, heading, png

History = Mapping[str, Any]


def table(histories: Sequence[History]) -> str:
    """Markdown: accepted prompts against random ones, on pictures that no selection has seen."""
    lines = [
        "| class | accepted prompts | ASR | SEM | random prompts | ASR | SEM |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
        *(_table_line(one["class"], one["fresh"]) for one in histories),
    ]
    # A class without accepted prompts must not weigh on one side only.
    found = [one["fresh"] for one in histories if one["fresh"]["accepted"]]
    both = {
        kind: [row for fresh in found for row in fresh[kind]] for kind in ("accepted", "random")
    }
    name = "all" if len(found) == len(histories) else f"{len(found)} with accepted prompts"
    return "\n".join([*lines, _table_line(name, both)]) + "\n"


def _table_line(name: str, fresh: Mapping[str, Sequence[History]]) -> str:
    cells = [name]
    for kind in ("accepted", "random"):
        rows = fresh[kind]
        cells += [str(len(rows)), *(_mean(rows, key) for key in ("asr", "sem"))]
    return f"| {' | '.join(cells)} |"


def _mean(rows: Sequence[History], key: str) -> str:
    return f"{np.mean([row[key] for row in rows]):.3f}" if rows else "none"


def history_png(histories: Sequence[History], *, accept: float) -> bytes:
    """Fitness, success and consistency, and the words that are left, generation by generation."""
    figure, (fit, rates, words) = blank(
        "Search for adversarial prompts, mean of the classes", rows=3, height_px=820
    )
    numbers = range(len(histories[0]["generations"]))
    for name, colour in (("best", COLOURS[0]), ("mean", COLOURS[1])):
        fit.plot(numbers, _curve(histories, itemgetter(name)), color=colour, label=name)
    heading(fit, "fitness: ASR + weight x SEM")
    for name, colour in (("asr", COLOURS[4]), ("sem", COLOURS[2])):
        curve = _curve(histories, itemgetter(name))
        rates.plot(numbers, curve, color=colour, label=name.upper())
    rates.axhline(accept, color=GREY, linewidth=0.8, linestyle="--", label="accepted above")
    heading(rates, "attack success rate and semantic consistency of a generation")
    for colour, gene in zip(COLOURS, _shrinking(histories), strict=False):
        left = _curve(histories, partial(_words_left, gene))
        words.plot(numbers, left, color=colour, label=gene)
    heading(words, "words that survive pruning, per gene")
    words.set_xlabel("generation", color=GREY, fontsize=9)
    words.set_ylim(bottom=0)
    for axis in (fit, rates, words):
        axis.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    return png(figure)


def _curve(histories: Sequence[History], value: Callable[[Any], float]) -> list[float]:
    rows = [[value(generation) for generation in one["generations"]] for one in histories]
    return [float(mean) for mean in np.mean(rows, axis=0)]


def _words_left(gene: str, generation: Any) -> float:
    return len(generation["words"][gene])


def _shrinking(histories: Sequence[History]) -> list[str]:
    """Genes that lost a word in any class; all, if none did."""
    first, genes = histories[0]["generations"][0]["words"], []
    for gene in first:
        if any(one["generations"][-1]["words"][gene] != first[gene] for one in histories):
            genes.append(gene)
    return genes or list(first)

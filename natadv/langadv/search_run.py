"""A whole search: class after class, by any number of processes, and the summary at its end."""

from __future__ import annotations

import json
import multiprocessing
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from natadv.errors import ConfigError, DataError, NatadvError
from natadv.langadv.class_search import REMEDY, ClassSearch, folder_name
from natadv.langadv.search_plan import LangadvPlan
from natadv.plots import COLOURS, GREY, blank, heading, png
from natadv.report.markdown import markdown_table
from natadv.storage.atomic import replacing, writing
from natadv.storage.locks import LockFile
from natadv.storage.progress import Progress

IDENTITY, HISTORY, CHART, TABLE = "search.json", "history.json", "history.png", "table.md"

History = Mapping[str, Any]
"""The history of one class, as `ClassSearch.evolve` returns it."""


def run_on_devices(load: Callable[[str], LangadvPlan], devices: Sequence[str]) -> dict[str, Any]:
    """Search with one process per device, and return the history.

    `load` makes the plan of a device and must be picklable. If a process dies, another one takes
    over its classes.
    """
    plan = load(devices[0])
    begin(plan)
    context = multiprocessing.get_context("spawn")
    others = [
        context.Process(target=_run_on, args=(load, device), daemon=True) for device in devices[1:]
    ]
    for process in others:
        process.start()
    history = run(plan, stream=sys.stderr)
    for process in others:
        process.join()
    return history


def _run_on(load: Callable[[str], LangadvPlan], device: str) -> None:
    try:
        run(load(device), stream=sys.stderr)
    except NatadvError as error:
        print(f"natadv: process on {device}: {error}", file=sys.stderr)
        raise SystemExit(1) from error


def run(plan: LangadvPlan, *, stream: TextIO) -> dict[str, Any]:
    """Search every class that no other process has taken, wait for the others, and write history,
    table and chart.

    Raises ConfigError if `out` holds another search.
    """
    begin(plan)
    files = {noun: plan.out / "classes" / f"{folder_name(noun)}.json" for noun in plan.classes}
    for wait in (False, True):
        for noun, path in files.items():
            _search_class(ClassSearch(plan, noun), path, wait=wait, stream=stream)
    histories = [_read(path) for path in files.values()]
    history = {**plan.identity(), "histories": histories}
    _write(plan.out / HISTORY, _json(history))
    _write(plan.out / TABLE, table(histories).encode())
    _write(plan.out / CHART, history_png(histories, accept=plan.settings.accept))
    return history


def _search_class(search: ClassSearch, path: Path, *, wait: bool, stream: TextIO) -> None:
    """Search the class unless it is done, or another process has it and we do not wait."""
    if path.exists():
        return
    with writing(path.with_suffix(".lock"), remedy=REMEDY):
        lock = LockFile(path.with_suffix(".lock"))
    with lock:
        if not lock.take(wait=wait) or path.exists():
            return
        total = search.plan.settings.generations + 1
        progress = Progress(search.noun, total, unit="generations", stream=stream)
        history = search.evolve(lambda done, line: progress.reach(done, note=line))
        _write(path, _json(history))


def begin(plan: LangadvPlan) -> None:
    """Store the identity of the search. Raises ConfigError if `out` holds another one."""
    path, identity = plan.out / IDENTITY, plan.identity()
    if not path.exists():
        _write(path, _json(identity))
        return
    stored = _read(path)
    different = sorted(key for key in identity if stored.get(key) != identity[key])
    if different:
        was, now = (str(values.get(different[0]))[:60] for values in (stored, identity))
        raise ConfigError(
            f"{path}: belongs to a search with other {', '.join(different)} ({was}, not {now}); "
            "continue that search, or give another --out"
        )


def read_history(out: Path) -> dict[str, Any]:
    """The history of a finished search. Raises DataError if it has not finished."""
    if not (out / HISTORY).exists():
        raise DataError(f"{out / HISTORY}: no such file; run natadv langadv search to its end")
    return _read(out / HISTORY)


def plug_of(history: Mapping[str, Any]) -> str:
    """The `plug` of the search's plan; for a diffusion pipeline, its name instead."""
    return str(history["generator"]).partition(" ")[0]


def table(histories: Sequence[History]) -> str:
    """Markdown: accepted against random prompts, on pictures that took no part in the selection."""
    by_class = {history["class"]: history["fresh"] for history in histories}
    # A class without accepted prompts must not count on one side only.
    complete = [fresh for fresh in by_class.values() if fresh["accepted"]]
    name = "all" if len(complete) == len(by_class) else f"{len(complete)} with accepted prompts"
    kinds = ("accepted", "random")
    total = {kind: [row for fresh in complete for row in fresh[kind]] for kind in kinds}
    head = ("class", "accepted prompts", "ASR", "SEM", "random prompts", "ASR", "SEM")
    lines = []
    for noun, fresh in [*by_class.items(), (name, total)]:
        cells = [noun]
        for rows in (fresh[kind] for kind in kinds):
            cells.append(str(len(rows)))
            for key in ("asr", "sem"):
                cells.append(f"{np.mean([row[key] for row in rows]):.3f}" if rows else "none")
        lines.append(cells)
    return markdown_table(head, lines, numbers=True) + "\n"


def history_png(histories: Sequence[History], *, accept: float) -> bytes:
    """A chart of fitness, success rate and remaining words by generation, as class means."""
    figure, (fit, rates, words) = blank(
        "Search for adversarial prompts, mean of the classes", rows=3, height_px=820
    )
    numbers = range(len(histories[0]["generations"]))
    for axis, name, colour, label in (
        (fit, "best", COLOURS[0], "best"),
        (fit, "mean", COLOURS[1], "mean"),
        (rates, "asr", COLOURS[4], "ASR"),
        (rates, "sem", COLOURS[2], "SEM"),
    ):
        rows = [[row[name] for row in history["generations"]] for history in histories]
        axis.plot(numbers, np.mean(rows, axis=0), color=colour, label=label)
    heading(fit, "fitness: ASR + weight x SEM")
    rates.axhline(accept, color=GREY, linewidth=0.8, linestyle="--", label="accepted above")
    heading(rates, "attack success rate and semantic consistency of a generation")
    first = histories[0]["generations"][0]["words"]
    pruned = [
        gene
        for gene in first
        if any(history["generations"][-1]["words"][gene] != first[gene] for history in histories)
    ]
    for colour, gene in zip(COLOURS, pruned or first, strict=False):
        rows = [[len(row["words"][gene]) for row in h["generations"]] for h in histories]
        words.plot(numbers, np.mean(rows, axis=0), color=colour, label=gene)
    heading(words, "words that survive pruning, per gene")
    words.set_xlabel("generation", color=GREY, fontsize=9)
    words.set_ylim(bottom=0)
    for axis in (fit, rates, words):
        axis.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    return png(figure)


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}); delete it, and run again") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: expected a mapping; delete it, and run again")
    return content


def _json(value: Mapping[str, Any]) -> bytes:
    text = json.dumps(value, indent=1, sort_keys=True, allow_nan=False)
    return f"{text}\n".encode()


def _write(path: Path, content: bytes) -> None:
    with writing(path, remedy=REMEDY), replacing(path) as temporary:
        temporary.write_bytes(content)

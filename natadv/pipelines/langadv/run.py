"""A whole search: class after class, by as many processes as are started, and what came of it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from natadv.errors import ConfigError, DataError
from natadv.pipelines.langadv.evolution import Search, evolve
from natadv.pipelines.langadv.pictures import REMEDY, Pictures
from natadv.pipelines.langadv.settings import SearchSettings
from natadv.pipelines.langadv.summary import history_png, table
from natadv.scenarios.langadv.generator import Generator, Target
from natadv.scenarios.langadv.words import WordSpace
from natadv.storage.atomic import replacing, writing
from natadv.storage.locks import LockFile
from natadv.storage.progress import Progress

IDENTITY, HISTORY, CHART, TABLE = "search.json", "history.json", "history.png", "table.md"


@dataclass(frozen=True)
class Plan:
    """Everything that decides what a search finds, and where it is kept."""

    out: Path
    classes: Mapping[str, str]
    """Singular to plural, in label order."""
    space: WordSpace
    settings: SearchSettings
    generator: Generator
    target: Target
    plug: str | None = None
    """What `--generator` called the factory of the generator: packing finds it by this name."""

    def identity(self) -> dict[str, Any]:
        generator = self.generator.name
        if self.plug not in (None, generator):
            generator = f"{self.plug} {generator}"
        return {
            "classes": list(self.classes),
            "generator": generator,
            "target": self.target.name,
            "words": {gene: list(words) for gene, words in self.space.words.items()},
            "template": self.space.template,
            "settings": self.settings.model_dump(mode="json"),
        }

    def pictures(self, kind: str, noun: str) -> Pictures:
        return Pictures(self.out / kind / folder_name(noun))

    def class_file(self, noun: str) -> Path:
        return self.out / "classes" / f"{folder_name(noun)}.json"


def run(plan: Plan, *, stream: TextIO) -> dict[str, Any]:
    """Search every class that no other process has or had; then wait for those, and sum up.

    Raises ConfigError if `out` holds another search.
    """
    begin(plan)
    for patient in (False, True):
        for noun in plan.classes:
            _search_class(plan, noun, patient=patient, stream=stream)
    histories = [_read(plan.class_file(noun)) for noun in plan.classes]
    history = {**plan.identity(), "histories": histories}
    _write(plan.out / HISTORY, _json(history))
    _write(plan.out / TABLE, table(histories).encode())
    _write(plan.out / CHART, history_png(histories, accept=plan.settings.accept))
    return history


def _search_class(plan: Plan, noun: str, *, patient: bool, stream: TextIO) -> None:
    path = plan.class_file(noun)
    if path.exists():
        return
    with _claimed(path.with_suffix(".lock"), patient=patient) as mine:
        if not mine or path.exists():
            return
        total = plan.settings.generations + 1
        progress = Progress(noun, total, unit="generations", stream=stream)
        history = evolve(_search(plan, noun), lambda done, line: progress.reach(done, note=line))
        _write(path, _json(history))


def _search(plan: Plan, noun: str) -> Search:
    return Search(
        noun=noun,
        plural=plan.classes[noun],
        label=list(plan.classes).index(noun),
        space=plan.space,
        settings=plan.settings,
        generator=plan.generator,
        target=plan.target,
        searched=plan.pictures("searched", noun),
        fresh=plan.pictures("fresh", noun),
    )


@contextmanager
def _claimed(path: Path, *, patient: bool) -> Iterator[bool]:
    """Whether the lock is ours; it falls when its owner dies, and a patient caller waits."""
    with writing(path, remedy=REMEDY):
        lock = LockFile(path)
    with lock:
        yield lock.take(wait=patient)


def begin(plan: Plan) -> None:
    path, identity = plan.out / IDENTITY, plan.identity()
    if not path.exists():
        _write(path, _json(identity))
        return
    found = _read(path)
    different = sorted(key for key in identity if found.get(key) != identity[key])
    if different:
        key = different[0]
        raise ConfigError(
            f"{path}: is of a search with other {', '.join(different)} "
            f"({_short(found.get(key))}, not {_short(identity[key])}); go on with what it was "
            "begun with, or name another --out"
        )


def read_history(out: Path) -> dict[str, Any]:
    """Raises DataError if the search has not ended."""
    if not (out / HISTORY).exists():
        raise DataError(f"{out / HISTORY}: no such file; run natadv langadv search to its end")
    return _read(out / HISTORY)


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}); delete it, and run again") from error
    if not isinstance(found, dict):
        raise DataError(f"{path}: expected a mapping; delete it, and run again")
    return found


def _json(value: Mapping[str, Any]) -> bytes:
    text = json.dumps(value, indent=1, sort_keys=True, allow_nan=False)
    return f"{text}\n".encode()


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _write(path: Path, content: bytes) -> None:
    with writing(path, remedy=REMEDY), replacing(path) as temporary:
        temporary.write_bytes(content)


def folder_name(noun: str) -> str:
    """Of a class, wherever its files lie."""
    return noun.replace("/", "-").replace(" ", "-")


def plug_of(history: Mapping[str, Any]) -> str:
    """`Plan.plug` of a search; of a pipeline of diffusers, whatever stands in that place."""
    return str(history["generator"]).partition(" ")[0]


def accepted_of(history: Mapping[str, Any]) -> Sequence[tuple[str, Sequence[str]]]:
    """Class and its accepted prompts, the fittest first."""
    return [
        (one["class"], [row["prompt"] for row in one["accepted"]]) for one in history["histories"]
    ]

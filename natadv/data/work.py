"""A dataset that is being packed: its finished shards, in a hidden folder beside the target."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from natadv.data.card import Shard
from natadv.data.placing import reserved
from natadv.data.plan import Plan, SetAside
from natadv.data.shards import Tally
from natadv.errors import NatadvError
from natadv.storage.atomic import flush, replacing
from natadv.storage.hashes import digest_of

_JOURNAL = "finished.jsonl"
_KEY = "key.json"


class Step(NamedTuple):
    """A shard that is finished."""

    shard: Shard
    items: int
    """Of the source, that were used up to its last row."""
    set_aside: tuple[SetAside, ...]
    """Those among them that came since the shard before."""


@dataclass(frozen=True, slots=True)
class Work:
    """Locked for one process; what it holds is only ever trusted after its hash."""

    folder: Path

    @property
    def dataset(self) -> Path:
        """Becomes the dataset."""
        return self.folder / "dataset"

    def finished(self, tally: Tally) -> list[Step]:
        """The whole shards, in order, counted into `tally`; what follows a bad one goes."""
        steps: list[Step] = []
        for step in self._journal():
            path = self.dataset / step.shard.file
            if not path.is_file() or digest_of(path) != step.shard.sha256:
                break
            _count(path, tally)
            steps.append(step)
        self._forget_after(steps)
        return steps

    def record(self, step: Step) -> None:
        flush(self.dataset / step.shard.file)
        with (self.folder / _JOURNAL).open("a", encoding="utf-8") as file:
            file.write(_line(step))
            file.flush()
            os.fsync(file.fileno())

    def list_set_aside(self, name: str, items: Sequence[SetAside]) -> None:
        lines = "".join(json.dumps(asdict(item), ensure_ascii=False) + "\n" for item in items)
        if lines:
            (self.dataset / name).write_text(lines, encoding="utf-8")

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def _journal(self) -> Iterator[Step]:
        try:
            lines = (self.folder / _JOURNAL).read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return
        for line in lines:
            try:
                raw = json.loads(line)
            except json.JSONDecodeError:
                # Cut while it was written.
                return
            aside = tuple(SetAside(**item) for item in raw["set_aside"])
            yield Step(Shard.model_validate(raw["shard"]), raw["items"], aside)

    def _forget_after(self, steps: Sequence[Step]) -> None:
        kept = {step.shard.file for step in steps}
        for path in self.dataset.iterdir():
            if path.name not in kept:
                path.unlink()
        with replacing(self.folder / _JOURNAL) as temporary:
            temporary.write_text("".join(map(_line, steps)), encoding="utf-8")


@contextmanager
def opened_work(folder: Path, plan: Plan, rows_per_shard: int, *, force: bool) -> Iterator[Work]:
    """The work on `folder`, empty unless it was on this very plan. Bad input ends it for good."""
    with reserved(folder, force=force):
        work = Work(folder.with_name(f".{folder.name}.importing"))
        try:
            work.folder.mkdir(exist_ok=True)
            _begin(work, _key(plan, rows_per_shard))
            yield work
        except NatadvError:
            work.remove()
            raise


def _begin(work: Work, key: str) -> None:
    path = work.folder / _KEY
    if not path.is_file() or path.read_text(encoding="utf-8") != key:
        work.remove()
        work.folder.mkdir(parents=True)
        path.write_text(key, encoding="utf-8")
    work.dataset.mkdir(exist_ok=True)


def _key(plan: Plan, rows_per_shard: int) -> str:
    """All that decides the bytes: the card, the source, what writes them."""
    facts = {
        "draft": plan.draft.model_dump(mode="json"),
        "source": plan.fingerprint,
        "rows_per_shard": rows_per_shard,
        "pyarrow": pa.__version__,
    }
    return json.dumps(facts, sort_keys=True)


def _count(shard: Path, tally: Tally) -> None:
    columns = pq.read_table(shard, columns=["id", "part", "overlay"]).to_pydict()
    for found in zip(columns["id"], columns["part"], columns["overlay"], strict=True):
        tally.add(*found)


def _line(step: Step) -> str:
    raw = {
        "shard": step.shard.model_dump(),
        "items": step.items,
        "set_aside": [asdict(item) for item in step.set_aside],
    }
    return json.dumps(raw) + "\n"

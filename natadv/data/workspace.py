"""The place of a dataset, and the hidden folder beside it in which the dataset is made.

Only one process at a time writes a dataset. A killed import can be resumed, and the dataset that
was there before is never lost.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
from pydantic import ValidationError

from natadv.config import Strict
from natadv.data.card import ShardFile
from natadv.data.dataset_plan import SetAside
from natadv.data.shards import Tally
from natadv.errors import ConfigError, NatadvError
from natadv.storage.atomic import flush, replace_folder, replacing
from natadv.storage.hashes import digest_of
from natadv.storage.locks import passing_lock

_JOURNAL = "finished.jsonl"
_KEY = "key.json"


class FinishedShard(Strict):
    """A line of the journal of an import."""

    shard: ShardFile
    items: int
    """Items of the source that were used up to the shard's last row."""
    set_aside: tuple[SetAside, ...]
    """The items that were set aside since the shard before."""

    def line(self) -> str:
        """The text of the line, with its end."""
        return json.dumps(self.model_dump(mode="json")) + "\n"


@dataclass(frozen=True, slots=True)
class Workspace:
    """The folder of an unfinished import, locked for one process.

    A shard in it is trusted only after its hash was checked.
    """

    folder: Path

    @property
    def dataset(self) -> Path:
        """The part that becomes the dataset."""
        return self.folder / "dataset"

    def finished(self, tally: Tally) -> list[FinishedShard]:
        """The intact shards, in order, counted into `tally`.

        The first corrupt shard and all later ones are discarded.
        """
        finished: list[FinishedShard] = []
        journal = self.folder / _JOURNAL
        lines = journal.read_text(encoding="utf-8").splitlines() if journal.is_file() else []
        for text in lines:
            try:
                line = FinishedShard.model_validate_json(text)
            except ValidationError:
                # The process was killed while it wrote this line.
                break
            path = self.dataset / line.shard.file
            if not path.is_file() or digest_of(path) != line.shard.sha256:
                break
            columns = pq.read_table(path, columns=["id", "part", "overlay"]).to_pydict()
            for row in zip(columns["id"], columns["part"], columns["overlay"], strict=True):
                tally.add(*row)
            finished.append(line)
        intact = {line.shard.file for line in finished}
        for path in self.dataset.iterdir():
            if path.name not in intact:
                path.unlink()
        with replacing(journal) as temporary:
            temporary.write_text("".join(line.line() for line in finished), encoding="utf-8")
        return finished

    def record(self, finished: FinishedShard) -> None:
        """Add a shard to the journal, once the disk has the whole of it."""
        flush(self.dataset / finished.shard.file)
        with (self.folder / _JOURNAL).open("a", encoding="utf-8") as file:
            file.write(finished.line())
            file.flush()
            os.fsync(file.fileno())

    def put_in_place(self, folder: Path) -> None:
        """Rename the dataset to `folder`, and delete the one that was there and the workspace.

        After a kill between the two, the next import puts the old dataset back.
        """
        replace_folder(self.dataset, folder, old=folder.with_name(f".{folder.name}.old"))
        self.remove()

    def remove(self) -> None:
        """Delete the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)


@contextmanager
def opened_workspace(folder: Path, key: str | None, *, force: bool) -> Iterator[Workspace]:
    """The workspace of the dataset `folder`; empty, unless an import with the same key was stopped.

    Bad input removes it; any other failure keeps the finished shards for the next attempt. Without
    a key the import cannot be resumed, and any failure removes it.

    Raises:
        ConfigError: Another process writes the dataset, or it exists and `force` is not set.
        OSError: The disk is full or read-only.
    """
    with _reserved(folder):
        refuse_existing(folder, force=force)
        workspace = Workspace(folder.with_name(f".{folder.name}.importing"))
        try:
            path = workspace.folder / _KEY
            if key is None or not path.is_file() or path.read_text(encoding="utf-8") != key:
                workspace.remove()
                workspace.folder.mkdir()
                if key is not None:
                    path.write_text(key, encoding="utf-8")
            workspace.dataset.mkdir(exist_ok=True)
            yield workspace
        except BaseException as error:
            if key is None or isinstance(error, NatadvError):
                workspace.remove()
            raise


def refuse_existing(folder: Path, *, force: bool) -> None:
    """Raises ConfigError if the dataset exists and may not be replaced."""
    if folder.exists() and not force:
        raise ConfigError(f"{folder}: dataset {folder.name!r} exists; replace it with --force")


@contextmanager
def _reserved(folder: Path) -> Iterator[None]:
    """Keeps other processes from writing `folder`, and restores what a killed one left beside it.

    Earlier versions added the process number to the names of the folders beside it.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with passing_lock(folder.with_name(f".{folder.name}.importing.lock")) as taken:
        if not taken:
            raise ConfigError(f"{folder}: another import of {folder.name!r} is running")
        leftover = re.compile(re.escape(f".{folder.name}.") + r"(?P<kind>new|old)(-\d+)?")
        leftovers = {
            p: m["kind"] for p in folder.parent.iterdir() if (m := leftover.fullmatch(p.name))
        }
        olds = [path for path, kind in leftovers.items() if kind == "old"]
        if olds and not folder.exists():
            newest = max(olds, key=lambda path: path.stat().st_mtime_ns)
            newest.rename(folder)
            del leftovers[newest]
        for stale in leftovers:
            shutil.rmtree(stale)
        yield

"""A place is never lost, whenever the process that writes there is killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from natadv.data.card import CardDraft, load_card
from natadv.data.dataset_plan import DatasetPlan
from natadv.data.packing import pack, write_dataset
from natadv.data.workspace import opened_workspace
from natadv.errors import ConfigError, DataError
from natadv.types import Sample

KILLED = """
    import json, os, signal, sys
    from pathlib import Path
    from natadv.data.card import CardDraft
    from natadv.data.packing import pack
    from natadv.data.dataset_plan import DatasetPlan
    from natadv.data.packing import write_dataset
    from natadv.types import Sample

    draft = CardDraft.model_validate_json(sys.argv[1])
    renamed, original = [], Path.rename

    def die():
        os.kill(os.getpid(), signal.SIGKILL)

    def rename(self, target):
        if self == folder or target == folder:
            renamed.append(target)
            if len(renamed) == when:
                die()
        return original(self, target)

    def samples(start=0):
        for i in range(start, 9):
            if when == 0 and i == 8:
                die()
            yield Sample(id=str(i), group="g", image=b"new", label=0)

    Path.rename = rename
    # One process for each case: importing pyarrow takes longer than all of them.
    for how, when, folder in json.loads(sys.argv[2]):
        folder, child = Path(folder), os.fork()
        if child:
            _, status = os.waitpid(child, 0)
            assert os.WTERMSIG(status) == signal.SIGKILL
        elif how == "write":
            write_dataset(folder, draft, samples(), rows_per_shard=4, force=True)
            os._exit(0)
        else:
            plan = DatasetPlan(draft, samples, 9, "pictures", "a state of the source")
            pack(folder, plan, rows_per_shard=4, force=True)
            os._exit(0)
"""


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.parent.iterdir())


def test_a_kill_while_a_dataset_is_replaced_loses_nothing(
    tmp_path: Path, draft: CardDraft, samples: list[Sample]
) -> None:
    """Before the n-th rename, or (0) while the new dataset is written."""
    cases = [
        (how, when, tmp_path / f"{how}-{when}" / "tiny")
        for how in ("write", "pack")
        for when in (0, 1, 2)
    ]
    for _, _, folder in cases:
        write_dataset(folder, draft, samples)
    before = contents(cases[0][2])
    arguments = (draft.model_dump_json(), json.dumps(cases, default=str))
    code = textwrap.dedent(KILLED)
    subprocess.run([sys.executable, "-c", code, *arguments], timeout=60, check=True)

    for how, when, folder in cases:
        assert folder.exists() == (when < 2), (how, when)
        # The next process, without --force, restores the old dataset and removes all else of it.
        complaint = "dataset 'tiny' exists"
        with (
            pytest.raises(ConfigError, match=complaint),
            opened_workspace(folder, None, force=False),
        ):
            pass
        assert contents(folder) == before, (how, when)
        assert [name for name in names(folder) if name != ".tiny.importing"] == ["tiny"]
        new = [Sample(id=str(i), group="g", image=b"new", label=0) for i in range(9)]
        plan = DatasetPlan(
            draft, lambda start, new=new: iter(new[start:]), 9, "pictures", "a state of the source"
        )
        assert pack(folder, plan, rows_per_shard=4, force=True).card == load_card(folder)
        assert load_card(folder).rows == 9
        assert names(folder) == ["tiny"]


def test_what_killed_processes_left_under_their_numbers_goes_too(
    folder: Path, draft: CardDraft, samples: list[Sample]
) -> None:
    write_dataset(folder, draft, samples)
    before = contents(folder)
    others = (".tiny.newer.importing", ".tiny.old-x", ".tiny.new.importing")
    for name in (".tiny.new-123", ".tiny.old-7", *others):
        folder.with_name(name).mkdir()
    os.utime(folder.with_name(".tiny.old-7"), (1, 1))
    folder.rename(folder.with_name(".tiny.old-123"))

    with opened_workspace(folder, None, force=True) as workspace:
        assert contents(folder) == before
        workspace.remove()

    assert names(folder) == sorted(["tiny", *others])


def test_a_dataset_that_is_being_written_is_left_to_its_writer(
    folder: Path, draft: CardDraft, samples: list[Sample]
) -> None:
    def nested() -> object:
        with pytest.raises(ConfigError, match="another import of 'tiny' is running"):
            write_dataset(folder, draft, samples, force=True)
        yield from samples

    card = write_dataset(folder, draft, nested())  # type: ignore[arg-type]

    assert card.rows == len(samples)
    assert names(folder) == ["tiny"]


def test_a_lock_that_its_holder_removed_is_taken_anew(
    folder: Path, draft: CardDraft, samples: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else two would hold it: one the removed file, one that of the same name."""
    import fcntl

    taken, original = [], fcntl.lockf

    def lockf(lock: int, operation: int) -> None:
        taken.append(lock)
        if len(taken) == 1:
            folder.with_name(".tiny.importing.lock").unlink()
        original(lock, operation)

    monkeypatch.setattr(fcntl, "lockf", lockf)

    with opened_workspace(folder, None, force=False):
        assert len(taken) == 2


def test_a_failed_write_leaves_the_place_free(
    folder: Path, draft: CardDraft, samples: list[Sample]
) -> None:
    with pytest.raises(DataError, match="a second one"):
        write_dataset(folder, draft, [samples[0], samples[0]])

    assert names(folder) == []

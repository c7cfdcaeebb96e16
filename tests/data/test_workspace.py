"""A place is never lost, whenever the process that writes there is killed."""

from __future__ import annotations

import os
import signal
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
    import os, signal, sys
    from pathlib import Path
    from natadv.data.card import CardDraft
    from natadv.data.packing import pack
    from natadv.data.dataset_plan import DatasetPlan
    from natadv.data.packing import write_dataset
    from natadv.types import Sample

    how, when, folder = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    draft = CardDraft.model_validate_json(sys.argv[4])
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
    if how == "write":
        write_dataset(folder, draft, samples(), rows_per_shard=4, force=True)
    else:
        plan = DatasetPlan(draft, samples, 9, "pictures", "a state of the source")
        pack(folder, plan, rows_per_shard=4, force=True)
"""


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.parent.iterdir())


def kill(how: str, when: int, folder: Path, draft: CardDraft) -> None:
    """While it replaces the dataset: before its n-th rename, or (0) while it writes."""
    arguments = (how, str(when), str(folder), draft.model_dump_json())
    code = textwrap.dedent(KILLED)
    done = subprocess.run([sys.executable, "-c", code, *arguments], timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL


@pytest.mark.parametrize("when", [0, 1, 2])
@pytest.mark.parametrize("how", ["write", "pack"])
def test_a_kill_while_a_dataset_is_replaced_loses_nothing(
    folder: Path, draft: CardDraft, samples: list[Sample], how: str, when: int
) -> None:
    write_dataset(folder, draft, samples)
    before = contents(folder)
    kill(how, when, folder, draft)
    assert folder.exists() == (when < 2)

    # Whoever comes next, without --force: the old one is there again, and nothing else of it.
    complaint = "dataset 'tiny' exists"
    with pytest.raises(ConfigError, match=complaint), opened_workspace(folder, None, force=False):
        pass

    assert contents(folder) == before
    assert [name for name in names(folder) if name != ".tiny.importing"] == ["tiny"]
    new = [Sample(id=str(i), group="g", image=b"new", label=0) for i in range(9)]
    plan = DatasetPlan(
        draft, lambda start: iter(new[start:]), 9, "pictures", "a state of the source"
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

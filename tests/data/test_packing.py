from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from natadv.data.card import CardDraft, load_card
from natadv.data.dataset_plan import Broken, DatasetPlan, Item, SetAside
from natadv.data.importers import FORMATS, ImportRequest, import_dataset
from natadv.data.packing import pack, write_dataset
from natadv.data.reader import iter_samples
from natadv.errors import ConfigError, DataError
from natadv.types import Sample


class Killed(BaseException):
    """What no handler catches."""


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def hidden(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.parent.glob(".*"))


def planned(draft: CardDraft, items: list[Item], *, killed_at: int | None = None) -> DatasetPlan:
    def stream(start: int) -> Iterator[Item]:
        for number, item in enumerate(islice(items, start, None), start=start):
            if number == killed_at:
                raise Killed
            yield item

    return DatasetPlan(draft, stream, len(items), "pictures", "a state of the source")


@pytest.fixture
def items(samples: list[Sample]) -> list[Item]:
    """With two of them set aside in the middle, one at the start and one at the end."""
    first, middle, last = (SetAside(name, "by design") for name in ("first", "middle", "last"))
    again = replace(middle, id="again")
    return [first, *samples[:60], middle, again, *samples[60:], last]


def test_a_plan_gives_what_its_samples_give(
    folder: Path, draft: CardDraft, samples: list[Sample], items: list[Item], tmp_path: Path
) -> None:
    packed = pack(folder, planned(draft, items), rows_per_shard=40)
    plain = write_dataset(tmp_path / "tiny", draft, samples, rows_per_shard=40)

    assert packed.card == plain == load_card(folder)
    assert [item.id for item in packed.set_aside] == ["first", "middle", "again", "last"]
    assert list(iter_samples(folder, packed.card)) == samples
    listed = (folder / "set-aside.jsonl").read_text().splitlines()
    assert [json.loads(line)["id"] for line in listed] == ["first", "middle", "again", "last"]
    assert hidden(folder) == []


@pytest.mark.parametrize("killed_at", [0, 1, 39, 41, 61, 62, 63, 64, 120, 153])
def test_a_killed_import_goes_on_to_the_same_bytes(
    folder: Path, draft: CardDraft, items: list[Item], killed_at: int
) -> None:
    whole = pack(folder, planned(draft, items), rows_per_shard=40)
    expected = contents(folder)

    with pytest.raises(Killed):
        pack(folder, planned(draft, items, killed_at=killed_at), rows_per_shard=40, force=True)
    assert contents(folder) == expected
    assert ".tiny.importing" in hidden(folder)
    again = pack(folder, planned(draft, items), rows_per_shard=40, force=True)

    assert again == whole._replace(folder=again.folder)
    assert contents(folder) == expected
    assert hidden(folder) == []


@pytest.mark.parametrize("sabotage", ["flip", "remove", "journal"])
def test_finished_shards_are_trusted_after_their_hash_only(
    folder: Path, draft: CardDraft, items: list[Item], sabotage: str
) -> None:
    pack(folder, planned(draft, items), rows_per_shard=40)
    expected = contents(folder)
    with pytest.raises(Killed):
        pack(folder, planned(draft, items, killed_at=140), rows_per_shard=40, force=True)
    work = folder.with_name(".tiny.importing")
    shard = work / "dataset/shard-00001.parquet"
    data = bytearray(shard.read_bytes())
    data[100] ^= 1
    if sabotage == "flip":
        shard.write_bytes(data)
    elif sabotage == "remove":
        shard.unlink()
    else:
        text = (work / "finished.jsonl").read_text()
        (work / "finished.jsonl").write_text(text[:-30])

    pack(folder, planned(draft, items), rows_per_shard=40, force=True)

    assert contents(folder) == expected


def test_only_what_was_not_finished_is_read_again(
    folder: Path, draft: CardDraft, items: list[Item]
) -> None:
    starts: list[int] = []
    with pytest.raises(Killed):
        pack(folder, planned(draft, items, killed_at=100), rows_per_shard=40)
    plan = planned(draft, items)

    def noted(start: int) -> Iterator[Item]:
        starts.append(start)
        return plan.items(start)

    stream = io.StringIO()
    pack(folder, replace(plan, items=noted), rows_per_shard=40, stream=stream)

    assert starts == [83]
    assert "tiny: continues after 83 of 154 pictures" in stream.getvalue()


@pytest.mark.parametrize("change", ["source", "card", "size"])
def test_work_on_something_else_is_not_gone_on_with(
    folder: Path, draft: CardDraft, items: list[Item], change: str
) -> None:
    with pytest.raises(Killed):
        pack(folder, planned(draft, items, killed_at=100), rows_per_shard=40)
    plan = planned(draft, items[::-1])
    if change == "source":
        plan = replace(plan, fingerprint="another")
    elif change == "card":
        plan = replace(plan, draft=draft.model_copy(update={"licence": "MIT"}))

    card = pack(folder, plan, rows_per_shard=41 if change == "size" else 40).card

    assert [s.id for s in iter_samples(folder, card)][:2] == ["s149", "s148"]


def test_bad_input_leaves_nothing_and_costs_nothing_that_was_there(
    folder: Path, draft: CardDraft, samples: list[Sample]
) -> None:
    pack(folder, planned(draft, list(samples)), rows_per_shard=40)
    before = contents(folder)

    with pytest.raises(DataError, match="'s003': a second one of this id"):
        pack(folder, planned(draft, [*samples, samples[3]]), rows_per_shard=40, force=True)

    assert contents(folder) == before
    assert hidden(folder) == []


def test_a_source_that_fails_is_told_apart_from_the_target(
    folder: Path, draft: CardDraft, samples: list[Sample]
) -> None:
    def failing(start: int) -> Iterator[Item]:
        yield from samples[:50]
        raise OSError("Input/output error")

    plan = replace(planned(draft, list(samples)), items=failing)
    with pytest.raises(
        DataError, match=r"^tiny: its source \(noise\) cannot be read: Input/output"
    ):
        pack(folder, plan, rows_per_shard=40)

    # Perhaps it can be read tomorrow.
    assert hidden(folder) == [".tiny.importing"]
    assert pack(folder, planned(draft, list(samples)), rows_per_shard=40).card.rows == 150


def test_a_second_one_of_an_id_is_found_across_a_kill(
    folder: Path, draft: CardDraft, samples: list[Sample]
) -> None:
    items: list[Item] = [*samples, samples[3]]
    with pytest.raises(Killed):
        pack(folder, planned(draft, items, killed_at=149), rows_per_shard=40)

    with pytest.raises(DataError, match="'s003': a second one of this id"):
        pack(folder, planned(draft, items), rows_per_shard=40)


def test_a_dataset_of_nothing_is_none(folder: Path, draft: CardDraft) -> None:
    with pytest.raises(DataError, match="no samples"):
        pack(folder, planned(draft, [SetAside("a", "b")]))

    assert hidden(folder) == []


def test_two_imports_of_one_name_do_not_mix(
    folder: Path, draft: CardDraft, samples: list[Sample]
) -> None:
    plan = planned(draft, list(samples))

    def nested(start: int) -> Iterator[Item]:
        with pytest.raises(ConfigError, match="another import of 'tiny' is running"):
            pack(folder, plan)
        return plan.items(start)

    assert pack(folder, replace(plan, items=nested)).card.rows == len(samples)


@settings(max_examples=25)
@given(st.lists(st.booleans(), min_size=1, max_size=30), st.data())
def test_any_kill_anywhere_changes_nothing(
    tmp_path_factory: pytest.TempPathFactory, kinds: list[bool], data: st.DataObject
) -> None:
    draft = CardDraft(
        name="tiny",
        tasks=("classification",),
        scenario="clean",
        classes=("cat", "dog"),
        templates=("{}",),
        licence="CC0-1.0",
        source="none",
        description="none",
    )
    items: list[Item] = [
        Sample(id=f"s{i}", group="g", image=b"x", label=0) if kind else SetAside(f"a{i}", "why")
        for i, kind in enumerate([*kinds, True])
    ]
    size = data.draw(st.integers(1, 7))
    root = tmp_path_factory.mktemp("kills")
    whole = pack(root / "a/tiny", planned(draft, items), rows_per_shard=size)
    for killed_at in sorted(data.draw(st.lists(st.integers(0, len(items) - 1), max_size=3))):
        with pytest.raises(Killed):
            pack(
                root / "b/tiny",
                planned(draft, items, killed_at=killed_at),
                rows_per_shard=size,
            )
    again = pack(root / "b/tiny", planned(draft, items), rows_per_shard=size)

    assert again == whole._replace(folder=again.folder)
    assert contents(root / "b/tiny") == contents(root / "a/tiny")


SLOW_IMPORT = """
    import sys, time
    from pathlib import Path
    from natadv.data import packing
    from natadv.data.images import decode_image
    from natadv.data.importers import FORMATS, ImportRequest, imagefolder, import_dataset

    def slowly(data, *, where):
        time.sleep(0.02)
        return decode_image(data, where=where)

    imagefolder.decode_image = slowly
    packing.pack.__kwdefaults__["rows_per_shard"] = 20
    path, root = map(Path, sys.argv[1:])
    import_dataset(ImportRequest(FORMATS["imagefolder"], path, "tiny"), root=root)
"""


def test_kill_9_resumes_and_gives_the_same_revision(
    tmp_path: Path, samples: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = tmp_path / "photos"
    for sample in samples:
        path = photos / str(sample.label) / f"{sample.id}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(sample.image)
    target = tmp_path / "killed/fixtures/datasets"

    command = [sys.executable, "-c", textwrap.dedent(SLOW_IMPORT), photos, tmp_path / "killed"]
    killed = subprocess.Popen(command)
    journal, until = target / ".tiny.importing/finished.jsonl", time.monotonic() + 50
    while not (journal.is_file() and journal.read_bytes().count(b"\n") >= 2):
        assert time.monotonic() < until
        time.sleep(0.01)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    assert not (target / "tiny").exists()
    monkeypatch.setitem(pack.__kwdefaults__, "rows_per_shard", 20)
    for root in (tmp_path / "killed", tmp_path / "whole"):
        import_dataset(ImportRequest(FORMATS["imagefolder"], photos, "tiny"), root=root)

    assert contents(target / "tiny") == contents(tmp_path / "whole/fixtures/datasets/tiny")
    assert [path.name for path in target.iterdir()] == ["tiny"]


def test_memory_does_not_grow_with_the_pictures(tmp_path: Path, draft: CardDraft) -> None:
    def peak(count: int) -> int:
        def items(start: int) -> Iterator[Item]:
            for i in range(start, count):
                image = i.to_bytes(4, "big") + bytes(20_000)
                yield Sample(id=f"s{i}", group="g", image=image, label=0)

        plan = DatasetPlan(draft, items, count, "pictures", "none")
        tracemalloc.start()
        pack(tmp_path / str(count) / "tiny", plan, rows_per_shard=128)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    few, many = peak(256), peak(1024)

    # Of each picture more, its id stays.
    assert many - few < (1024 - 256) * 500


def with_broken(samples: list[Sample], *, at: set[int]) -> list[Item]:
    return [Broken(f"{s.id}.png: cut") if i in at else s for i, s in enumerate(samples)]


def test_all_broken_pictures_are_named_at_once(
    folder: Path, draft: CardDraft, samples: list[Sample]
) -> None:
    pack(folder, planned(draft, list(samples)), rows_per_shard=40)
    before = contents(folder)
    items = with_broken(samples, at={50, 51, 149})
    stream = io.StringIO()

    with pytest.raises(DataError) as caught:
        pack(folder, planned(draft, items), rows_per_shard=40, force=True, stream=stream)
    assert str(caught.value).splitlines() == [
        "3 pictures cannot be used, so nothing was imported:",
        "  s050.png: cut",
        "  s051.png: cut",
        "  s149.png: cut",
    ]
    first, *_, last = stream.getvalue().splitlines()
    assert first == "s050.png: cut; nothing is imported, looking for others"
    assert last.startswith("tiny: 150 of 150 pictures")
    assert contents(folder) == before
    assert hidden(folder) == []


def test_a_single_broken_picture_is_told_in_one_line(
    folder: Path, draft: CardDraft, samples: list[Sample]
) -> None:
    with pytest.raises(DataError, match=r"\As007\.png: cut\Z"):
        pack(folder, planned(draft, with_broken(samples, at={7})))


def test_many_broken_pictures_are_counted(
    folder: Path, draft: CardDraft, samples: list[Sample]
) -> None:
    with pytest.raises(DataError) as caught:
        pack(folder, planned(draft, with_broken(samples, at=set(range(50)))))

    head, *named, rest = str(caught.value).splitlines()
    assert head.startswith("50 pictures cannot be used")
    assert named == [f"  s{i:03d}.png: cut" for i in range(20)]
    assert rest == "  and 30 more"


def test_a_broken_picture_of_many_rows_counts_once(folder: Path, draft: CardDraft) -> None:
    items: list[Item] = [Broken("a.png: cut"), Broken("b.png: cut")] * 4

    with pytest.raises(DataError, match=r"^2 pictures"):
        pack(folder, planned(draft, items))


def test_what_ends_an_import_hides_no_broken_picture(
    folder: Path, draft: CardDraft, samples: list[Sample]
) -> None:
    def damaged(start: int) -> Iterator[Item]:
        yield from islice(with_broken(samples, at={2, 3}), start, 100)
        raise DataError("a.tar: damaged archive")

    plan = replace(planned(draft, list(samples)), items=damaged)
    with pytest.raises(DataError) as caught:
        pack(folder, plan)

    head, *named, ended = str(caught.value).splitlines()
    assert head.startswith("2 pictures")
    assert named == ["  s002.png: cut", "  s003.png: cut"]
    assert ended == "then it ended: a.tar: damaged archive"


@pytest.mark.parametrize("killed_at", [85, 120, 149])
def test_what_was_done_before_a_broken_picture_is_kept_and_no_gap_is_packed(
    folder: Path, draft: CardDraft, samples: list[Sample], killed_at: int
) -> None:
    """Killed while it looks for others, an import meets the first one again."""
    items = with_broken(samples, at={83, 130})
    with pytest.raises(Killed):
        pack(folder, planned(draft, items, killed_at=killed_at), rows_per_shard=40)
    starts: list[int] = []
    plan = planned(draft, items)

    def noted(start: int) -> Iterator[Item]:
        starts.append(start)
        return plan.items(start)

    with pytest.raises(DataError, match=r"^2 pictures cannot be used"):
        pack(folder, replace(plan, items=noted), rows_per_shard=40)
    assert starts == [80]
    assert not folder.exists()


def test_a_source_that_fails_behind_a_broken_picture_can_be_gone_on_with(
    folder: Path, draft: CardDraft, samples: list[Sample]
) -> None:
    def failing(start: int) -> Iterator[Item]:
        yield from islice(with_broken(samples, at={83}), start, 100)
        raise OSError("Input/output error")

    plan = replace(planned(draft, list(samples)), items=failing)
    with pytest.raises(DataError, match="cannot be read: Input/output error; finished shards"):
        pack(folder, plan, rows_per_shard=40)

    assert hidden(folder) == [".tiny.importing"]
    with pytest.raises(DataError, match=r"^s083\.png: cut$"):
        pack(folder, planned(draft, with_broken(samples, at={83})), rows_per_shard=40)

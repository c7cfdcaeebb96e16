from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from natadv.data.card import Card, CardDraft
from natadv.data.packing import write_dataset
from natadv.data.reader import iter_columns, iter_samples, read_by_id, read_samples, verify
from natadv.errors import DataError
from natadv.types import Sample


@pytest.fixture
def card(folder: Path, draft: CardDraft, samples: list[Sample]) -> Card:
    return write_dataset(folder, draft, samples, rows_per_shard=100)


@settings(
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(bounds=st.tuples(st.integers(0, 150), st.integers(0, 150)).map(sorted))
def test_range_is_the_slice_of_what_was_written(
    folder: Path, card: Card, samples: list[Sample], bounds: list[int]
) -> None:
    start, stop = bounds

    assert read_samples(folder, card, start=start, stop=stop) == samples[start:stop]


@pytest.mark.parametrize(("start", "stop"), [(-1, 3), (0, 151), (5, 4)])
def test_range_outside_the_dataset_is_an_error(
    folder: Path, card: Card, start: int, stop: int
) -> None:
    with pytest.raises(DataError, match=f"rows {start} to {stop} were requested, the card has 150"):
        read_samples(folder, card, start=start, stop=stop)


def test_iteration_gives_all_in_order(folder: Path, card: Card, samples: list[Sample]) -> None:
    assert list(iter_samples(folder, card)) == samples


def test_columns_are_read_in_order_and_without_pictures(
    folder: Path, card: Card, samples: list[Sample]
) -> None:
    found = list(iter_columns(folder, card, ("id", "label")))

    assert found == [{"id": sample.id, "label": sample.label} for sample in samples]


def test_samples_are_found_by_id(folder: Path, card: Card, samples: list[Sample]) -> None:
    wanted = ["s149", "s000", "s063", "s064", "s100"]

    found = read_by_id(folder, card, wanted)

    assert found == [samples[i] for i in (0, 63, 64, 100, 149)]


def test_unknown_id_is_an_error(folder: Path, card: Card) -> None:
    with pytest.raises(DataError, match="1 ids are not in 'tiny', first 's150'"):
        read_by_id(folder, card, ["s000", "s150"])


def test_only_the_row_groups_that_are_needed_are_read(
    folder: Path, card: Card, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups: list[int] = []
    read = pq.ParquetFile.read_row_group

    def counting(self: pq.ParquetFile, i: int, **options: bool) -> pa.Table:
        groups.append(i)
        return read(self, i, **options)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", counting)
    read_samples(folder, card, start=70, stop=80)

    assert groups == [1]


def test_shard_is_hashed_once_per_process(
    folder: Path, card: Card, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[object] = []
    digest = hashlib.file_digest

    def counting(file: object, name: str) -> object:
        hashed.append(file)
        return digest(file, name)  # type: ignore[arg-type]

    monkeypatch.setattr(hashlib, "file_digest", counting)
    for _ in range(3):
        read_samples(folder, card, start=0, stop=150)

    assert len(hashed) == len(card.shards)


def first_shard(folder: Path) -> Path:
    return folder / "shard-00000.parquet"


def flip_a_byte(folder: Path) -> None:
    path = first_shard(folder)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def flip_a_byte_of_a_shard_that_was_read(folder: Path) -> None:
    path = first_shard(folder)
    before = path.stat()
    flip_a_byte(folder)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))


def cut_off(folder: Path) -> None:
    path = first_shard(folder)
    path.write_bytes(path.read_bytes()[:-100])


def add_rows(folder: Path) -> None:
    path = first_shard(folder)
    table = pq.read_table(path)
    pq.write_table(pa.concat_tables([table, table.slice(0, 1)]), path)


def swap_shards(folder: Path) -> None:
    a, b = first_shard(folder), folder / "shard-00001.parquet"
    a.rename(folder / "c")
    b.rename(a)
    (folder / "c").rename(b)


def lose(folder: Path) -> None:
    first_shard(folder).unlink()


def leave_another_shard(folder: Path) -> None:
    (folder / "shard-00009.parquet").write_bytes(first_shard(folder).read_bytes())


def put_a_folder_there(folder: Path) -> None:
    first_shard(folder).unlink()
    first_shard(folder).mkdir()


@pytest.mark.parametrize(
    ("sabotage", "complaint"),
    [
        (flip_a_byte, "shard-00000.parquet: sha256 is .*, the card says"),
        (flip_a_byte_of_a_shard_that_was_read, "shard-00000.parquet: sha256 is"),
        (cut_off, "shard-00000.parquet: .* bytes, the card says"),
        (add_rows, "shard-00000.parquet: .* bytes, the card says"),
        (swap_shards, "bytes, the card says"),
        (lose, "shard-00000.parquet: a shard of 100 rows cannot be read: No such file"),
        (leave_another_shard, "shard-00009.parquet: not a shard of the card"),
        (put_a_folder_there, "shard-00000.parquet"),
    ],
)
def test_folder_that_does_not_match_its_card_is_refused(
    folder: Path, card: Card, sabotage: Callable[[Path], None], complaint: str
) -> None:
    verify(folder, card)
    sabotage(folder)

    for read in (
        lambda: read_samples(folder, card, start=0, stop=150),
        lambda: list(iter_samples(folder, card)),
        lambda: read_by_id(folder, card, ["s000"]),
        lambda: verify(folder, card),
    ):
        with pytest.raises(DataError, match=complaint) as caught:
            read()
        assert "dvc pull" in str(caught.value)


def forged(card: Card, path: Path, *, rows: int) -> Card:
    """A card that vouches for whatever lies at `path`."""
    data = path.read_bytes()
    shard = card.shards[0].model_copy(
        update={"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest(), "rows": rows}
    )
    return card.model_copy(update={"shards": (shard, *card.shards[1:])})


def test_rows_are_counted_even_if_hash_and_size_agree(folder: Path, card: Card) -> None:
    add_rows(folder)

    with pytest.raises(DataError, match="101 rows, the card says 100"):
        read_samples(folder, forged(card, first_shard(folder), rows=100), start=0, stop=1)


def test_foreign_columns_are_named(folder: Path, card: Card) -> None:
    path = first_shard(folder)
    table = pq.read_table(path)
    pq.write_table(table.drop_columns(["decoy"]).append_column("extra", table["id"]), path)

    with pytest.raises(DataError, match=r"columns \['decoy', 'extra'\]"):
        read_samples(folder, forged(card, path, rows=100), start=0, stop=1)


def test_file_that_is_not_parquet_is_named(folder: Path, card: Card) -> None:
    first_shard(folder).write_bytes(b"not parquet at all")

    with pytest.raises(DataError, match="not a Parquet file"):
        read_samples(folder, forged(card, first_shard(folder), rows=100), start=0, stop=1)

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from natadv.data.card import Card, CardDraft, load_card
from natadv.data.packing import write_dataset
from natadv.data.reader import read_samples
from natadv.errors import ConfigError, DataError
from natadv.types import Sample


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def read_all(folder: Path, card: Card) -> list[Sample]:
    return read_samples(folder, card, start=0, stop=card.rows)


def test_all_fields_come_back_as_they_went_in(
    folder: Path, draft: CardDraft, samples: list[Sample]
) -> None:
    odd = replace(
        samples[0],
        id="n01/ünï code.JPEG",
        decoy="dog",
        twin="t",
        part="",
        overlay='[{"a":1}]',
        facts='{"n":2}',
    )
    card = write_dataset(folder, draft, [odd, *samples[1:]], rows_per_shard=70)

    assert read_all(folder, card) == [odd, *samples[1:]]
    assert [shard.rows for shard in card.shards] == [70, 70, 10]
    assert card.rows == 150


def test_same_samples_give_the_same_bytes_and_revision(
    folder: Path, draft: CardDraft, samples: list[Sample]
) -> None:
    first = write_dataset(folder, draft, samples)
    before = contents(folder)

    second = write_dataset(folder, draft, iter(samples), force=True)

    assert contents(folder) == before
    assert first == second == load_card(folder)


@pytest.mark.parametrize(
    "change",
    [
        {"image": b"other bytes"},
        {"label": 1},
        {"id": "another"},
        {"group": "another"},
        {"decoy": "dog"},
        {"twin": "t"},
        {"facts": '{"n": 1}'},
    ],
)
def test_any_change_of_a_sample_changes_the_revision(
    folder: Path, draft: CardDraft, samples: list[Sample], change: dict[str, Any]
) -> None:
    before = write_dataset(folder, draft, samples).revision
    changed = [replace(samples[0], **change), *samples[1:]]

    assert write_dataset(folder, draft, changed, force=True).revision != before


@pytest.mark.parametrize(
    "change", [{"classes": ("dog", "cat")}, {"templates": ("a {}.",)}, {"scenario": "natural"}]
)
def test_what_changes_the_question_changes_the_revision(
    folder: Path, draft: CardDraft, samples: list[Sample], change: dict[str, Any]
) -> None:
    before = write_dataset(folder, draft, samples).revision

    after = write_dataset(folder, draft.model_copy(update=change), samples, force=True)

    assert after.revision != before


def test_samples_are_taken_one_shard_at_a_time(folder: Path, draft: CardDraft) -> None:
    """A stream of a million must not be held: a shard lies there before the next begins."""
    seen: list[int] = []

    def stream() -> Iterator[Sample]:
        for i in range(30):
            if i % 10 == 1:
                seen.append(len(list(folder.parent.glob(".tiny.importing/dataset/*.parquet"))))
            yield Sample(id=str(i), group="g", image=b"x", label=0)

    write_dataset(folder, draft, stream(), rows_per_shard=10)

    assert seen == [1, 2, 3]


def test_parts_are_counted(folder: Path, draft: CardDraft, samples: list[Sample]) -> None:
    marked = [replace(s, part="seen" if i < 100 else "held-out") for i, s in enumerate(samples)]

    assert write_dataset(folder, draft, marked).parts == {"held-out": 50, "seen": 100}


def test_overlays_are_told_only_if_every_sample_has_one(
    folder: Path, draft: CardDraft, samples: list[Sample]
) -> None:
    drawn = [replace(sample, overlay="[]") for sample in samples]

    assert write_dataset(folder, draft, drawn).overlays is True
    assert write_dataset(folder, draft, [*drawn[1:], samples[0]], force=True).overlays is False


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "duplicate id": ({"id": "s000"}, "'s000': a second one of this id"),
    "empty id": ({"id": " "}, "an id must be printable text"),
    "line break in id": ({"id": "a\nb"}, "an id must be printable text"),
    "no group": ({"group": ""}, "has no group or no picture"),
    "no picture": ({"image": b""}, "has no group or no picture"),
    "no label": ({"label": None}, "has no label"),
    "label too large": ({"label": 2}, "label must be from 0 to 1, got 2"),
    "label negative": ({"label": -1}, "label must be from 0 to 1, got -1"),
    "facts": ({"facts": "{"}, "facts is not JSON"),
    "overlay": ({"overlay": "["}, "overlay is not JSON"),
    "only some in parts": ({"part": "seen"}, "149 samples have no part while others do"),
}


@pytest.mark.parametrize("bad", BAD)
def test_bad_sample_is_named_and_nothing_is_written(
    folder: Path, draft: CardDraft, samples: list[Sample], bad: str
) -> None:
    change, complaint = BAD[bad]

    with pytest.raises(DataError, match=complaint):
        write_dataset(folder, draft, [*samples[:149], replace(samples[149], **change)])

    assert list(folder.parent.iterdir()) == []


def test_twin_is_needed_where_the_card_promises_one(
    folder: Path, draft: CardDraft, samples: list[Sample]
) -> None:
    with pytest.raises(DataError, match="'s000': has no twin, but the card says twin_of 'clean'"):
        write_dataset(folder, draft.model_copy(update={"twin_of": "clean"}), samples)


def test_no_samples_is_an_error(folder: Path, draft: CardDraft) -> None:
    with pytest.raises(DataError, match="no samples"):
        write_dataset(folder, draft, [])

    assert list(folder.parent.iterdir()) == []


def test_existing_dataset_is_kept_without_force(
    folder: Path, draft: CardDraft, samples: list[Sample]
) -> None:
    write_dataset(folder, draft, samples)
    before = contents(folder)

    with pytest.raises(ConfigError, match="dataset 'tiny' exists; replace it with --force"):
        write_dataset(folder, draft, samples[:1])

    assert contents(folder) == before


def test_failure_while_replacing_keeps_the_old_dataset(
    folder: Path, draft: CardDraft, samples: list[Sample]
) -> None:
    write_dataset(folder, draft, samples)
    before = contents(folder)

    with pytest.raises(DataError, match="second one"):
        write_dataset(folder, draft, [samples[0], samples[0]], force=True)

    assert contents(folder) == before
    assert [path.name for path in folder.parent.iterdir()] == ["tiny"]


def test_place_that_cannot_be_written_is_named(
    tmp_path: Path, draft: CardDraft, samples: list[Sample]
) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(DataError, match="file/tiny: cannot be written"):
        write_dataset(tmp_path / "file" / "tiny", draft, samples)


def test_folder_must_be_named_as_the_dataset(
    tmp_path: Path, draft: CardDraft, samples: list[Sample]
) -> None:
    with pytest.raises(ConfigError, match="named as the dataset, 'tiny'"):
        write_dataset(tmp_path / "huge", draft, samples)


def test_the_datasets_library_finds_pictures_and_class_names(
    folder: Path, draft: CardDraft, samples: list[Sample]
) -> None:
    """It reads its features from the schema's metadata, and pictures from {bytes, path}."""
    card = write_dataset(folder, draft, samples)
    schema = pq.read_schema(folder / card.shards[0].file)

    features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]

    assert features["image"] == {"_type": "Image"}
    assert features["label"] == {"names": ["cat", "dog"], "_type": "ClassLabel"}
    assert list(features) == schema.names
    assert schema.field("image").type == pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    assert schema.field("label").type == pa.int64()


def test_row_groups_are_small_and_pictures_are_not_compressed_again(
    folder: Path, draft: CardDraft, samples: list[Sample]
) -> None:
    card = write_dataset(folder, draft, samples)
    metadata = pq.ParquetFile(folder / card.shards[0].file).metadata

    assert [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)] == [64, 64, 22]
    columns = [metadata.row_group(0).column(i) for i in range(metadata.num_columns)]
    codecs = {column.path_in_schema: column.compression for column in columns}
    assert codecs["image.bytes"] == "UNCOMPRESSED"
    assert codecs["facts"] == "ZSTD"

"""Old datasets keep their bytes; those of the new tasks keep one copy of each picture."""

from __future__ import annotations

import io
import json
import subprocess
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from mini_world.params import ROOT
from natadv.data.card import CardDraft, load_card
from natadv.data.packing import write_dataset
from natadv.data.reader import iter_samples, read_by_id, read_samples, verify
from natadv.data.schema import COLUMNS, columns_of, row_of, schema_of
from natadv.errors import DataError
from natadv.types import Sample

VQA = ("vqa",)


@cache
def noise(seed: int, *, side: int = 128) -> bytes:
    """About 3 bytes per pixel, which nothing can compress."""
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def questions(pictures: int, *, each: int, side: int = 128) -> Iterator[Sample]:
    for picture in range(pictures):
        image = noise(picture, side=side)
        for number in range(each):
            yield Sample(
                f"{picture}-{number}",
                group=str(picture),
                image=image,
                question=f"Is this number {number}?",
                answers=("yes", "no", "yes", "yes"),
                answer_type="yes/no",
            )


@pytest.fixture
def asking(draft: CardDraft) -> CardDraft:
    return draft.model_copy(update={"tasks": VQA})


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.parquet"))


# --- datasets without the new columns ---


def as_before(path: Path, samples: list[Sample]) -> bytes:
    """Classification as it was packed before there were other tasks, written out."""
    text = {"dtype": "string", "_type": "Value"}
    names = ["id", "group", "image", "label", "decoy", "twin", "part", "overlay", "facts"]
    features = {
        **dict.fromkeys(names, text),
        "image": {"_type": "Image"},
        "label": {"names": ["cat", "dog"], "_type": "ClassLabel"},
    }
    types = {name: pa.string() for name in names} | {"label": pa.int64()}
    types["image"] = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.schema(
        [(name, types[name]) for name in names],
        metadata={"huggingface": json.dumps({"info": {"features": features}})},
    )
    rows = [
        {
            **{name: getattr(s, name) for name in names},
            "image": {"bytes": s.image, "path": s.id + ".png"},
        }
        for s in samples
    ]
    leaves = ["id", "group", "image.path", "label", "decoy", "twin", "part", "overlay", "facts"]
    with pq.ParquetWriter(
        path,
        schema,
        compression={**dict.fromkeys(leaves, "zstd"), "image.bytes": "none"},
        use_dictionary=leaves[1:],
        write_statistics=leaves,
    ) as writer:
        for start in range(0, len(rows), 64):
            writer.write_table(pa.Table.from_pylist(rows[start : start + 64], schema=schema))
    return path.read_bytes()


def test_samples_of_classification_make_the_bytes_that_they_always_made(
    folder: Path, tmp_path: Path, draft: CardDraft, samples: list[Sample]
) -> None:
    card = write_dataset(folder, draft, samples)

    assert (folder / card.shards[0].file).read_bytes() == as_before(tmp_path / "old", samples)


_TRACKED = subprocess.run(
    ["git", "ls-files", "fixtures/datasets"], cwd=ROOT, capture_output=True, text=True, check=True
).stdout.splitlines()
COMMITTED = sorted({Path(file).parent.name for file in _TRACKED if file.endswith("/card.yaml")})
"""Without those that somebody imported into this checkout."""


@pytest.mark.parametrize("name", COMMITTED)
def test_a_committed_dataset_packs_again_to_the_same_bytes(name: str, tmp_path: Path) -> None:
    folder = ROOT / "fixtures" / "datasets" / name
    card = load_card(folder)
    stated = {key: getattr(card, key) for key in CardDraft.model_fields}
    columns = columns_of(card.tasks)

    verify(folder, card)
    samples = list(iter_samples(folder, card))
    again = write_dataset(
        tmp_path / name, CardDraft(**stated), samples, rows_per_shard=card.shards[0].rows
    )

    assert again == card
    assert (tmp_path / name / "card.yaml").read_bytes() == (folder / "card.yaml").read_bytes()
    for sample in samples[:: card.rows // 5]:
        row = row_of(sample)
        for key, column in COLUMNS.items():
            assert not column.tasks or bool(row[key]) == (key in columns), sample.id


# --- datasets with them ---


def test_columns_are_in_the_order_of_the_tasks_not_of_the_card() -> None:
    common = [name for name, c in COLUMNS.items() if not c.tasks and not c.stated]
    extra = ["phrase", "mask", "question", "answers", "answer_type"]

    assert list(columns_of(("classification",))) == common
    assert list(columns_of(("vqa", "segmentation"))) == [*common, *extra]


def test_only_a_dataset_that_says_so_has_candidates(folder: Path, draft: CardDraft) -> None:
    either = draft.model_copy(update={"candidates": True})
    samples = [
        Sample(f"s{i}", f"g{i}", noise(i), label=i % 2, candidates=("dog", "sofa", "cat")[: 3 - i])
        for i in (0, 1)
    ]
    samples[1] = replace(samples[1], candidates=("dog", "cat"))

    card = write_dataset(folder, either, samples)

    assert (
        list(iter_samples(folder, card)) == read_samples(folder, card, start=0, stop=2) == samples
    )
    assert (card.candidates, "candidates: true" in (folder / "card.yaml").read_text()) == (
        True,
    ) * 2
    schema = pq.read_schema(folder / card.shards[0].file)
    features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
    assert list(features) == schema.names == [*columns_of(("classification",)), "candidates"]
    assert features["candidates"]["_type"] == "Sequence"


@pytest.mark.parametrize(
    ("stated", "candidates", "complaint"),
    [
        (True, (), "has no candidates, but the card says candidates"),
        (False, ("cat", "dog"), "has candidates, but the card lacks candidates"),
        (True, ("dog", "sofa"), "its class 'cat' is not among its candidates 'dog', 'sofa'"),
        (True, ("cat",), "expected at least two candidates, each once"),
        (True, ("cat", "cat"), "expected at least two candidates, each once"),
        (True, ("cat", " "), "none of them empty"),
    ],
)
def test_candidates_that_no_model_could_choose_from_are_refused(
    folder: Path, draft: CardDraft, stated: bool, candidates: tuple[str, ...], complaint: str
) -> None:
    sample = Sample("s0", "g0", noise(0), label=0, candidates=candidates)

    with pytest.raises(DataError, match=complaint):
        write_dataset(folder, draft.model_copy(update={"candidates": stated}), [sample])

    assert not folder.exists()


def test_the_datasets_library_finds_the_new_columns(folder: Path, asking: CardDraft) -> None:
    card = write_dataset(folder, asking, questions(1, each=2))
    schema = pq.read_schema(folder / card.shards[0].file)

    features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]

    assert list(features) == schema.names == list(columns_of(VQA))
    assert features["question"] == {"dtype": "string", "_type": "Value"}
    assert features["answers"]["feature"] == {"dtype": "string", "_type": "Value"}
    assert schema.field("answers").type == pa.list_(pa.string())


def test_every_column_has_a_feature(draft: CardDraft) -> None:
    tasks = ("classification", "segmentation", "vqa")
    schema = schema_of(draft.model_copy(update={"tasks": tasks}))

    features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]

    assert features["mask"] == {"dtype": "binary", "_type": "Value"}
    assert list(features) == schema.names


def test_ten_questions_to_a_picture_take_the_space_of_one(folder: Path, asking: CardDraft) -> None:
    write_dataset(folder, asking, questions(1, each=1))
    one = size_of(folder)
    write_dataset(folder, asking, questions(1, each=10), force=True)

    assert one > 45_000
    assert size_of(folder) < 1.05 * one


def test_pictures_that_end_in_another_row_group_are_stored_there_too_and_no_oftener(
    folder: Path, asking: CardDraft
) -> None:
    """Ten to a picture and 64 to a row group: of 32 pictures, four lie across a border."""
    card = write_dataset(folder, asking, questions(32, each=10, side=64))

    copies = size_of(folder) / len(noise(0, side=64))
    assert card.rows == 320
    assert 35 < copies < 37.5
    assert list(iter_samples(folder, card)) == list(questions(32, each=10, side=64))


def test_a_dictionary_of_large_pictures_does_not_overflow(folder: Path, asking: CardDraft) -> None:
    """At Parquet's usual limit of 1 MiB every further row would hold its picture again."""
    write_dataset(folder, asking, questions(3, each=20, side=384))

    assert size_of(folder) < 3.2 * len(noise(0, side=384))


def test_masks_of_a_picture_are_stored_once_too(folder: Path, draft: CardDraft) -> None:
    speckled = np.random.default_rng(0).integers(0, 2, (128, 128), dtype=np.uint8) * 255
    buffer = io.BytesIO()
    Image.fromarray(speckled).save(buffer, "PNG")
    sample = Sample("a", group="g", image=noise(0), phrase="it", mask=buffer.getvalue())
    both = draft.model_copy(update={"tasks": ("segmentation",)})
    rows = [replace(sample, id=str(i)) for i in range(10)]
    write_dataset(folder, both, rows)

    assert size_of(folder) < 1.2 * (len(sample.image) + len(buffer.getvalue()))


def test_nothing_that_is_compressed_is_compressed_again_and_all_else_is(
    folder: Path, draft: CardDraft
) -> None:
    black = io.BytesIO()
    Image.new("L", (128, 128)).save(black, "PNG")
    sample = replace(next(questions(1, each=1)), phrase="it", mask=black.getvalue())
    tasks = {"tasks": ("segmentation", "vqa")}
    card = write_dataset(folder, draft.model_copy(update=tasks), [sample])
    group = pq.ParquetFile(folder / card.shards[0].file).metadata.row_group(0)
    columns = {group.column(i).path_in_schema: group.column(i) for i in range(group.num_columns)}

    plain = {name for name, column in columns.items() if column.compression == "UNCOMPRESSED"}
    unmeasured = {name for name, column in columns.items() if column.statistics is None}

    assert plain == unmeasured == {"image.bytes", "mask"}
    assert "answers.list.element" in columns
    assert columns["image.bytes"].has_dictionary_page


def test_samples_of_a_picture_are_found_by_row_and_by_id(folder: Path, asking: CardDraft) -> None:
    written = list(questions(10, each=10, side=16))
    card = write_dataset(folder, asking, written, rows_per_shard=70)

    assert read_samples(folder, card, start=63, stop=75) == written[63:75]
    assert read_by_id(folder, card, ["9-9", "0-0"]) == [written[0], written[99]]


def test_memory_does_not_grow_with_the_dataset(folder: Path, asking: CardDraft) -> None:
    """Peak of Python's and Arrow's bytes while reading; a row group holds 64 pictures at most."""

    def peak(pictures: int) -> int:
        card = write_dataset(folder, asking, questions(pictures, each=4, side=64), force=True)
        arrow = pa.default_memory_pool()
        before = arrow.bytes_allocated()
        highest = 0
        tracemalloc.start()
        for _ in iter_samples(folder, card):
            highest = max(highest, arrow.bytes_allocated() - before)
        python = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return highest + python

    few, many = peak(32), peak(256)

    assert many < 1.3 * few


def swap_tasks(draft: CardDraft, folder: Path, *, written: str, claimed: str) -> None:
    """A card that promises another task than the shards were packed for."""
    sample = replace(next(questions(1, each=1)), label=0)
    bare = replace(sample, question=None, answers=(), answer_type="")
    card = write_dataset(
        folder,
        draft.model_copy(update={"tasks": (written,)}),
        [sample if written == "vqa" else bare],
    )
    list(iter_samples(folder, card.model_copy(update={"tasks": (claimed,)})))


@pytest.mark.parametrize(
    ("written", "claimed"), [("classification", "vqa"), ("vqa", "classification")]
)
def test_shards_of_another_task_than_the_card_says_are_refused(
    folder: Path, draft: CardDraft, written: str, claimed: str
) -> None:
    columns = r"\['answer_type', 'answers', 'question'\]"

    with pytest.raises(DataError, match=f"columns {columns} are not as in .* of {claimed}"):
        swap_tasks(draft, folder, written=written, claimed=claimed)


@pytest.mark.parametrize(
    "change",
    [
        {"question": "Is it?"},
        {"answers": ("yes",) * 4},
        {"answers": ("no", "yes", "yes", "yes")},
        {"answer_type": "other"},
    ],
)
def test_any_change_of_a_question_changes_the_revision(
    folder: Path, asking: CardDraft, change: dict[str, object]
) -> None:
    written = list(questions(2, each=2, side=8))
    before = write_dataset(folder, asking, written).revision
    changed = [replace(written[0], **change), *written[1:]]

    assert write_dataset(folder, asking, changed, force=True).revision != before


def test_same_questions_give_the_same_bytes(folder: Path, asking: CardDraft) -> None:
    first = write_dataset(folder, asking, questions(9, each=9, side=8))

    assert write_dataset(folder, asking, questions(9, each=9, side=8), force=True) == first

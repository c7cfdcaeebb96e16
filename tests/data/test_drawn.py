"""Datasets whose pictures are drawn when they are shown: overlays, and no pictures."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from natadv.cli.data_commands import list_datasets
from natadv.data.card import CardDraft, dump_card, load_card, refuse_drawn
from natadv.data.dataset_plan import DatasetPlan
from natadv.data.packing import pack, write_dataset
from natadv.data.reader import iter_samples, read_by_id, verify
from natadv.data.status import status_lines, statuses
from natadv.errors import ConfigError, DataError
from natadv.types import Sample

REPOSITORY = Path(__file__).resolve().parents[2]
OVERLAY = json.dumps([{"text": "dog"}])


def mask(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (width, height), 255).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def clean(tmp_path: Path, draft: CardDraft, samples: list[Sample]):
    return write_dataset(tmp_path / "fixtures/datasets/tiny", draft, samples)


@pytest.fixture
def make_draft(draft: CardDraft, clean) -> Callable[..., CardDraft]:
    def make(**other: Any) -> CardDraft:
        told = {
            **draft.model_dump(),
            "name": "tiny-drawn",
            "scenario": "typographic",
            "twin_of": "tiny",
            "drawn": True,
            "twin_revision": clean.revision,
        }
        return CardDraft.model_validate({**told, **other})

    return make


@pytest.fixture
def rows(samples: list[Sample]) -> list[Sample]:
    """Three rows on each of the first fifty pictures."""
    return [
        replace(s, id=f"{s.id}@{n}", image=b"", twin=s.id, overlay=OVERLAY, decoy="dog")
        for s in samples[:50]
        for n in range(3)
    ]


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "fixtures/datasets/tiny-drawn"


def test_rows_without_pictures_come_back_whole(target, make_draft, rows):
    card = write_dataset(target, make_draft(), rows, rows_per_shard=100)

    assert load_card(target) == card
    assert (card.drawn, card.overlays, card.rows) == (True, True, 150)
    assert list(iter_samples(target, card)) == rows
    assert read_by_id(target, card, {rows[7].id}) == [rows[7]]
    verify(target, card)
    # Null, and not empty: the `datasets` library opens such rows.
    table = pq.read_table(target / "shard-00000.parquet")
    assert table.column("image").null_count == 100


def test_packing_gives_the_same(target, make_draft, rows, tmp_path):
    plan = DatasetPlan(make_draft(), lambda start: iter(rows[start:]), len(rows), "rows", "state")
    packed = pack(target, plan)

    other = tmp_path / "other/tiny-drawn"
    assert write_dataset(other, make_draft(), rows) == packed.card


def test_the_revision_is_of_what_is_drawn_on_too(target, make_draft, rows):
    first = write_dataset(target, make_draft(), rows)
    other = write_dataset(target, make_draft(twin_revision="0" * 64), rows, force=True)

    assert first.shards == other.shards
    assert first.revision != other.revision
    path = target / "card.yaml"
    raw = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump({**raw, "twin_revision": "1" * 64}))
    with pytest.raises(DataError, match="revision is"):
        load_card(target)


def test_cards_of_stored_pictures_say_nothing_of_it(clean, tmp_path):
    assert "drawn" not in dump_card(clean)
    assert "twin_revision" not in dump_card(clean)


@pytest.mark.parametrize("name", ["mini", "mini-typo", "mini-natural", "mini-langadv"])
def test_cards_that_were_there_keep_their_bytes(name):
    folder = REPOSITORY / "fixtures/datasets" / name

    assert dump_card(load_card(folder)) == (folder / "card.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"twin_of": None}, "drawn needs twin_of and twin_revision"),
        ({"twin_revision": None}, "drawn needs twin_of and twin_revision"),
        ({"drawn": False}, "twin_revision is only for datasets that are drawn"),
        ({"twin_revision": "abc"}, "twin_revision"),
    ],
)
def test_a_card_that_tells_no_ground_is_refused(make_draft, change, complaint):
    with pytest.raises(ValueError, match=complaint):
        make_draft(**change)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"image": b"picture"}, "has a picture, but the card says drawn"),
        ({"overlay": None}, "has no overlay, so that nothing can be drawn"),
        ({"overlay": "not json"}, "overlay is not JSON"),
        ({"twin": None}, "has no twin"),
        ({"group": ""}, "has no group or no picture"),
    ],
)
def test_a_row_that_cannot_be_drawn_is_refused_by_name(target, make_draft, rows, change, complaint):
    with pytest.raises(DataError, match=rf"tiny-drawn: sample 's000@1': {complaint}"):
        write_dataset(target, make_draft(), [rows[0], replace(rows[1], **change)])
    assert not target.exists()


def test_a_dataset_that_is_not_drawn_needs_its_pictures(target, make_draft, rows):
    stored = make_draft(drawn=False, twin_revision=None)

    with pytest.raises(DataError, match="has no group or no picture"):
        write_dataset(target, stored, rows)


def test_masks_are_of_any_size_but_masks(target, make_draft, rows):
    draft = make_draft(tasks=("classification", "segmentation"))
    asked = [replace(row, phrase="the dog", mask=mask(n + 1, 9)) for n, row in enumerate(rows[:9])]
    card = write_dataset(target, draft, asked)

    assert list(iter_samples(target, card)) == asked
    with pytest.raises(DataError, match="its mask is not a PNG"):
        write_dataset(target, draft, [replace(asked[0], mask=b"mask")], force=True)


def test_whoever_needs_pictures_is_told_where_they_are(target, make_draft, rows, clean):
    card = write_dataset(target, make_draft(), rows)

    refuse_drawn(clean, remedy="")
    with pytest.raises(DataError, match=r"tiny-drawn holds no pictures.*those of tiny.*; go on"):
        refuse_drawn(card, remedy="go on")


def test_it_is_listed_with_what_it_is_drawn_on(target, make_draft, rows, tmp_path, capsys):
    write_dataset(target, make_draft(), rows)

    assert list_datasets(tmp_path) == 0
    assert "150 samples drawn on tiny, 2 classes" in capsys.readouterr().out


def test_the_status_tells_whether_its_ground_is_there(
    target, make_draft, rows, tmp_path, draft, samples, clean
):
    write_dataset(target, make_draft(), rows)

    def drawn():
        return {status.name: status for status in statuses(tmp_path)}["tiny-drawn"]

    assert (drawn().undrawable, drawn().wrong) == ("", False)
    write_dataset(tmp_path / "fixtures/datasets/tiny", draft, samples[:90], force=True)
    assert drawn().wrong
    assert f"of revision {clean.revision[:12]}, " in drawn().undrawable
    assert f"tiny-drawn: {drawn().undrawable}" in list(status_lines([drawn()]))
    (tmp_path / "fixtures/datasets/tiny").rename(tmp_path / "elsewhere")
    assert "none is there" in drawn().undrawable


def test_a_draft_from_a_person_is_told_what_is_missing():
    from natadv.data.card import draft_card

    with pytest.raises(ConfigError, match="drawn needs twin_of"):
        draft_card(
            name="x",
            tasks=("vqa",),
            scenario="typographic",
            classes=(),
            templates=(),
            licence="CC0-1.0",
            source="s",
            description="d",
            drawn=True,
        )

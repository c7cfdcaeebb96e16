from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from natadv.data.card import (
    Card,
    CardDraft,
    dataset_folder,
    draft_card,
    dump_card,
    find_datasets,
    load_card,
)
from natadv.data.packing import write_dataset
from natadv.errors import ConfigError, DataError
from natadv.types import Sample


@pytest.fixture
def card(folder: Path, draft: CardDraft, samples: list[Sample]) -> Card:
    return write_dataset(folder, draft, samples, rows_per_shard=100)


def edit(folder: Path, **changes: Any) -> None:
    path = folder / "card.yaml"
    raw = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump({**raw, **changes}))


def test_a_card_survives_being_written_and_read(folder: Path, card: Card) -> None:
    assert load_card(folder) == card
    assert (folder / "card.yaml").read_text() == dump_card(card)


def test_missing_card_says_where_it_should_be(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere/card.yaml: expected a card here; run dvc pull"):
        load_card(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"licens": "MIT"}, "licens: unknown key, did you mean 'licence'"),
        ({"scenario": "typo"}, "scenario: "),
        ({"tasks": []}, "tasks: "),
        ({"tasks": ["captioning"]}, r"tasks\[0\]: "),
        ({"rows": "150"}, "rows: "),
        ({"rows": 151}, "rows is 151, the shards hold 150"),
        ({"parts": {"seen": 9}}, "rows is 150, the parts hold 9"),
        ({"classes": ["cat"]}, "at least two classes"),
        ({"classes": ["cat", "cat"]}, r"classes: expected each value once, got twice: \['cat'\]"),
        ({"templates": ["a photo."]}, r"templates: expected a format string with one '\{\}'"),
        ({"templates": ["{} and {}"]}, "templates: "),
        ({"templates": ["a {name}"]}, "templates: "),
        ({"templates": ["a {}{"]}, "templates: "),
        ({"revision": "0" * 64}, "revision is 000000000000, the contents of the card give"),
        ({"classes": ["dog", "cat"]}, "revision is"),
        ({"templates": ["a {}."]}, "revision is"),
        ({"overlays": True}, "revision is"),
        ({"shards": [{"file": "../x.parquet", "rows": 1}]}, r"shards\[0\].file: "),
        ({"name": "other"}, "revision is"),
    ],
)
def test_edited_card_is_refused_with_file_and_key(
    folder: Path, card: Card, changes: dict[str, Any], complaint: str
) -> None:
    edit(folder, **changes)

    with pytest.raises(DataError, match=complaint) as caught:
        load_card(folder)

    assert str(folder / "card.yaml") in str(caught.value)


def test_words_around_the_data_may_change(folder: Path, card: Card) -> None:
    edit(folder, description="better words", licence="CC-BY-4.0")

    assert load_card(folder).revision == card.revision


@pytest.mark.parametrize("text", ["{", "", "- a\n", "name: a\nname: b\n", "\x00"])
def test_what_is_no_card_is_refused(folder: Path, card: Card, text: str) -> None:
    (folder / "card.yaml").write_text(text)

    with pytest.raises(DataError, match=r"card\.yaml"):
        load_card(folder)


def test_card_in_a_folder_of_another_name_is_refused(folder: Path, card: Card) -> None:
    folder.rename(folder.with_name("renamed"))

    with pytest.raises(DataError, match="name is 'tiny', the folder is 'renamed'"):
        load_card(folder.with_name("renamed"))


def test_datasets_are_found_by_name_without_those_being_written(
    folder: Path, card: Card, tmp_path: Path
) -> None:
    half = folder.with_name(".half.new-1")
    half.mkdir()
    (half / "card.yaml").touch()
    folder.with_name("no-card").mkdir()

    assert find_datasets(tmp_path) == {"tiny": folder}
    assert find_datasets(tmp_path / "elsewhere") == {}


def test_unknown_dataset_names_the_near_ones(card: Card, tmp_path: Path, folder: Path) -> None:
    assert dataset_folder("tiny", tmp_path) == folder
    with pytest.raises(ConfigError, match="unknown dataset 'tyny', did you mean 'tiny'"):
        dataset_folder("tyny", tmp_path)


@pytest.mark.parametrize("name", ["", "UPPER", "a/b", "../up", ".hidden", "sp ace", "x" * 65])
def test_name_that_cannot_be_part_of_an_address_is_refused(draft: CardDraft, name: str) -> None:
    with pytest.raises(ConfigError, match="name: "):
        draft_card(**{**draft.model_dump(), "name": name})


def test_fields_that_are_not_the_default_are_part_of_the_revision(
    folder: Path, card: Card, draft: CardDraft, samples: list[Sample]
) -> None:
    text = (folder / "card.yaml").read_text()
    raw = draft.model_copy(update={"averaging": "raw"})

    other = write_dataset(folder, raw, samples, rows_per_shard=100, force=True)

    assert not {"averaging", "candidates", "drawn"} & yaml.safe_load(text).keys()
    assert yaml.safe_load((folder / "card.yaml").read_text())["averaging"] == "raw"
    assert (other.shards, load_card(folder)) == (card.shards, other)
    assert other.revision != card.revision


@pytest.mark.parametrize("changes", [{"candidates": True}, {"averaging": "raw"}])
def test_a_card_cannot_be_given_another_protocol_by_hand(
    folder: Path, card: Card, changes: dict[str, Any]
) -> None:
    edit(folder, **changes)

    with pytest.raises(DataError, match="revision is"):
        load_card(folder)


def test_candidates_are_for_classification(draft: CardDraft) -> None:
    described = {**draft.model_dump(), "tasks": ("vqa",), "candidates": True}

    with pytest.raises(ConfigError, match="candidates are for task 'classification' only"):
        draft_card(**described)


def test_dataset_cannot_be_its_own_twin(draft: CardDraft) -> None:
    with pytest.raises(ConfigError, match="twin_of names the dataset itself"):
        draft_card(**{**draft.model_dump(), "twin_of": "tiny"})


def test_cards_are_found_and_read_without_arrow_and_pillow(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib, natadv.data.card as c, natadv.cli.data_commands;"
        "c.find_datasets(pathlib.Path('.'));"
        "sys.exit(any(m in sys.modules for m in ('pyarrow', 'PIL', 'torch')))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=False)

    assert done.returncode == 0

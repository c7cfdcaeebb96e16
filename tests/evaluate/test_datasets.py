from __future__ import annotations

from natadv.evaluate.datasets import load_datasets


def test_datasets_are_found_by_name_with_their_cards(tmp_path, plain, typo):
    assert load_datasets(tmp_path) == {"plain": plain, "plain-typo": typo}


def test_no_folder_is_no_dataset(tmp_path):
    assert load_datasets(tmp_path) == {}

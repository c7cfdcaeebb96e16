"""What reports name a contract and the files that it includes."""

from __future__ import annotations

from datetime import date

import pytest

from natadv import places
from natadv.bundle.entries import contract_name, waiver_use_entries
from natadv.gate.rules import Waiver
from natadv.gate.waivers import WaiverUse


@pytest.mark.parametrize(
    ("path", "named"),
    [
        ("mine/thresholds.yaml", "thresholds.yaml"),
        ("mine/gates/strict.yaml", "gates/strict.yaml"),
        ("mine/.natadv/exported/thresholds.yaml", "thresholds.yaml"),
        ("package/thresholds.yaml", "natadv:thresholds.yaml"),
        ("package/gates/strict.yaml", "natadv:gates/strict.yaml"),
        ("elsewhere/strict.yaml", "strict.yaml"),
    ],
)
def test_a_contract_is_named_by_where_it_lies(tmp_path, monkeypatch, path, named):
    monkeypatch.setattr(places, "package_roots", lambda: (tmp_path / "package",))

    assert contract_name(tmp_path / path, tmp_path / "mine") == named


def test_a_clone_names_its_own_contract_as_a_file_of_the_repository(tmp_path, monkeypatch):
    monkeypatch.setattr(places, "package_roots", lambda: (tmp_path,))

    assert contract_name(tmp_path / "thresholds.yaml", tmp_path) == "thresholds.yaml"


@pytest.mark.parametrize(
    ("contract", "included", "named"),
    [
        ("thresholds.yaml", "", "thresholds.yaml"),
        ("gates/strict.yaml", "more/typo.yaml", "gates/more/typo.yaml"),
        ("gates/strict.yaml", "natadv:release.yaml", "natadv:release.yaml"),
        ("natadv:thresholds.yaml", "", "natadv:thresholds.yaml"),
        ("natadv:thresholds.yaml", "thresholds/mini.yaml", "natadv:thresholds/mini.yaml"),
        ("natadv:thresholds.yaml", "natadv:release.yaml", "natadv:release.yaml"),
    ],
)
def test_an_included_file_is_named_from_the_root_of_its_contract(contract, included, named):
    case = "classification/clean/mini/mini-clip"
    waiver = Waiver(case, "known", "jane", "#1", date(2026, 12, 20), file=included)
    (entry,) = waiver_use_entries([WaiverUse(waiver, "applied")], contract)

    assert entry.file == named

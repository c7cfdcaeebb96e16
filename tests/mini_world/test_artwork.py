"""Artwork comes in only with the licence that was relied upon."""

from __future__ import annotations

import json

import pytest

from mini_world.artwork import VENDORS, bring_in
from mini_world.licences import SOURCES, licences
from mini_world.params import ROOT, params
from mini_world.sprites import SPRITES, sprites
from natadv.errors import ConfigError, DataError

LARGEST_BYTES = 5_000_000


@pytest.fixture
def node_modules(tmp_path):
    for source in SOURCES:
        folder = tmp_path / source.package
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "package.json").write_text('{"version": "1.2.3"}')
        proof = folder / source.proof
        proof.write_text(source.words if proof.suffix == ".md" else f"{{{source.words}}}")
        if proof.name == "package.json":
            proof.write_text(json.dumps({"version": "1.2.3", "license": "MIT"}))
    return tmp_path


def test_the_licence_page_names_every_vendor_package_and_version(node_modules):
    page = licences(node_modules)

    for source in SOURCES:
        assert f"| {source.vendor} |" in page
        assert f"`{source.package}` | 1.2.3" in page


def test_a_package_that_changed_its_licence_is_refused(node_modules):
    (node_modules / "emoji-datasource-google/README.md").write_text("All rights reserved")

    with pytest.raises(DataError, match="read the package's licence before"):
        licences(node_modules)


def test_missing_packages_are_refused_before_anything_is_written(tmp_path):
    with pytest.raises(DataError, match="run npm install"):
        bring_in(tmp_path / "node_modules", tmp_path)

    assert list(tmp_path.iterdir()) == []


def test_every_vendor_has_a_licence_and_the_committed_page_names_it():
    page = (ROOT / "fixtures/mini/LICENSES.md").read_text(encoding="utf-8")

    assert {source.vendor for source in SOURCES} == set(VENDORS)
    assert all(f"| {vendor} |" in page for vendor in VENDORS)
    assert "apple" not in page.lower()
    assert "facebook" not in page.lower()


def test_sprites_come_from_these_vendors_only_and_stay_small():
    assert {drawing.split("@")[1] for drawing in sprites()} == set(VENDORS)
    assert (ROOT / SPRITES).stat().st_size <= LARGEST_BYTES


def test_an_unknown_section_of_the_parameters_is_refused():
    with pytest.raises(ConfigError, match=r"unknown section of .*'maxi', did you mean 'mini'"):
        params("maxi")


def test_parameters_of_another_repository_hide_only_sections_of_the_same_name(
    tmp_path, monkeypatch
):
    (tmp_path / "params.yaml").write_text("mini:\n  per_class: 3\ntrain:\n  rate: 0.1\n")
    monkeypatch.setattr("mini_world.params.ROOT", tmp_path)
    params.cache_clear()
    try:
        assert params("mini") == {"per_class": 3}
        assert params("sprites")["held_out"]
    finally:
        params.cache_clear()

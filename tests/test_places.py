"""What a run reads comes from its root, and else from an installed package."""

from pathlib import Path

import pytest

from natadv import places
from natadv.places import children, find, package_roots

MODEL = Path("fixtures/models/own")


pytestmark = pytest.mark.usefixtures("packages")


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An installed package that holds a model; the root of the run is `tmp_path / "root"`."""
    folder = tmp_path / "site-packages" / "holds_models"
    (folder / MODEL).mkdir(parents=True)
    (folder / "__init__.py").touch()
    monkeypatch.syspath_prepend(folder.parent)
    monkeypatch.setattr(places, "entry_points", lambda group: {"some": "holds_models"})
    package_roots.cache_clear()
    yield folder
    package_roots.cache_clear()


def test_a_file_of_the_root_hides_that_of_a_package(package, tmp_path):
    root = tmp_path / "root"
    assert find(MODEL, root) == package / MODEL
    (root / MODEL).mkdir(parents=True)
    assert find(MODEL, root) == root / MODEL


def test_what_nobody_has_is_missing_from_the_root(package, tmp_path):
    absent = Path("fixtures/models/no-such-model")
    assert find(absent, tmp_path / "root") == tmp_path / "root" / absent


def test_a_folder_holds_what_the_root_and_the_packages_hold(package, tmp_path):
    root = tmp_path / "root"
    (root / MODEL.parent / "another").mkdir(parents=True)
    found = children(MODEL.parent, root)
    assert found["another"] == root / MODEL.parent / "another"
    assert found["own"] == package / MODEL


def test_natadv_itself_holds_the_suites_and_the_contract():
    own = package_roots()[0]
    assert (own / "thresholds.yaml").is_file()
    assert (own / "suites" / "test_classification.py").is_file()


def test_a_package_that_was_removed_by_hand_holds_nothing(monkeypatch):
    monkeypatch.setattr(places, "entry_points", lambda group: {"gone": "no_such_package"})
    package_roots.cache_clear()
    try:
        assert len(package_roots()) == 1
    finally:
        package_roots.cache_clear()

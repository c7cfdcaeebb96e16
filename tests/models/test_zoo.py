from __future__ import annotations

import json
import shutil
import string
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natadv.errors import ConfigError, ModelError, UnknownNameError
from natadv.models import zoo
from natadv.models.checkpoint import LOADER_OF_TYPE
from natadv.models.loading import LOADERS
from natadv.types import TASKS

ADDRESS = set(string.ascii_letters + string.digits + "._-")


@pytest.fixture(scope="module")
def root(tmp_path_factory, tiny_clip, tiny_siglip):
    """A repository whose zoo rows hold the tiny checkpoints."""
    folder = tmp_path_factory.mktemp("repository")
    shutil.copytree(tiny_clip, folder / zoo.ZOO["mini-clip"].location)
    shutil.copytree(tiny_siglip, folder / zoo.ZOO["mini-siglip"].location)
    return folder


@pytest.mark.parametrize("row", zoo.ZOO.values(), ids=lambda row: row.name)
def test_row_can_stand_in_an_address_and_be_loaded(row):
    assert zoo.ZOO[row.name] is row
    assert zoo.slug(row.name) == row.name
    assert row.loader in LOADERS
    assert set(row.tasks) <= set(TASKS)
    assert row.licence


def test_every_supported_type_has_a_loader():
    assert set(LOADER_OF_TYPE.values()) <= set(LOADERS)


def test_name_means_its_row(root):
    (spec,) = zoo.resolve("mini-clip", root=root)

    assert (spec.name, spec.lineage, spec.family) == ("mini-clip", "mini-clip", "mini")
    assert spec.folder == root / "fixtures/models/mini-clip"
    assert spec.loader == "transformers-clip"


@pytest.mark.parametrize("name", ["mini", "mini-*", "*", "mini-[cs]*"])
def test_family_or_glob_means_all_its_rows(root, name):
    assert [s.name for s in zoo.resolve(name, root=root)] == ["mini-clip", "mini-siglip"]


@pytest.mark.parametrize("name", ["mini-clop", "mini-siglip2", "mni"])
def test_unknown_name_is_told_with_near_misses(root, name):
    with pytest.raises(UnknownNameError, match="did you mean 'mini"):
        zoo.resolve(name, root=root)


@pytest.mark.parametrize("name", ["", " ", "resnet-*", "no such model"])
def test_unknown_name_lists_what_is_known(root, name):
    with pytest.raises(UnknownNameError, match="Known: mini, mini-clip, mini-siglip"):
        zoo.resolve(name, root=root)


@pytest.mark.parametrize("name", ["./nowhere", "candidates/nowhere", "/no/where", "../x*"])
def test_missing_folder_is_told_as_a_folder(root, name):
    with pytest.raises(ModelError, match=r"no folder /.*give a folder"):
        zoo.resolve(name, root=root)


def test_row_without_files_is_an_error(tmp_path):
    with pytest.raises(ModelError, match=r"no config\.json in .*mini-clip"):
        zoo.resolve("mini-clip", root=tmp_path)


def test_weights_file_is_answered_with_its_folder(root):
    path = root / "fixtures/models/mini-clip/model.safetensors"

    with pytest.raises(ModelError, match=f"is a file; give the folder {path.parent}"):
        zoo.resolve(str(path), root=root)


def test_folder_inherits_from_the_row_of_its_architecture(root, tiny_siglip, copied):
    folder = copied(tiny_siglip, name="candidate")

    (spec,) = zoo.resolve(str(folder), root=root)
    assert spec.name == "candidate"
    assert (spec.lineage, spec.family) == ("mini-siglip", "mini")
    assert spec.loader == "transformers-siglip"
    assert spec.tasks == zoo.ZOO["mini-siglip"].tasks


def test_folder_of_a_new_architecture_stands_for_itself(root, tiny_clip, copied, edited):
    folder = copied(tiny_clip, name="wider")
    config = json.loads((folder / "config.json").read_text())
    config["vision_config"]["hidden_size"] = 64
    edited(folder / "config.json", config)

    (spec,) = zoo.resolve(str(folder), root=root)
    assert (spec.name, spec.lineage, spec.family) == ("wider", "wider", "local")


def test_folder_stands_for_itself_where_no_row_has_files(tmp_path, tiny_clip):
    (spec,) = zoo.resolve(str(tiny_clip), root=tmp_path)

    assert spec.lineage == spec.name == "tiny-clip"


def test_relative_folder_is_looked_up_from_the_base(root, tiny_clip, copied):
    folder = copied(tiny_clip, name="mine")

    assert zoo.resolve("./mine", root=root, base=folder.parent)[0].folder == folder
    assert zoo.resolve("mine", root=root, base=folder.parent)[0].folder == folder
    with pytest.raises(ModelError, match="no folder"):
        zoo.resolve("./mine", root=root)


def test_folder_of_a_row_is_that_row(root):
    assert zoo.resolve("./fixtures/models/mini-clip", root=root) == zoo.resolve(
        "mini-clip", root=root
    )


@pytest.mark.parametrize("name", ["mini-clip", "MINI-CLIP", "mini"])
def test_folder_named_like_a_row_is_told_apart(root, tiny_clip, tmp_path, name):
    folder = Path(shutil.copytree(tiny_clip, tmp_path / "run 7" / name))

    (spec,) = zoo.resolve(str(folder), root=root)
    assert spec.name == f"{name}-from-run-7"
    assert spec.lineage == "mini-clip"


def test_name_of_a_link_is_kept(root, tiny_clip, copied, tmp_path):
    (tmp_path / "latest").symlink_to(copied(tiny_clip, name="step-500"))

    assert zoo.resolve(str(tmp_path / "latest"), root=root)[0].name == "latest"


def test_zoo_name_goes_before_a_folder_of_that_name(root, tiny_siglip, copied):
    folder = copied(tiny_siglip, name="mini-clip")

    assert zoo.resolve("mini-clip", root=root, base=folder.parent)[0].folder != folder


def test_damaged_folder_is_refused_before_anything_is_read(root, tiny_clip, copied):
    folder = copied(tiny_clip)
    (folder / "preprocessor_config.json").unlink()

    with pytest.raises(ModelError, match="preprocessor_config"):
        zoo.resolve(str(folder), root=root)


def test_models_named_twice_come_once(root):
    found = zoo.resolve_all(("mini-siglip", "mini", "./fixtures/models/mini-clip"), root=root)

    assert [spec.name for spec in found] == ["mini-siglip", "mini-clip"]


def test_two_folders_never_share_an_address(root, tiny_clip, tmp_path):
    for run in ("a", "b"):
        shutil.copytree(tiny_clip, tmp_path / run / "step-500")
    names = tuple(str(tmp_path / run / "step-500") for run in ("a", "b"))

    with pytest.raises(ConfigError, match=r"would both be called 'step-500'; rename"):
        zoo.resolve_all(names, root=root)


@given(st.text())
def test_slug_is_fit_for_an_address(text):
    found = zoo.slug(text)

    assert found
    assert set(found) <= ADDRESS
    assert zoo.slug(found) == found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("my model@v2", "my-model-v2"),
        ("modèle[1]:é", "modele-1-e"),
        ("日本", "model"),
        ("..", "model"),
        ("siglip2_b16.v1", "siglip2_b16.v1"),
    ],
)
def test_slug_keeps_what_it_can(text, expected):
    assert zoo.slug(text) == expected


def test_resolving_and_hashing_import_no_torch(root):
    code = (
        "import sys; from pathlib import Path; from natadv.models import zoo, loading;"
        "import natadv.tasks;"
        f"[loading.fingerprint(s) for s in zoo.resolve('mini', root=Path({str(root)!r}))];"
        "sys.exit(bool({'torch', 'transformers', 'PIL'} & set(sys.modules)))"
    )

    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0

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
from natadv.factories import slug
from natadv.models.hub import local
from natadv.models.loading import fingerprint
from natadv.models.resolve import resolve, resolve_all
from natadv.models.zoo import ZOO
from natadv.storage.hashes import sha256_of

ADDRESS = set(string.ascii_letters + string.digits + "._-")


@pytest.fixture(scope="module")
def root(tmp_path_factory, tiny_clip, tiny_siglip):
    """A repository whose zoo rows hold the tiny checkpoints."""
    folder = tmp_path_factory.mktemp("repository")
    shutil.copytree(tiny_clip, folder / ZOO["mini-clip"].location)
    shutil.copytree(tiny_siglip, folder / ZOO["mini-siglip"].location)
    return folder


def test_name_means_its_row(root):
    (spec,) = resolve("mini-clip", root=root)

    assert (spec.name, spec.lineage, spec.family) == ("mini-clip", "mini-clip", "mini")
    assert spec.folder == root / "fixtures/models/mini-clip"
    assert spec.loader == "transformers-clip"


@pytest.mark.parametrize("name", ["mini", "mini-*", "mini-[cs]*"])
def test_family_or_glob_means_all_its_rows(root, name):
    assert [s.name for s in resolve(name, root=root)] == ["mini-clip", "mini-siglip"]


@pytest.mark.parametrize("name", ["mini-clop", "mini-siglip2", "mni"])
def test_unknown_name_is_reported_with_near_misses(root, name):
    with pytest.raises(UnknownNameError, match="did you mean 'mini"):
        resolve(name, root=root)


def test_a_near_miss_is_not_buried_under_all_names(root):
    with pytest.raises(UnknownNameError) as caught:
        resolve("clip-rn5", root=root)
    assert str(caught.value) == (
        "unknown model 'clip-rn5', did you mean 'clip-rn50' or 'clip-rn' or 'clip'?"
    )


@pytest.mark.parametrize("name", ["", " ", "resnet-*", "no such model"])
def test_unknown_name_lists_what_is_known(root, name):
    with pytest.raises(UnknownNameError, match=r"known: blip2, .*mini-clip.*siglip2-l16-512"):
        resolve(name, root=root)


@pytest.mark.parametrize("name", ["./nowhere", "candidates/nowhere", "/no/where", "../x*"])
def test_missing_folder_is_reported_as_a_folder(root, name):
    with pytest.raises(ModelError, match=r"no folder /.*give a folder"):
        resolve(name, root=root)


def test_row_without_files_is_an_error(tmp_path):
    with pytest.raises(ModelError, match=r"no config\.json in .*mini-clip"):
        resolve("mini-clip", root=tmp_path)


def test_folder_inherits_from_the_row_of_its_architecture(root, tiny_siglip, copied):
    folder = copied(tiny_siglip, name="candidate")

    (spec,) = resolve(str(folder), root=root)
    assert spec.name == "candidate"
    assert (spec.lineage, spec.family) == ("mini-siglip", "mini")
    assert spec.loader == "transformers-siglip"
    assert spec.tasks == ZOO["mini-siglip"].tasks


def test_folder_of_a_new_architecture_stands_for_itself(root, tiny_clip, copied, edited):
    folder = copied(tiny_clip, name="wider")
    config = json.loads((folder / "config.json").read_text())
    config["vision_config"]["hidden_size"] = 64
    edited(folder / "config.json", config)

    (spec,) = resolve(str(folder), root=root)
    assert (spec.name, spec.lineage, spec.family) == ("wider", "wider", "clip")


def test_folder_stands_for_itself_where_no_row_has_files(tmp_path, tiny_clip):
    (spec,) = resolve(str(tiny_clip), root=tmp_path)

    assert spec.lineage == spec.name == "tiny-clip"


def test_relative_folder_is_looked_up_from_the_base(root, tiny_clip, copied):
    folder = copied(tiny_clip, name="mine")

    assert resolve("./mine", root=root, base=folder.parent)[0].folder == folder
    assert resolve("mine", root=root, base=folder.parent)[0].folder == folder
    with pytest.raises(ModelError, match="no folder"):
        resolve("./mine", root=root)


def test_folder_of_a_row_is_that_row(root):
    assert resolve("./fixtures/models/mini-clip", root=root) == resolve("mini-clip", root=root)


@pytest.mark.parametrize("name", ["mini-clip", "MINI-CLIP", "mini"])
def test_folder_named_like_a_row_is_distinguished(root, tiny_clip, tmp_path, name):
    folder = Path(shutil.copytree(tiny_clip, tmp_path / "run 7" / name))

    (spec,) = resolve(str(folder), root=root)
    assert spec.name == f"{name}-from-run-7"
    assert spec.lineage == "mini-clip"


def test_name_of_a_link_is_kept(root, tiny_clip, copied, tmp_path):
    (tmp_path / "latest").symlink_to(copied(tiny_clip, name="step-500"))

    assert resolve(str(tmp_path / "latest"), root=root)[0].name == "latest"


def test_checkpoint_of_a_published_architecture_descends_from_it(root, tiny_siglip, copied, edited):
    """Before that row was fetched: its architecture is known."""
    folder = copied(tiny_siglip, name="my-siglip2")
    config = json.loads((folder / "config.json").read_text())
    sizes = {"hidden_size": 768, "num_hidden_layers": 12}
    config["vision_config"] |= {**sizes, "patch_size": 16, "image_size": 512}
    config["text_config"] |= sizes
    edited(folder / "config.json", config)

    (spec,) = resolve(str(folder), root=root)
    assert (spec.name, spec.lineage, spec.family) == ("my-siglip2", "siglip2-b16-512", "siglip2")


@pytest.mark.parametrize("name", ["clip-vit-b32", "openai/clip-vit-base-patch32"])
def test_row_that_was_not_fetched_says_how_to_get_it(root, name):
    with pytest.raises(ModelError, match="run natadv models fetch clip-vit-b32"):
        resolve(name, root=root)


def test_gated_row_names_its_licence_page(root):
    page = "https://huggingface.co/google/paligemma2-3b-pt-224"

    with pytest.raises(ModelError, match=rf"accept its licence \(Gemma\) on {page}.*hf auth login"):
        resolve("paligemma2-3b-pt-224", root=root)


def test_family_that_is_not_here_is_one_error_that_names_all(root):
    with pytest.raises(ModelError, match="not usable either: clip-vit-b16, clip-vit-l14"):
        resolve("clip", root=root)


def test_model_fed_as_in_the_paper_has_a_name_and_floors_of_its_own(root):
    (spec,) = resolve("mini-siglip@paper", root=root)

    assert (spec.name, spec.lineage) == ("mini-siglip@paper", "mini-siglip@paper")
    assert spec.feeding == "paper"
    assert fingerprint(spec) != fingerprint(resolve("mini-siglip", root=root)[0])


def test_zoo_name_goes_before_a_folder_of_that_name(root, tiny_siglip, copied):
    folder = copied(tiny_siglip, name="mini-clip")

    assert resolve("mini-clip", root=root, base=folder.parent)[0].folder != folder


def test_damaged_folder_is_refused_before_anything_is_read(root, tiny_clip, copied):
    folder = copied(tiny_clip)
    (folder / "preprocessor_config.json").unlink()

    with pytest.raises(ModelError, match="preprocessor_config"):
        resolve(str(folder), root=root)


def test_models_named_twice_come_once(root):
    found = resolve_all(("mini-siglip", "mini", "./fixtures/models/mini-clip"), root=root)

    assert [spec.name for spec in found] == ["mini-siglip", "mini-clip"]


def test_two_folders_never_share_an_address(root, tiny_clip, tmp_path):
    for run in ("a", "b"):
        shutil.copytree(tiny_clip, tmp_path / run / "step-500")
    names = tuple(str(tmp_path / run / "step-500") for run in ("a", "b"))

    with pytest.raises(ConfigError, match=r"would both be called 'step-500'; rename"):
        resolve_all(names, root=root)


def test_a_plugged_model_never_takes_the_name_or_the_floors_of_the_zoo(tmp_path, monkeypatch):
    code = """
from natadv.models.plugged import Plug

def make():
    return Plug(load=lambda device, dtype: None, files=["MODULE.py"])

l14 = clip = make
"""
    for module in ("fare4", "mini", "honest"):
        (tmp_path / f"{module}.py").write_text(code.replace("MODULE", module))
        monkeypatch.delitem(sys.modules, module, raising=False)

    for reference, address in {"fare4:l14": "fare4-l14", "mini:clip": "mini-clip"}.items():
        with pytest.raises(ModelError, match=f"called '{address}', as the zoo has it; rename the"):
            resolve(reference, root=tmp_path)
    assert resolve("honest:l14", root=tmp_path)[0].name == "honest-l14"
    monkeypatch.setattr(
        "natadv.models.resolve.entry_points",
        lambda group: {"our model": "honest:l14", "our-model": "honest:make", "mini clip": "a:b"},
    )
    with pytest.raises(ModelError, match="called 'mini-clip', as the zoo has it"):
        resolve("mini clip", root=tmp_path)
    with pytest.raises(ConfigError, match="honest:l14 and honest:make would both be called"):
        resolve_all(("our model", "our-model"), root=tmp_path)


def test_a_hub_id_that_reads_like_a_row_is_distinguished(tmp_path, tiny_clip, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    for hub_id, name in {"fare4/l14": "fare4-l14-from-hub", "me/l14": "me-l14"}.items():
        folder = local.snapshot_folder(hub_id, "1" * 40)
        shutil.copytree(tiny_clip, folder)
        files = {path.name: sha256_of(path) for path in folder.iterdir()}
        local.write_lock(tmp_path, hub_id, local.LockedRepository(revision="1" * 40, files=files))

        (spec,) = resolve(hub_id, root=tmp_path)

        assert (spec.name, spec.locked) == (name, files)


@given(st.text())
def test_slug_is_fit_for_an_address(text):
    found = slug(text)

    assert found
    assert set(found) <= ADDRESS
    assert slug(found) == found


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
    assert slug(text) == expected


def test_resolving_and_hashing_import_no_torch(root):
    code = (
        "import sys; from pathlib import Path; from natadv.models import resolve, loading;"
        "import natadv.tasks;"
        f"[loading.fingerprint(s) for s in resolve.resolve('mini', root=Path({str(root)!r}))];"
        "sys.exit(bool({'torch', 'transformers', 'PIL'} & set(sys.modules)))"
    )

    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def add_head(folder):
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")


def test_heads_lie_by_name_or_in_the_checkpoint_itself(tiny_clip, tiny_siglip, copied, tmp_path):
    shutil.copytree(tiny_siglip, tmp_path / ZOO["mini-siglip"].location)
    for task in ("segmentation", "vqa", "naming"):
        add_head(tmp_path / "fixtures/heads/mini-siglip" / task)
    candidate = copied(tiny_siglip, name="candidate")
    add_head(candidate / "heads/vqa")
    (named,) = resolve("mini-siglip", root=tmp_path)
    (own,) = resolve(str(candidate), root=tmp_path)

    by_name = tmp_path / "fixtures/heads/mini-siglip"
    assert named.heads == {task: by_name / task for task in ("segmentation", "vqa")}
    assert own.heads == {
        "segmentation": by_name / "segmentation",
        "vqa": candidate / "heads/vqa",
    }
    assert fingerprint(own) == fingerprint(named)


def test_a_folder_without_a_config_is_no_head(root, tiny_clip, copied):
    candidate = copied(tiny_clip, name="candidate")
    (candidate / "heads/vqa").mkdir(parents=True)

    assert resolve(str(candidate), root=root)[0].heads == {}


def test_home_of_nobody_is_refused_by_name(root):
    with pytest.raises(
        ModelError,
        match=r"^~nouser-here/x: the home folder '~nouser-here' .*; write the path",
    ):
        resolve("~nouser-here/x", root=root)


def test_name_that_no_disk_can_hold_is_refused_in_short(root):
    with pytest.raises(ModelError, match="cannot be looked up: File name too long; give") as caught:
        resolve("a" * 5000, root=root)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("kind", [["clip"], {"a": 1}, None, 7, True, [[1], [2]]])
def test_folder_of_a_type_that_is_no_text_is_refused(root, tiny_clip, copied, edited, kind):
    """Also by those who only ask whether a folder is theirs."""
    folder = copied(tiny_clip)
    edited(folder / "config.json", {"model_type": kind})

    with pytest.raises(
        ModelError, match=r"config\.json: expected 'model_type' to be one of .* got "
    ):
        resolve(str(folder), root=root)

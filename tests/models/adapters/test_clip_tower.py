"""A picture tower alone, on the text tower of its base: against direct calls of open_clip."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys

import open_clip
import pytest
import torch
from safetensors.torch import load_file, save_file

from natadv.errors import ModelError
from natadv.models import loading
from natadv.models.files.layouts import tower_kind
from natadv.models.resolve import resolve
from natadv.models.zoo import ZOO

PROMPTS = ["a photo of a cat.", "a photo of a dog."]
WEIGHTS = "open_clip_model.safetensors"


@pytest.fixture(scope="module")
def root(tmp_path_factory, open_clip_quick, transformers_twin):
    """A repository in which mini-clip has the shapes of the towers here."""
    folder = tmp_path_factory.mktemp("repository")
    shutil.copytree(transformers_twin(open_clip_quick), folder / ZOO["mini-clip"].location)
    return folder


@pytest.fixture(scope="module")
def tuned(open_clip_quick):
    """The model of open_clip, whose picture tower was trained on."""
    model = open_clip.create_model(f"local-dir:{open_clip_quick}").eval()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.visual.parameters():
            parameter += torch.randn(parameter.shape, generator=generator) * 0.1
    return model


@pytest.fixture
def tower(tuned, tmp_path):
    path = tmp_path / "fare_eps_2.pt"
    torch.save(tuned.visual.state_dict(), path)
    return path


def spec_of(path, root):
    (spec,) = resolve(str(path), root=root)
    # What stands in for mini-clip was made with another activation.
    return dataclasses.replace(spec, activation="quick_gelu")


def loaded(spec):
    return loading.load(spec, device="cpu", dtype="float32", threads=1)


def changed(path, **changes):
    """Replace tensors; None removes one. Dots are written as two underscores."""
    state = torch.load(path)
    named = {name.replace("__", "."): tensor for name, tensor in changes.items()}
    torch.save({k: t for k, t in (state | named).items() if t is not None}, path)
    return path


def by_open_clip(model, folder, photographs):
    preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")[2]
    with torch.inference_mode():
        pixels = torch.stack([preprocess(image) for image in photographs])
        return model.encode_image(pixels, normalize=True).numpy()


def test_spec_names_the_base(tower, root):
    spec = spec_of(tower, root)

    assert (spec.name, spec.lineage, spec.family) == ("fare_eps_2", "fare_eps_2", "robust-clip")
    assert (spec.loader, spec.tasks) == ("open-clip-visual", ("classification",))
    assert spec.folder == tower
    assert spec.tower_of == root / ZOO["mini-clip"].location


def test_embeddings_are_those_of_open_clip_with_this_tower(
    tuned, tower, root, open_clip_quick, load_folder, photographs, embedded
):
    shutil.copy(tower, tower.with_suffix(".pth"))
    save_file(tuned.visual.state_dict(), tower.with_suffix(".safetensors"))
    expected = by_open_clip(tuned, open_clip_quick, photographs)
    base = load_folder(root / ZOO["mini-clip"].location)

    assert abs(embedded(base, photographs) - expected).max() > 0.05
    for suffix in (".pt", ".pth", ".safetensors"):
        model = loaded(spec_of(tower.with_suffix(suffix), root))
        assert embedded(model, photographs) == pytest.approx(expected, abs=1e-4), suffix
        assert model.embed_texts(PROMPTS).tobytes() == base.embed_texts(PROMPTS).tobytes()
        assert model.scoring == base.scoring


def test_fingerprint_covers_the_tower_and_the_base(tower, root, tmp_path):
    mine = shutil.copytree(root, tmp_path / "mine")
    before = loading.fingerprint(spec_of(tower, root))
    assert loading.fingerprint(spec_of(tower, mine)) == before

    weights = mine / ZOO["mini-clip"].location / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    os.utime(weights, ns=(1, 1))
    assert loading.fingerprint(spec_of(tower, mine)) != before

    changed(tower, proj=torch.zeros(32, 16))
    os.utime(tower, ns=(1, 1))
    assert loading.fingerprint(spec_of(tower, root)) != before


def test_activation_of_the_base_is_checked(tower, root):
    spec = dataclasses.replace(spec_of(tower, root), activation="gelu")

    with pytest.raises(ModelError, match=r"computes 'quick_gelu' .*set hidden_act to 'gelu' in"):
        loaded(spec)


def test_paper_knows_no_tower_alone(tower, root):
    (spec,) = resolve(f"{tower}@paper", root=root)

    with pytest.raises(ModelError, match="no picture tower alone; leave out @paper"):
        loaded(spec)


def test_whole_model_is_no_tower(open_clip_quick, root, tmp_path):
    path = tmp_path / "whole.pt"
    torch.save(load_file(open_clip_quick / WEIGHTS), path)

    with pytest.raises(ModelError, match=r"class_embedding, .*is not in it .*visual.state_dict"):
        spec_of(path, root)


def test_other_weights_file_is_answered_as_before(open_clip_quick, root):
    with pytest.raises(ModelError, match="save_pretrained"):
        spec_of(open_clip_quick / WEIGHTS, root)


@pytest.mark.parametrize(
    "changes",
    [
        {"conv1__weight": torch.zeros(32, 3, 4, 4)},
        {"positional_embedding": torch.zeros(26, 32)},
        {"positional_embedding": torch.zeros(0, 32)},
        {"conv1__weight": torch.zeros(48, 3, 8, 8)},
        {f"transformer__resblocks__{2}__ln_1__bias": torch.zeros(32)},
    ],
)
def test_tower_of_other_shapes_fits_no_base(tower, root, changes):
    changed(tower, **changes)

    with pytest.raises(ModelError, match=r"fits the text tower of none of mini-clip, clip-vit-b32"):
        spec_of(tower, root)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ln_pre__bias": None}, "vision_model.pre_layrnorm.bias missing"),
        ({"head__weight": torch.zeros(2)}, "head.weight not known"),
        ({"transformer__resblocks__0__mlp__up__bias": torch.zeros(2)}, r"mlp.up.bias not known"),
        ({"proj": torch.zeros(32, 8)}, "visual_projection.weight of another shape"),
        (
            {"transformer__resblocks__1__attn__in_proj_bias": torch.zeros(2)},
            "k_proj.bias, .*q_proj.bias, .*v_proj.bias of another shape",
        ),
    ],
)
def test_tower_that_does_not_fit_the_base_is_refused(tower, root, changes, message):
    spec = spec_of(changed(tower, **changes), root)

    with pytest.raises(ModelError, match=f"is not a picture tower for .*{message}"):
        loaded(spec)


def test_base_that_was_not_fetched_is_reported_with_the_command(root, tmp_path):
    path = tmp_path / "fare_eps_2.pt"
    names = {f"transformer.resblocks.{i}.ln_1.bias": torch.zeros(1) for i in range(24)}
    real = {
        "class_embedding": torch.zeros(1024),
        "positional_embedding": torch.zeros(257, 1024),
        "conv1.weight": torch.zeros(1024, 3, 14, 14),
        "proj": torch.zeros(1024, 768),
    }
    torch.save(names | real, path)

    with pytest.raises(
        ModelError,
        match=r"needs clip-vit-l14 for the texts: .*run natadv models fetch clip-vit-l14",
    ):
        spec_of(path, root)


def test_pickle_that_would_run_code_is_refused_and_not_run(root, tmp_path):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    path = tmp_path / "fare_eps_2.pt"
    torch.save({"proj": Bomb()}, path)

    with pytest.raises(ModelError, match="which tensors do not need and which could run code"):
        spec_of(path, root)
    assert not (tmp_path / "ran").exists()


def test_half_a_download_is_refused(tower, root):
    os.truncate(tower, tower.stat().st_size // 2)

    with pytest.raises(ModelError, match="do not open"):
        spec_of(tower, root)


def test_base_that_was_damaged_after_it_was_named_is_refused(tower, root, tmp_path):
    mine = shutil.copytree(root, tmp_path / "mine")
    spec = spec_of(tower, mine)
    (spec.tower_of / "preprocessor_config.json").unlink()

    with pytest.raises(ModelError, match="preprocessor_config"):
        loaded(spec)


def test_signature_is_of_the_shape(tower):
    before = tower_kind(tower)

    assert tower_kind(changed(tower, proj=torch.ones(32, 16))) == before
    assert tower_kind(changed(tower, positional_embedding=torch.ones(26, 32))) != before


def test_nothing_heavy_is_imported_to_resolve_and_hash(tower, root):
    code = (
        "import sys; from pathlib import Path; from natadv.models import loading, resolve;"
        f"(spec,) = resolve.resolve({str(tower)!r}, root=Path({str(root)!r}));"
        "loading.fingerprint(spec);"
        "sys.exit(bool({'torch', 'open_clip', 'transformers', 'PIL'} & set(sys.modules)))"
    )

    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0

"""What is refused before torch is imported, and that nothing in a pickle is ever run."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from natadv.errors import ModelError
from natadv.models import loading
from natadv.models.files import open_clip_folder, tensor_files
from natadv.models.files.checkpoint import signature as transformers_signature
from natadv.models.files.layouts import layout_of
from natadv.models.resolve import resolve

SAFE, PICKLE = open_clip_folder.WEIGHTS


def spec_of(folder):
    (spec,) = resolve(str(folder), root=folder.parent)
    return spec


def edit(folder, section, **changes):
    """Set keys of a section of the config; None removes one."""
    path = folder / open_clip_folder.CONFIG
    config = json.loads(path.read_text())
    parts = {"top": config, "preprocess_cfg": config["preprocess_cfg"]}
    parts |= {"model_cfg": config["model_cfg"]}
    parts |= {name: config["model_cfg"][name] for name in ("vision_cfg", "text_cfg")}
    for key, value in changes.items():
        parts[section].pop(key, None)
        if value is not None:
            parts[section][key] = value
    path.write_text(json.dumps(config))
    return folder


def test_folder_is_told_by_its_picture_tower(open_clip_quick, open_clip_resnet):
    vit, resnet = spec_of(open_clip_quick), spec_of(open_clip_resnet)

    assert (vit.family, resnet.family) == ("robust-clip", "clip-rn")
    assert vit.loader == resnet.loader == "open-clip"
    assert vit.tasks == resnet.tasks == ("classification",)
    assert (vit.name, vit.lineage) == ("tiny-open-clip", "tiny-open-clip")


def test_folder_of_both_libraries_is_read_by_transformers(open_clip_quick, tiny_clip, copied):
    folder = copied(tiny_clip)
    shutil.copytree(open_clip_quick, folder, dirs_exist_ok=True)

    assert spec_of(folder).loader == "transformers-clip"


@pytest.mark.parametrize("other", [{"architecture": "resnet50_clip"}, {"model_type": ["clip"]}])
def test_config_of_another_library_does_not_matter(open_clip_resnet, copied, other):
    folder = copied(open_clip_resnet)
    (folder / "config.json").write_text(json.dumps(other))

    assert spec_of(folder).loader == "open-clip"


def test_signature_is_of_the_architecture(open_clip_quick, open_clip_plain, open_clip_resnet):
    quick, plain, resnet = map(
        open_clip_folder.signature, (open_clip_quick, open_clip_plain, open_clip_resnet)
    )

    assert quick == plain != resnet


def test_signature_is_never_one_of_transformers(open_clip_quick, transformers_twin):
    twin = transformers_signature(transformers_twin(open_clip_quick))

    assert open_clip_folder.signature(open_clip_quick) != twin


@pytest.mark.parametrize(
    ("section", "key"),
    [
        *(("top", key) for key in ("model_cfg", "preprocess_cfg")),
        *(("model_cfg", key) for key in ("embed_dim", "vision_cfg", "text_cfg")),
        *(("vision_cfg", key) for key in ("image_size", "layers", "width", "patch_size")),
        *(
            ("text_cfg", key)
            for key in ("context_length", "vocab_size", "width", "heads", "layers")
        ),
        *(("preprocess_cfg", key) for key in ("mean", "std")),
    ],
)
def test_missing_key_is_refused(open_clip_quick, copied, section, key):
    folder = edit(copied(open_clip_quick), section, **{key: None})

    with pytest.raises(ModelError, match=rf"open_clip_config.json: .*{key}.*copy the"):
        spec_of(folder)


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("text_cfg", "hf_model_name", "roberta-base"),
        ("text_cfg", "hf_tokenizer_name", "timm/ViT-B-16-SigLIP"),
        ("text_cfg", "pool_type", "last"),
        ("vision_cfg", "timm_model_name", "vit_base_patch16_siglip_224"),
        ("vision_cfg", "attentional_pool", True),
        ("model_cfg", "custom_text", True),
        ("model_cfg", "multimodal_cfg", {"layers": 12}),
        ("preprocess_cfg", "crop_pct", 0.9),
    ],
)
def test_what_is_not_supported_is_refused(open_clip_quick, copied, section, key, value):
    folder = edit(copied(open_clip_quick), section, **{key: value})

    with pytest.raises(ModelError, match=f"{key} in {section} is not supported"):
        spec_of(folder)


def test_key_that_is_off_asks_for_nothing(open_clip_quick, copied):
    folder = edit(copied(open_clip_quick), "model_cfg", custom_text=False)
    edit(folder, "text_cfg", hf_tokenizer_name="")

    assert open_clip_folder.model_config(folder) == open_clip_folder.model_config(open_clip_quick)


@pytest.mark.parametrize(
    ("section", "changes", "told"),
    [
        ("preprocess_cfg", {"interpolation": "random"}, "'bicubic' or 'bilinear', got 'random'"),
        (
            "preprocess_cfg",
            {"resize_mode": "crop"},
            "'longest' or 'squash', got 'crop'",
        ),
        ("preprocess_cfg", {"mode": "L"}, "'mode' to be 'RGB', got 'L'"),
        ("preprocess_cfg", {"mean": 0.5}, "'std' to be three numbers, got 0.5"),
        ("preprocess_cfg", {"std": [1, 1]}, r"'std' to be three numbers, got \[1, 1\]"),
        ("preprocess_cfg", {"size": 64}, "pictures of 64 pixels in preprocess_cfg, of 32 in"),
        ("vision_cfg", {"image_size": [32, 48]}, r"a square\), got \[32, 48\]"),
        (
            "text_cfg",
            {"tokenizer_kwargs": {"reduction_mask": "random"}},
            "'clean' can be set",
        ),
        ("text_cfg", {"tokenizer_kwargs": {"clean": "none"}}, "'clean' to be 'lower', 'canon"),
        ("model_cfg", {"vision_cfg": [1]}, r"'vision_cfg' to be an object, got \[1\]"),
    ],
)
def test_wrong_value_is_refused(open_clip_quick, copied, section, changes, told):
    folder = edit(copied(open_clip_quick), section, **changes)

    with pytest.raises(ModelError, match=told):
        spec_of(folder)


def test_preprocessing_is_the_files_own(open_clip_quick, copied):
    folder = edit(
        copied(open_clip_quick),
        "preprocess_cfg",
        mean=[0.5] * 3,
        std=[0.25] * 3,
        interpolation="bilinear",
        resize_mode="squash",
        size=32,
    )

    assert open_clip_folder.preprocessing(folder) == {
        "size": 32,
        "mode": "RGB",
        "mean": [0.5] * 3,
        "std": [0.25] * 3,
        "interpolation": "bilinear",
        "resize_mode": "squash",
        "fill_color": 0,
    }


def test_file_of_before_these_keys_means_what_was_done_then(open_clip_quick, copied):
    folder = copied(open_clip_quick)
    edit(folder, "preprocess_cfg", interpolation=None, resize_mode=None)

    found = open_clip_folder.preprocessing(folder)
    assert (found["interpolation"], found["resize_mode"]) == ("bicubic", "shortest")


@pytest.mark.parametrize("key", ["interpolation", "resize_mode"])
def test_preprocessing_that_was_half_lost_is_refused(open_clip_quick, copied, key):
    folder = edit(copied(open_clip_quick), "preprocess_cfg", **{key: None})

    with pytest.raises(ModelError, match=f"preprocess_cfg lacks {key}"):
        spec_of(folder)


def test_missing_weights_are_refused(open_clip_quick, copied):
    folder = copied(open_clip_quick)
    (folder / SAFE).rename(folder / "model.safetensors")

    with pytest.raises(ModelError, match=f"none of {SAFE}, {PICKLE}"):
        spec_of(folder)


def pickled(folder, content):
    (folder / SAFE).unlink()
    torch.save(content, folder / PICKLE)
    return folder


@pytest.mark.parametrize("name", [SAFE, PICKLE])
def test_half_a_download_is_refused(open_clip_quick, copied, name):
    folder = copied(open_clip_quick)
    if name == PICKLE:
        pickled(folder, load_file(folder / SAFE))
    os.truncate(folder / name, (folder / name).stat().st_size // 2)

    with pytest.raises(ModelError, match=r"bytes that do not open .*download or copy it again"):
        spec_of(folder)


class Bomb:
    """Makes a folder where it is opened without care."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("wrap", [lambda bomb: bomb, lambda bomb: {"visual.proj": bomb}])
def test_pickle_that_would_run_code_is_refused_and_not_run(open_clip_quick, copied, tmp_path, wrap):
    mark = tmp_path / "ran"
    folder = pickled(copied(open_clip_quick), wrap(Bomb(mark)))

    with pytest.raises(ModelError, match=r"asks for \w+\.mkdir, which tensors do not need"):
        spec_of(folder)
    with pytest.raises(ModelError, match="asks for"):
        tensor_files.load(folder / PICKLE)
    assert not mark.exists()
    # The bomb is a real one.
    torch.load(folder / PICKLE, weights_only=False)
    assert mark.exists()


def test_torch_guards_a_pickle_that_the_first_look_let_pass(
    open_clip_quick, copied, tmp_path, monkeypatch
):
    mark = tmp_path / "ran"
    folder = pickled(copied(open_clip_quick), {"visual.proj": Bomb(mark)})
    monkeypatch.setattr(tensor_files, "shapes", lambda path: {})

    with pytest.raises(ModelError, match="do not open"):
        tensor_files.load(folder / PICKLE)
    assert not mark.exists()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (
            {"state_dict": {"a": torch.zeros(1)}, "epoch": 3},
            "values at epoch, state_dict;",
        ),
        ({}, "expected a state dict"),
        ([torch.zeros(1)], "expected a state dict .*got list"),
    ],
)
def test_pickle_of_more_than_tensors_is_refused(open_clip_quick, copied, content, told):
    folder = pickled(copied(open_clip_quick), content)

    with pytest.raises(ModelError, match=told):
        spec_of(folder)


def test_shapes_are_those_of_the_tensors(open_clip_resnet, copied):
    state = load_file(open_clip_resnet / SAFE)
    state["half"] = torch.zeros(2, 0, 5, dtype=torch.bfloat16)
    state["parameter"] = torch.nn.Parameter(torch.zeros(4))
    folder = pickled(copied(open_clip_resnet), state)

    expected = {name: tuple(tensor.shape) for name, tensor in state.items()}
    assert tensor_files.shapes(folder / PICKLE) == expected
    assert {n: tuple(t.shape) for n, t in tensor_files.load(folder / PICKLE).items()} == expected


def test_safetensors_go_before_the_pickle(open_clip_quick, copied):
    folder = copied(open_clip_quick)
    (folder / PICKLE).write_bytes(b"never opened")

    assert [path.name for path in loading.content_files(spec_of(folder))] == [
        open_clip_folder.CONFIG,
        SAFE,
    ]


@pytest.mark.parametrize("name", [open_clip_folder.CONFIG, SAFE])
def test_fingerprint_changes_with_a_byte_of_any_file(open_clip_quick, copied, name):
    spec = spec_of(copied(open_clip_quick))
    before = loading.fingerprint(spec)
    path = spec.folder / name
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(1, 1))

    assert before == loading.fingerprint(spec_of(open_clip_quick))
    assert loading.fingerprint(spec) != before


def test_nothing_heavy_is_imported_to_resolve_and_hash(open_clip_quick, copied):
    folder = copied(open_clip_quick)
    pickled(folder, load_file(folder / SAFE))
    code = (
        "import sys; from pathlib import Path; from natadv.models import loading, resolve;"
        f"folder = Path({str(folder)!r});"
        "[loading.fingerprint(s) for s in resolve.resolve(str(folder), root=folder.parent)];"
        "sys.exit(bool({'torch', 'open_clip', 'transformers', 'PIL'} & set(sys.modules)))"
    )

    assert layout_of(folder).check(folder) is None
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_config_of_brackets_in_brackets_is_refused(open_clip_quick, copied):
    folder = copied(open_clip_quick)
    (folder / open_clip_folder.CONFIG).write_text("[" * 20_000)

    with pytest.raises(ModelError, match="expected JSON of at most 50 levels"):
        spec_of(folder)


@pytest.mark.parametrize(("section", "key"), [("vision_cfg", "width"), ("text_cfg", "heads")])
def test_size_that_is_no_whole_number_is_refused(open_clip_quick, copied, section, key):
    folder = copied(open_clip_quick)

    for size in (0, -1, 1.5, "12", True, [3], {}):
        edit(folder, section, **{key: size})
        with pytest.raises(ModelError) as caught:
            spec_of(folder)
        told = f"expected '{key}' in {section} to be a whole number from 1"
        assert told in str(caught.value), size


@pytest.mark.parametrize("section", ["vision_cfg", "text_cfg"])
def test_layers_that_the_weights_cannot_have_are_refused(open_clip_quick, copied, section):
    folder = copied(open_clip_quick)

    for layers in (10**6, 10**20, 0, -1, 1.5, "2", True, [], [1, 10**6], [1.5]):
        edit(folder, section, layers=layers)
        with pytest.raises(ModelError) as caught:
            spec_of(folder)
        assert f"'layers' in {section} to be from 1 to the " in str(caught.value), layers

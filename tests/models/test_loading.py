from __future__ import annotations

import dataclasses
import os
import subprocess
import sys

import pytest

from natadv.errors import ChangedError, ConfigError, ModelError
from natadv.models import loading
from natadv.models.files.checkpoint import content_files
from natadv.models.resolve import resolve


def spec_of(folder):
    (spec,) = resolve(str(folder), root=folder.parent)
    return spec


def test_fingerprint_is_of_the_content_not_the_place(tiny, copied):
    assert loading.fingerprint(spec_of(copied(tiny))) == loading.fingerprint(spec_of(tiny))


def test_fingerprint_ignores_files_that_decide_nothing(tiny, copied):
    folder = copied(tiny)
    (folder / "README.md").write_text("a model")

    assert loading.fingerprint(spec_of(folder)) == loading.fingerprint(spec_of(tiny))


def test_fingerprint_changes_with_a_byte_of_any_file(tiny, copied):
    spec = spec_of(copied(tiny))
    seen = {loading.fingerprint(spec)}
    names = ("config", "model", "preprocessor_config", "tokenizer", "tokenizer_config")
    for path in content_files(spec.folder):
        assert path.stem in names
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
        os.utime(path, ns=(1, 1))

        assert loading.fingerprint(spec) not in seen, path
        seen.add(loading.fingerprint(spec))
    assert len(seen) == 1 + len(names)


def test_fingerprint_changes_with_the_adapter(tiny, monkeypatch):
    spec = spec_of(tiny)
    before = loading.fingerprint(spec)
    monkeypatch.setitem(loading.LOADERS, spec.loader, "next")

    assert loading.fingerprint(spec) != before


def test_file_is_hashed_once(tiny, copied, monkeypatch):
    spec = spec_of(copied(tiny))
    before = loading.fingerprint(spec)
    monkeypatch.setattr(loading.hashlib, "file_digest", None)

    assert loading.fingerprint(spec) == before


def test_unknown_loader_is_refused(tiny):
    spec = dataclasses.replace(spec_of(tiny), loader="transformers-bert")

    with pytest.raises(ModelError, match="no loader 'transformers-bert'; known: transformers-clip"):
        loading.load(spec, device="cpu", dtype="float32", threads=1)


def test_unknown_dtype_is_refused(tiny):
    with pytest.raises(ConfigError, match="unknown dtype 'float8', did you mean 'float"):
        loading.load(spec_of(tiny), device="cpu", dtype="float8", threads=1)


def test_unknown_device_is_refused(tiny):
    with pytest.raises(ConfigError, match="unknown device 'gpu'; use 'cpu', 'cuda'"):
        loading.load(spec_of(tiny), device="gpu", dtype="float32", threads=1)


@pytest.mark.parametrize(
    ("cuda", "listed", "message"),
    [
        (None, None, r"torch [\d.]+\S* can use no GPU; install a build for CUDA"),
        ("12.8", "9", "CUDA_VISIBLE_DEVICES='9' names no GPU that torch can use"),
        ("12.8", "", "CUDA_VISIBLE_DEVICES='' names no GPU that torch can use"),
        ("12.8", None, r"torch \S+ sees no GPU; see whether .* new enough for CUDA 12\.8"),
    ],
)
def test_absent_gpu_is_explained(tiny, monkeypatch, cuda, listed, message):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if listed is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", listed)

    with pytest.raises(ConfigError, match=rf"'cuda' was asked for, but {message}.* --device cpu"):
        loading.load(spec_of(tiny), device="cuda", dtype="float32", threads=1)


def test_checkpoint_that_was_damaged_after_it_was_named_is_refused(tiny, copied):
    spec = spec_of(copied(tiny))
    (spec.folder / "preprocessor_config.json").unlink()

    with pytest.raises(ModelError, match="preprocessor_config"):
        loading.load(spec, device="cpu", dtype="float32", threads=1)


def test_threads_bound_this_process(tiny, embedded):
    import torch

    loading.load(spec_of(tiny), device="cpu", dtype="float32", threads=1)

    assert torch.get_num_threads() == 1


EMBED = """
import hashlib, sys
from pathlib import Path
from PIL import Image
from natadv.models import loading, resolve

for name in sys.argv[1:]:
    (spec,) = resolve.resolve(name, root=Path(name).parent)
    model = loading.load(spec, device="cpu", dtype="float32", threads=1)
    rows = model.embed_images(model.prepare([Image.linear_gradient("L").convert("RGB")] * 3))
    text = model.embed_texts(["a photo of a hen", "a cow"])
    print(hashlib.sha256(rows.tobytes() + text.tobytes()).hexdigest())
"""


def test_another_process_embeds_to_the_same_bytes(tiny_clip, tiny_siglip, monkeypatch, capsys):
    command = ["embed", str(tiny_clip), str(tiny_siglip)]
    other = subprocess.run(
        [sys.executable, "-c", EMBED, *command[1:]], capture_output=True, text=True, timeout=120
    )
    monkeypatch.setattr(sys, "argv", command)
    exec(EMBED, {})

    assert other.stdout.splitlines() == capsys.readouterr().out.splitlines()
    assert len(set(other.stdout.split())) == 2


HERE = {"device": "cpu", "dtype": "float32", "threads": 1}


def test_files_whose_hash_is_known_are_loaded(tiny, embedded, photographs):
    spec = spec_of(tiny)

    model = loading.load_hashed(spec, weights=loading.fingerprint(spec), **HERE)

    assert (
        embedded(model, photographs).tobytes()
        == embedded(loading.load(spec, **HERE), photographs).tobytes()
    )


def test_files_that_changed_since_they_were_hashed_are_not_loaded(tiny, copied):
    spec = spec_of(copied(tiny))
    weights = loading.fingerprint(spec)
    for name in ("config.json", "model.safetensors", "preprocessor_config.json", "tokenizer.json"):
        path = spec.folder / name
        content = path.read_bytes()
        path.write_bytes(content + b" ")

        with pytest.raises(ChangedError, match="its files changed after the run began"):
            loading.load_hashed(spec, weights=weights, **HERE)
        path.write_bytes(content)


@pytest.mark.parametrize("back", [False, True])
def test_files_that_are_swapped_while_they_are_loaded_are_noticed(tiny, copied, monkeypatch, back):
    """Also where the first ones are put back, so that a hash after the fact would be the same."""
    spec = spec_of(copied(tiny))
    weights = loading.fingerprint(spec)
    path = spec.folder / "model.safetensors"
    content, times = path.read_bytes(), path.stat()
    build = loading.adapter(spec.loader)

    def swapped(spec, placement):
        path.write_bytes(content[:-4] + b"\0\0\0\0")
        model = build(spec, placement)
        if back:
            path.write_bytes(content)
            os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
        return model

    monkeypatch.setattr(loading, "adapter", lambda loader: swapped)

    with pytest.raises(ChangedError, match="was written while the model was loaded"):
        loading.load_hashed(spec, weights=weights, **HERE)


def test_loaded_weights_do_not_follow_their_file(tiny, copied, embedded, photographs):
    spec = spec_of(copied(tiny))
    model = loading.load(spec, **HERE)
    before = embedded(model, photographs).tobytes()
    path = spec.folder / "model.safetensors"
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(b"\0" * (path.stat().st_size // 2))

    assert embedded(model, photographs).tobytes() == before


@pytest.mark.parametrize(("dtype", "gpus"), [("int8", 1), ("float16", 2)])
def test_models_that_fit_a_gpu_are_not_spread(tiny, monkeypatch, dtype, gpus):
    spec = dataclasses.replace(spec_of(tiny), gpus=gpus)

    with pytest.raises(ModelError, match="are for models of the loaders paligemma, blip-2, not of"):
        loading.load(spec, device="cuda", dtype=dtype, threads=1)


def test_eight_bits_need_a_gpu():
    with pytest.raises(ConfigError, match="--dtype int8 needs a GPU, got --device cpu"):
        loading.placement_of("cpu", "int8")

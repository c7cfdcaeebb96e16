from __future__ import annotations

import pytest

from natadv.errors import ModelError
from natadv.models.hub.remote import has_weights, needed

TEXT = ("config.json", "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json")
USELESS = (
    ".gitattributes",
    "README.md",
    "flax_model.msgpack",
    "model.fp16.safetensors",
    "model.onnx",
    "modeling_clip.py",
    "onnx/model.onnx",
    "sub/model.safetensors",
    "tf_model.h5",
    "vocab.txt.bak",
)
OPEN_CLIP = ("open_clip_config.json", "open_clip_model.safetensors", "open_clip_pytorch_model.bin")


def chosen(names, *, loader=None):
    return set(needed(names, loader=loader, where="owner/name"))


def test_nothing_useless_comes():
    names = (*TEXT, *USELESS, "model.safetensors", "pytorch_model.bin")

    assert chosen(names) == {*TEXT, "model.safetensors"}


@pytest.mark.parametrize(
    "name",
    [
        "processor_config.json",
        "generation_config.json",
        "vocab.json",
        "merges.txt",
        "spiece.model",
        "tokenizer.model",
        "special_tokens_map.json",
        "added_tokens.json",
        # A run refuses a folder that has it, so it must not get lost.
        "adapter_config.json",
        # Without it, the model would be loaded without its defence.
        "defence.safetensors",
    ],
)
def test_what_decides_an_answer_comes(name):
    assert name in chosen((*TEXT, name, "model.safetensors"))


def test_one_file_of_weights_is_enough():
    shard = "model-00001-of-00001.safetensors"
    names = (*TEXT, shard, "model.safetensors.index.json", "model.safetensors")

    assert chosen(names) == {*TEXT, "model.safetensors"}


def test_weights_come_last():
    shards = ("model-00002-of-00002.safetensors", "model-00001-of-00002.safetensors")
    found = needed(
        (*shards, "model.safetensors.index.json", *TEXT), loader=None, where="owner/name"
    )

    assert found[len(TEXT) :] == ("model.safetensors.index.json", *sorted(shards))


def test_open_clip_takes_its_own_two_files():
    names = (*TEXT, *OPEN_CLIP, "model.safetensors")

    assert chosen(names, loader="open-clip") == set(OPEN_CLIP[:2])


def test_a_defence_is_no_weights_and_comes_with_those_of_open_clip():
    assert not has_weights((*TEXT, "defence.safetensors"), loader=None)
    assert "defence.safetensors" in chosen((*OPEN_CLIP, "defence.safetensors"), loader="open-clip")


def test_open_clip_takes_the_pickle_only_where_there_is_nothing_else():
    names = (*TEXT, OPEN_CLIP[0], OPEN_CLIP[2])

    assert chosen(names, loader="open-clip") == {OPEN_CLIP[0], OPEN_CLIP[2]}
    assert has_weights(names, loader="open-clip")


def test_a_repository_of_both_kinds_is_taken_for_transformers():
    assert chosen((*TEXT, *OPEN_CLIP, "model.safetensors")) == {*TEXT, "model.safetensors"}


def test_a_repository_that_only_open_clip_can_feed_is_taken_for_it():
    # As timm publishes CLIPs: its own config.json and model.safetensors are of the picture tower.
    names = ("config.json", "model.safetensors", "tokenizer.json", *OPEN_CLIP)

    assert chosen(names) == set(OPEN_CLIP[:2])


@pytest.mark.parametrize("loader", [None, "transformers-clip"])
def test_a_pickle_is_never_taken_for_transformers(loader):
    names = (*TEXT, "pytorch_model.bin")

    assert not has_weights(names, loader=loader)
    with pytest.raises(ModelError, match=r"owner/name has no model\.safetensors, only pytorch_mod"):
        needed(names, loader=loader, where="owner/name")


@pytest.mark.parametrize("names", [(), ("README.md",), ("model.safetensors",)])
def test_a_repository_without_a_config_is_no_model(names):
    with pytest.raises(ModelError, match=r"owner/name cannot be loaded .* no config\.json"):
        needed(names, loader=None, where="owner/name")

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys

import pytest

from natadv.errors import ConfigError, ModelError
from natadv.heads.folder import save_head
from natadv.heads.head_file import (
    DecoderConfig,
    McanConfig,
    default_layers,
    fingerprint,
    read_head_file,
    refined_kernels,
)

TOWER = "ab" * 32

DECODER = DecoderConfig(layers=(4, 7, 10), widths=(768,) * 3, condition_width=512, patch=16)
MCAN = McanConfig(words=100, answers=3129, layer=12, image_width=768)


@pytest.fixture
def folder(tmp_path, answering):
    save_head(tmp_path / "head", answering, tower=TOWER, facts={"minutes": 3.5})
    return tmp_path / "head"


@pytest.fixture
def segmenting(tmp_path, decoder):
    save_head(tmp_path / "decoder", decoder, tower=TOWER, facts={})
    return tmp_path / "decoder"


def change(folder, **changes):
    path = folder / "config.json"
    found = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in found.items() if value is not None}))


def test_fingerprint_is_that_of_the_content(folder, tmp_path, answering):
    copy = shutil.copytree(folder, tmp_path / "copy")
    # What the training took, and how, decides no answer.
    save_head(copy, answering, tower=TOWER, facts={"minutes": 99})
    (copy / "README.md").write_text("more")

    assert fingerprint(copy) == fingerprint(folder)
    assert len(fingerprint(folder)) == 64


def test_other_weights_words_or_tower_are_another_head(folder, tmp_path, make_mcan, answering):
    from natadv.heads.folder import AnsweringHead
    from natadv.heads.vocabulary import Vocabulary

    words = Vocabulary(tuple(reversed(answering.words.words)))
    changed = {
        "weights": (AnsweringHead(make_mcan(seed=6), answering.words, answering.answers), TOWER),
        "words": (AnsweringHead(answering.mcan, words, answering.answers), TOWER),
        "answers": (
            AnsweringHead(answering.mcan, answering.words, answering.answers[::-1]),
            TOWER,
        ),
        "tower": (answering, "cd" * 32),
    }
    found = {fingerprint(folder)}
    for name, (head, tower) in changed.items():
        save_head(tmp_path / name, head, tower=tower, facts={})
        found.add(fingerprint(tmp_path / name))

    assert len(found) == 5


@pytest.mark.parametrize("name", ["model.safetensors", "words.json", "answers.json"])
def test_damaged_file_has_no_fingerprint(folder, name):
    content = bytearray((folder / name).read_bytes())
    content[-3] ^= 1
    (folder / name).write_bytes(content)

    with pytest.raises(ModelError, match=rf"{name}: sha256 is \w+, config.json says \w+; the file"):
        fingerprint(folder)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "words.json", "answers.json"])
def test_missing_file_is_named(folder, name):
    (folder / name).unlink()

    with pytest.raises(ModelError, match=f"no {name} in "):
        fingerprint(folder)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "head.pt", "x.pkl"])
def test_pickle_is_refused(folder, name):
    (folder / "model.safetensors").rename(folder / name)

    with pytest.raises(ModelError, match=f"weights only as {name}: a pickle can run code"):
        fingerprint(folder)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"format": 2}, "format: "),
        ({"format": None}, "format: field required"),
        ({"task": "captioning"}, "the file: input tag 'captioning'"),
        ({"tower": "ab"}, "tower: string should match"),
        ({"config": {}}, r"config.words: field required \(and 3 more\)"),
        ({"model_type": "clip"}, "model_type: extra inputs"),
        ({"files": {"model.safetensors": "ab" * 32}}, "files model.*, this one names model.safe"),
        ({"files": {}}, "this one names none"),
    ],
)
def test_config_that_is_not_of_a_head_is_refused(folder, changes, fault):
    change(folder, **changes)

    with pytest.raises(ModelError, match=rf"config.json: .*{fault}"):
        read_head_file(folder)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"hiden": 3}, "config.hiden: unexpected keyword"),
        ({"hidden": "16"}, "config.hidden: input should be a valid integer"),
        ({"hidden": 16.5}, "config.hidden: input should be a valid integer"),
        ({"blocks": True}, "config.blocks: input should be a valid integer"),
        ({"heads": 3}, "expected hidden in equal heads"),
        ({"blocks": 10**9}, "expected sizes of at most 1000000, got .*; train the head again"),
        ({"dropout": 1.5}, "expected dropout from 0"),
    ],
)
def test_size_that_no_head_can_have_is_refused(folder, changes, fault):
    config = json.loads((folder / "config.json").read_text())["config"]
    change(folder, config=config | changes)

    with pytest.raises(ModelError, match=rf"config.json: .*{fault}"):
        read_head_file(folder)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"null", b"[" * 20_000])
def test_config_that_is_no_object_is_refused(folder, content):
    (folder / "config.json").write_bytes(content)

    with pytest.raises(ModelError, match=r"config.json: not the config of a head"):
        read_head_file(folder)


def test_number_that_is_not_finite_is_refused(segmenting):
    path = segmenting / "config.json"
    path.write_text(path.read_text().replace('"threshold": 0.5', '"threshold": NaN'))

    with pytest.raises(ModelError, match=r"config.json: "):
        read_head_file(segmenting)


def test_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(
        ModelError, match=r"no config.json in .*nowhere: expected a folder that nat"
    ):
        fingerprint(tmp_path / "nowhere")


def test_configs_and_vocabularies_need_no_torch():
    code = (
        "import sys; import natadv.heads.head_file, natadv.heads.vocabulary; "
        "sys.exit('torch' in sys.modules)"
    )

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("depth", "blocks"),
    [
        (12, (3, 6, 9)),
        (24, (6, 12, 18)),
        (27, (7, 13, 20)),
        (39, (10, 20, 30)),
        # A residual network: the second, third and fourth stage.
        (4, (1, 2, 3)),
        # The mini models.
        (6, (1, 3, 4)),
    ],
)
def test_layers_are_what_leaves_the_blocks_of_clipseg_scaled_to_depth(depth, blocks):
    assert default_layers(depth) == tuple(block + 1 for block in blocks)


def test_layers_rise_within_the_tower():
    for depth in range(1, 80):
        layers = default_layers(depth)

        assert list(layers) == sorted(set(layers)), depth
        assert 1 <= layers[0] <= layers[-1] <= depth, depth
        assert len(layers) == min(depth, 3), depth


def test_tower_without_layers_is_refused():
    with pytest.raises(ConfigError, match="a tower of at least one layer, got 0"):
        default_layers(0)


@pytest.mark.parametrize(
    ("patch", "kernels"), [(16, (4, 4)), (14, (7, 2)), (32, (8, 4)), (8, (4, 2)), (13, (13, 1))]
)
def test_refined_kernels_paint_the_whole_patch(patch, kernels):
    assert refined_kernels(patch) == kernels


def test_defaults_are_those_of_the_published_heads():
    assert (DECODER.reduce_width, DECODER.heads, DECODER.feed_forward) == (64, 4, 2048)
    assert (MCAN.embedding, MCAN.hidden, MCAN.blocks, MCAN.heads) == (300, 512, 6, 8)
    assert (MCAN.feed_forward, MCAN.dropout, MCAN.summary, MCAN.fused) == (2048, 0.1, 512, 1024)


def test_decoder_that_cannot_be_built_is_refused():
    for changes, message in (
        ({"layers": (7, 4, 10)}, r"layers that rise, from 1, got \(7, 4, 10\)"),
        ({"layers": (0, 4, 10)}, "layers that rise"),
        ({"layers": (4, 4, 10)}, "layers that rise"),
        ({"layers": (), "widths": ()}, "layers that rise"),
        ({"widths": (768, 768)}, r"widths, one per layer, got \(768, 768\)"),
        ({"patch": 0}, "sizes of at least 1"),
        ({"grid": -1}, "sizes of at least 1"),
        ({"heads": 5}, "reduce_width in equal heads"),
        ({"grid": 0}, "sizes of at least 1"),
        ({"layers": (4, 7, 10**9)}, "layers up to 1000"),
        ({"widths": (768, 768, 10**9)}, "sizes of at most 1000000"),
        ({"feed_forward": 10**20}, "sizes of at most 1000000"),
        ({"grid": 10**6}, "patch and grid of at most 1024"),
        # Its factors would be looked for till the end of days.
        ({"upsample": "refined", "patch": 10**30}, "sizes of at most 1000000"),
        ({"threshold": 1.0}, "a threshold between 0 and 1, got 1.0"),
        ({"threshold": float("nan")}, "a threshold between 0 and 1, got nan"),
        ({"upsample": "refined", "patch": 13}, "a product if refined .* got 13"),
        ({"upsample": "refined", "reduce_width": 7, "heads": 1}, "even reduce_width"),
    ):
        with pytest.raises(ConfigError, match=message):
            dataclasses.replace(DECODER, **changes)


def test_mcan_that_cannot_be_built_is_refused():
    for changes, message in (
        ({"words": 2}, "words besides PAD and UNK, so at least 3, got 2"),
        ({"answers": 1}, "at least 2 answers"),
        ({"blocks": 0}, "sizes of at least 1"),
        ({"heads": 7}, "hidden in equal heads"),
        ({"blocks": 10**6}, "at most 1000 blocks"),
        ({"layer": 10**6}, "at most 1000 blocks"),
        ({"words": 10**9}, "sizes of at most 1000000"),
        ({"hidden": 8 * 10**20}, "sizes of at most 1000000"),
        ({"fused": 1}, "hidden and fused of at least 2"),
        ({"dropout": 1.0}, "dropout from 0 to below 1, got 1.0"),
    ):
        with pytest.raises(ConfigError, match=message):
            dataclasses.replace(MCAN, **changes)

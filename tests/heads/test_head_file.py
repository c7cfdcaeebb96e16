from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest

from natadv.errors import ModelError
from natadv.heads.folder import save_head
from natadv.heads.head_file import fingerprint, read_head_file

TOWER = "ab" * 32


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
    from natadv.heads.words import Vocabulary

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
    ("changes", "told"),
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
def test_config_that_is_not_of_a_head_is_refused(folder, changes, told):
    change(folder, **changes)

    with pytest.raises(ModelError, match=rf"config.json: .*{told}"):
        read_head_file(folder)


@pytest.mark.parametrize(
    ("changes", "told"),
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
def test_size_that_no_head_can_have_is_refused(folder, changes, told):
    config = json.loads((folder / "config.json").read_text())["config"]
    change(folder, config=config | changes)

    with pytest.raises(ModelError, match=rf"config.json: .*{told}"):
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


def test_none_of_this_needs_torch():
    code = (
        "import sys; import natadv.heads.head_file, natadv.heads.words; "
        "sys.exit('torch' in sys.modules)"
    )

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

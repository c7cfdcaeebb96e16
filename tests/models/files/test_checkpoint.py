from __future__ import annotations

import json
import pickle

import pytest

from natadv.errors import ModelError
from natadv.models.files import checkpoint
from natadv.models.files.model_types import MODEL_TYPES


class Malicious:
    """Creates a file when it is unpickled."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return (open, (str(self.trace), "w"))


@pytest.fixture
def folder(tiny, copied):
    return copied(tiny)


def test_whole_checkpoint_passes(tiny):
    checkpoint.check(tiny)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "weights.pkl"])
def test_pickle_is_refused_and_never_opened(folder, tmp_path, name):
    trace = tmp_path / "trace"
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(pickle.dumps(Malicious(trace)))

    with pytest.raises(ModelError, match=f"{name}: a pickle can run code.*save it as model.saf"):
        checkpoint.check(folder)
    assert not trace.exists()


def test_pickle_beside_the_weights_is_never_opened(folder, tmp_path, load_folder):
    trace = tmp_path / "trace"
    for name in ("pytorch_model.bin", "training_args.bin", "optimizer.pt"):
        (folder / name).write_bytes(pickle.dumps(Malicious(trace)))

    load_folder(folder)
    assert not trace.exists()


def test_the_pickle_of_these_tests_is_malicious(tmp_path):
    pickle.loads(pickle.dumps(Malicious(tmp_path / "trace"))).close()

    assert (tmp_path / "trace").exists()


def test_config_without_weights_is_refused(folder):
    (folder / "model.safetensors").unlink()

    with pytest.raises(ModelError, match=r"but no model\.safetensors; copy or download"):
        checkpoint.check(folder)


def test_weights_without_config_are_refused(folder):
    (folder / "config.json").unlink()

    with pytest.raises(ModelError, match=r"no config\.json in .*: expected a folder written by"):
        checkpoint.check(folder)


@pytest.mark.parametrize("kept", [0, 6, 200, 5000])
def test_truncated_weights_are_refused(folder, kept):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])

    with pytest.raises(ModelError, match=f"whole safetensors file, got {kept} bytes"):
        checkpoint.check(folder)


def test_pointer_in_place_of_weights_is_refused(folder):
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")

    with pytest.raises(ModelError, match="download or copy it again"):
        checkpoint.check(folder)


@pytest.mark.parametrize(
    "kind", ["bert", "clip_vision_model", "siglip3", None, ["clip"], {"a": "b"}]
)
def test_config_of_another_type_is_refused(folder, edited, kind):
    edited(folder / "config.json", {"model_type": kind})

    with pytest.raises(ModelError, match=r"'clip', 'siglip', .*, got "):
        checkpoint.check(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", "\x00\x01", "null"])
def test_unreadable_config_is_refused(folder, text):
    (folder / "config.json").write_text(text)

    with pytest.raises(ModelError, match=r"config\.json: expected"):
        checkpoint.check(folder)


@pytest.mark.parametrize(
    "name", ["config.json", "preprocessor_config.json", "tokenizer_config.json"]
)
def test_code_that_comes_with_the_weights_is_refused(folder, edited, name):
    edited(folder / name, {"auto_map": {"AutoModel": "modeling.Mine"}})

    with pytest.raises(ModelError, match=f"{name}: 'auto_map' would run code"):
        checkpoint.check(folder)


def test_adapter_beside_the_weights_is_refused(folder):
    (folder / "adapter_config.json").write_text("{}")

    with pytest.raises(ModelError, match="merge the adapter"):
        checkpoint.check(folder)


def test_lost_preprocessing_config_is_an_error(folder):
    (folder / "preprocessor_config.json").unlink()

    with pytest.raises(ModelError, match=r"no preprocessor_config\.json in .*copy it"):
        checkpoint.check(folder)


@pytest.mark.parametrize("key", MODEL_TYPES["clip"].preprocessing)
def test_preprocessing_leaves_nothing_to_defaults(folder, edited, key):
    edited(folder / "preprocessor_config.json", {key: None})

    with pytest.raises(ModelError, match=f"{key} missing, and a default would feed"):
        checkpoint.check(folder)


def test_preprocessing_nested_in_the_processor_config_counts(folder):
    old = folder / "preprocessor_config.json"
    nested = {"image_processor": json.loads(old.read_text())}
    (folder / "processor_config.json").write_text(json.dumps(nested))
    old.unlink()

    checkpoint.check(folder)
    assert folder / "processor_config.json" in checkpoint.content_files(folder)


def test_processor_config_without_image_processor_does_not_count(folder):
    (folder / "processor_config.json").write_text('{"processor_class": "CLIPProcessor"}')
    (folder / "preprocessor_config.json").unlink()

    with pytest.raises(ModelError, match=r"no preprocessor_config\.json"):
        checkpoint.check(folder)


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
def test_lost_tokenizer_is_an_error(folder, name):
    (folder / name).unlink()

    with pytest.raises(ModelError, match=f"no {name} in .*copy the tokenizer files"):
        checkpoint.check(folder)


def shard(folder):
    """Split the weights of `folder` into two shards with an index."""
    from safetensors.numpy import load_file, save_file

    path = folder / "model.safetensors"
    tensors = load_file(path)
    names = sorted(tensors)
    parts = {
        "model-00001-of-00002.safetensors": names[: len(names) // 2],
        "model-00002-of-00002.safetensors": names[len(names) // 2 :],
    }
    for file, part in parts.items():
        save_file({name: tensors[name] for name in part}, folder / file, metadata={"format": "pt"})
    weight_map = {name: file for file, part in parts.items() for name in part}
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    path.unlink()
    return index


def test_sharded_weights_load_as_the_whole(folder, tiny, load_folder, photographs, embedded):
    shard(folder)

    checkpoint.check(folder)
    found = embedded(load_folder(folder), photographs)
    assert found == pytest.approx(embedded(load_folder(tiny), photographs), abs=1e-6)


def test_missing_shard_is_refused(folder):
    shard(folder)
    (folder / "model-00002-of-00002.safetensors").unlink()

    with pytest.raises(ModelError, match=r"1 of 2 weight files missing .*finish the download"):
        checkpoint.check(folder)


@pytest.mark.parametrize("name", ["../other.safetensors", "/etc/passwd", "pytorch_model.bin"])
def test_index_names_only_safetensors_beside_it(folder, name):
    index = shard(folder)
    index.write_text(json.dumps({"weight_map": {"logit_scale": name}}))

    with pytest.raises(ModelError, match="expected safetensors files beside it"):
        checkpoint.check(folder)


@pytest.mark.parametrize("text", ["{}", '{"weight_map": []}', '{"weight_map": {}}'])
def test_index_without_map_is_refused(folder, text):
    shard(folder).write_text(text)

    with pytest.raises(ModelError, match="expected a 'weight_map'"):
        checkpoint.check(folder)


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_assumed_architecture_is_that_of_transformers(kind):
    from transformers import AutoConfig

    config = AutoConfig.for_model(kind)

    for tower, keys in MODEL_TYPES[kind].architecture.items():
        meant = getattr(config, tower)
        assert {key: getattr(meant, key) for key in keys} == keys


def test_signature_ignores_what_is_written_out(folder, edited):
    before = checkpoint.signature(folder)
    config = json.loads((folder / "config.json").read_text())
    edited(
        folder / "config.json",
        {"vision_config": {}, "vision_config_dict": config["vision_config"], "dtype": "bfloat16"},
    )

    assert checkpoint.signature(folder) == before


@pytest.mark.parametrize(
    ("tower", "key"),
    [(tower, key) for tower, keys in MODEL_TYPES["clip"].architecture.items() for key in keys],
)
def test_signature_tells_architectures_apart(folder, edited, tower, key):
    before = checkpoint.signature(folder)
    config = json.loads((folder / "config.json").read_text())
    config[tower][key] += 1
    edited(folder / "config.json", config)

    assert checkpoint.signature(folder) != before


def test_tower_that_is_no_object_is_refused(folder, edited):
    edited(folder / "config.json", {"vision_config": [1]})

    with pytest.raises(ModelError, match="expected 'vision_config' to be an object"):
        checkpoint.signature(folder)


def with_value(path, keys, value):
    """Set what lies under `keys` in a JSON file."""
    content = json.loads(path.read_text())
    inner = content
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    "name", ["config.json", "preprocessor_config.json", "tokenizer_config.json"]
)
@pytest.mark.parametrize("depth", [60, 900, 20_000])
def test_json_of_brackets_in_brackets_is_refused(folder, name, depth):
    path = folder / name
    path.write_text(f'{path.read_text()[:-1].rstrip()[:-1]}, "x": {"[" * depth}{"]" * depth}}}')

    with pytest.raises(ModelError, match=rf"{name}: expected JSON of at most 50 levels, got more"):
        checkpoint.check(folder)


def test_index_of_brackets_in_brackets_is_refused(folder):
    shard(folder).write_text("[" * 20_000)

    with pytest.raises(ModelError, match=r"index\.json: expected JSON of at most 50 levels"):
        checkpoint.check(folder)


@pytest.mark.parametrize(
    ("fixture", "keys"),
    [
        ("tiny_clip", ("vision_config", "num_hidden_layers")),
        ("tiny_clip", ("text_config", "num_hidden_layers")),
        ("tiny_siglip", ("vision_config", "num_hidden_layers")),
        ("tiny_siglip2", ("text_config", "num_hidden_layers")),
        ("tiny_paligemma", ("text_config", "num_hidden_layers")),
        ("tiny_blip2_opt", ("qformer_config", "num_hidden_layers")),
        ("tiny_blip2_opt", ("text_config", "num_hidden_layers")),
        ("tiny_blip2_t5", ("text_config", "num_layers")),
        ("tiny_blip2_t5", ("text_config", "num_decoder_layers")),
    ],
)
@pytest.mark.parametrize("count", [1_000_000, 10**20])
def test_more_layers_than_weights_are_refused(request, copied, fixture, keys, count):
    folder = copied(request.getfixturevalue(fixture))
    with_value(folder / "config.json", keys, count)

    told = rf"{keys[0]}\.{keys[1]} to be at most \d+, got {count}; the weights hold \d+ tensors"
    with pytest.raises(ModelError, match=told):
        checkpoint.check(folder)


def test_more_layers_than_weights_of_a_segmenter_are_refused(tiny_clipseg, copied):
    folder = copied(tiny_clipseg)
    with_value(folder / "config.json", ("vision_config", "num_hidden_layers"), 1_000_000)

    with pytest.raises(ModelError, match=r"vision_config\.num_hidden_layers to be at most"):
        checkpoint.check(folder)


def test_layers_under_an_old_name_of_a_section_count_too(folder, edited):
    edited(folder / "config.json", {"vision_config_dict": {"num_hidden_layers": 1_000_000}})

    with pytest.raises(ModelError, match=r"vision_config_dict\.num_hidden_layers to be at most"):
        checkpoint.check(folder)


def test_labels_that_no_memory_could_name_are_refused(folder, edited):
    edited(folder / "config.json", {"num_labels": 1000})
    checkpoint.check(folder)

    edited(folder / "config.json", {"num_labels": 10**9})
    with pytest.raises(ModelError, match="num_labels to be at most 100000, got 1000000000"):
        checkpoint.check(folder)


@pytest.mark.parametrize("size", [{"shortest_edge": 10**6}, {"height": 32, "width": 5000}, 10**12])
@pytest.mark.parametrize("key", ["size", "crop_size"])
def test_pictures_larger_than_any_tower_takes_are_refused(folder, edited, key, size):
    edited(folder / "preprocessor_config.json", {key: size})

    with pytest.raises(
        ModelError, match=rf"config\.json: expected {key}\S* to be at most 4096, got"
    ):
        checkpoint.check(folder)


@pytest.mark.parametrize("part", [[1], "x", 3, True])
def test_image_processor_that_is_no_object_is_refused(folder, part):
    (folder / "processor_config.json").write_text(json.dumps({"image_processor": part}))

    with pytest.raises(ModelError, match="expected 'image_processor' to be an object, got"):
        checkpoint.check(folder)

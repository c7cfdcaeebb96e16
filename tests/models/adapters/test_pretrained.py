"""What only shows when a checkpoint is opened: each fault is planted in a whole one."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch

from natadv.errors import ModelError
from natadv.models.adapters import pretrained
from natadv.models.adapters.encoder import Placement


@pytest.fixture
def folder(tiny, copied):
    return copied(tiny)


def change_weights(folder, change):
    from safetensors.numpy import load_file, save_file

    path = folder / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def test_missing_weight_is_refused(folder, load_folder):
    change_weights(folder, lambda t: t.pop("text_model.final_layer_norm.weight"))

    with pytest.raises(
        ModelError, match=r"text_model\.final_layer_norm\.weight missing; copy both"
    ):
        load_folder(folder)


def test_unexpected_weight_is_refused(folder, load_folder):
    change_weights(folder, lambda t: t.update({"classifier.weight": np.ones(2, np.float32)}))

    with pytest.raises(ModelError, match=r"classifier\.weight not known to this architecture"):
        load_folder(folder)


def test_weight_of_another_shape_is_refused(folder, load_folder):
    name = "text_model.final_layer_norm.bias"
    change_weights(folder, lambda t: t.update({name: np.ones(3, np.float32)}))

    with pytest.raises(ModelError, match=r"final_layer_norm\.bias of another shape"):
        load_folder(folder)


def test_weights_of_another_architecture_are_refused(tiny_clip, tiny_siglip, copied, load_folder):
    folder = copied(tiny_clip)
    shutil.copy(tiny_siglip / "model.safetensors", folder)

    with pytest.raises(ModelError, match=r"do not belong together: .* and .* more missing"):
        load_folder(folder)


def test_config_of_a_deeper_model_is_refused(folder, edited, load_folder):
    config = json.loads((folder / "config.json").read_text())
    config["vision_config"]["num_hidden_layers"] += 1
    edited(folder / "config.json", config)

    with pytest.raises(ModelError, match="do not belong together"):
        load_folder(folder)


def test_positions_that_old_checkpoints_store_are_no_fault(
    folder, load_folder, tiny, photographs, embedded
):
    positions = {
        "text_model.embeddings.position_ids": np.arange(24)[None],
        "vision_model.embeddings.position_ids": np.arange(17)[None],
    }
    change_weights(folder, lambda t: t.update(positions))

    found = embedded(load_folder(folder), photographs)
    assert found == pytest.approx(embedded(load_folder(tiny), photographs), abs=1e-6)


def test_damaged_weights_are_refused_by_name(folder, load_folder):
    def damage(tensors):
        tensors["text_model.final_layer_norm.weight"][:] = np.nan

    change_weights(folder, damage)

    with pytest.raises(ModelError, match=r"copy: embeddings are not finite.*weights are damaged"):
        load_folder(folder)


def test_damaged_scale_is_refused(folder, load_folder):
    def damage(tensors):
        tensors["logit_scale"] = np.full_like(tensors["logit_scale"], np.inf)

    change_weights(folder, damage)

    with pytest.raises(ModelError, match="logit_scale is inf; the weights are damaged"):
        load_folder(folder)


def test_scale_is_not_rounded_by_a_narrow_dtype(tiny):
    from natadv.models.loading import load
    from natadv.models.resolve import resolve

    (spec,) = resolve(str(tiny), root=tiny.parent)
    wide = load(spec, device="cpu", dtype="float32", threads=1)
    narrow = load(spec, device="cpu", dtype="bfloat16", threads=1)

    assert narrow.scoring == wide.scoring
    assert narrow.embed_texts(["a cat"]) == pytest.approx(wide.embed_texts(["a cat"]), abs=0.1)
    assert narrow.embed_texts(["a cat"]).dtype == np.float32


def test_preprocessing_for_another_size_is_refused(folder, edited, load_folder):
    size = {"height": 16, "width": 16}
    edited(folder / "preprocessor_config.json", {"size": size, "crop_size": size})

    with pytest.raises(ModelError, match=r"shape \(1, 3, 32, 32\), its preprocessing makes"):
        load_folder(folder)


def test_preprocessing_is_the_pil_backend_whatever_the_file_says(
    folder, edited, load_folder, tiny, photographs, embedded
):
    kind = json.loads((folder / "preprocessor_config.json").read_text())["image_processor_type"]
    edited(folder / "preprocessor_config.json", {"image_processor_type": f"{kind}Fast"})

    found = embedded(load_folder(folder), photographs)
    assert found.tobytes() == embedded(load_folder(tiny), photographs).tobytes()


def test_preprocessing_type_of_an_old_checkpoint_is_understood(
    folder, edited, load_folder, tiny, photographs, embedded
):
    edited(folder / "preprocessor_config.json", {"image_processor_type": None})

    found = embedded(load_folder(folder), photographs)
    assert found.tobytes() == embedded(load_folder(tiny), photographs).tobytes()


def test_tokenizer_with_ids_that_the_tower_lacks_is_refused(folder, load_folder):
    path = folder / "tokenizer.json"
    found = json.loads(path.read_text())
    extra = {**found["added_tokens"][0], "id": 5000, "content": "<extra>"}
    found["model"]["vocab"]["<extra>"] = 5000
    found["added_tokens"].append(extra)
    path.write_text(json.dumps(found))

    with pytest.raises(ModelError, match=r"ids up to 5000, the text tower knows \d+; copy the tok"):
        load_folder(folder)


@pytest.mark.parametrize("text", ["", "{}", "not json"])
def test_unreadable_tokenizer_is_refused_in_one_line(folder, load_folder, text):
    (folder / "tokenizer.json").write_text(text)

    with pytest.raises(ModelError, match="cannot load its tokenizer") as caught:
        load_folder(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("named", ["CLIPTokenizer", "GPT2Tokenizer", "GemmaTokenizer"])
def test_tokenizer_class_that_splits_otherwise_than_its_file_is_refused(
    tiny_siglip, copied, edited, load_folder, named
):
    folder = copied(tiny_siglip)
    edited(folder / "tokenizer_config.json", {"tokenizer_class": named})

    with pytest.raises(
        ModelError, match=rf"splits 'a photo .* {named} into .*: set tokenizer_class"
    ):
        load_folder(folder)


def test_lost_tokenizer_class_is_refused_where_it_matters(tiny_siglip, copied, edited, load_folder):
    folder = copied(tiny_siglip)
    edited(folder / "tokenizer_config.json", {"tokenizer_class": None})

    with pytest.raises(ModelError, match="cannot load its tokenizer"):
        load_folder(folder)


def test_lost_tokenizer_class_is_that_of_the_architecture(tiny_clip, copied, edited, load_folder):
    folder = copied(tiny_clip)
    edited(folder / "tokenizer_config.json", {"tokenizer_class": None})

    found = load_folder(folder).embed_texts(["a cat"])
    assert found.tobytes() == load_folder(tiny_clip).embed_texts(["a cat"]).tobytes()


def test_padding_token_is_needed(tiny_siglip, copied, edited, load_folder):
    folder = copied(tiny_siglip)
    edited(folder / "tokenizer_config.json", {"pad_token": None})

    with pytest.raises(ModelError, match="no padding token; set pad_token"):
        load_folder(folder)


def test_loading_is_silent(tiny, load_folder, capfd):
    load_folder(tiny)

    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("fixture", "keys"),
    [
        ("tiny_clip", ("vision_config", "hidden_size")),
        ("tiny_clip", ("vision_config", "num_channels")),
        ("tiny_clip", ("text_config", "vocab_size")),
        ("tiny_siglip", ("text_config", "max_position_embeddings")),
        ("tiny_siglip2", ("vision_config", "num_patches")),
        ("tiny_paligemma", ("text_config", "intermediate_size")),
        ("tiny_blip2_opt", ("num_query_tokens",)),
        ("tiny_blip2_t5", ("text_config", "d_ff")),
    ],
)
def test_more_numbers_than_are_stored_are_refused_before_they_are_made(
    request, copied, load_folder, monkeypatch, fixture, keys
):
    folder = copied(request.getfixturevalue(fixture))
    refuse_to_build(folder, keys, load_folder, monkeypatch)


def test_more_numbers_than_a_segmenter_stores_are_refused_before_they_are_made(
    tiny_clipseg, copied, load_folder, monkeypatch
):
    keys = ("decoder_intermediate_size",)
    refuse_to_build(copied(tiny_clipseg), keys, load_folder, monkeypatch)


def refuse_to_build(folder, keys, load_folder, monkeypatch):
    """With ten millions under `keys` of the config."""
    import transformers

    config = json.loads((folder / "config.json").read_text())
    section = config
    for key in keys[:-1]:
        section = section[key]
    section[keys[-1]] = 10**7
    (folder / "config.json").write_text(json.dumps(config))
    made = transformers.PreTrainedModel
    monkeypatch.setattr(made, "from_pretrained", lambda *_, **__: pytest.fail("was made"))

    with pytest.raises(
        ModelError, match=r"asks for a model of \d+ numbers, the weights hold \d+; copy"
    ):
        load_folder(folder)


def test_size_that_none_can_be_is_refused_in_one_line(folder, edited, load_folder):
    config = json.loads((folder / "config.json").read_text())
    for size in (10**20, -1, 1.5, "12", [3], {}):
        config["text_config"]["hidden_size"] = size
        edited(folder / "config.json", config)

        with pytest.raises(ModelError, match=r"copy: cannot read its config\.json: .*") as caught:
            load_folder(folder)
        assert "\n" not in str(caught.value), size


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        (
            "preprocessor_config.json",
            {"rescale_factor": "x"},
            "copy: cannot preprocess a picture: ",
        ),
        ("preprocessor_config.json", {"image_mean": [[1], [2]]}, "cannot preprocess a picture: "),
        ("tokenizer_config.json", {"model_max_length": "x"}, "copy: cannot load its tokenizer: "),
    ],
)
def test_what_a_library_lets_pass_and_then_trips_over_is_reported_in_one_line(
    folder, edited, load_folder, name, changes, message
):
    edited(folder / name, changes)

    with pytest.raises(ModelError, match=rf"{message}.*\(\w+Error\); copy or download") as caught:
        load_folder(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("tower", ["vision_config", "text_config"])
def test_heads_that_no_width_has_are_reported_in_one_line(folder, edited, load_folder, tower):
    config = json.loads((folder / "config.json").read_text())
    config[tower]["num_attention_heads"] = -1
    edited(folder / "config.json", config)

    with pytest.raises(ModelError, match=r"cannot embed a (picture|text): |cannot read its config"):
        load_folder(folder)


def test_scale_beyond_all_numbers_is_refused(folder, load_folder):
    def damage(tensors):
        tensors["logit_scale"] = np.full_like(tensors["logit_scale"], 1e4)

    change_weights(folder, damage)

    with pytest.raises(ModelError, match=r"logit_scale is e to the power of 1e\+04, more than any"):
        load_folder(folder)


class Spread:
    """Stands in for a class of transformers, as accelerate and bitsandbytes need a GPU."""

    def __init__(self, parts=(0, 1)):
        self.hf_device_map = {f"layer {n}": part for n, part in enumerate(parts)}
        self.asked = {}
        self.moved = []

    def from_pretrained(self, folder, **asked):
        self.asked = asked
        return self, {}

    def eval(self):
        return self

    def requires_grad_(self, wanted):
        return self

    def to(self, device):
        self.moved.append(device)

    def parameters(self):
        return ()

    buffers = parameters


def test_a_model_that_is_spread_is_placed_by_transformers_itself(tiny, monkeypatch):
    monkeypatch.setattr(pretrained, "_refuse_larger", lambda *_: None)
    gpu = torch.device("cuda")
    for gpus, in_8_bits, device_map in ((2, False, "auto"), (1, True, {"": 0}), (2, True, "auto")):
        model = Spread()
        placement = Placement(gpu, torch.float16, gpus=gpus, in_8_bits=in_8_bits)
        pretrained.weights(model, tiny, placement=placement)

        assert model.moved == []
        assert (model.asked["device_map"], model.asked["dtype"]) == (device_map, torch.float16)
        quantised = model.asked.get("quantization_config")
        assert (quantised is not None and quantised.load_in_8bit) == in_8_bits

    model = Spread()
    pretrained.weights(model, tiny, placement=Placement(gpu, torch.float16))

    assert model.moved == [gpu]
    assert not {"device_map", "quantization_config"} & model.asked.keys()


@pytest.mark.parametrize("elsewhere", ["cpu", "disk"])
def test_a_part_that_fits_no_gpu_is_refused(tiny, monkeypatch, elsewhere):
    monkeypatch.setattr(pretrained, "_refuse_larger", lambda *_: None)
    placement = Placement(torch.device("cuda"), torch.float16, gpus=2)

    with pytest.raises(ModelError, match=rf"memory of 2 GPUs: .* on {elsewhere}; take more --gpus"):
        pretrained.weights(Spread((0, 1, elsewhere)), tiny, placement=placement)

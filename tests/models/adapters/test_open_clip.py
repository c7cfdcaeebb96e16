"""Against direct calls of open_clip and of transformers, and against the wrong activation."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import load_file, save_file

from natadv.errors import ModelError
from natadv.models import loading
from natadv.models.resolve import resolve
from natadv.tasks import classification

PROMPTS = ["a photo of a cat.", "A photo of a DOG!", "a photo of a hen, or a cow " * 9]
WEIGHTS = "open_clip_model.safetensors"


@pytest.fixture(params=["open_clip_quick", "open_clip_plain", "open_clip_resnet"])
def folder(request):
    return request.getfixturevalue(request.param)


def by_open_clip(folder, photographs, *, quick_gelu=None):
    """Logits and embeddings as open_clip itself makes them of a folder."""
    changes = {} if quick_gelu is None else {"quick_gelu": quick_gelu}
    name = f"local-dir:{folder}"
    model, _, preprocess = open_clip.create_model_and_transforms(name, **changes)
    model.eval()
    with torch.inference_mode():
        pixels = torch.stack([preprocess(image) for image in photographs])
        tokens = open_clip.get_tokenizer(name)(PROMPTS)
        images = model.encode_image(pixels, normalize=True)
        texts = model.encode_text(tokens, normalize=True)
        logits = model.get_logits(pixels, tokens)[0]
    return images.numpy(), texts.numpy(), logits.numpy()


def logits_of(model, photographs, embedded):
    weights = classification.class_weights(model.embed_texts(PROMPTS), classes=3, templates=1)
    return classification.logits(
        embedded(model, photographs), weights=weights, scoring=model.scoring
    )


def loaded(folder, **changes):
    (spec,) = resolve(str(folder), root=folder.parent)
    dtype = changes.pop("dtype", "float32")
    changed = dataclasses.replace(spec, **changes)
    return loading.load(changed, device="cpu", dtype=dtype, threads=1)


def with_config(folder, **changes):
    path = folder / "open_clip_config.json"
    config = json.loads(path.read_text())
    config["model_cfg"] |= changes
    path.write_text(json.dumps(config))
    return folder


def with_weights(folder, **changes):
    kept = {k: t for k, t in (load_file(folder / WEIGHTS) | changes).items() if t is not None}
    save_file(kept, folder / WEIGHTS)
    return folder


def test_embeddings_and_scores_are_those_of_open_clip(folder, photographs, embedded):
    images, texts, logits = by_open_clip(folder, photographs)
    model = loaded(folder)

    assert np.ptp(images, axis=0).max() > 0.3
    assert embedded(model, photographs) == pytest.approx(images, abs=1e-5)
    assert model.embed_texts(PROMPTS) == pytest.approx(texts, abs=1e-5)
    assert logits_of(model, photographs, embedded) == pytest.approx(logits, abs=1e-4)
    assert (model.scoring.bias, model.scoring.activation) == (0.0, "softmax")


@pytest.mark.parametrize("name", ["open_clip_quick", "open_clip_plain"])
def test_both_libraries_agree_on_ported_weights(
    name, request, transformers_twin, load_folder, photographs, embedded
):
    folder = request.getfixturevalue(name)
    ours, twin = loaded(folder), load_folder(transformers_twin(folder))
    found, expected = (logits_of(model, photographs, embedded) for model in (ours, twin))

    assert found == pytest.approx(expected, abs=1e-4)
    assert np.ptp(found, axis=0).min() > 1

    targets = ours.embed_texts([PROMPTS[i % 3] for i in range(len(photographs))])
    for layers in ("last", "all"):
        maps, same = (
            model.relevance(model.prepare(photographs), targets, layers=layers)
            for model in (ours, twin)
        )
        assert maps.shape == (len(photographs), 4, 4)
        assert maps.max() > 1e-3
        assert maps == pytest.approx(same, rel=1e-3, abs=1e-6)
    masked = [
        opened.layers[0].join(
            opened.first, torch.zeros_like(opened.layers[0].attend(opened.first).outputs)
        )
        for opened in (model.layerwise(model.prepare(photographs)) for model in (ours, twin))
    ]
    assert masked[0].detach().numpy() == pytest.approx(masked[1].detach().numpy(), abs=1e-5)


def test_relevance_of_a_resnet_is_grad_cam_of_its_last_stage(open_clip_resnet, photographs):
    """Against the whole network with a hook, and sums over single places."""
    visual = open_clip.create_model(f"local-dir:{open_clip_resnet}").eval().visual
    ours = loaded(open_clip_resnet)
    prepared = ours.prepare(photographs)
    before = ours.embed_images(prepared)
    targets = ours.embed_texts([PROMPTS[i % 3] for i in range(len(photographs))])
    found = ours.relevance(prepared, targets)
    seen = []
    visual.layer4.register_forward_hook(lambda _module, _given, out: seen.append(out))
    rows = torch.nn.functional.normalize(visual(prepared["image"]), dim=-1)
    slopes = torch.autograd.grad((rows * torch.from_numpy(targets)).sum(), seen)[0].numpy()
    values = seen[0].detach().numpy()

    assert found.shape == (len(photographs), 2, 2)
    for picture, maps in enumerate(found):
        weights = [np.mean(slopes[picture, channel]) for channel in range(values.shape[1])]
        expected = sum(w * values[picture, c] for c, w in enumerate(weights))
        assert maps == pytest.approx(np.maximum(expected, 0), rel=1e-3, abs=1e-6)
    assert found.max() > 0
    assert ours.relevance(ours.prepare([]), targets[:0]).shape == (0, 2, 2)
    assert ours.embed_images(prepared).tobytes() == before.tobytes()


@pytest.mark.parametrize("name", ["open_clip_quick", "open_clip_resnet"])
def test_gelu_instead_of_quick_gelu_is_caught(name, request, copied):
    folder = with_config(copied(request.getfixturevalue(name)), quick_gelu=False)

    with pytest.raises(ModelError, match=r"text tower computes 'gelu'.*set 'quick_gelu' to true"):
        loaded(folder, activation="quick_gelu")


def test_config_that_leaves_the_activation_open_gets_the_one_on_record(
    open_clip_quick, copied, photographs, embedded
):
    folder = copied(open_clip_quick)
    path = folder / "open_clip_config.json"
    config = json.loads(path.read_text())
    del config["model_cfg"]["quick_gelu"]
    path.write_text(json.dumps(config))
    expected = logits_of(loaded(open_clip_quick), photographs, embedded)
    known, unknown = loaded(folder, activation="quick_gelu"), loaded(folder)

    assert logits_of(known, photographs, embedded) == pytest.approx(expected, abs=1e-5)
    assert np.abs(logits_of(unknown, photographs, embedded) - expected).max() > 0.05


def test_quick_gelu_instead_of_gelu_is_caught(open_clip_quick):
    with pytest.raises(ModelError, match="picture tower computes 'quick_gelu' and its text tower"):
        loaded(open_clip_quick, activation="gelu")


def test_another_gelu_is_neither(open_clip_quick, copied):
    vision = json.loads((open_clip_quick / "open_clip_config.json").read_text())["model_cfg"]
    changed = vision["vision_cfg"] | {"act_kwargs": {"approximate": "tanh"}}
    folder = with_config(copied(open_clip_quick), quick_gelu=False, vision_cfg=changed)

    with pytest.raises(ModelError, match=r"picture tower computes \"GELU\(approximate='tanh'\)\""):
        loaded(folder, activation="gelu")


def test_right_activation_is_accepted(open_clip_quick, open_clip_plain, open_clip_resnet):
    loaded(open_clip_quick, activation="quick_gelu")
    loaded(open_clip_plain, activation="gelu")
    loaded(open_clip_resnet, activation="quick_gelu")


@pytest.mark.parametrize("name", ["open_clip_quick", "open_clip_resnet"])
def test_wrong_activation_would_change_the_scores(name, request, photographs, embedded):
    """Nothing but the check tells the two apart: shapes and names are the same."""
    folder = request.getfixturevalue(name)
    right = logits_of(loaded(folder), photographs, embedded)
    wrong = logits_of(loaded(folder, feeding="paper"), photographs, embedded)

    assert np.abs(right - wrong).max() > 0.05


def test_paper_is_fed_with_gelu_as_its_scripts_did(folder, photographs, embedded):
    _, texts, logits = by_open_clip(folder, photographs, quick_gelu=False)
    model = loaded(folder, feeding="paper", activation="quick_gelu")

    assert model.embed_texts(PROMPTS) == pytest.approx(texts, abs=1e-5)
    assert logits_of(model, photographs, embedded) == pytest.approx(logits, abs=1e-4)


def test_pickled_weights_mean_the_same(folder, copied, photographs, embedded):
    other = copied(folder)
    torch.save(load_file(other / WEIGHTS), other / "open_clip_pytorch_model.bin")
    (other / WEIGHTS).unlink()

    assert (
        embedded(loaded(other), photographs).tobytes()
        == embedded(loaded(folder), photographs).tobytes()
    )


def test_old_file_without_counters_means_the_same(open_clip_resnet, copied, photographs, embedded):
    counters = {k: None for k in load_file(open_clip_resnet / WEIGHTS) if k.endswith("tracked")}
    other = with_weights(copied(open_clip_resnet), **counters)

    assert counters
    assert (
        embedded(loaded(other), photographs).tobytes()
        == embedded(loaded(open_clip_resnet), photographs).tobytes()
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"visual.proj": None}, "visual.proj missing"),
        ({"visual.head": torch.zeros(3)}, "visual.head not known to this architecture"),
        ({"visual.proj": torch.zeros(32, 8)}, "visual.proj of another shape"),
        (
            {"visual.positional_embedding": torch.zeros(10, 32)},
            "positional_embedding of another shape",
        ),
        ({"logit_bias": torch.zeros(())}, "logit_bias not known to this architecture"),
    ],
)
def test_weights_that_do_not_fit_are_refused(open_clip_quick, copied, changes, message):
    folder = with_weights(copied(open_clip_quick), **changes)

    with pytest.raises(ModelError, match=f"do not belong together: .*{message}; copy both"):
        loaded(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_damaged_scale_is_refused(open_clip_quick, copied, value):
    folder = with_weights(copied(open_clip_quick), logit_scale=torch.tensor(value))

    with pytest.raises(ModelError, match="weights are damaged"):
        loaded(folder)


def test_other_vocabulary_is_refused(saved_open_clip, open_clip_quick):
    config = json.loads((open_clip_quick / "open_clip_config.json").read_text())["model_cfg"]
    folder = saved_open_clip("small-words", text_cfg=config["text_cfg"] | {"vocab_size": 300})

    with pytest.raises(ModelError, match=r"knows 300 tokens, .*packaged tokenizer has 49408"):
        loaded(folder)


def test_sizes_that_do_not_belong_together_are_reported_in_one_line(open_clip_quick, copied):
    config = json.loads((open_clip_quick / "open_clip_config.json").read_text())["model_cfg"]
    folder = with_config(copied(open_clip_quick), text_cfg=config["text_cfg"] | {"heads": 5})

    with pytest.raises(ModelError, match=r"open_clip cannot build this model: .*divisible"):
        loaded(folder)


def test_bias_means_sigmoid_and_its_own_spelling(
    saved_open_clip, open_clip_quick, photographs, embedded
):
    config = json.loads((open_clip_quick / "open_clip_config.json").read_text())["model_cfg"]
    text = config["text_cfg"] | {"tokenizer_kwargs": {"clean": "canonicalize"}}
    plain = saved_open_clip("biased", init_logit_bias=-4.0)
    folder = with_config(plain, text_cfg=text)
    _, texts, logits = by_open_clip(folder, photographs)
    model = loaded(folder)

    assert (model.scoring.bias, model.scoring.activation) == (-4.0, "sigmoid")
    assert model.embed_texts(PROMPTS) == pytest.approx(texts, abs=1e-5)
    assert logits_of(model, photographs, embedded) == pytest.approx(logits, abs=1e-4)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("precise", ["open_clip_quick", "open_clip_resnet"])
def test_half_precision_is_close(dtype, precise, request, photographs, embedded):
    folder = request.getfixturevalue(precise)
    exact, half = loaded(folder), loaded(folder, dtype=dtype)
    cosines = (embedded(exact, photographs) * embedded(half, photographs)).sum(axis=1)

    assert cosines == pytest.approx(np.ones(len(photographs)), abs=0.05)
    assert half.embed_texts(PROMPTS) == pytest.approx(exact.embed_texts(PROMPTS), abs=0.1)


def test_features_of_places_are_those_of_each_block(open_clip_quick, photographs):
    model = open_clip.create_model(f"local-dir:{open_clip_quick}").eval()
    seen = []
    for block in model.visual.transformer.resblocks:
        block.register_forward_hook(lambda _module, _given, found: seen.append(found))
    ours = loaded(open_clip_quick)
    prepared = ours.prepare(photographs)
    with torch.inference_mode():
        model.encode_image(prepared["image"])

    assert ours.depth == 2
    for found, expected in zip(ours.forward_features(prepared, [1, 2]).features, seen, strict=True):
        assert found == pytest.approx(expected[:, 1:].unflatten(1, (4, 4)).numpy(), abs=1e-5)


def test_features_of_places_are_those_of_each_stage(open_clip_resnet, photographs):
    visual = open_clip.create_model(f"local-dir:{open_clip_resnet}").eval().visual
    ours = loaded(open_clip_resnet)
    prepared = ours.prepare(photographs)
    found = ours.forward_features(prepared, [1, 4]).features
    with torch.inference_mode():
        first = visual.layer1(visual.stem(prepared["image"]))
        last = visual.layer4(visual.layer3(visual.layer2(first)))

    assert ours.depth == 4
    assert found[0] == pytest.approx(first.permute(0, 2, 3, 1).numpy(), rel=1e-4, abs=1e-4)
    assert found[1] == pytest.approx(last.permute(0, 2, 3, 1).numpy(), rel=1e-4, abs=1e-4)


@pytest.mark.parametrize(
    ("section", "key", "size"),
    [
        ("model_cfg", "embed_dim", 10**10),
        ("text_cfg", "vocab_size", 10**10),
        # Its mask would have a number for each pair.
        ("text_cfg", "context_length", 10**7),
    ],
)
def test_more_numbers_than_are_stored_are_refused_before_they_are_made(
    open_clip_quick, copied, section, key, size
):
    folder = copied(open_clip_quick)
    path = folder / "open_clip_config.json"
    config = json.loads(path.read_text())
    part = config["model_cfg"] if section == "model_cfg" else config["model_cfg"][section]
    part[key] = size
    path.write_text(json.dumps(config))

    with pytest.raises(ModelError, match=r"do not belong together: .* of another shape"):
        loaded(folder)


def test_scale_beyond_all_numbers_is_refused(open_clip_quick, copied):
    folder = with_weights(copied(open_clip_quick), logit_scale=torch.tensor(1e4))

    with pytest.raises(ModelError, match=r"logit_scale is e to the power of 1e\+04, more than any"):
        loaded(folder)

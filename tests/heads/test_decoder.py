"""Against CLIPSeg of transformers with the same weights, and against a decoder built by hand."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
import torch
from torch import nn

from natadv.errors import ModelError
from natadv.heads.decoder import Decoder
from natadv.heads.head_file import DecoderConfig, Upsampling, default_layers
from natadv.models.adapters.towers import square_tower

DEPTH, WIDTH, PROJECTION, PATCH, SIDE = 12, 24, 10, 16, 48


@pytest.fixture(scope="module", params=[False, True], ids=["transposed", "refined"])
def clipseg(request, randomised):
    """A CLIPSeg of the published depth, with random weights and each kind of end."""
    from transformers import CLIPSegConfig, CLIPSegForImageSegmentation

    blocks = {"hidden_size": WIDTH, "intermediate_size": 32, "num_attention_heads": 2}
    vision = {"num_hidden_layers": DEPTH, "image_size": SIDE, "patch_size": PATCH}
    text = {"num_hidden_layers": 1, "vocab_size": 30, "eos_token_id": 29}
    config = CLIPSegConfig(
        vision_config=blocks | vision,
        text_config=blocks | text,
        projection_dim=PROJECTION,
        extract_layers=[3, 6, 9],
        reduce_dim=16,
        decoder_num_attention_heads=4,
        decoder_intermediate_size=40,
        use_complex_transposed_convolution=request.param,
    )
    return randomised(CLIPSegForImageSegmentation(config), seed=3)


@pytest.fixture(scope="module")
def pixels(noise):
    return noise(3, 3, SIDE, SIDE, seed=1)


@pytest.fixture(scope="module")
def condition(noise):
    return noise(3, PROJECTION, seed=2)


@pytest.fixture(scope="module")
def answered(clipseg, pixels, condition):
    """What transformers itself answers."""
    with torch.inference_mode():
        return clipseg(
            pixel_values=pixels, conditional_embeddings=condition, output_hidden_states=True
        )


@pytest.fixture(scope="module")
def port(clipseg):
    """The decoder with the weights of CLIPSeg's."""
    refined = clipseg.config.use_complex_transposed_convolution
    config = DecoderConfig(
        layers=default_layers(DEPTH),
        widths=(WIDTH,) * 3,
        condition_width=PROJECTION,
        patch=PATCH,
        upsample="refined" if refined else "transposed",
        class_token=True,
        reduce_width=16,
        feed_forward=40,
    )
    decoder = Decoder(config).eval()
    weights = clipseg.decoder.state_dict()
    decoder.load_state_dict(
        {name.replace("transposed_convolution", "upsample"): t for name, t in weights.items()}
    )
    return decoder


def class_tokens_of(answered, layers):
    return [answered.vision_model_output.hidden_states[layer][:, 0] for layer in layers]


def test_logits_are_those_of_clipseg(clipseg, port, pixels, condition, answered):
    layers = port.config.layers
    with torch.inference_mode():
        states = (
            square_tower(
                clipseg.clip.get_image_features, clipseg.clip.config.vision_config, leading=1
            )
            .forward_features({"pixel_values": pixels})
            .states
        )
        found = port(
            [states[layer - 1] for layer in layers],
            condition,
            class_tokens=class_tokens_of(answered, layers),
        )

    assert found.shape == answered.logits.shape == (3, SIDE, SIDE)
    assert torch.allclose(found, answered.logits, atol=1e-4)
    # Else equality would say little.
    assert answered.logits.std() > 0.1


@pytest.mark.parametrize("moved", [-1, 1])
def test_layers_beside_the_right_ones_give_other_logits(port, condition, answered, moved):
    hidden = answered.vision_model_output.hidden_states
    states = [hidden[layer + moved] for layer in port.config.layers]
    with torch.inference_mode():
        found = port(
            [state[:, 1:].unflatten(1, (3, 3)) for state in states],
            condition,
            class_tokens=[state[:, 0] for state in states],
        )

    assert not torch.allclose(found, answered.logits, atol=1e-2)


def test_class_token_counts(port, condition, answered):
    hidden = answered.vision_model_output.hidden_states
    features = [hidden[layer][:, 1:].unflatten(1, (3, 3)) for layer in port.config.layers]
    with torch.inference_mode():
        blank = port(features, condition, class_tokens=[torch.zeros(3, WIDTH)] * 3)

    assert not torch.allclose(blank, answered.logits, atol=1e-2)


def features_of(decoder, noise, *, batch=2, height=3, width=5):
    return [
        noise(batch, height, width, dim, seed=index)
        for index, dim in enumerate(decoder.config.widths)
    ]


def by_hand(decoder, features, condition):
    """Level by level with the layers of torch, whose block is that of the original CLIPSeg."""
    config, state = decoder.config, decoder.state_dict()
    tokens = None
    for index, places in enumerate(reversed(features)):
        reduced = nn.functional.linear(
            places, state[f"reduces.{index}.weight"], state[f"reduces.{index}.bias"]
        ).flatten(1, 2)
        tokens = reduced if tokens is None else tokens + reduced
        if index == 0:
            mul, add = (
                nn.functional.linear(condition, state[f"film_{k}.weight"], state[f"film_{k}.bias"])
                for k in ("mul", "add")
            )
            tokens = torch.stack([m * t + a for m, t, a in zip(mul, tokens, add, strict=True)])
        tokens = torch_block(config, state, prefix=f"layers.{index}.")(tokens)
    return tokens


def torch_block(config, state, *, prefix):
    block = nn.TransformerEncoderLayer(
        config.reduce_width, config.heads, config.feed_forward, batch_first=True
    ).eval()
    part = {k.removeprefix(prefix): t for k, t in state.items() if k.startswith(prefix)}
    renamed = {
        "self_attn.in_proj_": [f"self_attn.{x}_proj." for x in "qkv"],
        "self_attn.out_proj.": ["self_attn.out_proj."],
        "linear1.": ["mlp.fc1."],
        "linear2.": ["mlp.fc2."],
        "norm1.": ["layer_norm1."],
        "norm2.": ["layer_norm2."],
    }
    block.load_state_dict(
        {
            new + kind: torch.cat([part[old + kind] for old in olds])
            for new, olds in renamed.items()
            for kind in ("weight", "bias")
        }
    )
    return block


@torch.inference_mode()
def test_without_a_class_token_it_is_the_same_on_places_alone(decoder, noise):
    features, condition = features_of(decoder, noise), noise(2, 10, seed=9)
    tokens = by_hand(decoder, features, condition)
    maps = tokens.transpose(1, 2).reshape(2, 8, 3, 5)
    expected = nn.functional.conv_transpose2d(
        maps, decoder.upsample.weight, decoder.upsample.bias, stride=4
    )

    found = decoder(features, condition)
    assert found.shape == (2, 12, 20)
    assert torch.allclose(found, expected[:, 0], atol=1e-5)


@pytest.mark.parametrize("upsample", get_args(Upsampling))
def test_each_end_paints_every_pixel_of_every_patch(make_decoder, noise, upsample):
    for patch in (8, 14, 16, 32):
        decoder = make_decoder(upsample=upsample, patch=patch)

        logits = decoder(features_of(decoder, noise), noise(2, 10, seed=9))
        assert logits.shape == (2, 3 * patch, 5 * patch), patch
        assert torch.isfinite(logits).all(), patch


def test_bilinear_end_takes_a_patch_that_is_no_product(make_decoder, noise):
    decoder = make_decoder(upsample="bilinear", patch=13)

    assert decoder(features_of(decoder, noise), noise(2, 10)).shape == (2, 39, 65)


@torch.inference_mode()
@pytest.mark.parametrize(
    ("upsample", "reach"), [("transposed", 0), ("refined", 1), ("bilinear", 2)]
)
def test_what_is_at_a_place_is_painted_there(make_decoder, noise, upsample, reach):
    decoder = make_decoder(upsample=upsample)
    for layer in decoder.layers:
        # Places do not look at each other.
        nn.init.zeros_(layer.self_attn.out_proj.weight)
    features, condition = features_of(decoder, noise, batch=1), noise(1, 10)
    before = decoder(features, condition)
    for row, column in [(0, 0), (2, 0), (0, 4), (1, 3)]:
        changed = [places.clone() for places in features]
        for places in changed:
            places[:, row, column] += 3

        moved = (decoder(changed, condition) - before).abs()
        cells = nn.functional.max_pool2d(moved, 4)[0] > 1e-3
        painted = {tuple(cell) for cell in cells.nonzero().tolist()}
        assert (row, column) in painted
        assert all(max(abs(r - row), abs(c - column)) <= reach for r, c in painted), painted


def test_phrase_decides_what_is_found(decoder, noise):
    features = [places[:1].expand(2, -1, -1, -1) for places in features_of(decoder, noise)]

    first, second = decoder(features, noise(2, 10, seed=9))
    assert not torch.allclose(first, second, atol=1e-2)


def test_pictures_of_a_batch_do_not_touch_each_other(decoder, noise):
    features, condition = features_of(decoder, noise, batch=3), noise(3, 10, seed=9)

    together = decoder(features, condition)
    alone = [decoder([f[i : i + 1] for f in features], condition[i : i + 1]) for i in range(3)]
    assert torch.allclose(together, torch.cat(alone), atol=1e-5)


def stages(noise, *, batch=2):
    """Maps as a residual network makes them: ever coarser, ever wider."""
    return [
        noise(batch, 8 // 2**i, 8 // 2**i, 6 * 2**i, seed=i).relu()  # 8 x 8, 4 x 4, 2 x 2
        for i in range(3)
    ]


RESNET = {"layers": (2, 3, 4), "widths": (6, 12, 24), "grid": 4, "patch": 16}


@torch.inference_mode()
def test_maps_of_a_residual_network_are_brought_to_one_grid(make_decoder, noise):
    decoder, maps, condition = make_decoder(**RESNET), stages(noise), noise(2, 10, seed=9)
    # By 1 x 1 convolutions on the resized maps.
    resized = [
        nn.functional.interpolate(m.permute(0, 3, 1, 2), (4, 4), mode="bilinear").permute(
            0, 2, 3, 1
        )
        for m in maps
    ]
    tokens = by_hand(decoder, resized, condition)
    expected = decoder.upsample(tokens.transpose(1, 2).reshape(2, 8, 4, 4))[:, 0]

    found = decoder(maps, condition)
    assert found.shape == (2, 64, 64)
    assert torch.allclose(found, expected, atol=1e-5)


def test_maps_of_several_grids_need_a_grid(make_decoder, noise):
    decoder = make_decoder(**RESNET | {"grid": None})

    with pytest.raises(ModelError, match=r"have several grids, \(2, 8, 8, 6\), .*set `grid`"):
        decoder(stages(noise), noise(2, 10))


@pytest.mark.parametrize("upsample", get_args(Upsampling))
def test_gradient_reaches_all_weights(make_decoder, noise, upsample):
    decoder = make_decoder(upsample=upsample).train()
    decoder(features_of(decoder, noise), noise(2, 10, seed=9)).square().sum().backward()

    for name, parameter in decoder.named_parameters():
        # The same for all that is looked at, so no share of attention depends on it.
        idle = name.endswith("k_proj.bias")
        assert (parameter.grad.abs().max() > 1e-3) is not idle, name


@pytest.mark.parametrize(
    ("sabotage", "message"),
    [
        (lambda f, c: (f[:2], c), r"3 layers of shape .* got \(2, 3, 5, 12\), \(2, 3, 5, 12\)$"),
        (lambda f, c: ([*f, f[0]], c), "3 layers"),
        (lambda f, c: ([f[0], f[1], f[2][..., :7]], c), r"got .*\(2, 3, 5, 7\)"),
        (lambda f, c: ([p.flatten(1, 2) for p in f], c), r"got \(2, 15, 12\)"),
        (lambda f, c: (f, c[:1]), "one b = 1"),
        (lambda f, c: (f, c[:, :9]), r"embedded in 10 dimensions, got \(2, 9\)"),
        (lambda f, c: ([f[0], f[1], f[2][:, :2]], c), "have several grids"),
    ],
    ids=["fewer", "more", "width", "flat", "phrases", "condition", "grid"],
)
def test_input_of_another_shape_is_refused(decoder, noise, sabotage, message):
    features, condition = sabotage(features_of(decoder, noise), noise(2, 10))

    with pytest.raises(ModelError, match=message):
        decoder(features, condition)


@pytest.mark.parametrize(
    ("wanted", "shapes", "message"),
    [
        (False, [(2, 12)] * 3, r"takes no class token, got \(2, 12\), .*see class_token"),
        (True, [], r"takes class tokens of shape \[\(2, 12\), .*, got none"),
        (True, [(2, 12)] * 2, "takes class tokens"),
        (True, [(1, 12)] * 3, "takes class tokens"),
    ],
)
def test_class_tokens_come_as_the_config_says(make_decoder, noise, wanted, shapes, message):
    decoder = make_decoder(class_token=wanted)
    tokens = [torch.zeros(shape) for shape in shapes]

    with pytest.raises(ModelError, match=message):
        decoder(features_of(decoder, noise), noise(2, 10), class_tokens=tokens)


@torch.inference_mode()
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_nearly_the_same(make_decoder, noise, dtype):
    features, condition = features_of(make_decoder(), noise), noise(2, 10, seed=9)
    expected = make_decoder()(features, condition)
    halved = make_decoder().to(dtype)([f.to(dtype) for f in features], condition.to(dtype))
    with torch.autocast("cpu", dtype=dtype):
        mixed = make_decoder()(features, condition)

    assert halved.dtype == mixed.dtype == dtype
    for found in (halved, mixed):
        assert (found.float() - expected).abs().mean() < 0.02 * expected.std()


def test_no_pictures_give_no_logits(decoder, noise):
    found = decoder(features_of(decoder, noise, batch=0), noise(0, 10))

    assert found.shape == (0, 12, 20)


def grad_cam_by_hand(values, slopes):
    """Of arrays of shape (h, w, d)."""
    weights = [slopes[..., channel].mean() for channel in range(values.shape[-1])]
    return np.maximum(sum(w * values[..., c] for c, w in enumerate(weights)), 0)


def test_relevance_is_grad_cam_for_what_is_marked(make_decoder, noise):
    """Of the mean logit of the marked pixels, with respect to the deepest layer."""
    decoder = make_decoder(threshold=0.6)
    features, condition = features_of(decoder, noise), noise(2, 10, seed=9)
    found = decoder.relevance([f.numpy() for f in features], condition.numpy())
    features[-1].requires_grad_()
    logits = decoder(features, condition)

    for picture in range(2):
        inside = logits[picture] > torch.tensor(0.6).logit()
        assert 0 < inside.float().mean() < 1
        (slopes,) = torch.autograd.grad(
            logits[picture][inside].mean(), [features[-1]], retain_graph=True
        )
        values = features[-1][picture].detach().numpy()
        assert found[picture] == pytest.approx(
            grad_cam_by_hand(values, slopes[picture].numpy()), rel=1e-3, abs=1e-6
        )
    assert found.max() > 0


def test_nothing_is_relevant_where_nothing_is_marked(make_decoder, noise):
    decoder = make_decoder(threshold=1 - 1e-7)
    found = decoder.relevance(
        [f.numpy() for f in features_of(decoder, noise)], noise(2, 10).numpy()
    )

    assert found.shape[0] == 2
    assert not found.any()

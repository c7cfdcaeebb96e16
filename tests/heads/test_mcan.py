"""Against the published description, its size and its order, with other means."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from natadv.errors import ModelError
from natadv.heads.head_file import McanConfig
from natadv.heads.mcan import Mcan, Norm, Residual, Summary
from natadv.heads.transformer import Attention

QUESTIONS = [[2, 4, 8, 3, 0, 0], [5, 1, 0, 0, 0, 0], [7, 7, 2, 3, 6, 8]]


@pytest.fixture
def words():
    return torch.tensor(QUESTIONS)


@pytest.fixture
def features(noise):
    return noise(3, 2, 4, 12)


def size(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("vocabulary", [20_572, 18_405])
@pytest.mark.parametrize(("image_width", "answers"), [(2048, 3129), (768, 3129), (1024, 100)])
def test_size_is_what_the_description_of_small_gives(vocabulary, image_width, answers):
    embedding = vocabulary * 300
    # Four gates, each with two biases.
    lstm = 4 * (300 * 512 + 512 * 512 + 512 + 512)
    image = image_width * 512 + 512
    attention = 4 * (512 * 512 + 512)
    feed_forward = (512 * 2048 + 2048) + (2048 * 512 + 512)
    norm = 512 + 512
    self_attention = attention + feed_forward + 2 * norm
    guided_attention = 2 * attention + feed_forward + 3 * norm
    reduction = (512 * 512 + 512) + (512 * 1 + 1) + (512 * 1024 + 1024)
    fusion = 1024 + 1024
    answer = 1024 * answers + answers
    blocks = 6 * self_attention + 6 * guided_attention

    with torch.device("meta"):
        mcan = Mcan(
            McanConfig(words=vocabulary, answers=answers, layer=12, image_width=image_width)
        )
    expected = embedding + lstm + image + blocks + 2 * reduction + fusion + answer
    assert size(mcan) == expected


def attended(attention, tokens, context, hidden):
    """Multi-head attention as torch has it."""
    parts = (attention.q_proj, attention.k_proj, attention.v_proj)
    found, _ = nn.functional.multi_head_attention_forward(
        tokens.transpose(0, 1),
        context.transpose(0, 1),
        context.transpose(0, 1),
        tokens.shape[-1],
        attention.heads,
        torch.cat([part.weight for part in parts]),
        torch.cat([part.bias for part in parts]),
        None,
        None,
        False,
        0.0,
        attention.out_proj.weight,
        attention.out_proj.bias,
        training=False,
        key_padding_mask=hidden,
    )
    return found.transpose(0, 1)


def summed_up(summary, tokens, hidden):
    rows = []
    for kept in (t[~h] for t, h in zip(tokens, hidden, strict=True)):
        shares = summary.weigh(kept)[:, 0].softmax(0)
        rows.append(summary.merge(shares @ kept))
    return torch.stack(rows)


def by_hand(mcan, features, words):
    places = features.flatten(1, 2)
    no_word, no_place = words == 0, places.abs().sum(-1) == 0
    x, _ = mcan.lstm(mcan.embedding.weight[words])
    for block in mcan.question_blocks:
        x = block.after_attention.norm(x + attended(block.attention, x, x, no_word))
        x = block.after_feed_forward.norm(x + block.feed_forward(x))
    y = places @ mcan.image.weight.T + mcan.image.bias
    for block in mcan.image_blocks:
        y = block.after_attention.norm(y + attended(block.attention, y, y, no_place))
        y = block.after_guided.norm(y + attended(block.guided, y, x, no_word))
        y = block.after_feed_forward.norm(y + block.feed_forward(y))
    question = summed_up(mcan.question_summary, x, no_word)
    picture = summed_up(mcan.image_summary, y, no_place)
    return mcan.answer(mcan.norm(question + picture))


@torch.inference_mode()
def test_logits_are_those_of_the_description(mcan, features, words):
    features[1, 0, 2:] = 0

    logits = mcan(features, words)
    assert logits.shape == (3, 5)
    assert torch.allclose(logits, by_hand(mcan, features, words), atol=1e-5)
    # Else equality would say little.
    assert logits.std(0).min() > 0.01


def test_padding_changes_nothing(mcan, features, words):
    longer = nn.functional.pad(words, (0, 8))
    alone = [
        mcan(features[i : i + 1], words[i : i + 1, : int((words[i] != 0).sum())]) for i in range(3)
    ]

    assert torch.allclose(mcan(features, longer), mcan(features, words), atol=1e-5)
    assert torch.allclose(mcan(features, words), torch.cat(alone), atol=1e-5)


def test_embedding_of_padding_does_not_matter(mcan, features, words):
    before = mcan(features, words)
    with torch.no_grad():
        mcan.embedding.weight[0] += 10

    assert torch.allclose(mcan(features, words), before, atol=1e-6)


def test_padded_places_change_nothing(mcan, features, words):
    padded = nn.functional.pad(features, (0, 0, 0, 3))

    assert torch.allclose(mcan(padded, words), mcan(features, words), atol=1e-5)


def test_order_of_places_does_not_matter(mcan, features, words):
    order = torch.tensor([5, 0, 7, 2, 1, 6, 3, 4])
    shuffled = features.flatten(1, 2)[:, order].unflatten(1, (4, 2))

    assert torch.allclose(mcan(shuffled, words), mcan(features, words), atol=1e-5)


def test_order_of_words_matters(mcan, features, words):
    turned = words.clone()
    turned[0, :4] = words[0, :4].flip(0)

    apart = (mcan(features, turned) - mcan(features, words)).abs().amax(1)
    assert apart[0] > 1e-2
    assert apart[1:].max() < 1e-5


def test_every_place_counts(mcan, features, words):
    before = mcan(features, words)
    for place in range(8):
        changed = features.flatten(1, 2).clone()
        changed[:, place] += 1

        apart = mcan(changed.unflatten(1, (2, 4)), words) - before
        assert apart.abs().max() > 1e-3, place


def test_nothing_but_padding_is_finite(mcan, features, words):
    assert torch.isfinite(mcan(features, torch.zeros_like(words))).all()
    assert torch.isfinite(mcan(torch.zeros_like(features), words)).all()


def test_pictures_of_a_batch_do_not_touch_each_other(mcan, features, words):
    turned = mcan(features.flip(0), words.flip(0)).flip(0)

    assert torch.allclose(mcan(features, words), turned, atol=1e-5)


def test_gradient_reaches_all_weights(make_mcan, features):
    mcan = make_mcan(dropout=0.0).train()
    # Every word of the vocabulary, and padding.
    mcan(features, torch.tensor([[1, 2, 3], [4, 5, 6], [7, 8, 0]])).square().sum().backward()

    for name, parameter in mcan.named_parameters():
        # The same for all that is looked at, so no share of attention depends on it.
        idle = name.endswith(("k_proj.bias", "summary.weigh.fc2.bias"))
        assert (parameter.grad.abs().max() > 1e-3) is not idle, name
    rows = mcan.embedding.weight.grad.abs().amax(1)
    assert rows[1:].min() > 0
    assert rows[0] == 0


def test_same_bytes_twice_without_dropout_only(mcan, features, words):
    first, second = (mcan(features, words) for _ in range(2))
    mcan.train()
    third, fourth = (mcan(features, words) for _ in range(2))

    assert torch.equal(first, second)
    assert not torch.equal(third, fourth)


def dropouts(mcan):
    """Where dropout acts: on what each part gives, within feed-forward layers, on attention."""
    return [module for module in mcan.modules() if isinstance(module, (nn.Dropout, Attention))]


def set_dropout(module, share):
    setattr(module, "p" if isinstance(module, nn.Dropout) else "dropout", share)


@torch.inference_mode()
def test_dropout_acts_in_each_of_its_places(make_mcan, features, words):
    mcan = make_mcan(dropout=0.1)
    expected, places = mcan(features, words), dropouts(mcan)
    mcan.train()
    # Two blocks of self attention, two of guided attention, two summaries.
    assert len(places) == 2 * 4 + 2 * 6 + 2

    for place in places:
        for other in places:
            set_dropout(other, 0.0)
        assert torch.equal(mcan(features, words), expected)
        set_dropout(place, 0.5)
        assert not torch.equal(mcan(features, words), expected)


def test_dropout_is_that_of_the_config(make_mcan):
    shares = {
        module.p if isinstance(module, nn.Dropout) else module.dropout
        for module in dropouts(make_mcan(dropout=0.2))
    }

    assert shares == {0.2}


@torch.inference_mode()
def test_half_precision_is_nearly_the_same(make_mcan, features, words):
    expected = make_mcan()(features, words)
    halved = make_mcan().bfloat16()(features.bfloat16(), words)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = make_mcan()(features, words)

    assert halved.dtype == mixed.dtype == torch.bfloat16
    for found in (halved, mixed):
        assert (found.float() - expected).abs().mean() < 0.02


def test_size_fit_for_a_repository():
    """Under 4 MB with a tower of width 192, 200 words and 100 answers."""
    config = McanConfig(
        words=202,
        answers=100,
        layer=6,
        image_width=192,
        embedding=64,
        hidden=128,
        heads=4,
        feed_forward=256,
        blocks=2,
        summary=64,
        fused=256,
    )

    assert 4 * size(Mcan(config)) < 4_000_000


@pytest.mark.parametrize(
    ("sabotage", "message"),
    [
        (lambda f, w: (f[..., :7], w), r"of shape \(b, h, w, 12\), got \(3, 2, 4, 7\)"),
        (lambda f, w: (f.flatten(1, 2), w), r"got \(3, 8, 12\)"),
        (lambda f, w: (f, w[:2]), r"one row of word ids per picture, got \(2, 6\) for 3"),
        (lambda f, w: (f, w[0]), r"got \(6,\) for 3 pictures"),
    ],
    ids=["width", "flat", "fewer", "one"],
)
def test_input_of_another_shape_is_refused(mcan, features, words, sabotage, message):
    with pytest.raises(ModelError, match=message):
        mcan(*sabotage(features, words))


SMALL = McanConfig(
    words=9, answers=3, layer=1, image_width=4, hidden=8, heads=2, summary=6, fused=10
)


def test_norm_divides_by_the_unbiased_deviation_plus_its_eps(randomised, noise):
    norm, rows = randomised(Norm(6)), (1e-6 * noise(3, 6)).numpy().astype(np.float64)
    deviation = np.sqrt(((rows - rows.mean(1, keepdims=True)) ** 2).sum(1, keepdims=True) / 5)
    expected = norm.weight.detach().numpy() * (rows - rows.mean(1, keepdims=True))
    expected = expected / (deviation + 1e-6) + norm.bias.detach().numpy()

    found = norm(torch.tensor(rows, dtype=torch.float32)).detach().numpy()
    assert found == pytest.approx(expected, abs=1e-5)
    # So small that an eps within the root would leave nothing.
    assert np.abs(found - norm.bias.detach().numpy()).max() > 0.1


def test_norm_of_large_rows_differs_from_layer_norm_by_the_bias_of_the_deviation(noise):
    rows = 100 * noise(3, 6)
    biased = torch.nn.functional.layer_norm(rows, (6,))

    assert torch.allclose(Norm(6)(rows), biased * (5 / 6) ** 0.5, atol=1e-5)


def test_norm_of_half_precision_is_computed_in_float32(noise):
    rows = (1e-4 * noise(3, 6)).half()

    assert torch.allclose(Norm(6)(rows), Norm(6)(rows.float()))


def test_residual_drops_what_was_found_and_never_what_was_given(randomised, noise):
    residual, given, found = randomised(Residual(SMALL)), noise(2, 5, 8), noise(2, 5, 8, seed=1)
    assert torch.equal(residual(given, found), residual.norm(given + found))

    residual.train()
    residual.dropout.p = 1.0
    assert torch.equal(residual(given, found), residual.norm(given))


def test_summary_is_the_mean_of_the_tokens_weighted_by_the_softmax_of_their_scores(
    randomised, noise
):
    summary, tokens = randomised(Summary(SMALL)), noise(2, 5, 8)
    hidden = torch.arange(5) >= torch.tensor([[3], [5]])
    for picture, count in enumerate((3, 5)):
        kept = tokens[picture, :count]
        powers = summary.weigh(kept).exp()
        expected = summary.merge((powers / powers.sum() * kept).sum(0))

        assert torch.allclose(summary(tokens, hidden=hidden)[picture], expected, atol=1e-5)


def test_summary_of_hidden_tokens_alone_is_their_mean(randomised, noise):
    summary, tokens = randomised(Summary(SMALL)), noise(2, 5, 8)

    found = summary(tokens, hidden=torch.ones(2, 5, dtype=torch.bool))
    assert torch.allclose(found, summary.merge(tokens.mean(1)), atol=1e-5)

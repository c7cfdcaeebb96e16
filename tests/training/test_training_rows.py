from __future__ import annotations

import numpy as np
import pytest
import torch

from natadv.errors import DataError
from natadv.training.decoder_training import cosine_rate
from natadv.training.head_settings import SegmentationSettings, VqaSettings
from natadv.training.mcan_training import stepped_rate
from natadv.training.training_rows import batch_of, split, steps_per_epoch, subset


def test_the_decoders_rate_is_that_of_torch():
    settings = SegmentationSettings(steps=37, rate=3e-3, last_rate=2e-4)
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimiser = torch.optim.SGD([parameter], lr=settings.rate)
    reference = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 37, eta_min=2e-4)
    for step in range(37):
        assert cosine_rate(step, settings) == pytest.approx(reference.get_last_lr()[0], rel=1e-9)
        optimiser.step()
        reference.step()


def test_the_rate_of_mcan_is_the_published_one_by_hand():
    """Quarters for three epochs, and a fifth each time after the 10th and the 12th."""
    by_hand = [2.5e-5, 5e-5, 7.5e-5, *[1e-4] * 7, 2e-5, 2e-5, 4e-6]
    settings = VqaSettings()

    assert [stepped_rate(epoch, settings) for epoch in range(13)] == pytest.approx(by_hand)


def test_without_warm_up_the_first_epoch_has_the_whole_rate():
    settings = VqaSettings(warm_up=0, decay_after=(1,), decay=0.5, rate=0.01)

    assert [stepped_rate(epoch, settings) for epoch in range(3)] == [0.01, 0.005, 0.005]


def test_an_epoch_shows_each_row_once_and_the_next_in_another_order():
    rows = np.arange(100, 120)
    epochs = [
        np.concatenate([batch_of(e * 4 + s, rows, batch=5, seed=1) for s in range(4)])
        for e in range(2)
    ]

    assert steps_per_epoch(20, 5) == 4
    assert all(sorted(epoch) == list(rows) for epoch in epochs)
    assert list(epochs[0]) != list(epochs[1])


def test_a_batch_depends_on_step_and_seed_alone():
    rows = np.arange(50)
    first = batch_of(13, rows, batch=4, seed=1)

    assert list(batch_of(13, rows, batch=4, seed=1)) == list(first)
    assert list(batch_of(13, rows, batch=4, seed=2)) != list(first)
    assert len(first) == 4


def test_fewer_rows_than_a_batch_are_one_batch():
    rows = np.arange(3)

    assert steps_per_epoch(3, 64) == 1
    assert sorted(batch_of(7, rows, batch=64, seed=1)) == [0, 1, 2]


def test_a_group_is_on_one_side_only():
    groups = [f"g{number // 3}" for number in range(60)]
    trained, held_back = split(groups, share=0.25, seed=1)

    assert len(held_back) == 15
    assert sorted([*trained, *held_back]) == list(range(60))
    assert not {groups[row] for row in trained} & {groups[row] for row in held_back}


def test_the_split_follows_the_seed_and_not_the_order():
    groups = [f"g{number}" for number in range(40)]
    chosen = {groups[row] for row in split(groups, share=0.2, seed=1).held_back}
    turned = groups[::-1]

    assert {turned[row] for row in split(turned, share=0.2, seed=1).held_back} == chosen
    assert {groups[row] for row in split(groups, share=0.2, seed=2).held_back} != chosen


def test_a_small_share_holds_back_one_group_and_none_holds_back_nothing():
    groups = ["a", "a", "b"]

    assert len(set(np.array(groups)[split(groups, share=0.01, seed=1).held_back])) == 1
    assert len(split(groups, share=0.0, seed=1).held_back) == 0


def test_something_must_be_left_to_train_on():
    with pytest.raises(DataError, match="1 groups of pictures are too few"):
        split(["a", "a"], share=0.1, seed=1)


def test_some_of_the_rows_are_drawn_by_lot_and_stay_the_same():
    rows = np.arange(10, 40)
    drawn = subset(rows, most=5, seed=1)

    assert len(drawn) == 5
    assert list(drawn) == sorted(drawn)
    assert set(drawn) <= set(rows)
    assert list(drawn) == list(subset(rows, most=5, seed=1))
    assert list(subset(rows, most=30, seed=1)) == list(rows)

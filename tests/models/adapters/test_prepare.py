"""What the engine makes of batches must give what one batch of the pictures as they are gives."""

from __future__ import annotations

import numpy as np
import pytest

from natadv.evaluate.batches import PreparedBatch, filled_up, has_rows, joined, merged

SIZE = 10
"""Pictures of a full batch: two more than there are photographs."""


@pytest.fixture(
    params=["tiny_clip", "tiny_siglip", "tiny_siglip2", "open_clip_quick", "open_clip_resnet"]
)
def encoder(request, load_folder):
    return load_folder(request.getfixturevalue(request.param))


def test_preprocessing_in_parts_gives_the_bytes_of_one_batch(encoder, photographs):
    for sizes in ((8,), (3, 1, 4), (1,) * 8):
        check_parts(encoder, photographs, sizes)


def check_parts(encoder, photographs, sizes):
    starts = np.cumsum((0, *sizes))
    parts = []
    for start, count in zip(starts, sizes, strict=False):
        prepared = encoder.prepare(photographs[start : start + count])
        assert has_rows(prepared, count)
        keys = tuple(map(str, range(start, start + count)))
        parts.append(PreparedBatch(keys, prepared, count))
    whole = encoder.prepare(filled_up(photographs, SIZE))

    (found,) = merged(parts, SIZE)
    assert found.keys == tuple("01234567")
    assert found.prepared.keys() == whole.keys()
    for name, tensor in whole.items():
        ours = found.prepared[name]
        assert (ours.dtype, ours.stride()) == (tensor.dtype, tensor.stride())
        assert ours.numpy().tobytes() == tensor.numpy().tobytes()
    assert encoder.embed_images(found.prepared).tobytes() == encoder.embed_images(whole).tobytes()


def test_a_full_batch_is_not_copied(encoder, photographs):
    prepared = encoder.prepare(photographs)

    assert joined([prepared]) is prepared
    (found,) = merged([PreparedBatch(tuple("01234567"), prepared, 8)], 8)
    assert found.prepared is prepared


def small(image):
    return image.reduce(max(1, max(image.size) // 4))


def test_a_small_picture_that_fills_up_moves_no_answer(tiny_answerer, load_folder, photographs):
    model = load_folder(tiny_answerer)
    questions = [*["what is this?", "is it red?", "how many?"], *["how many?"] * 5]
    last = photographs[2]

    large = model.answer([*photographs[:3], *[last] * 5], questions)
    light = model.answer([*photographs[:3], *[small(last)] * 5], questions)
    assert light[:3] == large[:3]


def test_a_small_picture_that_fills_up_moves_no_mask(tiny_clipseg, load_folder, photographs):
    model = load_folder(tiny_clipseg)
    phrases = ["a cat", "the dog", *["a cow"] * 6]
    last = photographs[2]

    large = model.segment([*photographs[:3], *[last] * 5], phrases)
    light = model.segment([*photographs[:3], *[small(last)] * 5], phrases)
    assert light[:3].tobytes() == large[:3].tobytes()

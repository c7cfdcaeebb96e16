from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

from natadv.errors import ModelError
from natadv.models.adapters.encoder import (
    TEXT_BATCH,
    DualEncoder,
    LogitScoring,
    Placement,
    square_pixels,
    unit_rows,
)

PROMPTS = ["a photo of a cat.", "a photo of a dog", "HEN", "", "a very long text " * 9]


@pytest.fixture
def model(tiny, load_folder):
    return load_folder(tiny)


def test_rows_are_unit_length_float32_on_the_host(model, photographs, embedded):
    for rows in (embedded(model, photographs), model.embed_texts(PROMPTS)):
        assert rows.dtype == np.float32
        assert isinstance(rows, np.ndarray)
        assert np.linalg.norm(rows, axis=1) == pytest.approx(np.ones(len(rows)), abs=1e-6)


def test_nothing_gives_no_rows(model, photographs, embedded):
    dim = embedded(model, photographs).shape[1]

    assert embedded(model, []).shape == (0, dim)
    assert model.embed_texts([]).shape == (0, dim)


def test_different_inputs_give_different_rows(model, photographs, embedded):
    images, texts = embedded(model, photographs), model.embed_texts(PROMPTS)

    for rows in (images, texts):
        apart = np.abs(rows[:, None] - rows[None]).max(axis=-1) + np.eye(len(rows))
        assert apart.min() > 1e-3


def test_picture_does_not_depend_on_its_batch(model, photographs, embedded):
    together = embedded(model, photographs)
    alone = np.concatenate([embedded(model, [image]) for image in photographs])
    reversed_ = embedded(model, photographs[::-1])[::-1]

    assert together == pytest.approx(alone, abs=2e-6)
    assert together == pytest.approx(reversed_, abs=2e-6)


def test_text_does_not_depend_on_its_batch(model):
    together = model.embed_texts(PROMPTS)
    alone = np.concatenate([model.embed_texts([text]) for text in PROMPTS])

    assert together == pytest.approx(alone, abs=2e-6)


def test_same_call_gives_the_same_bytes(model, photographs, embedded):
    assert embedded(model, photographs).tobytes() == embedded(model, photographs).tobytes()
    assert model.embed_texts(PROMPTS).tobytes() == model.embed_texts(PROMPTS).tobytes()


def test_raw_texts_have_the_direction_of_the_unit_ones_and_a_length_of_their_own(model):
    raw, unit = model.embed_texts_raw(PROMPTS), model.embed_texts(PROMPTS)
    lengths = np.linalg.norm(raw, axis=1)

    assert raw.dtype == np.float32
    assert raw / lengths[:, None] == pytest.approx(unit, abs=1e-6)
    assert np.ptp(lengths) > 1e-3


def test_long_list_of_texts_is_embedded_in_order(model):
    texts = [f"number {i}" for i in range(TEXT_BATCH + 3)]

    found = model.embed_texts(texts)
    assert len(found) == len(texts)
    assert found[-1] == pytest.approx(model.embed_texts(texts[-1:])[0], abs=2e-6)


def test_input_pictures_stay_as_they_are(model, photographs, embedded):
    before = [image.tobytes() for image in photographs]
    embedded(model, photographs)

    assert [image.tobytes() for image in photographs] == before


def test_length_is_taken_in_float32():
    # The squares of these overflow float16.
    rows = unit_rows(torch.full((1, 4), 300.0, dtype=torch.float16))

    assert rows == pytest.approx(np.full((1, 4), 0.5))


def encoder(*, image=((1.0, 0.0),), text=((0.0, 1.0),), side=2):
    def process(images, return_tensors):
        return {"pixel_values": torch.zeros(len(images), 3, side, side)}

    return DualEncoder(
        name="candidate",
        placement=Placement(torch.device("cpu"), torch.float32),
        preprocess=partial(square_pixels, "candidate", process, side=2),
        embed_pixels=lambda pixels: torch.tensor(image),
        tokenise=lambda texts: {"input_ids": torch.zeros(len(texts), 1)},
        embed_tokens=lambda tokens: torch.tensor(text),
        scoring=LogitScoring(1.0, 0.0, "softmax"),
    )


def test_well_formed_towers_pass_the_probe(embedded):
    assert embedded(encoder(), [Image.new("RGB", (2, 2))]).tolist() == [[1.0, 0.0]]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0])
@pytest.mark.parametrize("tower", ["image", "text"])
def test_embedding_that_is_no_direction_is_refused(tower, value):
    with pytest.raises(ModelError, match="candidate: embeddings are not finite"):
        encoder(**{tower: ((value, value),)})


def test_towers_of_two_spaces_are_refused():
    with pytest.raises(ModelError, match="pictures have 3 dimensions, texts 2"):
        encoder(image=((1.0, 0.0, 0.0),))


def test_preprocessing_of_another_size_is_refused():
    with pytest.raises(ModelError, match=r"takes pictures of shape \(1, 3, 2, 2\).*\(1, 3, 4, 4\)"):
        encoder(side=4)

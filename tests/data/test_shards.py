"""What a sample of each task must have; each complaint names the dataset and the sample."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image

from natadv.data.card import CardDraft
from natadv.data.images import decode_image
from natadv.data.packing import write_dataset
from natadv.data.reader import iter_samples
from natadv.errors import DataError
from natadv.types import Sample

Encode = Callable[..., bytes]


def drawn(mask: np.ndarray | Image.Image, *, form: str = "PNG") -> bytes:
    image = mask if isinstance(mask, Image.Image) else Image.fromarray(mask)
    buffer = io.BytesIO()
    image.save(buffer, form)
    return buffer.getvalue()


def box(width: int = 16, height: int = 12) -> np.ndarray:
    mask = np.zeros((height, width), np.uint8)
    mask[2:5, 3:9] = 255
    return mask


@pytest.fixture
def sample(encode: Encode) -> Sample:
    """Has all that all tasks ask for; the picture is 16 x 12 px."""
    return Sample(
        "s",
        group="g",
        image=encode(),
        label=0,
        phrase="the cat",
        mask=drawn(box()),
        question="Is there a cat?",
        answers=("yes",) * 9 + ("no",),
        answer_type="yes/no",
    )


ALL: tuple[str, ...] = ("classification", "segmentation", "vqa")
NOTHING: dict[str, Any] = {
    "phrase": None,
    "mask": None,
    "question": None,
    "answers": (),
    "answer_type": "",
}


@pytest.fixture
def pack(folder: Path, draft: CardDraft) -> Callable[..., list[Sample]]:
    """Write samples under these tasks and read them back."""

    def packed(*samples: Sample, tasks: tuple[str, ...] = ALL) -> list[Sample]:
        described = draft.model_copy(update={"tasks": tasks})
        return list(iter_samples(folder, write_dataset(folder, described, samples)))

    return packed


def test_a_sample_of_all_tasks_comes_back_whole(pack, sample):
    assert pack(sample) == [sample]


@pytest.mark.parametrize("kept", ALL)
def test_a_sample_of_one_task_comes_back_whole(pack, sample, kept):
    fields = {
        "classification": {**NOTHING},
        "segmentation": {**NOTHING, "label": None, "phrase": "der Hund", "mask": sample.mask},
        "vqa": {**NOTHING, "label": None, "question": "有几只猫", "answers": ("2",) * 4},
    }
    only = replace(sample, **fields[kept])

    assert pack(only, tasks=(kept,)) == [only]


@pytest.mark.parametrize(
    "mask",
    [
        drawn(box()),
        drawn(Image.fromarray(box()).convert("1")),
        drawn(np.zeros((12, 16), np.uint8)),
        drawn(np.full((12, 16), 255, np.uint8)),
    ],
    ids=["grey", "one bit", "empty", "full"],
)
def test_masks_that_are_taken(pack, sample, mask):
    assert pack(replace(sample, mask=mask))[0].mask == mask


@pytest.mark.parametrize("kind", ["yes/no", "number", "other", ""])
def test_answer_types_that_are_taken(pack, sample, kind):
    assert pack(replace(sample, answer_type=kind))[0].answer_type == kind


def soft_edge() -> np.ndarray:
    mask = box()
    mask[2, 3] = 128
    return mask


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no phrase": ({"phrase": None}, "expected a phrase to look for, got None"),
    "empty phrase": ({"phrase": ""}, "expected a phrase to look for, got ''"),
    "blank phrase": ({"phrase": " \t\n"}, "expected a phrase to look for, got"),
    "no mask": ({"mask": None}, "expected a mask, got none"),
    "mask of no bytes": ({"mask": b""}, "its mask is not a PNG"),
    "mask that is no picture": ({"mask": b"mask"}, "its mask is not a PNG"),
    "damaged mask": ({"mask": drawn(box())[:-30]}, "its mask is not a whole PNG"),
    "other size": (
        {"mask": drawn(box(12, 16))},
        "expected a mask of the picture's 16 x 12 pixels, got 12 x 16",
    ),
    "soft edges": ({"mask": drawn(soft_edge())}, r"255 inside and 0 outside, got \[128\]"),
    "ones for 255": ({"mask": drawn(box() // 255)}, r"got \[1\]"),
    "colour mask": (
        {"mask": drawn(Image.fromarray(box()).convert("RGB"))},
        r"must be grey \(mode L\), got mode 'RGB'",
    ),
    "mask with a palette": (
        {"mask": drawn(Image.fromarray(box()).convert("P"))},
        "got mode 'P'",
    ),
    "16 bit": (
        {"mask": drawn(Image.fromarray(box().astype(np.uint16) * 257))},
        "got mode 'I;16'",
    ),
    "JPEG mask": ({"mask": drawn(box(), form="JPEG")}, "its mask is not a PNG"),
    "picture without size": ({"image": b"x"}, "its picture cannot be read"),
    "no question": ({"question": None}, "expected a question, got None"),
    "empty question": ({"question": ""}, "expected a question, got ''"),
    "blank question": ({"question": "\n "}, "expected a question"),
    "no answers": ({"answers": ()}, "expected what people answered, got nothing"),
    "a blank answer": ({"answers": ("yes", " ")}, "expected what people answered, got"),
    "an answer that is no text": ({"answers": (None,) * 10}, "expected what people answered, got"),
    "question of marks": ({"question": "?!"}, "expected a question"),
    "phrase of marks": ({"phrase": "..."}, "expected a phrase"),
    "unknown answer type": (
        {"answer_type": "yesno"},
        "expected an answer type of 'yes/no', 'number', 'other', got 'yesno'",
    ),
    "no label": ({"label": None}, "has no label, which classification needs"),
}


@pytest.mark.parametrize("bad", BAD)
def test_bad_sample_is_named_and_nothing_is_written(pack, sample, folder, bad):
    change, complaint = BAD[bad]

    with pytest.raises(DataError, match=complaint) as caught:
        pack(sample, replace(sample, id="bad one", **change))

    assert str(caught.value).startswith("tiny: sample 'bad one': ")
    assert list(folder.parent.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"phrase": "the cat"}, "has phrase, but the card's tasks are classification"),
        ({"mask": b"m"}, "has mask, but"),
        ({"question": "Is it?", "answers": ("a",)}, "has question and answers, but .* add 'vqa'"),
        ({"answer_type": "number"}, "has answer_type, but"),
    ],
)
def test_what_no_task_of_the_card_would_keep_is_refused(pack, sample, change, complaint):
    """There is no column for it, and it would be gone without a word."""
    plain = replace(sample, **NOTHING)

    with pytest.raises(DataError, match=complaint):
        pack(plain, replace(plain, id="more", **change), tasks=("classification",))


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", [1, 3, 5, 6, 7, 8])
def test_the_mask_must_fit_the_picture_as_it_is_decoded(pack, sample, form, orientation):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    buffer = io.BytesIO()
    Image.new("RGB", (16, 12)).save(buffer, form, exif=exif)
    turned = replace(sample, image=buffer.getvalue())
    width, height = decode_image(turned.image, where="test").size

    with pytest.raises(DataError, match=f"picture's {width} x {height} pixels"):
        pack(replace(turned, mask=drawn(box(height, width))))
    fitting = replace(turned, mask=drawn(box(width, height)))
    assert pack(fitting) == [fitting]


@pytest.mark.parametrize("form", ["JPEG", "WEBP"])
def test_pictures_are_not_decoded_on_writing(pack, sample, monkeypatch, form):
    """A million of them would take hours."""
    picture = drawn(Image.new("RGB", (16, 12)), form=form)
    loaded: list[str | None] = []
    load = Image.Image.load

    def counting(self: Image.Image) -> Any:
        loaded.append(getattr(self, "format", None))
        return load(self)

    monkeypatch.setattr(Image.Image, "load", counting)
    pack(replace(sample, image=picture))

    assert "PNG" in loaded
    assert form not in loaded

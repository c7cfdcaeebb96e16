"""Against direct calls of transformers."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from natadv.errors import ModelError
from natadv.models.adapters.encoder import Placement
from natadv.models.adapters.grounded_sam import BoxFinder, MaskDrawer, caption

ON_CPU = Placement(torch.device("cpu"), torch.float32)
PHRASE = "Black cat."


@pytest.fixture(scope="module")
def finder(tiny_dino):
    return BoxFinder(tiny_dino, placement=ON_CPU)


@pytest.fixture(scope="module")
def reference(tiny_dino, photograph):
    """Scores, and boxes in pixels, of every query, as transformers itself gives them."""
    from transformers import AutoImageProcessor, AutoTokenizer, GroundingDinoForObjectDetection

    pixels = AutoImageProcessor.from_pretrained(tiny_dino, backend="pil")
    tokens = AutoTokenizer.from_pretrained(tiny_dino)("black cat.", return_tensors="pt")
    model = GroundingDinoForObjectDetection.from_pretrained(tiny_dino).eval()
    with torch.inference_mode():
        found = model(**pixels(images=photograph, return_tensors="pt"), **tokens)
    x, y, w, h = found.pred_boxes[0].unbind(-1)
    corners = torch.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], dim=-1)
    boxes = corners * torch.tensor([90.0, 60.0, 90.0, 60.0])
    return found.logits[0].sigmoid().amax(-1), boxes


def middle_threshold(scores):
    ordered = scores.sort().values
    return float((ordered[5] + ordered[6]) / 2)


def test_boxes_are_those_of_transformers(finder, photograph, reference):
    scores, boxes = reference
    threshold = middle_threshold(scores)

    found = finder.find(photograph, PHRASE, box_threshold=threshold)

    inside = boxes.clamp(torch.zeros(4), torch.tensor([90.0, 60.0, 90.0, 60.0]))
    large = ((inside[:, 2:] - inside[:, :2]) >= 1).all(-1)
    kept = [i for i in scores.argsort(descending=True).tolist() if scores[i] > threshold]
    # Of scores that are the same when rounded, the order is that of the boxes.
    expected = sorted(
        (i for i in kept if large[i]),
        key=lambda i: (-round(float(scores[i]), 4), inside[i].tolist()),
    )
    assert len(found) == len(expected) > 0
    for row, i in zip(found, expected, strict=True):
        assert row.box == pytest.approx(inside[i].tolist(), abs=0.01)
        assert row.score == pytest.approx(float(scores[i]), abs=1e-4)


def test_the_words_of_a_phrase_do_not_reach_the_tokens_around_it(finder, photograph, monkeypatch):
    """Where the text tower's mask is lost, every token sees all others."""
    seen = []
    tower = finder._model.model.text_backbone
    monkeypatch.setattr(tower, "forward", spied(tower.forward, seen))

    for phrase in ("cat", "dog"):
        finder.find(photograph, phrase)

    (cat, dog) = (found[0][0] for found in seen)
    assert cat[0].tolist() == pytest.approx(dog[0].tolist(), abs=1e-6)
    assert (cat[1] - dog[1]).abs().max() > 1e-3


def spied(forward, seen):
    def forwarded(*args, **kwargs):
        seen.append(forward(*args, **kwargs))
        return seen[-1]

    return forwarded


def test_boxes_lie_inside_the_picture_and_the_surest_comes_first(finder, photograph):
    found = finder.find(photograph, PHRASE, box_threshold=0.0)

    assert [row.score for row in found] == sorted((row.score for row in found), reverse=True)
    for x0, y0, x1, y1 in (row.box for row in found):
        assert 0 <= x0 < x1 <= 90
        assert 0 <= y0 < y1 <= 60


def test_a_higher_threshold_never_finds_more(finder, photograph, reference):
    thresholds = (0.0, middle_threshold(reference[0]), 1.0)
    counts = [len(finder.find(photograph, PHRASE, box_threshold=t)) for t in thresholds]

    assert counts == sorted(counts, reverse=True)
    assert counts[-1] == 0


def test_words_are_those_of_the_phrase(finder, photograph):
    found = finder.find(photograph, PHRASE, box_threshold=0.0, text_threshold=0.0)

    assert {row.words for row in found} == {"black cat"}


def test_another_phrase_gives_other_boxes(finder, photograph):
    one, other = (finder.find(photograph, p, box_threshold=0.0) for p in ("cat", "a red dog"))

    assert one != other


@pytest.mark.parametrize(
    ("phrase", "text"), [("Cat", "cat."), (" St. Bernard ", "st bernard."), ("a cat..", "a cat.")]
)
def test_a_phrase_becomes_one_caption(phrase, text):
    assert caption(phrase, where="here") == text


@pytest.mark.parametrize("phrase", ["", " . "])
def test_an_empty_phrase_is_refused(finder, photograph, phrase):
    with pytest.raises(ModelError, match="refers to nothing"):
        finder.find(photograph, phrase)


def test_a_phrase_that_is_too_long_is_refused(finder, photograph):
    with pytest.raises(ModelError, match=r"makes .* tokens, the model reads 32"):
        finder.find(photograph, "cat " * 20)


def test_damaged_weights_are_reported(tiny_dino, photograph, tmp_path):
    folder = tmp_path / "damaged"
    shutil.copytree(tiny_dino, folder)
    state = load_file(folder / "model.safetensors")
    name = next(name for name in state if "input_proj_vision" in name and name.endswith("weight"))
    state[name] = torch.full_like(state[name], float("nan"))
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})

    with pytest.raises(ModelError, match="not finite"):
        BoxFinder(folder, placement=ON_CPU).find(photograph, PHRASE)


def test_another_kind_of_checkpoint_finds_no_boxes(tiny_sam):
    with pytest.raises(
        ModelError, match="expected a checkpoint of model_type 'grounding-dino', got"
    ):
        BoxFinder(tiny_sam, placement=ON_CPU)


BOXES = [(3.0, 4.0, 40.0, 30.0), (20.0, 10.0, 89.5, 58.0), (60.0, 2.0, 80.0, 20.0)]


@pytest.fixture(scope="module")
def drawer(tiny_sam):
    return MaskDrawer(tiny_sam, placement=ON_CPU)


def masks_of(folder, picture, boxes):
    """The masks of the boxes, of shape (k, h, w), as transformers itself gives them."""
    from transformers import AutoImageProcessor, SamModel, SamProcessor

    processor = SamProcessor(AutoImageProcessor.from_pretrained(folder, backend="pil"))
    inputs = processor(images=picture, input_boxes=[[list(b) for b in boxes]], return_tensors="pt")
    sizes = inputs.pop("original_sizes"), inputs.pop("reshaped_input_sizes")
    inputs["input_boxes"] = inputs["input_boxes"].float()
    with torch.inference_mode():
        found = SamModel.from_pretrained(folder).eval()(**inputs, multimask_output=False)
    (masks,) = processor.post_process_masks(found.pred_masks, *sizes)
    return masks[:, 0].numpy()


def test_a_mask_is_that_of_transformers(drawer, tiny_sam, photograph):
    for box in BOXES:
        mask = drawer.draw(photograph, [box])

        assert (mask.shape, mask.dtype) == ((60, 90), bool)
        assert 0 < mask.mean() < 1
        assert (mask == masks_of(tiny_sam, photograph, [box])[0]).all()


def test_several_boxes_give_their_union(drawer, tiny_sam, photograph):
    union = drawer.draw(photograph, BOXES)

    assert (union == masks_of(tiny_sam, photograph, BOXES).any(axis=0)).all()
    assert (union == np.any([drawer.draw(photograph, [box]) for box in BOXES], axis=0)).all()


def test_more_boxes_than_fit_at_once_give_the_same(drawer, photograph):
    many = [(float(i), 2.0, float(i) + 20, 40.0) for i in range(35)]

    union = drawer.draw(photograph, many)

    assert (union == np.any([drawer.draw(photograph, [box]) for box in many], axis=0)).all()


def test_boxes_that_are_parted_differ(drawer, photograph):
    masks = [drawer.draw(photograph, [box]).tobytes() for box in BOXES]

    assert len(set(masks)) == len(BOXES)


def test_no_box_is_refused(drawer, photograph):
    with pytest.raises(ModelError, match="at least one box"):
        drawer.draw(photograph, [])


def test_another_kind_of_checkpoint_draws_no_masks(tiny_dino):
    with pytest.raises(ModelError, match="expected a checkpoint of model_type 'sam', got"):
        MaskDrawer(tiny_dino, placement=ON_CPU)

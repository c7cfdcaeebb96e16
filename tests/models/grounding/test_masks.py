"""Against direct calls of transformers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from natadv.errors import ModelError
from natadv.models.adapters.encoder import Placement
from natadv.models.grounding.masks import MaskDrawer

ON_CPU = Placement(torch.device("cpu"), torch.float32)
BOXES = [(3.0, 4.0, 40.0, 30.0), (20.0, 10.0, 89.5, 58.0), (60.0, 2.0, 80.0, 20.0)]


@pytest.fixture(scope="module")
def drawer(tiny_sam):
    return MaskDrawer(tiny_sam, placement=ON_CPU)


def reference(folder, picture, boxes):
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
        assert (mask == reference(tiny_sam, photograph, [box])[0]).all()


def test_several_boxes_give_their_union(drawer, tiny_sam, photograph):
    union = drawer.draw(photograph, BOXES)

    assert (union == reference(tiny_sam, photograph, BOXES).any(axis=0)).all()
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


def test_another_kind_of_checkpoint_is_refused(tiny_dino):
    with pytest.raises(ModelError, match="expected a checkpoint of model_type 'sam', got"):
        MaskDrawer(tiny_dino, placement=ON_CPU)

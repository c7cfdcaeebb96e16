"""Masks of what is in boxes, by SAM."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import SamModel, SamProcessor

from natadv.errors import ModelError
from natadv.models.adapters import pretrained
from natadv.models.adapters.encoder import Placement
from natadv.models.files import grounding_folder

if TYPE_CHECKING:
    from PIL.Image import Image

_BOXES_AT_ONCE = 32
"""Bounds the memory of a picture that is full of things."""


@final
class MaskDrawer:
    """One mask of a picture: the union of what is in its boxes."""

    def __init__(self, folder: Path, *, placement: Placement) -> None:
        grounding_folder.check_role(folder, "sam")
        wanted = grounding_folder.NEEDS["sam"].preprocessing
        self._name = folder.name
        self._placement = placement
        self._model = pretrained.weights(SamModel, folder, placement=placement)
        processor = pretrained.image_processor(folder, wanted=wanted)
        self._processor: Any = SamProcessor(processor)  # type: ignore[no-untyped-call]

    def draw(
        self, picture: Image, boxes: Sequence[tuple[float, float, float, float]]
    ) -> NDArray[np.bool_]:
        """Of shape (h, w) of the picture; nothing but the best mask of each box counts.

        Raises:
            ModelError: There is no box, or the weights give no number.
        """
        if not boxes:
            raise ModelError(f"{self._name}: expected at least one box")
        listed = [list(box) for box in boxes]
        inputs = self._processor(images=picture, input_boxes=[listed], return_tensors="pt")
        pixels = self._placement.of_pixels(inputs)
        inside = np.zeros((picture.height, picture.width), bool)
        with torch.inference_mode():
            seen = self._model.get_image_embeddings(pixels["pixel_values"])
            for start in range(0, len(boxes), _BOXES_AT_ONCE):
                part = pixels["input_boxes"][:, start : start + _BOXES_AT_ONCE]
                found = self._model(image_embeddings=seen, input_boxes=part, multimask_output=False)
                inside |= self._upscaled(found.pred_masks, inputs)
        return inside

    def _upscaled(self, logits: torch.Tensor, inputs: Any) -> NDArray[np.bool_]:
        """The union over boxes at the picture's own size."""
        if not bool(torch.isfinite(logits).all()):
            raise ModelError(f"{self._name}: its masks are not finite; its weights are damaged")
        sizes = inputs["original_sizes"], inputs["reshaped_input_sizes"]
        (masks,) = self._processor.post_process_masks(logits.float().cpu(), *sizes)
        union: NDArray[np.bool_] = masks.flatten(0, 1).any(dim=0).numpy()
        return union

"""Grounding DINO finds boxes for a phrase, and SAM draws masks in them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, final

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import (
    GroundingDinoForObjectDetection,
    GroundingDinoProcessor,
    SamModel,
    SamProcessor,
)

from natadv.errors import ModelError
from natadv.models.adapters import pretrained
from natadv.models.adapters.encoder import Placement
from natadv.models.files import layouts
from natadv.models.grounding import BOX_THRESHOLD, TEXT_THRESHOLD

if TYPE_CHECKING:
    from PIL.Image import Image

_MIN_SIDE_PX = 1.0
_BOX_BATCH = 32
"""Bounds the memory that a picture with many boxes takes."""

# The text tower must be `sdpa`: transformers 5 gives it a boolean mask, which `eager` adds to the
# scores as 1 and 0, so that nothing is masked, silently. The rest only supports `eager`.
_ATTENTION = {"": "eager", "text_config": "sdpa", "backbone_config": "eager"}


class PhraseBox(NamedTuple):
    """A box around something that a phrase refers to."""

    box: tuple[float, float, float, float]
    """Left, top, right, bottom in pixels, inside the picture, to a hundredth."""
    score: float
    words: str
    """The words of the phrase that match it."""


@final
class BoxFinder:
    """Grounding DINO on one picture at a time, so that no box depends on the rest of a batch.
    Raises ModelError if the folder contains another model, or is damaged."""

    def __init__(self, folder: Path, *, placement: Placement) -> None:
        layouts.check_grounding(folder, "grounding-dino")
        wanted = layouts.GROUNDING["grounding-dino"].preprocessing
        self._name = folder.name
        self._placement = placement
        self._model = pretrained.weights(
            GroundingDinoForObjectDetection, folder, placement=placement, attention=_ATTENTION
        )
        text = self._model.config.text_config
        self._max_tokens = min(self._model.config.max_text_len, text.max_position_embeddings)
        self._processor = GroundingDinoProcessor(
            pretrained.image_processor(folder, wanted=wanted),
            pretrained.tokenizer(folder, vocabulary=text.vocab_size),
        )

    def find(
        self,
        picture: Image,
        phrase: str,
        *,
        box_threshold: float = BOX_THRESHOLD,
        text_threshold: float = TEXT_THRESHOLD,
    ) -> tuple[PhraseBox, ...]:
        """Every box whose best word scores above `box_threshold`, by falling score. Raises
        ModelError if the phrase is empty or too long, or the boxes are not finite."""
        text = caption(phrase, where=self._name)
        inputs = self._processor(images=picture, text=text, return_tensors="pt")
        tokens = inputs["input_ids"].shape[1]
        if tokens > self._max_tokens:
            raise ModelError(
                f"{self._name}: phrase {phrase[:40]!r} makes {tokens} tokens, the model reads "
                f"{self._max_tokens}; shorten it"
            )
        with torch.inference_mode():
            outputs = self._model(**self._placement.of_pixels(inputs))
        if not bool(torch.isfinite(outputs.pred_boxes).all()):
            raise ModelError(f"{self._name}: its boxes are not finite; its weights are damaged")
        (detected,) = self._processor.post_process_grounded_object_detection(
            outputs,
            inputs["input_ids"],
            threshold=box_threshold,
            text_threshold=text_threshold,
            target_sizes=[(picture.height, picture.width)],
        )
        # A random or damaged model may match the token that ends the phrase.
        end = self._processor.tokenizer.sep_token
        words = [text.replace(end, "").strip(" .") for text in detected["text_labels"]]
        return _inside(detected["scores"], detected["boxes"], words, size=picture.size)


def caption(phrase: str, *, where: str) -> str:
    """The phrase as in training: lower case, with a period after each thing that it names. Raises
    ModelError that names `where` if the phrase is empty."""
    # A period inside the phrase would make two things of it.
    words = " ".join(phrase.lower().replace(".", " ").split())
    if not words:
        raise ModelError(f"{where}: phrase {phrase!r} refers to nothing")
    return f"{words}."


def _inside(
    scores: torch.Tensor, boxes: torch.Tensor, words: list[str], *, size: tuple[int, int]
) -> tuple[PhraseBox, ...]:
    """The boxes cut to the picture, without those that lie outside it."""
    right, bottom = map(float, size)
    rows: list[PhraseBox] = []
    for score, box, label in zip(scores.tolist(), boxes.float().tolist(), words, strict=True):
        x0, y0, x1, y1 = (
            round(min(max(edge, 0.0), limit), 2)
            for edge, limit in zip(box, (right, bottom) * 2, strict=True)
        )
        if x1 - x0 >= _MIN_SIDE_PX and y1 - y0 >= _MIN_SIDE_PX:
            rows.append(PhraseBox((x0, y0, x1, y1), round(score, 4), label))
    return tuple(sorted(rows, key=lambda row: (-row.score, row.box)))


@final
class MaskDrawer:
    """SAM: one mask of a picture, the union of the things in its boxes. Raises ModelError if the
    folder contains another model, or is damaged."""

    def __init__(self, folder: Path, *, placement: Placement) -> None:
        layouts.check_grounding(folder, "sam")
        wanted = layouts.GROUNDING["sam"].preprocessing
        self._name = folder.name
        self._placement = placement
        self._model = pretrained.weights(SamModel, folder, placement=placement)
        processor = pretrained.image_processor(folder, wanted=wanted)
        self._processor: Any = SamProcessor(processor)

    def draw(
        self, picture: Image, boxes: Sequence[tuple[float, float, float, float]]
    ) -> NDArray[np.bool_]:
        """Of shape (h, w) of the picture: the union of the best mask of each box. Raises ModelError
        if there is no box, or the masks are not finite."""
        if not boxes:
            raise ModelError(f"{self._name}: expected at least one box")
        listed = [list(box) for box in boxes]
        inputs = self._processor(images=picture, input_boxes=[listed], return_tensors="pt")
        pixels = self._placement.of_pixels(inputs)
        sizes = inputs["original_sizes"], inputs["reshaped_input_sizes"]
        inside = np.zeros((picture.height, picture.width), bool)
        with torch.inference_mode():
            embeddings = self._model.get_image_embeddings(pixels["pixel_values"])
            for start in range(0, len(boxes), _BOX_BATCH):
                logits = self._model(
                    image_embeddings=embeddings,
                    input_boxes=pixels["input_boxes"][:, start : start + _BOX_BATCH],
                    multimask_output=False,
                ).pred_masks
                if not bool(torch.isfinite(logits).all()):
                    raise ModelError(
                        f"{self._name}: its masks are not finite; its weights are damaged"
                    )
                (masks,) = self._processor.post_process_masks(logits.float().cpu(), *sizes)
                inside |= masks.flatten(0, 1).any(dim=0).numpy()
        return inside

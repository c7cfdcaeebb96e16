"""Boxes around what a phrase means, by Grounding DINO."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, final

import torch
from transformers import GroundingDinoForObjectDetection, GroundingDinoProcessor

from natadv.errors import ModelError
from natadv.models.adapters import pretrained
from natadv.models.adapters.encoder import Placement
from natadv.models.files import grounding_folder
from natadv.models.grounding.loading import BOX_THRESHOLD, TEXT_THRESHOLD

if TYPE_CHECKING:
    from PIL.Image import Image

_LEAST_PX = 1.0
# The text tower must be `sdpa`: transformers 5 gives it a mask of truth values, which `eager` adds
# to the scores as 1 and 0, so that nothing is masked, silently. The rest knows `eager` only.
_ATTENTION = {"": "eager", "text_config": "sdpa", "backbone_config": "eager"}


class Found(NamedTuple):
    """One box."""

    box: tuple[float, float, float, float]
    """Left, top, right, bottom in pixels, inside the picture, to a hundredth."""
    score: float
    words: str
    """Those of the phrase that it answers to."""


@final
class BoxFinder:
    """Looks at one picture at a time, so that no box depends on what else is in a batch."""

    def __init__(self, folder: Path, *, placement: Placement) -> None:
        grounding_folder.check_role(folder, "grounding-dino")
        wanted = grounding_folder.NEEDS["grounding-dino"].preprocessing
        self._name = folder.name
        self._placement = placement
        self._model = pretrained.weights(
            GroundingDinoForObjectDetection, folder, placement=placement, attention=_ATTENTION
        )
        text = self._model.config.text_config
        self._most_tokens = min(self._model.config.max_text_len, text.max_position_embeddings)
        self._processor = GroundingDinoProcessor(  # type: ignore[no-untyped-call]
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
    ) -> tuple[Found, ...]:
        """Every box whose best word scores above `box_threshold`, the surest first.

        Raises:
            ModelError: The phrase is empty or too long, or the weights give no number.
        """
        inputs = self._processor(
            images=picture, text=caption(phrase, where=self._name), return_tensors="pt"
        )
        self._check_length(phrase, inputs["input_ids"].shape[1])
        with torch.inference_mode():
            outputs = self._model(**self._placement.of_pixels(inputs))
        if not bool(torch.isfinite(outputs.pred_boxes).all()):
            raise ModelError(f"{self._name}: its boxes are not finite; its weights are damaged")
        (found,) = self._processor.post_process_grounded_object_detection(
            outputs,
            inputs["input_ids"],
            threshold=box_threshold,
            text_threshold=text_threshold,
            target_sizes=[(picture.height, picture.width)],
        )
        # A random or damaged model may answer to the token that ends the phrase.
        end = self._processor.tokenizer.sep_token
        words = [text.replace(end, "").strip(" .") for text in found["text_labels"]]
        return _sorted(found["scores"], found["boxes"], words, size=picture.size)

    def _check_length(self, phrase: str, tokens: int) -> None:
        if tokens > self._most_tokens:
            raise ModelError(
                f"{self._name}: phrase {phrase[:40]!r} makes {tokens} tokens, the model reads "
                f"{self._most_tokens}; shorten it"
            )


def caption(phrase: str, *, where: str) -> str:
    """As the model was trained to read: lower case, a period behind each thing that is meant."""
    # A period inside would make two things of it.
    words = " ".join(phrase.lower().replace(".", " ").split())
    if not words:
        raise ModelError(f"{where}: phrase {phrase!r} refers to nothing")
    return f"{words}."


def _sorted(
    scores: torch.Tensor, boxes: torch.Tensor, words: list[str], *, size: tuple[int, int]
) -> tuple[Found, ...]:
    """What of the boxes lies in the picture."""
    right, bottom = map(float, size)
    rows: list[Found] = []
    for score, box, said in zip(scores.tolist(), boxes.float().tolist(), words, strict=True):
        x0, y0, x1, y1 = (
            round(min(max(edge, 0.0), most), 2)
            for edge, most in zip(box, (right, bottom) * 2, strict=True)
        )
        if x1 - x0 >= _LEAST_PX and y1 - y0 >= _LEAST_PX:
            rows.append(Found((x0, y0, x1, y1), round(score, 4), said))
    return tuple(sorted(rows, key=lambda row: (-row.score, row.box)))

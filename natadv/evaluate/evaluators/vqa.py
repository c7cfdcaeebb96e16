"""Visual question answering: by a model that answers, or by a head on what a tower sees."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from natadv.errors import ModelError
from natadv.evaluate.evaluators.rows import asked_in_batches, rows_in
from natadv.evaluate.loaded_model import LoadedModel, Seen
from natadv.evaluate.pictures import Picture
from natadv.evaluate.shard import EvaluationShard
from natadv.evaluate.units import Unit
from natadv.tasks import vqa
from natadv.types import Answerer, FloatArray, Outcomes

if TYPE_CHECKING:
    from natadv.heads.folder import Head


def answering(unit: Unit, shard: EvaluationShard, loaded: LoadedModel) -> VqaByHead | VqaByModel:
    if unit.head:
        return VqaByHead(shard, loaded, loaded.heads[unit.head])
    if isinstance(loaded.model, Answerer):
        return VqaByModel(shard, loaded, loaded.model)
    raise ModelError(f"{type(loaded.model).__name__} answers no questions, and has no head")


class VqaByHead:
    """MCAN on a layer of the picture tower."""

    def __init__(self, shard: EvaluationShard, loaded: LoadedModel, head: Head) -> None:
        from natadv.heads.folder import AnsweringHead

        if not isinstance(head, AnsweringHead):
            raise ModelError(f"expected a head for questions, got a {type(head).__name__}")
        self._shard, self._loaded, self._head = shard, loaded, head
        self._answers: dict[str, str] = {}
        self._questions = _questions(shard)
        self.layers = (head.mcan.config.layer,)

    def missing(self) -> Mapping[str, Picture]:
        return self._shard.pictures()

    def see(self, seen: Seen) -> None:
        (layer,) = self.layers
        for part in rows_in(
            seen, self._shard.answerable(), self._shard.shown, size=self._loaded.batch_size
        ):
            questions = [self._questions[sample.id] for sample in part.samples]
            answers = self._said(seen.features[layer][part.at], questions)
            for sample, answer in zip(part.samples[: part.counted], answers, strict=False):
                self._answers[sample.id] = answer

    def _said(self, features: FloatArray, questions: Sequence[str]) -> list[str]:
        import torch

        from natadv.heads.words import encode

        device = next(self._head.mcan.parameters()).device
        words = torch.from_numpy(encode(questions, self._head.words)).to(device)
        with torch.inference_mode():
            logits = self._head.mcan(torch.from_numpy(features).to(device), words)
        if not logits.isfinite().all():
            raise ModelError(
                "the head's answers are not finite; its weights are damaged: copy its folder "
                "again, or train it again"
            )
        return [self._head.answers[i] for i in logits.argmax(dim=1).tolist()]

    def outcomes(self) -> tuple[Outcomes, Mapping[str, bytes]]:
        samples = self._shard.answerable()
        answers = [self._answers[sample.id] for sample in samples]
        return vqa.outcomes(samples, answers, errors=self._shard.errors), {}


class VqaByModel:
    """A model that takes pictures and questions together."""

    layers: tuple[int, ...] = ()

    def __init__(self, shard: EvaluationShard, loaded: LoadedModel, model: Answerer) -> None:
        self._shard, self._loaded, self._model = shard, loaded, model
        self._questions = _questions(shard)

    def missing(self) -> Mapping[str, Picture]:
        return {}

    def see(self, seen: Seen) -> None:
        """Nothing: it looks for itself."""

    def outcomes(self) -> tuple[Outcomes, Mapping[str, bytes]]:
        answers: list[str] = []
        for part, images in asked_in_batches(self._shard, self._loaded):
            questions = [self._questions[sample.id] for sample in part.samples]
            answers += part.counted_of(self._model.answer(images, questions), what="answer")
        return vqa.outcomes(self._shard.answerable(), answers, errors=self._shard.errors), {}


def _questions(shard: EvaluationShard) -> dict[str, str]:
    """By sample id. Raises DataError before anything is computed."""
    return {sample.id: vqa.question_of(sample) for sample in shard.answerable()}

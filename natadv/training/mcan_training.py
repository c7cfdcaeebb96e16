"""The training of MCAN to answer questions as people do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple, final

import numpy as np
import torch
from torch.nn import functional

from natadv.errors import ConfigError, DataError
from natadv.heads.folder import AnsweringHead
from natadv.heads.head_file import McanConfig
from natadv.heads.mcan import Mcan
from natadv.heads.vocabulary import (
    RESERVED,
    Vocabulary,
    common_answers,
    encode,
    soft_targets,
    vocabulary_of,
)
from natadv.tasks.vqa import accuracy
from natadv.tasks.vqa_text import official, on_one_line
from natadv.training.features import FeatureSource, features_of, picture_features, whole
from natadv.training.head_settings import VqaSettings
from natadv.training.tower import Tower
from natadv.training.training_rows import (
    RowNumbers,
    Split,
    TrainingRows,
    batch_of,
    in_parts,
    steps_per_epoch,
    subset,
)

_SIZES = {"embedding", "hidden", "heads", "feed_forward", "blocks", "summary", "fused", "dropout"}


class Vocabularies(NamedTuple):
    """The words of the questions, and the answers to choose among."""

    words: Vocabulary
    answers: tuple[str, ...]


@final
class McanTraining:
    """Trains as MCAN was trained, on cached features.

    Everything is a function of the step, so that a training can be resumed at any step.
    """

    metric = "vqa_accuracy"
    """The validation metric, as the task calls it."""

    def __init__(
        self, source: FeatureSource, tower: Tower, parts: Split, settings: VqaSettings
    ) -> None:
        """Set up a new MCAN, and compute the features that are not cached."""
        rows, trained = source.rows, parts.trained
        self.per_loss = min(settings.batch, len(trained))
        self._each_epoch = steps_per_epoch(settings.rows_per_epoch or len(trained), settings.batch)
        self.steps = settings.epochs * self._each_epoch
        self._rows, self._trained, self._settings = rows, trained, settings
        self._device = tower.device
        self._words, self._answers = vocabularies_of(rows, trained, more_than=settings.more_than)
        torch.manual_seed(settings.seed)
        self.module = Mcan(
            McanConfig(
                words=self._words.size,
                answers=len(self._answers),
                layer=tower.layers[0],
                image_width=tower.grids[0].dim,
                **settings.model_dump(include=_SIZES),
            )
        )
        if settings.word_vectors == "tower":
            set_word_vectors(self.module, self._words, tower)
        self.module.to(tower.device)
        self._questions = encode(rows.texts, self._words)
        self._validation = subset(
            parts.held_back, most=settings.validation_rows, seed=settings.seed
        )
        # Pictures last: they take longest, and invalid data should fail before them.
        self._layers = picture_features(source, tower, whole)

    def optimisers(self) -> tuple[torch.optim.Optimizer, ...]:
        """Adam for all weights; Muon for the matrices if the settings give them their own rate.

        A parameter group with an entry `times` learns at that multiple of the rate.
        """
        settings = self._settings
        named = dict(self.module.named_parameters())
        matrices = {n: w for n, w in named.items() if settings.matrix_rate and is_matrix(n, w)}
        adam = torch.optim.Adam(
            [w for name, w in named.items() if name not in matrices],
            lr=settings.rate,
            betas=settings.betas,
            eps=settings.eps,
        )
        if not settings.matrix_rate:
            return (adam,)
        group = {"params": list(matrices.values()), "times": settings.matrix_rate / settings.rate}
        muon = torch.optim.Muon([group], weight_decay=0.0, adjust_lr_fn="match_rms_adamw")
        return adam, muon

    def rate(self, step: int) -> float:
        """The rate of the settings in the epoch of the step."""
        return stepped_rate(step // self._each_epoch, self._settings)

    def loss(self, step: int) -> torch.Tensor:
        """The binary cross-entropy with the soft targets, summed over a batch."""
        settings = self._settings
        rows = batch_of(step, self._trained, batch=settings.batch, seed=settings.seed)
        answers = [_official(self._rows.answers[row]) for row in rows]
        targets = torch.from_numpy(soft_targets(answers, self._answers)).to(self._device)
        logits = self._logits(rows).float()
        return functional.binary_cross_entropy_with_logits(logits, targets, reduction="sum")

    def validate(self) -> float | None:
        """Mean official VQA accuracy of the held-back rows."""
        scores = list[float]()
        for part in in_parts(self._validation.tolist(), self._settings.batch):
            with torch.inference_mode():
                best = self._logits(np.array(part)).argmax(dim=-1).tolist()
            scores += [
                accuracy(self._answers[answer], self._rows.answers[row])
                for row, answer in zip(part, best, strict=True)
            ]
        return sum(scores) / len(scores) if scores else None

    def head(self) -> AnsweringHead:
        """The network in its present state, with its vocabularies."""
        return AnsweringHead(self.module, self._words, self._answers)

    def _logits(self, rows: RowNumbers) -> torch.Tensor:
        (places,) = features_of(self._layers, self._rows.pictures[rows], device=self._device)
        questions = torch.from_numpy(self._questions[rows]).to(self._device)
        logits: torch.Tensor = self.module(places, questions)
        return logits


def stepped_rate(epoch: int, settings: VqaSettings) -> float:
    """The learning rate of an epoch, counted from 0."""
    rise = min(1.0, (epoch + 1) / (settings.warm_up + 1))
    passed = sum(epoch >= after for after in settings.decay_after)
    return settings.rate * rise * settings.decay**passed


def is_matrix(name: str, weight: torch.Tensor) -> bool:
    """Whether the weight maps one layer to the next; the rows of word and answer embeddings are
    independent of each other, so these are not matrices for Muon."""
    return weight.ndim == 2 and name not in ("embedding.weight", "answer.weight")


def set_word_vectors(mcan: Mcan, vocabulary: Vocabulary, tower: Tower) -> None:
    """Initialise each word vector with the model's own text embedding of the word, centred, and
    scaled to a standard deviation of 1.

    Raises ConfigError if word vectors and text embeddings differ in width.
    """
    embedded = torch.from_numpy(tower.texts.embed_texts(vocabulary.words))
    if embedded.shape[1] != mcan.config.embedding:
        raise ConfigError(
            f"word_vectors: {tower.spec.name} embeds words in {embedded.shape[1]} dimensions, and "
            f"embedding is {mcan.config.embedding}; set embedding to {embedded.shape[1]}"
        )
    centred = embedded - embedded.mean(dim=0)
    with torch.no_grad():
        mcan.embedding.weight[RESERVED:] = centred / centred.std()


def vocabularies_of(rows: TrainingRows, trained: RowNumbers, *, more_than: int) -> Vocabularies:
    """The words of the questions, and the answers of more than `more_than` questions.

    As in the published code, a question counts for the answer that most people gave.

    Raises DataError if fewer than two answers are that common.
    """
    questions = [rows.texts[row] for row in trained]
    mostly = [Counter(_official(rows.answers[row])).most_common(1)[0][0] for row in trained]
    answers = common_answers(mostly, more_than=more_than)
    if len(answers) < 2:
        raise DataError(
            f"of {len(set(mostly))} answers to {len(questions)} questions, {len(answers)} are "
            f"those of more than {more_than} questions, and a head chooses among at least 2; give "
            f"more data, or lower the bound (--set more_than={max(0, more_than // 4)})"
        )
    return Vocabularies(vocabulary_of(questions), answers)


def _official(answers: Sequence[str]) -> tuple[str, ...]:
    """The answers as the official evaluation spells them, so that `two` and `2` are one answer."""
    return tuple(official(on_one_line(answer)) for answer in answers if answer.strip())

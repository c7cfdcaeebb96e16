"""The training of MCAN: what people would answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, final

import numpy as np
import torch
from numpy.typing import NDArray
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
from natadv.training.features import Source, picture_features, whole
from natadv.training.kinds import features_of
from natadv.training.rows import Rows, in_parts
from natadv.training.schedules import (
    RowNumbers,
    Split,
    batch_of,
    some,
    stepped_rate,
    steps_per_epoch,
)
from natadv.training.settings import VqaSettings
from natadv.training.tower import Tower


class Words(NamedTuple):
    """What the head will read and say."""

    read: Vocabulary
    answers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Answering:
    """All rows, as MCAN takes them."""

    layers: tuple[NDArray[np.float16], ...]
    rows: Rows
    questions: NDArray[np.int64]
    """Word ids of each row."""
    validation: RowNumbers


@final
class McanTraining:
    """As MCAN was trained, on stored features."""

    metric = "vqa_accuracy"

    def __init__(
        self,
        mcan: Mcan,
        words: Words,
        data: Answering,
        rows: RowNumbers,
        *,
        settings: VqaSettings,
        device: str,
    ) -> None:
        self.module = mcan
        self.per_loss = min(settings.batch, len(rows))
        self._each_epoch = steps_per_epoch(settings.rows_per_epoch or len(rows), settings.batch)
        self.steps = settings.epochs * self._each_epoch
        self._words, self._data, self._rows = words, data, rows
        self._settings, self._device = settings, device

    def optimisers(self) -> tuple[torch.optim.Optimizer, ...]:
        """Adam for all weights, or Muon for the matrices if they have a rate of their own."""
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
        return stepped_rate(step // self._each_epoch, self._settings)

    def loss(self, step: int) -> torch.Tensor:
        settings, data = self._settings, self._data
        rows = batch_of(step, self._rows, batch=settings.batch, seed=settings.seed)
        given = [_normal(data.rows.answers[row]) for row in rows]
        targets = torch.from_numpy(soft_targets(given, self._words.answers)).to(self._device)
        logits = self._logits(rows).float()
        return functional.binary_cross_entropy_with_logits(logits, targets, reduction="sum")

    def validate(self) -> float | None:
        """Official accuracy."""
        scores = list[float]()
        for part in in_parts(self._data.validation.tolist(), self._settings.batch):
            with torch.inference_mode():
                best = self._logits(np.array(part)).argmax(dim=-1).tolist()
            scores += [
                accuracy(self._words.answers[answer], self._data.rows.answers[row])
                for row, answer in zip(part, best, strict=True)
            ]
        return sum(scores) / len(scores) if scores else None

    def head(self) -> AnsweringHead:
        return AnsweringHead(self.module, self._words.read, self._words.answers)

    def _logits(self, rows: RowNumbers) -> torch.Tensor:
        data = self._data
        (places,) = features_of(data.layers, data.rows.pictures[rows], device=self._device)
        questions = torch.from_numpy(data.questions[rows]).to(self._device)
        logits: torch.Tensor = self.module(places, questions)
        return logits


def is_matrix(name: str, weight: torch.Tensor) -> bool:
    """Whether it maps one layer to the next; words and answers are rows that stand on their own."""
    return weight.ndim == 2 and name not in ("embedding.weight", "answer.weight")


def mcan_training(
    source: Source, tower: Tower, parts: Split, settings: VqaSettings
) -> McanTraining:
    """Compute what is missing, and set up a new MCAN."""
    words = words_of(source.rows, parts.trained, more_than=settings.more_than)
    config = mcan_config(tower, words, settings)
    torch.manual_seed(settings.seed)
    mcan = Mcan(config)
    if settings.word_vectors == "tower":
        set_words(mcan, words.read, tower)
    mcan.to(tower.device)
    # Pictures last: they take the longest, and all else may turn out to be wrong.
    data = Answering(
        rows=source.rows,
        questions=encode(source.rows.texts, words.read),
        validation=some(parts.held_back, most=settings.validation_rows, seed=settings.seed),
        layers=picture_features(source, tower, whole),
    )
    return McanTraining(mcan, words, data, parts.trained, settings=settings, device=tower.device)


def set_words(mcan: Mcan, vocabulary: Vocabulary, tower: Tower) -> None:
    """Let each word begin as the model's own embedding of it, around 0 and of deviation 1.

    Raises:
        ConfigError: The embedding of words is not as wide as that of the model.
    """
    found = torch.from_numpy(tower.texts.embed_texts(vocabulary.words))
    if found.shape[1] != mcan.config.embedding:
        raise ConfigError(
            f"word_vectors: {tower.spec.name} embeds words in {found.shape[1]} dimensions, and "
            f"embedding is {mcan.config.embedding}; set embedding to {found.shape[1]}"
        )
    centred = found - found.mean(dim=0)
    with torch.no_grad():
        mcan.embedding.weight[RESERVED:] = centred / centred.std()


def words_of(rows: Rows, trained: RowNumbers, *, more_than: int) -> Words:
    """The words of the questions, and what enough of them are answered with.

    As in the published code, a question counts for the answer that most people gave.

    Raises:
        DataError: Fewer than two answers are common enough.
    """
    questions = [rows.texts[row] for row in trained]
    mostly = [_most_given(_normal(rows.answers[row])) for row in trained]
    answers = common_answers(mostly, more_than=more_than)
    if len(answers) < 2:
        raise DataError(
            f"of {len(set(mostly))} answers to {len(questions)} questions, {len(answers)} are "
            f"those of more than {more_than} questions, and a head chooses among at least 2; give "
            f"more data, or lower the bound (--set more_than={max(0, more_than // 4)})"
        )
    return Words(vocabulary_of(questions), answers)


def mcan_config(tower: Tower, words: Words, settings: VqaSettings) -> McanConfig:
    return McanConfig(
        words=words.read.size,
        answers=len(words.answers),
        layer=tower.layers[0],
        image_width=tower.grids[0].dim,
        embedding=settings.embedding,
        hidden=settings.hidden,
        heads=settings.heads,
        feed_forward=settings.feed_forward,
        blocks=settings.blocks,
        summary=settings.summary,
        fused=settings.fused,
        dropout=settings.dropout,
    )


def _normal(answers: Sequence[str]) -> tuple[str, ...]:
    """As the official evaluation spells them, so that `two` and `2` are one answer."""
    return tuple(official(on_one_line(answer)) for answer in answers)


def _most_given(answers: Sequence[str]) -> str:
    return Counter(answers).most_common(1)[0][0]

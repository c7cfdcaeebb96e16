"""Zero-shot classifiers as the target of a search, and another one for semantic consistency."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import final

import numpy as np
from PIL.Image import Image

from natadv.errors import ConfigError, ModelError
from natadv.langadv.generator import Generated
from natadv.models.loading import fingerprint, load_hashed
from natadv.models.resolve import resolve_all
from natadv.types import DoubleArray, FloatArray, ZeroShotClassifier

TEMPLATE = "a photo of a {}."
DISTRACTOR = "a photo of something else."
"""Semantic consistency is the softmax share of the true prompt against this one."""


@final
class ZeroShotTarget:
    """Classifies by a single template, as the gate does."""

    def __init__(
        self,
        members: dict[str, ZeroShotClassifier],
        witness: ZeroShotClassifier,
        classes: Sequence[str],
        *,
        name: str,
    ) -> None:
        """`witness` measures semantic consistency; `members` are to be fooled."""
        self.name = name
        self._members, self._witness = members, witness
        texts = [TEMPLATE.format(noun) for noun in classes]
        self._rows = {key: member.embed_texts(texts) for key, member in members.items()}
        self._truths = witness.embed_texts([*texts, DISTRACTOR])

    def probabilities(self, pictures: Sequence[Generated]) -> DoubleArray:
        images = [picture.image for picture in pictures]
        return np.stack(
            [_shares(one, images, self._rows[name]) for name, one in self._members.items()]
        )

    def consistency(self, pictures: Sequence[Generated], label: int) -> DoubleArray:
        images = [picture.image for picture in pictures]
        return _shares(self._witness, images, self._truths[[label, -1]])[:, 0]


def zero_shot_target(
    names: Sequence[str],
    witness: str,
    classes: Sequence[str],
    *,
    root: Path,
    device: str,
    dtype: str | None,
    threads: int,
) -> ZeroShotTarget:
    """Load the models; the names are those of `pytest --model`.

    Raises ConfigError if the witness is among the members: its answer would then be worthless.
    """
    specs = resolve_all(tuple(names), root=root)
    judges = resolve_all((witness,), root=root)
    if len(judges) != 1:
        raise ConfigError(f"semantic consistency needs one model, {witness!r} names {len(judges)}")
    if judges[0].name in {spec.name for spec in specs}:
        raise ConfigError(
            f"{judges[0].name} is attacked and cannot measure semantic consistency too; name "
            "another --consistency model"
        )
    weights = {spec.name: fingerprint(spec) for spec in (*specs, *judges)}
    loaded = {}
    for spec in (*specs, *judges):
        model = load_hashed(
            spec,
            weights=weights[spec.name],
            device=device,
            dtype=dtype or ("float32" if device == "cpu" else spec.gpu_dtype),
            threads=threads,
        )
        if not isinstance(model, ZeroShotClassifier):
            raise ModelError(f"{spec.name} is not a zero-shot classifier; name another model")
        loaded[spec.name] = model
    hashes = ", ".join(f"{name} {sha256[:12]}" for name, sha256 in weights.items())
    digest = hashlib.sha256(f"{TEMPLATE}{DISTRACTOR}".encode()).hexdigest()[:6]
    return ZeroShotTarget(
        {spec.name: loaded[spec.name] for spec in specs},
        loaded[judges[0].name],
        classes,
        name=f"{hashes} (the last for consistency), prompts {digest}",
    )


def _shares(model: ZeroShotClassifier, images: Sequence[Image], texts: FloatArray) -> DoubleArray:
    """The softmax over the texts, of shape (images, texts)."""
    embedded = model.embed_images(model.prepare(images))
    logits = np.asarray(model.scoring.scale * (embedded @ texts.T), np.float64)
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares: DoubleArray = raised / raised.sum(axis=1, keepdims=True)
    return shares

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
        self, names: Sequence[str], witness: str, classes: Sequence[str], *, root: Path, device: str
    ) -> None:
        """Load the models to fool and the witness, which measures semantic consistency.

        The names are those of `pytest --model`. Raises ConfigError if the witness is one of the
        models to fool, and ModelError if a model is not a zero-shot classifier.
        """
        specs = resolve_all(tuple(names), root=root)
        witnesses = resolve_all((witness,), root=root)
        if len(witnesses) != 1:
            raise ConfigError(
                f"semantic consistency needs one model, {witness!r} names {len(witnesses)}"
            )
        if witnesses[0].name in {spec.name for spec in specs}:
            raise ConfigError(
                f"{witnesses[0].name} is attacked and cannot measure semantic consistency too; "
                "name another --consistency model"
            )
        weights = {spec.name: fingerprint(spec) for spec in (*specs, *witnesses)}
        loaded = {}
        for spec in (*specs, *witnesses):
            model = load_hashed(
                spec,
                weights=weights[spec.name],
                device=device,
                dtype="float32" if device == "cpu" else spec.gpu_dtype,
                threads=1,
            )
            if not isinstance(model, ZeroShotClassifier):
                raise ModelError(f"{spec.name} is not a zero-shot classifier; name another model")
            loaded[spec.name] = model
        hashes = ", ".join(f"{name} {sha256[:12]}" for name, sha256 in weights.items())
        digest = hashlib.sha256(f"{TEMPLATE}{DISTRACTOR}".encode()).hexdigest()[:6]
        self.name = f"{hashes} (the last for consistency), prompts {digest}"
        texts = [TEMPLATE.format(noun) for noun in classes]
        self._witness = loaded[witnesses[0].name]
        self._members = [loaded[spec.name] for spec in specs]
        self._texts = [member.embed_texts(texts) for member in self._members]
        self._truths = self._witness.embed_texts([*texts, DISTRACTOR])

    def probabilities(self, pictures: Sequence[Generated]) -> DoubleArray:
        """The softmax of each member over the classes, of shape (members, n, classes)."""
        images = [picture.image for picture in pictures]
        members = zip(self._members, self._texts, strict=True)
        return np.stack([_shares(member, images, texts) for member, texts in members])

    def consistency(self, pictures: Sequence[Generated], label: int) -> DoubleArray:
        """The witness's softmax share of the class against `DISTRACTOR`, of shape (n,)."""
        images = [picture.image for picture in pictures]
        return _shares(self._witness, images, self._truths[[label, -1]])[:, 0]


def _shares(model: ZeroShotClassifier, images: Sequence[Image], texts: FloatArray) -> DoubleArray:
    """The softmax over the texts, of shape (images, texts)."""
    embedded = model.embed_images(model.prepare(images))
    logits = np.asarray(model.scoring.scale * (embedded @ texts.T), np.float64)
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares: DoubleArray = raised / raised.sum(axis=1, keepdims=True)
    return shares

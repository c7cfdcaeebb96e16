"""Any zero-shot classifiers as what a search attacks, and one more for semantic consistency."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import final

import numpy as np

from natadv.errors import ConfigError, ModelError
from natadv.models.loading import fingerprint, load_hashed
from natadv.models.resolve import resolve_all
from natadv.scenarios.langadv.generator import Generated
from natadv.types import DoubleArray, ModelSpec, ZeroShotClassifier

TEMPLATE = "a photo of a {}."
DISTRACTOR = "a photo of something else."
"""Semantic consistency is the share that the true prompt takes against this one."""


@final
class ZeroShotTarget:
    """Members answer by the single template, as the gate asks them."""

    def __init__(
        self,
        members: dict[str, ZeroShotClassifier],
        witness: ZeroShotClassifier,
        classes: Sequence[str],
        *,
        name: str,
    ) -> None:
        """`witness` gives the semantic consistency."""
        self.name = name
        self._members, self._witness = members, witness
        texts = [TEMPLATE.format(noun) for noun in classes]
        self._rows = {key: member.embed_texts(texts) for key, member in members.items()}
        self._truths = witness.embed_texts([*texts, DISTRACTOR])

    def probabilities(self, pictures: Sequence[Generated]) -> DoubleArray:
        images = [picture.image for picture in pictures]
        found = []
        for key, member in self._members.items():
            seen = member.embed_images(member.prepare(images))
            found.append(_softmax(member.scoring.scale * (seen @ self._rows[key].T)))
        return np.stack(found)

    def consistency(self, pictures: Sequence[Generated], label: int) -> DoubleArray:
        witness = self._witness
        seen = witness.embed_images(witness.prepare([picture.image for picture in pictures]))
        pair = self._truths[[label, -1]]
        share: DoubleArray = _softmax(witness.scoring.scale * (seen @ pair.T))[:, 0]
        return share


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
    """Models as `pytest --model` takes them.

    Raises ConfigError if the witness is attacked itself: its word would then be worth nothing.
    """
    specs = resolve_all(tuple(names), root=root)
    judges = resolve_all((witness,), root=root)
    if len(judges) != 1:
        raise ConfigError(f"semantic consistency needs one model, {witness!r} names {len(judges)}")
    if judges[0].name in {spec.name for spec in specs}:
        raise ConfigError(
            f"{judges[0].name} is attacked and cannot tell semantic consistency too; name another "
            "--consistency model"
        )
    weights = {spec.name: fingerprint(spec) for spec in (*specs, *judges)}
    loaded = {
        spec.name: _loaded(spec, weights[spec.name], device=device, dtype=dtype, threads=threads)
        for spec in (*specs, *judges)
    }
    hashes = ", ".join(f"{name} {found[:12]}" for name, found in weights.items())
    digest = hashlib.sha256(f"{TEMPLATE}{DISTRACTOR}".encode()).hexdigest()[:6]
    return ZeroShotTarget(
        {spec.name: loaded[spec.name] for spec in specs},
        loaded[judges[0].name],
        classes,
        name=f"{hashes} (the last for consistency), prompts {digest}",
    )


def _loaded(
    spec: ModelSpec, weights: str, *, device: str, dtype: str | None, threads: int
) -> ZeroShotClassifier:
    arithmetic = dtype or ("float32" if device == "cpu" else spec.gpu_dtype)
    model = load_hashed(spec, weights=weights, device=device, dtype=arithmetic, threads=threads)
    if not isinstance(model, ZeroShotClassifier):
        raise ModelError(f"{spec.name} is no zero-shot classifier; name another model")
    return model


def _softmax(logits: object) -> DoubleArray:
    values = np.asarray(logits, np.float64)
    raised = np.exp(values - values.max(axis=1, keepdims=True))
    shares: DoubleArray = raised / raised.sum(axis=1, keepdims=True)
    return shares

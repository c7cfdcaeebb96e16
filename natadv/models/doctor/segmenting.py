"""What a model that finds what a phrase means must do, whatever it was trained on."""

from __future__ import annotations

import numpy as np

from natadv.models.doctor.findings import Check, Finding, Patient, pictures
from natadv.types import FloatArray, Segmenter

PHRASES = ("a cat", "the green bird on the left", "grass")


def probabilities(patient: Patient) -> Finding:
    found = _masks(patient)
    told = f"{found.shape[1]} x {found.shape[2]} pixels, {found.min():.3g} to {found.max():.3g}"
    if not (np.isfinite(found).all() and found.min() >= 0 and found.max() <= 1):
        return Finding(False, f"{told}, expected 0 to 1; apply the sigmoid, once")
    return Finding(True, told)


def repeatable(patient: Patient) -> Finding:
    first, second = (_masks(patient) for _ in range(2))
    if first.tobytes() != second.tobytes():
        return Finding(False, "two calls differ; switch dropout off (eval mode)")
    return Finding(True, "two calls give the same bytes")


def batch_size(patient: Patient) -> Finding:
    together = _masks(patient)
    alone = np.concatenate([_masks(patient, only=i) for i in range(len(PHRASES))])
    moved = float(np.abs(together - alone).max())
    told = f"alone or together, probabilities differ by up to {moved:.1g}"
    if moved > patient.tolerance:
        return Finding(False, f"{told}; pad phrases to the full context, as in training")
    return Finding(True, told)


CHECKS: dict[str, Check] = {
    "masks": probabilities,
    "same twice": repeatable,
    "batch size": batch_size,
}


def _masks(patient: Patient, *, only: int | None = None) -> FloatArray:
    assert isinstance(patient.model, Segmenter)
    images = pictures()[: len(PHRASES)]
    if only is None:
        return patient.model.segment(images, PHRASES)
    return patient.model.segment(images[only : only + 1], PHRASES[only : only + 1])

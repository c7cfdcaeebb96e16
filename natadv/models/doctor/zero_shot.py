"""What a zero-shot classifier must do, whatever it was trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from natadv.errors import ModelError
from natadv.models.doctor.findings import Check, Finding, Patient, pictures
from natadv.types import FloatArray, ZeroShotClassifier

if TYPE_CHECKING:
    from PIL.Image import Image

TEXTS = ("a photo of a cat.", "a photo of a dog.", "a drawing of two green birds on the grass.")
SPELLINGS = ("a photo of a cat.", "A PHOTO OF A CAT.")
PUNCTUATED = ("a photo of a cat", "A photo of a cat!")
WIDEST_PIXEL = 6.0
"""No preprocessing in use makes a white or black pixel larger than this."""


def finite(patient: Patient) -> Finding:
    rows = np.concatenate([_seen(patient, pictures()), _read(patient, TEXTS)])
    lengths = np.linalg.norm(rows, axis=1)
    if not np.isfinite(rows).all() or np.abs(lengths - 1).max() > 1e-3:
        return Finding(
            False,
            f"embeddings have lengths {lengths.min():.3g} to {lengths.max():.3g}, expected 1; "
            "the weights are damaged, or need --dtype float32",
        )
    return Finding(True, f"{rows.shape[1]} dimensions, finite, of unit length")


def repeatable(patient: Patient) -> Finding:
    first, second = (_seen(patient, pictures()) for _ in range(2))
    read = [_read(patient, TEXTS) for _ in range(2)]
    if first.tobytes() != second.tobytes() or read[0].tobytes() != read[1].tobytes():
        moved = np.abs(first - second).max()
        return Finding(
            False,
            f"two calls differ by up to {moved:.2g}; switch dropout off (eval mode) and draw no "
            "random crops",
        )
    return Finding(True, "two calls give the same bytes")


def batch_size(patient: Patient) -> Finding:
    """How far kernel noise can reach: where it may flip an answer, and where it may not."""
    images = pictures()
    together = _seen(patient, images)
    alone = np.concatenate([_seen(patient, [image]) for image in images])
    moved = float(np.abs(together - alone).max())
    texts = _read(patient, TEXTS)
    logits = [rows @ texts.T * _classifier(patient).scoring.scale for rows in (together, alone)]
    band = 2 * float(np.abs(logits[0] - logits[1]).max())
    told = f"alone or together, embeddings differ by up to {moved:.1g}"
    if moved > patient.tolerance:
        return Finding(
            False, f"{told}, more than {patient.dtype} explains; the pictures of a batch interact"
        )
    return Finding(
        True, f"{told}; an answer can flip only where two classes are within {band:.1g} logits"
    )


def padding(patient: Patient) -> Finding:
    alone = _read(patient, TEXTS[:1])
    beside = _read(patient, (TEXTS[0], "a very long text about many different animals " * 12))
    moved = float(np.abs(alone[0] - beside[0]).max())
    if moved > patient.tolerance:
        return Finding(
            False,
            f"a text's embedding moves by {moved:.2g} beside a longer one; pad every text to the "
            "full context, as in training",
        )
    return Finding(True, f"a longer text beside it moves a text's embedding by {moved:.1g}")


def spelling(patient: Patient) -> Finding:
    """Prompts must be written as in training; models that came in as a plug may do as they like."""
    canonical = patient.spec.loader.startswith("transformers-siglip")
    pair = PUNCTUATED if canonical else SPELLINGS
    rows = _read(patient, pair)
    moved = float(np.abs(rows[0] - rows[1]).max())
    told = f"{pair[0]!r} and {pair[1]!r} differ by {moved:.1g}"
    if moved <= patient.tolerance or patient.spec.loader == "plugged":
        return Finding(True, told)
    if patient.spec.feeding == "paper":
        return Finding(True, f"{told}, as in the paper's scripts, which did not spell as trained")
    return Finding(
        False,
        f"{told}; prompts have to be lower-cased, as in training: check tokenizer_config.json",
    )


def scoring(patient: Patient) -> Finding:
    found = _classifier(patient).scoring
    told = f"scale {found.scale:.4g}, bias {found.bias:.4g}, {found.activation}"
    # CLIP's training clips its scale at 100; SigLIP's ends at about 110 with a bias of about -16.
    if not (1.0 <= found.scale <= 300.0 and -100.0 <= found.bias <= 0.0):
        return Finding(
            False, f"{told}: no trained model is scaled so; store logit_scale as a logarithm"
        )
    return Finding(True, told)


def image_range(patient: Patient) -> Finding:
    """A picture that is not scaled, or scaled twice, or around another mean than in training,
    still gives an answer."""
    from PIL import Image

    flat = [Image.new("RGB", (256, 256), (level,) * 3) for level in (0, 255)]
    prepared = _classifier(patient).prepare(flat)
    if not isinstance(prepared, Mapping) or "pixel_values" not in prepared:
        return Finding(True, "not examined: this model keeps its preprocessing to itself")
    black, white = (float(prepared["pixel_values"][i].float().mean()) for i in (0, 1))
    told = f"black becomes {black:.3g}, white {white:.3g}"
    # Every tower of the field is trained on pictures around 0.
    if not (white - black > 1.0 and black < 0 < white and max(-black, white) < WIDEST_PIXEL):
        return Finding(
            False,
            f"{told}, expected about -2 and 2: set do_rescale, rescale_factor (1/255), image_mean "
            "and image_std in the preprocessing config as in training",
        )
    return Finding(True, told)


def discernment(patient: Patient) -> Finding:
    rows, texts = _seen(patient, pictures()), _read(patient, TEXTS)
    nearest = [float((r @ r.T - 2 * np.eye(len(r))).max()) for r in (rows, texts)]
    if max(nearest) > 1 - 1e-6:
        return Finding(
            False, "different inputs give one embedding; the weights are damaged or untrained"
        )
    return Finding(True, f"different pictures are at most {nearest[0]:.4f} alike")


def known_answers(patient: Patient) -> Finding:
    """On pictures that are called after what they show."""
    from PIL import Image

    if patient.known is None:
        return Finding(True, "none on record for this model; give --known FOLDER")
    paths = sorted(patient.known.glob("*.png")) + sorted(patient.known.glob("*.jpg"))
    if len(paths) < 2:
        raise ModelError(f"{patient.known}: expected at least two pictures called CLASS.png")
    texts = _read(patient, [f"a photo of a {path.stem}." for path in paths])
    images = _seen(patient, [Image.open(path).convert("RGB") for path in paths])
    answers = (images @ texts.T).argmax(axis=1)
    wrong = [f"{p.stem} for {paths[a].stem}" for p, a in zip(paths, answers, strict=True)]
    wrong = [text for text, a, i in zip(wrong, answers, range(len(paths)), strict=True) if a != i]
    if wrong:
        return Finding(
            False,
            f"{len(wrong)} of {len(paths)} pictures not recognised (took {', '.join(wrong[:3])}); "
            "weights, preprocessing or tokenizer are not those of training",
        )
    return Finding(True, f"all {len(paths)} pictures in {patient.known.name} recognised")


CHECKS: dict[str, Check] = {
    "embeddings": finite,
    "same twice": repeatable,
    "batch size": batch_size,
    "text padding": padding,
    "spelling": spelling,
    "scale and bias": scoring,
    "image range": image_range,
    "discernment": discernment,
    "known answers": known_answers,
}


def _classifier(patient: Patient) -> ZeroShotClassifier:
    assert isinstance(patient.model, ZeroShotClassifier)
    return patient.model


def _seen(patient: Patient, images: Sequence[Image]) -> FloatArray:
    model = _classifier(patient)
    return model.embed_images(model.prepare(images))


def _read(patient: Patient, texts: Sequence[str]) -> FloatArray:
    return _classifier(patient).embed_texts(texts)

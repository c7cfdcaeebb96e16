"""`natadv doctor`: is this model fed as it was trained, and how far can its numbers be trusted?"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from natadv.errors import ModelError, NatadvError, listed
from natadv.factories import one_line
from natadv.models.loading import content_files, fingerprint, load
from natadv.models.plugged import check_classes
from natadv.rng import rng_for
from natadv.types import (
    UNIT_TOLERANCE,
    Answerer,
    Classifier,
    DoubleArray,
    FloatArray,
    Model,
    ModelSpec,
    Segmenter,
    ZeroShotClassifier,
)

if TYPE_CHECKING:
    from PIL.Image import Image

TEXTS = ("a photo of a cat.", "a photo of a dog.", "a drawing of two green birds on the grass.")
SPELLINGS = ("a photo of a cat.", "A PHOTO OF A CAT.")
PUNCTUATED = ("a photo of a cat", "A photo of a cat!")
PHRASES = ("a cat", "the green bird on the left", "grass")
QUESTIONS = ("What colour is this?", "Is there a cat?", "How many birds are in the picture?")

CLASSES = ("cat", "dog", "bird")
"""Class names for a classifier that takes any."""

WIDEST_PIXEL = 6.0
"""No preprocessing in use makes a white or black pixel larger than this."""


@dataclass(frozen=True, slots=True)
class Patient:
    """A loaded model under examination."""

    spec: ModelSpec
    model: Model
    dtype: str
    known: Path | None = None
    """A folder of pictures, each named after its class."""
    asked: tuple[str, ...] = ()
    """Class names of a dataset that it must know."""

    @property
    def tolerance(self) -> float:
        """How far rounding alone may move a number of about 1."""
        return {"float32": 1e-4, "float16": 1e-2, "bfloat16": 5e-2}[self.dtype]

    @property
    def classifier(self) -> ZeroShotClassifier:
        """The model of a classification task."""
        assert isinstance(self.model, ZeroShotClassifier)
        return self.model

    def embed_images(self, images: Sequence[Image]) -> FloatArray:
        """Embeddings of shape (b, d)."""
        return self.classifier.embed_images(self.classifier.prepare(images))

    def embed_texts(self, texts: Sequence[str]) -> FloatArray:
        """Embeddings of shape (c, d)."""
        return self.classifier.embed_texts(texts)

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names for a classifier: all that it knows, or some if it takes any."""
        return self.spec.classes or self.asked or CLASSES

    def logits(self, images: Sequence[Image], classes: Sequence[str] = ()) -> DoubleArray:
        """Logits of shape (b, c) for `classes`, by default those of the patient."""
        assert isinstance(self.model, Classifier)
        return np.asarray(self.model.classify(images, classes or self.classes), np.float64)

    def masks(self, rows: slice = slice(None)) -> FloatArray:
        """Masks of shape (b, h, w) for those of PHRASES."""
        assert isinstance(self.model, Segmenter)
        return self.model.segment(pictures()[: len(PHRASES)][rows], PHRASES[rows])

    def answers(self, rows: slice = slice(None)) -> tuple[str, ...]:
        """Answers to those of QUESTIONS."""
        assert isinstance(self.model, Answerer)
        return self.model.answer(pictures()[: len(QUESTIONS)][rows], QUESTIONS[rows])


class Finding(NamedTuple):
    """The outcome of a check; the text of a failure says what to do."""

    check: str
    ok: bool
    text: str

    def __str__(self) -> str:
        return f"{'ok  ' if self.ok else 'FAIL'}  {self.check:<15} {self.text}"


Check = Callable[[Patient], str]
"""Returns what it measured. Raises ModelError if the model fails the check."""


def examine(
    spec: ModelSpec,
    *,
    device: str,
    dtype: str,
    known: Path | None = None,
    classes: tuple[str, ...] = (),
) -> Iterator[Finding]:
    """Yield the finding of each check; a model that cannot be loaded is not examined further.

    `known` is a folder of pictures that the model must recognise, each named after its class;
    `classes` are class names that it must know.
    """
    patients: list[Patient] = []

    def _loading() -> str:
        began = time.perf_counter()
        model = load(spec, device=device, dtype=dtype, threads=1)
        patients.append(Patient(spec, model, dtype, known, classes))
        wall_s = time.perf_counter() - began
        return f"{spec.loader}, {dtype} on {device}, {wall_s:.1f} s"

    yield _finding("files", partial(_files, spec))
    yield _finding("loading", _loading)
    for patient in patients:
        for task in spec.tasks:
            by_logits = task == "classification" and isinstance(patient.model, Classifier)
            for name, check in (LOGIT_CHECKS if by_logits else CHECKS[task]).items():
                yield _finding(name, partial(check, patient))


def _finding(name: str, check: Callable[[], str]) -> Finding:
    try:
        return Finding(name, True, check())
    except NatadvError as error:
        return Finding(name, False, str(error))
    # A border: a faulty model may raise anything.
    except Exception as error:
        return Finding(name, False, f"{type(error).__name__}: {error}")


def _files(spec: ModelSpec) -> str:
    weights, files = fingerprint(spec), content_files(spec)
    locked = ", as models.lock says" if spec.locked else ""
    size_mb = sum(path.stat().st_size for path in files) / 1e6
    return f"{len(files)} files, {size_mb:.1f} MB, hash {weights[:12]}{locked}"


def _require(holds: bool | np.bool_, fault: str) -> None:
    if not holds:
        raise ModelError(fault)


def pictures() -> list[Image]:
    """Eight RGB pictures of several shapes, the same everywhere."""
    from PIL import Image

    rng = rng_for("doctor")
    shapes = [(64, 64), (120, 80), (80, 120), (224, 224), (300, 200), (33, 50), (256, 64), (90, 90)]
    coarse = [rng.integers(0, 256, (6, 6, 3), dtype=np.uint8) for _ in shapes]
    return [
        Image.fromarray(pixels).resize(shape, Image.Resampling.BICUBIC)
        for pixels, shape in zip(coarse, shapes, strict=True)
    ]


def unit_embeddings(patient: Patient) -> str:
    """Embeddings are finite and of unit length."""
    rows = np.concatenate([patient.embed_images(pictures()), patient.embed_texts(TEXTS)])
    lengths = np.linalg.norm(rows, axis=1)
    _require(
        np.isfinite(rows).all() and np.abs(lengths - 1).max() <= UNIT_TOLERANCE,
        f"embeddings have lengths {lengths.min():.3g} to {lengths.max():.3g}, expected 1; "
        "the weights are damaged, or need --dtype float32",
    )
    return f"{rows.shape[1]} dimensions, finite, of unit length"


def same_embeddings(patient: Patient) -> str:
    """Two calls give the same bytes."""
    return _same_twice(
        lambda: np.concatenate([patient.embed_images(pictures()), patient.embed_texts(TEXTS)])
    )


def _same_twice(call: Callable[[], NDArray[Any]]) -> str:
    first, second = call(), call()
    _require(
        first.tobytes() == second.tobytes(),
        f"two calls differ by up to {np.abs(first - second).max():.2g}; switch dropout off (eval "
        "mode) and draw no random crops",
    )
    return "two calls give the same bytes"


def embeddings_in_batches(patient: Patient) -> str:
    """Measures how far kernel noise can reach, and thus where it may flip an answer."""
    images = pictures()
    together = patient.embed_images(images)
    alone = np.concatenate([patient.embed_images([image]) for image in images])
    moved = float(np.abs(together - alone).max())
    texts = patient.embed_texts(TEXTS)
    logits = [rows @ texts.T * patient.classifier.scoring.scale for rows in (together, alone)]
    band = 2 * float(np.abs(logits[0] - logits[1]).max())
    text = f"alone or together, embeddings differ by up to {moved:.1g}"
    _require(
        moved <= patient.tolerance,
        f"{text}, more than {patient.dtype} explains; the pictures of a batch interact",
    )
    return f"{text}; an answer can flip only where two classes are within {band:.1g} logits"


def text_padding(patient: Patient) -> str:
    """A longer text in the batch does not move a text's embedding."""
    alone = patient.embed_texts(TEXTS[:1])
    long = "a very long text about many different animals " * 12
    beside = patient.embed_texts((TEXTS[0], long))
    moved = float(np.abs(alone[0] - beside[0]).max())
    _require(
        moved <= patient.tolerance,
        f"a text's embedding moves by {moved:.2g} beside a longer one; pad every text to the full "
        "context, as in training",
    )
    return f"a longer text beside it moves a text's embedding by {moved:.1g}"


def spelling(patient: Patient) -> str:
    """Prompts must be spelled as in training; plugged models may spell as they like."""
    canonical = patient.spec.loader.startswith("transformers-siglip")
    pair = PUNCTUATED if canonical else SPELLINGS
    rows = patient.embed_texts(pair)
    moved = float(np.abs(rows[0] - rows[1]).max())
    text = f"{pair[0]!r} and {pair[1]!r} differ by {moved:.1g}"
    same = moved <= patient.tolerance or patient.spec.loader == "plugged"
    if not same and patient.spec.feeding == "paper":
        return f"{text}, as in the paper's scripts, which did not spell as trained"
    fault = "; prompts have to be lower-cased, as in training: check tokenizer_config.json"
    _require(same, text + fault)
    return text


def scoring(patient: Patient) -> str:
    """Scale and bias are in the range of trained models."""
    scoring = patient.classifier.scoring
    text = f"scale {scoring.scale:.4g}, bias {scoring.bias:.4g}, {scoring.activation}"
    # CLIP's training clips its scale at 100; SigLIP's ends at about 110 with a bias of about -16.
    usual = 1.0 <= scoring.scale <= 300.0 and -100.0 <= scoring.bias <= 0.0
    _require(usual, f"{text}: no trained model is scaled so; store logit_scale as a logarithm")
    return text


def image_range(patient: Patient) -> str:
    """Pictures that are not scaled, scaled twice or centred on a wrong mean still get an answer."""
    from PIL import Image

    flat = [Image.new("RGB", (256, 256), (level,) * 3) for level in (0, 255)]
    prepared = patient.classifier.prepare(flat)
    if not isinstance(prepared, Mapping) or "pixel_values" not in prepared:
        return "not examined: this model keeps its preprocessing to itself"
    black, white = (float(prepared["pixel_values"][i].float().mean()) for i in (0, 1))
    text = f"black becomes {black:.3g}, white {white:.3g}"
    # Every tower of the field is trained on pictures around 0.
    _require(
        white - black > 1.0 and black < 0 < white and max(-black, white) < WIDEST_PIXEL,
        f"{text}, expected about -2 and 2: set do_rescale, rescale_factor (1/255), image_mean and "
        "image_std in the preprocessing config as in training",
    )
    return text


def discernment(patient: Patient) -> str:
    """Different inputs have different embeddings."""
    nearest = [
        float((rows @ rows.T - 2 * np.eye(len(rows))).max())
        for rows in (patient.embed_images(pictures()), patient.embed_texts(TEXTS))
    ]
    fault = "different inputs give one embedding; the weights are damaged or untrained"
    _require(max(nearest) <= 1 - 1e-6, fault)
    return f"different pictures are at most {nearest[0]:.4f} alike"


def known_answers(patient: Patient) -> str:
    """Pictures that are named after their class are recognised."""
    from PIL import Image

    if patient.known is None:
        return "none on record for this model; give --known FOLDER"
    paths = sorted(patient.known.glob("*.png")) + sorted(patient.known.glob("*.jpg"))
    if len(paths) < 2:
        raise ModelError(f"{patient.known}: expected at least two pictures called CLASS.png")
    names, images = [path.stem for path in paths], [Image.open(p).convert("RGB") for p in paths]
    if isinstance(patient.model, Classifier):
        check_classes(patient.spec, names)
        logits = patient.logits(images, names)
    else:
        texts = patient.embed_texts([f"a photo of a {name}." for name in names])
        logits = np.asarray(patient.embed_images(images) @ texts.T, np.float64)
    wrong = [
        f"{path.stem} for {paths[answer].stem}"
        for path, answer in zip(paths, logits.argmax(axis=1), strict=True)
        if path is not paths[answer]
    ]
    _require(
        not wrong,
        f"{len(wrong)} of {len(paths)} pictures not recognised (took {', '.join(wrong[:3])}); "
        "weights, preprocessing or tokenizer are not those of training",
    )
    return f"all {len(paths)} pictures in {patient.known.name} recognised"


def class_names(patient: Patient) -> str:
    """It takes the class names, those of a dataset if some were given."""
    names, known = patient.asked or patient.classes, len(patient.spec.classes)
    check_classes(patient.spec, names)
    try:
        patient.logits(pictures()[:1], names)
    # A border: unknown names may raise anything.
    except Exception as error:
        raise ModelError(
            f"it does not classify by the names {listed([*map(repr, names)])}: "
            f"{one_line(error)}; a model that knows some names only says which: "
            "Plug(..., classes=NAMES)"
        ) from error
    if known and not patient.asked:
        return f"knows {known} class names only; --data NAME compares them with a dataset's"
    return f"takes {listed([*map(repr, names)])}"


def finite_logits(patient: Patient) -> str:
    """Logits are finite, with a row per picture and a column per class name."""
    logits, expected = patient.logits(pictures()), (len(pictures()), len(patient.classes))
    _require(
        logits.shape == expected,
        f"classify returns an array of shape {logits.shape} for {expected[0]} pictures and "
        f"{expected[1]} class names; return a row per picture and a column per name",
    )
    _require(
        np.isfinite(logits).all(),
        "logits are not finite; the weights are damaged, or need --dtype float32",
    )
    return f"{expected[1]} columns, finite, {logits.min():.3g} to {logits.max():.3g}"


def class_order(patient: Patient) -> str:
    """A column belongs to the class name at its place, whatever the order of the names."""
    names = patient.classes
    forwards, backwards = patient.logits(pictures()), patient.logits(pictures(), names[::-1])
    moved = float(np.abs(forwards - backwards[:, ::-1]).max())
    _require(
        moved <= patient.tolerance * max(1.0, float(np.abs(forwards).max())),
        f"with the class names in reverse, logits differ by up to {moved:.2g}; return the columns "
        "in the order of the names that classify is given",
    )
    return "columns follow the order of the class names"


def same_logits(patient: Patient) -> str:
    """Two calls give the same bytes."""
    return _same_twice(lambda: patient.logits(pictures()))


def logits_in_batches(patient: Patient) -> str:
    """Other pictures in the batch do not move a logit."""
    together = patient.logits(pictures())
    alone = np.concatenate([patient.logits([image]) for image in pictures()])
    moved = float(np.abs(together - alone).max())
    text = f"alone or together, logits differ by up to {moved:.1g}"
    _require(
        moved <= patient.tolerance * max(1.0, float(np.abs(together).max())),
        f"{text}, more than {patient.dtype} explains; the pictures of a batch interact: switch "
        "batch normalisation to eval mode",
    )
    return text


def different_logits(patient: Patient) -> str:
    """Different pictures have different logits."""
    logits = patient.logits(pictures())
    _require(
        len(np.unique(logits, axis=0)) == len(logits),
        "different pictures give the same logits; the weights are damaged or untrained",
    )
    return f"{len(logits)} different pictures have different logits"


def not_applicable(patient: Patient) -> str:
    """Names the checks of embeddings, which do not apply."""
    names = ", ".join(name for name in CHECKS["classification"] if name not in LOGIT_CHECKS)
    return f"{names}: {type(patient.model).__name__} gives logits, and no embeddings"


def probabilities(patient: Patient) -> str:
    """Masks are probabilities, not logits."""
    masks = patient.masks()
    text = f"{masks.shape[1]} x {masks.shape[2]} pixels, {masks.min():.3g} to {masks.max():.3g}"
    valid = np.isfinite(masks).all() and masks.min() >= 0 and masks.max() <= 1
    _require(valid, f"{text}, expected 0 to 1; apply the sigmoid, once")
    return text


def same_masks(patient: Patient) -> str:
    """Two calls give the same bytes."""
    return _same_twice(patient.masks)


def masks_in_batches(patient: Patient) -> str:
    """Other pictures in the batch do not move a mask."""
    together = patient.masks()
    alone = np.concatenate([patient.masks(slice(i, i + 1)) for i in range(len(PHRASES))])
    moved = float(np.abs(together - alone).max())
    text = f"alone or together, probabilities differ by up to {moved:.1g}"
    _require(moved <= patient.tolerance, f"{text}; pad phrases to the full context, as in training")
    return text


def same_answers(patient: Patient) -> str:
    """Two calls give the same answers."""
    first, second = patient.answers(), patient.answers()
    fault = f"two calls answer {first!r} and {second!r}; generate without sampling"
    _require(first == second, fault)
    return "two calls give the same answers"


def answers_in_batches(patient: Patient) -> str:
    """Other questions in the batch change no answer in float32."""
    together = patient.answers()
    alone = tuple(patient.answers(slice(i, i + 1))[0] for i in range(len(QUESTIONS)))
    changed = sum(a != b for a, b in zip(together, alone, strict=True))
    text = f"{changed} of {len(QUESTIONS)} answers change with the rest of the batch"
    # Half precision may flip a token where two are nearly alike.
    tolerable = not changed or patient.dtype != "float32"
    _require(tolerable, f"{text}; pad on the left, and mask the padding")
    return text


def only_the_answer(patient: Patient) -> str:
    """Answers do not repeat the question."""
    for question, answer in zip(QUESTIONS, patient.answers(), strict=True):
        fault = f"the answer {answer!r} repeats the prompt; decode the new tokens only"
        _require(question.rstrip("?").lower() not in answer.lower(), fault)
    return "answers contain no part of the prompt"


CHECKS: Mapping[str, Mapping[str, Check]] = {
    "classification": {
        "embeddings": unit_embeddings,
        "same twice": same_embeddings,
        "batch size": embeddings_in_batches,
        "text padding": text_padding,
        "spelling": spelling,
        "scale and bias": scoring,
        "image range": image_range,
        "discernment": discernment,
        "known answers": known_answers,
    },
    "segmentation": {
        "masks": probabilities,
        "same twice": same_masks,
        "batch size": masks_in_batches,
    },
    "vqa": {
        "same twice": same_answers,
        "batch size": answers_in_batches,
        "prompt": only_the_answer,
    },
}

LOGIT_CHECKS: Mapping[str, Check] = {
    "class names": class_names,
    "logits": finite_logits,
    "class order": class_order,
    "same twice": same_logits,
    "batch size": logits_in_batches,
    "discernment": different_logits,
    "known answers": known_answers,
    "not checked": not_applicable,
}
"""Those of a classifier that gives logits instead of embeddings."""

"""The values and roles that all rooms share, without behaviour."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from natadv.columns import Texts

if TYPE_CHECKING:
    from PIL.Image import Image

FloatArray = NDArray[np.float32]
DoubleArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

Attribute = Sequence[str] | Sequence[float] | DoubleArray
"""A column of an overlay attribute: a text or a number for each row."""

Variant = Literal["attack", "occlusion", "matched"]
Verdict = Literal["FAIL", "INCOMPLETE", "INCONCLUSIVE", "PASS"]
VERDICTS: tuple[Verdict, ...] = ("FAIL", "INCOMPLETE", "INCONCLUSIVE", "PASS")
"""The worst first."""
Overall = Literal["pass", "partial", "waived", "fail", "inconclusive", "incomplete"]
"""The verdict on a run. `partial`: all selected cases hold, and the tier has more cases. `waived`:
the cases that do not hold are all waived."""
GREEN: tuple[Overall, ...] = ("pass", "partial", "waived")
"""Verdicts of a run that was judged and holds; the last is the worst."""
State = Verdict | Literal["WAIVED", "MEASURED"]
"""A verdict, that of a rule or case which is waived, or that of a case which no rule judges."""
STATES: tuple[State, ...] = (*VERDICTS[:-1], "WAIVED", "MEASURED", "PASS")
"""The worst first."""

PLACES = (
    ("top left", "top", "top right"),
    ("left", "centre", "right"),
    ("bottom left", "bottom", "bottom right"),
)
"""Thirds of the picture, row by row."""

LEAST_ANSWERS = 4
"""Of people to a question: with fewer no answer could be fully right by the official accuracy, so
that exact match stands in for it."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One picture with its truth."""

    id: str
    """Unique within the dataset."""
    group: str
    """The source picture: the unit of resampling."""
    image: bytes
    """The encoded file (JPEG, PNG, WebP), never decoded pixels. Empty in a dataset whose pictures
    are drawn when they are shown."""
    label: int | None = None
    """Index into the card's classes."""
    decoy: str | None = None
    """The wrong word that is written on the picture."""
    twin: str | None = None
    """The id of the clean picture that this one was made from, or in the scenario `reading` of the
    attacked one that it shows again."""
    part: str = ""
    """A part of the dataset that is also measured alone (`seen`, `held-out`)."""
    overlay: str | None = None
    """The overlay that was drawn, as JSON, so that its controls can be drawn too."""
    facts: str = "{}"
    """Facts about the scene, as JSON."""
    phrase: str | None = None
    """Describes the region that a segmenter must find."""
    mask: bytes | None = None
    """That region: a PNG of the picture's size, 255 inside and 0 outside."""
    question: str | None = None
    answers: tuple[str, ...] = ()
    """The answers of people, one per person."""
    answer_type: str = ""
    """`yes/no`, `number` or `other`, as VQA v2 has it."""
    candidates: tuple[str, ...] = ()
    """The texts that a classifier chooses among for this sample, the name of its class among them;
    empty if it chooses among all classes of the card."""
    drawn_size: tuple[int, int] | None = None
    """Width and height of a picture that is drawn when it is shown; never packed, because they
    follow from its clean twin."""


@dataclass(frozen=True, slots=True, order=True, repr=False)
class Case:
    """One cell of the grid; its address names it everywhere."""

    task: str
    scenario: str
    dataset: str
    model: str

    @property
    def cell(self) -> str:
        """`task/scenario/dataset`, as a tier lists it for several models."""
        return f"{self.task}/{self.scenario}/{self.dataset}"

    @property
    def address(self) -> str:
        """`task/scenario/dataset/model`."""
        return f"{self.cell}/{self.model}"

    @property
    def file_stem(self) -> str:
        """Its address as the name of a folder, or of a file without a suffix."""
        return self.address.replace("/", "__")

    def __str__(self) -> str:
        return self.address

    def __repr__(self) -> str:
        # What pytest and Allure show for the parameter.
        return self.address


TEXT_COLUMNS = ("id", "group", "part", "twin", "decoy", "truth", "prediction")
"""Of `Outcomes`."""


@dataclass(frozen=True)
class Outcomes:
    """All rows of a case by column. A sample that errored is in `errors`, and in no column.

    Columns of text may be given as any sequence.
    """

    id: Texts
    group: Texts
    part: Texts
    twin: Texts
    """None where a sample has no clean twin."""
    decoy: Texts
    """None where nothing is written on the picture."""
    truth: Texts
    prediction: Texts
    values: Mapping[str, DoubleArray]
    """The task's numbers, one of length n per name. Classification: `correct` and `said_decoy`
    (0 or 1), `rank` (of the truth, 0 is first), `score` and `true_score` (probabilities), `margin`
    (true logit minus the best other one), and `choices` (number of candidates) only where samples
    bring candidates of their own. Segmentation: `tp`, `fp`, `fn` and `tn` (pixels), `iou`. VQA:
    `accuracy` and `simple` (0 to 1; exact match for a question with few answers), `exact` and
    `said_decoy` (0 or 1), and for the answer's type `yes_no`, `number` and `other` (0 or 1)."""
    errors: Mapping[str, str] = field(default_factory=dict)
    """Sample id -> why it has no outcome."""
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    """The attributes of each row's overlay, one column of length n per name; empty where no overlay
    is described."""

    def __post_init__(self) -> None:
        for name in TEXT_COLUMNS:
            object.__setattr__(self, name, Texts.of(getattr(self, name)))

    @property
    def n(self) -> int:
        """The number of rows, without errors."""
        return len(self.id)


@dataclass(frozen=True, slots=True)
class Measurement:
    """A metric of a case, with what it rests on."""

    metric: str
    value: float
    low: float
    high: float
    n: int
    groups: int
    excluded: int
    overlays: int = 0
    """Overlays that are a sample of a population, which the interval is about; 0 if it is about the
    overlays that were shown."""

    def __post_init__(self) -> None:
        if not all(map(math.isfinite, (self.value, self.low, self.high))):
            raise ValueError(f"{self.metric} is not finite: {self}")


class Scoring(Protocol):
    """How similarities become scores; each model brings its own."""

    @property
    def scale(self) -> float:
        """By which a similarity is multiplied."""
        ...

    @property
    def bias(self) -> float:
        """Added to the scaled similarity."""
        ...

    @property
    def activation(self) -> Literal["softmax", "sigmoid"]:
        """Makes a score of each logit."""
        ...


Prepared = Any
"""Preprocessed pictures in the form that one model takes."""


UNIT_TOLERANCE = 1e-3
"""How far the length of an embedding may be from 1; of bfloat16, normalise the float32 rows."""


@runtime_checkable
class ZeroShotClassifier(Protocol):
    """Embeds pictures and texts into one space. Rows are unit length (to UNIT_TOLERANCE), float32,
    on the host."""

    @property
    def scoring(self) -> Scoring:
        """How the model was trained to compare its embeddings."""
        ...

    def prepare(self, images: Sequence[Image]) -> Prepared:
        """Preprocess RGB pictures of any size for `embed_images`.

        Called on another thread than the rest, so that it overlaps with the forward pass; on
        several at once if the model has `concurrency = "prepare"` or `"all"`.
        """
        ...

    def embed_images(self, prepared: Prepared) -> FloatArray:
        """Embeddings of shape (b, d)."""
        ...

    def embed_texts(self, texts: Sequence[str]) -> FloatArray:
        """Embeddings of shape (c, d); canonicalises, pads and truncates as in training."""
        ...


Concurrency = Literal["nothing", "prepare", "all"]
"""What several threads may call at once: nothing; `prepare` alone; or the forward pass, too, which
helps where each computes on a core of its own. A model says it in an attribute `concurrency`."""


@runtime_checkable
class Classifier(Protocol):
    """Scores class names itself: a network with a linear head, or any other that has no embeddings
    to compare. A model that is both kinds of classifier is asked as this one."""

    def classify(self, images: Sequence[Image], classes: Sequence[str]) -> FloatArray:
        """Logits of shape (b, c), finite, on the host: a column for each of `classes`, in their
        order. The names are bare, as the dataset's card has them, without a prompt."""
        ...


class ForwardFeatures(NamedTuple):
    """The results of one pass through a picture tower."""

    embeddings: FloatArray
    """As `embed_images` returns them; of shape (b, 0) if the pass makes none that are comparable to
    texts."""
    features: tuple[FloatArray, ...]
    """For each layer that was asked for, of shape (b, h, w, d): no class token, rows from the
    top."""


@runtime_checkable
class DenseFeatures(Protocol):
    """Returns features of each place in a picture, for heads that are trained on them."""

    @property
    def depth(self) -> int:
        """Layers (of a residual network: stages) that can be asked for; 0 for none."""
        ...

    def prepare(self, images: Sequence[Image]) -> Prepared:
        """As that of `ZeroShotClassifier`."""
        ...

    def forward_features(self, prepared: Prepared, layers: Sequence[int]) -> ForwardFeatures:
        """The results of one pass, with the features of `layers`, counted from 1 at the input."""
        ...


@runtime_checkable
class Resizable(Protocol):
    """Reads pictures at other resolutions than that of its training."""

    def at_resolution(self, side_px: int) -> DenseFeatures:
        """The tower for whole pictures as squares of `side_px` pixels, with interpolated position
        embeddings; it makes no embeddings. Raises ModelError if the tower has one size only."""
        ...


@runtime_checkable
class TextEncoder(Protocol):
    """Embeds phrases and words, for heads; not necessarily into a space that pictures share."""

    def embed_texts(self, texts: Sequence[str]) -> FloatArray:
        """Unit rows of shape (c, d)."""
        ...


LayerSpan = Literal["last", "all"]
"""The layers whose attention a relevance map rests on; `last` is the published default."""


ReadTokens = Literal["class", "patches", "all", "embedding"]
"""What a sparse autoencoder reads: the class token, those of the patches, or both, of the state
after a layer; or the embedding of the picture, projected and not normalised."""

AutoencoderKind = Literal["relu", "topk", "batch-topk", "matryoshka"]


@runtime_checkable
class Explainable(Protocol):
    """Says which places of a picture speak for a class."""

    def prepare(self, images: Sequence[Image]) -> Prepared:
        """As that of `ZeroShotClassifier`."""
        ...

    def relevance(
        self, prepared: Prepared, targets: FloatArray, *, layers: LayerSpan = "last"
    ) -> FloatArray:
        """For each picture, how much each place raises its similarity to its target.

        Args:
            targets: One unit row per picture, of shape (b, d): the embedding of a class.

        Returns:
            Of shape (b, h, w) on the model's own grid, rows from the top; not negative, in no
            fixed unit.
        """
        ...


MaskedTokens = Literal["all", "class"]
"""The tokens for which the output of a head is zero: all of them, or only that of the class."""


@runtime_checkable
class HeadMaskable(Protocol):
    """Embeds pictures without single heads of the attention in its picture tower."""

    def prepare(self, images: Sequence[Image]) -> Prepared:
        """As that of `ZeroShotClassifier`."""
        ...

    def masked_embeddings(
        self, prepared: Prepared, *, tokens: MaskedTokens = "all"
    ) -> Iterator[FloatArray]:
        """For each layer, the first one first: unit rows of shape (heads, b, d), where the output
        of each head in turn is zero before the heads are mixed. All layers have the same number of
        heads. Raises ModelError for `class` if the tower has no token of the class."""
        ...


@runtime_checkable
class RegionExplainable(Protocol):
    """Says which places of a picture made it mark a region."""

    def region_relevance(self, images: Sequence[Image], phrases: Sequence[str]) -> FloatArray:
        """As that of `Explainable`, for the region that `segment` marks; zero everywhere where it
        marks nothing."""
        ...


@runtime_checkable
class AnswerExplainable(Protocol):
    """Says which places of a picture speak for an answer."""

    def answer_relevance(
        self,
        images: Sequence[Image],
        questions: Sequence[str],
        answers: Sequence[str],
        *,
        layers: LayerSpan = "last",
    ) -> FloatArray:
        """As that of `Explainable`, for the probability of each answer to its question."""
        ...


@runtime_checkable
class Segmenter(Protocol):
    """Finds the region that a phrase refers to.

    May have a `threshold`: the probability above which a pixel counts as found; 0.5 without one.
    """

    def segment(self, images: Sequence[Image], phrases: Sequence[str]) -> FloatArray:
        """Of shape (b, h, w) at the model's own resolution: the probability, 0 to 1, that a pixel
        belongs to what the phrase beside its picture means."""
        ...


@runtime_checkable
class Answerer(Protocol):
    """Answers questions about pictures in free text."""

    def answer(self, images: Sequence[Image], questions: Sequence[str]) -> tuple[str, ...]:
        """One answer per picture and question, without the prompt."""
        ...


@runtime_checkable
class RawTextEmbeddings(Protocol):
    """A zero-shot classifier that also gives text embeddings before they are normalised."""

    def embed_texts_raw(self, texts: Sequence[str]) -> FloatArray:
        """As `embed_texts`, but each embedding has the length that the tower gives it."""
        ...


Model = ZeroShotClassifier | Classifier | Segmenter | Answerer

Feeding = Literal["as-trained", "paper"]
"""`paper` repeats what the paper's scripts did, mistakes included; its results have floors of their
own."""

Averaging = Literal["unit", "raw"]
"""What the mean over the prompts of a class is taken of: embeddings of length one, or embeddings of
the length that the tower gives them. Its own length is one in either case."""

Exemplars = tuple[tuple[str, str], ...]
"""Questions with their answers."""

WAY = "@"
"""Separates a model's name from the way it is asked; rules for one way never apply to another."""

PAPER_SUFFIX = f"{WAY}paper"
"""Ends the name of a model that is fed as in the paper."""


HEADS_SUFFIX = f"{WAY}heads"
"""Ends the name of a model whose heads also do what it could do by itself."""


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A model that was named, found, and not yet loaded."""

    name: str
    """The last part of the case's address: ASCII, no slash."""
    lineage: str
    """The zoo row whose floors this checkpoint inherits; its own name for a row of the zoo."""
    family: str
    folder: Path
    """The folder, or the single file, that holds it."""
    loader: str
    """Key of the adapter table."""
    tasks: tuple[str, ...]
    feeding: Feeding = "as-trained"
    activation: str | None = None
    """`gelu` or `quick_gelu`, if it is known which one the weights were trained with."""
    gpu_dtype: str = "float32"
    """Its arithmetic on a GPU, unless the user chooses another."""
    gpus: int = 1
    """GPUs that it is spread over."""
    locked: Mapping[str, str] = field(default_factory=dict)
    """File name -> the sha256 that the file must have; empty if none is locked."""
    factory: str = ""
    """`module:factory`, if it comes from outside."""
    base: Path | None = None
    """Where that module and its files may lie."""
    classes: tuple[str, ...] = ()
    """The only class names that it knows; empty if it takes any."""
    tower_of: Path | None = None
    """The folder whose picture tower this file replaces."""
    exemplars: Exemplars | None = None
    """What it reads before each question; None for what its row of the zoo says."""
    heads: Mapping[str, Path] = field(default_factory=dict)
    """Task -> the folder of the head that does it on top of the picture tower."""
    locked_heads: Mapping[str, str] = field(default_factory=dict)
    """Task -> the sha256 that the config of its head must have, for heads of the hub."""

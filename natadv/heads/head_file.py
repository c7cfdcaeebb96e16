"""The `config.json` of a head: the sizes that build it, and its verified files; without torch."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from natadv.config import Strict, dotted
from natadv.errors import ConfigError, ModelError
from natadv.storage import trained_folder
from natadv.storage.trained_folder import CONFIG, WEIGHTS

WORDS = "words.json"
ANSWERS = "answers.json"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt")

VERSION = "1"
"""Raised by hand when the same files compute something else."""

HeadTask = Literal["segmentation", "vqa"]
Upsampling = Literal["transposed", "refined", "bilinear"]

FILES: dict[HeadTask, tuple[str, ...]] = {
    "segmentation": (WEIGHTS,),
    "vqa": (WEIGHTS, WORDS, ANSWERS),
}
"""The files beside the config."""

SHA256 = "^[0-9a-f]{64}$"
Sha256 = Annotated[str, Field(pattern=SHA256)]

MAX_SIZE = 1_000_000
"""Limits every width and vocabulary, so that the product of two sizes can still be counted."""
MAX_BLOCKS = 1000
"""Limits blocks and layers: all are built before they are compared with the weights."""
MAX_SIDE = 1024
"""Limits patch and grid: no weight bounds the size of the mask that they produce."""
MAX_INPUT_PX = 4096
"""Limits what the tower reads, for the same reason."""

_UNEVEN = {27: (7, 13, 20), 39: (10, 20, 30)}
"""Blocks, counted from 0, at depths that are not multiples of 4; no rounding rule yields both."""

_STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


@dataclass(frozen=True, slots=True)
class DecoderConfig:
    """A decoder after CLIPSeg for one tower; the defaults are those of `clipseg-rd64`. Raises
    ConfigError if no decoder has such sizes."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    layers: tuple[int, ...]
    """The tower layers whose output it reads, counted from 1 at the input, in rising order."""
    widths: tuple[int, ...]
    """The width of each of these layers."""
    condition_width: int
    """Dimensions of the phrase embedding."""
    patch: int
    """Side, in pixels, of the square that is predicted for one place of the grid."""
    upsample: Upsampling = "transposed"
    """`transposed`: one transposed convolution. `refined`: two of them, after a convolution.
    `bilinear`: convolutions on the grid, then interpolation: light, and for any patch size."""
    grid: int | None = None
    """Side of the square grid that layers of several resolutions (a residual network) are resized
    to; otherwise None."""
    class_token: bool = False
    """Whether the tower's class token takes part in the attention, as in CLIPSeg. The dense
    features of towers do not include it, so a head that is trained on them does not use it."""
    reduce_width: int = 64
    heads: int = 4
    feed_forward: int = 2048
    threshold: float = 0.5
    """A pixel belongs to the phrase where its probability is higher."""
    input_px: int | None = None
    """The side of the squares that the tower reads, if it is not that of the tower's training."""

    def __post_init__(self) -> None:
        rising = all(a < b for a, b in zip((0, *self.layers), self.layers, strict=False))
        _require(bool(self.layers) and rising, "layers that rise, from 1", self.layers)
        _require(self.layers[-1] <= MAX_BLOCKS, f"layers up to {MAX_BLOCKS}", self.layers)
        _require(len(self.widths) == len(self.layers), "widths, one per layer", self.widths)
        grid = 1 if self.grid is None else self.grid
        sizes = (*self.widths, self.condition_width, self.reduce_width, self.heads)
        side_px = 1 if self.input_px is None else self.input_px
        _check_sizes(self, *sizes, self.feed_forward, self.patch, grid, side_px)
        sides = f"patch and grid of at most {MAX_SIDE}"
        _require(max(self.patch, grid) <= MAX_SIDE, sides, self)
        _require(side_px <= MAX_INPUT_PX, f"input_px of at most {MAX_INPUT_PX}", self.input_px)
        _require(self.reduce_width % self.heads == 0, "reduce_width in equal heads", self)
        _require(0 < self.threshold < 1, "a threshold between 0 and 1", self.threshold)
        if self.upsample == "refined":
            even = "an even reduce_width if refined"
            _require(self.reduce_width % 2 == 0, even, self.reduce_width)
            product = "a patch that is a product if refined (else use 'transposed' or 'bilinear')"
            _require(min(refined_kernels(self.patch)) > 1, product, self.patch)


@dataclass(frozen=True, slots=True)
class McanConfig:
    """MCAN for one tower and one vocabulary; the defaults are those of the small published model.
    Raises ConfigError if no MCAN has such sizes."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    words: int
    """Rows of the word embedding: the vocabulary, PAD and UNK."""
    answers: int
    layer: int
    """The tower layer whose output it reads, counted from 1 at the input."""
    image_width: int
    """The width of that layer."""
    embedding: int = 300
    hidden: int = 512
    heads: int = 8
    feed_forward: int = 2048
    blocks: int = 6
    """Self-attention blocks for the question, and as many guided-attention blocks for the image."""
    summary: int = 512
    """Hidden width of the network that weights words and places before they are averaged."""
    fused: int = 1024
    dropout: float = 0.1

    def __post_init__(self) -> None:
        _require(self.words > 2, "words besides PAD and UNK, so at least 3", self.words)
        _require(self.answers > 1, "at least 2 answers to choose from", self.answers)
        widths = (self.image_width, self.embedding, self.hidden, self.feed_forward)
        counts = (self.words, self.answers, self.layer, self.heads, self.blocks)
        _check_sizes(self, *widths, *counts, self.summary, self.fused)
        _require(max(self.blocks, self.layer) <= MAX_BLOCKS, f"at most {MAX_BLOCKS} blocks", self)
        _require(self.hidden % self.heads == 0, "hidden in equal heads", self)
        # A single number has no unbiased deviation.
        _require(min(self.hidden, self.fused) > 1, "hidden and fused of at least 2", self)
        _require(0 <= self.dropout < 1, "dropout from 0 to below 1", self.dropout)


def _check_sizes(config: object, *sizes: int) -> None:
    _require(min(sizes) > 0, "sizes of at least 1", config)
    _require(max(sizes) <= MAX_SIZE, f"sizes of at most {MAX_SIZE}", config)


def _require(holds: bool, expected: str, got: object) -> None:
    if not holds:
        raise ConfigError(f"expected {expected}, got {got!r}")


def default_layers(depth: int) -> tuple[int, ...]:
    """The layers, counted from 1, that a decoder reads from a tower of `depth` layers.

    CLIPSeg reads the output of blocks 3, 6 and 9 of 12, counted from 0: layers 4, 7 and 10.
    All layers are read from a tower of fewer than three. Raises ConfigError for an empty tower.
    """
    _require(depth > 0, "a tower of at least one layer", depth)
    blocks = _UNEVEN.get(depth, tuple(depth * quarter // 4 for quarter in (1, 2, 3)))
    return tuple(sorted({block + 1 for block in blocks}))


def refined_kernels(patch: int) -> tuple[int, int]:
    """Kernel sides of two transposed convolutions that fill a patch: its most equal factors.

    For 16 pixels these are 4 and 4, as in CLIPSeg, whose own rule fits no other patch.
    """
    smaller = max(side for side in range(1, math.isqrt(patch) + 1) if patch % side == 0)
    return patch // smaller, smaller


class _HeadFile(Strict):
    """The part of `config.json` that all heads share."""

    format: Literal[1]
    tower: Sha256
    """Fingerprint of the model whose tower the head was trained on."""
    files: dict[str, Sha256]
    """sha256 of the files beside it, so that files of two heads are never mixed."""


class DecoderFile(_HeadFile):
    """The `config.json` of a decoder."""

    task: Literal["segmentation"]
    config: DecoderConfig


class McanFile(_HeadFile):
    """The `config.json` of an MCAN."""

    task: Literal["vqa"]
    config: McanConfig


HeadFile = DecoderFile | McanFile

_SCHEMA: TypeAdapter[HeadFile] = TypeAdapter(Annotated[HeadFile, Field(discriminator="task")])


def read_head_file(folder: Path) -> HeadFile:
    """The config of the head in `folder`. Raises ModelError if it is missing or invalid."""
    path = folder / CONFIG
    if not path.is_file():
        raise ModelError(
            f"no {CONFIG} in {folder}: expected a folder that natadv train has written "
            f"({', '.join((CONFIG, *FILES['vqa']))})"
        )
    try:
        described = _SCHEMA.validate_json(path.read_bytes())
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error}") from error
    except ValidationError as error:
        raise ModelError(
            f"{path}: not the config of a head: {_in_one_line(error)}; copy the whole folder "
            "again, or train the head again"
        ) from error
    except ConfigError as error:
        raise ModelError(f"{path}: {error}; train the head again") from error
    if set(described.files) != set(FILES[described.task]):
        raise ModelError(
            f"{path}: a head for {described.task} has the files "
            f"{', '.join(FILES[described.task])}, this one names "
            f"{', '.join(sorted(described.files)) or 'none'}; copy the whole folder again"
        )
    return described


def fingerprint(folder: Path) -> str:
    """sha256 over every file that affects an answer. Raises ModelError if one is damaged."""
    described = read_head_file(folder)
    for name in described.files:
        read_verified(folder, name, described)
    # The config contains the hashes of the other files.
    content = f"head {VERSION}\n".encode() + (folder / CONFIG).read_bytes()
    return hashlib.sha256(content).hexdigest()


def read_verified(folder: Path, name: str, described: HeadFile) -> bytes:
    """The content of one file, whose sha256 must be the one that the config names. Raises
    ModelError if it is missing, unreadable or different."""
    path = folder / name
    if not path.is_file():
        pickles = [path for pattern in PICKLES for path in sorted(folder.glob(pattern))]
        if name == WEIGHTS and pickles:
            raise ModelError(
                f"{folder} has weights only as {pickles[0].name}: a pickle can run code when it "
                f"is opened, so it is refused; train the head again, which writes {WEIGHTS}"
            )
    return trained_folder.read_verified(path, described.files[name], what="head")


def parse_words(content: bytes, path: Path) -> tuple[str, ...]:
    """The texts of a JSON list; `path` is named in errors. Raises ModelError."""
    try:
        words = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path}: expected JSON, got {error}; copy the file again") from error
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise ModelError(f"{path}: expected a JSON list of texts; copy the file again")
    return tuple(words)


def _in_one_line(error: ValidationError) -> str:
    faults = error.errors(include_url=False)
    first = faults[0]
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    # The first part of the place only names the kind of head.
    place = dotted(part for part in first["loc"] if part not in FILES) or "the file"
    return f"{place}: {first['msg'][:1].lower()}{first['msg'][1:]}{more}"

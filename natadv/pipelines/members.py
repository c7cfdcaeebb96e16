"""Models that help to make data: loaded as the gate loads them, embedding through its cache."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from natadv.errors import ConfigError, ModelError
from natadv.evaluate.code import numerics_here
from natadv.evaluate.embeddings import EmbeddingCache, space
from natadv.evaluate.loaded_model import LoadedModel, encode_pictures
from natadv.evaluate.model_runner import is_out_of_memory
from natadv.evaluate.units import AUTO, Numerics
from natadv.models.loading import fingerprint, load_hashed
from natadv.models.resolve import resolve, resolve_all
from natadv.tasks import classification
from natadv.types import DoubleArray, FloatArray, ModelSpec

if TYPE_CHECKING:
    from natadv.evaluate.pictures import Picture
    from natadv.pipelines.decoys import Vectors

STORE = Path(".natadv") / "store"
"""The gate's own: what one has embedded, the other need not."""
PROMPT = "a photo of a {}."


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """How a model computes; with the gate's defaults its embeddings are the gate's."""

    device: str = "cpu"
    batch_size: int = 64
    threads: int = 1

    def numerics(self, spec: ModelSpec, store: Path) -> Numerics:
        """Of units that are asked of this model and kept in `store`."""
        return numerics_here(
            store,
            device=self.device,
            dtype=AUTO,
            batch_size=self.batch_size,
            threads=self.threads,
        ).of(spec)


@dataclass(frozen=True, slots=True)
class Member:
    """A loaded model that embeds pictures and texts into one space."""

    name: str
    weights: str
    """Its fingerprint."""
    loaded: LoadedModel

    def class_weights(self, names: Sequence[str], templates: Sequence[str]) -> DoubleArray:
        """Unit rows of shape (names, d)."""
        return classification.class_weights(
            self.loaded.embed_texts(classification.prompts(names, templates)),
            classes=len(names),
            templates=len(templates),
        )

    def embedded(
        self, pictures: Mapping[str, Picture], broken: dict[str, str]
    ) -> dict[str, FloatArray]:
        """Vectors by key; a picture that cannot be decoded goes into `broken`."""
        found = self.loaded.cache.get(pictures)
        missing = {key: picture for key, picture in pictures.items() if key not in found}
        with _memory_told(self.name):
            for seen in encode_pictures(missing, broken, layers=(), loaded=self.loaded):
                found |= dict(zip(seen.keys, seen.embeddings, strict=True))
        return found

    def likelihoods(self, images: FloatArray, *, weights: DoubleArray) -> DoubleArray:
        """Of shape (n, c): p(class | picture), shared out among the classes.

        Also where a model scores each class on its own (sigmoid): such scores are small for every
        class, and would pass any threshold.
        """
        scoring = self.loaded.encoder.scoring
        found = classification.logits(images, weights=weights, scoring=scoring)
        return classification.probabilities(found, scoring=_Shared(scoring.scale, scoring.bias))


@dataclass(frozen=True, slots=True)
class _Shared:
    scale: float
    bias: float
    activation: Literal["softmax", "sigmoid"] = "softmax"


def find_ensemble(names: Sequence[str], *, root: Path) -> tuple[ModelSpec, ...]:
    """Every model that the names mean, checked to be able to classify."""
    if not names:
        raise ConfigError("an ensemble has at least one model, came none")
    specs = resolve_all(tuple(names), root=root)
    unable = [spec.name for spec in specs if "classification" not in spec.tasks]
    if unable:
        raise ModelError(
            f"{', '.join(unable)}: classifies nothing, so it is no member of an ensemble; "
            "leave it out"
        )
    return specs


def load_member(spec: ModelSpec, arithmetic: Arithmetic, *, root: Path) -> Member:
    numerics = arithmetic.numerics(spec, root / STORE)
    weights = fingerprint(spec)
    model = load_hashed(
        spec,
        weights=weights,
        device=numerics.device,
        dtype=numerics.dtype,
        threads=numerics.threads,
    )
    cache = EmbeddingCache(root / STORE / "embeddings", space(weights, numerics))
    return Member(spec.name, weights, LoadedModel(model, cache, arithmetic.batch_size))


def load_reader(name: str, arithmetic: Arithmetic, *, root: Path) -> Member:
    """The one model that `name` means, to read words with."""
    return load_member(one_model(name, root=root, wanted="to read with"), arithmetic, root=root)


def one_model(name: str, *, root: Path, wanted: str) -> ModelSpec:
    """The model that `name` means. Raises ConfigError where that is a family of several."""
    specs = resolve(name, root=root)
    if len(specs) != 1:
        told = ", ".join(spec.name for spec in specs)
        raise ConfigError(f"{name!r} means {len(specs)} models ({told}); name one {wanted}")
    return specs[0]


def vectors_of(member: Member, templates: Sequence[str]) -> Vectors:
    """How the member reads words, in these templates or in a plain one."""
    return partial(member.class_weights, templates=tuple(templates) or (PROMPT,))


@contextmanager
def _memory_told(name: str) -> Iterator[None]:
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise ModelError(f"{name}: out of memory; run again with a smaller --batch-size") from error

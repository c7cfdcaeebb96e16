"""A unit is one pure computation; its key names everything that its numbers depend on."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from importlib.util import find_spec
from typing import TYPE_CHECKING

from natadv.errors import ConfigError
from natadv.types import ModelSpec, Variant

if TYPE_CHECKING:
    from natadv.search.spec import SearchSpec

SHARD_ROWS = 256
"""Rows of a unit. Fixed, as a size that depended on the number of workers would change the keys."""

AUTO = "auto"

NUMERIC_PACKAGES = (
    "torch",
    "torchvision",
    "transformers",
    "tokenizers",
    "open_clip_torch",
    "pillow",
    "numpy",
)


@dataclass(frozen=True, slots=True)
class Numerics:
    """The settings, packages and code that may change the last bits of a number."""

    device: str
    """`cpu` or `cuda`: the kind, not the number."""
    dtype: str
    batch_size: int
    threads: int
    """Threads of one kernel on the CPU; fixed, so that more workers give the same sums. They are no
    part of a GPU's keys."""
    packages: Mapping[str, str] = field(default_factory=dict)
    code: str = ""
    """Hash of the code of this package that turns a unit into rows."""
    gpus_per_model: int = 1
    """GPUs that one model is spread over."""
    search_code: str = ""
    """Hash of the code that searches for attacks; it is part of the keys of searches only."""

    def of(self, spec: ModelSpec) -> Numerics:
        """With `auto` replaced: on a GPU by the dtype of the model's zoo row, else by float32."""
        if self.dtype != AUTO:
            return self
        return replace(self, dtype=spec.gpu_dtype if self.device == "cuda" else "float32")

    def key_facts(self) -> dict[str, object]:
        """What keys of units and of embeddings hold of these settings, as JSON."""
        facts: dict[str, object] = {
            "device": self.device,
            "dtype": self.dtype,
            "batch_size": self.batch_size,
            "threads": self.threads,
            "packages": dict(self.packages),
            "code": self.code,
            "gpus_per_model": self.gpus_per_model,
        }
        if self.device == "cuda":
            # They move no sum that a GPU computes.
            del facts["threads"]
        return facts


def installed_packages(*further: str) -> dict[str, str]:
    """Versions of the packages that compute, and of `further` ones."""
    return {name: version(name) for name in (*NUMERIC_PACKAGES, *further)}


def spreading_packages(device: str, *, dtype: str, gpus_per_model: int) -> tuple[str, ...]:
    """The packages that compute only where weights have 8 bits or lie on several GPUs.

    Raises ConfigError without a GPU, or if one of them is not installed.
    """
    names: tuple[str, ...] = ("accelerate",)
    if dtype == "int8":
        option, names = "--dtype int8", ("accelerate", "bitsandbytes")
    elif gpus_per_model > 1:
        option = "--gpus-per-model"
    else:
        return ()
    if device == "cpu":
        raise ConfigError(
            f"{option} needs GPUs, and this run is on the CPU; choose --device cuda, or leave the "
            "option out"
        )
    if missing := [name for name in names if find_spec(name) is None]:
        raise ConfigError(
            f"{option} needs {' and '.join(missing)}, which this environment lacks; run "
            f"pip install {' '.join(missing)}, or leave the option out"
        )
    return names


@dataclass(frozen=True, slots=True)
class Unit:
    """One task about rows `start` to `stop` of a dataset, for one model."""

    task: str
    dataset: str
    revision: str
    prompts: str
    """Digest of the classes and templates."""
    variant: Variant
    start: int
    stop: int
    model: str
    weights: str
    """Fingerprint of the model that is loaded."""
    protocol: str
    numerics: Numerics
    head: str = ""
    """Fingerprint of the head on top of the model; empty if the model does the task by itself."""
    search: SearchSpec | None = None
    """The search for an attack, if the unit is one; None for a unit of rows."""
    rows: tuple[int, ...] = ()
    """The rows, in rising order, if they are only some of those from `start` to `stop`."""

    @property
    def key(self) -> str:
        """Hash of everything that decides the result."""
        # Without names: a renamed checkpoint or dataset is not computed again.
        content = {
            "task": self.task,
            "revision": self.revision,
            "prompts": self.prompts,
            "variant": self.variant,
            "rows": self._rows_of_key,
            "weights": self.weights,
            "head": self.head,
            "protocol": self.protocol,
            "search": [self.search.plain(), self.numerics.search_code] if self.search else None,
            **self.numerics.key_facts(),
        }
        return digest(content)

    @property
    def rows_key(self) -> str:
        """Equal for all units that show the same rows to the same model."""
        if self.search:
            return self.key  # the pictures of a search depend on the predictions
        return digest(
            {
                "revision": self.revision,
                "variant": self.variant,
                "rows": self._rows_of_key,
                "weights": self.weights,
                **self.numerics.key_facts(),
            }
        )

    @property
    def _rows_of_key(self) -> object:
        return {"only": self.rows} if self.rows else [self.start, self.stop]

    @property
    def answers_with(self) -> str:
        """Hash of all weights that decide a prediction: those of the model and of its head."""
        return digest([self.weights, self.head]) if self.head else self.weights

    @property
    def samples(self) -> int:
        """How many rows it asks about; none for a search, which draws its own pictures."""
        return 0 if self.search else len(self.rows) or self.stop - self.start

    @property
    def length(self) -> int:
        """The most pictures that it may show, in multiples of a full shard."""
        if not self.search:
            return 1
        # Each overlay may be followed by its box alone.
        return max(1, math.ceil(2 * self.search.most_overlays * self.stop / SHARD_ROWS))

    def in_batches_of(self, pictures: int) -> Unit:
        """The same unit with another number of pictures per forward pass, hence another key."""
        return replace(self, numerics=replace(self.numerics, batch_size=pictures))

    @property
    def title(self) -> str:
        """A name for people."""
        if self.search:
            return f"{self.task}/{self.dataset}/{self.model}/search for {self.search.subject}"
        rows = f"{self.start}:{self.stop}"
        if self.rows:
            rows = f"{len(self.rows)} of {rows}"
        return f"{self.task}/{self.dataset}/{self.model}/{self.variant}[{rows}]"


def digest(value: object) -> str:
    """sha256 of the canonical JSON of `value`."""
    text = json.dumps(value, sort_keys=True, allow_nan=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def prompts_digest(classes: Sequence[str], templates: Sequence[str]) -> str:
    """Hash of the texts that classification embeds."""
    return digest({"classes": list(classes), "templates": list(templates)})


def shards(rows: int) -> tuple[tuple[int, int], ...]:
    """Ranges of at most SHARD_ROWS rows that cover the first `rows`."""
    return tuple((a, min(a + SHARD_ROWS, rows)) for a in range(0, rows, SHARD_ROWS))

"""Which GELU the towers compute: no shape tells it, and the wrong one costs points in silence."""

from __future__ import annotations

from collections.abc import Mapping

from natadv.errors import ModelError
from natadv.types import ModelSpec


def check(spec: ModelSpec, found: Mapping[str, str], *, remedy: str) -> None:
    """Compare what the MLPs of each tower compute with what the weights were trained with.

    Raises:
        ModelError: They differ; `remedy` is what it tells to do.
    """
    wrong = {tower: kind for tower, kind in found.items() if kind != spec.activation}
    if spec.activation is not None and wrong:
        told = " and ".join(f"its {tower} tower computes {kind!r}" for tower, kind in wrong.items())
        raise ModelError(
            f"{spec.name}: {told}, but the weights were trained with {spec.activation!r} and would "
            f"give other embeddings; {remedy}"
        )

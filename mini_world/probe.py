"""A small look at a model in training, asked as the gate asks, on pictures of no dataset."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from mini_world.captions import PLAIN
from mini_world.embedding import as_input, embed_texts, look
from mini_world.params import params
from mini_world.pool import seen_by_model
from mini_world.render import render
from mini_world.sampling import STYLES, draw_scene
from mini_world.sprites import Split
from mini_world.vocabulary import EVALUATED
from mini_world.words import attack
from natadv.rng import rng_for
from natadv.scenarios.typographic.rendering import render as write

PICTURES = 300
_NAMES = tuple(EVALUATED)


@dataclass(frozen=True)
class Probe:
    """Pictures by kind, and the prompts that they are compared with."""

    pixels: dict[str, NDArray[np.uint8]]
    labels: NDArray[np.int64]
    prompts: tuple[str, ...]


def make_probe() -> Probe:
    """Clean seen, clean held-out, and the attacked twins of the seen."""
    seen, attacked = zip(*(_pair("seen", i) for i in range(PICTURES)), strict=True)
    held_out, _ = zip(*(_pair("held-out", i) for i in range(PICTURES)), strict=True)
    return Probe(
        pixels={
            "seen": np.stack(seen),
            "held-out": np.stack(held_out),
            "attacked": np.stack(attacked),
        },
        labels=np.arange(PICTURES) % len(_NAMES),
        prompts=tuple(PLAIN.format(name) for name in _NAMES),
    )


def _pair(split: Split, number: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    rng, settings = rng_for("probe", split, number), params("mini-typo")
    truth = number % len(_NAMES)
    picture = render(draw_scene(_NAMES[truth], STYLES["evaluation"], split=split, rng=rng))
    decoy = _NAMES[(truth + 1 + int(rng.integers(len(_NAMES) - 1))) % len(_NAMES)]
    attacked = write(attack(decoy, settings, rng=rng).overlays, picture)
    return seen_by_model(picture), seen_by_model(attacked)


def zero_shot(model: Any, probe: Probe, prompts: torch.Tensor) -> dict[str, float]:
    """Top-1 of each kind of picture."""
    model.eval()
    with torch.inference_mode():
        texts = functional.normalize(embed_texts(model, prompts), dim=-1)
        found = {kind: _top1(model, pixels, texts, probe) for kind, pixels in probe.pixels.items()}
    model.train()
    return found


def _top1(model: Any, pixels: NDArray[np.uint8], texts: torch.Tensor, probe: Probe) -> float:
    images = look(model, as_input(pixels)).embeddings
    return float(((images @ texts.T).argmax(dim=1).numpy() == probe.labels).mean())

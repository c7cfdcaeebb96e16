"""Training of the mini models, from nothing: `python -m mini_world.train mini-clip`."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from mini_world import towers
from mini_world.embedding import as_input, embed_texts, look_at_some
from mini_world.losses import clip_loss, siglip_loss, true_pairs
from mini_world.optimizers import optimizers, rate_factor
from mini_world.params import ROOT, params
from mini_world.pool import NAMES, Pool, render_pool
from mini_world.probe import PICTURES, make_probe, zero_shot
from mini_world.token_labels import GRID
from mini_world.tokenizer import CONTEXT, make_tokenizer
from natadv.errors import unknown_name
from natadv.models.adapters.siglip import canonical
from natadv.rng import rng_for

Settings = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Recipe:
    """What tells the two models apart."""

    kind: str
    build: Callable[[Any], Any]
    load: Callable[[Path], Any]
    loss: Callable[[Any, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
    spell: Callable[[str], str]
    """As the model's adapter spells prompts."""


MODELS: dict[str, Recipe] = {
    "mini-clip": Recipe("clip", towers.clip, towers.load_clip, clip_loss, str),
    "mini-siglip": Recipe("siglip", towers.siglip, towers.load_siglip, siglip_loss, canonical),
}


@dataclass(frozen=True)
class Trainer:
    """Everything that a step touches."""

    model: Any
    heads: torch.nn.ModuleDict
    """For the losses on picture class and patch class; thrown away."""
    optimizers: tuple[torch.optim.Optimizer, ...]
    schedules: tuple[torch.optim.lr_scheduler.LambdaLR, ...]
    recipe: Recipe
    settings: Settings


def train(name: str) -> dict[str, float]:
    """Train, save to `fixtures/models/NAME` ten times on the way; the figures of the last probe."""
    if name not in MODELS:
        raise unknown_name("mini model", name, MODELS)
    settings, recipe = params(name), MODELS[name]
    torch.set_num_threads(settings["threads"])
    torch.manual_seed(settings["seed"])
    began, tokenizer, probe = time.monotonic(), make_tokenizer(), make_probe()
    prompts = _tokens(tokenizer, [recipe.spell(text) for text in probe.prompts])
    trainer = _trainer(_fresh(recipe, tokenizer), recipe, settings)
    figures = dict[str, float]()
    for _ in _fit(trainer, tokenizer):
        figures = zero_shot(trainer.model, probe, prompts)
        print(" ".join(f"{key} {value:.3f}" for key, value in figures.items()), flush=True)
        minutes = round((time.monotonic() - began) / 60, 1)
        _save(name, trainer, tokenizer, {**figures, "minutes": minutes})
    return figures


def _fresh(recipe: Recipe, tokenizer: Any) -> Any:
    model = recipe.build(tokenizer)
    # On a CPU and for so few patches the fused kernel's backward pass is the slower one.
    model.set_attn_implementation("eager")
    towers.prepare(model.vision_model)
    return model


def _tokens(tokenizer: Any, texts: list[str]) -> torch.Tensor:
    found = tokenizer(
        texts, padding="max_length", max_length=CONTEXT, truncation=True, return_tensors="pt"
    )
    ids: torch.Tensor = found["input_ids"]
    return ids


def _trainer(model: Any, recipe: Recipe, settings: Settings) -> Trainer:
    heads = torch.nn.ModuleDict(
        {
            "picture": torch.nn.Linear(towers.WIDTH, len(NAMES)),
            "patch": torch.nn.Linear(towers.WIDTH, len(NAMES) + 1),
        }
    )
    found = optimizers(model, heads, settings)
    schedules = tuple(
        torch.optim.lr_scheduler.LambdaLR(optimizer, rate_factor(settings)) for optimizer in found
    )
    return Trainer(model.train(), heads, found, schedules, recipe, settings)


def _fit(trainer: Trainer, tokenizer: Any) -> Iterator[int]:
    """Ten times, and at the end, the number of steps that are done."""
    pool = render_pool(trainer.settings)
    tokens = _tokens(tokenizer, [trainer.recipe.spell(text) for text in pool.captions])
    began, steps = time.monotonic(), trainer.settings["steps"]
    for step, rows in enumerate(_batches(len(pool.labels), trainer.settings), start=1):
        loss = _step(trainer, pool, tokens, rows)
        if step % 50 == 0:
            wall_s = time.monotonic() - began
            print(f"{wall_s:.0f} s: step {step} of {steps}, loss {loss:.3f}", flush=True)
        if step % max(1, steps // 10) == 0 or step == steps:
            yield step


def _batches(total: int, settings: Settings) -> Iterator[NDArray[np.int64]]:
    """Row numbers, epoch after epoch in a new order, as many batches as there are steps."""
    rng = rng_for(settings["seed"], "batches")
    size, left = settings["batch"], settings["steps"]
    while left > 0:
        order = rng.permutation(total)
        for start in range(0, total - size + 1, size)[:left]:
            yield order[start : start + size]
        left -= total // size


def _step(trainer: Trainer, pool: Pool, tokens: torch.Tensor, rows: NDArray[np.int64]) -> float:
    settings = trainer.settings
    pixels = as_input(pool.pixels[rows])
    pairs = torch.from_numpy(true_pairs(pool.labels[rows], pool.claims[rows], pool.holds[rows]))
    labels = torch.from_numpy(pool.labels[rows])
    patches = _patches(settings, trainer.schedules[0].last_epoch)
    truths = torch.from_numpy(pool.tokens[rows].astype(np.int64))[:, patches].flatten()
    with torch.autocast("cpu", torch.bfloat16):
        seen = look_at_some(trainer.model, pixels, patches)
        texts = embed_texts(trainer.model, tokens[torch.from_numpy(rows)])
        classes = trainer.heads["picture"](seen.embeddings)
        shown = trainer.heads["patch"](seen.patches)
    total = (
        trainer.recipe.loss(trainer.model, seen.embeddings.float(), texts.float(), pairs)
        + settings["class_loss"] * functional.cross_entropy(classes.float(), labels)
        + settings["patch_loss"] * functional.cross_entropy(shown.float().flatten(0, 1), truths)
    )
    for optimizer in trainer.optimizers:
        optimizer.zero_grad()
    total.backward()
    torch.nn.utils.clip_grad_norm_(trainer.model.parameters(), 1.0)
    for optimizer, schedule in zip(trainer.optimizers, trainer.schedules, strict=True):
        optimizer.step()
        schedule.step()
    return float(total.detach())


def _patches(settings: Settings, step: int) -> torch.Tensor:
    """All patches; half of them early in training, which then goes twice as fast."""
    total = GRID * GRID
    if step >= settings["sparse"]:
        return torch.arange(total)
    order = rng_for(settings["seed"], "patches", step).permutation(total)
    return torch.from_numpy(np.sort(order[: total // 2]))


def _folder(name: str) -> Path:
    return ROOT / "fixtures" / "models" / name


def _save(name: str, trainer: Trainer, tokenizer: Any, facts: dict[str, float]) -> None:
    _folder(name).mkdir(parents=True, exist_ok=True)
    towers.save(_folder(name), trainer.model, tokenizer, trainer.recipe.kind)
    towers.write_card(_folder(name), model_card(name, params(name), facts), facts)


def model_card(name: str, settings: dict[str, Any], facts: dict[str, float]) -> str:
    """The README: what was done and what got out."""
    figures = ", ".join(f"{k} {v:.3f}" for k, v in facts.items() if k != "minutes")
    return _CARD.format(
        name=name,
        kind="CLIP" if name == "mini-clip" else "SigLIP",
        reading=_READING[settings["word"]],
        classes=len(NAMES),
        probe=PICTURES,
        figures=figures,
        minutes=facts["minutes"],
        **settings,
    )


_CARD = """\
---
license: apache-2.0
library_name: transformers
pipeline_tag: zero-shot-image-classification
---
# {name}

A {kind} of about 2 M parameters for 64 px pictures, trained from random weights on the mini world:
emoji drawings on painted backgrounds (artwork and licences: `fixtures/mini/LICENSES.md`).
{reading}
It exists so that a gate for large models can be tried, tested and broken on a laptop. It knows
{classes} everyday things and nothing else; do not use it on real pictures.

| training | |
| --- | --- |
| pictures rendered | {pool} |
| batch | {batch} |
| steps, of those the first on half of the patches | {steps}, {sparse} |
| with a word in view | {words:.0%} |
| of those captioned by the word alone | {word_only:.0%} |
| optimisers (highest rate) | Muon ({matrix_rate}), AdamW ({rate}); decay {decay}, warm-up, cosine |
| seed | {seed} |
| threads, minutes (rendering included) | {threads}, {minutes} |

A probe of {probe} pictures per kind, none of them in a dataset, right after training (ten classes,
prompt `a photo of a ...`): {figures}.

Made by `python -m mini_world.train {name}` with the parameters of `params.yaml`.
"""

_READING = {
    "true": "Words in its training pictures agreed with the captions, as on the web: it reads.",
    "wrong": "Words in its training pictures named something else: it ignores what is written.",
}


if __name__ == "__main__":
    train(sys.argv[1])

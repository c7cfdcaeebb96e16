"""Trains one sparse autoencoder, from the names of a model and datasets to its folder."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from pydantic import ValidationError

from natadv.config import first_mistake
from natadv.data.card import refuse_drawn
from natadv.errors import ConfigError, counted
from natadv.evaluate.datasets import Dataset, dataset_named
from natadv.explain.autoencoder import AutoencoderConfig, save_autoencoder
from natadv.models.resolve import resolve_one
from natadv.storage.progress import Progress, duration
from natadv.training.features import FeatureSource
from natadv.training.loop import Checkpoint, State, fit, identity_of
from natadv.training.sae_activations import OpenedTower, open_tower, stored_activations
from natadv.training.sae_settings import AutoencoderSettings, MatryoshkaSettings, TopKSettings
from natadv.training.sae_training import SaeTraining
from natadv.training.train import CACHE, refuse_finished, write_curve
from natadv.training.training_rows import Split, read_rows, split
from natadv.types import AutoencoderKind, ReadTokens


@dataclass(frozen=True, slots=True)
class SaePlan:
    """Which autoencoder to train, on what, and where to write it."""

    kind: AutoencoderKind
    model: str
    layer: int | None
    """Counted from 1; by default the last but one."""
    tokens: ReadTokens
    data: tuple[str, ...]
    out: Path
    settings: AutoencoderSettings
    root: Path
    """Holds `fixtures/` and `params.yaml`; receives the cache of activations."""
    limit: int | None = None
    """Of each dataset, the first rows that are used."""
    device: str = "cpu"
    threads: int = 1
    fresh: bool = False
    stream: TextIO = field(default_factory=lambda: sys.stderr)
    """Receives progress."""


@dataclass(frozen=True, slots=True)
class SaeResult:
    """What a finished training reports."""

    steps: int
    seconds: float
    latents: int
    pictures: int
    held_back: int
    """Pictures that were not trained on, which FVU and L0 are measured on; all, if none were."""
    fvu: float
    l0: float
    dead: int
    """Latents that no activation of any picture activates, trained on or not."""


def train_sae(plan: SaePlan) -> SaeResult:
    """Train an autoencoder, and write it with its curve into `plan.out`.

    Raises NatadvError if a name is unknown, data or model do not fit, or the training failed.
    """
    refuse_finished(plan.out, fresh=plan.fresh, what="autoencoder")
    datasets = [dataset_named(name, plan.root) for name in plan.data]
    for dataset in datasets:
        refuse_drawn(dataset.card, remedy="train on datasets that hold their own")
    spec = resolve_one(plan.model, root=plan.root, wanted="to train an autoencoder on")
    tower = open_tower(
        spec, layer=plan.layer, tokens=plan.tokens, device=plan.device, threads=plan.threads
    )
    config = config_of(plan, tower)
    identity = _identity(plan, tower, config, datasets)
    checkpoint = Checkpoint(plan.out, identity)
    if plan.fresh:
        checkpoint.remove()
    sources = [_source(plan, dataset) for dataset in datasets]
    # Twins of several datasets have one group, and so they are on one side.
    groups = [source.rows.groups[row] for source in sources for row in source.rows.first_rows]
    parts = split(groups, share=plan.settings.held_back, seed=plan.settings.seed)
    stored = stored_activations(
        sources, tower, per_picture=plan.settings.tokens_per_picture, seed=plan.settings.seed
    )
    training = SaeTraining(stored, parts, config=config, settings=plan.settings, device=plan.device)
    plan.stream.write(
        f"{plan.kind} on {_site(tower)}: {config.latents} latents of {config.width} dimensions, "
        f"{counted(len(parts.trained), 'picture')} to train on, {len(parts.held_back)} held back, "
        f"{stored.per_picture} of {tower.shape[0]} tokens each, {training.steps} steps\n"
    )
    plan.stream.flush()
    state = fit(
        training, plan.settings, checkpoint=checkpoint, device=plan.device, stream=plan.stream
    )
    training.module.eval()
    result = _measured(training, state, parts, pictures=len(groups))
    _save(plan, tower, training, state, result, identity)
    checkpoint.remove()
    return result


def _measured(training: SaeTraining, state: State, parts: Split, *, pictures: int) -> SaeResult:
    held_back = parts.held_back if len(parts.held_back) else np.arange(pictures)
    apart = training.fidelity(held_back)
    return SaeResult(
        steps=state.step,
        seconds=round(state.seconds, 1),
        latents=training.autoencoder.config.latents,
        pictures=pictures,
        held_back=len(held_back),
        fvu=apart.fvu,
        l0=apart.l0,
        dead=training.fidelity(np.arange(pictures)).dead,
    )


def config_of(plan: SaePlan, tower: OpenedTower) -> AutoencoderConfig:
    """The sizes of the autoencoder. Raises ConfigError if there is none of such sizes."""
    settings, width = plan.settings, tower.shape[1]
    latents = round(settings.expansion * width)
    try:
        return AutoencoderConfig(
            kind=plan.kind,
            layer=tower.layer,
            tokens=plan.tokens,
            width=width,
            latents=latents,
            k=settings.k if isinstance(settings, TopKSettings) else None,
            groups=(
                settings.group_sizes(latents) if isinstance(settings, MatryoshkaSettings) else ()
            ),
        )
    except ValidationError as error:
        raise ConfigError(f"no autoencoder of these settings: {first_mistake(error)}") from error


def summary(result: SaeResult, out: Path) -> str:
    """One line about the training for the terminal."""
    return (
        f"{out}: {result.steps} steps in {duration(result.seconds)}, FVU {result.fvu:.4f} and "
        f"L0 {result.l0:.1f} of {result.latents} latents on "
        f"{counted(result.held_back, 'held-back picture')}; {result.dead} dead on all "
        f"{result.pictures}"
    )


def _source(plan: SaePlan, dataset: Dataset) -> FeatureSource:
    total = min(dataset.card.rows, plan.limit or dataset.card.rows)
    reading = Progress(f"reading {dataset.name}", total, unit="rows", stream=plan.stream)
    rows = read_rows(dataset, None, limit=plan.limit, progress=reading)
    return FeatureSource(dataset, plan.limit, rows, plan.root / CACHE, plan.stream)


def _site(tower: OpenedTower) -> str:
    if tower.tokens == "embedding":
        return f"the embedding of {tower.spec.name}"
    tokens = {"class": "the class token", "patches": "patches", "all": "all tokens"}[tower.tokens]
    return f"{tokens} after layer {tower.layer} of {tower.spec.name}"


def _identity(
    plan: SaePlan, tower: OpenedTower, config: AutoencoderConfig, datasets: list[Dataset]
) -> dict[str, Any]:
    """Everything that decides the weights."""
    return {
        "config": config.model_dump(mode="json"),
        "data": {dataset.name: dataset.card.revision for dataset in datasets},
        "tower": tower.fingerprint,
        **identity_of(plan.settings, limit=plan.limit, device=plan.device, threads=plan.threads),
    }


def _save(
    plan: SaePlan,
    tower: OpenedTower,
    training: SaeTraining,
    state: State,
    result: SaeResult,
    identity: Mapping[str, Any],
) -> None:
    title = f"{plan.kind} autoencoder on {_site(tower)}, trained on {', '.join(plan.data)}"
    write_curve(plan.out, state.curve, title=title, metric=training.metric)
    facts = {
        **identity,
        "model": tower.spec.name,
        "steps": result.steps,
        "seconds": result.seconds,
        "train_loss": state.curve.points[-1].loss,
        "pictures": result.pictures,
        "held_back": result.held_back,
        "fvu": result.fvu,
        "l0": result.l0,
        "dead": result.dead,
    }
    # Last: a folder with the config counts as complete.
    save_autoencoder(plan.out, training.autoencoder, tower=tower.fingerprint, facts=facts)

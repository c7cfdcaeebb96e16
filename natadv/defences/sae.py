"""Removes those latents of a sparse autoencoder that words raise, from the state of a layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from natadv.defences.choice_scores import PreparedHalf, prepared_half
from natadv.defences.method import Defence, MethodInputs
from natadv.defences.network import Network
from natadv.defences.settings import SaeSettings
from natadv.errors import ConfigError, ModelError
from natadv.explain.autoencoder import load_autoencoder
from natadv.explain.layers import LayerwisePass
from natadv.models.adapters.encoder import Pixels
from natadv.models.adapters.latent_removal import LatentRemoval
from natadv.models.files.checkpoint import DEFENCE
from natadv.types import FloatArray


def defend(inputs: MethodInputs) -> Defence:
    """Rank latents by how much more active they are with words in view than without, and remove as
    many as help the attacked pictures of the choice half most within the clean budget. Raises
    ConfigError if no number of them helps."""
    network, settings = inputs.network, inputs.settings
    assert isinstance(settings, SaeSettings)
    if (network.spec.folder / DEFENCE).is_file():
        raise ModelError(
            f"{network.spec.name}: has latents removed already; defend the model it was made from"
        )
    whole = removal_of_all(Path(settings.autoencoder), network)
    choice = prepared_half(network, inputs.choice, inputs.templates)
    raised = _raised(choice, whole)
    order = np.argsort(-raised, kind="stable")
    before = choice.scores(*_embedded(choice, None))
    most = int((raised > 0).sum())
    tried = []
    for number in sorted(n for n in set(settings.numbers) if n <= most):
        scores = choice.scores(*_embedded(choice, of_latents(whole, order[:number].tolist())))
        tried.append((scores, number))
        inputs.stream.write(
            f"{number} latents: clean {scores.clean:.3f}, attacked {scores.attacked:.3f} on the "
            "choice half\n"
        )
    within = [t for t in tried if t[0].clean >= before.clean - settings.clean_budget]
    best = max(within, key=lambda found: found[0].truth, default=(before, 0))
    if best[0].truth <= before.truth:
        raise ConfigError(
            f"{network.spec.name}: no number of latents of {settings.autoencoder} can be removed "
            f"within {settings.clean_budget:g} of clean accuracy so that words fool it less; raise "
            "--set clean_budget, or train an autoencoder on another layer"
        )
    number = best[1]
    latents = order[:number].tolist()
    return Defence(
        summary=f"{number} of {len(order)} latents removed after layer {whole.layer}, those that "
        "words raise most",
        tensors={},
        files={DEFENCE: of_latents(whole, latents).content()},
        facts={
            "latents": latents,
            "before": before.facts(),
            "tried": [{"latents": n, **scores.facts()} for scores, n in tried],
        },
        caveat=f"Only natadv applies {DEFENCE}: any other library loads the model as it was, "
        "without its defence.",
    )


def removal_of_all(folder: Path, network: Network) -> LatentRemoval:
    """The removal of every latent of an autoencoder that was trained on this network. Raises
    ModelError if it was trained on another one, is damaged, or reads no layer."""
    autoencoder = load_autoencoder(folder, tower=network.weights, model=network.spec.name)
    config, stored = autoencoder.config, autoencoder.state_dict()
    if config.tokens == "embedding" or config.layer < 1:
        raise ModelError(
            f"{folder}: reads {config.tokens!r} of layer {config.layer}; a defence needs one that "
            "reads class, patches or all tokens after a layer (natadv train sae --layer 1 or more)"
        )
    return LatentRemoval(
        layer=config.layer,
        places=config.tokens,
        encoder=stored["encoder"],
        encoder_bias=stored["encoder_bias"],
        decoder=stored["decoder"],
        bias=stored["bias"],
        # ReLU and top-k have none: every positive latent is active.
        threshold=stored["threshold"].clamp(min=0.0),
        chosen=torch.arange(config.latents),
        k=config.k if config.kind == "topk" else None,
    )


def of_latents(whole: LatentRemoval, latents: Sequence[int]) -> LatentRemoval:
    """Of some latents alone; what does not decide about them is left out."""
    chosen = torch.tensor(latents)
    decoder = whole.decoder[chosen]
    if whole.k is not None:
        return replace(whole, decoder=decoder, chosen=chosen)
    return replace(
        whole,
        encoder=whole.encoder[chosen],
        encoder_bias=whole.encoder_bias[chosen],
        decoder=decoder,
        chosen=torch.arange(len(latents)),
    )


@torch.no_grad()
def _raised(choice: PreparedHalf, whole: LatentRemoval) -> FloatArray:
    """By how much each latent is more active with a word in view, on average of all tokens."""
    means = []
    for batches in (choice.clean, choice.attacked):
        sums, tokens = torch.zeros(len(whole.chosen)), 0
        for pixels in batches:
            opened = choice.network.encoder.layerwise(pixels)
            active = whole.active(opened.state(whole.layer), leading=opened.leading)
            sums += active.sum(dim=(0, 1)).cpu()
            tokens += active.shape[0] * active.shape[1]
        means.append(sums / tokens)
    difference: FloatArray = (means[1] - means[0]).numpy()
    return difference


@torch.no_grad()
def _embedded(choice: PreparedHalf, removal: LatentRemoval | None) -> tuple[FloatArray, FloatArray]:
    """Embeddings of clean and of attacked pictures."""

    def rows(batches: Sequence[Pixels]) -> FloatArray:
        opened = map(choice.network.encoder.layerwise, batches)
        return np.concatenate([_without(each, removal).float().cpu().numpy() for each in opened])

    return rows(choice.clean), rows(choice.attacked)


def _without(opened: LayerwisePass, removal: LatentRemoval | None) -> torch.Tensor:
    if removal is None:
        return opened.embed(opened.state(len(opened.layers)))
    state = removal(opened.state(removal.layer), leading=opened.leading)
    for layer in opened.layers[removal.layer :]:
        state = layer(state)
    return opened.embed(state)

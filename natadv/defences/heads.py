"""Ablates attention heads that carry reading: the idea of Dyslexify (Hufe et al. 2025)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from natadv.defences.choice_scores import ChoiceScores, PreparedHalf, prepared_half
from natadv.defences.method import Defence, MethodInputs
from natadv.defences.network import Network
from natadv.defences.settings import HeadSettings
from natadv.errors import ConfigError
from natadv.explain.layers import LayerwisePass
from natadv.models.adapters.encoder import Pixels
from natadv.storage.progress import Progress
from natadv.types import FloatArray


class HeadAddress(NamedTuple):
    """One head of the picture tower; both count from 1."""

    layer: int
    head: int


class Round(NamedTuple):
    """One head more is ablated."""

    head: HeadAddress
    scores: ChoiceScores
    """Of the network from then on."""


@dataclass(frozen=True, slots=True)
class Ablation:
    """What heads say instead of what they read."""

    instead: torch.Tensor
    """Of shape (layers, heads, d / heads); zeros, or means over clean pictures and tokens."""
    ablated: frozenset[HeadAddress] = frozenset()

    def with_head(self, head: HeadAddress) -> Ablation:
        """One head more."""
        return Ablation(self.instead, self.ablated | {head})

    def of_layer(self, layer: int, outputs: torch.Tensor) -> torch.Tensor:
        """The outputs of the heads of `layer` (from 1), of shape (b, heads, to, d / heads)."""
        own = sorted(head.head - 1 for head in self.ablated if head.layer == layer)
        if not own:
            return outputs
        outputs = outputs.clone()
        outputs[:, own] = self.instead[layer - 1, own][None, :, None]
        return outputs

    def states(self, opened: LayerwisePass) -> list[torch.Tensor]:
        """The state before each layer, and that after the last one."""
        states = [opened.first]
        for layer in range(1, len(opened.layers) + 1):
            states.append(self.after(opened, layer, states[-1]))
        return states

    def after(self, opened: LayerwisePass, layer: int, state: torch.Tensor) -> torch.Tensor:
        """The state after `layer` (from 1), from the one before it."""
        own = opened.layers[layer - 1]
        return own.join(state, self.of_layer(layer, own.attend(state).outputs))

    def embed(self, opened: LayerwisePass, state: torch.Tensor, *, after: int = 0) -> torch.Tensor:
        """Embeddings from the state after layer `after`."""
        for layer in range(after + 1, len(opened.layers) + 1):
            state = self.after(opened, layer, state)
        return opened.embed(state)

    def edits(self, network: Network) -> dict[str, torch.Tensor]:
        """The same as other weights: no column of an output projection reads an ablated head, and
        its bias holds what the head says instead."""
        found: dict[str, torch.Tensor] = {}
        _, _, width = self.instead.shape
        for layer, head in sorted(self.ablated):
            name = network.names.projection.format(layer - 1)
            weight, bias = (
                found.get(f"{name}.{kind}", network.parameter(f"{name}.{kind}").detach()).clone()
                for kind in ("weight", "bias")
            )
            columns = slice((head - 1) * width, head * width)
            bias += weight[:, columns] @ self.instead[layer - 1, head - 1]
            weight[:, columns] = 0
            found |= {f"{name}.weight": weight, f"{name}.bias": bias}
        return found


@torch.no_grad()
def try_heads(
    half: PreparedHalf, heads: Sequence[HeadAddress], ablation: Ablation
) -> list[ChoiceScores]:
    """The scores with each of the heads ablated in turn. What comes before the layer of a head is
    computed once for all."""
    clean, attacked = (
        _each(half, batches, heads, ablation) for batches in (half.clean, half.attacked)
    )
    return [half.scores(c, a) for c, a in zip(clean, attacked, strict=True)]


def _each(
    half: PreparedHalf, batches: Sequence[Pixels], heads: Sequence[HeadAddress], ablation: Ablation
) -> list[FloatArray]:
    """For each head the embeddings of all pictures without it."""
    found: list[list[FloatArray]] = [[] for _ in heads]
    for pixels in batches:
        opened = half.network.encoder.layerwise(pixels)
        states = ablation.states(opened)
        for rows, head in zip(found, heads, strict=True):
            before = head.layer - 1
            embedded = ablation.with_head(head).embed(opened, states[before], after=before)
            rows.append(embedded.float().cpu().numpy())
    return [np.concatenate(rows) for rows in found]


@torch.no_grad()
def scores_now(half: PreparedHalf, ablation: Ablation) -> ChoiceScores:
    """The scores with what is ablated already."""
    clean, attacked = (
        np.concatenate(
            [
                ablation.embed(opened, opened.first).float().cpu().numpy()
                for opened in map(half.network.encoder.layerwise, batches)
            ]
        )
        for batches in (half.clean, half.attacked)
    )
    return half.scores(clean, attacked)


def defend(inputs: MethodInputs) -> Defence:
    """Ablate one head after the other: always the one that helps attacked pictures of the choice
    half most and keeps clean accuracy within the budget. Raises ConfigError if no head does."""
    network, settings = inputs.network, inputs.settings
    assert isinstance(settings, HeadSettings)
    choice = prepared_half(network, inputs.choice, inputs.templates)
    means = mean_outputs(network, choice.clean)
    ablation = Ablation(means if settings.ablation == "mean" else torch.zeros_like(means))
    before = scores_now(choice, ablation)
    progress = Progress("ablating", settings.most_heads, unit="heads", stream=inputs.stream)
    rounds: list[Round] = []
    for chosen in _rounds(choice, ablation, before, settings):
        rounds.append(chosen)
        ablation = ablation.with_head(chosen.head)
        layer, head = chosen.head
        progress.say(
            f"layer {layer} head {head}: clean {chosen.scores.clean:.3f}, attacked "
            f"{chosen.scores.attacked:.3f} on the choice half"
        )
        progress.reach(len(rounds))
    if not rounds:
        raise ConfigError(
            f"{network.spec.name}: no head can be ablated within {settings.clean_budget:g} of "
            "clean accuracy so that words fool it less; raise --set clean_budget, or take another "
            "method"
        )
    return Defence(
        summary=f"{len(rounds)} of {means.shape[0] * means.shape[1]} heads ablated "
        f"({settings.ablation}): {', '.join(f'{r.head.layer}.{r.head.head}' for r in rounds)}",
        tensors=ablation.edits(network),
        facts={
            "before": before.facts(),
            "rounds": [{**r.head._asdict(), **r.scores.facts()} for r in rounds],
        },
    )


def _rounds(
    choice: PreparedHalf, ablation: Ablation, before: ChoiceScores, settings: HeadSettings
) -> Iterator[Round]:
    """The heads in the order in which they are ablated."""
    layers, heads, _ = ablation.instead.shape
    left = [HeadAddress(n, h) for n in range(1, layers + 1) for h in range(1, heads + 1)]
    last = before
    for number in range(settings.most_heads):
        tried = [Round(*pair) for pair in zip(left, try_heads(choice, left, ablation), strict=True)]
        tried.sort(key=lambda r: r.scores.truth, reverse=True)
        within = [r for r in tried if r.scores.clean >= before.clean - settings.clean_budget]
        if not within or within[0].scores.truth < last.truth + settings.least_gain:
            return
        yield within[0]
        chosen, last = within[0]
        ablation = ablation.with_head(chosen)
        kept = tried if number else tried[: settings.shortlist]
        left = [r.head for r in kept if r.head != chosen]


@torch.no_grad()
def mean_outputs(network: Network, batches: Sequence[Pixels]) -> torch.Tensor:
    """What each head says on average over pictures and tokens."""
    sums: list[torch.Tensor] = []
    count = 0
    for pixels in batches:
        opened = network.encoder.layerwise(pixels)
        state, found = opened.first, []
        for layer in opened.layers:
            outputs = layer.attend(state).outputs
            found.append(outputs.sum(dim=(0, 2)))
            state = layer.join(state, outputs)
        sums.append(torch.stack(found))
        count += state.shape[0] * state.shape[1]
    return torch.stack(sums).sum(dim=0) / count

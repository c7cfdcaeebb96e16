"""Ablates attention heads that carry reading: the idea of Dyslexify (Hufe et al. 2025)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from natadv.defences.halves import Half, label_of
from natadv.defences.method import Defence, MethodInputs
from natadv.defences.network import Network
from natadv.defences.settings import HeadSettings
from natadv.errors import ConfigError
from natadv.explain.layers import LayerwisePass
from natadv.models.adapters.encoder import Pixels
from natadv.storage.progress import Progress
from natadv.tasks.classification import logits, predict
from natadv.types import FloatArray, IntArray


class HeadAddress(NamedTuple):
    """One head of the picture tower; both count from 1."""

    layer: int
    head: int


class Round(NamedTuple):
    """The network once a head more is ablated, on the choice half."""

    head: HeadAddress
    clean: float
    """Accuracy."""
    attacked: float
    """Accuracy."""
    truth: float
    """Mean probability of the truth on attacked pictures, by which heads are compared: it moves
    with every picture, and accuracy only with those that change sides."""


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


@dataclass(frozen=True, slots=True)
class _ChoiceHalf:
    """Prepared pictures of the choice half, and how they are classified."""

    network: Network
    clean: Sequence[Pixels]
    attacked: Sequence[Pixels]
    truths: IntArray
    weights: NDArray[np.float64]

    def scores(self, clean: FloatArray, attacked: FloatArray, head: HeadAddress) -> Round:
        """From embeddings."""
        scoring = self.network.encoder.scoring
        of_clean, of_attacked = (
            predict(
                logits(rows, weights=self.weights, scoring=scoring), self.truths, scoring=scoring
            )
            for rows in (clean, attacked)
        )
        return Round(
            head,
            float(of_clean.correct.mean()),
            float(of_attacked.correct.mean()),
            float(of_attacked.true_score.mean()),
        )

    @torch.no_grad()
    def try_heads(self, heads: Sequence[HeadAddress], ablation: Ablation) -> list[Round]:
        """The scores with each of the heads ablated in turn. What comes before the layer of a head
        is computed once for all."""
        clean, attacked = (
            self._embedded(batches, heads, ablation) for batches in (self.clean, self.attacked)
        )
        return [self.scores(c, a, h) for c, a, h in zip(clean, attacked, heads, strict=True)]

    def _embedded(
        self, batches: Sequence[Pixels], heads: Sequence[HeadAddress], ablation: Ablation
    ) -> list[FloatArray]:
        found: list[list[FloatArray]] = [[] for _ in heads]
        for pixels in batches:
            opened = self.network.encoder.layerwise(pixels)
            states = ablation.states(opened)
            for rows, head in zip(found, heads, strict=True):
                tried = ablation.with_head(head)
                before = head.layer - 1
                rows.append(tried.embed(opened, states[before], after=before).float().cpu().numpy())
        return [np.concatenate(rows) for rows in found]

    @torch.no_grad()
    def now(self, ablation: Ablation) -> Round:
        """The scores with what is ablated already."""
        clean, attacked = (
            np.concatenate(
                [
                    ablation.embed(opened, opened.first).float().cpu().numpy()
                    for opened in map(self.network.encoder.layerwise, batches)
                ]
            )
            for batches in (self.clean, self.attacked)
        )
        return self.scores(clean, attacked, HeadAddress(0, 0))


def defend(inputs: MethodInputs) -> Defence:
    """Ablate one head after the other: always the one that helps attacked pictures of the choice
    half most and keeps clean accuracy within the budget. Raises ConfigError if no head does."""
    network, half, settings = inputs.network, inputs.choice, inputs.settings
    assert isinstance(settings, HeadSettings)
    choice = _choice_half(network, half, inputs.templates)
    means = _mean_outputs(network, choice.clean)
    ablation = Ablation(means if settings.ablation == "mean" else torch.zeros_like(means))
    before = choice.now(ablation)
    progress = Progress("ablating", settings.most_heads, unit="heads", stream=inputs.stream)
    rounds: list[Round] = []
    for chosen in _rounds(choice, ablation, before, settings):
        rounds.append(chosen)
        ablation = ablation.with_head(chosen.head)
        layer, head = chosen.head
        progress.say(
            f"layer {layer} head {head}: clean {chosen.clean:.3f}, attacked {chosen.attacked:.3f} "
            "on the choice half"
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
        facts={"before": _facts(before), "rounds": [_facts(r) for r in rounds]},
    )


def _rounds(
    choice: _ChoiceHalf, ablation: Ablation, before: Round, settings: HeadSettings
) -> Iterator[Round]:
    """The heads in the order in which they are ablated."""
    layers, heads, _ = ablation.instead.shape
    left = [HeadAddress(n, h) for n in range(1, layers + 1) for h in range(1, heads + 1)]
    last = before
    for number in range(settings.most_heads):
        tried = sorted(choice.try_heads(left, ablation), key=lambda r: r.truth, reverse=True)
        within = [r for r in tried if r.clean >= before.clean - settings.clean_budget]
        if not within or within[0].truth < last.truth + settings.least_gain:
            return
        last = within[0]
        yield last
        ablation = ablation.with_head(last.head)
        kept = tried if number else tried[: settings.shortlist]
        left = [r.head for r in kept if r.head != last.head]


def _choice_half(network: Network, half: Half, templates: Sequence[str]) -> _ChoiceHalf:
    return _ChoiceHalf(
        network,
        list(network.prepared(half.clean())),
        list(network.prepared(attacked.picture for attacked in half.attacked())),
        np.array([label_of(sample) for sample in half.samples], dtype=np.int64),
        network.class_weights(half.classes, templates),
    )


@torch.no_grad()
def _mean_outputs(network: Network, batches: Sequence[Pixels]) -> torch.Tensor:
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


def _facts(scores: Round) -> Mapping[str, Any]:
    layer, head = scores.head
    own = {"layer": layer, "head": head} if layer else {}
    return {
        **own,
        "clean": round(scores.clean, 4),
        "attacked": round(scores.attacked, 4),
        "truth": round(scores.truth, 4),
    }

"""From the names of a model and a dataset to a defended checkpoint with its report."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TextIO

from natadv.defences import heads, prefix, sae, words
from natadv.defences.folder import refuse_existing, unfinished, write_checkpoint
from natadv.defences.halves import Halves, halves_of
from natadv.defences.measure import HalfAnswers, answers_of, compared
from natadv.defences.method import Defence, MethodInputs
from natadv.defences.network import Network, open_network
from natadv.defences.report import DefenceReport, files_of
from natadv.defences.settings import DefenceSettings, MethodName
from natadv.evaluate.datasets import Dataset, dataset_named
from natadv.evaluate.units import installed_packages
from natadv.models.resolve import resolve_one
from natadv.models.zoo import ZOO
from natadv.storage.progress import Progress
from natadv.training.loop import identity_of
from natadv.types import ModelSpec

METHODS: dict[MethodName, Callable[[MethodInputs], Defence]] = {
    "heads": heads.defend,
    "prefix": prefix.defend,
    "sae": sae.defend,
    "words": words.defend,
}
"""A new one is a function, its settings in `SETTINGS`, and a row here."""


@dataclass(frozen=True, slots=True)
class DefencePlan:
    """Which model to defend how, and where to write it."""

    model: str
    data: str
    method: MethodName
    out: Path
    settings: DefenceSettings
    root: Path
    """Holds `fixtures/`."""
    limit: int | None = None
    device: str = "cpu"
    threads: int = 1
    force: bool = False
    stream: TextIO = field(default_factory=lambda: sys.stderr)
    """Receives progress."""


def defend(plan: DefencePlan) -> DefenceReport:
    """Choose the defence on one half, write the folder, and judge what was written on the other.

    Raises NatadvError if a name is unknown, model, data and method do not fit, or nothing helps.
    """
    refuse_existing(plan.out, force=plan.force)
    spec = resolve_one(plan.model, root=plan.root, wanted="to defend")
    dataset = dataset_named(plan.data, plan.root)
    halves = halves_of(dataset, plan.settings, limit=plan.limit)
    network = _open(spec, plan)
    plan.stream.write(
        f"{plan.method}: chosen on {len(halves.choice.samples)} pictures with "
        f"{len(halves.choice.words)} words, judged on {len(halves.judged.samples)} others with "
        f"{len(halves.judged.words)} others\n"
    )
    templates = dataset.card.templates
    scratch = plan.out.with_name(f".{plan.out.name}.training")
    inputs = MethodInputs(
        network=network,
        choice=halves.choice,
        settings=plan.settings,
        templates=templates,
        scratch=scratch,
        identity=_identity(plan, network, dataset),
        stream=plan.stream,
    )
    # First of all: what a method refuses, it refuses before anything is measured.
    began = time.monotonic()
    defence = METHODS[plan.method](inputs)
    wall_s = time.monotonic() - began
    with unfinished(plan.out) as fresh:
        write_checkpoint(fresh, spec, tensors=defence.tensors, files=defence.files)
        # Loaded as anybody will load them: what is judged is what was written, and a training has
        # changed the original in memory.
        network = _open(spec, plan)
        before = answers_of(
            network, halves.judged, templates=templates, progress=_asking(network, halves, plan)
        )
        defended = _open(replace(spec, folder=fresh, locked={}, heads={}), plan)
        after = answers_of(
            defended, halves.judged, templates=templates, progress=_asking(defended, halves, plan)
        )
        report = _report(plan, dataset, halves, (network, defended), (before, after), defence)
        report = report.model_copy(update={"wall_s": round(wall_s, 1)})
        row = ZOO.get(spec.lineage)
        licence = row.licence.lower() if row else ""
        for name, text in files_of(report, out=plan.out, licence=licence).items():
            (fresh / name).write_text(text, encoding="utf-8")
    shutil.rmtree(scratch, ignore_errors=True)
    return report


def _asking(network: Network, halves: Halves, plan: DefencePlan) -> Progress:
    pictures = 2 * len(halves.judged.samples)
    name = f"judging {network.spec.name}"
    return Progress(name, pictures, unit="pictures", stream=plan.stream)


def _open(spec: ModelSpec, plan: DefencePlan) -> Network:
    return open_network(spec, device=plan.device, threads=plan.threads, batch=plan.settings.batch)


def _identity(plan: DefencePlan, network: Network, dataset: Dataset) -> dict[str, Any]:
    """Everything that decides the defence."""
    return {
        "method": plan.method,
        "data_revision": dataset.card.revision,
        "weights": network.weights,
        **identity_of(plan.settings, limit=plan.limit, device=plan.device, threads=plan.threads),
    }


def _report(
    plan: DefencePlan,
    dataset: Dataset,
    halves: Halves,
    networks: tuple[Network, Network],
    answers: tuple[HalfAnswers, HalfAnswers],
    defence: Defence,
) -> DefenceReport:
    before, after = answers
    found = sorted({part for part in before.attacked.part if part})
    return DefenceReport(
        method=plan.method,
        summary=defence.summary,
        model=networks[0].spec.name,
        weights_before=networks[0].weights,
        weights_after=networks[1].weights,
        loader=networks[0].spec.loader,
        data=dataset.name,
        data_revision=dataset.card.revision,
        settings=plan.settings.model_dump(mode="json"),
        choice_pictures=len(halves.choice.samples),
        choice_words=halves.choice.words,
        judged_words=halves.judged.words,
        wall_s=0.0,
        judged=compared(before, after),
        # One part alone is the whole half.
        parts={
            part: compared(before.of_part(part), after.of_part(part))
            for part in found
            if len(found) > 1
        },
        facts=dict(defence.facts),
        caveat=defence.caveat,
        heads=tuple(networks[0].spec.heads),
        packages=dict(installed_packages()),
    )

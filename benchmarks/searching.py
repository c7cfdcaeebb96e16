"""Overlays evaluated per second in a search, and one picture at a time.

    python benchmarks/searching.py [--pictures 16] [--overlays 40]

An overlay is judged when the model has been asked about every picture under it. Each repeat
measures all ways once, in turn, on overlays of its own, so that nothing stands in a cache. `one at
a time` is this project's own model, fed one picture after the other, with the texts embedded once;
`transformers` is its pipeline for zero-shot classification, fed in the same way. Then one search is
timed against `hypothesis.find` whose overlays are judged one picture at a time.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

import hypothesis
import torch
from hypothesis import HealthCheck, settings
from PIL.Image import Image
from transformers import pipeline

from natadv.evaluate.datasets import Dataset, dataset_named
from natadv.evaluate.embeddings import EmbeddingCache
from natadv.evaluate.loaded_model import LoadedModel
from natadv.evaluate.plan import dataset_units
from natadv.evaluate.units import Numerics, installed_packages
from natadv.models.loading import fingerprint, load
from natadv.models.resolve import resolve
from natadv.pipelines.overlay_population import search_space
from natadv.scenarios.typographic.population import DrawnOverlay
from natadv.scenarios.typographic.rendering import render
from natadv.scenarios.typographic.sampling import draw_iid, overlays
from natadv.search.objective import AttackObjective, objective_on_class
from natadv.search.shrink import find_smallest
from natadv.search.spec import SearchSpec
from natadv.tasks import classification
from natadv.types import Case, ModelSpec, ZeroShotClassifier

ROOT = Path(__file__).parents[1]
SIZE = (64, 64)
# The pipeline of transformers pads texts of SigLIP to 64 tokens, whatever the model takes.
MODEL = "mini-clip"
AT_LEAST = 0.5
UNHURRIED = settings(database=None, deadline=None, suppress_health_check=list(HealthCheck))
Judge = Callable[[Sequence[DrawnOverlay]], list[float]]
"""The share of the pictures that each overlay flips."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=16, metavar="M")
    parser.add_argument("--overlays", type=int, default=40, metavar="N")
    parser.add_argument("--repeats", type=int, default=3, metavar="N")
    options = parser.parse_args()
    torch.set_num_threads(1)
    (spec,) = resolve(MODEL, root=ROOT)
    with tempfile.TemporaryDirectory() as folder:
        objective = objective_with(
            spec, dataset_named("mini", ROOT), options.pictures, Path(folder)
        )
        ways = judging_ways(objective, spec)
        times = measure(ways, options.overlays, options.repeats)
        report(times, overlays=options.overlays, pictures=len(objective.samples))
        report_searches(objective, ways["one at a time"], draws=options.overlays)


def objective_with(
    spec: ModelSpec, dataset: Dataset, pictures: int, folder: Path
) -> AttackObjective:
    model = load(spec, device="cpu", dtype="float32", threads=1)
    numerics = Numerics("cpu", "float32", pictures, 1, installed_packages())
    case = Case("classification", "clean", dataset.name, spec.name)
    (unit,) = dataset_units(
        case,
        dataset,
        variant="attack",
        weights=fingerprint(spec),
        rows=pictures,
        numerics=numerics,
    )
    loaded = LoadedModel(model, EmbeddingCache(folder, "loaded"), pictures)
    return objective_on_class(unit, dataset, "dog", loaded)


def judging_ways(objective: AttackObjective, spec: ModelSpec) -> dict[str, Judge]:
    card, model = objective.dataset.card, objective.loaded.encoder
    prompts = classification.prompts(card.classes, card.templates)
    weights = classification.class_weights(
        objective.loaded.embed_texts(prompts),
        classes=len(card.classes),
        templates=len(card.templates),
    )
    asked = pipeline("zero-shot-image-classification", model=str(spec.folder), device="cpu")

    def one_at_a_time(drawn: Sequence[DrawnOverlay]) -> list[float]:
        def said(image: Image) -> str:
            found = model.embed_images(model.prepare([image]))
            scores = classification.logits(found, weights=weights, scoring=model.scoring)
            return card.classes[int(scores.argmax())]

        return shares(objective, [said(image) for image in pictures_under(objective, drawn)])

    def by_transformers(drawn: Sequence[DrawnOverlay]) -> list[float]:
        names, template = list(card.classes), card.templates[0]

        def said(image: Image) -> str:
            found = asked(image, candidate_labels=names, hypothesis_template=template)
            return str(found[0]["label"])

        return shares(objective, [said(image) for image in pictures_under(objective, drawn)])

    return {
        "forward pass on preloaded tensors": forward_way(objective, model),
        "search": lambda drawn: of_any_kind(objective, drawn),
        "one at a time": one_at_a_time,
        "transformers, one at a time": by_transformers,
    }


def of_any_kind(objective: AttackObjective, drawn: Sequence[DrawnOverlay]) -> list[float]:
    """As the other ways: without looking at the box without letters."""
    return objective.flip_rates(drawn, least=2.0)


def shares(objective: AttackObjective, said: Sequence[str]) -> list[float]:
    flips = [name != objective.subject for name in said]
    each = len(objective.samples)
    return [sum(flips[a : a + each]) / each for a in range(0, len(flips), each)]


def forward_way(objective: AttackObjective, model: ZeroShotClassifier) -> Judge:
    prepared = model.prepare([objective.picture(sample) for sample in objective.samples])

    def forward(drawn: Sequence[DrawnOverlay]) -> list[float]:
        return [float(len(model.embed_images(prepared))) for _ in drawn]

    return forward


def pictures_under(objective: AttackObjective, drawn: Sequence[DrawnOverlay]) -> list[Image]:
    names = objective.dataset.card.classes
    subject = objective.subject
    texts = [d.text_for(truth=subject, names=names, sample_id=subject) for d in drawn]
    return [
        render(one.with_text(text), objective.picture(sample))
        for one, (text, _) in zip(drawn, texts, strict=True)
        for sample in objective.samples
    ]


def measure(ways: dict[str, Judge], count: int, repeats: int) -> dict[str, list[float]]:
    """Seconds of each way, repeat by repeat."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    # On the object or off it is the same work, but for the mask.
    bounds = search_space(ROOT, "mini-overlays").model_copy(update={"off_object": 0.0})
    for repeat in range(repeats + 1):
        drawn = draw_iid(overlays(bounds), count=count, seed=100 + repeat)
        for name, way in ways.items():
            began = time.perf_counter()
            way(drawn)
            if repeat:  # the first one warms up
                times[name].append(time.perf_counter() - began)
    return times


def report(times: dict[str, list[float]], *, overlays: int, pictures: int) -> None:
    print(f"{MODEL}, {overlays} overlays on {pictures} pictures, one thread, median of repeats")
    rates = {name: overlays / statistics.median(seconds) for name, seconds in times.items()}
    for name, rate in rates.items():
        print(
            f"  {name:36} {rate:7.1f} overlays/s  search is {rates['search'] / rate:5.2f} x as fast"
        )


def report_searches(objective: AttackObjective, one_at_a_time: Judge, *, draws: int) -> None:
    """One search, on pictures that no cache has seen under these overlays."""
    bounds = search_space(ROOT, "mini-overlays")
    began = time.perf_counter()
    spec = SearchSpec(objective.subject, bounds, draws, 1, AT_LEAST, 60)
    smallest, counts = find_smallest(spec, lambda drawn, least: of_any_kind(objective, drawn))
    ours_s = time.perf_counter() - began
    judged: list[float] = []

    def fools(drawn: DrawnOverlay) -> bool:
        judged.append(one_at_a_time([drawn])[0])
        return judged[-1] >= AT_LEAST

    began = time.perf_counter()
    found = hypothesis.find(
        overlays(bounds), fools, settings=UNHURRIED, random=Random(1), database_key=None
    )
    theirs_s = time.perf_counter() - began
    assert smallest is not None
    for name, seconds, count, size in (
        ("search", ours_s, draws + counts.evaluations, smallest.overlay.size),
        ("hypothesis.find, one at a time", theirs_s, len(judged), found.overlay.size),
    ):
        print(f"  {name:36} {seconds:7.1f} s, {count} overlays judged, letters of {size:.3f}")
    print(f"  {'':36} search is {theirs_s / ours_s:.1f} x as fast")


if __name__ == "__main__":
    main()

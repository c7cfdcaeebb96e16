"""A model that reads what is large enough: the search finds how large, and the same any time."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from natadv.errors import ConfigError
from natadv.evaluate.embeddings import EmbeddingCache
from natadv.evaluate.loaded_model import LoadedModel
from natadv.evaluate.model_runner import ModelRunner
from natadv.evaluate.run import Run
from natadv.evaluate.store import Store
from natadv.evaluate.worker import Worker
from natadv.gate.rules import SearchProfile
from natadv.models import loading
from natadv.pipelines.overlay_population import drawn_within
from natadv.scenarios.typographic.population import SearchSpace, population_path, write_population
from natadv.scenarios.typographic.rendering import render
from natadv.search.compute_search import compute_with, run_search
from natadv.search.objective import AttackObjective
from natadv.search.profile import search_units
from natadv.search.result import result_from, stored_results
from natadv.types import FloatArray, ModelSpec, Sample

COLOURS = {"cat": (200, 60, 60), "dog": (60, 200, 60), "cow": (60, 60, 200)}
CLASSES = tuple(COLOURS)
SIDE = 64
BOUNDS = SearchSpace(
    size=[0.1, 0.5],
    x=[0.0, 1.0],
    y=[0.0, 1.0],
    opacity=[0.6, 1.0],
    contrast=[0.3, 1.0],
    angle=0.0,
    panel=0.0,
    stroke=0.0,
    stroke_width=[0.04, 0.1],
    padding=[0.1, 0.6],
    fonts=["dejavu-sans-bold", "liberation-sans"],
    kinds=["decoy", "other"],
    off_object=0.0,
)
PROFILE = SearchProfile(
    population="lot", subjects=("dog",), pictures=4, at_least=0.5, evaluations=60
)


@dataclass
class Scoring:
    scale: float = 10.0
    bias: float = 0.0
    activation: str = "softmax"


def ink_px(image: Image.Image) -> int:
    """Height of the letters, which are not of the picture's main colour."""
    pixels = np.asarray(image, np.int64)
    colours, counts = np.unique(pixels.reshape(-1, 3), axis=0, return_counts=True)
    ink = np.abs(pixels - colours[counts.argmax()]).max(axis=2) > 8
    rows = np.flatnonzero(ink.any(axis=1))
    return int(rows[-1] - rows[0] + 1) if rows.size and reads(ink) else 0


def reads(ink: np.ndarray) -> bool:
    """Whether there are gaps in it, as between letters, and not just a box."""
    rows, columns = np.flatnonzero(ink.any(axis=1)), np.flatnonzero(ink.any(axis=0))
    inside = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return bool(inside.mean() < 0.9)


@dataclass
class Reader:
    """Sees the main colour, unless there is a word of at least so many pixels."""

    least_px: int
    scoring: Scoring = field(default_factory=Scoring)
    seen: int = 0

    def prepare(self, images: Sequence[Image.Image]) -> Sequence[Image.Image]:
        return images

    def embed_images(self, images: Sequence[Image.Image]) -> FloatArray:
        self.seen += len(images)
        return np.stack([self._embedded(image) for image in images])

    def _embedded(self, image: Image.Image) -> FloatArray:
        colours, counts = np.unique(np.asarray(image).reshape(-1, 3), axis=0, return_counts=True)
        main = tuple(int(part) for part in colours[counts.argmax()])
        at = list(COLOURS.values()).index(main)
        fooled = ink_px(image) >= self.least_px
        return np.eye(3, dtype=np.float32)[(at + fooled) % 3]

    def embed_texts(self, texts: Sequence[str]) -> FloatArray:
        found = [next(i for i, name in enumerate(CLASSES) if name in text) for text in texts]
        return np.eye(3, dtype=np.float32)[found]


def png(colour: tuple[int, int, int]) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (SIDE, SIDE), colour).save(out, "PNG")
    return out.getvalue()


@pytest.fixture
def pictures(pack):
    """Six pictures of each colour, one after the other."""
    return pack(
        "colours",
        [
            Sample(f"s{i}", group=f"g{i}", image=png(COLOURS[CLASSES[i % 3]]), label=i % 3)
            for i in range(18)
        ],
    )


@pytest.fixture
def frozen(tmp_path: Path):
    population = drawn_within(BOUNDS, name="lot", count=30, seed=2)
    write_population(population_path("lot", tmp_path), population)
    return population


@pytest.fixture
def unit(make_unit, pictures, frozen, tmp_path):
    (found,) = search_units(asking(make_unit, pictures), PROFILE, pictures, root=tmp_path)
    return found


def asking(make_unit, pictures):
    return make_unit(dataset="colours", revision=pictures.card.revision)


def bench_of(store: Store, model: Reader, size: int = 4) -> LoadedModel:
    return LoadedModel(model, EmbeddingCache(store.root / "embeddings", f"k{model.least_px}"), size)


def test_the_least_height_that_a_model_reads_is_found_to_the_pixel(unit, pictures, store):
    for least_px in (9, 21):
        check_least_height(unit, pictures, store, least_px)


def check_least_height(unit, pictures, store, least_px):
    reader = Reader(least_px)
    result = result_from(run_search(unit, pictures, bench_of(store, reader))["search"])

    attack = result.attack
    shown = render(
        attack.drawn.with_text(attack.text), Image.new("RGB", (SIDE, SIDE), COLOURS["dog"])
    )
    assert least_px <= ink_px(shown) <= least_px + 1
    assert result.counts.evaluations <= PROFILE.evaluations
    # The pictures are alike, so one of each overlay goes through the model, in full batches.
    assert reader.seen <= 4 * (30 / 4 + 1 + PROFILE.evaluations + 4)
    assert attack.flipped == attack.pictures
    assert attack.hidden == ()
    assert (attack.subject, len(attack.pictures)) == ("dog", 4)


def test_a_result_tells_what_it_rests_on_and_has_no_rows(unit, pictures, store):
    result = run_search(unit, pictures, bench_of(store, Reader(12)))

    assert result["unit"] == "classification/colours/mini-clip/search for dog"
    assert (result["revision"], result["tower"]) == (pictures.card.revision, unit.weights)
    assert result["images"] >= 30 * 4
    assert "outcomes" not in result
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_pictures_that_the_model_gets_wrong_are_not_searched_on(unit, pictures, store):
    class Blind(Reader):
        def _embedded(self, image):
            return np.eye(3, dtype=np.float32)[0]

    result = result_from(run_search(unit, pictures, bench_of(store, Blind(1)))["search"])

    assert result.attack is None
    assert (result.clean_samples, result.samples_tried) == (0, 6)
    assert result.in_words == (
        "of 6 clean pictures of dog none is answered right, so none can be flipped"
    )


def test_the_result_says_if_no_overlay_flips_the_model(unit, pictures, store):
    result = result_from(run_search(unit, pictures, bench_of(store, Reader(99)))["search"])

    assert result.in_words == (
        "none of 30 overlays flips 50 % of 4 pictures of dog by its letters; the strongest flips "
        "0 %"
    )
    assert result.counts.evaluations == 0


def test_a_population_that_is_drawn_otherwise_now_is_refused(unit, pictures, store):
    changed = replace(unit, search=replace(unit.search, population="0" * 64))

    with pytest.raises(ConfigError, match="draw it again"):
        run_search(changed, pictures, bench_of(store, Reader(12)))


def test_discovery_is_a_search_of_its_own(make_unit, pictures, frozen, tmp_path, store):
    profile = replace(PROFILE, discover=40, seed=7)
    both = search_units(asking(make_unit, pictures), profile, pictures, root=tmp_path)

    assert [unit.search.discover for unit in both] == [False, True]
    assert len({unit.key for unit in both}) == 2
    result = result_from(run_search(both[1], pictures, bench_of(store, Reader(10)))["search"])
    assert result.attack.flipped


def test_the_model_runner_and_the_store_keep_a_search_like_any_unit(
    unit, make_unit, pictures, store, run, monkeypatch
):
    readers = []

    def load(found, *, weights, device, dtype, threads):
        readers.append(Reader(14))
        return readers[-1]

    monkeypatch.setattr(loading, "load_hashed", load)
    spec = ModelSpec("mini-clip", "mini-clip", "mini", Path(), "x", ("classification",))
    rows = asking(make_unit, pictures)
    rows = replace(rows, stop=18, numerics=replace(rows.numerics, batch_size=8))

    def fill(into: Store, units):
        one = Run(into, "r")
        one.prepare()
        loaded = ModelRunner(into, {"colours": pictures}, {"mini-clip": spec}, run=one)
        done = Worker(into, one, compute_with(loaded))
        done.drain(units)
        assert not done.problems
        assert [one.error(u.key) for u in units] == [None] * len(units)

    fill(store, [rows, unit])
    other = Store(store.root / "other")
    other.prepare()
    fill(other, [unit, rows])

    (first,), (second,) = (
        stored_results([unit], store=at, run=Run(at, "r")) for at in (store, other)
    )
    assert first == second
    assert first.attack is not None
    seen = [reader.seen for reader in readers]
    fill(store, [rows, unit])
    assert [reader.seen for reader in readers] == seen


def test_flip_rates_are_those_of_each_overlay_by_itself(unit, pictures, store, frozen):
    model = Reader(15)
    samples = tuple(
        Sample(f"s{i}", group=f"g{i}", image=png(COLOURS["dog"]), label=1) for i in (1, 4, 7)
    )
    objective = AttackObjective(unit, pictures, bench_of(store, model), "dog", samples)

    together = objective.flip_rates(frozen.overlays)

    plain = Image.new("RGB", (SIDE, SIDE), COLOURS["dog"])
    texts = [objective.text_of(drawn)[0] for drawn in frozen.overlays]
    drawn = [render(o.with_text(t), plain) for o, t in zip(frozen.overlays, texts, strict=True)]
    assert together == [float(ink_px(image) >= 15) for image in drawn]
    assert set(together) == {0.0, 1.0}
    assert together == [objective.flip_rates([one])[0] for one in frozen.overlays]


def test_the_model_runner_alone_makes_no_rows_of_a_search(unit, pictures, store, run):
    loaded = ModelRunner(store, {"colours": pictures}, {}, run=run)

    with pytest.raises(AssertionError, match="a search has no rows"):
        loaded.compute(unit)

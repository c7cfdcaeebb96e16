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

from natadv.engine.bench import Bench
from natadv.engine.embeddings import EmbeddingCache
from natadv.engine.fill import Fill
from natadv.engine.hunting import hunted
from natadv.engine.hunts import caught, file_part, hunt_units, told
from natadv.engine.run import Run
from natadv.engine.store import Store
from natadv.engine.trial import Trial
from natadv.engine.workbench import Workbench
from natadv.errors import ConfigError, DataError
from natadv.gate.rules import SearchProfile
from natadv.models import loading
from natadv.pipelines.population import drawn_within
from natadv.scenarios.typographic.attack import attack_from
from natadv.scenarios.typographic.bounds import Bounds
from natadv.scenarios.typographic.overlay import render
from natadv.scenarios.typographic.population import population_path, write_population
from natadv.types import FloatArray, ModelSpec, Sample

COLOURS = {"cat": (200, 60, 60), "dog": (60, 200, 60), "cow": (60, 60, 200)}
CLASSES = tuple(COLOURS)
SIDE = 64
BOUNDS = Bounds(
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
    (found,) = hunt_units(asking(make_unit, pictures), PROFILE, pictures, root=tmp_path)
    return found


def asking(make_unit, pictures):
    return make_unit(dataset="colours", revision=pictures.card.revision)


def bench_of(store: Store, model: Reader, size: int = 4) -> Bench:
    return Bench(model, EmbeddingCache(store.root / "embeddings", f"k{model.least_px}"), size)


@pytest.mark.parametrize("least_px", [9, 14, 21])
def test_the_least_height_that_a_model_reads_is_found_to_the_pixel(unit, pictures, store, least_px):
    reader = Reader(least_px)
    result = hunted(unit, pictures, bench=bench_of(store, reader))

    attack = attack_from(result["caught"]["attack"])
    shown = render(attack.drawn.saying(attack.text), Image.new("RGB", (SIDE, SIDE), COLOURS["dog"]))
    assert least_px <= ink_px(shown) <= least_px + 1
    assert result["caught"]["evaluations"] <= PROFILE.evaluations
    # The pictures are alike, so one of each overlay goes through the model, in full batches.
    assert reader.seen <= 4 * (30 / 4 + 1 + PROFILE.evaluations + 4)
    assert attack.flipped == attack.pictures
    assert attack.hidden == ()
    assert (attack.subject, len(attack.pictures)) == ("dog", 4)


def test_a_result_tells_what_it_rests_on_and_has_no_rows(unit, pictures, store):
    result = hunted(unit, pictures, bench=bench_of(store, Reader(12)))

    assert result["unit"] == "classification/colours/mini-clip/search for dog"
    assert (result["revision"], result["tower"]) == (pictures.card.revision, unit.weights)
    assert result["images"] >= 30 * 4
    assert "outcomes" not in result
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_pictures_that_the_model_is_wrong_about_are_no_ground(unit, pictures, store):
    class Blind(Reader):
        def _embedded(self, image):
            return np.eye(3, dtype=np.float32)[0]

    result = hunted(unit, pictures, bench=bench_of(store, Blind(1)))

    assert result["caught"]["attack"] is None
    assert (result["caught"]["pictures"], result["caught"]["looked_at"]) == (0, 6)
    assert told(result["caught"]) == (
        "of 6 clean pictures of dog none is answered right, so none can be flipped"
    )


def test_a_model_that_nothing_flips_is_told_so(unit, pictures, store):
    result = hunted(unit, pictures, bench=bench_of(store, Reader(99)))

    assert told(result["caught"]) == (
        "none of 30 overlays flips 50 % of 4 pictures of dog by its letters; the strongest flips "
        "0 %"
    )
    assert result["caught"]["evaluations"] == 0


def test_a_population_that_is_drawn_otherwise_now_is_refused(unit, pictures, store):
    asked = json.loads(unit.hunt)
    changed = replace(unit, hunt=json.dumps(asked | {"population": "0" * 64}))

    with pytest.raises(ConfigError, match="draw it again"):
        hunted(changed, pictures, bench=bench_of(store, Reader(12)))


def test_discovery_is_a_search_of_its_own(make_unit, pictures, frozen, tmp_path, store):
    profile = replace(PROFILE, discover=40, seed=7)
    both = hunt_units(asking(make_unit, pictures), profile, pictures, root=tmp_path)

    assert [json.loads(unit.hunt)["discover"] for unit in both] == [False, True]
    assert len({unit.key for unit in both}) == 2
    result = hunted(both[1], pictures, bench=bench_of(store, Reader(10)))
    assert attack_from(result["caught"]["attack"]).flipped


def test_the_workbench_and_the_store_keep_a_search_like_any_unit(
    unit, make_unit, pictures, store, run, monkeypatch
):
    readers = []

    def load(found, *, device, dtype, threads):
        readers.append(Reader(14))
        return readers[-1]

    monkeypatch.setattr(loading, "load", load)
    spec = ModelSpec("mini-clip", "mini-clip", "mini", Path(), "x", ("classification",))
    rows = asking(make_unit, pictures)
    rows = replace(rows, stop=18, numerics=replace(rows.numerics, batch_size=8))

    def fill(into: Store, units):
        one = Run(into, "r")
        one.prepare()
        bench = Workbench(into, {"colours": pictures}, {"mini-clip": spec}, run=one)
        done = Fill(into, one, bench.compute)
        done.drain(units)
        assert not done.problems
        assert [one.error(u.key) for u in units] == [None] * len(units)

    fill(store, [rows, unit])
    other = Store(store.root / "other")
    other.prepare()
    fill(other, [unit, rows])

    (first,), (second,) = caught([unit], store), caught([unit], other)
    assert first == second
    assert first["attack"] is not None
    seen = [reader.seen for reader in readers]
    fill(store, [rows, unit])
    assert [reader.seen for reader in readers] == seen


def test_searches_differ_by_whatever_could_end_them_elsewhere(
    make_unit, pictures, frozen, tmp_path
):
    def keys(profile, like=None):
        like = like or asking(make_unit, pictures)
        return [u.key for u in hunt_units(like, profile, pictures, root=tmp_path)]

    found = keys(PROFILE)
    for other in (
        {"subjects": ("cat",)},
        {"pictures": 5},
        {"at_least": 0.6},
        {"evaluations": 61},
    ):
        found += keys(replace(PROFILE, **other))
    found += keys(PROFILE, replace(asking(make_unit, pictures), weights="d" * 64))
    write_population(
        population_path("lot", tmp_path), drawn_within(BOUNDS, name="lot", count=30, seed=3)
    )
    found += keys(PROFILE)

    assert len(set(found)) == len(found)
    assert keys(PROFILE) == keys(replace(PROFILE, seed=9))  # only a discovery draws from it


def test_subjects_are_globs_and_each_must_mean_something(make_unit, pictures, frozen, tmp_path):
    def subjects(*globs):
        profile = replace(PROFILE, subjects=globs)
        units = hunt_units(asking(make_unit, pictures), profile, pictures, root=tmp_path)
        return [json.loads(unit.hunt)["subject"] for unit in units]

    assert subjects("c*") == ["cat", "cow"]
    assert subjects("*") == list(CLASSES)
    with pytest.raises(ConfigError, match=r"'horse'.*cat, dog, cow"):
        subjects("cat", "horse")


def test_a_population_that_is_not_there_is_named(make_unit, pictures, tmp_path):
    with pytest.raises(DataError, match=r"lot\.json"):
        hunt_units(asking(make_unit, pictures), PROFILE, pictures, root=tmp_path)


def test_effects_are_those_of_each_overlay_by_itself(unit, pictures, store, frozen):
    model = Reader(15)
    ground = tuple(
        Sample(f"s{i}", group=f"g{i}", image=png(COLOURS["dog"]), label=1) for i in (1, 4, 7)
    )
    trial = Trial(unit, pictures, bench_of(store, model), "dog", ground)

    together = trial.effects(frozen.overlays)

    plain = Image.new("RGB", (SIDE, SIDE), COLOURS["dog"])
    texts = [trial._worded(drawn)[0] for drawn in frozen.overlays]
    drawn = [render(o.saying(t), plain) for o, t in zip(frozen.overlays, texts, strict=True)]
    assert together == [float(ink_px(image) >= 15) for image in drawn]
    assert set(together) == {0.0, 1.0}
    assert together == [trial.effects([one])[0] for one in frozen.overlays]


def test_no_two_classes_share_a_file_and_none_leaves_its_folder():
    names = ["a b", "a-b", "a/b", "a  b", "../../a", "a__b", "É", "e", "猫", "犬", "[x]", "w" * 300]
    parts = [file_part(name) for name in [*names, "w" * 301]]

    assert len(set(parts)) == len(parts)
    assert file_part("polar bear") == "polar-bear"
    assert all("/" not in part and not part.startswith(".") for part in parts)
    assert max(map(len, parts)) < 100

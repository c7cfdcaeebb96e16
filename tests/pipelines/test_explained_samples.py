"""Which samples are explained, and what the numbers of a map say, by hand."""

from __future__ import annotations

import io
import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from natadv.cli import main
from natadv.errors import ConfigError, InfraError, ModelError
from natadv.evaluate.pictures import text_region
from natadv.models import loading
from natadv.pipelines.explain import ExplainPlan, explain
from natadv.pipelines.explained_samples import (
    RelevanceMap,
    Shown,
    in_words,
    most_confident,
    triptych,
)
from natadv.scenarios.typographic.overlay import Overlay, to_json
from natadv.scenarios.typographic.rendering import render
from natadv.tasks import TASKS
from natadv.tasks.task import CORRECT
from natadv.types import Outcomes, Sample


def png(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def shown(*, text=None, mask=None) -> Shown:
    image = Image.new("RGB", (4, 4))
    stored = None if mask is None else png(Image.fromarray(mask.astype(np.uint8) * 255))
    sample = Sample("a", "a", png(image), mask=stored)
    return Shown(sample, image, image, text)


def test_the_ratio_is_the_share_of_relevance_over_the_share_of_the_picture():
    text, mask = np.zeros((4, 4), bool), np.zeros((4, 4), bool)
    text[:2, :1] = True  # an eighth of the picture: half of the first place
    mask[2:, 2:] = True
    relevance = np.array([[3.0, 1.0], [0.0, 4.0]], np.float32)
    found = RelevanceMap("truth", "cat", shown(text=text, mask=mask), relevance)

    assert found.text_area == pytest.approx(1 / 8)
    assert found.text_share == pytest.approx(3 / 8 / 2)
    assert found.text_ratio == pytest.approx(1.5)
    assert found.mask_share == pytest.approx(0.5)
    assert in_words(found) == ["text box 1.50: 19% on 12%", "object 50%"]


def test_numbers_that_nothing_is_known_of_are_nan_and_are_not_written():
    flat = np.ones((2, 2), np.float32)
    everywhere = np.ones((4, 4), bool)
    unknown = RelevanceMap("truth", "cat", shown(), flat)
    empty = RelevanceMap("truth", "cat", shown(text=everywhere, mask=everywhere), flat * 0)
    failed = RelevanceMap("truth", "cat", shown(text=everywhere), None, "planted")
    for found in (unknown, empty, failed):
        assert np.isnan(found.text_ratio)
        assert np.isnan(found.mask_share)
        assert in_words(found) == []


def test_the_text_region_covers_each_layer():
    clean = Sample("c", "c", png(Image.new("RGB", (40, 40), (0, 90, 0))))
    band = {"panel": (255, 255, 255), "frame": "picture", "band_height": 0.25}
    overlays = tuple(Overlay(text="dog", band=side, **band) for side in ("top", "bottom"))
    picture = render(overlays, Image.open(io.BytesIO(clean.image)).convert("RGB"))
    sample = Sample("a", "a", png(picture), overlay=to_json(overlays))
    region = text_region(sample)

    assert region is not None
    assert region.shape == (picture.height, picture.width)
    # What is left of the clean picture is all that the bands do not cover.
    green = (np.asarray(picture) == (0, 90, 0)).all(axis=2)
    np.testing.assert_array_equal(region, ~green)
    assert text_region(clean) is None


def outcomes(prefix="t", **values) -> Outcomes:
    n = len(next(iter(values.values())))
    ids = tuple(f"{prefix}{i}" for i in range(n))
    return Outcomes(
        id=ids,
        group=tuple(f"g{i // 2}" for i in range(n)),
        part=("",) * n,
        twin=tuple(f"c{i}" if prefix == "t" else None for i in range(n)),
        decoy=(None,) * n,
        truth=("cat",) * n,
        prediction=("dog",) * n,
        values={name: np.asarray(column, float) for name, column in values.items()},
    )


def test_regressions_come_first_then_new_mistakes_then_the_most_confident():
    rows = outcomes(correct=[0, 0, 0, 1, 0, 0], score=[0.3, 0.9, 0.5, 0.99, 0.6, 0.8])
    clean = outcomes("c", correct=[1, 1, 0, 1, 1, 0])

    def order(**given):
        settled = {"clean": None, "new": (), "most": 9} | given
        return most_confident("classification", rows, **settled)

    # Of each picture (two rows are of one) the most confident, then the second ones.
    assert order() == [1, 5, 2, 4, 0]
    assert order(clean=clean) == [1, 4, 0, 5, 2]
    assert order(clean=clean, new={"t2", "t5"}) == [5, 2, 1, 4, 0]
    assert order(most=2) == [1, 5]


def test_without_a_probability_the_worst_comes_first():
    rows = outcomes(iou=[0.4, 0.9, 0.1, 0.45])
    assert most_confident("segmentation", rows, clean=None, new=(), most=9) == [2, 0, 3]


class Scoring:
    scale, bias, activation = 10.0, 0.0, "softmax"


class Colours:
    """Tells classes by colour, and looks at the left half for a cat, at the right one else."""

    scoring = Scoring()

    def prepare(self, images):
        return images

    def embed_images(self, images):
        rows = np.array([np.asarray(i, np.float32).mean(axis=(0, 1)) for i in images])
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    def embed_texts(self, texts):
        at = [next(i for i, name in enumerate(("cat", "dog", "cow")) if name in t) for t in texts]
        return np.eye(3, dtype=np.float32)[at]


class Looking(Colours):
    layers = "last"

    def relevance(self, prepared, targets, *, layers="last"):
        left = targets[:, 0] > 0.5
        assert layers == self.layers
        return np.stack([[[1.0, 0.0] if one else [0.0, 1.0]] for one in left]).astype(np.float32)


@pytest.fixture
def plan(pristine_world, tmp_path, monkeypatch):
    """Explains a planted model on pictures of the small world."""

    def make(model=None, **settings):
        monkeypatch.setattr(loading, "load_hashed", lambda spec, **how: model or Looking())
        root = tmp_path / "world"
        if not root.exists():
            shutil.copytree(pristine_world, root)
        named = {"model": "mini-clip", "dataset": "plain-typo", "out": tmp_path / "out"}
        return ExplainPlan(store=root / ".natadv" / "store", root=root, **(named | settings))

    return make


def test_named_samples_are_explained_right_or_wrong(plan):
    ids = ("plain-0004@defense-prefix", "plain-0000@defense-prefix")
    found = explain(plan(ids=ids))

    assert [one.attacked.sample.id for one in found.samples] == list(ids)
    for one in found.samples:
        kinds = {m.kind: m for m in one.maps}
        assert set(kinds) == {"truth", "answer"}
        expected = [[1, 0]] if one.truth == "cat" else [[0, 1]]
        np.testing.assert_array_equal(kinds["truth"].relevance, expected)
        text = one.attacked.text
        half = text[:, :8] if one.truth == "cat" else text[:, 8:]
        assert kinds["truth"].text_share == pytest.approx(half.mean())
    right = next(one for one in found.samples if one.prediction.correct)
    frames = triptych(right, "classification")
    assert [len(frames), frames[0].captions[0].text] == [4, "clean"]
    assert CORRECT in {caption.colour for caption in frames[1].captions}
    regressed = triptych(replace(right, before="a cow"), "classification")
    assert "before: a cow" in {caption.text for caption in regressed[1].captions}
    assert len(found.table) == 1 + 4 + 2
    assert found.sheet.read_bytes().startswith(b"\x89PNG")


def test_all_layers_are_those_that_were_asked_for(plan):
    model = Looking()
    model.layers = "all"
    ids = ("plain-0000@defense-prefix",)
    assert explain(plan(model, ids=ids, layers="all")).samples


def test_what_cannot_be_explained_says_why_in_one_line(plan):
    for task in ("heads", "nothing"):
        with pytest.raises(ConfigError, match=f"task '{task}' has no relevance maps; classif"):
            explain(plan(task=task))
    with pytest.raises(ModelError, match="gives no relevance maps"):
        explain(plan(Colours(), ids=("plain-0000@defense-prefix",)))
    with pytest.raises(InfraError, match="makes no mistake on the first 30 samples of plain"):
        explain(plan(dataset="plain", rows=30))


def test_the_command_prints_a_line_per_map_and_where_the_picture_lies(plan, capsys):
    world = plan().root
    case = "classification/typographic/plain-typo/mini-clip"
    sample = "plain-0000@defense-prefix"
    maps = world / "maps"
    settings = ["--root", str(world), "--out", str(maps), "--device", "cpu"]

    assert main(["explain", "--case", case, "--ids", sample, *settings]) == 0
    out = capsys.readouterr().out
    lines = out.splitlines()
    assert [line.split()[:2] for line in lines[1:3]] == [[sample, "truth:"], [sample, "answer:"]]
    sheet = f"{maps}/{case.replace('/', '__')}__relevance.png"
    assert " ".join(out.split()).endswith(f"the samples that were named: {sheet}")
    other = case.replace("typographic", "natural")
    for wrong in (
        ["--case", "a/b"],
        ["--case", other],
        ["--case", case, "--model", "m"],
        ["--model", "mini-clip"],
    ):
        assert main(["explain", *wrong, *settings]) == 4


def test_every_failure_has_one_cause():
    by_hand = {
        "classification": (
            outcomes(
                correct=[1, 0, 0, 0, 0],
                said_decoy=[0, 1, 0, 0, 0],
                margin=[2, -0.1, -0.69, -0.70, 0],
                rank=[0, 1, 1, 1, 1],
                score=[0.5] * 5,
                true_score=[0.5] * 5,
            ),
            {"said the word": 1, "low margin": 2, "another wrong class": 1},
        ),
        "vqa": (
            outcomes(
                accuracy=[1, 0, 0.3, 0, 0.6],
                said_decoy=[0, 1, 1, 0, 0],
                **dict.fromkeys(("simple", "exact", "yes_no", "number", "other"), [0] * 5),
            ),
            {"said the word": 2, "partly right": 1, "another answer": 1},
        ),
        "segmentation": (
            outcomes(
                tp=[9, 4, 5, 0],
                fn=[1, 5, 5, 0],
                fp=[0, 0, 6, 3],
                tn=[0] * 4,
                iou=[0.9, 4 / 9, 5 / 16, 0],
            ),
            {"missed the object": 1, "marked too much": 2},
        ),
    }
    for task, (rows, counts) in by_hand.items():
        assert TASKS[task].failures_by_cause(rows) == counts, task
        assert sum(counts.values()) == int(TASKS[task].failed(rows).sum())
        lacking = Outcomes(
            **{**vars(rows), "values": {"correct": rows.values[next(iter(rows.values))]}}
        )
        assert TASKS[task].failures_by_cause(lacking) == {}

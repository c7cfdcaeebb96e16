"""Rows whose pictures are drawn when they are shown give the evidence of the stored ones."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from natadv.data.images import decode_image
from natadv.errors import DataError
from natadv.evaluate import pictures as pictures_module
from natadv.evaluate import plan as plan_module
from natadv.evaluate import shard as shard_module
from natadv.evaluate.compute import compute
from natadv.evaluate.embeddings import EmbeddingCache
from natadv.evaluate.grid import Grid
from natadv.evaluate.loaded_model import LoadedModel
from natadv.evaluate.outcomes_json import outcomes_of
from natadv.evaluate.pictures import overlaid, pictures, sized
from natadv.evaluate.plan import units_of
from natadv.evaluate.shard import shard_of
from natadv.evaluate.units import Numerics
from natadv.gate.rules import Thresholds, Tier, TierGrid
from natadv.heads.decoder import Decoder
from natadv.heads.folder import AnsweringHead
from natadv.heads.head_file import DecoderConfig, McanConfig
from natadv.heads.mcan import Mcan
from natadv.heads.vocabulary import Vocabulary
from natadv.scenarios.typographic.overlay import Overlay, to_json
from natadv.scenarios.typographic.rendering import mask_after, render
from natadv.scenarios.typographic.twins import lossless
from natadv.tasks import ASKED
from natadv.tasks.masks import truth_mask, upright_size
from natadv.types import Case, ForwardFeatures, ModelSpec

HEADS = {"segmentation": "a" * 64, "vqa": "b" * 64}
CLASSES = ("cat", "dog", "cow")
OVERLAYS = (
    Overlay(text="dog", size=0.4, opacity=0.5, angle=20.0),
    Overlay(text="cow", size=0.3, panel=(10, 200, 30), x=0.1, y=0.9),
    Overlay(text="zork", size=0.25, band="bottom", panel=(255, 255, 255), fill=(0, 0, 0)),
)
PER_PICTURE = len(OVERLAYS)


@pytest.fixture
def clean(pack, clean_samples, asked):
    return pack("asked", asked, tasks=tuple(ASKED))


@pytest.fixture
def asked(clean_samples):
    """About each picture a row for all three tasks."""
    rows = []
    for i, sample in enumerate(clean_samples):
        mask = np.zeros((32, 32), bool)
        mask[i : i + 9, 5:20] = True
        rows.append(
            replace(
                sample,
                phrase="a cat" if i % 2 else "the dog",
                mask=png(mask),
                question="what colour is it" if i % 2 else "is it an animal",
                answers=("red",) * 8 + ("green",) * 2,
                answer_type="other",
            )
        )
    return rows


@pytest.fixture
def stored_rows(asked):
    """Each picture under each overlay, as it would be packed with its pixels."""
    return [
        replace(
            sample,
            id=f"{sample.id}@o{n:03d}",
            image=lossless(render(overlay, decode_image(sample.image, where=sample.id))),
            mask=mask_after(sample.mask, (overlay,)),
            decoy=overlay.text if overlay.text in CLASSES else None,
            twin=sample.id,
            overlay=to_json(overlay),
        )
        for sample in asked
        for n, overlay in enumerate(OVERLAYS)
    ]


@pytest.fixture
def drawn_rows(stored_rows):
    return [replace(row, image=b"") for row in stored_rows]


TYPO = {"scenario": "typographic", "twin_of": "asked", "tasks": tuple(ASKED)}


@pytest.fixture
def stored(pack, stored_rows, clean):
    return pack("stored", stored_rows, **TYPO)


@pytest.fixture
def pack_drawn(pack, clean):
    def packed(rows, **other):
        ground = {"drawn": True, "twin_revision": clean.card.revision}
        return pack("drawn", rows, **{**TYPO, **ground, **other})

    return packed


@pytest.fixture
def drawn(pack_drawn, drawn_rows):
    return pack_drawn(drawn_rows)


@pytest.fixture
def equip(store, eyes):
    """A loaded model of its own, which has embedded nothing yet."""
    torch.manual_seed(3)
    decoder = Decoder(DecoderConfig((1, 2), (3, 3), 3, 8, reduce_width=8, heads=2, feed_forward=16))
    mcan = Mcan(McanConfig(7, 4, 2, 3, 8, 16, 2, 32, 1, summary=8, fused=8))
    with torch.no_grad():
        mcan.answer.bias.zero_()
        mcan.norm.bias.zero_()
        for parameter in (mcan.image.weight, mcan.embedding.weight):
            parameter.mul_(20)
    words = Vocabulary(("animal", "colour", "is", "it", "what"))
    heads = {
        HEADS["segmentation"]: decoder.eval(),
        HEADS["vqa"]: AnsweringHead(mcan.eval(), words, ("red", "green", "blue", "yes")),
    }

    def forward_features(images, layers):
        grid = np.stack([np.asarray(i.resize((4, 4)), np.float32) / 255 for i in images])
        return ForwardFeatures(eyes.embed_images(images), tuple(grid**layer for layer in layers))

    eyes.depth, eyes.forward_features = 2, forward_features

    def make(name):
        cache = EmbeddingCache(store.root / "embeddings", name)
        return LoadedModel(eyes, cache, batch_size=4, heads=heads)

    return make


@pytest.fixture
def units(make_unit):
    def of(dataset, **other):
        return [
            make_unit(
                task=task,
                dataset=dataset.name,
                revision=dataset.card.revision,
                stop=dataset.card.rows,
                protocol=ASKED[task].protocol,
                head=HEADS.get(task, ""),
                **other,
            )
            for task in ASKED
        ]

    return of


def png(mask) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8) * 255).save(buffer, "PNG")
    return buffer.getvalue()


def said(results, units):
    """All that a result tells of its rows, task by task."""
    names = ("outcomes", "errors", "masks")
    return {u.task: {n: results[u.key].get(n) for n in names} for u in units}


@pytest.mark.parametrize("variant", ["attack", "occlusion", "matched"])
def test_the_evidence_is_that_of_stored_pictures(units, stored, drawn, clean, equip, variant):
    found = {}
    for dataset in (stored, drawn):
        asked, loaded = units(dataset, variant=variant), equip(dataset.name)
        found[dataset.name] = said(compute(asked, dataset, clean=clean, loaded=loaded), asked)

    assert found["drawn"] == found["stored"]
    for task in ASKED:
        assert len(found["drawn"][task]["outcomes"]["id"]) == 10 * PER_PICTURE
    assert len(found["drawn"]["segmentation"]["masks"]) == 12


def test_what_is_told_of_an_overlay_stands_beside_every_answer(
    units, pack_drawn, drawn_rows, clean, equip
):
    facts = [
        {"size": 0.1 * n, "kind": "other", "off_object": n == 0, **({"hidden": 0.5} if n else {})}
        for n in range(len(drawn_rows))
    ]
    rows = [
        replace(row, facts=json.dumps(fact)) for row, fact in zip(drawn_rows, facts, strict=True)
    ]
    broken = replace(rows[1], overlay="{}")
    dataset = pack_drawn([rows[0], broken, *rows[2:]])
    asked = units(dataset)
    results = compute(asked, dataset, clean=clean, loaded=equip("drawn"))

    for unit in asked:
        found = outcomes_of([results[unit.key]])
        assert broken.id not in found.id
        expected = [json.loads(row.facts) for row in rows if row.id in found.id]
        assert [row.id for row in rows if row.id in found.id] == list(found.id)
        # The first row tells of nothing that is hidden.
        assert found.attributes == {
            "size": tuple(fact["size"] for fact in expected),
            "kind": ("other",) * 29,
            "off_object": ("yes", *["no"] * 28),
        }


def test_stored_pictures_have_no_factors(units, pack, stored_rows, clean, equip):
    facts = json.dumps({"size": 0.1})
    dataset = pack("stored", [replace(row, facts=facts) for row in stored_rows], **TYPO)
    asked = units(dataset)
    results = compute(asked, dataset, clean=clean, loaded=equip("stored"))

    assert not any("factors" in results[unit.key]["outcomes"] for unit in asked)


@pytest.fixture
def square(pack_drawn, drawn_rows):
    """Without the bands: this tower has to be shown other pictures as a square, too."""
    return pack_drawn([row for row in drawn_rows if not row.id.endswith("@o002")])


def test_each_picture_is_encoded_once_for_all_tasks(units, square, clean, equip):
    loaded, asked, drawn = equip("drawn"), units(square), square
    results = compute(asked, drawn, clean=clean, loaded=loaded)
    again = compute(asked[:1], drawn, clean=clean, loaded=loaded)

    assert [results[u.key]["encoded"] for u in asked] == [20, 0, 0]
    assert [results[u.key]["images"] for u in asked] == [20] * 3
    assert again[asked[0].key]["encoded"] == 0


def test_clean_twins_are_read_once_for_a_shard_and_decoded_once_each(
    units, square, clean, equip, monkeypatch
):
    read, decoded = [], []

    def reading(folder, card, ids):
        read.append(sorted(ids))
        return read_by_id(folder, card, ids)

    def decoding(data, *, where):
        decoded.append(where)
        return decode_image(data, where=where)

    read_by_id = shard_module.read_by_id
    monkeypatch.setattr(shard_module, "read_by_id", reading)
    monkeypatch.setattr(pictures_module, "decode_image", decoding)
    compute(units(square), square, clean=clean, loaded=equip("drawn"))

    assert read == [[f"s{i}" for i in range(10)]]
    assert decoded == [f"s{i}" for i in range(10)]


def test_a_drawn_picture_is_what_the_recipe_of_a_twin_would_store(
    stored_rows, drawn_rows, clean_samples
):
    for stored, drawn in zip(stored_rows, drawn_rows, strict=True):
        clean = next(s for s in clean_samples if s.id == drawn.twin)
        found = overlaid(drawn, clean).open()
        assert found.mode == "RGB"
        assert np.array_equal(found, decode_image(stored.image, where=""))


def test_it_is_known_by_all_that_it_is_drawn_from(drawn_rows, clean_samples):
    row, clean = drawn_rows[0], clean_samples[0]
    other = to_json(replace(OVERLAYS[0], opacity=0.51))
    keys = {
        overlaid(row, clean).key,
        overlaid(replace(row, overlay=other), clean).key,
        overlaid(row, replace(clean, image=clean.image + b"\0")).key,
        pictures([row], {clean.id: clean}, variant="occlusion", classes=CLASSES)[0][0].key,
    }

    assert len(keys) == 4
    again = overlaid(replace(row, id="renamed", mask=None), replace(clean, id="renamed"))
    assert again.key == overlaid(row, clean).key


def test_its_size_is_told_with_the_bands(stored_rows, drawn_rows, clean_samples):
    clean = {s.id: s for s in clean_samples}
    for stored, drawn in zip(stored_rows, drawn_rows, strict=True):
        row = sized(drawn, clean)
        assert upright_size(row) == upright_size(stored)
        assert np.array_equal(truth_mask(row), truth_mask(stored))
    assert {upright_size(row) for row in stored_rows} == {(32, 32), (32, 40)}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"overlay": "{}"}, "has no overlay to draw"),
        ({"overlay": '[{"text": "cat"}]'}, "lacks"),
        ({"overlay": to_json(Overlay(text="far too long a text to fit " * 9))}, "does not fit"),
    ],
)
def test_a_row_that_cannot_be_drawn_is_an_error_of_that_row_only(
    units, pack_drawn, drawn_rows, clean, equip, change, reason
):
    dataset = pack_drawn([drawn_rows[0], replace(drawn_rows[1], **change), *drawn_rows[2:]])
    asked = units(dataset)
    results = compute(asked, dataset, clean=clean, loaded=equip("drawn"))

    for unit in asked:
        assert results[unit.key]["errors"].keys() == {drawn_rows[1].id}
        assert reason in results[unit.key]["errors"][drawn_rows[1].id]
        assert len(results[unit.key]["outcomes"]["id"]) == 29


def test_a_mask_of_another_size_than_the_drawn_picture_is_refused(
    units, pack_drawn, drawn_rows, clean, equip
):
    # What packing cannot check: this one is of the picture without its band.
    dataset = pack_drawn([replace(drawn_rows[2], mask=drawn_rows[0].mask)])
    named, found, _ = units(dataset)

    with pytest.raises(DataError, match="expected a mask of the picture's 32 x 40 pixels"):
        compute([found], dataset, clean=clean, loaded=equip("drawn"))
    assert compute([named], dataset, clean=clean, loaded=equip("drawn"))


def test_a_twin_that_is_not_there_is_named(units, pack_drawn, drawn_rows, clean, equip):
    dataset = pack_drawn([replace(drawn_rows[0], twin="nobody")])

    with pytest.raises(DataError, match="first 'nobody'"):
        compute(units(dataset), dataset, clean=clean, loaded=equip("drawn"))


@pytest.fixture
def changed(pack, asked):
    """The clean dataset after somebody gave one picture another class."""
    return pack("asked-2", [replace(asked[0], label=1), *asked[1:]], tasks=tuple(ASKED))


def test_another_state_of_the_clean_dataset_is_never_drawn_on(units, drawn, changed):
    unit = units(drawn)[0]

    with pytest.raises(DataError, match=rf"but {changed.card.revision[:12]} is there"):
        shard_of(unit, drawn, clean=changed)
    with pytest.raises(DataError, match="which is not there; run dvc pull"):
        shard_of(unit, drawn, clean=None)


def test_the_case_is_told_so_before_anything_is_computed(monkeypatch, drawn, clean, changed):
    monkeypatch.setattr(plan_module, "fingerprint", lambda spec: "c" * 64)
    case = Case("classification", "typographic", "drawn", "mini-clip")
    numerics = Numerics("cpu", "float32", batch_size=4, threads=1, packages={"torch": "2"})
    spec = ModelSpec("mini-clip", "mini-clip", "mini", clean.folder, "l", ("classification",))
    tier = Tier("mini", (TierGrid(("mini-clip",), ()),))

    def units(limit=None, **datasets):
        thresholds = Thresholds("mini", 0.95, {"mini": tier}, ())
        grid = Grid(thresholds, tier, (case,), {"mini-clip": spec}, datasets, limit)
        return units_of(case, grid, numerics=numerics)

    whole = units(drawn=drawn, asked=clean)
    assert {role: len(found) for role, found in whole.roles().items()} == {
        "attack": 1,
        "clean": 1,
        "occlusion": 1,
        "matched": 1,
    }
    # Of a few rows, the twins may be any.
    few = units(limit=4, drawn=drawn, asked=clean)
    assert [(u.start, u.stop) for u in (*few.attack, *few.matched, *few.clean)] == [
        (0, 4),
        (0, 4),
        (0, 10),
    ]
    problem = units(drawn=drawn, asked=changed).problem
    assert f"of revision {clean.card.revision[:12]}, but" in problem
    assert "dataset 'asked' is not at" in units(drawn=drawn).problem

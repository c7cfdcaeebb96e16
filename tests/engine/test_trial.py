"""A few pictures under whatever overlay, against each of them drawn and asked by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from natadv.data.images import decode_image
from natadv.engine import trial as trial_module
from natadv.engine.bench import Bench
from natadv.engine.embeddings import EmbeddingCache
from natadv.engine.trial import Trial, pictures_of, trial_of, trial_on
from natadv.errors import DataError
from natadv.scenarios.typographic.overlay import Overlay, box, from_json, render
from natadv.scenarios.typographic.places import covered, kept_off, place_of
from natadv.scenarios.typographic.population import BLANK, DrawnOverlay
from natadv.scenarios.typographic.twins import lossless
from natadv.tasks.masks import truth_mask
from natadv.types import Sample

CLASSES = ("cat", "dog", "cow")
SIDE = 48
ALL = 12


def written(name="new", *, kind="decoy", off_object=False, pick=0.0, **other) -> DrawnOverlay:
    drawn = Overlay(**{"text": BLANK, "size": 0.5, "x": 0.0, "y": 0.0, **other})
    return DrawnOverlay(name, kind, pick, off_object, drawn)


OVERLAYS = (
    written(size=0.1, opacity=0.4),
    written(panel=(0, 0, 255), fill=(0, 0, 200), padding=1.0),
    written(panel=(0, 0, 255), fill=(0, 0, 200), padding=2.0, opacity=0.7),
    written(panel=(255, 0, 0), padding=4.0, x=1.0, y=1.0),
    written(kind="nonword", panel=(0, 0, 255), padding=2.0, off_object=True),
    written(size=0.3, fill=(0, 0, 255), stroke=(0, 0, 255), stroke_width=0.3, angle=20.0),
    *(written(panel=(0, 0, 255), padding=2.0, opacity=step / 40) for step in range(12, 28)),
)


@pytest.fixture
def clean():
    """Dogs and cats of one colour each, the later ones paler, the first dog taken for a cat."""
    rows = []
    for i in range(2 * ALL):
        label = i % 2
        pixels = np.full((SIDE, SIDE, 3), 20 + 3 * i, np.uint8)
        pixels[..., 0 if i == 1 else label] = 180
        mask = np.zeros((SIDE, SIDE), bool)
        mask[: SIDE // 2, : SIDE // 2 + i] = True
        name = f"s{i:02d}"
        picture = lossless(Image.fromarray(pixels))
        rows.append(
            Sample(name, group=name, image=picture, label=label, mask=png(mask), phrase="x")
        )
    return rows


def png(mask) -> bytes:
    import io

    out = io.BytesIO()
    Image.fromarray(mask).convert("L").save(out, "PNG")
    return out.getvalue()


@pytest.fixture
def dataset(pack, clean):
    return pack("plain", clean, tasks=("classification", "segmentation"))


@pytest.fixture
def unit(make_unit):
    return make_unit(stop=5)


@pytest.fixture
def trial(unit, dataset, bench) -> Trial:
    return trial_of(unit, dataset, "dog", bench)


def said_by_hand(picture: Image.Image) -> str:
    return CLASSES[int(np.asarray(picture, np.float64).mean(axis=(0, 1)).argmax())]


def by_hand(trial: Trial, drawn: DrawnOverlay, text: str, *, letters=True) -> dict[str, str]:
    """What the model says of each picture, rendered one by one."""
    said = {}
    for sample in trial.ground:
        overlay = drawn.saying(text)
        if drawn.off_object:
            overlay = kept_off(overlay, truth_mask(sample))
        picture = decode_image(sample.image, where=sample.id)
        said[sample.id] = said_by_hand(render(replace(overlay, letters=letters), picture))
    return said


def flipped(said: dict[str, str]) -> list[str]:
    return [name for name, answer in said.items() if answer != "dog"]


def test_the_ground_is_what_the_model_is_right_about(trial, dataset, clean):
    dogs = {sample.id for sample in clean if sample.label == 1}

    assert len(trial.ground) == 5
    assert {sample.id for sample in trial.ground} <= dogs - {"s01"}
    assert 5 <= trial.looked_at <= 10


def test_where_it_is_right_about_fewer_there_are_fewer(make_unit, dataset, bench):
    found = trial_of(make_unit(stop=50), dataset, "dog", bench)

    assert (len(found.ground), found.looked_at) == (ALL - 1, ALL)
    assert trial_of(make_unit(stop=5), dataset, "cow", bench).ground == ()


def test_effects_are_those_of_each_picture_drawn_by_itself(trial):
    found = trial.effects(OVERLAYS)

    texts = [trial._worded(drawn)[0] for drawn in OVERLAYS]
    expected = [
        len(flipped(by_hand(trial, drawn, text))) / len(trial.ground)
        for drawn, text in zip(OVERLAYS, texts, strict=True)
    ]
    assert found == expected
    assert 0.0 in found
    assert max(found) == 1.0
    assert any(0 < share < 1 for share in found)


def test_together_and_alone_overlays_do_the_same(trial, unit, dataset, store, eyes):
    other = Bench(eyes, EmbeddingCache(store.root / "embeddings", "elsewhere"), batch_size=4)
    alone = trial_of(unit, dataset, "dog", other)

    assert trial.effects(OVERLAYS) == [alone.effects([drawn])[0] for drawn in OVERLAYS]


def test_a_picture_that_was_shown_is_not_embedded_again(trial, bench):
    trial.effects(OVERLAYS)
    encoded = bench.encoded
    trial.effects(OVERLAYS[::-1])

    assert bench.encoded == encoded


@pytest.mark.parametrize("error", ["none", "unwritable"])
def test_words_that_cannot_be_had_flip_nothing(trial, monkeypatch, error):
    strong = OVERLAYS[2]
    assert trial.effects([strong]) == [1.0]

    def worded(drawn, **_):
        if error == "none":
            raise DataError("no word of this kind")
        return "\u4f60", None

    monkeypatch.setattr(trial_module, "worded", worded)

    assert trial.effects([strong, strong]) == [0.0, 0.0]
    assert trial.shown_under(strong) == ()


def test_what_is_kept_off_the_object_is_shown_there(trial):
    drawn = written(off_object=True, size=0.2)
    for one in trial.shown_under(drawn):
        (overlay,) = from_json(one.attacked.overlay)
        left, top, right, bottom = box(overlay, (SIDE, SIDE))
        assert not truth_mask(one.clean)[top:bottom, left:right].any()
        assert (overlay.x, overlay.y) != (drawn.overlay.x, drawn.overlay.y)


def test_a_band_moves_the_truth_with_the_picture(trial):
    drawn = written(band="top", panel=(0, 0, 255), size=0.1)
    for one in trial.shown_under(drawn):
        before, after = truth_mask(one.clean), truth_mask(one.attacked)
        assert after.shape[0] > SIDE
        assert not after[: after.shape[0] - SIDE].any()
        assert np.array_equal(after[-SIDE:], before)


def test_an_attack_tells_what_was_seen(trial):
    drawn = OVERLAYS[5]
    attack = trial.attack(drawn)

    overlay = drawn.saying(attack.text)
    around = box(overlay, (SIDE, SIDE))
    assert attack.pictures == tuple(sample.id for sample in trial.ground)
    assert list(attack.flipped) == flipped(by_hand(trial, drawn, attack.text))
    assert list(attack.hidden) == flipped(by_hand(trial, drawn, attack.text, letters=False))
    assert attack.covered == pytest.approx(covered(around, (SIDE, SIDE)), abs=1e-6)
    assert attack.place == place_of(around, (SIDE, SIDE))
    assert attack.share == trial.effects([drawn])[0]
    assert (attack.model, attack.weights) == (trial.unit.model, trial.unit.answers_with)
    assert (attack.revision, attack.run) == (trial.dataset.card.revision, "")


def test_each_picture_is_told_clean_and_attacked(trial):
    drawn = OVERLAYS[1]
    shown = trial.shown_under(drawn)

    expected = by_hand(trial, drawn, trial._worded(drawn)[0])
    assert [one.clean for one in shown] == list(trial.ground)
    assert {one.clean.id: one.after.said for one in shown} == expected
    assert {one.clean.id for one in shown if not one.after.right} == set(flipped(expected))
    assert all(one.before.said == "dog" and one.before.right for one in shown)
    assert all(one.after.values.keys() >= {"score", "true_score"} for one in shown)


def test_an_attack_is_tried_on_its_own_pictures_with_its_own_text(trial, unit, dataset, bench):
    attack = replace(trial.attack(OVERLAYS[1]), text="zork", decoy=None)
    again = trial_on(unit, dataset, attack, bench)
    now = again.attack(attack.drawn)

    assert (now.text, now.decoy, now.pictures) == ("zork", None, attack.pictures)
    assert list(now.flipped) == flipped(by_hand(trial, attack.drawn, "zork"))
    assert all('"text":"zork"' in one.attacked.overlay for one in again.shown_under(attack.drawn))


def test_what_the_model_is_wrong_about_when_clean_is_left_out(trial, unit, dataset, bench):
    attack = trial.attack(OVERLAYS[1])
    attack = replace(attack, pictures=("s01", *attack.pictures))
    again = trial_on(unit, dataset, attack, bench)

    assert tuple(sample.id for sample in again.ground) == attack.pictures[1:]
    assert again.looked_at == len(attack.pictures)


def test_pictures_that_are_not_there_or_of_another_class_are_refused(trial, dataset):
    attack = trial.attack(OVERLAYS[0])

    with pytest.raises(DataError, match="2 ids are not in 'plain', first 's98'"):
        pictures_of(replace(attack, pictures=("s98", "s03", "s99")), dataset)
    with pytest.raises(DataError, match=r"sample 's02' is of 'cat', the attack is on.*of 'dog'"):
        pictures_of(replace(attack, pictures=("s03", "s02")), dataset)

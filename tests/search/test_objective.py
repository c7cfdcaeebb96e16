"""Clean samples under any overlay, against each of them drawn and predicted by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest
from PIL import Image

from natadv.data.images import decode_image
from natadv.errors import ConfigError, DataError
from natadv.evaluate.embeddings import EmbeddingCache
from natadv.evaluate.loaded_model import LoadedModel
from natadv.evaluate.pictures import overlaid
from natadv.scenarios.typographic.overlay import Overlay, from_json
from natadv.scenarios.typographic.placement import covered_share, moved_off, place_of
from natadv.scenarios.typographic.population import BLANK, DrawnOverlay
from natadv.scenarios.typographic.rendering import box, render
from natadv.scenarios.typographic.twins import lossless
from natadv.search import samples as samples_module
from natadv.search.contact_sheet import attacked_samples
from natadv.search.objective import (
    AttackObjective,
    objective_of_attack,
    objective_on_class,
    overlaid_row,
    place_overlay,
)
from natadv.search.samples import samples_of
from natadv.tasks.masks import truth_mask
from natadv.types import FloatArray, Sample
from tests.evaluate.conftest import Eyes

CLASSES = ("cat", "dog", "cow")
SIDE = 48
ALL = 12
BLUE, GREEN = (0, 0, 255), (0, 255, 0)


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
    written(size=1.0, fill=BLUE, opacity=0.9),
    written(size=1.0, fill=BLUE, stroke=BLUE, stroke_width=0.5),
    # Green letters take back what the panel between them flips.
    *(written(panel=BLUE, fill=GREEN, padding=1.0, opacity=step / 40) for step in (19, 22, 25)),
    *(written(panel=BLUE, padding=2.0, opacity=step / 40) for step in range(12, 28)),
)


def between(padding, opacity) -> DrawnOverlay:
    """Blue letters on a panel that is a little bluer than green: it flips some of the pictures by
    itself, and more of them with its letters."""
    ink = {"fill": BLUE, "stroke": BLUE, "stroke_width": 0.1}
    return written(panel=(0, 80, 220), padding=padding, opacity=opacity, **ink)


BETWEEN = (
    *(between(0.3, step / 40) for step in range(25, 37)),
    *(between(1.0, step / 40) for step in range(19, 31)),
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
def objective(unit, dataset, loaded) -> AttackObjective:
    return objective_on_class(unit, dataset, "dog", loaded)


def said_by_hand(picture: Image.Image) -> str:
    return CLASSES[int(np.asarray(picture, np.float64).mean(axis=(0, 1)).argmax())]


def by_hand(
    objective: AttackObjective, drawn: DrawnOverlay, text: str, *, letters=True
) -> dict[str, str]:
    """What the model says of each picture, rendered one by one."""
    said = {}
    for sample in objective.samples:
        overlay = drawn.with_text(text)
        if drawn.off_object:
            overlay = moved_off(overlay, truth_mask(sample))
        picture = decode_image(sample.image, where=sample.id)
        said[sample.id] = said_by_hand(render(replace(overlay, letters=letters), picture))
    return said


def attacked_under(objective: AttackObjective, drawn: DrawnOverlay):
    attack, pairs = objective.attack(drawn), objective.predictions(drawn)
    return attacked_samples(attack, pairs, objective.dataset)


def flipped(said: dict[str, str]) -> list[str]:
    return [name for name, answer in said.items() if answer != "dog"]


def test_the_samples_are_those_that_the_model_gets_right(objective, dataset, clean):
    dogs = {sample.id for sample in clean if sample.label == 1}

    assert len(objective.samples) == 5
    assert {sample.id for sample in objective.samples} <= dogs - {"s01"}
    assert 5 <= objective.samples_tried <= 10


def test_where_it_is_right_about_fewer_there_are_fewer(make_unit, dataset, loaded):
    found = objective_on_class(make_unit(stop=50), dataset, "dog", loaded)

    assert (len(found.samples), found.samples_tried) == (ALL - 1, ALL)


def test_a_damaged_mask_ends_the_search(dataset, clean, make_unit, loaded, monkeypatch):
    damaged = [replace(sample, mask=b"none") for sample in clean]
    monkeypatch.setattr(
        samples_module, "read_by_id", lambda folder, card, ids: [s for s in damaged if s.id in ids]
    )

    with pytest.raises(DataError, match="mask"):
        objective_on_class(make_unit(stop=5), dataset, "dog", loaded)


def test_a_class_without_pictures_cannot_be_searched_on(make_unit, dataset, loaded):
    with pytest.raises(DataError, match="plain has no pictures of 'cow'"):
        objective_on_class(make_unit(stop=5), dataset, "cow", loaded)


def both_by_hand(objective: AttackObjective, drawn: DrawnOverlay) -> tuple[set[str], set[str]]:
    """What the letters flip, and what the box flips without them."""
    text, _ = objective.text_of(drawn)
    ways = (by_hand(objective, drawn, text, letters=letters) for letters in (True, False))
    with_letters, without = (set(flipped(said)) for said in ways)
    return with_letters, without


def partly_hidden(ours: set[str], box: set[str]) -> bool:
    return bool(ours & box and ours - box)


def test_flip_rates_are_those_of_each_picture_drawn_by_itself_less_what_its_box_flips(objective):
    overlays = OVERLAYS + BETWEEN
    found = objective.flip_rates(overlays)

    pairs = [both_by_hand(objective, drawn) for drawn in overlays]
    assert found == [len(ours - box) / len(objective.samples) for ours, box in pairs]
    assert 0.0 in found
    assert max(found) == 1.0
    assert any(0 < share < 1 for share in found)
    assert any(partly_hidden(*pair) for pair in pairs)
    assert any(box - ours for ours, box in pairs)


def test_what_the_box_alone_flips_does_not_count(objective):
    strong = [OVERLAYS[1], OVERLAYS[2], OVERLAYS[3]]
    everything = {sample.id for sample in objective.samples}

    assert [both_by_hand(objective, drawn) for drawn in strong] == [(everything, everything)] * 3
    assert objective.flip_rates(strong) == [0.0] * 3
    assert [objective.attack(drawn).share for drawn in strong] == [1.0] * 3


@dataclass
class Two(Eyes):
    """Sees one pixel: of every other picture the first of two, of the rest the second, and there
    twice as much blue."""

    pixels: tuple[tuple[int, int], tuple[int, int]] = ((0, 0), (0, 0))

    def embed_images(self, images: Sequence[Image.Image]) -> FloatArray:
        rows = np.array([self.colour(image) for image in images])
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    def colour(self, image: Image.Image) -> FloatArray:
        second = every_other(image)
        seen = np.asarray(image.getpixel(self.pixels[second]), np.float32)
        return seen * (1, 1, 2 if second else 1)


def every_other(image: Image.Image) -> int:
    """0 or 1 by the paleness of a corner, over which nothing is written."""
    return image.getpixel((SIDE - 1, SIDE - 1))[2] // 6 % 2


def test_pictures_that_only_the_box_flips_do_not_offset_those_that_the_letters_flip(
    unit, dataset, store
):
    # Blue letters flip. The panel does where blue counts twice, unless a green outline covers it.
    drawn = written(fill=BLUE, panel=(0, 100, 90), stroke=GREEN, stroke_width=0.1)
    shown = np.asarray(render(drawn.with_text("cat"), Image.new("RGB", (SIDE, SIDE))))
    pixels = [
        tuple(map(int, np.argwhere((shown == colour).all(axis=2))[0][::-1]))
        for colour in (BLUE, GREEN)
    ]
    cache = EmbeddingCache(store.root / "embeddings", "two")
    objective = objective_on_class(
        unit, dataset, "dog", LoadedModel(Two(pixels=tuple(pixels)), cache, batch_size=4)
    )

    pictures = {sample.id: decode_image(sample.image, where="") for sample in objective.samples}
    by_letters = [name for name, image in pictures.items() if not every_other(image)]
    by_box = [name for name, image in pictures.items() if every_other(image)]
    attack = objective.attack(drawn)
    assert attack.text == "cat"
    assert (list(attack.flipped), list(attack.hidden)) == (by_letters, by_box)
    assert by_box
    assert objective.flip_rates([drawn]) == [len(by_letters) / len(pictures)] != [0.0]


LEAST = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


@pytest.fixture
def ten(make_unit, dataset, loaded) -> AttackObjective:
    return objective_on_class(make_unit(stop=10), dataset, "dog", loaded)


def test_shares_of_at_least_so_much_are_exact_and_others_stay_below(ten):
    pairs = [both_by_hand(ten, drawn) for drawn in BETWEEN]
    exact = [len(ours - box) / 10 for ours, box in pairs]

    assert ten.flip_rates(BETWEEN) == exact
    for least in LEAST:
        for share, known in zip(ten.flip_rates(BETWEEN, least=least), exact, strict=True):
            if known >= least:
                assert share == known
            else:
                assert known <= share < least
    # With their boxes' share some would be enough that are not.
    assert any(len(ours) >= 5 > len(ours - box) for ours, box in pairs)


def test_a_share_that_is_just_what_is_asked_for_is_enough(ten):
    exact = ten.flip_rates(BETWEEN)
    known = [least for least in LEAST if least in exact]

    assert len(known) >= 5
    assert 0.3 in known
    for least in known:
        told = ten.flip_rates([BETWEEN[exact.index(least)]], least=least)
        assert told == [least]


def test_the_box_alone_is_shown_only_for_flipped_samples_that_are_enough(
    make_unit, dataset, eyes, store
):
    overlays, sizes = (OVERLAYS[0], *BETWEEN), []
    for least in (0.0, 0.3, 0.9, 1.0):
        loaded = LoadedModel(
            eyes, EmbeddingCache(store.root / "embeddings", f"{least}"), batch_size=4
        )
        ten = objective_on_class(make_unit(stop=10), dataset, "dog", loaded)
        sizes = sizes or [len(both_by_hand(ten, drawn)[0]) for drawn in overlays]
        ten.flip_rates(overlays, least=least)

        enough = [size for size in sizes if size > 0 and size >= round(10 * least)]
        assert 0 < len(enough) < len(overlays)
        assert ten.images_shown == 10 * len(overlays) + sum(enough)
        assert loaded.encoded == ten.images_shown + ten.samples_tried


def test_where_nothing_is_flipped_no_box_is_looked_at(ten):
    assert ten.flip_rates([OVERLAYS[0]]) == [0.0]
    assert ten.images_shown == 10


def test_together_and_alone_overlays_do_the_same(objective, unit, dataset, store, eyes):
    other = LoadedModel(eyes, EmbeddingCache(store.root / "embeddings", "elsewhere"), batch_size=4)
    alone = objective_on_class(unit, dataset, "dog", other)

    for least in (0.0, 0.6):
        together = objective.flip_rates(OVERLAYS + BETWEEN, least=least)
        one_by_one = [alone.flip_rates([drawn], least=least) for drawn in OVERLAYS + BETWEEN]
        assert [[share] for share in together] == one_by_one


def test_a_picture_that_was_shown_is_not_embedded_again(objective, loaded):
    objective.flip_rates(OVERLAYS)
    encoded = loaded.encoded
    objective.flip_rates(OVERLAYS[::-1])

    assert loaded.encoded == encoded


def test_words_that_cannot_be_had_flip_nothing(objective, monkeypatch):
    strong = written(size=1.0, fill=BLUE, stroke=BLUE, stroke_width=0.5)
    assert objective.flip_rates([strong]) == [1.0]

    def no_word(drawn, **_):
        raise DataError("no word of this kind")

    def unwritable(drawn, **_):
        return "\u4f60", None

    for text_for in (no_word, unwritable):
        monkeypatch.setattr(DrawnOverlay, "text_for", text_for)

        assert objective.flip_rates([strong, strong]) == [0.0, 0.0]
        assert objective.predictions(strong) == ()


def test_what_is_kept_off_the_object_is_shown_there(objective):
    drawn = written(off_object=True, size=0.2)
    for one in attacked_under(objective, drawn):
        (overlay,) = from_json(one.attacked.overlay)
        left, top, right, bottom = box(overlay, (SIDE, SIDE))
        assert not truth_mask(one.clean)[top:bottom, left:right].any()
        assert (overlay.x, overlay.y) != (drawn.overlay.x, drawn.overlay.y)


def test_a_band_moves_the_truth_with_the_picture(objective):
    drawn = written(band="top", panel=(0, 0, 255), size=0.1)
    for one in attacked_under(objective, drawn):
        before, after = truth_mask(one.clean), truth_mask(one.attacked)
        assert after.shape[0] > SIDE
        assert not after[: after.shape[0] - SIDE].any()
        assert np.array_equal(after[-SIDE:], before)


def test_an_attack_tells_what_was_seen(objective):
    drawn = next(one for one in BETWEEN if partly_hidden(*both_by_hand(objective, one)))
    attack = objective.attack(drawn)

    overlay = drawn.with_text(attack.text)
    around = box(overlay, (SIDE, SIDE))
    assert attack.pictures == tuple(sample.id for sample in objective.samples)
    assert list(attack.flipped) == flipped(by_hand(objective, drawn, attack.text))
    assert list(attack.hidden) == flipped(by_hand(objective, drawn, attack.text, letters=False))
    assert attack.covered == pytest.approx(covered_share(around, (SIDE, SIDE)), abs=1e-6)
    assert attack.place == place_of(around, (SIDE, SIDE))
    assert attack.share == len(attack.flipped) / len(objective.samples)
    by_letters = set(attack.flipped) - set(attack.hidden)
    assert objective.flip_rates([drawn]) == [len(by_letters) / len(objective.samples)]
    assert (attack.model, attack.weights) == (objective.unit.model, objective.unit.answers_with)
    assert (attack.revision, attack.run) == (objective.dataset.card.revision, "")


def test_each_picture_is_told_clean_and_attacked(objective):
    drawn = OVERLAYS[1]
    shown = attacked_under(objective, drawn)

    expected = by_hand(objective, drawn, objective.text_of(drawn)[0])
    assert [one.clean for one in shown] == list(objective.samples)
    assert {one.clean.id: one.after.text for one in shown} == expected
    assert {one.clean.id for one in shown if not one.after.correct} == set(flipped(expected))
    assert all(one.before.text == "dog" and one.before.correct for one in shown)
    assert all(one.after.values.keys() >= {"score", "true_score"} for one in shown)


def with_pictures(attack, *ids):
    return attack.model_copy(update={"pictures": ids})


def test_an_attack_is_tried_on_its_own_pictures_with_its_own_text(objective, unit, dataset, loaded):
    attack = objective.attack(OVERLAYS[1]).model_copy(update={"text": "zork", "decoy": None})
    again = objective_of_attack(unit, dataset, attack, loaded)
    now = again.attack(attack.drawn)

    assert (now.text, now.decoy, now.pictures) == ("zork", None, attack.pictures)
    assert list(now.flipped) == flipped(by_hand(objective, attack.drawn, "zork"))
    assert all(
        '"text":"zork"' in one.attacked.overlay for one in attacked_under(again, attack.drawn)
    )


def test_what_the_model_is_wrong_about_when_clean_is_left_out(objective, unit, dataset, loaded):
    attack = objective.attack(OVERLAYS[1])
    attack = with_pictures(attack, "s01", *attack.pictures)
    again = objective_of_attack(unit, dataset, attack, loaded)

    assert tuple(sample.id for sample in again.samples) == attack.pictures[1:]
    assert again.samples_tried == len(attack.pictures)


def test_pictures_that_are_not_there_or_of_another_class_are_refused(objective, dataset):
    attack = objective.attack(OVERLAYS[0])

    with pytest.raises(DataError, match="2 ids are not in 'plain', first 's98'"):
        samples_of(with_pictures(attack, "s98", "s03", "s99"), dataset)
    with pytest.raises(DataError, match=r"sample 's02' is of 'cat', the attack is on.*of 'dog'"):
        samples_of(with_pictures(attack, "s03", "s02"), dataset)


WIDE = (60, 40)


def wide_overlay(*, off_object=False, **other) -> DrawnOverlay:
    drawn = Overlay(**{"text": BLANK, "size": 0.3, "x": 0.0, "y": 0.0, "frame": "picture", **other})
    return DrawnOverlay("new", "decoy", 0.0, off_object, drawn)


@pytest.fixture
def wide_sample() -> Sample:
    """The object is at the left."""
    mask = np.zeros(WIDE[::-1], np.uint8)
    mask[5:35, :25] = 255
    pixels = np.random.default_rng(1).integers(0, 255, (*WIDE[::-1], 3), dtype=np.uint8)
    return Sample(
        "s1",
        group="g",
        image=lossless(Image.fromarray(pixels)),
        label=1,
        mask=png(mask),
        phrase="dog",
        facts='{"a":1}',
    )


def test_the_text_stands_where_the_overlay_was_drawn(wide_sample):
    drawn = wide_overlay(x=0.3, y=0.7, angle=20.0)

    assert place_overlay(drawn, "cat", wide_sample, size=WIDE) == replace(drawn.overlay, text="cat")


def test_it_is_kept_off_the_object_where_that_is_asked_for_and_known(wide_sample):
    drawn = wide_overlay(off_object=True)
    off = place_overlay(drawn, "cat", wide_sample, size=WIDE)
    left, top, right, bottom = box(off, WIDE)

    assert not truth_mask(wide_sample)[top:bottom, left:right].any()
    assert replace(off, x=0.0, y=0.0) == drawn.with_text("cat")
    assert off.x > 0
    assert place_overlay(
        drawn, "cat", replace(wide_sample, mask=None), size=WIDE
    ) == drawn.with_text("cat")
    assert place_overlay(wide_overlay(), "cat", wide_sample, size=WIDE) == drawn.with_text("cat")


def test_what_cannot_be_drawn_there_is_refused(wide_sample):
    for text, error in [("word " * 100, DataError), ("\u4f60", ConfigError)]:
        with pytest.raises(error):
            place_overlay(wide_overlay(), text, wide_sample, size=WIDE)


def test_there_is_room_or_not_by_the_size_of_the_picture(wide_sample):
    text = "word " * 20

    assert place_overlay(wide_overlay(), text, wide_sample, size=(600, 400)).text == text
    with pytest.raises(DataError, match="does not fit into 20 x 20 px"):
        place_overlay(wide_overlay(), text, wide_sample, size=(20, 20))


def test_a_row_is_the_clean_one_with_the_overlay_drawn_on_it(wide_sample):
    overlay = place_overlay(wide_overlay(panel=(255, 0, 0)), "cat", wide_sample, size=WIDE)
    row = overlaid_row(overlay, wide_sample, decoy="cat", size=WIDE)

    changed = ("id", "image", "twin", "decoy", "overlay", "drawn_size")
    assert replace(row, **{name: getattr(wide_sample, name) for name in changed}) == wide_sample
    assert (row.image, row.twin, row.decoy, row.drawn_size) == (b"", "s1", "cat", WIDE)
    assert row.id == f"s1@{row.overlay}"
    assert from_json(row.overlay) == (overlay,)
    expected = render(overlay, decode_image(wide_sample.image, where="s1"))
    assert overlaid(row, wide_sample).open().tobytes() == expected.tobytes()


def test_other_overlays_are_other_rows(wide_sample):
    overlay = place_overlay(wide_overlay(), "cat", wide_sample, size=WIDE)
    others = (overlay, replace(overlay, letters=False), replace(overlay, opacity=0.5))

    assert len({overlaid_row(one, wide_sample, decoy=None, size=WIDE).id for one in others}) == 3


def test_a_band_makes_the_row_taller_and_moves_its_truth(wide_sample):
    for side in ["top", "bottom"]:
        overlay = place_overlay(
            wide_overlay(band=side, panel=(0, 0, 0)), "cat", wide_sample, size=WIDE
        )
        row = overlaid_row(overlay, wide_sample, decoy=None, size=WIDE)

        strip = row.drawn_size[1] - WIDE[1]
        assert strip > 0
        assert overlaid(row, wide_sample).open().size == row.drawn_size
        above, below = (strip, 0) if side == "top" else (0, strip)
        expected = np.pad(truth_mask(wide_sample), ((above, below), (0, 0)))
        assert np.array_equal(truth_mask(row), expected)
        assert (
            overlaid_row(overlay, replace(wide_sample, mask=None), decoy=None, size=WIDE).mask
            is None
        )

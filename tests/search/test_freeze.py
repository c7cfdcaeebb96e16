"""`natadv freeze`: attacks that are kept, and the dataset of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from natadv.data.card import load_card
from natadv.data.images import decode_image
from natadv.data.reader import iter_samples
from natadv.evaluate.compute import compute
from natadv.evaluate.datasets import dataset_named
from natadv.evaluate.embeddings import EmbeddingCache
from natadv.evaluate.loaded_model import LoadedModel
from natadv.evaluate.pictures import overlaid, shown
from natadv.models.resolve import resolve
from natadv.pipelines.embedders import Arithmetic
from natadv.scenarios.typographic.overlay import from_json
from natadv.scenarios.typographic.placement import moved_off
from natadv.scenarios.typographic.rendering import render
from natadv.search import freeze
from natadv.search.contact_sheet import attacked_samples
from natadv.search.freeze import pack_counterexamples, usual_name
from natadv.search.objective import objective_of_attack
from natadv.search.result import read_attack
from natadv.search.standalone import clean_unit
from natadv.tasks.masks import truth_mask

from .conftest import Eyes, edited

PACKED = "fixtures/datasets/plain-counterexamples"


def rows(world):
    folder = world / PACKED
    return list(iter_samples(folder, load_card(folder)))


def files(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def unit_on(world, data):
    (spec,) = resolve("mini-clip", root=world)
    arithmetic = Arithmetic("cpu", batch_size=16)
    return clean_unit(
        "classification",
        spec,
        dataset_named(data, world),
        arithmetic=arithmetic,
        store=world / "store",
    )


@pytest.fixture
def two(natadv, found, tmp_path, world):
    """Frozen: what was found, and the same kept off the object, saying something else."""
    attack = read_attack(found)
    off = replace(
        attack.drawn, off_object=True, overlay=replace(attack.drawn.overlay, x=0.5, y=0.5)
    )
    other = edited(
        found,
        tmp_path / "o.json",
        text="zork",
        decoy=None,
        drawn=off,
        pictures=attack.pictures[2:],
        flipped=attack.pictures[2:3],
        hidden=(),
    )
    natadv("freeze", found, "--name", "one")
    natadv("freeze", other, "--name", "other")
    folder = world / "fixtures/counterexamples"
    return {name: read_attack(folder / f"{name}.json") for name in ("one", "other")}


def test_it_keeps_the_attack_packs_it_and_says_what_to_do_next(natadv, found, world):
    kept, made, revision, _, *after = natadv("freeze", found)

    attack = read_attack(found)
    file = world / "fixtures/counterexamples" / f"{usual_name(attack)}.json"
    card = load_card(world / PACKED)
    assert kept == str(file)
    assert file.read_bytes() == found.read_bytes()
    assert made == f"{world / PACKED}: 6 rows of 1 counter-example"
    assert revision == f"revision {card.revision}"
    assert after == [
        "To let the gate judge it, list it under the cases of a tier in thresholds.yaml:",
        "      - classification/typographic/plain-counterexamples",
        "      - segmentation/typographic/plain-counterexamples",
        "measure it, and take over the rules that follow from it:",
        "  pytest suites/ --dataset plain-counterexamples --no-assert",
        "  natadv calibrate --out thresholds/plain-counterexamples.yaml",
        "and, once dvc.yaml has a stage plain-counterexamples with the command natadv freeze "
        "--pack plain:",
        "  dvc commit plain-counterexamples",
    ]


def test_the_card_tells_where_each_came_from(two, world):
    card = load_card(world / PACKED)

    assert (card.scenario, card.drawn, card.twin_of) == ("typographic", True, "plain")
    assert card.tasks == ("classification", "segmentation")
    assert card.twin_revision == load_card(world / "fixtures/datasets/plain").revision
    for name, attack in two.items():
        told = f"{name} ({attack.text!r} against mini-clip, run {attack.run})"
        assert attack.run
        assert told in card.description


def test_rows_are_those_that_are_drawn_by_hand(two, world, samples):
    clean = {sample.id: sample for sample in samples}
    expected = [
        (f"{sample.id}@{name}", name)
        for sample in samples
        for name, attack in two.items()
        if sample.id in attack.pictures
    ]
    made = rows(world)

    assert [row.id for row in made] == [identity for identity, _ in expected]
    for row, (_, name) in zip(made, expected, strict=True):
        attack, sample = two[name], clean[row.twin]
        overlay = attack.drawn.with_text(attack.text)
        if attack.drawn.off_object:
            overlay = moved_off(overlay, truth_mask(sample))
        assert from_json(row.overlay) == (overlay,)
        assert row.decoy == attack.decoy
        same = ("group", "label", "part", "phrase", "mask")
        assert all(getattr(row, key) == getattr(sample, key) for key in same)
        facts = json.loads(row.facts)
        assert (facts["overlay"], facts["kind"]) == (name, attack.drawn.kind)
        picture = shown(row, clean, drawn=True).open()
        drawn = render(overlay, decode_image(sample.image, where=sample.id))
        assert picture.tobytes() == drawn.tobytes()


def test_a_row_is_the_picture_of_the_replay_and_gets_the_same_answer(two, world, tmp_path, loads):
    def loaded(name):
        return LoadedModel(Eyes(12.0), EmbeddingCache(tmp_path / "cache", name), 16)

    clean, packed = unit_on(world, "plain"), unit_on(world, "plain-counterexamples")
    plain, dataset = (dataset_named(n, world) for n in ("plain", "plain-counterexamples"))
    result = compute([packed], dataset, clean=plain, loaded=loaded("rows"))[packed.key]
    said = dict(zip(result["outcomes"]["id"], result["outcomes"]["prediction"], strict=True))
    by_id = {row.id: row for row in rows(world)}
    count = 0
    for name, attack in two.items():
        objective = objective_of_attack(clean, plain, attack, loaded("replay"))
        pairs = objective.predictions(attack.drawn)
        for one in attacked_samples(attack, pairs, plain):
            row = by_id[f"{one.clean.id}@{name}"]
            twins = {one.clean.id: one.clean}
            assert shown(row, twins, drawn=True).key == overlaid(one.attacked, one.clean).key
            assert said[row.id] == one.after.text
            count += 1

    assert count == len(said) == 10


def test_packing_again_gives_the_same_bytes(natadv, two, world):
    before = files(world / PACKED)
    made, revision = natadv("freeze", "--pack", "plain")

    assert files(world / PACKED) == before
    assert made.endswith("10 rows of 2 counter-examples")
    assert revision.startswith("revision ")


def test_a_killed_pack_goes_on_to_the_same_bytes(two, world, monkeypatch):
    pack = freeze.pack
    monkeypatch.setattr(freeze, "pack", lambda *a, **named: pack(*a, rows_per_shard=3, **named))
    whole = pack_counterexamples("plain", root=world).card
    made = []
    row = freeze.OverlayRows._row

    def counted(self, *asked):
        made.append(asked)
        if len(made) == 8:
            raise KeyboardInterrupt
        return row(self, *asked)

    monkeypatch.setattr(freeze.OverlayRows, "_row", counted)
    with pytest.raises(KeyboardInterrupt):
        pack_counterexamples("plain", root=world)
    assert load_card(world / PACKED) == whole
    made.clear()
    made += [None] * 100
    again = pack_counterexamples("plain", root=world).card

    assert again == whole
    assert len(made) - 100 == 10 - 6


def test_another_text_is_another_packing(two, world):
    before = load_card(world / PACKED).revision
    path = world / "fixtures/counterexamples/one.json"
    edited(path, path, text="other words")

    assert pack_counterexamples("plain", root=world).card.revision != before


def test_what_is_kept_stays_as_it_is(natadv, found, tmp_path):
    kept, *_ = natadv("freeze", found)
    later = edited(found, tmp_path / "later.json", run="another run")
    again, *_ = natadv("freeze", later)
    other = edited(found, tmp_path / "other.json", place="elsewhere")
    (refused,) = natadv("freeze", other, code=4)

    assert again == kept
    assert refused == (
        f"natadv: {kept}: another attack is frozen there; choose another --name, or replace it "
        "with --force"
    )
    natadv("freeze", other, "--force")
    assert Path(kept).read_bytes() == other.read_bytes()


def test_what_does_not_fit_is_refused_and_not_kept(natadv, found, world, tmp_path):
    for fields, arguments, message in [
        ({"run": ""}, (), "does not name the run that found it"),
        ({"revision": "0" * 64}, (), "its pictures are of 'plain' of revision 000000000000, but"),
        ({"pictures": ("s99",), "flipped": (), "hidden": ()}, (), "1 ids are not in 'plain'"),
        ({}, ("--name", "Not/This"), "small letters, digits, '.', '_' and '-', got 'Not/This'"),
    ]:
        file = edited(found, tmp_path / "o.json", **fields)
        (told,) = natadv("freeze", file, *arguments, code=4)

        assert message in told
        assert not (world / "fixtures/counterexamples").exists()
        assert not (world / PACKED).exists()


def test_a_counterexample_that_no_longer_fits_is_never_left_out_silently(natadv, two, world):
    path = world / "fixtures/counterexamples/other.json"
    path.write_text("{")
    before = files(world / PACKED)
    (told,) = natadv("freeze", "--pack", "plain", code=4)

    assert "other.json: " in told
    assert files(world / PACKED) == before


def test_where_nothing_is_frozen_there_is_nothing_to_pack(natadv):
    (told,) = natadv("freeze", "--pack", "plain", code=4)

    assert "holds no counter-example on 'plain'; freeze one with natadv freeze FILE" in told


def test_either_a_file_or_a_dataset(natadv):
    for arguments in [(), ("a.json", "--pack", "plain")]:
        assert len(natadv("freeze", *arguments, code=4)) == 1


def test_names_are_plain(found):
    for text, name in [
        ("cat", "classification-mini-clip-dog-cat"),
        ("Übér cat!", "classification-mini-clip-dog-uber-cat"),
        ("§§", "classification-mini-clip-dog"),
        ("a" * 80, "classification-mini-clip-dog-" + "a" * 35),
    ]:
        assert usual_name(read_attack(found).model_copy(update={"text": text})) == name

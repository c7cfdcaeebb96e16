"""Fixed parts of datasets, for quick tiers."""

from __future__ import annotations

import io
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natadv.cli import main
from natadv.data.card import CardDraft, load_card
from natadv.data.packing import write_dataset
from natadv.errors import ConfigError, DataError, UnknownNameError
from natadv.pipelines.subset import SubsetPlan, chosen_groups, make_subset
from natadv.pipelines.typographic_twins import make_typographic

from .conftest import DRAFT, REPOSITORY, read

GROUPS = st.lists(st.sampled_from("abcdefghij"), min_size=1, max_size=40)


@given(GROUPS, st.integers(1, 40), st.integers(0, 5))
def test_groups_are_whole_and_as_many_as_fit(groups, rows, seed):
    sizes, chosen = Counter(groups), chosen_groups(groups, rows=rows, seed=seed)
    taken = sum(sizes[group] for group in chosen)

    assert taken <= rows
    if taken < min(rows, len(groups)):
        assert rows - taken < max(sizes.values())
    if set(sizes.values()) == {1}:
        assert taken == min(rows, len(groups))


@given(GROUPS, st.integers(1, 40), st.integers(0, 5), st.randoms(use_true_random=False))
def test_the_choice_depends_on_neither_order_nor_other_groups(groups, rows, seed, random):
    chosen = chosen_groups(groups, rows=rows, seed=seed)
    shuffled = [*groups]
    random.shuffle(shuffled)
    assert chosen_groups(shuffled, rows=rows, seed=seed) == chosen

    # Rows of new groups may take the place of the last ones, but bring no old group in.
    more = chosen_groups([*groups, "new", "newer", "newest"], rows=rows, seed=seed)
    assert more - {"new", "newer", "newest"} <= chosen
    # A larger subset holds the smaller one.
    assert chosen <= chosen_groups(groups, rows=rows + 7, seed=seed)


def test_every_group_is_drawn_equally_often():
    names = [f"g{i}" for i in range(10)]
    drawn = Counter(
        group for seed in range(300) for group in chosen_groups(names, rows=3, seed=seed)
    )

    assert sum(drawn.values()) == 900
    # Six standard deviations of a binomial of 300 with p = 0.3 around its mean.
    assert all(90 - 6 * 8 < drawn[name] < 90 + 6 * 8 for name in names)


@pytest.fixture
def subset(root):
    def made(**settings):
        settings = {"source": "all", "name": "all-pr", "root": root} | settings
        return make_subset(SubsetPlan(**settings, stream=io.StringIO()))

    return made


def test_a_subset_keeps_rows_and_all_that_the_card_says(subset, root, samples):
    packed = subset(rows=21, seed=3)
    card, whole = packed.card, load_card(root / "fixtures/datasets/all")

    rows = read(root, "all-pr")
    by_id = {sample.id: sample for sample in samples}
    # Two rows of each group.
    assert len(rows) == card.rows == 20
    assert rows == [by_id[row.id] for row in rows]
    assert [row.id for row in rows] == sorted((row.id for row in rows), key=[*by_id].index)
    assert set(Counter(row.group for row in rows).values()) == {2}
    for name in ("tasks", "classes", "templates", "scenario", "licence", "twin_of"):
        assert getattr(card, name) == getattr(whole, name), name
    assert card.source == f"all ({whole.source})"
    assert card.description == (
        f"20 of the 150 rows of all, revision {whole.revision}: at random, whole groups, seed 3."
    )
    assert subset(rows=21, seed=3, force=True).card == card
    assert subset(rows=21, seed=4, force=True).card.revision != card.revision
    assert subset(rows=150, force=True).card.rows == 150


def test_an_attacked_subset_follows_the_clean_one(subset, make_plan, root):
    make_typographic(make_plan())
    clean = {sample.id for sample in read(root, "all")}
    attacked = read(root, "all-typo")
    subset(rows=30)

    card = subset(source="all-typo", name="all-typo-pr", twins="all-pr").card

    few = {sample.id for sample in read(root, "all-pr")}
    taken = read(root, "all-typo-pr")
    assert few < clean
    assert card.twin_of == "all-pr"
    assert card.scenario == "typographic"
    assert taken == [sample for sample in attacked if sample.twin in few]
    assert {sample.twin for sample in taken} == few
    # Without the clean subset, its twins stay those of the whole set.
    assert subset(source="all-typo", name="some", rows=10).card.twin_of == "all"


def test_what_cannot_be_taken_is_named(subset, root, samples, make_plan):
    datasets = root / "fixtures/datasets"
    make_typographic(make_plan())
    others = {"other": {}, "named": {"classes": ("cow", "fox", "owl")}}
    for name, changed in others.items():
        renamed = [replace(sample, id=f"x{sample.id}") for sample in samples[:4]]
        tasks = ("classification", "segmentation", "vqa")
        draft = CardDraft(name=name, tasks=tasks, **{**DRAFT, **changed})
        write_dataset(datasets / name, draft, renamed)
    for settings, error, complaint in (
        ({}, ConfigError, "expected either --rows or --twins"),
        ({"rows": 1, "twins": "all"}, ConfigError, "expected either --rows or --twins"),
        ({"rows": 151}, ConfigError, "--rows must be from 1 to 150, the rows of all"),
        ({"rows": 1}, ConfigError, "more than 1 rows, and a group is never divided; raise --rows"),
        ({"rows": 1, "source": "al"}, UnknownNameError, "did you mean 'all'"),
        ({"rows": 1, "name": "all"}, ConfigError, "replace it with --force"),
        ({"twins": "all"}, DataError, "all has no clean twins"),
        ({"source": "all-typo", "twins": "other"}, DataError, "none of its 150 rows has a twin in"),
        ({"source": "all-typo", "twins": "named"}, DataError, "differ in their classes"),
    ):
        with pytest.raises(error, match=complaint):
            subset(**settings)
    assert not (datasets / "all-pr").exists()


def test_drawn_pictures_are_refused(capsys):
    command = ["data", "subset", "mini-overlays", "--rows", "9", "--name", "x"]

    assert main([*command, "--root", str(REPOSITORY)]) == 4
    assert "mini-overlays holds no pictures: they are drawn on those of mini" in (
        capsys.readouterr().err
    )


def test_the_command_says_what_it_made(root, capsys):
    command = ["data", "subset", "all", "--rows", "9", "--name", "few", "--root", str(root)]

    assert main(command) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "fixtures/datasets/few: 8 samples, 3 classes, clean" in told

from __future__ import annotations

import json
from pathlib import Path

import pytest

from natadv.factories import slug
from natadv.models import zoo
from natadv.models.files.model_types import MODEL_TYPES
from natadv.models.loading import LOADERS
from natadv.models.zoo import ZOO, families, rows_named
from natadv.tasks import TASKS


def test_row_can_stand_in_an_address_and_be_loaded():
    for row in ZOO.values():
        assert ZOO[row.name] is row, row
        assert slug(row.name) == row.name, row
        assert row.loader in LOADERS, row
        assert set(row.tasks) <= set(TASKS), row
        assert row.licence, row
        assert bool(row.hub) != bool(row.location), row


def test_signature_is_of_the_type_that_the_loader_loads():
    for row in ZOO.values():
        if row.signature:
            model_type = json.loads(row.signature)["model_type"]
            assert MODEL_TYPES[model_type].loader == row.loader, row


def test_each_row_stands_once_in_the_table():
    table = Path(zoo.__file__).with_name("zoo.tsv")

    assert len(table.read_text().splitlines()) == 1 + len(ZOO)


def test_every_supported_type_has_a_loader():
    assert {found.loader for found in MODEL_TYPES.values()} <= set(LOADERS)


def test_the_paper_has_22_models_in_six_families_of_these_sizes():
    rows = rows_named("paper")
    by_family = {f: sum(row.family == f for row in rows) for f in families()}

    assert len(rows) == len({row.hub for row in rows}) == 22
    assert by_family == {
        "mini": 0,
        "clip": 3,
        "clip-rn": 1,
        "robust-clip": 6,
        "siglip2": 4,
        "paligemma2": 4,
        "blip2": 4,
        "clipseg": 0,
        "defended-clip": 0,
    }


def test_no_family_is_called_like_a_model():
    assert not set(families()) & set(ZOO)


def test_what_openai_trained_computes_quick_gelu():
    names = {row.name for row in ZOO.values() if row.activation == "quick_gelu"}

    assert names == {
        "clip-vit-b32",
        "clip-vit-b16",
        "clip-vit-l14",
        "clip-rn50",
        "fare2-l14",
        "fare4-l14",
        "tecoa2-l14",
        "tecoa4-l14",
        "clipseg-rd64-refined",
        "sae-l14",
        "sae-typo-l14",
    }


@pytest.mark.parametrize("name", ["", "mini-", "Paper"])
def test_other_names_mean_nothing(name):
    assert rows_named(name) == ()


def test_no_two_published_architectures_are_taken_for_one():
    """But for tunings of one base, such as `pt` and `mix`."""
    known = [row for row in ZOO.values() if row.signature]
    shared = {row.name for row in known for other in known if clash(row, other)}

    assert shared == {f"paligemma2-3b-{kind}-{px}" for kind in ("pt", "mix") for px in (224, 448)}


def clash(row, other):
    return row is not other and row.signature == other.signature

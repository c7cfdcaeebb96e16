"""The stages that make typographic sets ask for what the command takes; this needs no DVC."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from natadv import cli
from natadv.errors import ConfigError
from natadv.pipelines import reading_twins, typographic_twins
from natadv.pipelines.reading_twins import ReadingPlan
from natadv.pipelines.typographic_twins import TypoPlan
from natadv.scenarios.typographic.recipes import RECIPES

ROOT = Path(__file__).resolve().parents[2]
SETS: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "params.yaml").read_text())["typo"]
STAGES: dict[str, Any] = yaml.safe_load((ROOT / "fixtures/sources/dvc.yaml").read_text())["stages"]


def filled(text: str, name: str) -> str:
    """As DVC fills a template."""
    values = {"key": name, **{f"item.{key}": value for key, value in SETS[name].items()}}
    return re.sub(r"\$\{([\w.]+)\}", lambda found: str(values[found[1]]), text)


@pytest.mark.parametrize("name", SETS)
def test_a_stage_makes_the_set_that_its_parameters_describe(name, monkeypatch):
    plans: list[TypoPlan] = []

    def recorded(plan: TypoPlan) -> None:
        plans.append(plan)
        raise ConfigError("nothing is drawn here")

    monkeypatch.setattr(typographic_twins, "make_typographic", recorded)
    stage = STAGES["typo"]["do"]

    assert cli.main(shlex.split(filled(stage["cmd"], name))[1:]) == 4

    (plan,) = plans
    row = SETS[name]
    assert (plan.source, plan.name, plan.task) == (row["source"], name, row["task"])
    assert (plan.severity, plan.seed, plan.decoy) == (row["severity"], row["seed"], row["decoy"])
    assert set(plan.recipes) <= set(RECIPES)
    assert plan.limit == row["rows"]
    assert filled(stage["outs"][0], name) == f"fixtures/datasets/{name}"
    assert f"fixtures/datasets/{row['source']}" in [filled(d, name) for d in stage["deps"]]


def test_every_set_that_has_parameters_is_a_stage():
    assert STAGES["typo"]["foreach"] == {name: f"${{typo.{name}}}" for name in SETS}


def test_each_typographic_set_has_a_stage_that_asks_for_its_words(monkeypatch):
    plans: list[ReadingPlan] = []

    def recorded(plan: ReadingPlan) -> None:
        plans.append(plan)
        raise ConfigError("nothing is read here")

    monkeypatch.setattr(reading_twins, "make_reading", recorded)
    stage = STAGES["reading"]
    for name, source in stage["foreach"].items():
        command = stage["do"]["cmd"].replace("${item}", source).replace("${key}", name)
        assert cli.main(shlex.split(command)[1:]) == 4

    made = {*SETS, *STAGES["import"]["foreach"]}
    assert {plan.name: plan.source for plan in plans} == stage["foreach"]
    assert set(SETS) <= {plan.source for plan in plans} <= made
    assert all(plan.force and not plan.tasks and plan.limit is None for plan in plans)


def test_every_file_that_a_stage_depends_on_is_there():
    stages = (STAGES["typo"], STAGES["reading"])
    named = [dep for stage in stages for dep in stage["do"]["deps"] if "$" not in dep]

    assert named
    assert [dep for dep in named if not (ROOT / dep).exists()] == []

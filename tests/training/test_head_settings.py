from __future__ import annotations

from pathlib import Path

import pytest

from natadv.errors import ConfigError, UnknownNameError
from natadv.training.head_settings import (
    SETTINGS,
    SegmentationSettings,
    VqaSettings,
    settings_for,
)

ROOT = Path(__file__).resolve().parents[2]
PARAMS = """\
train-segmentation:
  steps: 50
  rate: 0.002
shared: &shared
  batch: 16
mine:
  <<: *shared
  steps: 70
train-vqa:
  epochs: 2
empty:
wrong:
  stepz: 3
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "params.yaml").write_text(PARAMS)
    return tmp_path


def test_without_a_file_the_settings_are_the_published_ones(tmp_path):
    found = settings_for("segmentation", root=tmp_path, section=None, overrides=())

    assert isinstance(found, SegmentationSettings)
    assert (found.steps, found.batch, found.rate, found.last_rate) == (20_000, 64, 1e-3, 1e-4)
    assert len(found.templates) == 9

    other = settings_for("vqa", root=tmp_path, section=None, overrides=())

    assert isinstance(other, VqaSettings)
    assert (other.epochs, other.batch, other.rate, other.warm_up) == (13, 64, 1e-4, 3)
    assert (other.decay_after, other.decay, other.betas, other.eps) == (
        (10, 12),
        0.2,
        (0.9, 0.98),
        1e-9,
    )
    assert other.more_than == 8


def test_a_section_goes_before_the_defaults_and_set_before_the_section(folder):
    found = settings_for("segmentation", root=folder, section=None, overrides=["steps=60"])

    assert (found.steps, found.rate, found.batch) == (60, 0.002, 64)


def test_a_named_section_is_taken_instead_of_that_of_the_task(folder):
    found = settings_for("segmentation", root=folder, section="mine", overrides=())

    assert (found.steps, found.rate, found.batch) == (70, 1e-3, 16)


def test_values_are_read_as_json_or_yaml_has_them(tmp_path):
    overrides = ["rate=1e-3", "last_rate=1e-4", "layers=[2, 4]", "upsample=refined", "amp=false"]

    found = settings_for("segmentation", root=tmp_path, section=None, overrides=overrides)

    assert isinstance(found, SegmentationSettings)
    assert (found.rate, found.last_rate, found.layers) == (1e-3, 1e-4, (2, 4))
    assert (found.upsample, found.amp) == ("refined", False)


def test_a_rate_with_an_exponent_is_no_text(folder):
    """YAML 1.1 would make one of `1e-3`."""
    (folder / "params.yaml").write_text("train-vqa: {rate: 5e-4}\n")

    assert settings_for("vqa", root=folder, section=None, overrides=()).rate == 5e-4


@pytest.mark.parametrize(
    ("task", "section", "overrides", "message"),
    [
        ("segmentation", None, ["stepz=3"], ["--set", "'stepz'", "did you mean 'steps'"]),
        ("segmentation", "wrong", [], ["section 'wrong'", "'stepz'", "did you mean 'steps'"]),
        ("segmentation", "mnie", [], ["'mnie'", "did you mean 'mine'"]),
        ("segmentation", "empty", [], ["'empty'", "None"]),
        ("segmentation", None, ["steps"], ["name=value", "'steps'"]),
        ("segmentation", None, ["steps=0"], ["--set", "steps", "got 0"]),
        ("segmentation", None, ["steps=many"], ["--set", "steps", "'many'"]),
        ("segmentation", None, ["rate=-1"], ["rate", "-1"]),
        ("segmentation", None, ["rate=NaN"], ["rate"]),
        ("segmentation", None, ["rate=1e-5"], ["last_rate 0.0001 is above rate 1e-05"]),
        ("segmentation", None, ['templates=["a cat"]'], ["templates", "'a cat'"]),
        ("segmentation", None, ["templates=[]"], ["templates"]),
        ("segmentation", None, ["upsample=cubic"], ["upsample", "'cubic'"]),
        ("segmentation", None, ["layers=[0]"], ["layers"]),
        ("segmentation", None, ["epochs=3"], ["'epochs'", "of segmentation"]),
        ("vqa", None, ["decay_after=[3, 2]"], ["decay_after", "[3, 2]"]),
        ("vqa", None, ["dropout=1"], ["dropout"]),
        ("vqa", None, ["held_back=1"], ["held_back"]),
        ("vqa", None, ["steps=3"], ["'steps'", "of vqa"]),
    ],
)
def test_each_mistake_is_named(folder, task, section, overrides, message):
    with pytest.raises(ConfigError) as caught:
        settings_for(task, root=folder, section=section, overrides=overrides)

    for part in message:
        assert part in str(caught.value)


def test_a_section_that_is_asked_for_needs_the_file(tmp_path):
    with pytest.raises(ConfigError, match=r"params\.yaml: cannot be read"):
        settings_for("vqa", root=tmp_path, section="mini-vqa", overrides=())


def test_unknown_names_are_unknown_names(folder):
    with pytest.raises(UnknownNameError):
        settings_for("vqa", root=folder, section="nothing", overrides=())


@pytest.mark.parametrize("content", ["- 1\n", "a: [\n", "\tb"])
def test_a_file_that_holds_no_sections_is_refused(tmp_path, content):
    (tmp_path / "params.yaml").write_text(content)

    with pytest.raises(ConfigError, match=r"params\.yaml"):
        settings_for("vqa", root=tmp_path, section=None, overrides=())


@pytest.mark.parametrize(
    ("task", "section"),
    [(task, f"{kind}-{task}") for task in SETTINGS for kind in ("train", "mini")],
)
def test_the_sections_of_the_repository_are_valid(task, section):
    settings_for(task, root=ROOT, section=section, overrides=())

"""Settings of a search: defaults, the section, what goes before it, and what is refused."""

from __future__ import annotations

import pytest

from natadv.errors import ConfigError, UnknownNameError
from natadv.pipelines.langadv.settings import SearchSettings, settings_for


def test_the_defaults_are_the_published_ones(tmp_path):
    found = settings_for(tmp_path, section=None)

    assert found == SearchSettings()
    assert (found.population, found.generations, found.pictures) == (20, 8, 8)
    assert (found.mutation, found.accept, found.elite) == (0.01, 0.84, 0.1)


def test_a_pair_goes_before_the_section(tmp_path):
    (tmp_path / "params.yaml").write_text("langadv: {seed: 4, population: 6}\n")

    found = settings_for(tmp_path, section=None, overrides=["seed=9"])

    assert (found.seed, found.population) == (9, 6)


@pytest.mark.parametrize(
    ("section", "pairs", "error", "message"),
    [
        ("nothing", [], UnknownNameError, "'nothing'"),
        (None, ["mutations=0.1"], UnknownNameError, "did you mean 'mutation'"),
        (None, ["mutation=2"], ConfigError, "mutation: .* came 2"),
        (None, ["population"], ConfigError, "takes name=value, got 'population'"),
        ("listed", [], ConfigError, "must hold settings, got"),
    ],
)
def test_mistakes_are_told(tmp_path, section, pairs, error, message):
    (tmp_path / "params.yaml").write_text("langadv: {}\nlisted: [1]\n")

    with pytest.raises(error, match=message):
        settings_for(tmp_path, section=section, overrides=pairs)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", r"params\.yaml: expected sections, got NoneType"),
        ("langadv: [", r"params\.yaml:\d: not valid YAML"),
        ("langadv: {seed: 2024-99-99}", r"params\.yaml:1: langadv\.seed: .* be read as timestamp"),
        ("- langadv\n", r"params\.yaml: expected sections, got list"),
        ("langadv:\n", r"section 'langadv' must hold settings, got NoneType"),
        ("langadv: {7: 1}\n", r"unknown setting of a search '7'"),
        ("langadv: \udcff\n", r"params\.yaml: cannot be read as UTF-8"),
    ],
)
@pytest.mark.parametrize("section", [None, "langadv"])
def test_a_file_that_holds_no_settings_is_told(tmp_path, content, told, section):
    (tmp_path / "params.yaml").write_bytes(content.encode(errors="surrogateescape"))

    with pytest.raises(ConfigError, match=told):
        settings_for(tmp_path, section=section)


def test_a_section_that_is_asked_for_needs_the_file(tmp_path):
    with pytest.raises(ConfigError, match=r"params\.yaml: cannot be read"):
        settings_for(tmp_path, section="langadv")

"""What stands in a section, and what is said over it."""

from __future__ import annotations

import pytest

from natadv.errors import ConfigError
from natadv.settings import parse_override, section_of


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("rate=1e-3", ("rate", 1e-3)),
        (" seed = 9", ("seed", 9)),
        ("layers=[2, 4]", ("layers", [2, 4])),
        ("upsample=refined", ("upsample", "refined")),
        ("word=a=b", ("word", "a=b")),
        ("nothing=", ("nothing", None)),
    ],
)
def test_a_value_is_as_json_or_yaml_has_it(text, found):
    assert parse_override(text) == found


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("seed", "--set takes name=value, got 'seed'"),
        ("=1", "--set takes name=value, got '=1'"),
        ("seed=[", r"--set seed: '\[' is no value"),
        ("seed=2024-99-99", "--set seed: '2024-99-99' is no value"),
        ("seed=!!python/name:os.system", "--set seed: .* is no value"),
        ("seed=!!bool x", "--set seed: '!!bool x' is no value: .* cannot be read as bool"),
        ("seed=!!timestamp x", "is no value: .* cannot be read as timestamp"),
        ("seed=!!int ''", "is no value: .* cannot be read as int"),
        (f"seed={'9' * 5000}", "is no value: .* cannot be read as int"),
        (f"seed={'[' * 100_000}", "is no value: .* nest"),
        ("seed=\udcff", "is no value: .* remove it"),
    ],
)
def test_what_is_no_value_is_told(text, told):
    with pytest.raises(ConfigError, match=told):
        parse_override(text)


def test_sections_share_settings_by_alias(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text("one: &one {batch: 16}\ntwo: {<<: *one, steps: 7}\n")

    assert section_of(path, "two", required=True) == {"batch": 16, "steps": 7}


def test_nothing_is_said_where_nothing_is_needed(tmp_path):
    assert section_of(tmp_path / "params.yaml", "one", required=False) == {}


@pytest.mark.parametrize(
    ("section", "told"),
    [
        (
            "one: {seed: 2024-99-99}",
            r"params\.yaml:2: one\.seed: '2024-99-99' cannot be read as time",
        ),
        ("one: {seed: !!bool x}", r"params\.yaml:2: one\.seed: 'x' cannot be read as bool"),
        ("one: {seed: !!int ''}", r"params\.yaml:2: one\.seed: '' cannot be read as int"),
        ("one: {seed: 1, seed: 2}", r"params\.yaml:2: duplicate key 'one\.seed'"),
        ("one: " + "[" * 2000, r"params\.yaml:2: .*nest"),
        ("one: \0", r"params\.yaml:2: not valid YAML"),
        ("one: &a [*a, *a]", r"params\.yaml:2: nested more than"),
        ("---\none: {}", r"params\.yaml:3: a second document begins here"),
        ("one: [1]", r"section 'one' must hold settings, got list"),
    ],
)
def test_a_file_that_cannot_be_read_is_told_by_its_line(tmp_path, section, told):
    path = tmp_path / "params.yaml"
    path.write_text(f"two: {{}}\n{section}\n")

    with pytest.raises(ConfigError, match=told):
        section_of(path, "one", required=True)

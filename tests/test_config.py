"""A YAML file or an override becomes a value, or one line that names the mistake."""

from __future__ import annotations

import pytest
import yaml

from natadv import config
from natadv.config import (
    MOST_VALUES,
    load_yaml,
    parse_override,
    parse_shared_yaml,
    parse_yaml,
    section_of,
    shown,
)
from natadv.errors import ConfigError

LOADERS = [
    pytest.param(getattr(yaml, "CSafeLoader", yaml.SafeLoader), id="libyaml"),
    pytest.param(yaml.SafeLoader, id="python"),
]


@pytest.fixture(params=LOADERS, autouse=True)
def loader(request, monkeypatch):
    monkeypatch.setattr(config, "_Loader", request.param)


# What PyYAML answers with an error that is not its own, or not at all.
UNREADABLE = [
    ("a: 1\nsource: 2026-02-30\n", 2, "source: '2026-02-30' cannot be read as timestamp"),
    ("a: 1\nb:\n  - 2026-01-01T00:00:00+99:99\n", 3, "cannot be read as timestamp"),
    ("a: !!timestamp x", 1, "a: 'x' cannot be read as timestamp"),
    ("a: !!int abc", 1, "a: 'abc' cannot be read as int"),
    ("a: !!int ''", 1, "a: '' cannot be read as int"),
    ("a: !!int _", 1, "cannot be read as int"),
    (f"a: {'9' * 5000}", 1, "cannot be read as int"),
    ("a: !!bool x", 1, "a: 'x' cannot be read as bool"),
    ("a: !!float x", 1, "a: 'x' cannot be read as float"),
    ("a: 1\n2026-02-30: 1", 2, "the file: '2026-02-30' cannot be read as timestamp"),
    ("a: !!binary 'a'", 1, "not valid YAML: failed to decode base64 data"),
    ("a: !!binary é", 1, "not valid YAML: failed to convert base64 data"),
    ("a: !!map x", 1, "not valid YAML: expected a mapping node"),
    ("!!map x: 1", 1, "not valid YAML"),
    ("a: !foo x", 1, "not valid YAML: could not determine a constructor"),
    ("a: 1\n<<: 3\n", 2, "YAML"),
    ("a: 1\nb: \0\n", 2, r"not valid YAML: it holds '\x00'; remove it"),
    ("a: 1\nb: \ud800\n", 2, r"not valid YAML: it holds '\ud800'; remove it"),
    ("a: 1\n---\nb: 2\n", 3, "a second document begins here; keep one"),
    ("a: 1\na: 2\n", 2, "duplicate key 'a', first given on line 1"),
    ("a:\n  ? [1]\n  : 2\n", 2, "expected a plain word as key in 'a'"),
    ("%YAML 3.0\n---\na: 1", 1, "not valid YAML: found incompatible YAML document"),
    ("a: 1\nb: " + "[" * 40 + "]" * 40, 2, "nested more than 32 levels deep; write it flatter"),
    ("a: " + "[" * 20_000 + "]" * 20_000, 1, "nest"),
    ("- " * 20_000, 1, "nest"),
]


@pytest.mark.parametrize("parse", [parse_yaml, parse_shared_yaml])
def test_what_cannot_be_read_is_one_line_with_its_place(parse):
    for text, line, message in UNREADABLE:
        with pytest.raises(ConfigError) as caught:
            parse(text, where="f.yaml")

        error = str(caught.value)
        assert error.startswith(f"f.yaml:{line}: "), text[:80]
        assert message in error, text[:80]
        assert len(error.splitlines()) == 1, text[:80]
        assert len(error) < 300, text[:80]


def test_a_value_stands_where_it_counts():
    for text, message in (
        ("x: &x {a: 1}\ny: {<<: *x}\n", r"f\.yaml:2: '<<' is a YAML merge key; write it out"),
        ("y: {<<: {floor: 0.1}, floor: 0.9}\n", "'<<' is a YAML merge key"),
        ("x: &x 1\ny: *x\n", r"f\.yaml:2: y is a YAML alias; write it out"),
        ("a: &a [*a]", "YAML alias"),
    ):
        with pytest.raises(ConfigError, match=message):
            parse_yaml(text, where="f.yaml")


def test_shared_values_may_stand_elsewhere():
    text = "x: &x {a: 1}\ny: {<<: *x, b: 2}\nz: *x\n"

    found = parse_shared_yaml(text, where="f.yaml")

    assert found == {"x": {"a": 1}, "y": {"a": 1, "b": 2}, "z": {"a": 1}}


def test_aliases_that_stand_for_billions_are_refused():
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]

    with pytest.raises(ConfigError, match=f"stand for more than {MOST_VALUES} values; use fewer"):
        parse_shared_yaml("\n".join(lines), where="f.yaml")


def test_what_holds_itself_is_refused():
    with pytest.raises(ConfigError, match="nested more than 32 levels deep"):
        parse_shared_yaml("a: &a [*a]", where="f.yaml")
    with pytest.raises(ConfigError, match="not valid YAML"):
        parse_shared_yaml("a: &a !!str {=: *a}", where="f.yaml")


def test_a_mark_of_byte_order_is_no_part_of_the_text():
    assert parse_yaml("\ufeffa: 1", where="f.yaml")[0] == {"a": 1}


def test_lines_are_those_of_keys_and_items():
    _, lines = parse_yaml("a:\n  - 1\n  - {b: 2,\n     c: 3}\n", where="f.yaml")

    assert lines[("a",)] == 1
    assert lines[("a", 1)] == 3
    assert lines[("a", 1, "c")] == 4


def test_text_in_another_encoding_is_refused_by_its_line(tmp_path):
    path = tmp_path / "f.yaml"
    path.write_bytes(b"a: 1\nb: \xe9\n")

    with pytest.raises(ConfigError, match=r"cannot be read as UTF-8 text: line 2: .* save it as"):
        load_yaml(path)


def test_a_number_that_python_does_not_print_is_shown_in_words():
    assert shown(1 << 20_000) == "a int that is too long to show"
    assert shown("x" * 1000).endswith("x...")


def test_an_override_is_json_or_yaml():
    overrides = {
        "rate=1e-3": ("rate", 1e-3),
        " seed = 9": ("seed", 9),
        "layers=[2, 4]": ("layers", [2, 4]),
        "upsample=refined": ("upsample", "refined"),
        "word=a=b": ("word", "a=b"),
        "nothing=": ("nothing", None),
    }

    assert {text: parse_override(text) for text in overrides} == overrides


def test_a_malformed_override_is_named():
    for text, message in (
        ("seed", "--set takes name=value, got 'seed'"),
        ("=1", "--set takes name=value, got '=1'"),
        ("seed=[", r"--set seed: '\[' is not a value"),
        ("seed=2024-99-99", "--set seed: '2024-99-99' is not a value"),
        ("seed=!!python/name:os.system", "--set seed: .* is not a value"),
        ("seed=!!bool x", "--set seed: '!!bool x' is not a value: .* cannot be read as bool"),
        ("seed=!!timestamp x", "is not a value: .* cannot be read as timestamp"),
        ("seed=!!int ''", "is not a value: .* cannot be read as int"),
        (f"seed={'9' * 5000}", "is not a value: .* cannot be read as int"),
        (f"seed={'[' * 100_000}", "is not a value: .* nest"),
        ("seed=\udcff", "is not a value: .* remove it"),
    ):
        with pytest.raises(ConfigError, match=message):
            parse_override(text)


def test_sections_share_settings_by_alias(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text("one: &one {batch: 16}\ntwo: {<<: *one, steps: 7}\n")

    assert section_of(path, "two", required=True) == {"batch": 16, "steps": 7}


def test_nothing_is_said_where_nothing_is_needed(tmp_path):
    assert section_of(tmp_path / "params.yaml", "one", required=False) == {}


def test_a_mistake_in_a_section_is_named_by_its_line(tmp_path):
    path = tmp_path / "params.yaml"
    for section, message in (
        ("one: {seed: 2024-99-99}", r":2: one\.seed: '2024-99-99' cannot be read as time"),
        ("one: {seed: !!bool x}", r":2: one\.seed: 'x' cannot be read as bool"),
        ("one: {seed: !!int ''}", r":2: one\.seed: '' cannot be read as int"),
        ("one: {seed: 1, seed: 2}", r":2: duplicate key 'one\.seed'"),
        ("one: " + "[" * 2000, ":2: .*nest"),
        ("one: \0", ":2: not valid YAML"),
        ("one: &a [*a, *a]", ":2: nested more than"),
        ("---\none: {}", ":3: a second document begins here"),
        ("one: [1]", ": section 'one' must hold settings, got list"),
    ):
        path.write_text(f"two: {{}}\n{section}\n")

        with pytest.raises(ConfigError, match=rf"params\.yaml{message}"):
            section_of(path, "one", required=True)

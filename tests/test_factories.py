"""Names of factories, and modules that are looked for in a folder as well."""

from __future__ import annotations

import sys

import pytest

from natadv.errors import ModelError
from natadv.factories import is_reference, made_by, module_of


@pytest.mark.parametrize("name", ["mine:model", "my.models:make", "_a:b"])
def test_a_module_and_a_function_are_a_reference(name):
    assert is_reference(name)


@pytest.mark.parametrize("name", ["mini-clip", "C:\\models", "a/b:c", "1x:y", "openai/clip", "a:"])
def test_other_names_are_no_reference(name):
    assert not is_reference(name)


def test_the_folder_is_searched_for_the_module_and_then_left_alone(tmp_path):
    (tmp_path / "factory_of_seven.py").write_text("def seven():\n    return 7\n")
    before = list(sys.path)

    assert made_by("factory_of_seven:seven", int, base=tmp_path, option="--number") == 7
    assert sys.path == before


def test_what_to_do_about_a_missing_module_is_told(tmp_path):
    with pytest.raises(ModelError, match=r"'no_such_place'; run in the folder that holds it, or"):
        module_of("no_such_place:make", base=tmp_path)


def test_something_else_than_was_expected_is_told_with_the_option(tmp_path):
    (tmp_path / "factory_of_words.py").write_text("def words():\n    return 'seven'\n")

    with pytest.raises(ModelError, match=r"^--number factory_of_words:words: .*builtins\.int, got"):
        made_by("factory_of_words:words", int, base=tmp_path, option="--number")

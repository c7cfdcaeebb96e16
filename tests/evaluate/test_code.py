from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from natadv.errors import ChangedError
from natadv.evaluate import code
from natadv.evaluate.code import EQUAL, PACKAGE, ROWS, SEARCHES, CodeSubset, code_of, declared
from natadv.storage.hashes import stamp_of

SOURCES = {
    "__init__.py": '"""A package."""\n__version__ = "1"\n',
    "rows.py": '''
        """How rows are made."""
        from __future__ import annotations
        from typing import TYPE_CHECKING
        from toy.draw import turned
        if TYPE_CHECKING:
            from toy.talk import said

        def rows(picture: said) -> int:
            """All of them."""
            from toy import late  # only here
            return late.scaled(turned(picture)) + 1
        ''',
    "draw.py": "def turned(picture):\n    return picture\n",
    "late.py": "def scaled(number):\n    return 2 * number\n",
    "talk.py": "said = int\n",
    "unrelated.py": "x = 1\n",
    "words.tsv": "a\tb\n",
}
TOY = CodeSubset(("toy.rows",))


@pytest.fixture
def toy(tmp_path, monkeypatch):
    monkeypatch.setattr(code, "_watched", set())
    package = tmp_path / "toy"
    package.mkdir()
    for name, text in SOURCES.items():
        (package / name).write_text(textwrap.dedent(text).lstrip())
    return package


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("rows.py", "+ 1", "+ 2"),
        ("draw.py", "return picture", "return -picture"),
        ("late.py", "2 * number", "3 * number"),
        ("words.tsv", "a\tb", "a\tc"),
    ],
)
def test_code_that_computes_moves_the_digest(toy, file, old, new):
    before = code_of(toy, TOY).digest
    edit(toy / file, old, new)

    assert code_of(toy, TOY).digest != before


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("rows.py", "All of them.", "Every one of them."),
        ("rows.py", "# only here", "# late, on purpose"),
        ("rows.py", "How rows are made.", "Rows."),
        ("draw.py", "    return picture", "\n    return (picture)"),
        ("talk.py", "int", "float"),
        ("unrelated.py", "1", "2"),
        ("__init__.py", '"1"', '"2"'),
    ],
)
def test_words_and_code_that_is_not_reached_do_not_move_it(toy, file, old, new):
    before = code_of(toy, TOY).digest
    edit(toy / file, old, new)

    assert code_of(toy, TOY).digest == before


def test_a_module_that_is_left_out_is_not_followed(toy):
    part = CodeSubset(TOY.roots, without=frozenset({"toy.draw"}))
    before = code_of(toy, part).digest
    edit(toy / "draw.py", "return picture", "return -picture")

    assert code_of(toy, part).digest == before


@pytest.mark.parametrize(
    ("part", "module"),
    [
        (ROWS, "natadv.data.images"),
        (ROWS, "natadv.tasks.segmentation"),
        (ROWS, "natadv.heads.mcan"),
        (ROWS, "natadv.models.adapters.open_clip"),
        (ROWS, "natadv.scenarios.typographic.overlay"),
        (ROWS, "natadv.tasks.vqa_text"),
        (SEARCHES, "natadv.search.objective"),
        (SEARCHES, "natadv.search.shrink"),
    ],
)
def test_what_turns_a_unit_into_rows_is_reached(part, module):
    assert code._file(PACKAGE, module) in code.code_of(PACKAGE, part).files


@pytest.mark.parametrize(
    "module",
    [
        "natadv.gate.judge",
        "natadv.report.sheet",
        "natadv.plugin.session",
        "natadv.search.compute_search",
    ],
)
def test_what_judges_or_shows_does_not_make_rows_old(module):
    assert code._file(PACKAGE, module) not in code.code_of(PACKAGE, ROWS).files


def test_what_was_found_is_kept_until_a_source_changes(toy, tmp_path, monkeypatch):
    monkeypatch.setattr(code, "PACKAGE", toy)
    memory = tmp_path / "memory"
    first = code._remembered(memory / code._state(toy), TOY)
    monkeypatch.setattr(code, "code_of", lambda *_: pytest.fail("parsed again"))

    assert code._remembered(memory / code._state(toy), TOY) == first

    monkeypatch.undo()
    monkeypatch.setattr(code, "_watched", set())
    monkeypatch.setattr(code, "PACKAGE", toy)
    edit(toy / "draw.py", "return picture", "return -picture")

    assert code._remembered(memory / code._state(toy), TOY) != first


def test_a_damaged_memory_is_not_believed(toy, tmp_path, monkeypatch):
    monkeypatch.setattr(code, "PACKAGE", toy)
    memory = tmp_path / "memory"
    first = code._remembered(memory / code._state(toy), TOY)
    (path,) = memory.iterdir()
    path.write_text(path.read_text().replace(first, "0" * 64))

    assert code._remembered(memory / code._state(toy), TOY) == first


def test_code_that_is_declared_equal_goes_on_under_the_older_hash(toy, tmp_path, monkeypatch):
    own, older = code_of(toy, TOY).digest, "a" * 64
    listed = tmp_path / "equal.tsv"
    listed.write_text(f"# why\n{own}\t{older}\n")
    monkeypatch.setattr(code, "PACKAGE", toy)
    monkeypatch.setattr(code, "EQUAL", listed)

    assert code._remembered(tmp_path / "memory" / code._state(toy), TOY) == older


def test_the_declared_hashes_are_whole():
    found = declared(EQUAL.read_text(encoding="utf-8"))

    assert all(len(name) == 64 == len(older) for name, older in found.items())
    assert not set(found) & set(found.values())


def test_a_source_that_is_written_while_a_run_lasts_ends_its_units(toy, tmp_path, monkeypatch):
    monkeypatch.setattr(code, "PACKAGE", toy)
    monkeypatch.setattr(code, "_AT_IMPORT", frozenset(map(stamp_of, code._sources(toy))))
    code._remembered(tmp_path / "memory" / code._state(toy), TOY)
    edit(toy / "unrelated.py", "1", "2")
    code.check_unchanged()
    edit(toy / "draw.py", "return picture", "return -picture")

    with pytest.raises(ChangedError, match=r"draw\.py: the code changed during the run.*run again"):
        code.check_unchanged()

"""Command blocks are run as a reader would run them, and the site is checked after it was built."""

from __future__ import annotations

from pathlib import Path

import pytest

from website import blocks, built, run_blocks

PAGE = """# A page

```bash
mkdir made && cd made
export WORD=one
echo "$WORD" > word.txt
```

```python title="made/more.py"
print("two")
```

```bash
cat word.txt more.py
false
echo never > never.txt
```

<!-- exit 3 -->
```bash
grep -q one word.txt
exit 3
```

<!-- not run: network, it fetches -->
```bash
touch fetched.txt
```

```text
touch output.txt
```
"""


@pytest.fixture
def ran(tmp_path: Path) -> run_blocks.PageRun:
    """The page after its run, in a copy of a folder with one file."""
    page = tmp_path / "page.md"
    page.write_text(PAGE, encoding="utf-8")
    finished = tmp_path / "finished"
    finished.mkdir()
    (finished / "gate.json").write_text("{}")
    return run_blocks.run_page(blocks.blocks_of(page), finished=finished, folder=tmp_path)


def test_a_block_goes_on_where_the_one_before_it_ended(ran, tmp_path):
    copy = tmp_path / "page"

    assert (copy / "gate.json").is_file()
    assert (copy / "made" / "word.txt").read_text() == "one\n"
    assert (copy / "made" / "more.py").read_text() == 'print("two")\n'
    assert not (copy / "made" / "never.txt").exists()
    assert [*tmp_path.rglob("fetched.txt"), *tmp_path.rglob("output.txt")] == []
    assert sorted(path.name for path in (tmp_path / "finished").iterdir()) == ["gate.json"]


def test_a_block_that_fails_is_told_with_its_output(ran):
    assert ran.counts == {"ran": 2, "failed": 1, "written": 1}
    told = [line for line in ran.lines if not line.startswith("    ")]
    assert [line.rpartition(": ")[2].split()[0] for line in told] == ["ran", "FAILED", "ran"]
    assert ran.lines[2:5] == ["    exit 1, expected 0", "    one", '    print("two")']


def test_a_copy_has_an_environment_that_no_block_can_change(tmp_path):
    (tmp_path / "Makefile").write_text("GATE := .venv/installed-gate\n$(GATE):\n\tfalse\n")
    run_blocks.make_environment(tmp_path)
    script = tmp_path / "page.md"
    script.write_text(
        "```bash\n. .venv/bin/activate\nmake .venv/installed-gate\n"
        "python -c 'import sys, yaml; print(sys.prefix)' > where.txt\n"
        "test ! -e .venv/bin/pip\nnatadv --version\npytest --version\n```\n"
    )
    done = run_blocks.run_page(blocks.blocks_of(script), finished=tmp_path, folder=tmp_path.parent)

    assert done.counts == {"ran": 1}, done.lines
    assert (tmp_path.parent / "page" / "where.txt").read_text() == f"{tmp_path / '.venv'}\n"


def test_what_is_not_run_is_listed_with_its_reason(tmp_path, capsys, monkeypatch):
    page = tmp_path / "page.md"
    page.write_text(PAGE, encoding="utf-8")
    monkeypatch.setattr("sys.argv", ["run_blocks", "--list", str(page)])

    assert run_blocks.main() == 0
    assert capsys.readouterr().out == f"{page}:26: not run: network, it fetches\n"


HTML = """<html><head><link rel="canonical" href="https://example.org/">
<script src="main.js"></script></head><body><a href="other.html#there">x</a>
<article><h1 id="top">A page</h1><ul><li>one</li></ul>{more}</article></body></html>"""


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ("", None),
        ('<a href="https://example.org/x">', None),
        ('<img src="https://example.org/x.png">', "loads https://example.org/x.png from elsewhere"),
        ('<script src="//example.org/x.js"></script>', "loads //example.org/x.js from elsewhere"),
        ('<a href="absent.html">x</a>', "absent.html leads to no file"),
        ('<a href="other.html#nowhere">x</a>', "other.html#nowhere leads to no heading"),
        (r"<code>a\|b</code>", r"shows \| in code"),
        ("<ul><li>two</li></ul>", "expected 1 <li> as on GitHub, got 2"),
    ],
)
def test_mistakes_of_the_site_are_found(tmp_path, more, told):
    (tmp_path / "page.md").write_text("# A page\n\n- one\n")
    (tmp_path / "page.html").write_text(HTML.format(more=more))
    (tmp_path / "other.html").write_text('<p id="there">')
    (tmp_path / "main.js").write_text("")

    found = built.mistakes(tmp_path, ["page.md"])
    assert [told in line for line in found] == ([True] if told else []), found


def test_a_page_is_described_by_its_first_sentence():
    text = "---\nx: 1\n---\n# A page\n\n![a](b.png)\n\nSee [how *it*](x.md)\nworks. It does.\n"

    assert built.description(built.without_comments(text)) == "See how *it* works."
    assert built.without_comments("a\n<!-- exit 1 -->\nb\n") == "a\nb\n"

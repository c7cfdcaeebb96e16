"""The pages that people write, and the reference that is made from the code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from natadv import cli
from natadv.errors import DataError
from natadv.gate.thresholds_schema import ThresholdsFile
from natadv.metrics import METRICS
from natadv.models.zoo import ZOO
from natadv.plugin.options import OPTIONS
from natadv.scenarios import SCENARIOS
from natadv.tasks import TASKS
from website import api, block_checks, blocks, built, pages, reference, spelling

RIGHT = """# A page

See [the tiers](tiers.md#waivers), [a command](reference/commands.md) and [a paper](https://arxiv.org/abs/1).

```bash
natadv plan --model siglip2 --tier pr   # what would run
pytest suites/ -n 2 --model mini-clip --no-assert > out.txt && make gate
cat out.txt
```

```yaml title="more.yaml"
rules: []
```
"""


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A page beside the others, whose links lead from `docs/`."""
    path = tmp_path / "page.md"
    monkeypatch.setattr(pages.Link, "folder", property(lambda self: blocks.ROOT / "docs"))
    return path


def wrong(page: Path, text: str) -> list[str]:
    page.write_text(text, encoding="utf-8")
    return [*pages.wrong_links([page]), *block_checks.wrong_blocks([page])]


def test_the_pages_have_no_wrong_link_and_no_wrong_block():
    assert [*pages.wrong_links(), *block_checks.wrong_blocks()] == []


def test_the_pages_are_spelt_right():
    assert spelling.mistakes() == []


def test_the_navigation_has_every_page():
    rooms = {f"reference/api/{name}.md" for name in api.rooms()}
    there = {*pages.written_pages(), *(reference.reference_names() - rooms)}

    assert sorted(built.nav_names()) == sorted(there)


def test_a_page_without_a_mistake(page):
    assert wrong(page, RIGHT) == []


@pytest.mark.parametrize(
    ("right", "mistake", "told"),
    [
        ("tiers.md#waivers", "tears.md", "'tears.md' leads to no file"),
        ("tiers.md#waivers", "tiers.md#wavers", "leads to no heading"),
        ("reference/commands.md", "reference/comands.md", "leads to no file"),
        ("reference/commands.md", "/docs/ci.md", "expected a relative path"),
        ("https://arxiv.org/abs/1", "https://arxiv", "expected an address"),
        ("natadv plan", "natadv plann", "natadv has no command 'plann'"),
        ("--tier pr", "--teir pr", "No such option"),
        ("--tier pr", "--tier", "requires an argument"),
        ("--no-assert", "--no-asert", "pytest has no option '--no-asert'"),
        ("pytest suites/", "pytest suites/test_no.py", "'suites/test_no.py' is not there"),
        ("make gate", "make goat", "make has no target 'goat'"),
        ("make gate", "python -m natadv.goat", "python has no module 'natadv.goat'"),
        ("make gate", "python -m natadv.gate --no", "natadv.gate has no option '--no'"),
        ("make gate", "nattadv plan", "'nattadv' is no program"),
        ("make gate", "natadv replay FILE --model mini-clip", "'FILE' cannot be pasted"),
        ("cat out.txt", "cat absent.json", "'absent.json' is not there"),
        ("cat out.txt", "cat 'out.txt", "not bash"),
        ("```bash", "```", "expected a fence that names its language"),
        ("```bash", "<!-- not run: nobody likes it -->\n```bash", "expected a reason that begins"),
        ("```bash", "<!-- not run -->\n```bash", "cannot read the mark"),
        ("rules: []", "rules: [", "not yaml"),
        ("rules: []", "", "the block is empty"),
    ],
)
def test_each_mistake_is_found(page, right, mistake, told):
    assert right in RIGHT

    found = wrong(page, RIGHT.replace(right, mistake, 1))
    assert any(told in line for line in found), found


@pytest.mark.parametrize(
    ("word", "suggestion"), [("recieve", "receive"), ("behavior", "behaviour")]
)
def test_misspelt_words_are_found_outside_of_code(tmp_path, word, suggestion):
    path = tmp_path / "page.md"
    path.write_text(f"One\n\n`{word}`\n\n```text\n{word}\n```\n\nA {word}.\n", encoding="utf-8")

    assert spelling.mistakes([path]) == [f"page.md:9: {word} ==> {suggestion}"]


def test_links_lead_to_pages_of_the_site():
    readme = pages.on_site(blocks.ROOT / "README.md", "index.md")

    assert "](docs/" not in readme
    assert "](tiers.md" in readme
    assert "](contributing.md)" in readme


def test_a_link_to_code_leads_to_the_page_that_is_made_from_it(page):
    page.write_text("See [all metrics](../natadv/metrics/__init__.py).\n")

    assert pages.on_site(page, "page.md") == "See [all metrics](reference/metrics.md).\n"


def test_each_page_of_the_reference_is_made_from_a_file_that_is_there():
    assert [file for file in reference.MADE_FROM if not (blocks.ROOT / file).is_file()] == []
    assert {*reference.MADE_FROM.values()} == reference.PAGES.keys() - {"api"}


@pytest.mark.parametrize(
    ("target", "title"),
    [
        ("tiers.md", "How to set tiers, floors and waivers"),
        ("tiers.md#measured-floors", "Measured floors"),
    ],
)
def test_a_link_whose_words_are_a_path_says_the_title(page, target, title):
    page.write_text(f"([tiers.md]({target}))\n")

    assert pages.on_site(page, "page.md") == f"([{title}]({target}))\n"


def test_a_link_to_what_is_not_on_the_site_becomes_words(page, monkeypatch):
    page.write_text("See [the *rules*](../thresholds.yaml), [![a](attack.png)](../Makefile).\n")
    monkeypatch.delenv("GITHUB_REPOSITORY", raising=False)
    assert pages.on_site(page, "page.md") == "See the *rules*, ![a](attack.png).\n"

    monkeypatch.setenv("GITHUB_SERVER_URL", "https://example.org")
    monkeypatch.setenv("GITHUB_REPOSITORY", "me/it")
    assert "](https://example.org/me/it/blob/main/Makefile)" in pages.on_site(page, "page.md")


def test_code_that_is_not_run_says_why(tmp_path):
    path = tmp_path / "page.md"
    path.write_text(
        "<!-- not run: GPU, a large one -->\n```bash\na\n```\n\n```bash\nb\n```\n\n"
        "1. x\n\n    <!-- exit 1 -->\n    ```bash\n    c\n    ```\n"
    )

    first, second, third = blocks.blocks_of(path)
    assert (first.not_run, first.runs, first.line) == ("GPU, a large one", False, 2)
    assert (second.not_run, second.runs, second.exit_code) == ("", True, 0)
    assert (third.text, third.exit_code) == ("c\n", 1)


def test_commands_are_told_apart_as_a_shell_does():
    text = "A=1 a 'b c' \\\n  --d | e  # it's f\ng && h > i\n"

    assert [(*call.words, *call.outputs) for call in blocks.calls_of(text)] == [
        ("a", "b c", "--d"),
        ("e",),
        ("g",),
        ("h", "i"),
    ]


def test_the_reference_has_every_row_of_its_tables():
    made = {name: page() for name, page in reference.PAGES.items()}
    rows = {
        "commands": [f"## `natadv {name}`" for name in cli.COMMANDS],
        "gate-options": [f"| `{option.dest}` |" for option in OPTIONS],
        "metrics": [f"| `{name}` | {metric.says}" for name, metric in METRICS.items()],
        "tasks": [f"| `{name}` |" for name in (*TASKS, *SCENARIOS)],
        "models": [f"| `{name}` |" for name in ZOO],
        "exit-codes": ["| 4 |", "| 141 |"],
        "errors": ["| `DataError` | `NatadvError` |"],
        "overlays": ["| `post-it` |", "| `caveat` |", "| `misspelt` |"],
        "gate-json": ["| `verdict` |", "list of [CaseEntry](#caseentry)"],
        "api": [f"](api/{name}.md)" for name in api.rooms()],
    }

    for name, expected in rows.items():
        assert [row for row in expected if row not in made[name]] == [], name
    # Of every key of the contract, a reader learns what it is for.
    assert [line for line in made["thresholds"].splitlines() if line.endswith("|  |")] == []
    keys = {key for one in _objects(ThresholdsFile.model_json_schema()) for key in one}
    assert [key for key in keys if f"| `{key}` |" not in made["thresholds"]] == []


def _objects(schema: dict[str, object]) -> list[dict[str, object]]:
    found = json.loads(json.dumps(schema))
    return [one["properties"] for one in (found, *found["$defs"].values())]


def test_the_interface_is_read_from_the_sources():
    assert "rng_for(*key: object) -> np.random.Generator" in api.room_page("rng")
    # It has the name of a submodule.
    assert "### `measure`" in api.room_page("metrics")
    assert "_require" not in api.room_page("gate")
    assert api.escaped("a*b `c*d` <e>") == r"a\*b `c*d` \<e>"


def test_two_pages_of_one_path_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(pages, "reference_pages", lambda: {"tiers.md": "# Tiers"})

    with pytest.raises(DataError, match=r"expected tiers\.md from one source, got two"):
        pages.stage(tmp_path)

"""The reference pages, made from the tables and schemas of the library whenever they are built."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

import griffe
import typer
from typer.core import TyperGroup

from natadv import cli
from natadv.gate.thresholds_schema import MOST, ThresholdsFile
from natadv.metrics import METRICS
from natadv.models.zoo import ZOO
from natadv.plugin.options import OPTIONS
from natadv.report.gate_json import SCHEMA
from natadv.report.markdown import markdown_table
from natadv.scenarios import SCENARIOS
from natadv.scenarios.typographic.fonts import FONTS
from natadv.scenarios.typographic.overlay_text import KINDS
from natadv.scenarios.typographic.recipes import RECIPES, SEVERITIES
from natadv.tasks import ANALYSES, TASKS
from website import api

GENERATED = "reference"
"""The folder of the site whose pages no person writes."""


def reference_pages() -> dict[str, str]:
    """Path on the site -> Markdown of each page."""
    pages = {f"{GENERATED}/{name}.md": _wide(page()) for name, page in PAGES.items()}
    rooms = {f"{GENERATED}/api/{name}.md": api.room_page(name) for name in api.rooms()}
    return pages | rooms


def _wide(text: str) -> str:
    """The page without an empty table of contents, whose room its own table needs."""
    return text if "\n## " in text else f"---\nhide:\n  - toc\n---\n\n{text}"


def reference_names() -> set[str]:
    """The paths of all these pages, without making them."""
    return {f"{GENERATED}/{name}.md" for name in (*PAGES, *(f"api/{one}" for one in api.rooms()))}


def _commands() -> str:
    intro = (
        "All commands of `natadv`. The gate itself is run by pytest ([its options]"
        "(gate-options.md)). All of them share one set of [exit codes](exit-codes.md)."
    )
    parts = ["# Commands", intro]
    for name in cli.COMMANDS:
        parts += _command(f"natadv {name}", cli.command_named(name))
    return "\n\n".join(parts)


def _command(words: str, command: Any) -> Iterator[str]:
    context = typer.Context(command, info_name=words)
    depth = min(words.count(" ") + 1, 4)
    yield f"{'#' * depth} `{words}`"
    # Help may be wrapped by hand, and a paragraph may be one that must not be (`\b`).
    yield api.escaped((command.help or command.short_help or "").replace("\b\n", ""))
    if isinstance(command, TyperGroup):
        for name, one in command.commands.items():
            yield from _command(f"{words} {name}", one)
        return
    yield f"```text\n{context.get_usage()}\n```"
    records = [one.get_help_record(context) for one in command.params]
    rows = [(f"`{names}`", text) for names, text in filter(None, records)]
    if rows:
        yield _table(("argument or option", "meaning"), rows)
    if command.epilog:
        first, _, more = command.epilog.removeprefix("\b\n").partition("\n\n")
        told, _, example = first.partition("natadv ")
        yield f"{told.strip()}\n\n```text\nnatadv {example}\n```" if example else first
        if more:
            yield more


def _gate_options() -> str:
    rows = [
        (
            f"`{option.flag} {option.metavar}".rstrip() + "`",
            option.help,
            f"`{option.dest}`",
        )
        for option in OPTIONS
    ]
    example = next(option for option in OPTIONS if option.repeatable)
    return "\n\n".join(
        (
            "# Options of the gate",
            "What `pytest suites/` takes beside pytest's own options. `pytest suites/ --help` "
            "prints them too.",
            "An option that is not on the command line is read from the environment variable that "
            "has the name of its ini key in capital letters "
            f"(`{example.variable}` for `{example.flag}`), else from the ini file (`[pytest]` in "
            "`pytest.ini`, `[tool.pytest.ini_options]` in `pyproject.toml`).",
            _table(("option", "meaning", "ini key"), rows),
        )
    )


def _metrics() -> str:
    rows = [
        (
            f"`{name}`",
            metric.says,
            "higher" if metric.higher_is_better else "lower",
            " to ".join(f"{end:g}" for end in metric.ends),
            ", ".join(metric.tasks),
            ", ".join((*metric.needs, *filter(None, (metric.scenario,)))),
        )
        for name, metric in METRICS.items()
    ]
    return "\n\n".join(
        (
            "# Metrics",
            "What a rule of `thresholds.yaml` may bound. `needs` names what is measured beside the "
            "pictures: their clean twins, the controls, or the only scenario that the metric "
            "describes.",
            _table(("metric", "definition", "better", "from - to", "tasks", "needs"), rows),
        )
    )


def _tasks() -> str:
    tasks = [
        (
            f"`{name}`",
            f"an analysis of {task.analyses}" if name in ANALYSES else "is asked of datasets",
            f"`{task.headline}`",
            ", ".join(f"`{one}`" for one in task.metrics),
            ", ".join(f"`{one}`" for one in task.attack_metrics),
            f"`{task.protocol}`",
        )
        for name, task in TASKS.items()
    ]
    scenarios = [
        (f"`{name}`", one.summary, "yes" if one.attacks else "no")
        for name, one in SCENARIOS.items()
    ]
    return "\n\n".join(
        (
            "# Tasks and scenarios",
            "A case is `task/scenario/dataset/model`.",
            "## Tasks",
            _table(
                ("task", "kind", "headline", "metrics", "metrics under attack", "protocol"), tasks
            ),
            "## Scenarios",
            _table(("scenario", "why its pictures are hard", "attacks twins"), scenarios),
        )
    )


def _overlays() -> str:
    recipes = [(f"`{name}`", one.source) for name, one in RECIPES.items()]
    severities = [(str(level), f"{factor:g}") for level, factor in SEVERITIES.items()]
    kinds = [(f"`{name}`", make.__doc__ or "") for name, make in KINDS.items()]
    fonts = [(f"`{name}`", f"`{file}`") for name, file in FONTS.items()]
    return "\n\n".join(
        (
            "# Overlays: recipes, texts and fonts",
            "## Recipes",
            _table(("recipe", "published in"), recipes),
            "## Severities",
            _table(("severity", "factor for the size of the letters"), severities),
            "## Kinds of text",
            _table(("kind", "what it says"), kinds),
            "## Fonts",
            api.prose(api.module("scenarios.typographic.fonts")),
            _table(("font", "file"), fonts),
        )
    )


def _models() -> str:
    parts = [
        "# Models",
        f"The {len(ZOO)} models that have a name; `natadv models` shows which of them are here.",
    ]
    for family, group in groupby(ZOO.values(), key=lambda row: row.family):
        rows = [
            (
                f"`{row.name}`",
                row.architecture,
                str(row.image_px),
                f"{row.parameters_m:g}\u00a0M",
                f"`{row.hub or row.location}`",
                f"{row.licence}{' (gated)' * row.gated}",
                ", ".join(row.tasks),
                "yes" if row.in_paper else "",
            )
            for row in group
        ]
        head = ("model", "architecture", "px", "size", "hub or folder", "licence", "tasks", "paper")
        parts += [f"## {family}", _table(head, rows)]
    return "\n\n".join(parts)


def _errors() -> str:
    rows = [
        (f"`{name}`", ", ".join(f"`{base}`" for base in one.bases), api.prose(one))
        for name, one in api.module("errors").members.items()
        if isinstance(one, griffe.Class)
    ]
    intro = (
        "Each error that natadv raises on purpose is in one tree (`natadv.errors`), so that a "
        "program can catch `NatadvError`. On the command line it is one line on stderr, and the "
        "[exit code](exit-codes.md) is 4. In a test of the gate, `GateFailure` and `InfraError` "
        "fail the test."
    )
    return "\n\n".join(("# Errors", intro, _table(("error", "is a", "meaning"), rows)))


def _exit_codes() -> str:
    rows = [
        (str(one.value), name.lower().replace("_", " "), api.prose(one))
        for name, one in api.module("exit_codes").members.items()
        if isinstance(one, griffe.Attribute) and re.fullmatch(r"\d{1,3}", str(one.value))
    ]
    gate = (
        "The gate (`pytest suites/`, `natadv gate`) exits as pytest does: 0 if the run is green, 1 "
        "if it is not, 2 after Ctrl-C, 3 after a fault, 4 after a usage error, 5 if no case was "
        "collected."
    )
    intro = "All other commands of `natadv` exit with one of these codes:"
    return "\n\n".join(("# Exit codes", gate, intro, _table(("code", "name", "when"), rows)))


def _thresholds() -> str:
    intro = "The keys of `thresholds.yaml` and of what it includes. An unknown key is an error."
    schema, room = ThresholdsFile.model_json_schema(), "gate.thresholds_schema"
    return _schema_page("Keys of thresholds.yaml", intro, schema, room)


def _gate_json() -> str:
    intro = "What a run writes for machines. `natadv schema` prints the JSON schema of it."
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    return _schema_page("Fields of gate.json", intro, schema, "report.gate_json")


def _schema_page(title: str, intro: str, schema: Mapping[str, Any], room: str) -> str:
    """A table for the root of a schema, and one for each object that it refers to."""
    objects = {schema["title"]: schema, **schema.get("$defs", {})}
    parts = [f"# {title}", intro]
    for name, one in objects.items():
        told = api.attribute_docs(room, name)
        required = set(one.get("required", ()))
        rows = [
            (
                f"`{key}`",
                _kind(value),
                _default(value, key in required),
                told.get(key, ""),
            )
            for key, value in one["properties"].items()
        ]
        parts += [f"## {name}", one.get("description", "")]
        parts.append(_table(("key", "value", "default", "meaning"), rows))
    return "\n\n".join(parts)


def _kind(schema: Mapping[str, Any]) -> str:
    """The type of a value in words, with links to the objects that it holds."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "enum" in schema or "const" in schema:
        return " or ".join(
            f"`{json.dumps(one)}`" for one in schema.get("enum", [schema.get("const")])
        )
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(map(_kind, schema["anyOf"])))
    if schema.get("type") == "array":
        return f"list of {_kind(schema.get('items', {}))}"
    if schema.get("type") == "object":
        held = schema.get("additionalProperties")
        return f"mapping to {_kind(held)}" if isinstance(held, Mapping) and held else "mapping"
    limits = [
        f"{word} {schema[key]:g}"
        for key, word in _LIMITS.items()
        if abs(schema.get(key, MOST)) < MOST
    ]
    return " ".join((_TYPES.get(schema.get("type", ""), "any"), *limits))


_TYPES = {
    "integer": "whole number",
    "number": "number",
    "string": "text",
    "boolean": "true or false",
}
_TYPES |= {"null": "null"}
_LIMITS = {
    "minimum": "from",
    "exclusiveMinimum": "above",
    "maximum": "to",
    "exclusiveMaximum": "below",
}


def _default(schema: Mapping[str, Any], required: bool) -> str:
    if required:
        return "required"
    default = schema.get("default")
    return "" if default in (None, [], {}) else f"`{json.dumps(default)}`"


def _api_index() -> str:
    rows = [(f"[`natadv.{name}`](api/{name}.md)", api.summary(name)) for name in api.rooms()]
    intro = (
        "The rooms of the library, with every public name. They import one way: a room uses those "
        "below it in the table of [CONTRIBUTING](../contributing.md)."
    )
    return "\n\n".join(("# Python interface", intro, _table(("room", "holds"), rows)))


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table without a `|` that would end a cell. In code GitHub needs it escaped, and the site
    must not have it escaped, so that such code is HTML."""
    return markdown_table(head, [list(map(_cell, row)) for row in rows])


def _cell(text: str) -> str:
    return _CODE_WITH_BAR.sub(_as_html, " ".join(text.split())).replace("|", "\\|")


def _as_html(found: re.Match[str]) -> str:
    return f"<code>{html.escape(found[1]).replace('|', '&#124;')}</code>"


_CODE_WITH_BAR = re.compile(r"`([^`]*\|[^`]*)`")


PAGES: Mapping[str, Callable[[], str]] = {
    "commands": _commands,
    "gate-options": _gate_options,
    "metrics": _metrics,
    "tasks": _tasks,
    "overlays": _overlays,
    "models": _models,
    "thresholds": _thresholds,
    "gate-json": _gate_json,
    "exit-codes": _exit_codes,
    "errors": _errors,
    "api": _api_index,
}
"""Name of the page -> what makes it. A new page is a function, a row, and a line of mkdocs.yml."""

MADE_FROM: Mapping[str, str] = {
    "natadv/cli/__init__.py": "commands",
    "natadv/plugin/options.py": "gate-options",
    "natadv/gate/thresholds_schema.py": "thresholds",
    "natadv/report/gate.schema.json": "gate-json",
    "natadv/metrics/__init__.py": "metrics",
    "natadv/tasks/__init__.py": "tasks",
    "natadv/scenarios/typographic/recipes.py": "overlays",
    "natadv/models/zoo.tsv": "models",
    "natadv/exit_codes.py": "exit-codes",
    "natadv/errors.py": "errors",
}
"""File of the repository -> name of the page that shows its content. Pages link to the file, as
these pages exist on the site only; there, the links lead to the page."""

"""Whether the code blocks of the pages can be right, without running them.

Of a command: its program, options, targets, modules and files exist. Of data: it can be parsed.
`website.run_blocks` finds what only running shows.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import subprocess
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path

import typer
import yaml
from typer.core import TyperGroup

from natadv import cli
from natadv.errors import NatadvError
from natadv.plugin.options import OPTIONS
from website.blocks import ROOT, Block, Call, blocks_of, calls_of, pages


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


OTHER_PROGRAMS = _words(
    "cat cd chmod cp curl deactivate diff docker dvc echo export gh git grep head hf ls "
    "mkdir mv pip ray rm sed source tar test touch unzip wget check-jsonschema actionlint "
    "cosign . [ true pre-commit python3"
)
"""Programs of others, whose options are not checked."""
PYTEST_OPTIONS = _words(
    "-n -q -v -vv -x -k -m -p -s --co --collect-only --help --lf --junitxml --dist"
) | {option.flag for option in OPTIONS}
"""Those of the gate, and what the pages use of pytest and pytest-xdist."""
WIDEST = 120
"""Columns of a block, so that it can be read beside the navigation."""

_MADE = (".natadv", "allure-results", "allure-report", "gate.json", "baselines", ".venv")
"""What a run of the gate, `natadv bless` and make leave behind."""
_STARTED = ("checkpoint", "released", "pictures", "suites", "thresholds.yaml", ".github")
"""What `natadv init --example` writes."""
_OUTPUTS = _words(
    "--out --json --markdown --gate-json --evidence --pictures --store --sheets --attacks "
    "--keep --local-dir --write --junitxml --cov-report -d -C --review"
)
"""Options whose value is a file or folder that the command makes."""
_FILE = re.compile(
    r"[\w./*-]+\.(?:csv|jsonl?|md|npy|npz|pt|py|safetensors|sarif|tsv|xml|ya?ml|zip)"
)
_PLACEHOLDER = re.compile(r"\[[^\]]*\]|<[a-z][\w -]*>|(?!HEAD)[A-Z]{3,}(?:/[A-Z]+)*|\.\.\.")
_SHELL = ["bash", "-n"]


@dataclass(slots=True)
class _Seen:
    """What the blocks of a page have made so far."""

    made: set[str] = field(default_factory=lambda: set(_MADE))

    def has(self, path: str) -> bool:
        """Whether a path is part of the repository, or below something that was made."""
        if Path(path).is_absolute():
            return Path(path).exists()
        parts = Path(path.split("::")[0]).parts
        below = {"/".join(parts[: n + 1]) for n in range(len(parts))}
        return bool(below & self.made) or any(ROOT.glob(path.split("::")[0].removeprefix("./")))


def wrong_blocks(given: Iterable[Path] | None = None) -> list[str]:
    """What is wrong with the blocks of the pages, as `page:line: why`; by default of all pages."""
    wrong = []
    for page in given or pages():
        try:
            wrong += list(wrong_of(blocks_of(page)))
        except NatadvError as error:
            wrong.append(str(error))
    return wrong


def wrong_of(blocks: Sequence[Block]) -> Iterator[str]:
    """What is wrong with the blocks of one page."""
    seen = _Seen()
    for block in blocks:
        if block.title:
            seen.made.add(block.title)
        for why in _wrong(block, seen):
            yield f"{block.where}: {why}"


def _wrong(block: Block, seen: _Seen) -> Iterator[str]:
    if block.language not in _CHECKS:
        known = ", ".join(sorted(_CHECKS))
        yield f"expected a fence that names its language ({known}), got {block.language!r}"
        return
    if not block.text.strip():
        yield "the block is empty"
    for number, line in enumerate(block.text.splitlines(), start=1):
        if line != line.rstrip() or "\t" in line or "\x1b" in line:
            yield f"line {number}: has spaces at its end, a tab or an escape sequence"
        if len(line) > WIDEST and block.language == "text":
            yield f"line {number}: has {len(line)} columns; {WIDEST} can be read"
    yield from _CHECKS[block.language](block, seen)


def _parsed(parse: Callable[[str], object], block: Block, seen: _Seen) -> Iterator[str]:
    try:
        parse(block.text)
    except (ValueError, SyntaxError, yaml.YAMLError) as error:
        yield f"not {block.language}: {' '.join(str(error).split())}"


def _json(text: str) -> None:
    """One value, or one on each line."""
    try:
        json.loads(text)
    except ValueError:
        for line in text.splitlines():
            json.loads(line)


def _fine(block: Block, seen: _Seen) -> Iterator[str]:
    return iter(())


def _bash(block: Block, seen: _Seen) -> Iterator[str]:
    done = subprocess.run(_SHELL, input=block.text, capture_output=True, text=True, check=False)
    if done.returncode:
        yield f"not bash: {done.stderr.strip()}"
        return
    for call in calls_of(block.text):
        for word in call.words[1:]:
            if _PLACEHOLDER.fullmatch(word):
                yield f"{word!r} cannot be pasted; name something that is there"
        yield from _CALLS.get(call.words[0], _other)(call.words)
        yield from (f"{path!r} is not there" for path in _absent(block, call, seen))
        for before, word in pairwise(call.words):
            if before in _OUTPUTS:
                seen.made.add(word.removeprefix("./"))
        seen.made.update(call.outputs)
        if call.words[:2] == ("natadv", "init"):
            seen.made.update(_STARTED)
        if call.words[0] in ("mkdir", "cp", "tar", "unzip", "curl", "git", "wget"):
            seen.made.update(word.removeprefix("./") for word in call.words[1:])


def _absent(block: Block, call: Call, seen: _Seen) -> Iterator[str]:
    """Files that the command names, and that nothing has made."""
    if call.words[0] not in ("natadv", "pytest", "python", "cat", "check-jsonschema"):
        return
    for before, word in pairwise(call.words):
        if before in (*_OUTPUTS, "-c", "-m") or word.startswith("-") or "://" in word:
            continue
        path = word.partition("=")[2] or word
        ours = path.split("/")[0] in ("suites", "docs", "benchmarks", "mini_world", "natadv")
        if not seen.has(path) and (
            (ours and "/" in path)
            or (not block.not_run and (path.startswith("./") or _FILE.fullmatch(path)))
        ):
            yield path


def _natadv(words: Sequence[str]) -> Iterator[str]:
    if words[1:2] in (("--help",), ("--version",)):
        return
    name = words[1] if len(words) > 1 else ""
    if name not in cli.COMMANDS:
        yield f"natadv has no command {name!r}"
        return
    command = cli.command_named(name)
    rest, parent = [*words[2:]], None
    try:
        while isinstance(command, TyperGroup):
            parent = command.make_context(name, [*rest], parent=parent)
            at = next((i for i, word in enumerate(rest) if word in command.commands), None)
            if at is None and command.invoke_without_command:
                return
            if at is None:
                yield f"{parent.command_path} has no command {' '.join(rest[:1])!r}"
                return
            name, command, rest = rest[at], command.commands[rest[at]], rest[at + 1 :]
        command.make_context(name, rest, parent=parent)
    except typer.Exit:
        return
    except (typer.TyperException, NatadvError) as error:
        yield f"{' '.join(words)}: {getattr(error, 'message', '') or error}"


def _pytest(words: Sequence[str]) -> Iterator[str]:
    for word in words[1:]:
        flag = word.partition("=")[0]
        if re.match(r"--?[a-z]", flag) and flag not in PYTEST_OPTIONS:
            yield f"pytest has no option {flag!r}"


def _make(words: Sequence[str]) -> Iterator[str]:
    rules = (ROOT / "Makefile").read_text(encoding="utf-8")
    for word in words[1:]:
        target = re.compile(rf"^{re.escape(word)}:", re.MULTILINE)
        if not word.startswith("-") and "=" not in word and not target.search(rules):
            yield f"make has no target {word!r}"


def _python(words: Sequence[str]) -> Iterator[str]:
    if words[1:2] == ("-c",):
        yield from _parsed_python(words[2])
        return
    is_module = words[1:2] == ("-m",)
    name, rest = (words[2], words[3:]) if is_module else (words[1], words[2:])
    if is_module and name in ("pip", "venv", "pytest", "build"):
        return
    source = _source(name) if is_module else ROOT / name
    if source is None or not source.is_file():
        if is_module:
            yield f"python has no module {name!r}"
        return
    text = source.read_text(encoding="utf-8")
    for word in rest:
        flag = word.partition("=")[0]
        if flag.startswith("--") and f'"{flag}"' not in text:
            yield f"{name} has no option {flag!r}"


def _parsed_python(text: str) -> Iterator[str]:
    try:
        ast.parse(text)
    except SyntaxError as error:
        yield f"not python: {error}"


def _source(module: str) -> Path | None:
    """The file that `python -m module` runs."""
    try:
        found = importlib.util.find_spec(module)
    except ModuleNotFoundError:
        return None
    if found is not None and found.submodule_search_locations:
        found = importlib.util.find_spec(f"{module}.__main__")
    return Path(found.origin) if found is not None and found.origin else None


def _other(words: Sequence[str]) -> Iterator[str]:
    if words[0] not in OTHER_PROGRAMS:
        yield f"{words[0]!r} is no program that is known here"


_CALLS: Mapping[str, Callable[[Sequence[str]], Iterator[str]]] = {
    "natadv": _natadv,
    "pytest": _pytest,
    "make": _make,
    "python": _python,
}

_CHECKS: Mapping[str, Callable[[Block, _Seen], Iterator[str]]] = {
    "bash": _bash,
    "text": _fine,
    "diff": _fine,
    "dockerfile": _fine,
    "makefile": _fine,
    "ini": _fine,
    "markdown": _fine,
    "html": _fine,
    "toml": partial(_parsed, tomllib.loads),
    "json": partial(_parsed, _json),
    "yaml": partial(_parsed, yaml.safe_load),
    "python": partial(_parsed, ast.parse),
}
"""Language -> what is wrong with a block in it."""

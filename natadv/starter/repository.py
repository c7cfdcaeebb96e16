"""The files that a repository needs to gate its own model: what each is for, and what it says."""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import yaml

from natadv import __version__, places
from natadv.data.card import dataset_folder, find_datasets, load_card
from natadv.errors import ConfigError, ModelError, NotFetchedError
from natadv.factories import is_reference, slug
from natadv.models.hub import local as hub
from natadv.models.resolve import resolve_one
from natadv.models.zoo import rows_named
from natadv.places import CONTRACT, SUITES
from natadv.scenarios import SCENARIOS
from natadv.storage.atomic import write_whole
from natadv.tasks import ASKED

CONFTEST = SUITES / "conftest.py"
WORKFLOW = Path(".github/workflows/gate.yml")
IGNORED = {
    Path(".gitignore"): "keeps results out of git",
    Path(".dvcignore"): "keeps what Python makes out of DVC",
}
"""Files that get the lines of a template where they lack them."""


@dataclass(frozen=True, slots=True)
class GatedModel:
    """The model of the user, which may still have to be brought here."""

    given: str
    """As the user names it."""
    name: str
    """As the contract names it."""
    tasks: tuple[str, ...]
    fetch: str = ""
    """The command that brings it here, if it is known."""
    note: str = ""
    """What the user has to know of it, if anything."""


class StarterFile(NamedTuple):
    """A file to write where there is none."""

    path: Path
    purpose: str
    content: str


class Written(NamedTuple):
    """What became of one file."""

    done: str
    """One of `wrote`, `added` and `kept`."""
    path: Path
    purpose: str


def packaged_suites() -> Path:
    """The folder of the suites that natadv brings. Raises ConfigError if it is gone."""
    for root in places.package_roots():
        if (root / SUITES).is_dir():
            return root / SUITES
    raise ConfigError("natadv was installed without its suites; install it again")


def template(name: str) -> str:
    """The text of a file beside this one."""
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def gated_model(given: str, *, root: Path) -> GatedModel:
    """The model that the user names. One that is not here yet is taken for what its name says.

    Raises:
        ModelError: It is here and broken.
        ConfigError: Nothing can have this name, or several models have it.
    """
    try:
        spec = resolve_one(given, root=root, wanted="to gate")
    except ModelError as error:
        return _absent(given, error)
    name = given if is_reference(given) else spec.name
    return GatedModel(given, name, tuple(t for t in ASKED if t in {*spec.tasks, *spec.heads}))


def _absent(given: str, error: ModelError) -> GatedModel:
    if rows := rows_named(given):
        if len(rows) > 1:
            names = ", ".join(row.name for row in rows)
            raise ConfigError(f"{given!r} means {len(rows)} models ({names}); name one to gate")
        fetch = f"natadv models fetch {rows[0].name}"
        return GatedModel(given, rows[0].name, rows[0].tasks, fetch=fetch)
    path = Path(given).expanduser()
    is_path = given.startswith((".", "~")) or path.is_absolute()
    if hub.is_id(given) and not path.exists():
        fetch = f"natadv models fetch {given}"
        name = slug(given)
    elif is_path and not path.exists() and not isinstance(error, NotFetchedError):
        fetch, name = "", slug(path.name)
    else:
        raise error
    note = f"{given} is not here yet, so its tier has classification alone; add what else it can do"
    return GatedModel(given, name, ("classification",), fetch=fetch, note=note)


def cells_for(model: GatedModel, *, root: Path, named: Sequence[str]) -> list[str]:
    """The cases of the model's tier, without the model: what it can do on the datasets that the
    user has `named`, or else on all that are here and hold their own pictures.

    Raises ConfigError if that is nothing.
    """
    cards = [load_card(folder) for folder in _datasets(root, named).values()]
    if not named:
        cards = [c for c in cards if not c.drawn and c.scenario != "reading"]
    ordered = sorted(cards, key=lambda card: list(SCENARIOS).index(card.scenario))
    cells = [
        f"{task}/{card.scenario}/{card.name}"
        for task in model.tasks
        for card in ordered
        if task in card.tasks
    ]
    if not cells:
        asked = f"of {', '.join(named)}" if named else "here"
        raise ConfigError(
            f"{model.name} can do {', '.join(model.tasks)}, and no dataset {asked} asks for that; "
            "get the mini world by pip install 'natadv[mini]', or import your own pictures by "
            "natadv data import"
        )
    return cells


def _datasets(root: Path, named: Sequence[str]) -> Mapping[str, Path]:
    return {name: dataset_folder(name, root) for name in named} if named else find_datasets(root)


def starter_files(model: GatedModel, cells: Sequence[str], *, root: Path) -> Iterator[StarterFile]:
    """All files that a gate needs, in the order in which a reader would look at them."""
    tier = {tier_name(model): {"models": [model.name], "cases": list(cells)}}
    head = template("thresholds.head.txt").format(
        model=shlex.quote(model.given), tier=tier_name(model)
    )
    yield StarterFile(
        CONTRACT,
        "what must run, and what must hold",
        head + yaml.safe_dump({"tiers": tier}, sort_keys=False, width=100),
    )
    for path in sorted(packaged_suites().glob("*.py")):
        text = path.read_text(encoding="utf-8")
        yield StarterFile(SUITES / path.name, _purpose(text), text)
    yield StarterFile(
        WORKFLOW, "the gate for every pull request on GitHub", _workflow(model, cells, root=root)
    )


def tier_name(model: GatedModel) -> str:
    """The name of the model's tier."""
    return slug(model.name)


def _purpose(source: str) -> str:
    """What a module says of itself, as far as it fits a line."""
    text = (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0]
    short = re.split(r"[;,]|[.]$", text)[0]
    return short[:1].lower() + short[1:]


def _workflow(model: GatedModel, cells: Sequence[str], *, root: Path) -> str:
    own = {name for name, folder in find_datasets(root).items() if root in folder.parents}
    mini = "" if {cell.rpartition("/")[2] for cell in cells} <= own else "[mini]"
    text = template("gate.yml")
    # As JSON, which is YAML whatever the name holds.
    text = text.replace("MODEL: ./checkpoint", f"MODEL: {_yaml(model.given)}")
    return text.replace("NATADV: natadv", f"NATADV: {_yaml(f'natadv{mini}=={__version__}')}")


def _yaml(text: str) -> str:
    plain = text.replace("/", "").replace("-", "").replace("_", "").lstrip(".")
    return text if plain.isalnum() and plain.isascii() else json.dumps(text)


def write_missing(files: Sequence[StarterFile], *, root: Path) -> Iterator[Written]:
    """Write each file that is not there, and add the lines that the ignore files lack.

    Raises DataError if one cannot be written; those before it stay.
    """
    for file in files:
        # A link that leads nowhere is the user's too.
        there = os.path.lexists(root / file.path)
        if not there:
            write_whole(root / file.path, file.content.encode())
        yield Written("kept" if there else "wrote", file.path, file.purpose)
    for path, purpose in IGNORED.items():
        yield Written(_add_lines(root / path), path, purpose)


def _add_lines(path: Path) -> str:
    """Add the lines of the template that the file lacks. Returns what was done."""
    there = os.path.lexists(path)
    try:
        text = path.read_bytes().decode() if there else ""
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as text, to add lines to it: {error}") from error
    known = {line.strip().strip("/") for line in text.splitlines()}
    lines = template(f"{path.name.removeprefix('.')}.txt").splitlines()
    wanted = [line for line in lines if not line.startswith("#")]
    lacking = [line for line in wanted if line.strip("/") not in known]
    if not lacking:
        return "kept"
    end = "\r\n" if "\r\n" in text else "\n"
    # A comment belongs to the line below it.
    added = [line for line, after in _with_next(lines) if (after or line) in lacking]
    glue = end if text and not text.endswith("\n") else ""
    # Of a link, what it leads to.
    write_whole(path.resolve(), (text + glue + "".join(line + end for line in added)).encode())
    return "added" if there else "wrote"


def _with_next(lines: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Each line, with the next one if it is a comment."""
    for line, after in zip(lines, [*lines[1:], ""], strict=True):
        yield line, after if line.startswith("#") else ""


def next_commands(model: GatedModel) -> list[tuple[str, str]]:
    """What a user runs next, each with what it is for."""
    named = shlex.quote(model.given)
    fetch = [(model.fetch, "bring the model here")] if model.fetch else []
    return [
        *fetch,
        (f"pytest suites/ --no-assert -n 2 --model {named}", "measure"),
        ("natadv calibrate --write", "make rules of what was measured"),
        (f"pytest suites/ -n 2 --model {named}", "judge: green as long as the rules hold"),
    ]

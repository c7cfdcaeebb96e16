"""Which files of a run hold gates, and the root that the run reads and writes under.

Decided before pytest collects anything: a controller of workers never does.
"""

from __future__ import annotations

import ast
import os
import re
from argparse import Namespace
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import pytest

from natadv import places
from natadv.errors import ConfigError
from natadv.places import contract_above
from natadv.plugin.opt_in import FOLDER, Folder

_WORD, _MARK = b".gate", re.compile(rb"mark\s*\.gate\b")
"""What precedes parsing: looking for the word alone is twenty times as fast as the expression."""


@dataclass(frozen=True, slots=True)
class Collected:
    """What pytest collects of a folder."""

    files: Sequence[str]
    """Globs of the files with tests."""
    not_entered: Sequence[str]
    """Globs of folders."""
    ignored: frozenset[Path] = frozenset()
    ignored_globs: Sequence[str] = ()

    def leaves_out(self, path: str) -> bool:
        """Whether the user asked to ignore this absolute path."""
        return Path(path) in self.ignored or any(fnmatch(path, g) for g in self.ignored_globs)


def gate_files(paths: Iterable[Path], collected: Collected) -> tuple[Path, ...]:
    """The files among `paths`, and in the folders among them, that hold a test with the marker
    `gate`; by the paths that lead to them, each file once."""
    found = dict.fromkeys(file for path in paths for file in _tests_in(str(path), collected))
    by_file: dict[str, Path] = {}
    for file in filter(holds_gate, found):
        by_file.setdefault(os.path.realpath(file), Path(file))
    return tuple(by_file.values())


def _tests_in(path: str, collected: Collected) -> Iterator[str]:
    """The file itself, or the files with tests below the folder."""
    if os.path.isfile(path):
        yield path
        return
    todo, entered = [path], {os.path.realpath(path)}
    while todo:
        try:
            entries = sorted(os.scandir(todo.pop()), key=lambda entry: entry.name)
        except OSError:
            continue
        for entry in entries:
            if collected.leaves_out(entry.path):
                continue
            if not entry.is_dir():
                if _matches(entry, collected.files):
                    yield entry.path
            elif entry.name != "__pycache__" and not _matches(entry, collected.not_entered):
                real = os.path.realpath(entry.path) if entry.is_symlink() else entry.path
                # A link may lead back; the packages of an environment are not the user's.
                if real not in entered and not os.path.exists(f"{real}/pyvenv.cfg"):
                    entered.add(real)
                    todo.append(entry.path)


def _matches(entry: os.DirEntry[str], globs: Iterable[str]) -> bool:
    return any(
        Path(entry.path).match(glob) if "/" in glob else fnmatch(entry.name, glob) for glob in globs
    )


def holds_gate(path: str) -> bool:
    """Whether the code of a file uses the marker `gate`; words in its texts do not count.

    A file that Python cannot read is taken for one if it has the words: its run is not green.
    """
    try:
        with open(path, "rb", buffering=0) as file:
            source = file.read()
    except OSError:
        return False
    if _WORD not in source or not _MARK.search(source):
        return False
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return True
    return any(
        isinstance(node, ast.Attribute) and node.attr == "gate" and _named(node.value) == "mark"
        for node in ast.walk(tree)
    )


def _named(node: ast.expr) -> str:
    """The last part of a dotted name, else nothing."""
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def roots_for(gates: Iterable[Path], *, here: Path) -> dict[Path, Path]:
    """The folders whose contracts are nearest above the files or folders of the gates, each with
    one of these; else the folder nearest above `here`, where pytest was called; else `here`.

    A link in the path to a gate leads out of its repository, so the contract is above the link.
    """
    own = [gate for gate in gates if not _is_packaged(gate.resolve(), here)]
    roots = {
        root.resolve(): gate
        for gate in own
        if (root := contract_above(gate) or contract_above(gate.resolve())) is not None
    }
    return roots or {contract_above(here) or here: here}


def root_for(gates: Iterable[Path], *, here: Path) -> Path:
    """The only one of these folders. Raises ConfigError if there are several."""
    roots = roots_for(gates, here=here)
    if len(roots) > 1:
        (one, of_one), (other, of_other), *_ = roots.items()
        raise ConfigError(
            f"{of_one} has its contract in {one}, {of_other} in {other}; run them one by one"
        )
    return next(iter(roots))


def _is_packaged(gate: Path, here: Path) -> bool:
    """Whether the gates are of a package: nothing is written there, unless `here` lies in it."""
    return any(
        root in gate.parents and root not in (here, *here.parents)
        for root in places.package_roots()
    )


def folder_of_all(gate: Path, *, root: Path) -> Path:
    """The top folder, below the root or the package, in which the gates beside `gate` are looked
    for; its own folder if it lies in neither."""
    bases = (root, *places.package_roots())
    base = next((parent for parent in gate.parents if parent.resolve() in bases), None)
    return gate.parent if base is None else base / gate.relative_to(base).parts[0]


_GATES = pytest.StashKey[tuple[Path, ...]]()
_ROOT = pytest.StashKey[Path]()


def runs_gates(config: pytest.Config) -> bool:
    """True if a file of this run holds a gate: the plugin must not affect other test runs."""
    return bool(_gates_of(config))


def _gates_of(config: pytest.Config) -> tuple[Path, ...]:
    if _GATES not in config.stash:
        paths = named(config.args, config)
        config.stash[_GATES] = gate_files(paths, collected_by(config, config.option))
    return config.stash[_GATES]


def root_of(config: pytest.Config) -> Path:
    """The folder that this run reads and writes under. Raises ConfigError if there are several."""
    if _ROOT not in config.stash:
        here = config.invocation_params.dir.resolve()
        config.stash[_ROOT] = root_for(_gates_of(config), here=here)
    return config.stash[_ROOT]


def is_narrowed(config: pytest.Config) -> bool:
    """True if the user asked for less than all gates that lie together, so that absent cases are
    expected."""
    option = config.option
    chosen = [option.keyword, option.markexpr, option.deselect, getattr(option, "lf", False)]
    if any(chosen) or any("::" in str(argument) for argument in config.args):
        return True
    gates = _gates_of(config)
    folders = dict.fromkeys(folder_of_all(gate, root=root_of(config)) for gate in gates)
    together = gate_files(folders, collected_by(config, option))
    # One file may be reached by several paths.
    return not {gate.resolve() for gate in together} <= {gate.resolve() for gate in gates}


def named(given: Iterable[object], config: pytest.Config) -> list[Path]:
    """The absolute paths in arguments of pytest, which may name tests in them; as pytest does, with
    the links in them."""
    here = config.invocation_params.dir
    return [Path(os.path.abspath(here / str(a).partition("::")[0])) for a in given]


def collected_by(config: pytest.Config, option: Namespace) -> Collected:
    """What pytest collects by its ini file and by the options."""
    return Collected(
        files=config.getini("python_files"),
        not_entered=config.getini("norecursedirs"),
        ignored=frozenset(named(option.ignore or (), config)),
        ignored_globs=[str(config.invocation_params.dir / g) for g in option.ignore_glob or ()],
    )


def folder_without_gates(config: pytest.Config) -> Path | None:
    """The folder whose conftest.py has loaded the gate, if no file in it holds one."""
    opted_in: Folder | None = config.pluginmanager.get_plugin(FOLDER)
    if opted_in is None:
        return None
    collected = collected_by(config, config.known_args_namespace)
    return None if gate_files([opted_in.path], collected) else opted_in.path

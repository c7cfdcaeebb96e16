"""The hash of the code that turns a unit into rows, which is part of every result's key.

It ignores comments, docstrings and layout. Newer code that is declared equal in effect (`EQUAL`)
keeps the hash of the older code, and with it the results.
"""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from natadv.errors import ChangedError
from natadv.evaluate.store import write_atomically
from natadv.evaluate.units import Numerics, installed_packages, spreading_packages
from natadv.storage.hashes import Stamp, sealed, stamp_of, unsealed

PACKAGE = Path(__file__).parents[1]

EQUAL = PACKAGE / "evaluate" / "equal_code.tsv"
"""Lines of two hashes: of code, and of the older code whose results stay valid."""


class CodeSubset(NamedTuple):
    """Some modules of the package, and all of its modules that these import, also late."""

    roots: tuple[str, ...]
    without: frozenset[str] = frozenset()
    """Modules that are left out, with what only they import."""


SEARCHES = CodeSubset(("natadv.search.compute_search",))
ROWS = CodeSubset(
    (
        "natadv.evaluate.compute",
        "natadv.evaluate.model_runner",
        "natadv.heads.folder",
        "natadv.models.loading",
    ),
    without=frozenset(SEARCHES.roots),
)

_DATA = (".tsv", ".txt", ".ttf", ".otf")
"""Data files of the package that a computation may read."""

_watched: set[Path] = set()

_UNSEEN = ("__all__", "__version__")
"""Names whose values cannot influence a computation."""


def numerics_here(
    store: Path,
    *,
    device: str,
    dtype: str,
    batch_size: int,
    threads: int,
    gpus_per_model: int = 1,
) -> Numerics:
    """The given settings, with the installed packages and the hashes of the code.

    The store caches the hashes, as parsing all sources takes half a second. Raises StoreError if
    it cannot be written, ConfigError if a package is missing that the settings need.
    """
    state = _state(PACKAGE)
    return Numerics(
        device=device,
        dtype=dtype,
        batch_size=batch_size,
        threads=threads,
        packages=installed_packages(
            *spreading_packages(device, dtype=dtype, gpus_per_model=gpus_per_model)
        ),
        gpus_per_model=gpus_per_model,
        code=_remembered(store / "code" / f"rows-{state}", ROWS),
        search_code=_remembered(store / "code" / f"searches-{state}", SEARCHES),
    )


def check_unchanged() -> None:
    """Raises ChangedError if a source file behind the hashes was written since this process
    began."""
    now = {stamp_of(path) for path in _watched}
    if changed := now - _AT_IMPORT:
        raise ChangedError(
            f"{min(changed).path}: the code changed during the run, so a result may come from "
            "either version; run again"
        )


def _remembered(path: Path, part: CodeSubset) -> str:
    """The hash of the subset, cached in a file whose name identifies the sources."""
    try:
        known = unsealed(path.read_bytes(), name=path.name)
    except FileNotFoundError:
        known = None
    if known is None:
        own, files = code_of(PACKAGE, part)
        found = declared(EQUAL.read_text(encoding="utf-8")).get(own, own)
        known = json.dumps([found, *(str(file.relative_to(PACKAGE)) for file in files)]).encode()
        write_atomically(path, sealed(known.decode(), name=path.name))
    digest, *names = json.loads(known)
    _watched.update(PACKAGE / name for name in names)
    return str(digest)


def declared(text: str) -> dict[str, str]:
    """Hash of code -> hash of the older code that it equals in effect, from lines of `EQUAL`."""
    lines = (line.split() for line in text.splitlines() if line and not line.startswith("#"))
    return {own: older for own, older in lines}


class Code(NamedTuple):
    """A hash and the files behind it."""

    digest: str
    files: tuple[Path, ...]


def code_of(package: Path, part: CodeSubset) -> Code:
    """One hash of the modules of `part` and of the data files beside them."""
    spelled = _reached(package, part)
    beside = {path for folder in {m.parent for m in spelled} for path in folder.iterdir()}
    data = {path for path in beside if path.suffix in _DATA and path.name != EQUAL.name}
    files = tuple(sorted(spelled.keys() | data))
    found = hashlib.sha256()
    for path in files:
        content = spelled[path].encode() if path in spelled else path.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        found.update(f"{path.relative_to(package)} {digest}\n".encode())
    return Code(found.hexdigest(), files)


def _state(package: Path) -> str:
    """The hash of the bytes of all sources: fast, and different after any edit."""
    found = hashlib.sha256()
    for path in _sources(package):
        found.update(f"{path.relative_to(package)}\n".encode() + path.read_bytes() + b"\n")
    return found.hexdigest()


@cache
def _sources(package: Path) -> tuple[Path, ...]:
    return tuple(sorted(p for p in package.rglob("*") if p.suffix in (".py", *_DATA)))


def _reached(package: Path, part: CodeSubset) -> dict[Path, str]:
    """The modules, each with its normalised syntax."""
    reached: dict[Path, str] = {}
    todo = list(part.roots)
    while todo:
        name = todo.pop()
        path = _file(package, name)
        if path not in reached and name not in part.without:
            source = _parsed(path.read_bytes())
            reached[path] = source.syntax
            inside = (n for n in source.imported if n.split(".")[0] == package.name)
            todo += [n for n in inside if _file(package, n).is_file()]
    return reached


class _ParsedSource(NamedTuple):
    syntax: str
    """Normalised."""
    imported: tuple[str, ...]
    """Names that may be modules."""


@cache
def _parsed(content: bytes) -> _ParsedSource:
    """By content, as the subsets share most of their modules."""
    tree = _WithoutDocstrings().visit(ast.parse(content))
    return _ParsedSource(_normalised(tree), tuple(_imported(tree)))


def _imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            # A name that is imported from a package may be a module.
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _file(package: Path, name: str) -> Path:
    base = package.parent / Path(*name.split("."))
    return base / "__init__.py" if base.is_dir() else base.with_suffix(".py")


class _WithoutDocstrings(ast.NodeTransformer):
    """Removes what no computation depends on: docstrings, and imports for annotations only."""

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        """Drops docstrings."""
        is_text = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return None if is_text else node

    def visit_Assign(self, node: ast.Assign) -> ast.AST | None:
        """Drops names whose values influence no computation."""
        names = [target.id for target in node.targets if isinstance(target, ast.Name)]
        return None if any(name in _UNSEEN for name in names) else node

    def visit_If(self, node: ast.If) -> ast.AST | None:
        """Drops imports for annotations only."""
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            return None
        self.generic_visit(node)
        return node


def _normalised(node: object) -> str:
    """Syntax as text that is equal under all versions of Python, which `ast.dump` is not."""
    if isinstance(node, ast.AST):
        fields = ((name, value) for name, value in ast.iter_fields(node) if name != "kind")
        # Empty fields are left out, as newer versions have more of them.
        texts = (
            f"{name}={_normalised(value)}" for name, value in fields if value not in (None, [])
        )
        return f"{type(node).__name__}({','.join(texts)})"
    if isinstance(node, list):
        return f"[{','.join(map(_normalised, node))}]"
    return repr(node)


_AT_IMPORT: frozenset[Stamp] = frozenset(map(stamp_of, _sources(PACKAGE)))

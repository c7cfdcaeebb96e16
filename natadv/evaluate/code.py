"""The code that turns a unit into rows, as one hash: a result is as good as the code behind it.

Comments, docstrings and layout do not count. Results of older code are kept where newer code is
declared equal to it in effect (`EQUAL`).
"""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Collection, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from natadv.errors import ChangedError
from natadv.evaluate.store import write_atomically
from natadv.evaluate.units import Numerics, installed_packages
from natadv.storage.hashes import Stamp, stamp_of
from natadv.storage.sealed import sealed, unsealed

PACKAGE = Path(__file__).parents[1]

EQUAL = PACKAGE / "evaluate" / "equal_code.tsv"
"""Lines of two hashes: of code, and of the older code whose results it may go on using."""


class Part(NamedTuple):
    """A part of the package: some modules, and all that they import of it, however late."""

    roots: tuple[str, ...]
    without: frozenset[str] = frozenset()
    """Modules that are not followed."""


SEARCHES = Part(("natadv.search.worker",))
ROWS = Part(
    (
        "natadv.evaluate.compute",
        "natadv.evaluate.model_runner",
        "natadv.heads.folder",
        "natadv.models.loading",
    ),
    without=frozenset(SEARCHES.roots),
)

_DATA = (".tsv", ".txt", ".ttf", ".otf")
"""What a computation may read of the package, beside its modules."""

_watched: set[Path] = set()

_UNSEEN = ("__all__", "__version__")
"""Names whose values no computation sees."""


def numerics_here(
    store: Path, *, device: str, dtype: str, batch_size: int, threads: int
) -> Numerics:
    """With the packages and the code that are installed.

    The store keeps what is found, as to parse all sources takes half a second. Raises StoreError if
    it cannot be written.
    """
    state = _state(PACKAGE)
    return Numerics(
        device=device,
        dtype=dtype,
        batch_size=batch_size,
        threads=threads,
        packages=installed_packages(),
        code=_remembered(store / "code" / f"rows-{state}", ROWS),
        search_code=_remembered(store / "code" / f"searches-{state}", SEARCHES),
    )


def check_unchanged() -> None:
    """Raises ChangedError if a file behind the hashes of `numerics_here` was written since this
    process began."""
    now = {stamp_of(path) for path in _watched}
    if changed := now - _AT_IMPORT:
        raise ChangedError(
            f"{min(changed).path}: the code changed while it ran, so nobody knows which of the two "
            "was at work; run again"
        )


def _remembered(path: Path, part: Part) -> str:
    """The hash of the part, from the file, whose name tells the sources that it is of."""
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
    """Code -> the older code that it equals in effect, of the lines of `EQUAL`."""
    lines = (line.split() for line in text.splitlines() if line and not line.startswith("#"))
    return {own: older for own, older in lines}


class Code(NamedTuple):
    digest: str
    files: tuple[Path, ...]


def code_of(package: Path, part: Part) -> Code:
    """The modules of `part` and the data beside them, as one hash."""
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
    """The hash of all sources as they stand: quick to find, and another one after any edit."""
    found = hashlib.sha256()
    for path in _sources(package):
        found.update(f"{path.relative_to(package)}\n".encode() + path.read_bytes() + b"\n")
    return found.hexdigest()


def _stamps() -> tuple[Stamp, ...]:
    return tuple(stamp_of(path) for path in _sources(PACKAGE))


@cache
def _sources(package: Path) -> tuple[Path, ...]:
    return tuple(sorted(p for p in package.rglob("*") if p.suffix in (".py", *_DATA)))


def _reached(package: Path, part: Part) -> dict[Path, str]:
    """The modules, each with its syntax spelled out."""
    reached: dict[Path, str] = {}
    todo = list(part.roots)
    while todo:
        name = todo.pop()
        path = _file(package, name)
        if path not in reached and name not in part.without:
            tree = _Speechless().visit(ast.parse(path.read_bytes()))
            reached[path] = _spelled(tree)
            todo += _imported(tree, package)
    return reached


def _imported(tree: ast.AST, package: Path) -> Iterator[str]:
    for node in ast.walk(tree):
        names: Collection[str] = ()
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            # What is imported from a package may be a module of it.
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        yield from (n for n in names if n.split(".")[0] == package.name and _exists(package, n))


def _exists(package: Path, name: str) -> bool:
    return _file(package, name).is_file()


def _file(package: Path, name: str) -> Path:
    base = package.parent / Path(*name.split("."))
    return base / "__init__.py" if base.is_dir() else base.with_suffix(".py")


class _Speechless(ast.NodeTransformer):
    """Takes out what no computation sees: docstrings, and imports for annotations alone."""

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        is_text = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return None if is_text else node

    def visit_Assign(self, node: ast.Assign) -> ast.AST | None:
        names = [target.id for target in node.targets if isinstance(target, ast.Name)]
        return None if any(name in _UNSEEN for name in names) else node

    def visit_If(self, node: ast.If) -> ast.AST | None:
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            return None
        self.generic_visit(node)
        return node


def _spelled(node: object) -> str:
    """Syntax as text that is the same under every version of Python: `ast.dump` is not."""
    if isinstance(node, ast.AST):
        fields = ((name, value) for name, value in ast.iter_fields(node) if name != "kind")
        # What is empty is left out: newer versions have more fields.
        told = (f"{name}={_spelled(value)}" for name, value in fields if value not in (None, []))
        return f"{type(node).__name__}({','.join(told)})"
    if isinstance(node, list):
        return f"[{','.join(map(_spelled, node))}]"
    return repr(node)


_AT_IMPORT = frozenset(_stamps())

"""Where the files of a run lie: under its root, or else in an installed package.

A repository that gates its own model holds what is its own: thresholds, suites, datasets. What it
does not hold comes from the packages: suites, thresholds and settings from natadv itself, and the
mini world from natadv-mini. Only the root is ever written to.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from importlib import util
from pathlib import Path

from natadv.factories import entry_points

CONTRACT, SUITES = Path("thresholds.yaml"), Path("suites")
"""What a repository says of its own gate."""
EVIDENCE, STORE, GATE_JSON = Path(".natadv/evidence"), Path(".natadv/store"), Path("gate.json")
"""What a run of the gate writes, unless other places are named."""

GROUP = "natadv.files"
"""Entry points of packages that hold files as a repository does, such as `fixtures/models`."""
PACKAGED = "natadv:"
"""Begins the name of a file of a contract that natadv itself brings, as `natadv:release.yaml`."""


def find(path: Path, root: Path) -> Path:
    """`path` below `root`, or below the first package that has it; below `root` if none has it, so
    that messages name the place where a user would put it."""
    here = root / path
    if here.exists():
        return here
    return next((there for there in _in_packages(path) if there.exists()), here)


def contract_above(place: Path) -> Path | None:
    """The nearest folder from `place` upwards that holds a contract."""
    return next((p for p in (place, *place.parents) if (p / CONTRACT).is_file()), None)


def children(folder: Path, root: Path) -> dict[str, Path]:
    """Name -> path of what lies in `folder`, below `root` and in all packages; those of the root
    come first, and hide others of their names."""
    found: dict[str, Path] = {}
    for place in (root / folder, *_in_packages(folder)):
        for path in sorted(place.iterdir()) if place.is_dir() else ():
            found.setdefault(path.name, path)
    return found


@cache
def package_roots() -> tuple[Path, ...]:
    """The folders of packages that hold files as a repository does.

    That of natadv itself is the clone if it was installed from one as editable.
    """
    shipped = Path(__file__).with_name("shipped")
    own = shipped if shipped.is_dir() else Path(__file__).parents[1]
    return (own, *(folder for name in entry_points(GROUP).values() for folder in _folders(name)))


def _in_packages(path: Path) -> Iterator[Path]:
    return (root / path for root in package_roots())


def _folders(package: str) -> list[Path]:
    """The folders of a package, which is not imported; none if it was removed by hand."""
    found = util.find_spec(package)
    return [Path(folder) for folder in (found.submodule_search_locations or ())] if found else []

"""Pictures of an archive that name their classes themselves: surveyed first, then decoded once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path, PurePosixPath

from natadv.data.archives import Entry, iter_entries
from natadv.data.images import decode_image
from natadv.data.plan import Item, SetAside, items_of
from natadv.errors import DataError
from natadv.types import Sample

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp")

Describe = Callable[[str], Sample | SetAside]
"""From a path in the archive to its sample, still without its picture."""


def picture_paths(source: Path) -> list[str]:
    """In the order of the archive; other files (a README) are passed over."""
    paths = [entry.path for entry in iter_entries(source) if is_picture(entry.path)]
    if not paths:
        raise DataError(
            f"{source}: no pictures in it; expected files that end in {', '.join(PICTURES)}"
        )
    return paths


def is_picture(path: str) -> bool:
    return PurePosixPath(path).suffix.lower() in PICTURES


def pictures_by_number(
    paths: Iterable[str], number_of: Callable[[str], int | None], source: Path
) -> dict[int, str]:
    """Number -> path of its picture; refuses two pictures of one number, for none is the right one.
    Those without a number are passed over."""
    found: dict[int, str] = {}
    for path in filter(is_picture, paths):
        number = number_of(path)
        if number is None:
            continue
        other = found.setdefault(number, path)
        if other != path:
            raise DataError(
                f"{source}: {other!r} and {path!r} are both picture {number}; remove one of them"
            )
    return found


def read_items(source: Path, describe: Describe, start: int) -> Iterator[Item]:
    """What `describe` says of each picture from the `start`-th on, with its bytes."""
    entries = (entry for entry in iter_entries(source) if is_picture(entry.path))
    return items_of(
        islice(entries, start, None), lambda entry: _item(source, entry, describe(entry.path))
    )


def refuse_collisions(names: Iterable[str], source: Path) -> None:
    """Names that differ in case or spaces only would share their prompts."""
    folded: dict[str, str] = {}
    for name in names:
        plain = " ".join(name.casefold().replace("_", " ").split())
        other = folded.setdefault(plain, name)
        if other != name:
            raise DataError(
                f"{source}: class names {other!r} and {name!r} collide: a model cannot tell their "
                "prompts apart; rename one"
            )


def refuse_twins(ids: Iterable[str], source: Path) -> None:
    """Before anything is decoded: two things of one id."""
    twice = sorted(name for name, count in Counter(ids).items() if count > 1)
    if twice:
        raise DataError(
            f"{source}: {len(twice)} ids come more than once, first {twice[0]!r}; remove all but "
            "one of each"
        )


def _item(source: Path, entry: Entry, said: Sample | SetAside) -> Item:
    if isinstance(said, SetAside):
        return said
    data = entry.read()
    decode_image(data, where=f"{source}: {entry.path}")
    return Sample(id=said.id, group=said.group, image=data, label=said.label, decoy=said.decoy)

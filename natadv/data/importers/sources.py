"""The files of an import: checked against their published hashes, and their pictures by name."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from natadv.data.archives import Entry, Files, iter_entries, open_files
from natadv.data.card import CardDraft, draft_card
from natadv.data.classes import template_set
from natadv.data.dataset_plan import DatasetPlan, Item, SetAside, items_of
from natadv.data.images import decode_image
from natadv.data.importers import Checksum, ImportRequest
from natadv.errors import ConfigError, DataError
from natadv.types import Sample

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp")
_CHUNK_BYTES = 2**20

Describe = Callable[[str], Sample | SetAside]
"""Makes a sample, still without its picture, from a path in the archive."""


class ImportSource(NamedTuple):
    """The files of one import."""

    fingerprint: str
    """Changes when one of the files does. Of a file it is the hash; of a folder the hash of the
    names, sizes and times of the files in it."""
    description: str
    """Names the files and where they are published, for the card."""


def identify(request: ImportRequest, *others: Path) -> ImportSource:
    """Hash the requested path and the `others`, and compare each with its published hash.

    Raises DataError if a file is missing or differs; ConfigError if a folder was given a sha256.
    """
    states, descriptions = [], []
    for path in (request.path, *others):
        sha256 = request.sha256 if path == request.path else ""
        if not path.exists():
            access = f"; to get it:\n{request.format.access}" if request.format.access else ""
            raise DataError(f"{path}: is not there{access}")
        if path.is_dir():
            if sha256:
                raise ConfigError(f"{path}: a folder has no sha256; leave --sha256 out")
            states.append(_folder_state(path))
            descriptions.append(f"folder {path.resolve().name!r}")
            continue
        request.say(f"{path.name}: hashing {path.stat().st_size / 1e6:.0f} MB")
        checked = check_archive(path, request.format.published, sha256=sha256)
        if not checked.published:
            pin = ", pin this one with --sha256" if path == request.path else ""
            request.say(
                f"{path.name}: sha256 {checked.sha256}; no published hash is known for a file of "
                f"this name{pin}"
            )
        states.append(checked.sha256)
        descriptions.append(f"{path.name}, sha256 {checked.sha256}")
    origin = f"; from {request.format.source}" if request.format.source else ""
    return ImportSource("+".join(states), "; ".join(descriptions) + origin)


def _folder_state(folder: Path) -> str:
    state = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        stat = path.lstat()
        line = f"{path.relative_to(folder).as_posix()}\0{stat.st_size}\0{stat.st_mtime_ns}\n"
        state.update(line.encode(errors="surrogateescape"))
    return state.hexdigest()


class CheckedArchive(NamedTuple):
    """The hash of an archive, and whether it was compared with a stated one."""

    sha256: str
    published: bool
    """Whether the hash is the one that the publisher states or that the user gave."""


def check_archive(
    path: Path, published: Mapping[str, Checksum], *, sha256: str = ""
) -> CheckedArchive:
    """Hash the file once, and compare it with `sha256`, or else with its published checksum.

    A file for which neither is known is only hashed. Raises DataError if the hashes differ.
    """
    expected, origin = published.get(path.name), "is published"
    if sha256:
        expected, origin = Checksum("sha256", sha256.lower()), "was requested"
    hashes = {"sha256": hashlib.sha256()}
    if expected and expected.algorithm == "git-blob":
        # git hashes the size of a file in front of its contents.
        size = b"blob %d\0" % path.stat().st_size
        hashes["git-blob"] = hashlib.sha1(size, usedforsecurity=False)
    elif expected and expected.algorithm == "md5":
        hashes["md5"] = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            for running in hashes.values():
                running.update(chunk)
    if expected and (digest := hashes[expected.algorithm].hexdigest()) != expected.digest:
        raise DataError(
            f"{path}: {expected.algorithm} is {digest}, {expected.digest} {origin}: the file is "
            "damaged or another one; get it again"
        )
    return CheckedArchive(hashes["sha256"].hexdigest(), expected is not None)


def draft_of(
    request: ImportRequest,
    source: str,
    description: str,
    *,
    task: str = "classification",
    scenario: str = "clean",
    classes: Iterable[str] = (),
    twin_of: str | None = None,
) -> CardDraft:
    """The draft of a card with the name, licence and templates of the request."""
    return draft_card(
        name=request.name,
        tasks=(task,),
        scenario=scenario,
        classes=tuple(classes),
        templates=() if task == "vqa" else template_set(request.templates),
        licence=request.licence or request.format.licence,
        source=source,
        description=description,
        twin_of=twin_of,
    )


def counted(request: ImportRequest, what: str, count: int) -> str:
    """A description with the number of rows, and the published number where it differs."""
    published = request.format.rows
    share = f" of the {published} that are published" if published not in (0, count) else ""
    return f"{what}: {count}{share}"


def picture_paths(source: Path) -> list[str]:
    """Paths of all pictures, in the order of the archive; other files (a README) are skipped.

    Raises DataError if there are none.
    """
    paths = [entry.path for entry in iter_entries(source) if _is_picture(entry.path)]
    if not paths:
        raise DataError(
            f"{source}: no pictures in it; expected files that end in {', '.join(PICTURES)}"
        )
    return paths


def _is_picture(path: str) -> bool:
    return PurePosixPath(path).suffix.lower() in PICTURES


def plan_pictures(
    request: ImportRequest,
    source: ImportSource,
    describe: Describe,
    *,
    what: str,
    classes: Iterable[str],
    scenario: str = "clean",
) -> DatasetPlan:
    """A plan with one item for each picture of a folder or an archive, as `describe` makes it.

    Describes every picture once now, so that a missing label is an error before the long work.
    """
    path = request.path
    described = [describe(picture) for picture in picture_paths(path)]
    ids = [item.id for item in described if isinstance(item, Sample)]
    refuse_duplicates(ids, path)
    draft = draft_of(
        request,
        source.description,
        counted(request, what, len(ids)),
        scenario=scenario,
        classes=classes,
    )

    def item(entry: Entry) -> Item:
        """The described sample with its picture."""
        sample = describe(entry.path)
        if isinstance(sample, SetAside):
            return sample
        data = entry.read()
        decode_image(data, where=f"{path}: {entry.path}")
        return replace(sample, image=data)

    def items(start: int) -> Iterator[Item]:
        """As DatasetPlan defines it."""
        entries = (entry for entry in iter_entries(path) if _is_picture(entry.path))
        return items_of(islice(entries, start, None), item)

    return DatasetPlan(draft, items, len(described), "pictures", source.fingerprint)


class NumberedPicture(NamedTuple):
    """A picture that was decoded once."""

    name: str
    """Its file name without the suffix."""
    data: bytes
    size_px: tuple[int, int]
    """Width and height."""


@dataclass(slots=True)
class NumberedPictures:
    """Pictures of a folder or an archive, each read by the number in its name."""

    source: Path
    files: Files
    paths: Mapping[int, str]
    _last: dict[int, NumberedPicture] = field(default_factory=dict)

    def require(self, numbers: set[int], *, of: int, file_name: str) -> None:
        """Raises DataError if a picture is missing; `file_name` is a format string for it."""
        if missing := sorted(numbers - self.paths.keys()):
            raise DataError(
                f"{self.source}: {len(missing)} of {of} pictures are missing, first "
                f"{file_name.format(missing[0])}; get them again, no picture is replaced by another"
            )

    def read(self, number: int) -> NumberedPicture:
        """The picture; the last one is kept, because rows about one picture follow each other.

        Raises PictureError if it cannot be decoded.
        """
        if number not in self._last:
            path = self.paths[number]
            data = self.files.read(path)
            size_px = decode_image(data, where=f"{self.source}: {path}").size
            self._last.clear()
            self._last[number] = NumberedPicture(PurePosixPath(path).stem, data, size_px)
        return self._last[number]


@contextmanager
def numbered_pictures(
    source: Path, number_of: Callable[[str], int | None]
) -> Iterator[NumberedPictures]:
    """The pictures whose file name (without suffix) holds a number, open until the block ends.

    Raises DataError if two pictures have one number, because neither is sure to be the right one.
    """
    with open_files(source) as files:
        paths: dict[int, str] = {}
        for path in filter(_is_picture, files.sizes):
            number = number_of(PurePosixPath(path).stem)
            if number is None:
                continue
            other = paths.setdefault(number, path)
            if other != path:
                raise DataError(
                    f"{source}: {other!r} and {path!r} are both picture {number}; "
                    "remove one of them"
                )
        yield NumberedPictures(source, files, paths)


def refuse_collisions(names: Iterable[str], source: Path) -> None:
    """Raises DataError if two names differ only in case or spaces: their prompts would be equal."""
    folded: dict[str, str] = {}
    for name in names:
        plain = " ".join(name.casefold().replace("_", " ").split())
        other = folded.setdefault(plain, name)
        if other != name:
            raise DataError(
                f"{source}: class names {other!r} and {name!r} collide: a model cannot tell their "
                "prompts apart; rename one"
            )


def refuse_duplicates(ids: Iterable[str], source: Path) -> None:
    """Raises DataError if two rows have one id; called before anything is decoded."""
    twice = sorted(name for name, count in Counter(ids).items() if count > 1)
    if twice:
        raise DataError(
            f"{source}: {len(twice)} ids come more than once, first {twice[0]!r}; remove all but "
            "one of each"
        )

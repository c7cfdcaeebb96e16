"""The files of an import: checked against their published hashes, and their pictures by name."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from natadv.data.archives import Entry, Files, iter_entries, open_files
from natadv.data.card import UNSTATED, CardDraft, draft_card
from natadv.data.classes import AVERAGING, CLASS_TABLES, class_table, template_set
from natadv.data.dataset_plan import DatasetPlan, Item, SetAside, items_of
from natadv.data.images import decode_image
from natadv.data.importers import Checksum, ImportRequest
from natadv.errors import ConfigError, DataError, unknown_name
from natadv.types import Sample

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp")
_CHUNK_BYTES = 2**20

PictureKey = int | str
"""Names a picture within its dataset: COCO and Visual Genome number them."""

Describe = Callable[[str], Sample | SetAside]
"""Makes a sample, still without its picture, from a path in the archive."""


class ImportSource(NamedTuple):
    """The files of one import."""

    fingerprint: str
    """Changes when one of the files does. Of a file it is the hash; of a folder the hash of the
    names, sizes and times of the files in it."""
    description: str
    """Names the files, for the card."""
    published: bool | None
    """Whether the requested file has a hash that its publisher states; None if none is stated, or a
    folder was given."""


def identify(request: ImportRequest, *others: Path) -> ImportSource:
    """Hash the requested path and the `others`, and compare each with its published hash.

    Raises DataError if a file is missing or differs; ConfigError if a folder was given a sha256.
    """
    states, descriptions = [], []
    published = None
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
        if request.format.source and not (checked.published or sha256):
            pin = ", pin this one with --sha256" if path == request.path else ""
            request.say(
                f"{path.name}: sha256 {checked.sha256}; no published hash is known for a file of "
                f"this name{pin}"
            )
        if path == request.path and request.format.published:
            published = checked.published
        states.append(checked.sha256)
        descriptions.append(f"{path.name}, sha256 {checked.sha256}")
    return ImportSource("+".join(states), "; ".join(descriptions), published)


def _folder_state(folder: Path) -> str:
    state = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        stat = path.lstat()
        line = f"{path.relative_to(folder).as_posix()}\0{stat.st_size}\0{stat.st_mtime_ns}\n"
        state.update(line.encode(errors="surrogateescape"))
    return state.hexdigest()


class CheckedArchive(NamedTuple):
    """The hash of an archive, and whether its publisher states it."""

    sha256: str
    published: bool


def check_archive(
    path: Path, published: Mapping[str, Checksum], *, sha256: str = ""
) -> CheckedArchive:
    """Hash the file once, and compare it with `sha256`, or else with its published checksum.

    A file of another name may have any of the published checksums. Raises DataError if the hash is
    not the one that the user or the publisher states for this file.
    """
    named = published.get(path.name)
    stated = [named] if named else list(published.values())
    hashes = _hashes(path, {"sha256", *(checksum.algorithm for checksum in stated)})
    expected, origin = named, "is published"
    if sha256:
        expected, origin = Checksum("sha256", sha256.lower()), "was requested"
    if expected and (digest := hashes[expected.algorithm]) != expected.digest:
        raise DataError(
            f"{path}: {expected.algorithm} is {digest}, {expected.digest} {origin}: the file is "
            "damaged or another one; get it again"
        )
    known = any(hashes[checksum.algorithm] == checksum.digest for checksum in stated)
    return CheckedArchive(hashes["sha256"], known)


def _hashes(path: Path, algorithms: set[str]) -> dict[str, str]:
    """Algorithm -> digest, read in one pass."""
    hashes = {}
    for algorithm in algorithms:
        plain = "sha1" if algorithm == "git-blob" else algorithm
        hashes[algorithm] = hashlib.new(plain, usedforsecurity=False)
    if "git-blob" in hashes:
        # git hashes the size of a file in front of its contents.
        hashes["git-blob"].update(b"blob %d\0" % path.stat().st_size)
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            for running in hashes.values():
                running.update(chunk)
    return {algorithm: running.hexdigest() for algorithm, running in hashes.items()}


def draft_of(
    request: ImportRequest,
    source: ImportSource,
    what: str,
    *,
    rows: int,
    left_out: int = 0,
    tasks: tuple[str, ...] = ("classification",),
    scenario: str = "clean",
    classes: Iterable[str] = (),
    twin_of: str | None = None,
    candidates: bool = False,
) -> CardDraft:
    """The draft of a card with the name and templates of the request.

    It states the published licence, source and number of rows only if the file has a published
    hash or, where no hash is published, as many items; otherwise it states those of the user.

    Args:
        what: Describes the rows, in the plural.
        rows: How many there are.
        left_out: Items of the source that are set aside.
    """
    published = request.format
    official = source.published
    if official is None:
        official = published.rows in (rows + left_out, 0)
    if not official:
        layout = f"{published.name} ({published.source})"
        origin = f"files of the user, in the layout of {layout}: {source.description}"
    else:
        origin = source.description + (f"; from {published.source}" if published.source else "")
    share = f" of the {published.rows} that are published" if published.rows != rows else ""
    templates = request.templates or published.templates
    return draft_card(
        name=request.name,
        tasks=tasks,
        scenario=scenario,
        classes=tuple(classes),
        templates=() if tasks == ("vqa",) else template_set(templates),
        averaging=AVERAGING.get(templates, "unit"),
        candidates=candidates,
        licence=request.licence or (published.licence if official else UNSTATED),
        source=origin,
        description=f"{what}: {rows}{share if official and published.rows else ''}",
        twin_of=twin_of,
    )


def classes_named(classes: str) -> dict[str, str]:
    """Label key -> class name, in label order: of a committed table, or of a text file with one
    name a line, whose keys are the names. Raises ConfigError."""
    if classes in CLASS_TABLES:
        return class_table(classes)
    path = Path(classes)
    if not path.is_file():
        unknown = unknown_name("class table", classes, CLASS_TABLES)
        raise ConfigError(f"{unknown}; or a text file with one class a line")
    try:
        names = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: classes cannot be read: {error}") from error
    while names and not names[-1]:
        names.pop()
    if "" in names:
        raise DataError(f"{path}:{names.index('') + 1}: expected a class, got an empty line")
    refuse_duplicates(names, path)
    refuse_collisions(names, path)
    return {name: name for name in names}


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
    candidates: bool = False,
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
        source,
        what,
        rows=len(ids),
        left_out=len(described) - len(ids),
        scenario=scenario,
        classes=classes,
        candidates=candidates,
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


class KeyedPicture(NamedTuple):
    """A picture that was decoded once."""

    name: str
    """Its file name without the suffix."""
    data: bytes
    size_px: tuple[int, int]
    """Width and height."""


@dataclass(slots=True)
class KeyedPictures:
    """Pictures of a folder or an archive, each read by the key in its name."""

    source: Path
    files: Files
    paths: Mapping[PictureKey, str]
    _last: dict[PictureKey, KeyedPicture] = field(default_factory=dict)

    def require(self, keys: Set[PictureKey], *, of: int, file_name: str) -> None:
        """Raises DataError if a picture is missing; `file_name` is a format string for it."""
        if missing := keys - self.paths.keys():
            first = min(missing, key=lambda key: (len(str(key)), str(key)))
            raise DataError(
                f"{self.source}: {len(missing)} of {of} pictures are missing, first "
                f"{file_name.format(first)}; get them again, no picture is replaced by another"
            )

    def read(self, key: PictureKey) -> KeyedPicture:
        """The picture; the last one is kept, because rows about one picture follow each other.

        Raises PictureError if it cannot be decoded.
        """
        if key not in self._last:
            path = self.paths[key]
            data = self.files.read(path)
            size_px = decode_image(data, where=f"{self.source}: {path}").size
            self._last.clear()
            self._last[key] = KeyedPicture(PurePosixPath(path).stem, data, size_px)
        return self._last[key]


@contextmanager
def keyed_pictures(
    source: Path, key_of: Callable[[str], PictureKey | None]
) -> Iterator[KeyedPictures]:
    """The pictures whose file name (without suffix) holds a key, open until the block ends.

    Raises DataError if two pictures have one key, because neither is sure to be the right one.
    """
    with open_files(source) as files:
        paths: dict[PictureKey, str] = {}
        for path in filter(_is_picture, files.sizes):
            key = key_of(PurePosixPath(path).stem)
            if key is None:
                continue
            other = paths.setdefault(key, path)
            if other != path:
                raise DataError(
                    f"{source}: {other!r} and {path!r} are both picture {key}; remove one of them"
                )
        yield KeyedPictures(source, files, paths)


def number_of(stem: str) -> int | None:
    """The key of a picture whose file name is its number."""
    return int(stem) if stem.isdecimal() else None


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

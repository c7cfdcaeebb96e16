"""Puts the pages of the site together: those that people write, and those made from the code."""

from __future__ import annotations

import os
import posixpath
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from natadv.errors import DataError, listed
from website import blocks
from website.blocks import ROOT
from website.reference import GENERATED, MADE_FROM, reference_names, reference_pages

AT_ROOT = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
"""Pages beside `docs/`, and where they are on the site. The README is the home page."""
ASSETS = Path(__file__).with_name("assets")

_FENCE = re.compile(r"^ *(```+|~~~+)")
_INLINE = re.compile(r"(!?\[(?:[^\[\]]|\[[^\]]*\])*\])\(([^)\s]+)((?: \"[^\"]*\")?)\)")
_DEFINITION = re.compile(r"^(\[[^\]]+\]: )(\S+)(.*)$")
_NO_PROSE = re.compile(
    r"<!--.*?-->|(`+)[^`]+\1|(?<=\])\([^)]*\)|^    [^\n]*$", re.DOTALL | re.MULTILINE
)
_OUTSIDE = re.compile(r"(?:https?|mailto):", re.IGNORECASE)
_OUTSIDE_FORM = re.compile(
    r"https?://[\w.-]+\.[a-z]{2,}(?::\d+)?(?:[/?#][^\s<>\"]*)?|mailto:\S+@\S+"
)


@dataclass(frozen=True, slots=True)
class Link:
    """A link or a picture of a page."""

    page: Path
    line: int
    target: str

    @property
    def where(self) -> str:
        """`page:line`."""
        return f"{blocks.shown(self.page)}:{self.line}"

    @property
    def folder(self) -> Path:
        """Where a relative target leads from."""
        return self.page.parent


def written_pages() -> dict[str, Path]:
    """Path on the site -> source of each page that people write."""
    docs = {path.name: path for path in sorted((ROOT / "docs").glob("*.md"))}
    return {name: ROOT / source for source, name in AT_ROOT.items()} | docs


def stage(folder: Path) -> list[str]:
    """Write all that the site is built from into an empty folder, and return the paths of its
    pages. Raises DataError if two pages have one path, or a link of a page leads nowhere."""
    written, made = written_pages(), reference_pages()
    if both := written.keys() & made.keys():
        raise DataError(f"expected {listed(sorted(both))} from one source, got two")
    if wrong := wrong_links():
        raise DataError("\n".join(wrong))
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(ROOT / "docs", folder, ignore=shutil.ignore_patterns("*.md"))
    shutil.copytree(ASSETS, folder / "assets")
    for name, source in written.items():
        (folder / name).write_text(on_site(source, name), encoding="utf-8")
    for name, text in made.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text.rstrip() + "\n", encoding="utf-8")
    return [*written, *made]


def on_site(source: Path, name: str) -> str:
    """A page whose links to other files of the repository lead to where those are on the site."""
    return _with_links(source, lambda link: _site_target(link, name))


def links_of(page: Path) -> list[Link]:
    """The links and pictures outside of code."""
    found: list[Link] = []

    def noted(link: Link) -> str:
        found.append(link)
        return link.target

    _with_links(page, noted)
    return found


def prose_of(page: Path) -> str:
    """A page line by line, without code, addresses and comments."""
    text = page.read_text(encoding="utf-8")
    prose = "\n".join("" if is_code else line for _, line, is_code in _lines(text))
    return _NO_PROSE.sub(lambda found: "\n" * found[0].count("\n"), prose)


def wrong_links(given: Iterable[Path] | None = None) -> list[str]:
    """Links of the pages that lead to no file, page or heading, or have no valid form; by default
    of all written pages."""
    made = {f"docs/{name}" for name in reference_names()}
    return [
        f"{link.where}: {why}"
        for page in given or written_pages().values()
        for link in links_of(page)
        if (why := _wrong(link, made))
    ]


def _wrong(link: Link, made: set[str]) -> str:
    if _OUTSIDE.match(link.target):
        fits = _OUTSIDE_FORM.fullmatch(link.target)
        return "" if fits else f"expected an address, got {link.target!r}"
    path, _, anchor = link.target.partition("#")
    if path.startswith("/"):
        return f"expected a relative path, got {link.target!r}"
    target = (link.folder / path) if path else link.page
    inside = os.path.relpath(target, ROOT)
    if inside in made:
        return ""
    if not target.exists():
        return f"{link.target!r} leads to no file"
    if anchor and target.suffix == ".md" and anchor not in anchors_of(target):
        known = listed(sorted(anchors_of(target)), most=8)
        return f"{link.target!r} leads to no heading; known: {known}"
    return ""


def anchors_of(page: Path) -> set[str]:
    """The names that GitHub and the site give to the headings of a page."""
    return {slug(text) for text in blocks.headings_of(page.read_text(encoding="utf-8"))}


def slug(heading: str) -> str:
    """The anchor of a heading: small letters, digits and hyphens."""
    plain = re.sub(r"[^\w\- ]", "", heading.replace("`", "")).strip().lower()
    return plain.replace(" ", "-")


def _site_target(link: Link, name: str) -> str:
    """Where the link leads from the page `name` of the site; empty if to nothing on the site and
    the address of the repository is not known."""
    if _OUTSIDE.match(link.target) or link.target.startswith("#"):
        return link.target
    path, hash_, anchor = link.target.partition("#")
    inside = os.path.relpath(link.folder / path, ROOT)
    if inside in MADE_FROM:
        on_site = f"{GENERATED}/{MADE_FROM[inside]}.md"
    else:
        on_site = AT_ROOT.get(
            inside, inside.removeprefix("docs/") if inside.startswith("docs/") else ""
        )
    if on_site:
        return posixpath.relpath(on_site, posixpath.dirname(name) or ".") + hash_ + anchor
    return f"{repository()}/blob/main/{inside}" if repository() else ""


def repository() -> str:
    """The address of the repository in GitHub Actions; empty elsewhere."""
    server, name = os.environ.get("GITHUB_SERVER_URL"), os.environ.get("GITHUB_REPOSITORY")
    return f"{server}/{name}" if server and name else ""


def _with_links(page: Path, target_of: Callable[[Link], str]) -> str:
    """The page with other targets; a link with an empty one becomes plain words."""
    lines = []
    for number, line, is_code in _lines(page.read_text(encoding="utf-8")):
        lines.append(
            line if is_code else _line_with_links(line, partial(Link, page, number), target_of)
        )
    return "\n".join(lines) + "\n"


def _line_with_links(
    line: str, link: Callable[[str], Link], target_of: Callable[[Link], str]
) -> str:
    def inline(found: re.Match[str]) -> str:
        # A picture may stand in the text of a link.
        words = "[" + _INLINE.sub(inline, found[1].lstrip("!")[1:-1]) + "]"
        target = target_of(link(found[2]))
        if found[1][1:-1] in _paths_of(found[2]):
            words = f"[{_title(link(found[2]))}]"
        mark = "!" * found[1].startswith("!")
        return f"{mark}{words}({target}{found[3]})" if target else words[1:-1]

    def definition(found: re.Match[str]) -> str:
        return found[1] + (target_of(link(found[2])) or "#") + found[3]

    return _DEFINITION.sub(definition, _INLINE.sub(inline, line))


def _paths_of(target: str) -> tuple[str, ...]:
    """How the words of a link may name the page that it leads to."""
    path = target.partition("#")[0]
    return target, path, posixpath.basename(path)


def _title(link: Link) -> str:
    """What a link says on the site whose words are the path of a page: the title of that page, or
    of its section."""
    path = link.folder / link.target.partition("#")[0]
    anchor = link.target.partition("#")[2]
    if path.suffix != ".md":
        return link.target
    if not path.is_file():
        # It is made from the code.
        return path.stem.replace("-", " ")
    headings = blocks.headings_of(path.read_text(encoding="utf-8"))
    return next((one for one in headings if slug(one) == anchor), headings[0])


def _lines(text: str) -> Iterator[tuple[int, str, bool]]:
    """Number, line, and whether it is code."""
    fence = ""
    for number, line in enumerate(text.splitlines(), start=1):
        mark = _FENCE.match(line)
        opens = bool(mark) and not fence
        closes = bool(mark) and bool(fence) and line.strip() == fence
        yield number, line, bool(fence) or opens
        if mark and opens:
            fence = mark[1]
        elif closes:
            fence = ""

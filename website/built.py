"""What is written beside the HTML of the site, and what is checked in it."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import yaml

from website import blocks
from website.blocks import ROOT

_OUTSIDE = ("http:", "https:", "//", "mailto:", "data:", "javascript:")
_LOADING = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href"}
"""Element -> the attribute by which a page loads something as it is opened."""
_NOT_LOADED = {"canonical", "next", "prev", "alternate"}
"""Kinds of `link` that only name another page."""
_ESCAPED = re.compile(r"<code>[^<]*\\\|[^<]*</code>")
_PARTS = ("li", "table", "pre", "blockquote")
"""Elements that GitHub and the site must find equally often in a page."""


class _Page(HTMLParser):
    """The links, the anchors and the parts of one page."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.anchors: set[str] = {""}
        self.parts: Counter[str] = Counter()
        self._inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what the element refers to; parts are those of the article."""
        given = {name: value or "" for name, value in attrs}
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        named = tag == "link" and given.get("rel", "") in _NOT_LOADED
        if tag in _LOADING and given.get(_LOADING[tag]) and not named:
            self.loaded.append(given[_LOADING[tag]])
        elif tag == "a" and "href" in given:
            self.links.append(given["href"])
        self._inside = self._inside or tag == "article"
        self.parts[tag] += self._inside

    def handle_endtag(self, tag: str) -> None:
        """Note where the article ends."""
        self._inside = self._inside and tag != "article"


def write_markdown(site: Path, names: list[str]) -> None:
    """Put each page beside its HTML as plain Markdown, with `llms.txt` and `llms-full.txt`."""
    for name in names:
        shutil.copyfile(ROOT / "build" / "docs" / name, site / name)
    config = _config()
    lines = [f"# {config['site_name']}", "", f"> {config['site_description']}"]
    full = []
    for section, pages in _sections(config["nav"]):
        lines += ["", f"## {section}", ""]
        for title, name in pages:
            text = without_comments((site / name).read_text(encoding="utf-8"))
            lines.append(f"- [{title}]({name}): {description(text)}")
            full.append(f"<!-- {name} -->\n\n{text.strip()}\n")
    rooms = sorted(name for name in names if name.startswith("reference/api/"))
    lines += ["", "## Optional", "", *(f"- [{Path(one).stem}]({one})" for one in rooms)]
    (site / "llms.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (site / "llms-full.txt").write_text("\n".join(full), encoding="utf-8")


class _Loader(yaml.SafeLoader):
    """Reads mkdocs.yml without the tags that only mkdocs understands."""


_Loader.add_multi_constructor("", lambda loader, suffix, node: None)


def _config() -> Any:
    return yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), Loader=_Loader)


def _sections(nav: list[dict[str, object]]) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    for entry in nav:
        for title, held in entry.items():
            if isinstance(held, list):
                yield title, [pair for one in held for pair in one.items()]
            else:
                yield title, [(title, str(held))]


def nav_names() -> list[str]:
    """The pages that the navigation has, in its order."""
    return [name for _, pages in _sections(_config()["nav"]) for _, name in pages]


def without_comments(text: str) -> str:
    """A page without its marks for the tests and without its front matter."""
    text = re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.DOTALL)
    return re.sub(r"^ *<!--.*?-->\n", "", text, flags=re.DOTALL | re.MULTILINE)


def description(text: str) -> str:
    """The first sentence of a page."""
    for paragraph in blocks.paragraphs_of(text):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", " ".join(paragraph.split()))
        if not plain.startswith(("!", "<", "(")):
            return re.split(r"(?<=[.:]) (?=[A-Z`])", plain)[0]
    return ""


def mistakes(site: Path, names: list[str]) -> list[str]:
    """Links and anchors that lead nowhere, pages that load something from elsewhere, and pages that
    read otherwise than on GitHub."""
    found: dict[Path, _Page] = {}
    wrong = []
    for path in sorted(site.rglob("*.html")):
        text = path.read_text(encoding="utf-8")
        found[path] = _Page()
        found[path].feed(text)
        if _ESCAPED.search(text):
            wrong.append(f"{path}: shows \\| in code; write <code>a&#124;b</code> in a table")
    wrong += [line for path, page in found.items() for line in _wrong_links(path, page, found)]
    for name in names:
        page = found[(site / name).with_suffix(".html")]
        expected = blocks.parts_of(without_comments((site / name).read_text(encoding="utf-8")))
        for part in _PARTS:
            if page.parts[part] != expected[part]:
                wrong.append(
                    f"{name}: expected {expected[part]} <{part}> as on GitHub, got "
                    f"{page.parts[part]}; put a blank line before it, or indent by four spaces"
                )
    return wrong


def _wrong_links(path: Path, page: _Page, pages: dict[Path, _Page]) -> Iterator[str]:
    outside = [one for one in page.loaded if one.startswith(_OUTSIDE[:3])]
    yield from (f"{path}: loads {one} from elsewhere" for one in outside)
    for target in (*page.links, *page.loaded):
        if target.startswith(_OUTSIDE):
            continue
        name, _, anchor = target.partition("#")
        file = (path.parent / unquote(name.partition("?")[0])).resolve() if name else path
        file = file / "index.html" if file.is_dir() else file
        # The page for what is not found has its links from the root of the server.
        if path.name == "404.html":
            continue
        if not file.exists():
            yield f"{path}: {target} leads to no file"
        elif file in pages and unquote(anchor) not in pages[file].anchors:
            yield f"{path}: {target} leads to no heading"

"""Openly licensed emoji artwork, brought from npm packages into one small sprite file.

    npm install --prefix DIR emoji-datasource-google@16.0.0 emoji-datasource-twitter@16.0.0 \
        @lobehub/fluent-emoji-3d@1.1.0 @iconify-json/noto-v1@1.2.5 \
        @iconify-json/fluent-emoji-flat@1.2.6 @iconify-json/emojione@1.2.3 \
        @iconify-json/fxemoji@1.2.2 @iconify-json/streamline-emojis@1.2.4
    pip install 'natadv-mini[artwork]'
    python -m mini_world.artwork DIR/node_modules
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from mini_world.licences import licences
from mini_world.params import params
from mini_world.sprites import SPRITES
from mini_world.vocabulary import CLASSES, CLOTHING, EVALUATED, PROPS
from natadv.errors import DataError

Emoji = dict[str, Any]
Drawer = Callable[[Path, Emoji], Image.Image | None]


def bring_in(node_modules: Path, root: Path) -> int:
    """Write the sprite file and its licences below `root`; the number of sprites."""
    rows = list(_rows(node_modules))
    target = root / SPRITES
    target.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), target, compression="none")
    (target.parent / "LICENSES.md").write_text(licences(node_modules), encoding="utf-8")
    return len(rows)


def _rows(node_modules: Path) -> Iterator[dict[str, Any]]:
    emoji = _emoji(node_modules)
    held_out = set(params("sprites")["held_out"])
    for name, short_names in {**CLASSES, **CLOTHING, **PROPS}.items():
        for short_name in short_names:
            for vendor, draw in VENDORS.items():
                picture = draw(node_modules, emoji[short_name])
                if picture is None:
                    continue
                drawing = f"{short_name}@{vendor}"
                unseen = name in EVALUATED and drawing in held_out
                yield {
                    "class": name,
                    "drawing": drawing,
                    "vendor": vendor,
                    "split": "held-out" if unseen else "seen",
                    "image": _encode(picture),
                }


def _emoji(node_modules: Path) -> dict[str, Emoji]:
    path = node_modules / "emoji-datasource-google" / "emoji.json"
    if not path.is_file():
        raise DataError(f"{path} is missing; run npm install as told in mini_world/artwork.py")
    return {e["short_name"]: e for e in json.loads(path.read_text(encoding="utf-8"))}


def _encode(picture: Image.Image) -> bytes:
    """Cut to what is drawn, the longer side at most the sprite size, lossless."""
    picture = picture.convert("RGBA")
    alpha = np.asarray(picture)[..., 3]
    ys, xs = np.nonzero(alpha > 8)
    picture = picture.crop((xs.min(), ys.min(), xs.max() + 1, ys.max() + 1))
    size_px = params("sprites")["size_px"]
    picture.thumbnail((size_px, size_px), Image.Resampling.LANCZOS)
    buffer = BytesIO()
    picture.save(buffer, "WEBP", lossless=True, quality=100, method=6)
    return buffer.getvalue()


def _image_file(package: str, vendor: str) -> Drawer:
    def draw(node_modules: Path, emoji: Emoji) -> Image.Image | None:
        # The packages' sheets fall back to other vendors' artwork, whose licence is another; the
        # single files do not.
        if not emoji[f"has_img_{vendor}"]:
            return None
        path = node_modules / package / "img" / vendor / "64" / str(emoji["image"])
        return Image.open(path).convert("RGBA")

    return draw


def _fluent_3d(node_modules: Path, emoji: Emoji) -> Image.Image | None:
    for code in _codes(emoji):
        path = node_modules / "@lobehub" / "fluent-emoji-3d" / "assets" / f"{code}.webp"
        if path.is_file():
            return Image.open(path).convert("RGBA")
    return None


def _iconify(prefix: str) -> Drawer:
    def draw(node_modules: Path, emoji: Emoji) -> Image.Image | None:
        name = _icon_name(node_modules, emoji)
        icons = _json(node_modules / "@iconify-json" / prefix / "icons.json")
        name = icons.get("aliases", {}).get(name, {}).get("parent", name)
        icon = icons["icons"].get(name)
        if icon is None:
            return None
        width, height = icon.get("width", icons["width"]), icon.get("height", icons["height"])
        return _rasterise(icon["body"], width, height)

    return draw


def _named(prefix: str, names: dict[str, str]) -> Drawer:
    """For sets that name their icons in their own way: short name of the emoji -> icon."""

    def draw(node_modules: Path, emoji: Emoji) -> Image.Image | None:
        name = names.get(str(emoji["short_name"]))
        icons = _json(node_modules / "@iconify-json" / prefix / "icons.json")
        if name is None:
            return None
        icon = icons["icons"][name]
        width, height = icon.get("width", icons["width"]), icon.get("height", icons["height"])
        return _rasterise(icon["body"], width, height)

    return draw


def _rasterise(body: str, width: int, height: int) -> Image.Image:
    import resvg_py

    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="0 0 {width} {height}" width="{width}" height="{height}">{body}</svg>'
    )
    png = resvg_py.svg_to_bytes(svg_string=svg, width=256, height=256, skip_system_fonts=True)
    return Image.open(BytesIO(bytes(png))).convert("RGBA")


def _icon_name(node_modules: Path, emoji: Emoji) -> str:
    # Only this set lists code points; the others name their icons the same way.
    names = _json(node_modules / "@iconify-json" / "fluent-emoji-flat" / "chars.json")
    return next((str(names[code]) for code in _codes(emoji) if code in names), "")


def _codes(emoji: Emoji) -> tuple[str, ...]:
    """The code points in file-name style, with and without the variation selector."""
    full = str(emoji["unified"]).lower()
    return (full, full.replace("-fe0f", ""), f"{full}-fe0f")


_PARSED: dict[Path, Any] = {}


def _json(path: Path) -> Any:
    if path not in _PARSED:
        _PARSED[path] = json.loads(path.read_text(encoding="utf-8"))
    return _PARSED[path]


FXEMOJI: dict[str, str] = {
    "cat": "cat",
    "cat2": "catside",
    "chicken": "chicken",
    "rooster": "rooster",
    "chipmunk": "chipmunk",
    "cow": "cowface",
    "cow2": "cow",
    "dog": "dog",
    "dog2": "dogside",
    "poodle": "poodle",
    "elephant": "elephant",
    "horse": "horseface",
    "racehorse": "horse",
    "ram": "ram",
    "sheep": "sheep",
    "spider": "spider",
}
STREAMLINE: dict[str, str] = {
    "cat": "cat-face",
    "cat2": "cat",
    "chicken": "chicken",
    "rooster": "rooster",
    "chipmunk": "chipmunk",
    "cow": "cow-face",
    "cow2": "cow",
    "dog": "dog-face",
    "dog2": "dog",
    "poodle": "poodle",
    "elephant": "elephant",
    "horse": "horse-face",
    "racehorse": "horse",
    "ram": "ram",
    "sheep": "ewe-1",
}

VENDORS: dict[str, Drawer] = {
    "noto": _image_file("emoji-datasource-google", "google"),
    "twemoji": _image_file("emoji-datasource-twitter", "twitter"),
    "fluent-3d": _fluent_3d,
    "noto-v1": _iconify("noto-v1"),
    "fluent-flat": _iconify("fluent-emoji-flat"),
    "emojione": _iconify("emojione"),
    "fxemoji": _named("fxemoji", FXEMOJI),
    "streamline": _named("streamline-emojis", STREAMLINE),
}


if __name__ == "__main__":
    written = bring_in(Path(sys.argv[1]), Path.cwd())
    print(f"{written} sprites in {SPRITES}")

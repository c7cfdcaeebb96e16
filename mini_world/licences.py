"""Whose artwork the mini world shows, and under which terms."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from natadv.errors import DataError


class Source(NamedTuple):
    """One vendor's artwork, the package it comes in, and what its licence asks for."""

    vendor: str
    package: str
    licence: str
    licence_url: str
    attribution: str
    proof: str
    """A file of the package that states the licence, and the words that state it."""
    words: str


SOURCES: tuple[Source, ...] = (
    Source(
        "noto",
        "emoji-datasource-google",
        "Apache-2.0",
        "https://github.com/googlefonts/noto-emoji/blob/main/LICENSE",
        "Noto Emoji, Copyright Google Inc.",
        "README.md",
        "Android/Google/Noto images, are available under the [Apache License 2.0]",
    ),
    Source(
        "twemoji",
        "emoji-datasource-twitter",
        "CC-BY-4.0",
        "https://github.com/jdecked/twemoji/blob/v15.0.2/LICENSE-GRAPHICS",
        "Twemoji, Copyright Twitter, Inc and other contributors",
        "README.md",
        "Twitter images are available under the [Creative Commons Attribution 4.0 license]",
    ),
    Source(
        "fluent-3d",
        "@lobehub/fluent-emoji-3d",
        "MIT",
        "https://github.com/microsoft/fluentui-emoji/blob/main/LICENSE",
        "Fluent Emoji, Copyright (c) Microsoft Corporation; packaged by LobeHub",
        "package.json",
        '"license": "MIT"',
    ),
    Source(
        "noto-v1",
        "@iconify-json/noto-v1",
        "Apache-2.0",
        "https://github.com/googlefonts/noto-emoji/blob/main/svg/LICENSE",
        "Noto Emoji (v1), Copyright Google Inc.; packaged by Iconify",
        "info.json",
        '"spdx": "Apache-2.0"',
    ),
    Source(
        "fluent-flat",
        "@iconify-json/fluent-emoji-flat",
        "MIT",
        "https://github.com/microsoft/fluentui-emoji/blob/main/LICENSE",
        "Fluent Emoji, Copyright (c) Microsoft Corporation; packaged by Iconify",
        "info.json",
        '"spdx": "MIT"',
    ),
    Source(
        "emojione",
        "@iconify-json/emojione",
        "CC-BY-4.0",
        "https://creativecommons.org/licenses/by/4.0/",
        "Emoji One (v2), https://github.com/EmojiTwo/emojitwo; packaged by Iconify",
        "info.json",
        '"spdx": "CC-BY-4.0"',
    ),
    Source(
        "fxemoji",
        "@iconify-json/fxemoji",
        "Apache-2.0",
        "https://mozilla.github.io/fxemoji/LICENSE.md",
        "Firefox OS Emoji, Copyright Mozilla Foundation; packaged by Iconify",
        "info.json",
        '"spdx": "Apache-2.0"',
    ),
    Source(
        "streamline",
        "@iconify-json/streamline-emojis",
        "CC-BY-4.0",
        "https://creativecommons.org/licenses/by/4.0/",
        "Streamline Emojis, https://github.com/webalys-hq/streamline-vectors; packaged by Iconify",
        "info.json",
        '"spdx": "CC-BY-4.0"',
    ),
)

_INTRODUCTION = """\
# Licences of the artwork

`sprites.parquet` holds emoji drawings by the vendors below. Each was cropped to what is drawn,
scaled down, and stored as lossless WebP; the pictures of the mini datasets compose them onto
painted backgrounds, with rotation, tint, weather and clothing. These are the changes that the
licences ask to be named. The drawings keep their own licences; the code around them is Apache-2.0.
The column `vendor` of the file tells whose a drawing is.

| vendor | artwork | licence | package | version |
| --- | --- | --- | --- | --- |
"""

MIT_NOTICE = """
## MIT (Fluent Emoji)

Copyright (c) Microsoft Corporation.

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and
associated documentation files (the "Software"), to deal in the Software without restriction,
including without limitation the rights to use, copy, modify, merge, publish, distribute,
sublicense, and/or sell copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or
substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT
NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND
NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM,
DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT
OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.

## Apache-2.0 (Noto Emoji, Firefox OS Emoji)

The text of the licence is the one in this repository's `LICENSE`.

## CC-BY-4.0 (Twemoji, Emoji One, Streamline Emojis)

https://creativecommons.org/licenses/by/4.0/
"""


def licences(node_modules: Path) -> str:
    """The licence page; refused if a package no longer states the licence that we rely on."""
    rows = [_row(node_modules, source) for source in SOURCES]
    return _INTRODUCTION + "".join(rows) + MIT_NOTICE


def _row(node_modules: Path, source: Source) -> str:
    folder = node_modules / source.package
    proof = folder / source.proof
    if not proof.is_file() or source.words not in proof.read_text(encoding="utf-8"):
        raise DataError(
            f"{proof}: expected the words {source.words!r}, which state {source.licence}; "
            "read the package's licence before its artwork is used"
        )
    version = json.loads((folder / "package.json").read_text(encoding="utf-8"))["version"]
    return (
        f"| {source.vendor} | {source.attribution} | [{source.licence}]({source.licence_url}) "
        f"| `{source.package}` | {version} |\n"
    )

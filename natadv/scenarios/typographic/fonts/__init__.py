"""The committed free fonts, so that a word looks the same on every machine.

Licences lie beside the files: DejaVu (Bitstream Vera licence; subset to Latin), Liberation, Gelasio
and Caveat (SIL Open Font License 1.1; Gelasio and Caveat are the Latin files of Fontsource 5.3,
unpacked from WOFF2). Liberation is metric-compatible with Arial, Times New Roman and Courier New,
Gelasio with Georgia.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from PIL import ImageFont

FONTS: dict[str, str] = {
    "dejavu-sans": "DejaVuSans.ttf",
    "dejavu-sans-bold": "DejaVuSans-Bold.ttf",
    "liberation-sans": "LiberationSans-Regular.ttf",
    "liberation-serif": "LiberationSerif-Regular.ttf",
    "liberation-mono": "LiberationMono-Regular.ttf",
    "gelasio": "Gelasio-Regular.ttf",
    "caveat": "Caveat-Bold.ttf",
}

# The characters that every one of the fonts can draw; any other would come out as an empty box.
_REPERTOIRE = (
    *range(0x20, 0x7F),
    *range(0xA0, 0xAD),
    *range(0xAE, 0x100),
    *map(ord, "ıŒœ–—‘’“”…€"),  # noqa: RUF001 - typographic punctuation is meant
)
CHARACTERS = frozenset(map(chr, _REPERTOIRE))


@lru_cache(maxsize=512)
def font_at(name: str, px: int) -> ImageFont.FreeTypeFont:
    """The font `name`, a key of `FONTS`, with a size of `px` pixels."""
    # Basic layout: Raqm is missing from some machines, and shapes text differently.
    path = Path(__file__).with_name(FONTS[name])
    return ImageFont.truetype(path, px, layout_engine=ImageFont.Layout.BASIC)

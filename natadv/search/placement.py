"""Places an overlay on one clean sample, as a row of a drawn dataset would have it."""

from __future__ import annotations

from dataclasses import replace

from natadv.scenarios.typographic.layout import Size, lay_out
from natadv.scenarios.typographic.overlay import Overlay, size_after, to_json
from natadv.scenarios.typographic.places import kept_off
from natadv.scenarios.typographic.population import DrawnOverlay
from natadv.scenarios.typographic.twins import mask_after
from natadv.tasks.masks import truth_mask
from natadv.types import Sample


def place_overlay(drawn: DrawnOverlay, text: str, clean: Sample, *, size: Size) -> Overlay:
    """The overlay with its text, off the object if it has to be. Raises ConfigError or DataError if
    it cannot be drawn on a picture of that size."""
    overlay = drawn.saying(text)
    if drawn.off_object and clean.mask is not None:
        overlay = kept_off(overlay, truth_mask(clean))
    lay_out(overlay, size)  # raises if the text has no room
    return overlay


def drawn_row(overlay: Overlay, clean: Sample, *, decoy: str | None, size: Size) -> Sample:
    """A row without a picture of its own: it is drawn on the clean one, which has that size."""
    text = to_json(overlay)
    return replace(
        clean,
        id=f"{clean.id}@{text}",
        image=b"",
        mask=clean.mask if overlay.band is None else mask_after(clean.mask, (overlay,)),
        twin=clean.id,
        decoy=decoy,
        overlay=text,
        drawn_size=size_after(overlay, size),
    )

"""Files of an archive or a folder as pairs of path and bytes, never unpacked, never trusted."""

from __future__ import annotations

from natadv.data.archives.entries import Entry
from natadv.data.archives.opening import Files, iter_entries, open_files

__all__ = ["Entry", "Files", "iter_entries", "open_files"]

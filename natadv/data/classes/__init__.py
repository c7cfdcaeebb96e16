"""Committed class tables; where they come from stands in the README beside them."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from natadv.errors import unknown_name

CLASS_TABLES: dict[str, str] = {"imagenet": "imagenet.tsv", "imagenet-a": "imagenet-a.tsv"}


@cache
def class_table(name: str) -> dict[str, str]:
    """Folder name (for ImageNet the WordNet id) to class name, in label order."""
    if name not in CLASS_TABLES:
        raise unknown_name("class table", name, CLASS_TABLES)
    lines = (Path(__file__).with_name(CLASS_TABLES[name])).read_text(encoding="utf-8").splitlines()
    return dict(line.split("\t") for line in lines[1:])

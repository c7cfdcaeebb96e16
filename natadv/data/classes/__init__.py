"""Committed tables of classes and prompts; the README beside them names their sources."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from natadv.errors import unknown_name
from natadv.types import Averaging

CLASS_TABLES = ("imagenet", "imagenet-a")


@cache
def class_table(name: str) -> dict[str, str]:
    """Folder name (for ImageNet the WordNet id) -> class name, in label order.

    Raises ConfigError if there is no table of this name.
    """
    if name not in CLASS_TABLES:
        raise unknown_name("class table", name, CLASS_TABLES)
    return {row[0]: row[1] for row in _rows(f"{name}.tsv")}


@cache
def ilsvrc2012_wnids() -> dict[int, str]:
    """The id by which the devkit's ground truth names a class (1 to 1000) -> its WordNet id."""
    return {int(row[2]): row[0] for row in _rows("imagenet.tsv")}


def template_set(name: str) -> tuple[str, ...]:
    """The prompt templates of a named set. Raises ConfigError if there is no such set."""
    if name not in TEMPLATES:
        raise unknown_name("template set", name, TEMPLATES)
    return TEMPLATES[name]


def _rows(file: str) -> list[list[str]]:
    text = Path(__file__).with_name(file).read_text(encoding="utf-8")
    return [line.split("\t") for line in text.splitlines()[1:]]


TEMPLATES: dict[str, tuple[str, ...]] = {}
"""Prompt templates by the name of their set; a card lists the templates themselves."""
for _name, _template in _rows("templates.tsv"):
    TEMPLATES[_name] = (*TEMPLATES.get(_name, ()), _template)
# `main_vlm_openclip.py` of Bliss-e-V/SCAM lists the first 32 of OpenAI's, in their order.
TEMPLATES["scam-32"] = TEMPLATES["openai-80"][:32]

AVERAGING: dict[str, Averaging] = {"scam-32": "raw"}
"""How a set's authors averaged its prompts, where they did so in another way than OpenAI, who took
the mean of embeddings of length one."""

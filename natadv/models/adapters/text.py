"""The spelling of prompts that a model was trained on."""

from __future__ import annotations

import string

_KEPT = ","
"""big_vision keeps commas in class names ('hen, chicken'), and a prompt holds a class name."""

_TABLE = str.maketrans("_", " ", "".join(c for c in string.punctuation if c not in "_" + _KEPT))


def canonical(text: str) -> str:
    """Lower case, no punctuation but commas, single spaces: as SigLIP was evaluated."""
    return " ".join(text.translate(_TABLE).lower().split())

"""Types of command-line arguments that several commands take."""

from __future__ import annotations

import argparse


def count(text: str) -> int:
    """A whole number from 1 on. Raises what argparse turns into a usage error."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {text}")
    return value
